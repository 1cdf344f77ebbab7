"""The judge: from the frame of a study to verdicts on claims."""

import math
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from functools import partial

import numpy as np
import pandas as pd
from scipy import stats

from rtkit import SCOPES, frames, protocols
from rtkit.claims import Claim, Effect, Part, Verdict, get, unjudged
from rtkit.definitions import code_of
from rtkit.frames import CONFIDENCE, Control, Interval, Missing, OutOfRange

MINIMUM_REPLICATES = 5


def decide(parts: Sequence[Part], bound: float = 0.0) -> str:
    """Judge a conjunction: supported if every part lies above its margin, contradicted if one lies below it.

    Of what is neither, it is null where a part lies within `bound` of zero, if there is a bound.
    """
    if all(part.low > part.margin for part in parts):
        return "supported"
    if any(part.most < part.margin for part in parts):
        return "contradicted"
    return "null" if any(-bound < part.least and part.most < bound for part in parts) else "inconclusive"


def weakest(parts: Sequence[Part]) -> Part:
    """The part that decides a conjunction: whose interval ends farthest below its margin, or least far above it."""
    end = "most" if any(part.most < part.margin for part in parts) else "low"
    return min(parts, key=lambda part: getattr(part, end) - part.margin)


def told(
    claim: Claim, preset: str, scope: str, word: str, reason: str = "", found: Sequence[Part] = (), replicates: int = 0
) -> Verdict:
    """A verdict of that word, with the numbers of the part that decided."""
    verdict = replace(unjudged(claim, preset, scope, reason), verdict=word, parts=tuple(found))
    if not found:
        return verdict
    shown = weakest(found)
    return replace(verdict, effect=shown.effect, low=shown.low, high=shown.high, replicates=replicates)


def asked(effect: Effect, replicate: pd.DataFrame, claim: Claim) -> dict[str, tuple[float, float]]:
    """The value and the margin of each part of an effect in one replicate; what is one part has no name."""
    value = effect(replicate)
    named = value if isinstance(value, Mapping) else {"": value}
    return {name: one if isinstance(one, tuple) else (one, claim.margin) for name, one in named.items()}


def each(effect: Effect, replicates: Sequence[pd.DataFrame], claim: Claim) -> dict[str, tuple[list[float], float]]:
    """The values over the replicates and the margin of each part; a replicate that is `OutOfRange` is left out.

    Raises:
        OutOfRange: all are.
    """
    found, left = [], OutOfRange()
    for part in replicates:
        try:
            found.append(asked(effect, part, claim))
        except OutOfRange as error:
            left = error
    if not found:
        raise left
    return {name: ([one[name][0] for one in found], found[0][name][1]) for name in found[0]}


def parts(values: Mapping[str, tuple[Sequence[float], float]], claim: Claim) -> list[Part]:
    """The parts of an effect, each with its interval, and with the one that contradicts.

    Of several parts one may lie below its margin by chance: for that, and to call it null, each of k needs an interval
    that errs by 2.5 / k percent instead of 5. Correlations are averaged as Fisher's z.
    """
    there, back, within = (lambda value: value), (lambda value: value), claim.range
    if "correlation" in claim.unit:
        there, back, within = _fisher, math.tanh, frames.EVERYTHING
    sure = CONFIDENCE if len(values) == 1 else 1 - (1 - CONFIDENCE) / (2 * len(values))
    found = []
    for name, (one, margin) in values.items():
        at, wide = (frames.interval([*map(there, one)], level, within) for level in (CONFIDENCE, sure))
        found.append(Part(name, *map(back, (at.effect, at.low, at.high)), margin, back(wide.low), back(wide.high)))
    return found


def _fisher(value: float) -> float:
    return math.atanh(min(max(value, -0.999), 0.999))


