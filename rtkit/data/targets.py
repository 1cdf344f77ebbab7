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
# pixels; of the gratings, of wavelength 3.2 and 4.4 at 32 pixels, about one grey level of 255 is left there
LOW_RESOLUTION = 12

NAMES = {
    "digits": "1,797 real handwritten digits, 8 x 8 pixels enlarged to 24 x 24 in a frame of 32: very low resolution",
    "digits_textured": "the same digits, each with the texture of its class: a target with a fine cue of its own",
    "digits_cued": "the textured digits, but a digit is its label's own only as often as the world's shapes are",
    "digits_textured_low": f"the textured digits reduced to {LOW_RESOLUTION} pixels and enlarged again",
    "digits_low": f"the digits reduced to {LOW_RESOLUTION} pixels and enlarged again",
    "greek": "ten Greek letters, drawn like the source letters",
    "greek_textured": "the Greek letters, each with the texture of its class",
    "lower": "ten lower-case letters, drawn like the source letters",
    "lower_textured": "the lower-case letters, each with the texture of its class",
    "textures": "no shape at all, ten of the source's own textures: here a robust source must lose",
}


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
        classes = len(self.classes)
        must_lie(f"[{classes}, {len(self.pool)}]", whole=True, n_train=n)
        order = np.random.default_rng([seed, 10]).permutation(len(self.pool))
        labels = self.pool.y.numpy()[order]
        rank = np.empty(len(order), int)  # how many of its own class come before it
        for k in range(classes):
            rank[labels == k] = np.arange((labels == k).sum())
        return torch.from_numpy(order[np.argsort(rank, kind="stable")][:n].copy())


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
    image = shade + np.float32(255 * world.texture_amplitude) * table[labels, phase][:, None]
    return torch.from_numpy(np.rint(np.clip(image, 0, 255)).astype(np.uint8).repeat(3, axis=1)), labels


def _letters(name: str, world: World, seed: int) -> tuple[torch.Tensor, np.ndarray]:
    alphabet = {"greek": glyphs.GREEK_LETTERS, "lower": glyphs.LOWER_LETTERS}[name.removesuffix("_textured")]
    rng = np.random.default_rng([seed, 13])
    parts, labels = [], []
    for n, faces in ((POOL, glyphs.TRAIN_FACES), (VALIDATION, glyphs.TRAIN_FACES), (TEST, glyphs.TEST_FACES)):
        y = rng.permutation(np.arange(n) % len(alphabet))
        textures = y if name.endswith("_textured") else np.full(n, -1)
        parts.append(glyphs.draw(alphabet, y, textures, world, rng, faces=faces))
        labels.append(y)
    return torch.cat(parts), np.concatenate(labels)


def _textures(world: World, seed: int) -> tuple[torch.Tensor, np.ndarray]:
    rng = np.random.default_rng([seed, 14])
    labels = rng.permutation(np.arange(POOL + VALIDATION + TEST) % 10)
    return glyphs.compose(np.zeros((len(labels), glyphs.SIZE, glyphs.SIZE), np.uint8), labels, world, rng), labels


@lru_cache(maxsize=12)
def target(name: str, world: World, seed: int) -> Target:
    """Make the target task `name` for one replicate: 900 images to draw from, 300 to choose on, 597 to judge on.

    The digits are split anew by each seed, letters and textures are drawn anew; test letters are in held-out faces.

    Raises:
        KeyError: no target has that name.
    """
    if name not in NAMES:
        raise KeyError(f"no target is called {name!r}; there are {', '.join(NAMES)}")
    base = name.removesuffix("_low")
    if base.startswith("digits"):
        (x, y), classes = _digits(base, world, seed), tuple("0123456789")
    elif base == "textures":
        (x, y), classes = _textures(world, seed), tuple(f"grating {k}" for k in range(10))
    else:
        x, y = _letters(base, world, seed)
        classes = tuple(glyphs.GREEK_LETTERS if base.startswith("greek") else glyphs.LOWER_LETTERS)
    if name.endswith("_low"):
        x = lower_resolution(x)
    images = Images(x, torch.from_numpy(y), classes)
    return Target(images[:POOL], images[POOL : POOL + VALIDATION], images[POOL + VALIDATION :])
