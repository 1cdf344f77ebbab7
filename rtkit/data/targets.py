"""The target tasks of the glyph world: real handwritten digits, unseen letters, their textured variants, textures."""

from dataclasses import dataclass
from functools import cache, lru_cache

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from sklearn.datasets import load_digits

from rtkit.data import glyphs
from rtkit.data.glyphs import Images, World
from rtkit.limits import must_lie

POOL, VALIDATION, TEST = 900, 300, 597  # images; together the 1,797 digits that scikit-learn ships
DRAWN = (3600, 300, 2000)  # the same of letters, which are drawn
LOW_RESOLUTION = 8  # pixels; of the gratings, of wavelength 3.2 and 4.4 at 32 pixels, a third of a grey level is left
UNSEEN = len(glyphs.SOURCE_LETTERS)  # the first grating that no source network has seen

# "digits" are 1,797 real handwritten ones, 8 x 8 pixels enlarged to 24 x 24 in a frame of 32: very low resolution.
# "greek" and "lower" are ten letters each, drawn like the source letters. "_textured": each image has the texture of
# its class, a fine cue of the target's own, which no source has seen; of "digits_cued", besides, a digit is its label's
# own only as often as the world's shapes are. "_low": reduced to LOW_RESOLUTION pixels and enlarged again. "textures"
# show no shape at all: here a robust source must lose.
NAMES = (
    *("digits", "digits_textured", "digits_cued", "digits_textured_low", "digits_low"),
    *("greek", "greek_textured", "lower", "lower_textured", "textures"),
)


def ranks(labels: np.ndarray) -> np.ndarray:
    """How many of its own class come before each image. Shape: (N,) -> (N,)."""
    out = np.empty(len(labels), int)
    for k in np.unique(labels):
        out[labels == k] = np.arange((labels == k).sum())
    return out


@dataclass(frozen=True)
class Target:
    """One target task of one replicate: `pool` to train on, `validation` to choose on, `test` to judge on."""

    pool: Images
    validation: Images
    test: Images

    @property
    def classes(self) -> tuple[str, ...]:
        return self.pool.classes

    def subset(self, n: int, seed: int) -> Images:
        """The images of the pool at `subset_index`."""
        return self.pool[self.subset_index(n, seed)]

    def subset_index(self, n: int, seed: int) -> torch.Tensor:
        """Draw n images of the pool, as even over the classes as n allows; a larger n contains the smaller ones.

        Shape:
            (n,) int64, indices into `pool`.

        Raises:
            ValueError: n is below one per class, above the pool, or no whole number.
        """
        must_lie(f"[{len(self.classes)}, {len(self.pool)}]", whole=True, n_train=n)
        order = np.random.default_rng([seed, 10]).permutation(len(self.pool))
        turns = np.argsort(ranks(self.pool.y.numpy()[order]), kind="stable")
        return torch.from_numpy(order[turns][:n].copy())


@cache
def _digit_masks() -> tuple[np.ndarray, np.ndarray]:
    """The digits as (1797, 32, 32) uint8 masks, 0 paper to 255 ink, and their labels."""
    digits = load_digits()
    grey = np.rint(digits.images * (255 / 16)).astype(np.uint8)  # (1797, 8, 8)
    large = [np.asarray(Image.fromarray(image).resize((24, 24), Image.Resampling.BICUBIC)) for image in grey]
    # A margin of four pixels gives a digit about the size that letters have.
    return np.pad(np.stack(large), ((0, 0), (4, 4), (4, 4))), digits.target.astype(np.int64)


def lower_resolution(x: torch.Tensor, size: int = LOW_RESOLUTION) -> torch.Tensor:
    """Reduce images to `size` pixels (antialiased) and enlarge them again.

    Shape:
        (N, 3, H, W) uint8 -> the same.
    """
    small = F.interpolate(x.float(), size=(size, size), mode="bilinear", antialias=True)
    return F.interpolate(small, size=x.shape[-2:], mode="bilinear").round().clamp(0, 255).to(torch.uint8)


def _digits(name: str, world: World, seed: int) -> tuple[torch.Tensor, np.ndarray]:
    masks, labels = _digit_masks()
    order = np.random.default_rng([seed, 11]).permutation(len(labels))  # the replicate's split
    masks, labels = masks[order], labels[order]
    if name == "digits":
        return torch.from_numpy(masks[:, None].repeat(3, axis=1)), labels
    if name == "digits_cued":
        labels = glyphs.mislead(labels, world.shape_reliability, 10, np.random.default_rng([seed, 15]))
    shade = masks[:, None].astype(np.float32) * np.float32(0.8) + np.float32(25.5)  # leaves room for the texture
    rng = np.random.default_rng([seed, 12])
    table, phase = glyphs.gratings(len(glyphs.SOURCE_LETTERS)), rng.integers(16, size=len(labels))
    image = shade + np.float32(255 * world.texture_amplitude) * table[UNSEEN + labels, phase][:, None]
    return torch.from_numpy(np.rint(np.clip(image, 0, 255)).astype(np.uint8).repeat(3, axis=1)), labels


def letters(alphabet: str, world: World, rng: np.random.Generator, textured: bool = False) -> Target:
    """Draw a target of letters, the test in held-out faces; textured, each has the texture of its class, else none."""
    parts = []
    for n, faces in zip(DRAWN, (glyphs.TRAIN_FACES, glyphs.TRAIN_FACES, glyphs.TEST_FACES), strict=True):
        y = rng.permutation(np.arange(n) % len(alphabet))
        x = glyphs.draw(alphabet, y, UNSEEN + y if textured else np.full(n, -1), world, rng, faces=faces)
        parts.append(Images(x, torch.from_numpy(y), tuple(alphabet)))
    return Target(*parts)


@lru_cache(maxsize=12)
def target(name: str, world: World, seed: int) -> Target:
    """Make the target task `name` for one replicate: images to draw from, to choose on, to judge on.

    The digits are split anew by each seed (900, 300, 597), letters (3,600, 300, 2,000) and textures are drawn anew;
    test letters are in held-out faces.

    Raises:
        KeyError: no target has that name.
    """
    if name not in NAMES:
        raise KeyError(f"no target is called {name!r}; there are {', '.join(NAMES)}")
    if name.startswith(("greek", "lower")):
        alphabet = glyphs.GREEK_LETTERS if name.startswith("greek") else glyphs.LOWER_LETTERS
        return letters(alphabet, world, np.random.default_rng([seed, 13]), name.endswith("_textured"))
    if name == "textures":
        rng, classes = np.random.default_rng([seed, 14]), tuple(f"grating {k}" for k in range(10))
        y = rng.permutation(np.arange(POOL + VALIDATION + TEST) % 10)
        x = glyphs.compose(np.zeros((len(y), glyphs.SIZE, glyphs.SIZE), np.uint8), UNSEEN + y, world, rng)
    else:
        (x, y), classes = _digits(name.removesuffix("_low"), world, seed), tuple("0123456789")
    if name.endswith("_low"):
        x = lower_resolution(x)
    images = Images(x, torch.from_numpy(y), classes)
    return Target(images[:POOL], images[POOL : POOL + VALIDATION], images[POOL + VALIDATION :])
