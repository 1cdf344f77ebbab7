"""The presets: which world, which network, which budget. Every notebook takes one by name."""

from collections.abc import Iterable
from dataclasses import dataclass, field
from numbers import Integral

import rtkit
from rtkit.data.glyphs import World
from rtkit.data.pictures import Pictures
from rtkit.knobs import several


@dataclass(frozen=True)
class Preset:
    """A world, a network and a budget.

    Args:
        seeds: the replicates; each seed redraws source images, initialisation, target images or split, attack noise.
        architecture: see `models.create`.
        n_source: source training images; n_source_test: source test images.
        source_steps: SGD steps of 128 images for a source network; source_lr: their peak learning rate.
        steps: SGD steps of `batch_size` images that every transfer method gets, however many images there are.

    The numbers were chosen on seeds 100 to 103, which no verdict uses.
    """

    name: str
    seeds: tuple[int, ...]
    architecture: str = "small-16"
    n_source: int = 5000
    n_source_test: int = 1000
    source_steps: int = 312
    source_lr: float = 0.2
    steps: int = 80
    batch_size: int = 50
    world: World | Pictures = field(default_factory=World)

    @property
    def main_eps(self) -> float:
        """Training radius of the robust source of every main contrast, l-infinity."""
        return self.world.eps if isinstance(self.world, Pictures) else 4 / 255

    @property
    def scope(self) -> str | None:
        """What its verdicts speak of; None where it is too small to judge anything."""
        return rtkit.PRESETS[self.name]


# 20 epochs, on two cores the better part of an hour for notebook 01; and 40 epochs, for one GPU.
_SMALL = {"n_source": 15000, "n_source_test": 2000, "source_steps": 2340, "steps": 160}
_TINY = Pictures("tiny_imagenet", test=10000)
_LARGE = {"n_source": 20000, "n_source_test": 5000, "source_steps": 6250, "steps": 320}
PRESETS = (
    Preset("smoke", (0,), architecture="small-8", n_source=200, n_source_test=60, source_steps=6, steps=3),
    Preset("glyphs", tuple(range(200, 210))),
    Preset("glyphs-full", (0, 1, 2)),
    Preset("photos", tuple(range(200, 210)), world=Pictures("cifar100", test=10000), **_SMALL),
    Preset("tiny-imagenet", tuple(range(200, 205)), world=_TINY, **_SMALL | {"n_source": 50000}),
    Preset("cifar", (0, 1, 2), "resnet18-cifar", world=Pictures("cifar100", pool=6400), **_LARGE),
    Preset("imagenet", (0, 1, 2), "resnet18", steps=320, world=Pictures("", 224)),  # source networks come trained
)
PRESETS = {preset.name: preset for preset in PRESETS}


def replicates(preset: Preset, seeds: int | Iterable[int] | None) -> tuple[int, ...]:
    """The seeds to run: that or those given, each once, or the preset's own where none is.

    Raises:
        ValueError: something else than non-negative whole numbers was given.
    """
    given = several(seeds)
    if not all(isinstance(seed, Integral) and not isinstance(seed, bool) and 0 <= seed < 2**31 for seed in given):
        example = "[0, 1, 2] (papermill takes lists as -y 'seeds: [0, 1, 2]')"
        raise ValueError(f"seeds must be whole numbers from 0 to 2147483647 such as {example}, got {seeds!r}")
    return tuple(dict.fromkeys(map(int, given))) or preset.seeds


def is_drawn(preset: Preset) -> bool:
    """Whether a preset's world is the glyph world, not one of real images."""
    return isinstance(preset.world, World)


def drawn(name: str) -> Preset:
    """Return the preset of that name, which must be one of the glyph world.

    Raises:
        ValueError: there is none, or its world is one of real images.
    """
    found = get(name)
    if not is_drawn(found):
        valid = [name for name, preset in PRESETS.items() if is_drawn(preset)]
        raise ValueError(f"the preset {name!r} is one of real images; here it must be {', '.join(valid)}")
    return found


def get(name: str) -> Preset:
    """Return the preset of that name.

    Raises:
        ValueError: there is none; the message lists those that exist.
    """
    if name not in PRESETS:
        unknown = f"no preset is called {name!r}; there are {', '.join(PRESETS)}"
        raise ValueError(rtkit.RENAMED.get(name, unknown))
    return PRESETS[name]
