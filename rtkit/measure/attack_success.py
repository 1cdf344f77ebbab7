"""The cells of the study behind notebook 04: what an attacker makes, and which students fall for it."""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from typing import ClassVar

import torch

from rtkit import attacks, compute, evaluation, feature_attacks, models, store, tasks
from rtkit.data.glyphs import World
from rtkit.data.pictures import Pictures
from rtkit.definitions import code
from rtkit.feature_attacks import THREAT
from rtkit.measure import students
from rtkit.measure.students import Student
from rtkit.methods import Method
from rtkit.sources import Source
from rtkit.threat import ThreatModel
from rtkit.training import train

UNITS = 5  # most active features of the source, on its own training images
RADII = (1, 2, 4, 8, 16, 32)  # grey levels of 255, within which a student is attacked itself, and its attacker's
STEPS = 10  # of 0.4 eps; on tuning seed 100 forty of 0.1 eps fooled as many, to a point or two


@dataclass(frozen=True)
class Attacker:
    """Who has the public source and, for the adaptive attack, as many labelled images of the target as a student.

    Args:
        n_train: labelled images of the target; n_test: test images that are attacked, a quarter of them directly, too.
        method: by which the surrogate of the adaptive attack is trained, as the student is that it stands for.
    """

    source: Source
    seed: int
    target: str
    n_train: int
    n_test: int
    method: Method
    world: World | Pictures
    eps: ClassVar[float] = THREAT.eps
    steps: ClassVar[int] = STEPS

    @property
    def threat(self) -> ThreatModel:
        """How far it moves a pixel."""
        return ThreatModel("linf", self.eps)

    def make(self) -> dict[str, torch.Tensor]:
        """All attacked test images by form: "neuron J" five times, "features", "stages", "paper", "adaptive"."""
        task, (net, facts) = tasks.target(self.target, self.world, self.seed), self.source.load()
        generator = torch.Generator(device=compute.device()).manual_seed(self.seed)
        units = torch.tensor(facts["mean"]).topk(UNITS).indices.tolist()
        surrogate = self.surrogate()
        parts = []
        for x, _ in evaluation.batches(task.test[: self.n_test]):
            made = feature_attacks.attacked(net, x, units, self.threat, steps=self.steps, generator=generator)
            paper = feature_attacks.attacked(net, x, [0], self.threat, forms=("neuron",), generator=generator)
            made["paper"] = paper["neuron 0"]
            with compute.autocast():
                own = evaluation.logits(surrogate, x).argmax(1)
                how = {"steps": self.steps, "loss": attacks.margin, "generator": generator}
                made["adaptive"] = attacks.pgd(surrogate, x, own, self.threat, **how)
            parts.append({form: _pack(attacked - x, self.eps) for form, attacked in made.items()})
        return {form: torch.cat([part[form] for part in parts]) for form in parts[0]}

    def surrogate(self):
        """A student of the attacker's own: the full method, images that no student of size n has, another seed."""
        task, seed = tasks.target(self.target, self.world, self.seed), self.seed + 10**4
        taken = set(task.subset_index(self.n_train, self.seed).tolist())
        own = [k for k in range(len(task.pool)) if k not in taken][: self.n_train]
        net = models.create(len(task.classes), self.source.architecture, seed)
        train(net, task.pool[own], self.method.phases, seed, reference=self.source.load()[0])
        return net

    @property
    def config(self) -> dict:
        """All that decides the attacked images."""
        return {"attacker": self, "compute": compute.kind()} | tasks.fingerprints(self.world, self.target)

    def load(self) -> dict[str, torch.Tensor]:
        """The changes that it makes to test images by form, packed; made once per replicate."""
        return store.network(self.config, code(Attacker), lambda: (self.make(), {}))[0]


@dataclass(frozen=True)
class OtherAttacker(Attacker):
    """One who moves a pixel farther or less far, or by more or fewer steps; the fields name its cells apart."""

    eps: float = THREAT.eps
    steps: int = STEPS


def _pack(delta: torch.Tensor, eps: float) -> torch.Tensor:
    # Steps of eps / 127, towards zero so that none leaves the ball: an eighth of the space, an error of 0.05/255.
    return (delta * (127 / eps)).trunc().to(torch.int8).cpu()


@lru_cache(maxsize=2)
def attacked(attacker: Attacker) -> tuple[torch.Tensor, torch.Tensor, dict[str, torch.Tensor]]:
    """The test images as they are, their labels, and their attacked copies by form, made once per replicate."""
    packed = attacker.load()
    images = tasks.target(attacker.target, attacker.world, attacker.seed).test[: attacker.n_test]
    x = compute.to_pixels(images.x)
    copies = {form: (x + delta.to(x) * (attacker.eps / 127)).clamp(0, 1) for form, delta in sorted(packed.items())}
    return x, images.y.to(x.device), copies


