"""The glyph world: letters with a faint texture that goes with the class.

Two cues point at the label. The *shape* is a letter in one of the typefaces that matplotlib ships; the *texture* is
a faint sinusoidal grating over the whole image. How strong the texture is, and how often either cue tells the truth,
are knobs, so that "what does a network learn to look at, and does it carry over?" has a controlled answer.
Everything is drawn by numpy and Pillow from a seed, without a download: bit-identical under the locked versions.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import matplotlib
import numpy as np
import torch
from numpy.random import Generator
from PIL import Image, ImageDraw, ImageFont

from rtkit.limits import must_lie

SOURCE_LETTERS = "ABCDEFGHJKLMNPRSTUYZ"
# Neither list holds a letter that is nearly a scaled copy of a source letter (as Λ is of A): a test measures it.
GREEK_LETTERS = "ΘΞΣΦΨΩβδλξ"
LOWER_LETTERS = "abdeghnqrt"

# One style of each family is held out, so a test image is never in a face that was trained on.
TRAIN_FACES = (
    *("DejaVuSans", "DejaVuSans-Bold", "DejaVuSans-Oblique"),
    *("DejaVuSansMono", "DejaVuSansMono-Bold", "DejaVuSansMono-BoldOblique"),
    *("DejaVuSerif", "DejaVuSerif-Bold", "DejaVuSerif-Italic"),
    *("STIXGeneral", "STIXGeneralBol", "STIXGeneralItalic"),
)
TEST_FACES = ("DejaVuSans-BoldOblique", "DejaVuSansMono-Oblique", "DejaVuSerif-BoldItalic", "STIXGeneralBolIta")

SIZE = 32  # pixels, height and width of every image of the world
_CANVAS = 64  # pixels, height and width of the master mask of a letter
_CHUNK = 500  # images composed at a time: small enough to stay in the processor's cache


@dataclass(frozen=True)
class World:
    """The knobs of the glyph world.

    Args:
        texture_amplitude: half the peak-to-peak height of the grating, in pixels values of [0, 1]; 0 switches it off.
        texture_reliability: probability that the grating is the label's own; otherwise it is any other class's.
        shape_reliability: probability that the letter is the label's own; otherwise it is any other class's.
        contrast: smallest and largest difference between letter and background, in pixel values of [0, 1].
        noise: standard deviation of the pixel noise, in pixel values of [0, 1].

    Raises:
        ValueError: a knob lies outside its range.
    """

    texture_amplitude: float = 14 / 255
    texture_reliability: float = 1.0
    shape_reliability: float = 0.85
    contrast: tuple[float, float] = (0.4, 0.8)
    noise: float = 0.01

    def __post_init__(self):
        must_lie("[0, 1]", **{name: value for name, value in vars(self).items() if name != "contrast"})
        if len(self.contrast) != 2 or not 0 < self.contrast[0] <= self.contrast[1] <= 0.8:
            raise ValueError(f"contrast must be (low, high) with 0 < low <= high <= 0.8, got {self.contrast!r}")


@dataclass(frozen=True)
class Images:
    """A labelled set of images.

    Shape:
        x: (N, 3, H, W) uint8; y: (N,) int64 in [0, len(classes)).
    """

    x: torch.Tensor
    y: torch.Tensor
    classes: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.y)

    def __getitem__(self, index) -> "Images":
        return Images(self.x[index], self.y[index], self.classes)


@cache
def letter_mask(letter: str, face: str) -> Image.Image:
    """Draw one letter, centred by its bounding box, as a 64 x 64 grey mask (0 background, 255 letter)."""
    path = Path(matplotlib.get_data_path(), "fonts", "ttf", f"{face}.ttf")
    font = ImageFont.truetype(str(path), 46, layout_engine=ImageFont.Layout.BASIC)
    left, top, right, bottom = font.getbbox(letter)
    mask = Image.new("L", (_CANVAS, _CANVAS))
    corner = ((_CANVAS - left - right) / 2, (_CANVAS - top - bottom) / 2)
    ImageDraw.Draw(mask).text(corner, letter, fill=255, font=font)
    return mask


@cache
def gratings(classes: int) -> np.ndarray:
    """The texture of each class: a sinusoid of its own orientation and wavelength, at 16 phases.

    Neighbouring orientations take turns between a wavelength of 3.2 and one of 4.4 pixels, so the textures differ in
    frequency as well as in angle, and a reduction to 8 pixels leaves a third of a grey level of them. Behind those of
    the classes stand as many that lie between them, which no source network has seen: textures of targets.

    Shape:
        (2 * classes, 16, 32, 32) float32 in [-1, 1].
    """
    (row, column), phase = np.mgrid[:SIZE, :SIZE], (np.arange(16) / 16)[:, None, None]
    out = np.empty((2 * classes, 16, SIZE, SIZE))
    for k in range(2 * classes):
        angle, wavelength = np.pi * (k % classes + k // classes / 2) / classes, (3.2, 4.4)[k % 2]
        travel = (row * np.sin(angle) + column * np.cos(angle)) / wavelength
        out[k] = np.sin(2 * np.pi * (travel + phase))
    return out.astype(np.float32)


def warp(mask: Image.Image, rng: Generator) -> np.ndarray:
    """Turn, scale, shear and shift a 64 x 64 mask at random and reduce it to (32, 32) uint8."""
    turn, shear = rng.uniform(-0.25, 0.25), rng.uniform(-0.15, 0.15)
    scale_x, scale_y = rng.uniform(1.7, 2.3, size=2)  # master pixels per image pixel
    shift_x, shift_y = rng.uniform(-3, 3, size=2)
    cos, sin = np.cos(turn), np.sin(turn)
    a, b = scale_x * cos, scale_x * (shear * cos - sin)
    d, e = scale_y * sin, scale_y * (shear * sin + cos)
    middle, centre = _CANVAS / 2, SIZE / 2
    c, f = (middle - a * (centre + shift_x) - b * (centre + shift_y) for a, b in ((a, b), (d, e)))
    inverse = (a, b, c, d, e, f)
    return np.asarray(mask.transform((SIZE, SIZE), Image.Transform.AFFINE, inverse, Image.Resampling.BILINEAR))


def compose(masks: np.ndarray, textures: np.ndarray, world: World, rng: Generator) -> torch.Tensor:
    """Colour the masks, lay the textures over them and add noise.

    Args:
        masks: what is drawn, 0 background to 255 foreground.
        textures: the texture of each image as an index into `gratings(20)`, from 20 on unseen ones; -1 for none.

    Shape:
        masks (N, 32, 32) uint8, textures (N,) -> (N, 3, 32, 32) uint8.
    """
    n = len(masks)
    contrast = rng.uniform(*world.contrast, size=(n, 1))
    low = 0.1 + rng.random((n, 1)) * (0.8 - contrast)  # the darker of the two grey levels, never clipped
    dark_letter = rng.random((n, 1)) < 0.5
    tint = rng.uniform(-0.06, 0.06, size=(2, n, 3))
    background = (np.where(dark_letter, low + contrast, low) + tint[0]).astype(np.float32)  # (N, 3)
    letter = (np.where(dark_letter, low, low + contrast) + tint[1]).astype(np.float32)
    phase = rng.integers(16, size=n)
    amplitude = np.where(textures < 0, 0, world.texture_amplitude).astype(np.float32)
    table = gratings(len(SOURCE_LETTERS))
    out = np.empty((n, 3, SIZE, SIZE), np.uint8)
    for at in range(0, n, _CHUNK):
        part = slice(at, at + _CHUNK)
        alpha = masks[part, None].astype(np.float32) / np.float32(255)  # (n, 1, 32, 32)
        image = (letter - background)[part, :, None, None] * alpha + background[part, :, None, None]  # (n, 3, 32, 32)
        image += (amplitude[part, None, None] * table[textures[part], phase[part]])[:, None]
        image += np.float32(world.noise) * rng.standard_normal(image.shape, dtype=np.float32)
        np.multiply(image, np.float32(255), out=image)
        np.rint(image, out=image)
        out[part] = np.clip(image, 0, 255, out=image)
    return torch.from_numpy(out)


def masks(alphabet: str, letters: np.ndarray, faces: Sequence[str], rng: Generator) -> np.ndarray:
    """Draw letters, each in a face and a place of its own at random. Shape: letters (N,) -> (N, 32, 32) uint8."""
    chosen = rng.integers(len(faces), size=len(letters))
    pairs = zip(letters.tolist(), chosen.tolist(), strict=True)
    return np.stack([warp(letter_mask(alphabet[k], faces[f]), rng) for k, f in pairs])


def draw(
    alphabet: str, letters: np.ndarray, textures: np.ndarray, world: World, rng: Generator, *, faces: Sequence[str]
) -> torch.Tensor:
    """Draw the given letters with the given textures: the one place where an image of the world is made.

    Args:
        letters: index of each image's letter in `alphabet`; textures: index of its texture, -1 for none.

    Shape:
        letters (N,), textures (N,) -> (N, 3, 32, 32) uint8.
    """
    return compose(masks(alphabet, letters, faces, rng), textures, world, rng)


def mislead(labels: np.ndarray, reliability: float, classes: int, rng: Generator) -> np.ndarray:
    """Replace each label, with probability 1 - reliability, by another class drawn evenly."""
    wrong = rng.random(len(labels)) >= reliability
    return np.where(wrong, (labels + rng.integers(1, classes, size=len(labels))) % classes, labels)


def source(world: World, n: int, seed: int, *, split: str = "train") -> Images:
    """Draw the source task: 20 upper-case letters, evenly spread, each cue as reliable as the world says.

    Args:
        split: "train" or "test"; they use different typefaces and different random numbers.
    """
    must_lie("[1, inf)", whole=True, n=n)
    faces = {"train": TRAIN_FACES, "test": TEST_FACES}[split]
    rng = np.random.default_rng([seed, 0 if split == "train" else 1])
    classes = len(SOURCE_LETTERS)
    labels = rng.permutation(np.arange(n) % classes)
    letters = mislead(labels, world.shape_reliability, classes, rng)
    textures = mislead(labels, world.texture_reliability, classes, rng)
    x = draw(SOURCE_LETTERS, letters, textures, world, rng, faces=faces)
    return Images(x, torch.from_numpy(labels), tuple(SOURCE_LETTERS))


def cue_conflict(world: World, n: int, seed: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Draw test images whose letter and texture belong to different classes.

    Returns:
        images (N, 3, 32, 32) uint8, shape class (N,), texture class (N,). Geirhos et al. 2019, section 2.
    """
    must_lie("[1, inf)", whole=True, n=n)
    rng = np.random.default_rng([seed, 2])
    classes = len(SOURCE_LETTERS)
    letters = rng.permutation(np.arange(n) % classes)
    textures = mislead(letters, 0.0, classes, rng)
    x = draw(SOURCE_LETTERS, letters, textures, world, rng, faces=TEST_FACES)
    return x, torch.from_numpy(letters), torch.from_numpy(textures)
