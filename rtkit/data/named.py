"""Real images by name: an npz file or a folder of images under data/, as one uint8 tensor of one size.

A data set `NAME` is `data/NAME.npz`, or else the folder `data/NAME/`; data/README.md gives the layouts exactly. A
folder is decoded once, to a file under runs/data whose key holds what the disk knows of all images: names, sizes,
times, inodes. Nothing here downloads anything: that is `rtkit data get NAME`, in `rtkit.data.downloads`.
"""

import hashlib
import os
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F

from rtkit import store
from rtkit.data import folders, npz
from rtkit.data.glyphs import Images
from rtkit.data.targets import NAMES
from rtkit.definitions import code

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
DOWNLOADS = "torchvision"  # what torchvision downloaded
# What lies beside the data sets and is none: downloads, networks, stimuli, a test set alone.
RESERVED = (DOWNLOADS, "checkpoints", "cue_conflict", "cifar10_1")
# What a frame calls things of the kit's own: targets of the glyph world, and the task of a source network.
TAKEN = (*NAMES, "source")
_CHUNK = 1000  # images resized at a time


def folder() -> Path:
    """Where the data sets are: $RTKIT_DATA, else data/ of the checkout."""
    return Path(os.environ.get("RTKIT_DATA") or store.ROOT / "data")


def names() -> list[str]:
    """The data sets that are there, sound or not; in a name that is not UTF-8, backslashes say what is odd."""
    found = [path for path in folder().glob("*") if not path.name.startswith(".")]
    known = {path.name if path.is_dir() else path.stem for path in found if path.is_dir() or path.suffix == ".npz"}
    return sorted(folders.readable(name) for name in known.difference(RESERVED))


def find(name: str) -> Path:
    """The npz file, or else the folder, of a data set.

    Raises:
        ValueError: there is neither; the message says how to get it, and what is there. Or its name is one of `TAKEN`,
            or not UTF-8.
    """
    here, present, name = folder(), names(), folders.readable(name)
    if name in TAKEN:
        what = "a target of the glyph world" if name in NAMES else "the kit's word for what a source network learned"
        raise ValueError(f"{here / name}: {name!r} is {what}; give the data set another name")
    if name in present:
        found = next((path for path in (here / f"{name}.npz", here / name) if path.exists()), None)
        if not found:
            raise ValueError(f"{here}: the name {name!r} is not UTF-8; rename the data set")
        return found
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
    classes, parts, left = folders.scan(path)
    folders.warn(path, left)

    def decode():
        arrays = {"classes": np.array(classes)}
        for part, files in parts.items():
            arrays[f"x_{part}"] = np.stack([folders.decode(file, size) for file, _ in files])
            arrays[f"y_{part}"] = np.array([label for _, label in files])
        return arrays

    def read(file):
        file.open("rb").close()  # whether it is there and may be read, npz does not tell from damage
        return npz.read(file)

    return store.cached(store.RUNS / "data" / f"{path.name}-{size}-{stamp}.npz", read, decode, npz.to_bytes)


def _stamp(path: Path, size: int) -> str:
    """What a data set on disk is told by: what the disk knows of its files, and the code that reads them."""
    files = [path]
    if path.is_dir():
        files = [file for part in folders.scan(path)[1].values() for file, _ in part]
    try:
        known = [(str(file.relative_to(path)), file.stat()) for file in files]
    except OSError as error:
        raise ValueError(f"{error.filename} cannot be used ({error.strerror}); repair or remove it") from error
    facts = [(name, now.st_size, now.st_mtime_ns, now.st_ctime_ns, now.st_ino, now.st_dev) for name, now in known]
    return store.key({"folder": repr(path.resolve()), "files": facts, "size": size}, code(_read_folder))


@lru_cache(maxsize=8)
def _arrays(path: Path, size: int, stamp: str) -> dict[str, np.ndarray]:
    """The five arrays of a data set; images of a folder are of the asked size already."""
    if path.is_dir():
        return _read_folder(path, size, stamp)
    arrays = npz.read(path)
    npz.check(arrays, path)
    return arrays


def arrays(name: str, size: int) -> dict[str, np.ndarray]:
    """The five arrays of a data set (data/README.md); only a folder's are of the asked size. Raises as `load`."""
    path = find(name)
    return _arrays(path, size, _stamp(path, size))


def images(arrays: dict[str, np.ndarray], part: str, size: int, index=slice(None)) -> Images:
    """The images of a part, "train" or "test", at these indices and of this size."""
    y = torch.from_numpy(arrays[f"y_{part}"][index].astype(np.int64))
    return Images(_squares(arrays[f"x_{part}"][index], size), y, tuple(arrays["classes"].tolist()))


def digest(arrays: Mapping[str, np.ndarray], what: str = "") -> str:
    """A hash of arrays, for cache keys, and of what they are."""
    found = hashlib.sha256(what.encode())
    for name, array in sorted(arrays.items()):
        found.update(f"{name} {array.dtype} {array.shape}\n".encode() + np.ascontiguousarray(array).tobytes())
    return found.hexdigest()[:24]


@lru_cache(maxsize=16)
def _digest(path: Path, size: int, stamp: str) -> str:
    return digest(_arrays(path, size, stamp), str(size))


def fingerprint(name: str, size: int = 32) -> str:
    """A hash of a data set's images, labels and classes: for cache keys, so that no result outlives its data."""
    path = find(name)
    return _digest(path, size, _stamp(path, size))