def _decisions(net, x: torch.Tensor) -> torch.Tensor:
    return torch.cat([evaluation.logits(net, part).argmax(1) for part in x.split(evaluation.BATCH)])


def _features(net, x: torch.Tensor) -> torch.Tensor:
    with torch.no_grad(), attacks.frozen(net):
        return torch.cat([net.features(part) for part in x.split(evaluation.BATCH)])


def _success(done: Student, net, attacker: Attacker) -> Iterator[dict]:
    """Success rates of every form; of the source itself, changes of its own decisions instead of wrong ones."""
    x, y, copies = attacked(attacker)
    decided = _decisions(net, x)
    own = done.name == "source"
    y = decided if own else y
    seen = {form: _decisions(net, copy) for form, copy in copies.items()}
    generator = torch.Generator(device=x.device).manual_seed(attacker.seed + 7)
    tried = [form for form in seen if form.split()[0] in ("neuron", "features", "stages")]
    noisy = feature_attacks.noise(x, attacker.threat, len(tried), generator)
    groups = {"any": tried, "neurons": [form for form in tried if form.startswith("neuron")]}
    groups |= {form: [form] for form in ("features", "stages", "paper")}
    if done.n_train == attacker.n_train:  # a larger set holds the attacker's images
        groups["adaptive"] = [*tried, "adaptive"]
    found = {name: torch.stack([seen[form] for form in forms]) for name, forms in groups.items()}
    found["noise"] = torch.stack([_decisions(net, copy) for copy in noisy])
    found["clipping"] = _decisions(net, feature_attacks.clip_as_the_paper(x))[None]
    for form, decisions in found.items():
        count, right = feature_attacks.fooled(decided, y, decisions)
        yield done.row("attack_success_rate", count / max(right, 1), right, form=form)
    if own:
        return
    some = (decided == y)[: attacker.n_test // 4].nonzero()[:, 0]
    for radius, share in _direct(net, x[some], y[some], attacker, generator):
        yield done.row("direct_success_rate", share, len(some), form=f"within {radius:g}")


def _direct(net, x, y, attacker: Attacker, generator) -> Iterator[tuple[float, float]]:
    """Within each radius in grey levels, the share of some images that PGD on the network itself has turned by then."""
    number = max(len(x), 1)
    for radius in sorted({*RADII, round(255 * attacker.eps, 2)}):
        if len(x):
            threat = ThreatModel("linf", radius / 255)
            how = {"steps": attacker.steps, "loss": attacks.margin, "generator": generator}
            stands = _decisions(net, attacks.pgd(net, x, y, threat, **how)) == y
            x, y = x[stands], y[stands]  # what falls within one radius falls within any larger one
        yield radius, 1 - len(x) / number


def _rows(cell: Student, attacker: Attacker) -> Iterator[dict]:
    if cell.name == "source":
        yield from _success(cell, cell.source.load()[0], attacker)
        x = attacked(attacker)[0]
        changed = float(((feature_attacks.clip_as_the_paper(x) - x).abs() > 1e-6).float().mean())
        yield cell.row("clipped_pixels", changed, len(x), form="clipping")
        return
    done = students.trained(cell)
    yield from (row | {"form": ""} for row in students.clean_rows(cell, done))
    yield from _success(cell, done.net, attacker)
    x, _, copies = attacked(attacker)
    for form, images in (("", x), ("stages", copies["stages"])):
        alike = feature_attacks.similarity(_features(done.net, images), _features(cell.source.load()[0], images))
        yield cell.row("similarity", alike, len(x), form=form)


@dataclass(frozen=True)
class Cell:
    """One student with the attacker whose images it is shown; the student "source" is the public source itself."""

    student: Student
    attacker: Attacker

    @property
    def needs(self) -> tuple:
        """What must be there before it is computed, in this order."""
        return (self.student.source, self.attacker)

    @property
    def target(self) -> str:
        return self.student.target

    @property
    def config(self) -> dict:
        """All that decides its rows beside the code."""
        return {"student": self.student} | self.attacker.config


def rows(cell: Cell) -> Iterator[dict]:
    """Compute the rows of one cell: `students.Student.row`'s columns, `form` of the attack, and `architecture`.

    The form "any" is the worst of seven, "adaptive" of these and the surrogate's; that of a direct attack is its radius
    in grey levels. `n_test` of a success rate is the number of images that are right as they are.
    """
    for row in _rows(cell.student, cell.attacker):
        yield row | {"architecture": cell.student.source.architecture}


def validation(student: Student) -> Iterator[dict]:
    """Clean rows of a student that nobody attacks: what learning rates are chosen by."""
    yield from students.clean_rows(student, students.trained(student))
