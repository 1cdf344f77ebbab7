"""Shape or texture? The study behind notebook 02 (Utrera et al. 2021, Salman et al. 2020 section 4.4)."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import pandas as pd

from rtkit import compute, evaluation, presets, robustness, shape_bias, store, studies
from rtkit.data.glyphs import World
from rtkit.presets import Preset
from rtkit.sources import Source
from rtkit.studies import cells, transfer
from rtkit.studies.cells import ATTACK, Cell
from rtkit.studies.transfer import MAIN_EPS, SHAPES

STUDY = "shape_bias"
MODULES = (*cells.MODULES, "shape_bias", "studies/shape_bias")
RANDOMISED = 1 / 20  # as often as by chance the texture is the label's own: it tells nothing
AMPLITUDES = (2 / 255, 4 / 255, 8 / 255, 14 / 255, 20 / 255)  # of the test images' texture


@dataclass(frozen=True)
class Plan:
    """How much of the study a preset runs: radii of the robust sources, target images of a transfer."""

    eps: tuple[float, ...] = (MAIN_EPS,)
    n_train: int = 100
    n_source: int = 400


PLANS = {
    "smoke": Plan(n_train=20, n_source=40),
    "glyphs": Plan(),
    "glyphs-full": Plan((1 / 255, 2 / 255, MAIN_EPS, 8 / 255)),
}


def sources(preset: Preset, seed: int, eps: Sequence[float] = (MAIN_EPS,)) -> dict[str, Source]:
    """The source networks of a replicate: standard, texture-randomised (no adversary), robust at each radius."""
    random = World(texture_reliability=RANDOMISED)
    found = {"standard": Source.of(preset, "standard", 0.0, seed)}
    found["randomised"] = Source.of(preset, "standard", 0.0, seed, random)
    return found | {f"robust {255 * level:g}": Source.of(preset, "robust", level, seed) for level in eps}


def _looking(cell: Cell) -> Iterator[dict]:
    """What a source network does with images of its own classes when one cue is changed."""
    net, facts = cell.source.load()
    world, n = World(), cell.n_test
    for change in shape_bias.CHANGES:
        images = shape_bias.letters(world, n, cell.seed, change).images
        yield cell.row("clean_accuracy", evaluation.accuracy(net, images), n, change=change)
    for amplitude in AMPLITUDES:
        drawn = shape_bias.letters(world, n, cell.seed, "texture swapped", amplitude)
        bias = shape_bias.shape_bias(evaluation.predictions(net, drawn.images), drawn.images.y, drawn.textures)
        if not math.isnan(bias):
            yield cell.row("shape_bias", bias, n, test_amplitude=amplitude)
    attacked = robustness.robustness(net, cell.source.images("test", 256), ATTACK, steps=10, seed=cell.seed)
    yield cell.row("robust_accuracy", attacked.robust, attacked.n_test)
    yield cell.row("self_check_warnings", len(attacked.warnings), attacked.n_test)
    yield cell.row("collapsed", float(facts["collapsed"]), 64)


def rows(cell: Cell) -> list[dict]:
    """Return the rows of one cell, from the cache or computed; `source` tells standard, randomised and robust apart."""

    def make():
        if cell.protocol == "none":
            return list(_looking(cell))
        name, copy = cell.target.split(":")
        return list(cells.trained_rows(cell, shape_bias.target_copy(name, copy, World(), cell.seed)))

    randomised = cell.source.world.texture_reliability == RANDOMISED
    found = store.cell(cell.study, {"cell": cell, "compute": compute.kind()}, MODULES, make)
    changed = {"source": "randomised"} if randomised else {}
    return [{"change": "", "test_amplitude": math.nan} | row | changed for row in found]


def _is_cached(cell: Cell) -> bool:
    return store.cell_path(cell.study, {"cell": cell, "compute": compute.kind()}, MODULES).exists()


def plan(preset: str, seeds: Sequence[int] | None = None) -> list[Cell]:
    """All cells of the study at a preset, without computing any."""
    chosen, size, made = presets.get(preset), studies.size(STUDY, PLANS, preset), []
    budget = {"steps": chosen.steps, "batch_size": chosen.batch_size}
    for seed in presets.replicates(chosen, seeds):
        found = sources(chosen, seed, size.eps)
        made += [
            Cell(STUDY, source, seed, "source", "none", n_test=chosen.n_source_test // 2) for source in found.values()
        ]
        main = {name: found[name] for name in ("standard", "randomised", f"robust {255 * MAIN_EPS:g}")}

        def carried(source, target, protocol, n, seed=seed):
            lr = transfer.LEARNING_RATES[protocol]
            return Cell(STUDY, source, seed, target, protocol, (n,), lr=lr, **budget)

        for name, source in main.items():
            if name != "randomised":
                copies = [f"{target}:{copy}" for target in SHAPES for copy in shape_bias.COPIES[1:]]
                made += [carried(source, target, "last_stage", size.n_train) for target in copies]
                made.append(carried(source, "source:swapped", "fixed_feature", size.n_source))
            made += [carried(source, f"{target}:plain", "fixed_feature", size.n_train) for target in SHAPES]
    return made


def run(preset: str = "glyphs", seeds: Sequence[int] | None = None) -> pd.DataFrame:
    """Make the frame of the study, cell by cell; cells and networks in the cache are read.

    Returns:
        Columns as in `transfer.run`, and `change` (of the source images), `test_amplitude` (of their texture).

    Raises:
        ValueError: there is no such preset, or the seeds are no whole numbers.
    """
    return studies.frame(preset, plan(preset, seeds), rows, _is_cached)
