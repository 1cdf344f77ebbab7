"""The cells of notebook 06: what one trained student scores, clean and under attack."""

from collections.abc import Iterator
from dataclasses import replace

import torch

from rtkit import compute, evaluation, models, robustness, store
from rtkit.data.glyphs import Images
from rtkit.definitions import code
from rtkit.measure import students
from rtkit.measure.students import THREAT, Student
from rtkit.models import Network
from rtkit.threat import ThreatModel

CURVE = (0, 2, 4, 8, 16)  # radii of the attack, in grey levels, at which a network's robustness is drawn


def accuracy(net: Network, images: Images, threat: ThreatModel = THREAT) -> float:
    """Accuracy under ten steps of PGD on the margin: enough to compare checkpoints, too little to judge."""
    tried = robustness.battery(len(images.classes), steps=10)["PGD on the margin"]
    generator = torch.Generator(device=compute.device()).manual_seed(0)
    kept = [robustness.worst_case(net, x, y, threat, [tried], generator)[-1] for x, y in evaluation.batches(images)]
    return float(torch.cat(kept).float().mean())


def _train(student: Student) -> tuple[dict, dict]:
    """The student's weights at its last checkpoint and at the one best on validation images, and what happened."""
    first, second = (phase.steps for phase in student.method.phases)
    marks = sorted({max(1, 3 * first // 4), first, first + second})
    best = (-1.0, {})

    def watch(net: Network, task) -> float:
        nonlocal best
        score = accuracy(net, task.validation[: student.n_train // 40])
        if score >= best[0]:
            best = score, {name: value.clone() for name, value in net.state_dict().items()}
        return score

    done = students.trained(student, watch, tuple(marks))
    seen, history = done.history.measured, done.history
    facts = {"seconds": done.seconds, "gradients": history.gradients, "collapsed": history.collapsed}
    facts |= {"moved": abs(seen[first + second] - seen[first])}
    states = {"last": done.net.state_dict(), "best": best[1]}
    return {f"{which}:{name}": value for which, state in states.items() for name, value in state.items()}, facts


def network(student: Student, checkpoint: str = "last") -> tuple[Network, dict]:
    """A trained student, "last" or "best", from the cache or trained now, and the facts of its training."""
    state, facts = store.network(student.config, code(_train), lambda: _train(student))
    net = models.create(len(student.task().classes), student.source.architecture, 0)
    start = f"{checkpoint}:"
    net.load_state_dict({name.removeprefix(start): value for name, value in state.items() if name.startswith(start)})
    return net.to(compute.device()).eval(), facts


def _measure(student: Student) -> Iterator[dict]:
    net, facts = network(student)
    task = student.task()
    n = max(1, student.n_train * 6 // 100)
    cost = {"seconds": facts["seconds"], "gradients": facts["gradients"]}
    for metric, images in (("clean_accuracy", task.test), ("validation_accuracy", task.validation)):
        yield student.row(metric, evaluation.accuracy(net, images), len(images), **cost)
    for metric in ("moved", "collapsed"):
        yield student.row(metric, float(facts[metric]), student.n_train // 40)
    surrogates = [replace(student.source, kind="standard", source_eps=0.0).load()[0]]
    last = dict(students.attacked(student, net, task.test[:n], surrogates))
    for metric in ("robust_accuracy", "only_transferred", "only_auto_pgd"):
        yield student.row(metric, last[metric], n)
    checked = robustness.robustness(net, task.test[: n // 3], THREAT, steps=5, seed=student.seed)
    yield student.row("self_check_warnings", len(checked.warnings), n // 3)
    for eps in CURVE:
        found = accuracy(net, task.test[: n // 3], replace(THREAT, eps=eps / 255))
        yield student.row("accuracy_at", found, n // 3, attack_eps=float(eps))
    under = accuracy(net, task.test[:n])
    yield student.row("generalisation_gap", accuracy(net, task.pool[:n]) - under, n)
    yield student.row("pgd_accuracy", under, n)
    best = network(student, "best")[0]
    yield student.row("pgd_accuracy", accuracy(best, task.test[:n]), n, checkpoint="best")


def rows(student: Student) -> Iterator[dict]:
    """Compute the rows of one student.

    Columns as in `students.Student.row`, and `checkpoint` ("last", or "best"); `attack_eps`, the radius of a curve.
    """
    for row in _measure(student):
        yield {"checkpoint": "last", "attack_eps": 0.0} | row


def validation(student: Student) -> Iterator[dict]:
    """Clean and robust accuracy of a student on validation images: what learning rates and weights are chosen by."""
    done = students.trained(student)
    images = done.task.validation
    yield student.row("clean", evaluation.accuracy(done.net, images), len(images))
    yield student.row("robust", accuracy(done.net, images), len(images))
