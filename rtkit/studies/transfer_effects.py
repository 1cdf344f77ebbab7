"""What the transfer study's frame says: effects, controls and verdicts behind notebook 01."""

from pathlib import Path

import pandas as pd

from rtkit import claims, published
from rtkit.claims import Verdict
from rtkit.data.glyphs import World
from rtkit.data.pictures import Pictures
from rtkit.data.targets import NAMES
from rtkit.studies import judging
from rtkit.studies.judging import Control
from rtkit.studies.transfer import FINE, MAIN_EPS, REAL, SHAPES, STUDY

FEW = 1600  # images of a data set of real ones: what Utrera et al. (2021, section 4) call few


def core(frame: pd.DataFrame) -> pd.DataFrame:
    """The rows of the default world, without the second standard source that serves as a control."""
    world = World()
    same = (frame.texture_amplitude == world.texture_amplitude) & (frame.shape_reliability == world.shape_reliability)
    return frame[(same | frame.texture_amplitude.isna()) & (frame.source_seed != frame.seed + 1000)]


def judged(frame: pd.DataFrame) -> tuple[str, ...]:
    """The targets whose mean is judged: on which shape decides, of real source networks the data sets of `REAL`.

    A reader's own data sets are shown, and judge only where there are no others.
    """
    there = [name for name in frame.target.unique() if name != "source"]
    return next(filter(None, (tuple(name for name in names if name in there) for names in (SHAPES, REAL, there))), ())


def named(frame: pd.DataFrame) -> pd.DataFrame:
    """The rows of data sets by name: clean accuracy from the standard and the robust source of the main contrasts."""
    rows = core(frame)
    rows = pick(rows[~rows.target.isin([*NAMES, "source"])], metric="clean_accuracy")
    return rows[(rows.source == "standard") | ((rows.source == "robust") & (rows.source_eps == main_eps(frame)))]


def main_eps(frame: pd.DataFrame) -> float:
    """The radius of the robust source of the main contrasts."""
    if _drawn(frame):
        return MAIN_EPS
    radii = frame[frame.source == "robust"].source_eps.unique()
    known = [eps for eps in (published.MAIN_EPS, Pictures.eps) if eps in radii]
    return known[0] if known else float(min(radii, default=Pictures.eps))


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


def arms(frame: pd.DataFrame, eps: float | None = None, **where) -> tuple[float, float]:
    """Scores of the robust and of the standard source, in percent; by default that of the main radius."""
    eps = main_eps(frame) if eps is None else eps
    return score(frame, "robust", source_eps=eps, **where), score(frame, "standard", **where)


def gain(frame: pd.DataFrame, eps: float | None = None, **where) -> float:
    """Robust minus standard source, in points."""
    robust, standard = arms(frame, eps, **where)
    return robust - standard


def gain_interval(frame: pd.DataFrame, eps: float | None = None, **where) -> claims.Interval:
    """The gain over the replicates of the default world, in points, with its 95 % interval."""
    return claims.interval([gain(part, eps, **where) for _, part in core(frame).groupby("seed")])


def effect_interval(frame: pd.DataFrame, claim: str, part: str = "") -> claims.Interval:
    """A claim's effect (or one part of it) over the replicates, whatever its verdict."""
    values = [EFFECTS[claim](replicate) for _, replicate in core(frame).groupby("seed")]
    return claims.interval([value[part] if part else value for value in values])


def _radii(frame: pd.DataFrame, least: int, **where) -> list[float]:
    found = sorted(pick(frame, source="robust", **where).source_eps.unique())
    if len(found) < least:
        raise KeyError(f"the choice of a radius needs {least} robust sources")
    return found


def best_eps(frame: pd.DataFrame, **where) -> float:
    """The source eps, zero included, with the highest validation accuracy.

    Raises:
        KeyError: there is one robust source only.
    """
    scores = {0.0: score(frame, "standard", "validation_accuracy", **where)}
    scores |= {eps: score(frame, "robust", "validation_accuracy", source_eps=eps, **where) for eps in _radii(frame, 2)}
    return max(scores, key=scores.get)


