"""A student: one network trained by one method on one task, as notebooks 04 to 06 compare them."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import NamedTuple

import torch

from rtkit import compute, evaluation, models, robustness, tasks
from rtkit.data.glyphs import Images, World
from rtkit.data.pictures import Pictures
from rtkit.data.targets import Target
from rtkit.methods import Method
from rtkit.sources import Source
from rtkit.threat import ThreatModel
from rtkit.training import History, train

THREAT = ThreatModel("linf", 4 / 255)  # under which every student is judged


@dataclass(frozen=True)
class Student:
    """One student.

    Args:
        name: what the frame calls its method; `method` is everything that decides its training.
        source: the network that its weights start from, or its terms compare with (a teacher).
        seed: the replicate whose task images, split and attack noise are used.
        target: see `tasks.target`, drawn in `world`; or "source": the task that the source network learned.
        n_train: training images; with "source" as many as the source saw.
        knobs: further columns of the frame by name; whatever they say must also be in the method or the world.
    """

    study: str
    name: str
    method: Method
    source: Source
    seed: int
    target: str
    n_train: int
    world: World | Pictures
    knobs: tuple[tuple[str, float], ...] = ()

    def row(self, metric: str, value: float, n_test: int, **more) -> dict:
        """One observation, with every column that a frame has."""
        row = {"study": self.study, "method": self.name, "source": self.source.kind}
        row |= {"source_eps": self.source.source_eps, "target": self.target, "n_train": self.n_train}
        row |= {"seed": self.seed, "metric": metric, "value": value, "n_test": n_test, "seconds": 0.0, "gradients": 0}
        return row | dict(self.knobs) | more

    @property
    def config(self) -> dict:
        """All that decides its weights beside the code."""
        return {"student": self, "compute": compute.kind()} | tasks.fingerprints(self.source.world, self.target)

    def task(self) -> Target:
        """Its task: images to train on, to choose on, to judge on."""
        if self.target != "source":
            return tasks.target(self.target, self.world, self.seed)
        held_out = self.source.images("test", 1512)
        return Target(self.source.images(), held_out[:512], held_out[512:])


class Trained(NamedTuple):
    """A student after its training: network, task, what happened, and how long it took in seconds."""

    net: models.Network
    task: Target
    history: History
    seconds: float


def trained(student: Student, measure: Callable | None = None, measure_at: tuple[int, ...] = ()) -> Trained:
    """Train a student; `measure` and `measure_at` as in `training.train`, after (network, task)."""
    task, method, seed = student.task(), student.method, student.seed
    reference = student.source.load()[0]
    classes = len(task.classes)
    if method.init == "source":
        net = models.with_new_head(reference, classes, seed, method.hidden)
    else:
        # Another seed than the source's own initialisation, from which a student must differ.
        net = models.create(classes, student.source.architecture, seed + 10**5, method.hidden)
    images = task.pool if student.target == "source" else task.subset(student.n_train, seed)
    look = None if measure is None else lambda net: measure(net, task)
    options = {"held_out": task.validation, "measure": look, "measure_at": measure_at}
    with compute.stopwatch() as seconds:
        history = train(net, images, method.phases, seed, reference=reference, **options)
    return Trained(net, task, history, seconds())


def clean_rows(student: Student, done: Trained) -> Iterator[dict]:
    """Clean accuracy on test and validation images, with the cost of the training."""
    cost = {"seconds": done.seconds, "gradients": done.history.gradients}
    for metric, images in (("clean_accuracy", done.task.test), ("validation_accuracy", done.task.validation)):
        yield student.row(metric, evaluation.accuracy(done.net, images), len(images), **cost)


def attacked(student: Student, net: models.Network, test: Images, surrogates=()) -> Iterator[tuple[str, float]]:
    """Worst case over all attacks, and what only the transferred ones and only Auto-PGD break: shares of all.

    Args:
        surrogates: networks with the same classes, attacks on which are transferred.
    """
    generator = torch.Generator(device=compute.device()).manual_seed(student.seed)
    found = robustness.battery(len(test.classes), steps=20, strong=True, apgd_steps=25, surrogates=surrogates)
    transferred = [found.pop(name) for name in list(found) if name.startswith("transferred")]
    # PGD on two losses, Auto-PGD on the cross-entropy and towards the two nearest classes, the transferred attack last.
    own = list(found.values())[:5]
    tried = [*own, *transferred]
    kept = [robustness.worst_case(net, x, y, THREAT, tried, generator) for x, y in evaluation.batches(test)]
    after = torch.cat(kept, 1).float().mean(1).tolist()  # (1 + attacks,)
    yield "robust_accuracy", after[-1]
    yield "only_transferred", after[len(own)] - after[-1]
    yield "only_auto_pgd", after[2] - after[len(own)]
