"""A folder of images, one inner folder a class: which files it holds, and how one becomes a square of pixels."""

import hashlib
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

SUFFIXES = {".bmp", ".gif", ".jpeg", ".jpg", ".pgm", ".png", ".ppm", ".tif", ".tiff", ".webp"}


def square(image: Image.Image, size: int) -> np.ndarray:
    """The centre square of an image, antialiased: its short side becomes `size` pixels.

    The camera's orientation is obeyed, grey becomes three equal channels, what is transparent becomes white.

    Shape:
        (size, size, 3) uint8.

    Raises:
        ValueError: its pixels are not of 8 bits.
    """
    if image.mode[0] in "IF":
        raise ValueError(f"pixels of mode {image.mode!r}; save it with 8 bits a channel")
    image = ImageOps.exif_transpose(image)
    if image.has_transparency_data:
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    image, edge = image.convert("RGB"), min(image.size)
    left, top = (image.width - edge) // 2, (image.height - edge) // 2
    cut = image.crop((left, top, left + edge, top + edge))  # first, so that a long thin image stays cheap
    return np.asarray(cut.resize((size, size), Image.Resampling.BILINEAR))


def _subfolders(path: Path) -> list[Path]:
    return sorted(child for child in path.iterdir() if child.is_dir() and not child.name.startswith("."))


def _images(path: Path) -> list[Path]:
    found = sorted(file for file in path.rglob("*") if file.suffix.lower() in SUFFIXES and file.is_file())
    found = [file for file in found if not any(part.startswith(".") for part in file.relative_to(path).parts)]
    if not found:
        raise ValueError(f"{path} holds no images ({', '.join(sorted(SUFFIXES))}); add some, or remove the folder")
    return found


def holdout(files: list[str]) -> np.ndarray:
    """Which of a class's files are test images: the fifth with the smallest hashes of their names, at least one.

    Shape:
        (N,) bool.
    """
    order = np.argsort([hashlib.sha256(name.encode()).hexdigest() for name in files])
    out = np.zeros(len(files), bool)
    out[order[: max(1, round(len(files) / 5))]] = True
    return out


def scan(path: Path) -> tuple[tuple[str, ...], dict[str, list[tuple[Path, int]]]]:
    """The classes of an image folder, and the file and label of every image of "train" and "test"; opens none.

    Raises:
        ValueError: fewer than two classes, a class without images, or train/ and test/ that do not match.
    """
    parts = {part: path / part for part in ("train", "test")}
    divided = {part for part, inner in parts.items() if inner.is_dir() and _subfolders(inner)}
    if len(divided) == 1:
        raise ValueError(f"{path} has class folders in {divided.pop()}/ only; there must be both train/ and test/")
    inside = {part: [child.name for child in _subfolders(parts[part] if divided else path)] for part in parts}
    classes = inside["train"]
    odd = sorted(set(classes) ^ set(inside["test"]))
    if odd:
        raise ValueError(f"{path}: train/ and test/ must have the same classes, but only one of them has {odd[0]!r}")
    if len(classes) < 2:
        raise ValueError(f"{path} needs a folder for each of two classes or more, it has {classes or 'none'}")
    out = {"train": [], "test": []}
    for label, name in enumerate(classes):
        if divided:
            for part in parts:
                out[part] += [(file, label) for file in _images(parts[part] / name)]
            continue
        files = _images(path / name)
        if len(files) < 2:
            raise ValueError(f"{path / name} holds one image; a class needs one to train on and one to test on")
        for file, test in zip(files, holdout([file.name for file in files]), strict=True):
            out["test" if test else "train"].append((file, label))
    return tuple(classes), out


def decode(file: Path, size: int) -> np.ndarray:
    """Read one image file as `square` makes it; ValueError names a file that cannot be used."""
    try:
        with Image.open(file) as image:
            return square(image, size)
    except Exception as error:  # Pillow's readers raise nearly anything on a damaged file
        raise ValueError(f"{file} cannot be used ({error}); repair or remove it") from error