def few(frame: pd.DataFrame) -> int:
    """The number of target images at which every source and every protocol of the frame was run."""
    fine, untrained = frame[frame.target == FINE], frame[frame.source == "untrained"]
    found = next((rows for rows in (fine, untrained) if len(rows)), frame[frame.method == "fixed_feature"])
    return int(found.n_train.min())


def _best_gain(frame: pd.DataFrame, method: str, least: int = 1) -> float:
    """Gain of the robust source whose eps validation chose, target by target, then averaged."""
    out = []
    for target in judged(frame):
        where = {"method": method, "target": target, "n_train": few(frame)}
        tried = {
            eps: score(frame, "robust", "validation_accuracy", source_eps=eps, **where)
            for eps in _radii(frame, least, **where)
        }
        out.append(gain(frame, max(tried, key=tried.get), **where))
    return sum(out) / len(out)


def _sizes(frame: pd.DataFrame) -> list[int]:
    return sorted(pick(frame, method="last_stage", source="robust", target=judged(frame)).n_train.unique())


def _last_stage(frame: pd.DataFrame, *ends: int | None) -> dict:
    return {"method": "last_stage", "target": judged(frame), "n_train": tuple(_sizes(frame)[slice(*ends)])}


def _drawn(frame: pd.DataFrame) -> bool:
    return frame.texture_amplitude.notna().any()


def _few(frame: pd.DataFrame) -> dict:
    """Few images: in the glyph world all sizes but the whole pool, of real images up to the authors' bound."""
    return _last_stage(frame, -1 if _drawn(frame) else sum(n <= FEW for n in _sizes(frame)))


def _no_worse(frame: pd.DataFrame) -> dict[str, float]:
    if not _drawn(frame):
        raise KeyError("of real images no run takes all")
    margin = claims.get("U-C3").margin
    return {
        "on the target": gain(frame, **_last_stage(frame, -1, None)),
        # Worse means below zero: the margin, meant for the other part, is taken out of this one.
        f"worse on its own task, {-margin:g} points taken off": margin
        - gain(frame, target="source", metric="clean_accuracy"),
    }


def _faster(frame: pd.DataFrame) -> float:
    early = pick(frame, metric="accuracy_at_step", target=judged(frame))
    if not len(early):
        raise KeyError("no accuracy on the way")
    where = {"method": "last_stage", "target": judged(frame), "n_train": int(early.n_train.min())}
    first = gain(frame, metric="accuracy_at_step", step=int(early.step.min()), **where)
    return first - gain(frame, **where)


def _blocks(frame: pd.DataFrame) -> dict[str, float]:
    where = {"n_train": few(frame), "source_eps": MAIN_EPS}

    def more(longer: str, shorter: str, target) -> float:
        longer = score(frame, "robust", method=longer, target=target, **where)
        return longer - score(frame, "robust", method=shorter, target=target, **where)

    dissimilar, similar = more("last_stage", "last_block", "digits"), more("last_stage", "last_block", "lower")
    return {
        "last stage over last block, digits": dissimilar,
        "last block over last stage, letters": -similar,
        "last stage over last two stages": -more("last_two_stages", "last_stage", SHAPES[:2]),
    }


def _depends(frame: pd.DataFrame) -> float:
    where = {"method": "fixed_feature", "n_train": few(frame)}
    return 255 * (best_eps(frame, target=judged(frame), **where) - best_eps(frame, target=FINE, **where))


def _resolution(frame: pd.DataFrame) -> dict[str, float]:
    where = {"method": "fixed_feature", "n_train": few(frame)}
    low, native = gain(frame, target=f"{FINE}_low", **where), gain(frame, target=FINE, **where)
    return {"change of the gain": low - native, "gain at low resolution": low}


_FIXED = {"method": "fixed_feature"}

