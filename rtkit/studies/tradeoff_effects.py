"""What the trade-off study's frame says: frontiers, effects, controls and verdicts behind notebook 06."""

from pathlib import Path

import numpy as np
import pandas as pd

from rtkit import claims
from rtkit.claims import Interval, Verdict
from rtkit.studies import judging
from rtkit.studies.judging import Control
from rtkit.studies.tradeoff import MAIN_BETA, MAIN_EPS, MAIN_WEIGHT, STUDY, WEIGHTS

MAIN = 255 * MAIN_EPS  # the knob of arms that appear once
BASES = {"pgd_at": "PGD-AT", "trades": "TRADES"}
TAUGHT = ("pgd_at+vfd", "clean images only", "attacked images only", "logits", "robust teacher")
SMALL_COST = 5.0  # points of clean accuracy


def core(frame: pd.DataFrame) -> pd.DataFrame:
    """The rows that are judged: last checkpoints, untaught or taught at the main knob with one of `WEIGHTS`."""
    taught = frame.weight.isin(WEIGHTS) & frame.knob.isin([MAIN, MAIN_BETA])
    return frame[(frame.checkpoint == "last") & (taught | (frame.weight == 0))]


def value(frame: pd.DataFrame, method: str, knob: float, metric: str, weight: float | None = None) -> float:
    """Mean of a metric of a method at a knob, in percent, over its weights where none is named.

    Raises:
        KeyError: no row matches.
    """
    found = frame[(frame.method == method) & (frame.knob == knob) & (frame.metric == metric)]
    found = found if weight is None else found[found.weight == weight]
    if not len(found):
        raise KeyError(f"no {metric} of {method} at {knob}")
    return 100 * found.value.mean()


def point(frame: pd.DataFrame, method: str, knob: float = MAIN, weight: float | None = None) -> tuple[float, float]:
    """Clean and robust accuracy in percent."""
    clean, robust = (value(frame, method, knob, metric, weight) for metric in ("clean_accuracy", "robust_accuracy"))
    return clean, robust


def settings(frame: pd.DataFrame, method: str) -> list[tuple[float, float]]:
    """The (knob, weight) pairs at which a method was trained, in rising order."""
    rows = frame[frame.method == method]
    return sorted(set(zip(rows.knob, rows.weight, strict=True)))


def knobs(frame: pd.DataFrame, method: str) -> list[float]:
    """The knobs at which a method was trained, smallest first.

    Raises:
        KeyError: it was not trained.
    """
    found = sorted(frame[frame.method == method].knob.unique())
    if not found:
        raise KeyError(f"no {method} in this frame")
    return found


def points(frame: pd.DataFrame, base: str) -> np.ndarray:
    """All points of a base, standard training included: it is PGD-AT at radius 0 and TRADES at beta 0. (P, 2)."""
    standard = [point(frame, "pgd_at", 0.0)]
    return np.array(standard + [point(frame, base, knob) for knob in knobs(frame, base) if knob])


def frontier(found: np.ndarray) -> np.ndarray:
    """The points that neither another one nor a coin tossed between two others beats on both axes.

    Shape:
        (P, 2) -> (F, 2), by rising clean accuracy: the upper right part of the convex hull.
    """
    order = found[np.lexsort((found[:, 1], found[:, 0]))]
    best = np.maximum.accumulate(order[::-1, 1])[::-1]  # the highest robust accuracy at this clean accuracy or above
    following = np.append(best[1:], -np.inf)
    edge = []
    for new in order[order[:, 1] > following]:
        while len(edge) > 1 and np.linalg.det([edge[-1] - edge[-2], new - edge[-1]]) >= 0:  # it turns left
            edge.pop()
        edge.append(new)
    return np.array(edge)


def height(base: np.ndarray, new: tuple[float, float]) -> float:
    """How far a point lies above a base's frontier, in points of robust accuracy at equal clean accuracy.

    Between its points the frontier is a straight line; to the left of them it is level, because there the base offers
    more of both. To the right of them nothing can be compared, unless the point beats every point of the base.

    Args:
        base: clean and robust accuracies in percent, (P, 2); new: those of the point.

    Raises:
        OutOfRange: the point cannot be compared.
    """
    edge = frontier(base)
    clean, robust = new
    if clean > edge[-1, 0]:
        if robust < edge[:, 1].max():
            raise claims.OutOfRange(f"clean accuracy {clean:.1f} lies beyond the base's")
        return robust - edge[:, 1].max()
    return robust - float(np.interp(clean, edge[:, 0], edge[:, 1]))


def heights(frame: pd.DataFrame, base: str, method: str) -> dict[tuple[float, float], float]:
    """The height of each of a method's points that can be compared with a base's frontier, by (knob, weight).

    Raises:
        OutOfRange: none can.
    """
    found, edge = {}, points(frame, base)
    for setting in settings(frame, method):
        try:
            found[setting] = height(edge, point(frame, method, *setting))
        except claims.OutOfRange:
            continue
    if not found:
        raise claims.OutOfRange(f"no point of {method} can be compared with the frontier of {base}")
    return found


def _bases(frame: pd.DataFrame) -> dict[str, str]:
    """Title by base, of those that the frame has with a teacher."""
    found = {base: title for base, title in BASES.items() if taught_name(base) in set(frame.method)}
    if not found:
        raise KeyError("no taught base in this frame")
    return found


def taught_name(base: str) -> str:
    """What the frame calls a base with a teacher."""
    return f"{base}+vfd"