def _tails(values: Sequence[float], at: float) -> tuple[float, float]:
    """One-sided p values of a mean above, and of one below, a number: by the interval that reaches it last."""
    n, spread, gap = len(values), np.std(values, ddof=1), math.fsum(values) / len(values) - at
    if spread <= 1e-12:  # values that are all equal
        return float(gap <= 0), float(gap >= 0)
    third, z = stats.skew(values, bias=False) / 3 if n >= 8 else 0.0, gap / spread
    scores = [math.sqrt(n) * one for one in (z, z + third * z**2 + third**2 * z**3 / 3 + third / (2 * n))]
    return float(stats.t.sf(min(scores), n - 1)), float(stats.t.cdf(max(scores), n - 1))


def p_value(values: Mapping[str, tuple[Sequence[float], float]], claim: Claim) -> float:
    """Two-sided, by the intervals of `parts`: that all lie above their margins, or that one lies below."""
    there = _fisher if "correlation" in claim.unit else float
    tails = [_tails([*map(there, one)], there(margin)) for one, margin in values.values()]
    above, below = (max(p for p, _ in tails), min(p for _, p in tails))
    return min(1.0, 2 * min(above, len(tails) * below))


def judge(
    claim: Claim,
    effect: Effect,
    frame: pd.DataFrame,
    *,
    preset: str,
    scope: str,
    arms: Callable[[pd.DataFrame], Sequence[float]] | None = None,
    failed_controls: Sequence[str] = (),
    collapsed: Sequence[int] = (),
    needed: int = MINIMUM_REPLICATES,
) -> Verdict:
    """Judge one claim on a study's frame.

    Args:
        effect: see `Effect`, in the claim's unit. `Missing` means that the frame lacks what it needs; a replicate that
            is `OutOfRange` is left out and counted, and five must remain; any other error is raised.
        arms: frame of one replicate -> the accuracies that the effect compares, in percent. Where all of them,
            averaged over replicates, lie beyond 95 or below 5 there is nothing to compare: not judged (saturated).
        failed_controls: names of the study's controls that do not hold; any of them stops the judgement.
        collapsed: replicates whose training collapsed; they count, and cap the verdict at inconclusive.
        needed: replicates without which no word is said.
    """
    replicates = [part for _, part in frame.groupby("seed", sort=True)]
    verdict = partial(told, claim, preset, scope, replicates=len(replicates))
    try:
        values = each(effect, replicates, claim)
    except Missing:
        return verdict("not_judged", "not_run")
    except OutOfRange as error:
        return verdict("not_judged", f"out_of_range: {error}")
    valid = len(next(iter(values.values()))[0])
    verdict = partial(verdict, replicates=valid)
    if not all(math.isfinite(value) for one, _ in values.values() for value in one):
        return verdict("not_judged", "undefined: a replicate has no such number")
    found = parts(values, claim) if valid > 1 else []
    if len(replicates) < needed:
        return verdict("not_judged", f"not_run: {len(replicates)} of {needed} replicates", found)
    counted = "" if valid == len(replicates) else f"{valid} of {len(replicates)} replicates can be compared"
    if valid < MINIMUM_REPLICATES:
        return verdict("not_judged", f"out_of_range: {counted}, {MINIMUM_REPLICATES} must", found)
    if claim.certain:
        return verdict("not_judged", f"certain: {claim.certain}", found)
    if failed_controls:
        return verdict("not_judged", f"invalid_control: {', '.join(failed_controls)}", found)
    if arms is not None:
        means = [math.fsum(column) / len(replicates) for column in zip(*map(arms, replicates), strict=True)]
        if min(means) > 95 or max(means) < 5:
            return verdict("not_judged", "saturated", found)
    word, name = decide(found, claim.bound), weakest(found).name
    if collapsed and word != "inconclusive":
        return verdict("inconclusive", f"collapsed: seed {', '.join(map(str, collapsed))}", found)
    reason = "; ".join(filter(None, (f"weakest part: {name}" if name else "", counted)))
    return replace(verdict(word, reason, found), p=p_value(values, claim))


def rows_code(study: str) -> str:
    """A hash of the code that computes a study's rows: what its cells were made by, if they are current."""
    return code_of(f"rtkit.measure.{study}", "rows")


