"""Does accuracy hold on new images of the same kind? The second study behind notebook 06 (Recht et al. 2019).

Networks that learned CIFAR-10 are tested on its test images and on those of CIFAR-10.1, collected anew by the same
rules.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache

import numpy as np
import torch

from rtkit import evaluation, robustness
from rtkit.data import named, npz
from rtkit.data.glyphs import Images
from rtkit.data.pictures import Pictures
from rtkit.measure import transfer
from rtkit.sources import Source
from rtkit.threat import ThreatModel

STUDY = "new_test_set"
NAME = "cifar10_1"  # its npz file lies beside the data sets
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


def digest(images: Images) -> str:
    """A hash of labelled images, for cache keys."""
    return named.digest({"x": images.x.numpy(), "y": images.y.numpy()})


def order(n: int, *seed: int) -> torch.Tensor:
    """A random order of n images. Shape: (n,)."""
    return torch.from_numpy(np.random.default_rng(seed).permutation(n))


@dataclass(frozen=True)
class Cell:
    """One network that learned CIFAR-10; `network` is what the frame calls it."""

    source: Source
    seed: int
    network: str

    target = "source"

    @property
    def own(self) -> transfer.Cell:
        """The network on its own task."""
        return transfer.Cell("new_test_set", self.source, self.seed, "source", "none")

    @property
    def config(self) -> dict:
        """All that decides its rows beside the code, the new test set that lies on the disk among it."""
        return self.own.config | {"network": self.network, "new_test_set": _digest_of(self.source.world)}


@cache
def _digest_of(world: Pictures) -> str:
    return digest(new_images(world))


def _measure(cell: Cell) -> Iterator[tuple[str, str, float, int, dict]]:
    """(metric, images, value, number of images, further columns)."""
    net, facts = cell.source.load()
    world = cell.source.world
    threat = ThreatModel("linf", world.eps)
    yield "collapsed", OLD, float(facts["collapsed"]), 64, {}
    old = named.images(named.arrays(world.name, world.size), "test", world.size)
    for name, images in ((OLD, old), (NEW, new_images(world))):
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


def rows(cell: Cell) -> Iterator[dict]:
    """Compute the rows of one network, on the old test images and on the new ones.

    Columns as in `transfer.rows`, and `network`, its name; `images`, the test images that a row is about: "old" (all of
    CIFAR-10's), a half of these, or "new"; `part`, their part for the metric "accuracy_in_part".
    """
    for metric, images, value, n, more in _measure(cell):
        yield cell.own.row(metric, value, n, **{"network": cell.network, "part": 0, "images": images} | more)
