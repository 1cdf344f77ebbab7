"""Does accuracy hold on new images of the same kind? The second study behind notebook 06 (Recht et al. 2019).

Networks that learned CIFAR-10 are tested on its test images and on those of CIFAR-10.1, collected anew by the same
rules.
"""

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import partial

import numpy as np
import pandas as pd
import torch

from rtkit import evaluation, presets, robustness, store, studies
from rtkit.data import named, npz
from rtkit.data.glyphs import Images
from rtkit.data.pictures import Pictures
from rtkit.sources import Source
from rtkit.studies import cells
from rtkit.studies.cells import Cell
from rtkit.threat import ThreatModel

STUDY = "new_test_set"
MODULES = (*cells.MODULES, "studies/new_test_set")
NAME = "cifar10_1"  # its npz file lies beside the data sets
PLANS = {"cifar-small": Pictures("cifar10"), "cifar": Pictures("cifar10")}  # what the networks learn
# Each network: its kind, its radius in those of the world, and the part of the preset's steps that it gets, one in how
# many. Those that train briefly spread the accuracies, so that there is a slope to speak of.
NETWORKS = {
    "standard": ("standard", 0, 1),
    "noise": ("noise", 1, 1),
    "robust": ("robust", 1, 1),
    "robust, twice the radius": ("robust", 2, 1),
    "standard, a third of the steps": ("standard", 0, 3),
    "standard, an eighth of the steps": ("standard", 0, 8),
}
BRIEF = tuple(name for name, (_, _, parts) in NETWORKS.items() if parts > 1)
OLD, NEW, HALVES = "old", "new", ("old, first half", "old, second half")
PARTS = 24  # that a test set is cut into, the same for every network; replicates share them out
ATTACKED = 256  # images


def new_images(world: Pictures) -> Images:
    """Read the new test set, data/cifar10_1.npz, at the size of a world's images.

    Raises:
        ValueError: the file or CIFAR-10 is missing or of no use; the message names the file and the remedy.
    """
    known = named.arrays(world.name, world.size)["classes"]
    if len(known) != 10:
        raise ValueError(
            f"{named.find(world.name)} has {len(known)} classes instead of CIFAR-10's ten; `rtkit data get cifar10`, "
            "after removing it, downloads the original"
        )
    path = named.folder() / f"{NAME}.npz"
    if not path.is_file():
        raise ValueError(
            f"no CIFAR-10.1: {path} is missing; it must hold x_test and y_test (data/README.md says how to write it)"
        )
    arrays = npz.read(path, ("x_test", "y_test")) | {"classes": known}
    npz.check(arrays, path, ("test",))
    if len(arrays["y_test"]) < PARTS:
        raise ValueError(f"{path} has {len(arrays['y_test'])} images; it needs {PARTS} or more (data/README.md)")
    return named.images(arrays, "test", world.size)


def old_images(world: Pictures) -> Images:
    """All test images of the data set that a world's networks learn, in its order."""
    return named.images(named.arrays(world.name, world.size), "test", world.size)


def digest(images: Images) -> str:
    """A hash of labelled images, for cache keys."""
    found = hashlib.sha256(repr(tuple(images.x.shape)).encode())
    for part in (images.x, images.y):
        found.update(part.numpy().tobytes())
    return found.hexdigest()[:24]


def networks(preset: str, seed: int) -> dict[str, Source]:
    """The networks of a replicate by name, among them those of the cue-conflict study."""
    chosen, world = presets.get(preset), studies.size(STUDY, PLANS, preset)
    found = {}
    for name, (kind, radii, parts) in NETWORKS.items():
        source = Source.of(chosen, kind, radii * world.eps if radii else 0.0, seed, world)
        found[name] = replace(source, steps=source.steps // parts)
    return found


def order(n: int, *seed: int) -> torch.Tensor:
    """A random order of n images. Shape: (n,)."""
    return torch.from_numpy(np.random.default_rng(seed).permutation(n))


def _measure(cell: Cell) -> Iterator[tuple[str, str, float, int, dict]]:
    """(metric, images, value, number of images, further columns)."""
    net, facts = cell.source.load()
    world = cell.source.world
    threat = ThreatModel("linf", world.eps)
    yield "collapsed", OLD, float(facts["collapsed"]), 64, {}
    for name, images in ((OLD, old_images(world)), (NEW, new_images(world))):
        n = len(images)
        correct = (evaluation.predictions(net, images) == images.y).float()
        cost = {"seconds": facts["seconds"], "gradients": facts["gradients"]} if name == OLD else {}
        yield "clean_accuracy", name, float(correct.mean()), n, cost
        drawn = order(n, cell.seed, 18)
        if name == OLD:
            for half, index in zip(HALVES, drawn.tensor_split(2), strict=True):
                yield "clean_accuracy", half, float(correct[index].mean()), len(index), {}
        for k, index in enumerate(order(n, 19).tensor_split(PARTS)):
            yield "accuracy_in_part", name, float(correct[index].mean()), len(index), {"part": k}
        attacked = robustness.robustness(net, images[drawn[:ATTACKED]], threat, steps=10, seed=cell.seed)
        yield "robust_accuracy", name, attacked.robust, attacked.n_test, {}
        yield "self_check_warnings", name, len(attacked.warnings), attacked.n_test, {}


def _config(cell: Cell, new: str) -> dict:
    return cell.config | {"new_test_set": new}


def rows(cell: Cell, preset: str, new: str) -> list[dict]:
    """Return the rows of one network, from the cache or computed: on the old test images and on the new ones.

    Args:
        new: the digest of the new test set as it lies on the disk.
    """
    names = {source: name for name, source in networks(preset, cell.source.seed).items()}

    def make():
        facts = {"network": names[cell.source], "part": 0}
        return [
            cell.row(metric, value, n, **facts | {"images": images} | more)
            for metric, images, value, n, more in _measure(cell)
        ]

    return store.cell(STUDY, _config(cell, new), MODULES, make)


def _is_cached(cell: Cell, new: str) -> bool:
    return store.cell_path(STUDY, _config(cell, new), MODULES).exists()


def plan(preset: str, seeds: Sequence[int] | None = None) -> list[Cell]:
    """All cells of the study at a preset, without computing any.

    Raises:
        ValueError: the study does not run at the preset, the seeds are no whole numbers, or data are missing
            (`new_images`).
    """
    new_images(studies.size(STUDY, PLANS, preset))
    return [
        Cell(STUDY, source, seed, "source", "none")
        for seed in presets.replicates(presets.get(preset), seeds)
        for source in networks(preset, seed).values()
    ]


def run(preset: str = "cifar-small", seeds: Sequence[int] | None = None) -> pd.DataFrame:
    """Make the frame of the study, cell by cell; cells and networks in the cache are read.

    Returns:
        Columns as in `transfer.run`, and `network`, a name of `NETWORKS`; `images`, the test images that a row is
        about: "old" (all of CIFAR-10's), a half of these, or "new"; `part`, their part for the metric
        "accuracy_in_part".

    Raises:
        ValueError: see `plan`.
    """
    todo = plan(preset, seeds)
    new = digest(new_images(PLANS[preset]))
    return studies.frame(preset, todo, partial(rows, preset=preset, new=new), partial(_is_cached, new=new))
