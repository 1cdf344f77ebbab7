"""Worlds of real images: what source networks learn, and targets cut from data sets by name."""

from dataclasses import dataclass

import numpy as np

from rtkit.data import named
from rtkit.data.glyphs import Images
from rtkit.data.targets import POOL, TEST, VALIDATION, Target, ranks
from rtkit.limits import must_lie


@dataclass(frozen=True)
class Pictures:
    """A world of real images: what its source networks learn, and how a target is cut from another data set.

    Args:
        name: the data set that source networks learn, "" where they come trained.
        size: height and width of all images, in pixels.
        pool, validation, test: images of a target, see `target`.
        eps: l-infinity radius within which its source networks are attacked, for pixels in [0, 1].
    """

    name: str
    size: int = 32
    pool: int = 1600
    validation: int = 400
    test: int = 2000
    eps: float = 2 / 255


def source(world: Pictures, n: int, seed: int, split: str = "train") -> Images:
    """Draw the task of a source network from the world's data set, as even over the classes as it allows.

    Args:
        split: "train", redrawn by each seed; "held_out", train images from the other end of the same order; "test".

    Raises:
        ValueError: see `named.arrays`; or the set has fewer images than asked for, or n is no number of images.
    """
    must_lie("[1, inf)", whole=True, n=n)
    arrays = named.arrays(world.name, world.size)
    part = "test" if split == "test" else "train"
    y = arrays[f"y_{part}"]
    if n > len(y):
        raise ValueError(f"{named.find(world.name)} has {len(y)} {part} images, {n} were asked for; ask for fewer")
    order = np.random.default_rng([seed, 17]).permutation(len(y))
    order = order[np.argsort(ranks(y[order]), kind="stable")]
    return named.images(arrays, part, world.size, order[::-1][:n].copy() if split == "held_out" else order[:n])


def _evenly(there: np.ndarray, n: int, rng: np.random.Generator) -> np.ndarray:
    """How many to take of each class, n in all or whatever there is, as even as that allows.

    Shape:
        there (K,) -> (K,) int64.
    """
    label = np.repeat(np.arange(len(there)), there)
    order = rng.permutation(len(label))
    turns = np.argsort(ranks(label)[order], kind="stable")
    return np.bincount(label[order[turns][:n]], minlength=len(there))


def target(
    name: str, seed: int, size: int = 32, pool: int = POOL, validation: int = VALIDATION, test: int = TEST
) -> Target:
    """Draw the target task of one replicate from a data set, as even over the classes as it allows.

    Pool and validation images are drawn from the set's train images, test images from its test images. Where a class
    has too few for both, a part of them in the asked proportion validates; where the set has too few, sizes shrink.

    Args:
        pool, validation, test: how many images to draw, at most; but where there are many classes, two of each.

    Raises:
        ValueError: see `named.arrays`; or a class would get fewer than two images in one of the three.
    """
    arrays, rng = named.arrays(name, size), np.random.default_rng([seed, 16])
    classes = len(arrays["classes"])
    must_lie("[1, inf)", whole=True, pool=pool, validation=validation, test=test)
    pool, validation, test = (max(n, 2 * classes) for n in (pool, validation, test))
    there = {part: np.bincount(arrays[f"y_{part}"], minlength=classes) for part in ("train", "test")}
    share = np.maximum(2, there["train"] * validation // max(1, pool + validation))
    counts = {"validation": _evenly(np.minimum(share, there["train"]), validation, rng)}
    counts["pool"] = _evenly(there["train"] - counts["validation"], pool, rng)
    counts["test"] = _evenly(there["test"], test, rng)
    for part in ("pool", "validation", "test"):
        least = int(counts[part].argmin())
        if counts[part][least] < 2:
            raise ValueError(
                f"{named.find(name)}: class {str(arrays['classes'][least])!r} would get {counts[part][least]} {part} "
                "images, it needs two; the set needs four train and two test images of every class, it has "
                f"{there['train'][least]} and {there['test'][least]} of this one: add some, or leave the class out"
            )
    rows = []  # of each class: indices of its pool, validation and test images
    for k in range(classes):
        train, tested = (rng.permutation(np.flatnonzero(arrays[f"y_{part}"] == k)) for part in ("train", "test"))
        n = {part: count[k] for part, count in counts.items()}
        rows.append((train[: n["pool"]], train[len(train) - n["validation"] :], tested[: n["test"]]))
    chosen = [rng.permutation(np.concatenate(part)) for part in zip(*rows, strict=True)]
    parts = zip(("train", "train", "test"), chosen, strict=True)
    return Target(*(named.images(arrays, part, size, index) for part, index in parts))
