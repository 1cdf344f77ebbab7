"""Do robust features transfer better? The study behind notebook 01 (Salman et al. 2020, Utrera et al. 2021)."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import pandas as pd

from rtkit import claims, presets, store, studies
from rtkit.claims import Verdict
from rtkit.data.glyphs import World
from rtkit.presets import Preset
from rtkit.sources import Source
from rtkit.studies import cells, spread
from rtkit.studies.cells import Cell

STUDY = "transfer"
MAIN_EPS = 4 / 255  # the robust source of every main contrast
PAIR = (0.0, MAIN_EPS)  # its radius and the standard source's
SHAPES = ("digits", "lower", "greek")  # targets on which shape alone decides
FINE = "digits_textured"  # the target with a fine cue of its own
# Chosen on the validation images of seeds 100 and 101 from {0.03, 0.1, 0.3, 1} for either source; both chose the same.
LEARNING_RATES = {"fixed_feature": 0.3, "last_block": 0.1, "last_stage": 0.1, "last_two_stages": 0.1}
LEARNING_RATES |= {"full_network": 0.1, "scratch": 0.1}


@dataclass(frozen=True)
class Plan:
    """How much of the study a preset runs.

    Args:
        eps: radii of the robust sources.
        n_train: sizes of the target subset; contrasts at a single size use the first, the learning curve the second.
        amplitudes, reliabilities, phase_seeds: the grid of worlds of the phase diagram and its replicates.
        extended: every protocol at every size for every robust source, instead of the core.
    """

    eps: tuple[float, ...] = (MAIN_EPS,)
    n_train: tuple[int, ...] = (100, 400, 900)
    amplitudes: tuple[float, ...] = ()
    reliabilities: tuple[float, ...] = ()
    phase_seeds: tuple[int, ...] = ()
    extended: bool = False


PLANS = {
    "smoke": Plan(n_train=(20, 40)),
    "glyphs": Plan(),
    "glyphs-full": Plan(
        eps=(0.5 / 255, 1 / 255, 2 / 255, MAIN_EPS, 8 / 255),
        n_train=(100, 400, 50, 200, 900),
        amplitudes=(0, 4 / 255, 10 / 255, 20 / 255),
        reliabilities=(0.7, 0.85, 0.95, 1.0),
        phase_seeds=(0, 1, 2),
        extended=True,
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
    made += [Cell(STUDY, one, seed, target, "probe", (n,)) for one in both for target in SHAPES]
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


def plan(preset: str, seeds: Sequence[int] | None = None) -> list[Cell]:
    """All cells of the study at a preset, without computing any."""
    chosen, size = presets.get(preset), PLANS[preset]
    seeds = chosen.seeds if seeds is None else seeds
    made = [cell for seed in seeds for cell in _replicate(chosen, size, seed)]
    made += [cell for seed in seeds if seed in size.phase_seeds for cell in _phase(chosen, size, seed)]
    return list(dict.fromkeys(made))


def run(preset: str = "glyphs", seeds: Sequence[int] | None = None) -> pd.DataFrame:
    """Make the frame of the study, cell by cell; cells and networks in the cache are read.

    Args:
        seeds: the replicates; by default the preset's own.

    Returns:
        One row per observation: `study, method, source, source_eps, target, n_train, seed, metric, value, n_test,
        seconds, gradients, step, source_seed, texture_amplitude, shape_reliability`. Accuracies are fractions.

    Raises:
        ValueError: there is no such preset.
    """
    todo = plan(preset, seeds)
    missing = [cell for cell in todo if not cells.is_cached(cell)]
    sources = list(dict.fromkeys(cell.source for cell in missing))
    # Long trainings first, so that no core is left alone with one at the end.
    sources.sort(key=lambda source: source.kind != "robust")
    if missing:
        spread((cells.train_source, sources, "source networks"), (cells.rows, missing, "cells"))
    return pd.DataFrame([row for cell in todo for row in cells.rows(cell)])


def core(frame: pd.DataFrame) -> pd.DataFrame:
    """The rows of the default world, without the second standard source that serves as a control."""
    world = World()
    same = (frame.texture_amplitude == world.texture_amplitude) & (frame.shape_reliability == world.shape_reliability)
    return frame[same & (frame.seed == frame.source_seed)]


def pick(frame: pd.DataFrame, **where) -> pd.DataFrame:
    """The rows whose columns have the given values; a tuple as a value means any of its members."""
    for column, value in where.items():
        frame = frame[frame[column].isin(value) if isinstance(value, tuple) else frame[column] == value]
    return frame


def score(frame: pd.DataFrame, source: str, metric: str = "clean_accuracy", **where) -> float:
    """Mean of a metric over all matching rows (see `pick`), in percent.

    Raises:
        KeyError: no row matches.
    """
    found = pick(frame, source=source, metric=metric, **where)
    if not len(found):
        raise KeyError(f"no {metric} of source {source!r} at {where}")
    return 100 * found.value.mean()


def arms(frame: pd.DataFrame, eps: float = MAIN_EPS, **where) -> tuple[float, float]:
    """Scores of the robust and of the standard source, in percent."""
    return score(frame, "robust", source_eps=eps, **where), score(frame, "standard", **where)


def gain(frame: pd.DataFrame, eps: float = MAIN_EPS, **where) -> float:
    """Robust minus standard source, in points."""
    robust, standard = arms(frame, eps, **where)
    return robust - standard


def gain_interval(frame: pd.DataFrame, eps: float = MAIN_EPS, **where) -> claims.Interval:
    """The gain over the replicates of the default world, in points, with its 95 % interval."""
    return claims.interval([gain(part, eps, **where) for _, part in core(frame).groupby("seed")])


def effect_interval(frame: pd.DataFrame, claim: str, part: str = "") -> claims.Interval:
    """A claim's effect (or one part of it) over the replicates, whatever its verdict."""
    values = [EFFECTS[claim](replicate) for _, replicate in core(frame).groupby("seed")]
    return claims.interval([value[part] if part else value for value in values])


