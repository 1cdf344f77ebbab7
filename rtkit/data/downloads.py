"""Fetching a data set through torchvision, when asked to, and telling which sets there are."""

import secrets
import shutil
import zipfile
from pathlib import Path

import numpy as np

from rtkit import store
from rtkit.data import folders, named, npz

LARGEST = 32  # pixels; smaller images keep their size, larger ones are reduced to it


def _parts(name: str, here: Path) -> dict[str, list]:
    """The torchvision data sets that "train" and "test" consist of; downloads what is not in `here`.

    Where a set has train, validation and test images, the first two are trained on. Caltech-101 has no split of its
    own: see `_arrays`.
    """
    from torchvision import datasets

    make = getattr(datasets, named.TORCHVISION[name][0])
    if name in ("mnist", "fashion_mnist", "kmnist", "cifar10", "cifar100"):
        options = {"train": [{"train": True}], "test": [{"train": False}]}
    elif name == "caltech101":
        options = {"train": [{}]}
    else:
        known = {"flowers102": ("train", "val"), "dtd": ("train", "val"), "oxford_pets": ("trainval",)}
        options = {"train": [{"split": split} for split in known.get(name, ("train",))], "test": [{"split": "test"}]}
    return {part: [make(here, download=True, **one) for one in which] for part, which in options.items()}


def _arrays(name: str, parts: dict[str, list]) -> dict[str, np.ndarray]:
    first, number = parts["train"][0], named.TORCHVISION[name][1]
    classes = getattr(first, "classes", None) or getattr(first, "categories", None)
    arrays = {"classes": np.array([str(label) for label in classes or range(number)])}
    if len(arrays["classes"]) != number:
        raise ValueError(f"it has {len(arrays['classes'])} classes instead of {number}")
    for part, sets in parts.items():
        found = (data[k] for data in sets for k in range(len(data)))  # (image, label)
        pairs = [(folders.square(image, min(LARGEST, *image.size)), int(label)) for image, label in found]
        x, y = zip(*pairs, strict=True)
        arrays |= {f"x_{part}": np.stack(x), f"y_{part}": np.array(y)}
    if "test" not in parts:  # a fifth of every class, the same for everybody
        x, y, test = arrays["x_train"], arrays["y_train"], np.zeros(len(arrays["y_train"]), bool)
        for k in range(number):
            of_class = np.flatnonzero(y == k)
            test[of_class] = folders.holdout([f"{rank:04d}" for rank in range(len(of_class))])
        arrays |= {"x_train": x[~test], "y_train": y[~test], "x_test": x[test], "y_test": y[test]}
    images = [arrays["x_train"], arrays["x_test"]]
    if all((x == x[..., :1]).all() for x in images):  # grey: one channel says it all
        arrays |= {"x_train": images[0][..., :1], "x_test": images[1][..., :1]}
    return arrays


def get(name: str) -> Path:
    """Download a data set through torchvision and write it as `NAME.npz`; return that file.

    What torchvision downloads stays under torchvision/NAME, so that it need not be downloaded again. A data set that
    is there already is left as it is.

    Raises:
        KeyError: torchvision is not known to have the set.
        ValueError: the download or the decoding failed; nothing half-written is left.
    """
    if name not in named.TORCHVISION:
        raise KeyError(name)
    if name in named.names():
        return named.find(name)
    path = named.folder() / f"{name}.npz"
    kept = named.folder() / named.DOWNLOADS / name
    # torchvision takes a folder that is there for a complete one, so an unfinished one must not bear the name.
    unfinished = kept.with_name(f".{name}.{secrets.token_hex(6)}")
    try:
        if not kept.exists():
            unfinished.mkdir(parents=True)
            _parts(name, unfinished)
            unfinished.rename(kept)
        arrays = _arrays(name, _parts(name, kept))
        npz.check(arrays, path)
        store.write_atomically(path, npz.to_bytes(arrays))
    except Exception as error:  # torchvision and what it stands on raise nearly anything where a download fails
        again = f"remove {kept} if trying again does not help" if kept.exists() else "nothing was kept: try again"
        raise ValueError(f"{path} was not written: {type(error).__name__}: {error}; {again}") from error
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)
    return path


def _facts(path: Path) -> str:
    """Images, classes and their size in pixels; of arrays only the headers are read."""
    if path.is_dir():
        classes, parts, left = folders.scan(path)
        train, test = len(parts["train"]), len(parts["test"])
        size = ", ".join(filter(None, ["as the files are", folders.left_out(left)]))
    else:
        shapes = {}
        try:
            with zipfile.ZipFile(path) as file:
                for member in file.namelist():
                    with file.open(member) as array:
                        reader = {1: np.lib.format.read_array_header_1_0, 2: np.lib.format.read_array_header_2_0}
                        shapes[member.removesuffix(".npy")] = reader[np.lib.format.read_magic(array)[0]](array)[0]
            missing = [array for array in npz.ARRAYS if array not in shapes]
            if missing or len(shapes["x_train"]) != 4:
                raise ValueError(f"it lacks {', '.join(missing)}" if missing else "x_train is not (N, H, W, C)")
            (train, height, width, _), test = shapes["x_train"], shapes["x_test"][0]
            size, classes = f"{height} x {width} pixels", range(shapes["classes"][0])
        except (*npz.DAMAGE, IndexError) as error:
            raise ValueError(f"{path} cannot be read ({error}); delete it and fetch or write it again") from error
    return f"{train} train and {test} test images, {len(classes)} classes, {size}"


def listing() -> list[tuple[str, str, str]]:
    """Name, state and particulars of every data set that is there or that torchvision has."""
    rows = []
    for name in named.names():
        try:
            rows.append((name, "present", _facts(named.find(name))))
        except (OSError, ValueError) as error:
            rows.append((name, "unusable", str(error)))
    for name, (_, classes) in named.TORCHVISION.items():
        if name not in named.names():
            rows.append((name, "absent", f"{classes} classes; get it with: rtkit data get {name}"))
    return rows