EFFECTS: dict[str, claims.Effect] = {
    "U-C1": lambda frame: gain(frame, **_few(frame)),
    "U-C2": lambda frame: gain(frame, **_last_stage(frame, 1)) - gain(frame, **_last_stage(frame, -1, None)),
    "U-C3": _no_worse,
    "U-C4": _faster,
    "U-C5": lambda frame: gain(frame, target=judged(frame), **_FIXED),
    "U-C6": _blocks,
    "U-C7": lambda frame: gain(frame, **_few(frame)) - gain(frame, 8 / 255, **_few(frame)),
    "S-C1": lambda frame: _best_gain(frame, "fixed_feature", 2),  # with a single radius it would be U-C5 again
    "S-C2": lambda frame: _best_gain(frame, "full_network"),
    "S-C4": _depends,
    "S-C5": _resolution,
}
ARMS = {
    "U-C1": lambda frame: arms(frame, **_few(frame)),
    "U-C3": lambda frame: arms(frame, **_last_stage(frame, -1, None)),
    "U-C5": lambda frame: arms(frame, target=judged(frame), **_FIXED),
    "S-C1": lambda frame: arms(frame, target=judged(frame), n_train=few(frame), **_FIXED),
    "S-C2": lambda frame: arms(frame, target=judged(frame), n_train=few(frame), method="full_network"),
}


def controls(frame: pd.DataFrame) -> list[Control]:
    """The study's controls on the default world, in points; those that its rows allow, none for a single replicate."""
    if len(frame.seed.unique()) < 2:
        return []
    main, n = core(frame), few(core(frame))
    where = {"method": "fixed_feature", "n_train": n, "target": judged(main)[:2]}
    found = []

    def add(name: str, expected: str, value, holds, confidence: float = claims.CONFIDENCE) -> None:
        try:
            shown = claims.interval([value(seed, part) for seed, part in main.groupby("seed")], confidence)
        except KeyError:
            return
        found.append(Control(name, expected, holds(shown), shown))

    def second(seed: int, part: pd.DataFrame) -> float:
        other = frame[(frame.seed == seed) & (frame.source_seed == seed + 1000)]
        return score(other, "standard", **where) - score(part, "standard", **where)

    def trained(_, part: pd.DataFrame) -> float:
        return score(part, "standard", **where) - score(part, "untrained", **where)

    def textures(_, part: pd.DataFrame) -> float:
        return gain(part, **where | {"target": "textures"})

    # At 99 % the null control, which is sound, stops one study in a hundred.
    null = ("two standard sources of different seed (99 % interval)", "differ by nothing")
    add(*null, second, lambda shown: shown.low <= 0 <= shown.high, 0.99)
    add("robust minus standard, textures only", "below zero", textures, lambda shown: shown.high < 0)
    add("standard minus untrained source", "above zero", trained, lambda shown: shown.low > 0)
    lean = ("shape bias, robust minus standard", "above zero")
    add(*lean, lambda _, part: gain(part, metric="shape_bias"), lambda shown: shown.low > 0)
    own = ("robust accuracy on their own task, robust minus standard", "above zero")
    add(*own, lambda _, part: gain(part, metric="robust_accuracy", target="source"), lambda shown: shown.low > 0)
    warnings = main[main.metric == "self_check_warnings"].value
    if len(warnings):
        blind = claims.interval([-value for value in warnings])
        found.append(Control("self-checks of the attacks", "no warning", blind.effect == 0, blind))
    return found


def verdicts(frame: pd.DataFrame, preset: str) -> dict[str, Verdict]:
    """Judge every claim that this study can speak of, by id."""
    main = core(frame)
    return judging.verdicts(EFFECTS, ARMS, main, preset, controls(frame), judging.collapsed(main))


def publish(frame: pd.DataFrame, preset: str, folder: Path | None = None) -> dict[str, Verdict]:
    """Judge the frame, keep it with its record (by default under runs/) and return the verdicts by claim."""
    found = verdicts(frame, preset)
    judging.publish(STUDY, frame, preset, found, controls(frame), judging.collapsed(core(frame)), folder)
    return found
