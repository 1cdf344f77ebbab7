"""Real images by name: an npz file or a folder of images under data/, as one uint8 tensor of one size.

A data set `NAME` is `data/NAME.npz`, or else the folder `data/NAME/`; data/README.md gives the layouts exactly. A
folder is decoded once, to a file under runs/data whose key holds the names, sizes and times of all images. Nothing
here downloads anything: that is `rtkit data get NAME`, in `rtkit.data.downloads`.
"""

import os
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F

from rtkit import store
from rtkit.data import folders, npz
from rtkit.data.glyphs import Images
from rtkit.data.targets import POOL, TEST, VALIDATION, Target

# name: (torchvision class, number of classes)
TORCHVISION = {
    "mnist": ("MNIST", 10),
    "fashion_mnist": ("FashionMNIST", 10),
    "kmnist": ("KMNIST", 10),
    "cifar10": ("CIFAR10", 10),
    "cifar100": ("CIFAR100", 100),
    "svhn": ("SVHN", 10),
    "stl10": ("STL10", 10),
    "flowers102": ("Flowers102", 102),
    "dtd": ("DTD", 47),
    "oxford_pets": ("OxfordIIITPet", 37),
    "food101": ("Food101", 101),
    "caltech101": ("Caltech101", 101),
}
DOWNLOADS = "torchvision"  # the folder under data/ that is no data set: what torchvision downloaded
MODULES = ("data/named", "data/folders", "data/npz")  # their code decides what a decoded folder holds
_CHUNK = 1000  # images resized at a time


@dataclass(frozen=True)
class Split:
    """A data set: images to train on and images to test on, with the same classes."""

    train: Images
    test: Images

    @property
    def classes(self) -> tuple[str, ...]:
        return self.train.classes


def folder(root: Path | str | None = None) -> Path:
    """Where the data sets are: `root`, else $RTKIT_DATA, else data/ of the checkout."""
    return Path(root or os.environ.get("RTKIT_DATA") or store.ROOT / "data")


def names(root: Path | str | None = None) -> list[str]:
    """The data sets that are there, sound or not."""
    found = [path for path in folder(root).glob("*") if not path.name.startswith(".") and path.name != DOWNLOADS]
    return sorted(
        {path.name if path.is_dir() else path.stem for path in found if path.is_dir() or path.suffix == ".npz"}
    )


def find(name: str, root: Path | str | None = None) -> Path:
    """The npz file, or else the folder, of a data set.

    Raises:
        ValueError: there is neither; the message says how to get it, and what is there.
    """
    here, present = folder(root), names(root)
    if name in present:
        file = here / f"{name}.npz"
        return file if file.is_file() else here / name
    get = f"`rtkit data get {name}` downloads it, or " if name in TORCHVISION else ""
    raise ValueError(
        f"no data set is called {name!r}: {get}put {name}.npz or a folder {name}/ of images into {here} "
        f"(data/README.md says how); there {'are: ' + ', '.join(present) if present else 'is none yet'}"
    )


def _squares(x: np.ndarray, size: int) -> torch.Tensor:
    """(N, H, W, 1 or 3) uint8 -> (N, 3, size, size) uint8, as `folders.square` does it."""
    height, width = x.shape[1:3]
    edge = min(height, width)
    top, left = (height - edge) // 2, (width - edge) // 2
    cut = torch.from_numpy(x)[:, top : top + edge, left : left + edge].permute(0, 3, 1, 2)
    out = torch.empty((len(x), 3, size, size), dtype=torch.uint8)
    for at in range(0, len(x), _CHUNK):
        part = cut[at : at + _CHUNK]
        if edge != size:
            part = F.interpolate(part.float(), size=(size, size), mode="bilinear", antialias=True)
            part = part.round().clamp(0, 255).to(torch.uint8)
        out[at : at + _CHUNK] = part
    return out


def _read_folder(path: Path, size: int, stamp: str) -> dict[str, np.ndarray]:
    def decode():
        classes, parts = folders.scan(path)
        arrays = {"classes": np.array(classes)}
        for part, files in parts.items():
            arrays[f"x_{part}"] = np.stack([folders.decode(file, size) for file, _ in files])
            arrays[f"y_{part}"] = np.array([label for _, label in files])
        return arrays

    def read(file):
        if not file.exists():
            raise FileNotFoundError(file)
        return npz.read(file)

    return store.cached(store.RUNS / "data" / f"{path.name}-{size}-{stamp}.npz", read, decode, npz.to_bytes)


