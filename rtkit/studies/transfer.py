"""Do robust features transfer better? The study behind notebook 01 (Salman et al. 2020, Utrera et al. 2021)."""

from collections.abc import Sequence
from dataclasses import dataclass

import pandas as pd

from rtkit import presets, studies
from rtkit.data import named
from rtkit.data.glyphs import World
from rtkit.presets import Preset
from rtkit.sources import Source
from rtkit.studies import cells, imagenet
from rtkit.studies.cells import Cell

STUDY = "transfer"
MAIN_EPS = 4 / 255  # the robust source of every main contrast
PAIR = (0.0, MAIN_EPS)  # its radius and the standard source's
SHAPES = ("digits", "lower", "greek")  # targets on which shape alone decides
FINE = "digits_textured"  # the target with a fine cue of its own
REAL = ("mnist", "fashion_mnist", "cifar10", "kmnist", "svhn")  # data sets that judge real source networks
# One grid for every protocol and either source; `tuning` shows the search.
LEARNING_RATE_GRID = (0.03, 0.1, 0.3)
LEARNING_RATES = {"fixed_feature": 0.3, "last_block": 0.3, "last_stage": 0.1, "last_two_stages": 0.1}
LEARNING_RATES |= {"full_network": 0.1, "scratch": 0.1}
# Of worlds of real images, found at `cifar-small`.
REAL_LEARNING_RATES = dict.fromkeys(("fixed_feature", "last_block", "last_two_stages", "full_network"), 0.1)
REAL_LEARNING_RATES |= {"last_stage": 0.3, "scratch": 0.3}
TUNING_SEEDS = (100, 101)  # no verdict uses them


def learning_rates(preset: Preset) -> dict[str, float]:
    """The learning rate of each protocol in a preset's world."""
    return LEARNING_RATES if isinstance(preset.world, World) else REAL_LEARNING_RATES


@dataclass(frozen=True)
class Plan:
    """How much of the study a preset runs.

    Args:
        eps: radii of the robust sources.
        n_train: sizes of the target subset; contrasts at a single size use the first, the learning curve the second.
        probed: targets of the convex probe.
        amplitudes, reliabilities, phase_seeds: the grid of worlds of the phase diagram and its replicates.
        extended: every protocol at every size for every robust source, instead of the core.
        targets: data sets of a world of real images, of which those are used that are there.
        sources: further sources of such a world, by kind and radius.
    """

    eps: tuple[float, ...] = (MAIN_EPS,)
    n_train: tuple[int, ...] = (100, 400, 900)
    probed: tuple[str, ...] = SHAPES
    amplitudes: tuple[float, ...] = ()
    reliabilities: tuple[float, ...] = ()
    phase_seeds: tuple[int, ...] = ()
    extended: bool = False
    targets: tuple[str, ...] = ()
    sources: tuple[tuple[str, float], ...] = ()


PLANS = {
    "smoke": Plan(n_train=(20, 40), probed=SHAPES[:1]),
    "glyphs": Plan(),
    "glyphs-full": Plan(
        eps=(1 / 255, 2 / 255, MAIN_EPS, 8 / 255),
        n_train=(100, 400, 50, 200, 900),
        amplitudes=(0, 4 / 255, 10 / 255, 20 / 255),
        reliabilities=(0.7, 0.85, 0.95, 1.0),
        phase_seeds=(0, 1, 2),
        extended=True,
    ),
    "cifar-small": Plan((2 / 255,), (100, 400, 200, 1600), targets=REAL[:3]),
    "cifar": Plan(
        (1 / 255, 2 / 255, 4 / 255, 8 / 255),
        (100, 400, 200, 800, 1600, 6400),
        targets=REAL,
        sources=(("pgd_l2", 0.25), ("pgd_l2", 0.5), ("pgd_l2", 1.0)),
    ),
}