def best_eps(frame: pd.DataFrame, **where) -> float:
    """The source eps, zero included, with the highest validation accuracy."""
    robust = frame[(frame.source == "robust")].source_eps.unique()
    scores = {0.0: score(frame, "standard", "validation_accuracy", **where)}
    scores |= {eps: score(frame, "robust", "validation_accuracy", source_eps=eps, **where) for eps in sorted(robust)}
    return max(scores, key=scores.get)


def few(frame: pd.DataFrame) -> int:
    """The number of target images at which every source and every protocol of the frame was run."""
    return int(frame[frame.target == FINE].n_train.min())


def _best_gain(frame: pd.DataFrame, method: str) -> float:
    """Gain of the robust source whose eps validation chose, target by target, then averaged."""
    out = []
    for target in SHAPES:
        where = {"method": method, "target": target, "n_train": few(frame)}
        tried = {
            eps: score(frame, "robust", "validation_accuracy", source_eps=eps, **where)
            for eps in pick(frame, source="robust", **where).source_eps.unique()
        }
        out.append(gain(frame, max(tried, key=tried.get), **where))
    return sum(out) / len(out)


def _sizes(frame: pd.DataFrame) -> list[int]:
    return sorted(frame[(frame.method == "last_stage") & (frame.source == "robust")].n_train.unique())


def _faster(frame: pd.DataFrame) -> float:
    early = frame[frame.metric == "accuracy_at_step"]
    where = {"method": "last_stage", "target": SHAPES, "n_train": int(early.n_train.min())}
    first = gain(frame, metric="accuracy_at_step", step=int(early.step.min()), **where)
    return first - gain(frame, **where)


def _blocks(frame: pd.DataFrame) -> dict[str, float]:
    where = {"n_train": few(frame), "source_eps": MAIN_EPS}

    def more(longer: str, shorter: str, target) -> float:
        longer = score(frame, "robust", method=longer, target=target, **where)
        return longer - score(frame, "robust", method=shorter, target=target, **where)

    dissimilar, similar = more("last_stage", "last_block", "digits"), more("last_stage", "last_block", "lower")
    return {
        "last stage against last block, digits minus letters": dissimilar - similar,
        "last stage against last two stages": -more("last_two_stages", "last_stage", SHAPES[:2]),
    }


def _depends(frame: pd.DataFrame) -> float:
    where = {"method": "fixed_feature", "n_train": few(frame)}
    return 255 * (best_eps(frame, target=SHAPES, **where) - best_eps(frame, target=FINE, **where))


def _resolution(frame: pd.DataFrame) -> dict[str, float]:
    where = {"method": "fixed_feature", "n_train": few(frame)}
    low, native = gain(frame, target=f"{FINE}_low", **where), gain(frame, target=FINE, **where)
    return {"change of the gain": low - native, "gain at low resolution": low}


def _last_stage(sizes: slice):
    return lambda frame: {"method": "last_stage", "target": SHAPES, "n_train": tuple(_sizes(frame)[sizes])}


_FEW, _ALL, _FIXED = _last_stage(slice(None, -1)), _last_stage(slice(-1, None)), {"method": "fixed_feature"}

EFFECTS: dict[str, claims.Effect] = {
    "U-C1": lambda frame: gain(frame, **_FEW(frame)),
    "U-C2": lambda frame: gain(frame, **_last_stage(slice(1))(frame)) - gain(frame, **_ALL(frame)),
    "U-C3": lambda frame: gain(frame, **_ALL(frame)),
    "U-C4": _faster,
    "U-C5": lambda frame: gain(frame, target=SHAPES, **_FIXED),
    "U-C6": _blocks,
    "U-C7": lambda frame: gain(frame, **_FEW(frame)) - gain(frame, 8 / 255, **_FEW(frame)),
    "S-C1": lambda frame: _best_gain(frame, "fixed_feature"),
    "S-C2": lambda frame: _best_gain(frame, "full_network"),
    "S-C4": _depends,
    "S-C5": _resolution,
}
ARMS = {
    "U-C1": lambda frame: arms(frame, **_FEW(frame)),
    "U-C3": lambda frame: arms(frame, **_ALL(frame)),
    "U-C5": lambda frame: arms(frame, target=SHAPES, **_FIXED),
    "S-C1": lambda frame: arms(frame, target=SHAPES, n_train=few(frame), **_FIXED),
    "S-C2": lambda frame: arms(frame, target=SHAPES, n_train=few(frame), method="full_network"),
}


