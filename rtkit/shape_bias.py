"""What a network decides by: shape bias, images with one cue changed, and what single features look for."""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F

from rtkit import attacks
from rtkit.data import folders, glyphs, targets
from rtkit.data.glyphs import Images, World
from rtkit.data.targets import Target
from rtkit.limits import must_be_one_of, must_lie
from rtkit.models import Network
from rtkit.threat import l2_unit

# The classes that cue-conflict stimuli share with CIFAR-10, as either names them.
CIFAR_NAMES = {"airplane": "airplane", "bird": "bird", "boat": "ship", "car": "automobile"}
CIFAR_NAMES |= {"cat": "cat", "dog": "dog", "truck": "truck"}


def shape_bias(decided: torch.Tensor, shape: torch.Tensor, texture: torch.Tensor) -> float:
    """Shape decisions / (shape + texture decisions) over cue-conflict images; not a number where there are neither.

    Shape:
        decided, shape, texture: (N,) classes. Geirhos et al. 2019, section 2.
    """
    by_shape, by_texture = int((decided == shape).sum()), int((decided == texture).sum())
    return by_shape / (by_shape + by_texture) if by_shape + by_texture else float("nan")


@dataclass(frozen=True)
class Letters:
    """Images of the source's classes: labelled by their letter, with the texture class of each, -1 for none (N,), and
    the share of each pixel that the letter covers, (N, 32, 32) in [0, 1]."""

    images: Images
    textures: torch.Tensor
    masks: torch.Tensor


def letters(world: World, n: int, seed: int, change: str = "none", amplitude: float | None = None) -> Letters:
    """Draw test images of the source classes whose letter is always right, with one cue changed.

    Args:
        change: "none"; "texture swapped" or "texture removed"; "shape removed"; "silhouette" (black on white, no
            texture, no noise); "blurred" (mean over 5 x 5 pixels); "down-scaled" (to 8 pixels and back).
        amplitude: of the texture, if not the world's.

    The same seed gives the same letters, faces, places and colours whatever the change.
    """
    must_be_one_of(CHANGES, change=change)
    must_lie("[1, inf)", whole=True, n=n)
    if amplitude is not None:
        world = replace(world, texture_amplitude=amplitude)
    rng, other = (np.random.default_rng([seed, key]) for key in (20, 21))
    names = glyphs.SOURCE_LETTERS
    y = rng.permutation(np.arange(n) % len(names))
    masks = glyphs.masks(names, y, glyphs.TEST_FACES, rng)  # (N, 32, 32) uint8
    textures = {"texture swapped": glyphs.mislead(y, 0.0, len(names), other), "texture removed": np.full(n, -1)}
    textures = textures.get(change, y)
    x = glyphs.compose(np.zeros_like(masks) if change == "shape removed" else masks, textures, world, rng)
    images = Images(CHANGES[change](x, torch.from_numpy(masks)), torch.from_numpy(y), tuple(names))
    return Letters(images, torch.from_numpy(textures), torch.from_numpy(masks).float() / 255)


# What is done to the finished image; the changes of letter and texture are made while it is drawn.
CHANGES: dict[str, Callable[[torch.Tensor, torch.Tensor], torch.Tensor]] = {
    **dict.fromkeys(("none", "texture swapped", "texture removed", "shape removed"), lambda x, _: x),
    "silhouette": lambda _, masks: (255 - masks)[:, None].expand(-1, 3, -1, -1).contiguous(),
    "blurred": lambda x, _: F.avg_pool2d(F.pad(x.float(), (2,) * 4, mode="replicate"), 5, 1).round().to(torch.uint8),
    "down-scaled": lambda x, _: targets.lower_resolution(x),
}


def overlay(x: torch.Tensor, textures: np.ndarray, world: World, rng: np.random.Generator) -> torch.Tensor:
    """Lay the given textures over images, each at a random phase.

    Shape:
        x (N, 3, 32, 32) uint8, textures (N,) indices -> (N, 3, 32, 32) uint8.
    """
    table = torch.from_numpy(glyphs.gratings(len(glyphs.SOURCE_LETTERS)))
    grating = table[torch.from_numpy(textures), torch.from_numpy(rng.integers(16, size=len(x)))]  # (N, 32, 32)
    return (x + 255 * world.texture_amplitude * grating[:, None]).round().clamp(0, 255).to(torch.uint8)


