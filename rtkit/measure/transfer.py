"""The cell of a transfer study: one source network, carried to one target by one protocol, and what it then scores."""

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import partial

import torch

from rtkit import compute, evaluation, methods, models, probe, robustness, shape_bias, tasks
from rtkit.data import glyphs, targets
from rtkit.data.glyphs import World
from rtkit.data.targets import Target
from rtkit.sources import Source
from rtkit.threat import ThreatModel
from rtkit.training import train

ATTACK = ThreatModel("linf", 4 / 255)  # under which source networks of the glyph world are compared
# Peak learning rates by protocol, one for either source; notebook 01 has the search (`rtkit study 01 --tune`).
RATES = {"fixed_feature": 0.3, "last_block": 0.3, "last_stage": 0.1, "last_two_stages": 0.1}
RATES |= {"full_network": 0.1, "scratch": 0.1}
RANDOMISED = 1 / 20  # how often the texture of a texture-randomised source's world is the label's own: it tells nothing


@dataclass(frozen=True)
class Cell:
    """One cell.

    Args:
        seed: the replicate whose target images, split and attack noise are used.
        target: see `tasks.target`; or "source" to score the source network on its own task.
        protocol: "none" with "source"; otherwise "probe" or one of `methods.transfer`.
        n_train: sizes of the target subset, one or (for the cheap probe) several.
        steps, batch_size, lr: budget of a trained protocol.
        measure_at: steps after which test accuracy is measured on the way.
        n_test: source test images, with "source".
        recipe: "" for a rate that rises and falls; "authors" for that of Utrera et al. 2021, which starts at its peak
            and falls in steps, with first weights of the head from N(0, 1).
        side: pixels to which the target's images are reduced, to be enlarged again; 0 leaves them as they are.
        subset: which subset of the target's images is drawn, and with it the first weights of the head and the order.
    """

    study: str
    source: Source
    seed: int
    target: str
    protocol: str
    n_train: tuple[int, ...] = ()
    steps: int = 0
    batch_size: int = 0
    lr: float = 0.0
    measure_at: tuple[int, ...] = ()
    n_test: int = 0
    recipe: str = ""
    side: int = 0
    subset: int = 0

    @property
    def draw(self) -> int:
        """The seed of its subset."""
        return self.seed + 1000 * self.subset

    def row(self, metric: str, value: float, n_test: int, **more) -> dict:
        """One observation, with every column that a frame has."""
        source, method = self.source, ", ".join(filter(None, (self.protocol, self.recipe)))
        kind = "randomised" if getattr(source.world, "texture_reliability", 1) == RANDOMISED else source.kind
        row = {"study": self.study, "method": method, "source": kind, "source_eps": source.source_eps}
        target = f"{self.target}_{self.side}" if self.side else self.target
        row |= {"target": target, "n_train": 0, "seed": self.seed, "metric": metric, "value": value}
        row |= {"n_test": n_test, "seconds": 0.0, "gradients": 0, "step": 0, "source_seed": source.seed}
        row |= {"subset": self.subset, "architecture": source.architecture}
        knobs = ("texture_amplitude", "shape_reliability")  # of drawn worlds alone
        return row | {name: getattr(source.world, name, math.nan) for name in knobs} | more

    @property
    def config(self) -> dict:
        """All that decides its rows beside the code."""
        return {"cell": self, "compute": compute.kind()} | tasks.fingerprints(self.source.world, self.target)


def _source_rows(cell: Cell) -> Iterator[dict]:
    """How good the source network is on its own task: clean, under attack, and by which cue it decides."""
    net, facts = cell.source.load()
    images = cell.source.images("test", cell.n_test)
    cost = {"seconds": facts["seconds"], "gradients": facts["gradients"]}
    yield cell.row("clean_accuracy", evaluation.accuracy(net, images), len(images), **cost)
    world = cell.source.world
    threat = ATTACK if isinstance(world, World) else ThreatModel("linf", world.eps)
    attacked = robustness.robustness(net, images[:256], threat, steps=10, seed=cell.seed)
    yield cell.row("robust_accuracy", attacked.robust, attacked.n_test)
    yield cell.row("self_check_warnings", len(attacked.warnings), attacked.n_test)
    yield cell.row("collapsed", float(facts["collapsed"]), 64)
    if not isinstance(world, World):
        return
    x, shape, texture = glyphs.cue_conflict(world, cell.n_test // 2, cell.seed)
    decided = evaluation.predictions(net, glyphs.Images(x, shape, images.classes))
    bias = shape_bias.shape_bias(decided, shape, texture)
    if not math.isnan(bias):
        yield cell.row("shape_bias", bias, int(((decided == shape) | (decided == texture)).sum()))


def _probe_rows(cell: Cell, task: Target) -> Iterator[dict]:
    net, facts = cell.source.load()
    mean, std = torch.tensor(facts["mean"]), torch.tensor(facts["std"])
    parts = {"pool": task.pool, "validation_accuracy": task.validation, "clean_accuracy": task.test}
    seen = {part: probe.standardise(evaluation.features(net, images), mean, std) for part, images in parts.items()}
    for n in cell.n_train:
        index = task.subset_index(n, cell.draw)
        with compute.stopwatch() as seconds:
            weights = probe.probe(seen["pool"][index], task.pool.y[index], len(task.classes), cell.seed)
        spent = seconds()
        for metric in ("validation_accuracy", "clean_accuracy"):
            share = float(((seen[metric] @ weights).argmax(1) == parts[metric].y).double().mean())
            yield cell.row(metric, share, len(parts[metric]), n_train=n, seconds=spent)


def trained_rows(cell: Cell, task: Target) -> Iterator[dict]:
    """Carry the cell's source over to a task by training; how it does there, on the way and at the end."""
    (n,), architecture = cell.n_train, cell.source.architecture
    budget = {"steps": cell.steps, "lr": cell.lr, "batch_size": cell.batch_size}
    budget |= {"schedule": "step"} if cell.recipe == "authors" else {}
    method = methods.transfer(cell.protocol, blocks=models.blocks(architecture), **budget)
    if method.init == "source":
        net = models.with_new_head(cell.source.load()[0], len(task.classes), cell.draw)
    else:
        net = models.create(len(task.classes), architecture, cell.draw)
    if cell.recipe == "authors":
        weights = net.head.weight.data
        weights.copy_(torch.randn(weights.shape, generator=torch.Generator().manual_seed(cell.draw)))
        net.head.bias.data.zero_()
    images, measure = task.subset(n, cell.draw), partial(evaluation.accuracy, images=task.test)
    with compute.stopwatch() as seconds:
        history = train(net, images, method.phases, cell.draw, measure=measure, measure_at=cell.measure_at)
    cost = {"n_train": n, "seconds": seconds(), "gradients": history.gradients, "step": cell.steps}
    for step, value in history.measured.items():
        yield cell.row("accuracy_at_step", value, len(task.test), n_train=n, step=step)
    for metric, images in (("clean_accuracy", task.test), ("validation_accuracy", task.validation)):
        yield cell.row(metric, evaluation.accuracy(net, images), len(images), **cost)


def rows(cell: Cell) -> Iterator[dict]:
    """Compute the rows of one cell."""
    if cell.target == "source":
        yield from _source_rows(cell)
        return
    task = tasks.target(cell.target, cell.source.world, cell.seed)
    if cell.side:
        parts = (task.pool, task.validation, task.test)
        task = Target(*(replace(part, x=targets.lower_resolution(part.x, cell.side)) for part in parts))
    yield from (_probe_rows if cell.protocol == "probe" else trained_rows)(cell, task)