def marks(frame: pd.DataFrame, replicates: int) -> tuple[str, ...]:
    """What a reader must know beside a verdict: whether it was registered, cells of other code, an interval's unit."""
    unit, current = frame.attrs.get("unit"), rows_code(frame.attrs["study"])
    if unit:
        return (f"{replicates} {unit}",)
    other = sum(one["cells"] for one in frame.attrs.get("made", ()) if one["code"] != current)
    return (protocols.status(frame), *([f"{other} cells of other code"] if other else []))


class Judge:
    """The judgement of one study's frame, built up cell by cell: first its checks, then claim after claim.

    Args:
        frame: as `experiment.run` or `records.frame` give it, which says its study and preset in `frame.attrs`.
        main: the rows that are judged, `frame` itself by default.
        collapsed: replicates whose training collapsed; by default what `frames.collapsed` finds among them.

    A `live` replicate (see `experiment.run`) is judged by none of it, only shown beside the others.
    """

    def __init__(self, frame: pd.DataFrame, main: pd.DataFrame | None = None, collapsed: Sequence[int] | None = None):
        self.frame, main = frame, frame if main is None else main
        self.study, self.preset = frame.attrs["study"], frame.attrs["preset"]
        live = main.seed == frame.attrs.get("live", -1)
        self.main, self.live = main[~live], main[live]
        self.collapsed = frames.collapsed(self.main) if collapsed is None else list(collapsed)
        self.controls: list[Control] = []
        self.effects: dict[str, Effect] = {}
        self.verdicts: dict[str, Verdict] = {}

    def check(self, name: str, must: str, value: Callable, frame=None, confidence: float = CONFIDENCE) -> None:
        """Add a control (`frames.control`) over the judged rows or another frame; none where it was not run."""
        frame = self.main if frame is None else frame
        if frame.seed.nunique() < 2:
            return  # the interval of a single replicate says nothing
        with suppress(Missing):
            self.controls.append(frames.control(name, must, frame, value, confidence))

    def __call__(self, name: str, effect: Effect, arms: Callable | None = None, rows=None) -> Verdict:
        """Judge a claim by its effect, and remember the verdict; a regime other than the default one follows an @.

        Args:
            rows: what is judged in place of `main`, and says in its own `attrs` where it is from.
        """
        scope, self.effects[name] = SCOPES[self.preset], effect
        if scope is None:
            self.verdicts[name] = unjudged(get(name), self.preset, "none", "smoke")
        else:
            failed = [found.name for found in self.controls if not found.holds]
            options = {"preset": self.preset, "scope": scope, "collapsed": self.collapsed, "failed_controls": failed}
            rows, facts = (self.main, self.frame) if rows is None else (rows, rows)
            options["needed"] = max(MINIMUM_REPLICATES, protocols.replicates(facts))
            found = judge(get(name), effect, rows, arms=arms, **options)
            self.verdicts[name] = replace(found, marks=marks(facts, found.replicates))
        return self.verdicts[name]

    def state(self, name: str, found: Sequence[Part], unit: str) -> Verdict:
        """Remember a verdict of parts whose intervals are over something else than replicates, named by `unit`."""
        verdict = told(get(name), self.preset, SCOPES[self.preset], decide(found, get(name).bound), found=found)
        self.verdicts[name] = replace(verdict, marks=(unit,))
        return self.verdicts[name]

    def values(self, frame: pd.DataFrame) -> pd.DataFrame:
        """All effects of the claims judged so far, a row for each part and replicate of a frame's judged rows."""
        rows = []
        for name, effect in self.effects.items():
            for seed, one in frame.groupby("seed"):
                with suppress(Missing, OutOfRange):
                    for part, (value, _) in asked(effect, one, get(name)).items():
                        rows.append({"claim": name, "part": part, "seed": int(seed), "value": value})
        return pd.DataFrame(rows, columns=["claim", "part", "seed", "value"])

    def interval(self, name: str, part: str = "") -> Interval:
        """The effect of a claim, or of a named part, over the replicates, whatever its verdict. Raises `Missing`."""
        values = each(self.effects[name], [one for _, one in self.main.groupby("seed")], get(name))
        (found,) = parts({part: values[part]}, get(name))
        return Interval(found.effect, found.low, found.high, len(values[part][0]))
