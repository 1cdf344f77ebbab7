"""A folder of images, one inner folder a class: which files it holds, and how one becomes a square of pixels."""

import hashlib
import multiprocessing
import re
import warnings
from collections import Counter
from itertools import compress
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

SUFFIXES = {".bmp", ".gif", ".jpeg", ".jpg", ".pgm", ".png", ".ppm", ".tif", ".tiff", ".webp"}
CLUTTER = {"thumbs.db", "desktop.ini"}  # hidden files of Windows
# Folders whose names consist of such words say what part of a data set they hold, not what their images show.
_PARTS = "train(?:ing|ed)?|trn|test(?:ing|s)?|tst|val(?:id|idation)?|vld|dev(?:el|elopment)?|eval(?:uation)?|h[eo]ldout"
_PARTS += "|folds?|splits?|unlabell?ed|unsup(?:ervised)?|images?|imgs?|jpe?gs?|masks|labels?|annot(?:ation)?s?"
_PARTS += "|groundtruth"
_BESIDE = "[abxy]|my|the|mini|small|full|old|new|public|private|final|official|data|sets?|part|samples?|files?"
_PART = re.compile(f"(?:{_BESIDE})*(?:{_PARTS})(?:{_BESIDE}|{_PARTS})*")


def _is_part(name: str) -> bool:
    """Whether a folder's name is that of a split or of annotations, in any spelling: "Test_Set", "val-images2"."""
    return bool(_PART.fullmatch(re.sub(r"[\W\d_]", "", name.casefold())))


def _deep(image: Image.Image) -> bool:
    """Whether the pixels of a file are of more than 8 bits a channel; Pillow reads many such files as 8 bits."""
    for codec, _, _, raw in getattr(image, "tile", ()):
        if re.search(r";16[BLN]", str(raw)) or (codec.startswith("ppm") and raw[1] > 255):  # a ppm's largest value
            return True
    return image.mode[0] in "IF"


def square(image: Image.Image, size: int) -> np.ndarray:
    """The centre square of an image, antialiased: its short side becomes `size` pixels.

    The camera's orientation is obeyed, grey becomes three equal channels, what is transparent becomes white.

    Shape:
        (size, size, 3) uint8.

    Raises:
        ValueError: its pixels are not of 8 bits.
    """
    if _deep(image):
        raise ValueError(f"pixels of mode {image.mode!r}, of more than 8 bits; save it with 8 bits a channel")
    image = ImageOps.exif_transpose(image)
    if image.has_transparency_data:
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    image, edge = image.convert("RGB"), min(image.size)
    left, top = (image.width - edge) // 2, (image.height - edge) // 2
    cut = image.crop((left, top, left + edge, top + edge))  # first, so that a long thin image stays cheap
    return np.array(cut.resize((size, size), Image.Resampling.BILINEAR))


def _inside(path: Path) -> tuple[list[Path], list[Path], Counter]:
    """What a folder holds beside hidden files: folders, images, and the number of other files by kind."""
    folders, images, others = [], [], Counter()
    for entry in sorted(path.iterdir()):
        if entry.name.startswith(".") or entry.name.lower() in CLUTTER:
            continue
        if readable(entry.name) != entry.name:
            raise ValueError(f"the name {str(entry)!r} is not UTF-8; rename it")
        if entry.is_dir():
            folders.append(entry)
        elif entry.suffix.lower() in SUFFIXES:
            images.append(entry)
        else:
            others[entry.suffix.lower() or "without a suffix"] += 1
    return folders, images, others


def readable(name: str) -> str:
    """A name that can be printed: itself, or with backslashes where it is not UTF-8."""
    return name.encode(errors="backslashreplace").decode()


def classes(path: Path) -> tuple[dict[str, list[Path]], Counter]:
    """The images of each class folder by its name, and how many files are left out, by kind; opens none.

    Raises:
        ValueError: a class folder has no images, a folder in it, or the name of a split or of annotations.
    """
    folders, loose, _ = _inside(path)
    parts = [folder.name for folder in folders if _is_part(folder.name)]
    if parts:
        raise ValueError(
            f"{path}: the names {', '.join(map(repr, parts))} tell parts of a data set, not classes. A split is the "
            "folders train/ and test/, so spelled, with the same class folders in both and no other folder beside "
            "them: merge a validation part into train/, move the rest away. A class needs another name"
        )
    found, left = {}, Counter({"beside the class folders": len(loose)})
    for folder in folders:
        inner, images, others = _inside(folder)
        if inner:
            raise ValueError(f"{inner[0]} is a folder in a class folder, which holds images only; move or remove it")
        if not images:
            raise ValueError(f"{folder} holds no images ({', '.join(sorted(SUFFIXES))}); add some, or remove it")
        found[folder.name], left = images, left + others
    return found, +left


def left_out(left: Counter) -> str:
    """How many files are left out, and of which kinds: "3 files left out (2 .heic, 1 without a suffix)"."""
    kinds = ", ".join(f"{n} {kind}" for kind, n in left.most_common())
    return f"{left.total()} file{'s' * (left.total() > 1)} left out ({kinds})" if left else ""


def warn(path: Path, left: Counter) -> None:
    """Warn of the files of a folder that are left out, but not once more in every worker."""
    if left and multiprocessing.current_process().name == "MainProcess":
        remedy = "images must lie in class folders, as png, jpg or another format of data/README.md"
        warnings.warn(f"{path}: {left_out(left)}; {remedy}", stacklevel=2)


def holdout(files: list[str]) -> np.ndarray:
    """Which of a class's files are test images: the fifth with the smallest hashes of their names, at least one.

    Shape:
        (N,) bool.
    """
    hashes = [hashlib.sha256(name.encode()).hexdigest() for name in files]
    return np.argsort(np.argsort(hashes)) < max(1, round(len(files) / 5))


def scan(path: Path) -> tuple[tuple[str, ...], dict[str, list[tuple[Path, int]]], Counter]:
    """The classes of an image folder, the file and label of every image of "train" and "test", and what is left out.

    Raises:
        ValueError: it has none of the two layouts of data/README.md; the message names the folder and the remedy.
    """
    first, loose, _ = _inside(path)
    sides, left = {"train": {}, "test": {}}, Counter({"beside the class folders": len(loose)})
    if [folder.name for folder in first] == ["test", "train"]:
        for part in sides:
            sides[part], more = classes(path / part)
            left += more
    else:
        whole, left = classes(path)
        for name, files in whole.items():
            if len(files) < 2:
                raise ValueError(f"{path / name} holds one image; a class needs one to train on and one to test on")
            test = holdout([file.name for file in files])
            sides["train"][name], sides["test"][name] = (list(compress(files, chosen)) for chosen in (~test, test))
    odd = sorted(sides["train"].keys() ^ sides["test"].keys())
    if odd:
        raise ValueError(f"{path}: train/ and test/ must have the same classes, but only one of them has {odd[0]!r}")
    names = tuple(sides["train"])
    if len(names) < 2:
        raise ValueError(f"{path} needs a folder for each of two classes or more, it has {list(names) or 'none'}")
    labelled = {}
    for part, found in sides.items():
        labelled[part] = [(file, label) for label, name in enumerate(names) for file in found[name]]
    return names, labelled, +left


def decode(file: Path, size: int) -> np.ndarray:
    """Read one image file as `square` makes it; ValueError names a file that cannot be used."""
    try:
        with Image.open(file) as image:
            return square(image, size)
    except Exception as error:  # Pillow's readers raise nearly anything on a damaged file
        raise ValueError(f"{file} cannot be used ({error}); repair or remove it") from error