def _stamp(path: Path, size: int) -> str:
    """What a data set on disk is told by: the names, sizes and times of its files, and the code that reads them."""
    files = [path]
    if path.is_dir():
        files = [file for part in folders.scan(path)[1].values() for file, _ in part]
    facts = [[str(file.relative_to(path)), file.stat().st_size, file.stat().st_mtime_ns] for file in files]
    return store.key({"files": facts, "size": size}, MODULES)


@lru_cache(maxsize=2)
def _load(path: Path, size: int, stamp: str) -> Split:
    if path.is_dir():
        arrays = _read_folder(path, size, stamp)
    else:
        arrays = npz.read(path)
        npz.check(arrays, path)
    classes = tuple(arrays["classes"].tolist())
    parts = {}
    for part in ("train", "test"):
        y = torch.from_numpy(arrays[f"y_{part}"].astype(np.int64))
        parts[part] = Images(_squares(arrays[f"x_{part}"], size), y, classes)
    return Split(**parts)


def load(name: str, size: int = 32, root: Path | str | None = None) -> Split:
    """Read a data set by name.

    Args:
        size: height and width of the images, in pixels; others are resized (`folders.square`).
        root: the folder that holds the data sets; see `folder`.

    Raises:
        ValueError: the set is missing or unusable; the message names the file and the remedy.
    """
    path = find(name, root)
    return _load(path, size, _stamp(path, size))


def _evenly(there: np.ndarray, n: int, rng: np.random.Generator) -> np.ndarray:
    """How many to take of each class, n in all or whatever there is, as even as that allows.

    Shape:
        there (K,) -> (K,) int64.
    """
    label = np.repeat(np.arange(len(there)), there)
    rank = np.concatenate([np.arange(count) for count in there])  # how many of its own class come before it
    order = rng.permutation(len(label))
    return np.bincount(label[order[np.argsort(rank[order], kind="stable")][:n]], minlength=len(there))


def target(
    name: str,
    seed: int,
    size: int = 32,
    pool: int = POOL,
    validation: int = VALIDATION,
    test: int = TEST,
    root: Path | str | None = None,
) -> Target:
    """Draw the target task of one replicate from a data set, as even over the classes as it allows.

    Pool and validation images are drawn from the set's train images, test images from its test images. Where a class
    has too few for both, a part of them in the asked proportion validates; where the set has too few, sizes shrink.

    Args:
        pool, validation, test: how many images to draw, at most.

    Raises:
        ValueError: see `load`; or a class would get fewer than two images in one of the three.
    """
    split, rng = load(name, size, root), np.random.default_rng([seed, 16])
    classes = len(split.classes)
    there = {part: np.bincount(getattr(split, part).y.numpy(), minlength=classes) for part in ("train", "test")}
    share = np.maximum(2, there["train"] * validation // max(1, pool + validation))
    counts = {"validation": _evenly(np.minimum(share, there["train"]), validation, rng)}
    counts["pool"] = _evenly(there["train"] - counts["validation"], pool, rng)
    counts["test"] = _evenly(there["test"], test, rng)
    for part, asked in (("pool", pool), ("validation", validation), ("test", test)):
        least = int(counts[part].argmin())
        if counts[part][least] < 2:
            remedy = (
                f"ask for {part} >= {2 * classes}"
                if asked < 2 * classes
                else f"the set needs four train and two test images of every class, it has {there['train'][least]} "
                f"and {there['test'][least]} of this one: add some, or leave the class out"
            )
            raise ValueError(
                f"{find(name, root)}: class {split.classes[least]!r} would get {counts[part][least]} {part} images of "
                f"{asked}, it needs two; {remedy}"
            )
    index = {"pool": [], "validation": [], "test": []}
    for k in range(classes):
        train, tested = (rng.permutation(np.flatnonzero(getattr(split, p).y.numpy() == k)) for p in ("train", "test"))
        index["pool"].append(train[: counts["pool"][k]])
        index["validation"].append(train[len(train) - counts["validation"][k] :])
        index["test"].append(tested[: counts["test"][k]])
    chosen = {part: torch.from_numpy(rng.permutation(np.concatenate(rows))) for part, rows in index.items()}
    return Target(split.train[chosen["pool"]], split.train[chosen["validation"]], split.test[chosen["test"]])