def phase(frame: pd.DataFrame) -> pd.DataFrame:
    """The rows that the phase diagram compares: fixed features, digits and lower case, the smallest common n."""
    seeds = tuple(frame[frame.shape_reliability != World().shape_reliability].seed.unique()) or tuple(
        frame.seed.unique()
    )
    rows = pick(frame, method="fixed_feature", metric="clean_accuracy", target=SHAPES[:2], source_eps=PAIR, seed=seeds)
    rows = pick(rows[rows.seed == rows.source_seed], source=("standard", "robust"))
    return pick(rows, n_train=PLANS["glyphs-full"].n_train[0]) if len(rows.n_train.unique()) > 1 else rows


@dataclass(frozen=True)
class Control:
    """A check on the experiment itself: what must hold, whether it does, and the interval that says so."""

    name: str
    expected: str
    holds: bool
    interval: claims.Interval


def controls(frame: pd.DataFrame) -> list[Control]:
    """The study's controls on the default world, in points; a study whose controls fail is not judged."""
    main, n = core(frame), few(core(frame))
    where = {"method": "fixed_feature", "n_train": n, "target": SHAPES[:2]}

    def over_seeds(value, confidence: float = claims.CONFIDENCE) -> claims.Interval:
        return claims.interval([value(seed, part) for seed, part in main.groupby("seed")], confidence)

    def second(seed: int, part: pd.DataFrame) -> float:
        other = frame[(frame.seed == seed) & (frame.source_seed == seed + 1000)]
        return score(other, "standard", **where) - score(part, "standard", **where)

    # At 99 % the null control, which is sound, stops one study in a hundred.
    null = over_seeds(second, 0.99)
    textures = over_seeds(lambda _, part: gain(part, **where | {"target": "textures"}))
    trained = over_seeds(lambda _, part: score(part, "standard", **where) - score(part, "untrained", **where))
    lean = over_seeds(lambda _, part: gain(part, metric="shape_bias"))
    blind = claims.interval([-value for value in main[main.metric == "self_check_warnings"].value])
    return [
        Control("two standard sources of different seed", "differ by nothing", null.low <= 0 <= null.high, null),
        Control("robust minus standard, textures only", "below zero", textures.high < 0, textures),
        Control("standard minus untrained source", "above zero", trained.low > 0, trained),
        Control("shape bias, robust minus standard", "above zero", lean.low > 0, lean),
        Control("self-checks of the attacks", "no warning", blind.effect == 0, blind),
    ]


def collapsed(frame: pd.DataFrame) -> list[int]:
    """Replicates with a source that collapsed in training or is less than half as accurate as the standard one."""
    out = []
    for seed, part in core(frame).groupby("seed"):
        rows = part[(part.target == "source") & (part.metric == "clean_accuracy")]
        weak = rows.value.min() < 0.5 * rows[rows.source == "standard"].value.mean()
        if weak or part[part.metric == "collapsed"].value.any():
            out.append(int(seed))
    return out


def verdicts(frame: pd.DataFrame, preset: str) -> dict[str, Verdict]:
    """Judge every claim that this study can speak of, by id."""
    scope, main = presets.get(preset).scope, core(frame)
    if scope is None:
        return {name: claims.unjudged(claims.load()[name], preset, "none", "smoke") for name in EFFECTS}
    failed = [control.name for control in controls(frame) if not control.holds]
    options = {"preset": preset, "scope": scope, "failed_controls": failed, "collapsed": collapsed(frame)}
    return {
        name: claims.judge(claims.load()[name], effect, main, arms=ARMS.get(name), **options)
        for name, effect in EFFECTS.items()
    }


def publish(frame: pd.DataFrame, preset: str, folder: Path | None = None) -> dict[str, Verdict]:
    """Judge the frame, keep it with its record (by default under runs/) and return the verdicts by claim."""
    found = verdicts(frame, preset)
    record = {"code": store.code_hash((*cells.MODULES, "studies/transfer", "claims"))}
    record |= {"verdicts": {name: verdict.to_dict() for name, verdict in found.items()}, "collapsed": collapsed(frame)}
    if len(frame.seed.unique()) > 1:
        record |= {"controls": [asdict(control) for control in controls(frame)]}
    studies.publish(STUDY, preset, frame, record, folder)
    return found