def _cleaner(frame: pd.DataFrame) -> dict[str, float]:
    out = {}
    for base, title in _bases(frame).items():
        pairs = settings(frame, taught_name(base))
        gains = [point(frame, taught_name(base), *pair)[0] - point(frame, base, pair[0])[0] for pair in pairs]
        out[title] = float(np.mean(gains))
    return out


def _beyond(frame: pd.DataFrame) -> dict[str, float]:
    bases = _bases(frame).items()
    return {title: float(np.mean(list(heights(frame, base, taught_name(base)).values()))) for base, title in bases}


def lift(frame: pd.DataFrame, method: str) -> float:
    """The height of a method's point above PGD-AT's frontier; of PGD-AT with a teacher that of `MAIN_WEIGHT`."""
    weight = MAIN_WEIGHT if method == "pgd_at+vfd" else None
    return height(points(frame, "pgd_at"), point(frame, method, weight=weight))


def lifts(frame: pd.DataFrame) -> dict[str, list[float]]:
    """By way of teaching, the `lift` in each replicate where it can be compared."""
    found = {}
    for method in (name for name in TAUGHT if name in set(frame.method)):
        found[method] = []
        for _, part in frame.groupby("seed"):
            try:
                found[method].append(lift(part, method))
            except (KeyError, claims.OutOfRange):
                continue
    return found


def _over(frame: pd.DataFrame, *others: str) -> dict[str, float]:
    return {f"over {other}": lift(frame, "pgd_at+vfd") - lift(frame, other) for other in others}


def _region(frame: pd.DataFrame) -> dict[str, float]:
    return {"region": lift(frame, "region"), "smoothing": lift(frame, "rat") - lift(frame, "region")}


def _gap(frame: pd.DataFrame) -> float:
    return value(frame, "pgd_at", MAIN, "generalisation_gap") - value(frame, "rat", MAIN, "generalisation_gap")


def _smoothed(frame: pd.DataFrame) -> dict[str, float]:
    middle = knobs(frame, "arks")[1]
    clean, robust = np.subtract(point(frame, "arks", middle), point(frame, "pgd_at", 0.0))
    return {"under attack": robust, f"clean, {SMALL_COST:g} points allowed": clean + SMALL_COST}


def _wider(frame: pd.DataFrame) -> dict[str, float]:
    narrow, *_, wide = (point(frame, "arks", sigma) for sigma in knobs(frame, "arks"))
    return {"more robust": wide[1] - narrow[1], "less accurate": narrow[0] - wide[0]}


EFFECTS: dict[str, claims.Effect] = {
    "VFD-C1": _cleaner,
    "VFD-C2": _beyond,
    "VFD-C3": lambda frame: _over(frame, "clean images only", "attacked images only"),
    "VFD-C4": lambda frame: _over(frame, "logits"),
    "RAT-R1": lambda frame: lift(frame, "rat"),
    "RAT-R2": _gap,
    "RAT-R3": _region,
    "ARKS-A1": _smoothed,
    "ARKS-A3": _wider,
}
ARMS = {
    "VFD-C1": lambda frame: [point(frame, name, knob)[0] for name in ("pgd_at", "pgd_at+vfd") for knob in (MAIN,)],
}


def collapsed(frame: pd.DataFrame) -> list[int]:
    """Replicates in which adversarial training collapsed, or stayed at less than half the standard accuracy."""
    out = []
    for seed, part in frame.groupby("seed"):
        weak = part[part.metric == "clean_accuracy"].value.min() < 0.5 * point(part, "pgd_at", 0.0)[0] / 100
        if weak or part[part.metric == "collapsed"].value.any():
            out.append(int(seed))
    return out


def controls(frame: pd.DataFrame) -> list[Control]:
    """The study's controls, in points; none for a single replicate."""
    main = core(frame)
    if len(main.seed.unique()) < 2:
        return []

    def mean(metric: str) -> Interval:
        return judging.over_seeds(main, lambda part: 100 * part[part.metric == metric].value.mean())

    spans = [judging.over_seeds(main, lambda part, k=k: np.ptp(points(part, "pgd_at")[:, k])) for k in (0, 1)]
    standard = judging.over_seeds(main, lambda part: point(part, "pgd_at", 0.0)[1])
    moved, hidden, warned = mean("moved"), mean("only_transferred"), mean("self_check_warnings")
    return [
        Control("the base's frontier, clean accuracy", "spans 5 points", spans[0].effect >= 5, spans[0]),
        Control("the base's frontier, robust accuracy", "spans 5 points", spans[1].effect >= 5, spans[1]),
        Control("robust accuracy over the last fifth", "moves by less than 1 point", moved.effect < 1, moved),
        Control("what only a transferred attack breaks", "less than 1 point", hidden.effect < 1, hidden),
        Control("the standard network under attack", "below 10 %", standard.effect < 10, standard),
        Control("self-checks of the attacks", "no warning", warned.effect == 0, warned),
    ]


def verdicts(frame: pd.DataFrame, preset: str) -> dict[str, Verdict]:
    """Judge every claim that this study can speak of, by id."""
    main = core(frame)
    return judging.verdicts(EFFECTS, ARMS, main, preset, controls(frame), collapsed(main))


def publish(frame: pd.DataFrame, preset: str, folder: Path | None = None) -> dict[str, Verdict]:
    """Judge the frame, keep it with its record (by default under runs/) and return the verdicts by claim."""
    found = verdicts(frame, preset)
    judging.publish(STUDY, frame, preset, found, controls(frame), collapsed(core(frame)), folder)
    return found