def _replicate(preset: Preset, plan: Plan, seed: int) -> list[Cell]:
    """The cells of one replicate in the preset's own world."""

    def source(kind: str, eps: float = 0.0, seed: int = seed) -> Source:
        return Source.of(preset, kind, eps, seed)

    def cell(source: Source, target: str, protocol: str, n: int) -> Cell:
        budget = {"steps": preset.steps, "batch_size": preset.batch_size, "lr": LEARNING_RATES[protocol]}
        early = protocol == "last_stage" and n == plan.n_train[1]
        marks = tuple(max(1, preset.steps // part) for part in (10, 4, 2)) if early else ()
        return Cell(STUDY, source, seed, target, protocol, (n,), measure_at=marks, **budget)

    standard, main = source("standard"), source("robust", MAIN_EPS)
    robust = [source("robust", eps) for eps in plan.eps]
    noise, untrained, other = source("noise", MAIN_EPS), source("untrained"), source("standard", seed=seed + 1000)
    sizes = plan.n_train
    n, both, two = sizes[0], (standard, main), SHAPES[:2]

    made = [Cell(STUDY, one, seed, "source", "none", n_test=preset.n_source_test) for one in (standard, noise, *robust)]
    made += [cell(one, target, "last_stage", n) for one in both for target in SHAPES for n in sizes]
    made += [cell(one, target, "full_network", n) for one in both for target in SHAPES]
    made += [Cell(STUDY, one, seed, target, "probe", (n,)) for one in both for target in plan.probed]
    made += [cell(main, target, protocol, n) for target in two for protocol in ("last_block", "last_two_stages")]
    fixed = (*SHAPES, FINE, f"{FINE}_low", "textures")
    made += [cell(one, target, "fixed_feature", n) for one in (standard, *robust) for target in fixed]
    made += [cell(noise, target, protocol, n) for target in two for protocol in ("fixed_feature", "last_stage")]
    made += [cell(one, target, "fixed_feature", n) for one in (untrained, other) for target in two]
    made += [cell(standard, target, "scratch", n) for target in two]
    if plan.extended:
        extreme, textured = source("robust", 8 / 255), ("digits_low", "lower_textured", "greek_textured")
        made += [cell(extreme, target, "last_stage", n) for target in SHAPES for n in sizes]
        made += [cell(one, target, "fixed_feature", n) for one in both for target in SHAPES for n in sizes]
        made += [cell(one, target, "full_network", max(sizes)) for one in both for target in SHAPES]
        blocks = [(protocol, n) for protocol in ("last_block", "last_two_stages") for n in sizes[:2]]
        made += [cell(one, target, protocol, n) for one in both for target in SHAPES for protocol, n in blocks]
        made += [cell(one, target, "fixed_feature", n) for one in (standard, *robust) for target in textured]
    return list(dict.fromkeys(made))


def _phase(preset: Preset, plan: Plan, seed: int) -> list[Cell]:
    """The cells of one replicate of the phase diagram: standard and robust sources over a grid of worlds."""
    worlds = [World(texture_amplitude=a, shape_reliability=r) for a in plan.amplitudes for r in plan.reliabilities]
    made = []
    for world in worlds:
        for kind, eps in (("standard", 0.0), ("robust", MAIN_EPS)):
            source = Source.of(preset, kind, eps, seed, world)
            made.append(Cell(STUDY, source, seed, "source", "none", n_test=preset.n_source_test))
            budget = {"steps": preset.steps, "batch_size": preset.batch_size, "lr": LEARNING_RATES["fixed_feature"]}
            made += [
                Cell(STUDY, source, seed, target, "fixed_feature", (plan.n_train[0],), **budget)
                for target in SHAPES[:2]
            ]
    return made


def _named(preset: Preset, plan: Plan, seed: int, targets: Sequence[str]) -> list[Cell]:
    """The cells of one replicate on data sets by name, from the sources of any world."""

    def source(kind: str, eps: float = 0.0, seed: int = seed) -> Source:
        return Source.of(preset, kind, eps, seed)

    def cell(source: Source, target: str, protocol: str, n: int) -> Cell:
        budget = {"steps": preset.steps, "batch_size": preset.batch_size, "lr": learning_rates(preset)[protocol]}
        early = protocol == "last_stage" and n == plan.n_train[1]
        marks = tuple(max(1, preset.steps // part) for part in (10, 4, 2)) if early else ()
        return Cell(STUDY, source, seed, target, protocol, (n,), measure_at=marks, **budget)

    standard, main, noise = source("standard"), source("robust", preset.main_eps), source("noise", preset.main_eps)
    robust = [source("robust", eps) for eps in plan.eps] + [source(*one) for one in plan.sources]
    every, made = list(dict.fromkeys((standard, main, *robust, noise))), []
    if not isinstance(preset.world, World):  # the glyph world's sources are scored among its own cells
        made += [Cell(STUDY, one, seed, "source", "none", n_test=preset.n_source_test) for one in every]
    for target in targets:
        sizes = studies.sizes(plan.n_train, target, preset.world, seed)
        few, ends = sizes[0], sorted({sizes[0], max(sizes)})
        made += [cell(one, target, "last_stage", n) for one in every[:-1] for n in sizes]
        made += [cell(one, target, "fixed_feature", n) for one in every[:-1] for n in sizes]
        made += [cell(one, target, "full_network", n) for one in every[:-1] for n in ends]
        made += [Cell(STUDY, one, seed, target, "probe", sizes) for one in (standard, main)]
        made += [cell(noise, target, protocol, few) for protocol in ("fixed_feature", "last_stage")]
        made += [cell(standard, target, "scratch", n) for n in ends]
        others = (source("untrained"), source("standard", seed=seed + 1000))
        made += [cell(one, target, "fixed_feature", few) for one in others]
    return made


def plan(preset: str, seeds: Sequence[int] | None = None, targets: Sequence[str] = ()) -> list[Cell]:
    """All cells of the study at a preset, without computing any; arguments and errors as `run`."""
    chosen = presets.get(preset)
    if not isinstance(chosen.world, World) and not chosen.world.name:
        return imagenet.cells(chosen, seeds, targets)
    size = studies.size(STUDY, PLANS, preset)
    seeds, found = presets.replicates(chosen, seeds), [*(name for name in size.targets if name in named.names())]
    if size.targets and not found:
        raise ValueError(
            f"the preset {preset} needs one of the data sets {', '.join(size.targets)} in {named.folder()}; "
            f"`rtkit data get {size.targets[0]}` downloads one"
        )
    made = []
    if isinstance(chosen.world, World):
        made += [cell for seed in seeds for cell in _replicate(chosen, size, seed)]
        made += [cell for seed in seeds if seed in size.phase_seeds for cell in _phase(chosen, size, seed)]
    made += [cell for seed in seeds for cell in _named(chosen, size, seed, [*found, *targets])]
    return list(dict.fromkeys(made))


def run(preset: str = "glyphs", seeds: Sequence[int] | None = None, targets: Sequence[str] = ()) -> pd.DataFrame:
    """Make the frame of the study, cell by cell; cells and networks in the cache are read.

    Args:
        seeds: the replicates; none or an empty list for the preset's own.
        targets: data sets by name that the sources are carried to, beside the preset's own targets.

    Returns:
        One row per observation: `study, method, source, source_eps, target, n_train, seed, metric, value, n_test,
        seconds, gradients, step, source_seed, texture_amplitude, shape_reliability`. Accuracies are fractions.

    Raises:
        ValueError: there is no such preset or data set, or the seeds are no whole numbers.
    """
    return studies.frame(preset, plan(preset, seeds, targets), cells.rows, cells.is_cached)


def tuning(preset: str = "glyphs") -> pd.DataFrame:
    """Validation accuracy in percent of every protocol, by source and learning rate, on the tuning seeds.

    Targets are the first two (of real images the first and the third), with the smallest and the largest n. The
    learning rates of the study are those whose mean over both sources is highest, the smaller where two tie; one rate
    serves both sources. Real source networks take minutes each: there one seed tunes.
    """
    chosen, size = presets.get(preset), studies.size(STUDY, PLANS, preset)
    drawn = isinstance(chosen.world, World)
    budget = {"steps": chosen.steps, "batch_size": chosen.batch_size}
    todo = {
        Cell("tuning", Source.of(chosen, kind, eps, seed), seed, target, protocol, (n,), lr=lr, **budget): lr
        for seed in (TUNING_SEEDS if drawn else TUNING_SEEDS[:1])
        for kind, eps in (("standard", 0.0), ("robust", chosen.main_eps))
        for protocol in LEARNING_RATES
        for lr in LEARNING_RATE_GRID
        for target in (SHAPES[:2] if drawn else REAL[0:3:2])
        for n in (min(size.n_train), max(size.n_train))
        if not (protocol == "scratch" and kind == "robust")
    }
    sources = list(dict.fromkeys(cell.source for cell in todo))
    _, rows = studies.spread((studies.load_source, sources, "source networks"), (cells.rows, list(todo), "cells"))
    frame = pd.DataFrame([row | {"lr": lr} for found, lr in zip(rows, todo.values(), strict=True) for row in found])
    frame = frame[frame.metric == "validation_accuracy"].assign(value=100 * frame.value)
    return frame.pivot_table(index=["method", "source"], columns="lr", values="value")
