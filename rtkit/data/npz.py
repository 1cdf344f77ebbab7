"""An npz file of images: reading it, checking it, and writing one."""

import io
import zipfile
import zlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np

ARRAYS = ("x_train", "y_train", "x_test", "y_test", "classes")
# What reading a damaged npz raises; a plain ValueError is one of numpy's own.
DAMAGE = (zipfile.BadZipFile, zlib.error, EOFError, OSError, KeyError, TypeError, ValueError, NotImplementedError)


def _problems(arrays: dict[str, np.ndarray], parts: Sequence[str]) -> None:
    classes = arrays["classes"]
    if classes.ndim != 1 or classes.dtype.kind != "U":
        raise ValueError(f"classes must be a list of names, got {classes.dtype} of shape {classes.shape}")
    if len(set(classes.tolist())) != len(classes):
        raise ValueError("two of its classes have the same name")
    for part in parts:
        x, y = arrays[f"x_{part}"], arrays[f"y_{part}"]
        if x.dtype != np.uint8 or x.ndim != 4 or x.shape[3] not in (1, 3) or 0 in x.shape[1:3]:
            raise ValueError(
                f"x_{part} must be uint8 of shape (N, H, W, 3) or (N, H, W, 1), channels last, got {x.dtype} {x.shape}"
            )
        if y.dtype.kind not in "iu" or y.shape != x.shape[:1]:
            raise ValueError(f"y_{part} must be one whole number for each of {len(x)} images, got {y.dtype} {y.shape}")
        if not len(y):
            raise ValueError(f"it has no {part} images")
        wrong = np.flatnonzero((y < 0) | (y >= len(classes)))
        if len(wrong):
            raise ValueError(
                f"y_{part}[{wrong[0]}] is {y[wrong[0]]}, but labels must lie between 0 and {len(classes) - 1} "
                f"(there are {len(classes)} classes); {len(wrong)} labels are out of range"
            )
        if part == "train" and len(np.unique(y)) < 2:
            raise ValueError("all train images are of one class; there must be two classes or more")


def check(arrays: dict[str, np.ndarray], path: Path, parts: Sequence[str] = ("train", "test")) -> None:
    """Raise a ValueError that names the file unless its arrays make a data set, or these parts of one."""
    try:
        _problems(arrays, parts)
    except ValueError as error:
        raise ValueError(f"{path}: {error} (data/README.md says how the file must be)") from error


def read(path: Path, wanted: Sequence[str] = ARRAYS) -> dict[str, np.ndarray]:
    """Read arrays of an npz file, by default the five; ValueError if one is missing or the file is damaged."""
    try:
        with path.open("rb") as stream, np.load(stream, allow_pickle=False) as file:  # numpy leaves a damaged one open
            missing = [name for name in wanted if name not in file.files]
            arrays = {} if missing else {name: np.asarray(file[name]) for name in wanted}
    except DAMAGE as error:
        raise ValueError(
            f"{path} cannot be read ({error}): damaged, a download cut short, or arrays of objects; "
            "delete it and fetch or write it again"
        ) from error
    if missing:
        raise ValueError(f"{path} lacks the arrays {', '.join(missing)}; it must hold {', '.join(wanted)}")
    return arrays


def to_bytes(arrays: dict[str, np.ndarray]) -> bytes:
    """The bytes of an npz file, uncompressed."""
    buffer = io.BytesIO()
    np.savez(buffer, **arrays)
    return buffer.getvalue()