def target_copy(name: str, copy: str, world: World, seed: int) -> Target:
    """A target whose images carry a texture of their own: as it is, or as a copy that has lost this fine cue.

    Args:
        name: "digits", "lower" or "greek" of `targets.NAMES`, or "source" for the source's own classes.
        copy: "plain" (no texture), "own" (each image has its class's texture), "swapped" (that of another class, at
            random), "low" (its own, then reduced to 8 pixels and enlarged, which leaves no trace of it), "plain_low"
            (the same reduction of the plain one). Textures of "source" are the source's own, those of the others such
            as no source has seen.
        world: how strong they are.

    Reference: Utrera et al. 2021, whose copies are stylised or down-scaled Caltech-101 and Food-101.
    """
    must_be_one_of(COPIES, copy=copy)
    rng = np.random.default_rng([seed, 22])
    plain = World(0.0, contrast=world.contrast, noise=world.noise)  # one task for all strengths: drawn once, and kept
    task = targets.target(name, plain, seed) if name != "source" else _own_letters(plain, seed)
    parts = []
    for images in (task.pool, task.validation, task.test):
        x, y = images.x, images.y.numpy()
        if not copy.startswith("plain"):
            if name == "digits":
                x = (0.8 * x.float() + 25.5).round().to(torch.uint8)  # leaves room for the texture
            textures = glyphs.mislead(y, 0.0, len(task.classes), rng) if copy == "swapped" else y
            x = overlay(x, textures + (0 if name == "source" else targets.UNSEEN), world, rng)
        parts.append(Images(targets.lower_resolution(x) if copy.endswith("low") else x, images.y, task.classes))
    return Target(*parts)


@lru_cache(maxsize=2)
def _own_letters(world: World, seed: int) -> Target:
    return targets.letters(glyphs.SOURCE_LETTERS, world, np.random.default_rng([seed, 23]))


COPIES = ("plain", "plain_low", "own", "swapped", "low")


def single_feature(net: Network, x: torch.Tensor, feature: int, *, steps: int = 100, size: float = 1.0) -> torch.Tensor:
    """Change images so that one pooled feature grows as much as it can, by normalised gradient ascent.

    Args:
        feature: index into the penultimate features; size: l2 length of a step, for pixels in [0, 1].

    Shape:
        x (N, 3, H, W) in [0, 1] -> the same. Utrera et al. 2021, appendix on feature visualisation.
    """
    with attacks.frozen(net):
        for _ in range(steps):
            _, grad = attacks.gradient(net.features, x, torch.tensor(feature), lambda out, k: out[:, k])
            x = (x + l2_unit(grad, size)).clamp(0, 1)
    return x.detach()


def attribution_share(attribution: torch.Tensor, masks: torch.Tensor) -> torch.Tensor:
    """Share of the absolute attribution that lies on the letter. Shape: (N, 3, H, W), (N, H, W) in [0, 1] -> (N,)."""
    mass = attribution.abs().sum(1)  # (N, H, W)
    total = mass.sum((1, 2))
    return (mass * masks.to(mass.device)).sum((1, 2)) / torch.where(total > 0, total, 1)


def read_stimuli(folder: Path, size: int, names: Sequence[str]) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Read cue-conflict stimuli laid out as `<shape>/<shape><i>-<texture><j>.png`, each as `folders.square` makes it.

    Args:
        size: side of the images; names: classes to read; a stimulus of another shape or texture, or
            whose shape and texture agree, is left out.

    Returns:
        images (N, 3, size, size) uint8, shape class (N,), texture class (N,), as indices into `names`.

    Raises:
        ValueError: a file's name does not have the form, an image cannot be read, or none is left.

    Reference: Geirhos et al. 2019, section 2.
    """
    stimuli = []
    inside, left = folders.classes(folder)
    folders.warn(folder, left)
    for path in (file for files in inside.values() for file in files):
        found = re.fullmatch(r"([a-z]+)\d+-([a-z]+)\d+", path.stem)
        if not found or found[1] != path.parent.name:
            raise ValueError(f"{path}: the name must be <shape><number>-<texture><number>.png, in the folder <shape>")
        if found[1] == found[2] or not {found[1], found[2]} <= set(names):
            continue
        image = torch.from_numpy(folders.decode(path, size)).permute(2, 0, 1)
        stimuli.append((image, names.index(found[1]), names.index(found[2])))
    if not stimuli:
        raise ValueError(f"{folder} holds no cue-conflict stimulus of two of the classes {', '.join(names)}")
    images, shapes, textures = zip(*stimuli, strict=True)
    return torch.stack(images), torch.tensor(shapes), torch.tensor(textures)
