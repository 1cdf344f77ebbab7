"""The judge: from the frame of a study to verdicts on claims."""

import math
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from functools import partial

import pandas as pd

from rtkit import SCOPES, TUNING, frames
from rtkit.claims import Claim, Effect, Part, Verdict, get, unjudged
from rtkit.definitions import code_of
from rtkit.frames import CONFIDENCE, Control, Interval, Missing, OutOfRange

MINIMUM_REPLICATES = 3


def decide(parts: Sequence[Part]) -> str:
    """Judge a conjunction: supported if every part lies above its margin, contradicted if one lies below it."""
    if all(part.low > part.margin for part in parts):
        return "supported"
    if any(part.high < part.margin for part in parts):
        return "contradicted"
    return "inconclusive"


def weakest(parts: Sequence[Part]) -> Part:
    """The part that decides a conjunction: whose interval ends farthest below its margin, or least far above it."""
    end = "high" if decide(parts) == "contradicted" else "low"
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


def parts(effect: Effect, replicates: Sequence[pd.DataFrame], claim: Claim) -> list[Part]:
    """The parts of an effect over the frames of the replicates, with the claim's margin where they name none."""
    found = [effect(part) for part in replicates]
    found = [value if isinstance(value, Mapping) else {"": value} for value in found]
    pairs = [{name: v if isinstance(v, tuple) else (v, claim.margin) for name, v in value.items()} for value in found]
    shown = {name: frames.interval([pair[name][0] for pair in pairs], within=claim.range) for name in pairs[0]}
    return [Part(name, at.effect, at.low, at.high, pairs[0][name][1]) for name, at in shown.items()]


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
) -> Verdict:
    """Judge one claim on a study's frame.

    Args:
        effect: see `Effect`, in the claim's unit. `Missing` means that the frame lacks what it needs, `OutOfRange` that
            it cannot be compared; any other error is raised.
        arms: frame of one replicate -> the accuracies that the effect compares, in percent. Where all of them,
            averaged over replicates, lie beyond 95 or below 5 there is nothing to compare: not judged (saturated).
        failed_controls: names of the study's controls that do not hold; any of them stops the judgement.
        collapsed: replicates whose training collapsed; they count, and cap the verdict at inconclusive.
    """
    replicates = [part for _, part in frame.groupby("seed", sort=True)]

    verdict = partial(told, claim, preset, scope, replicates=len(replicates))
    try:
        found = parts(effect, replicates, claim)
    except Missing:
        return verdict("not_judged", "not_run")
    except OutOfRange as error:
        return verdict("not_judged", f"out_of_range: {error}")
    if len(replicates) < MINIMUM_REPLICATES:
        return verdict("not_judged", f"not_run: {len(replicates)} of at least {MINIMUM_REPLICATES} replicates")
    if not all(math.isfinite(part.effect) for part in found):
        return verdict("not_judged", "undefined: a replicate has no such number")
    word, name = decide(found), weakest(found).name
    if failed_controls:
        return verdict("not_judged", f"invalid_control: {', '.join(failed_controls)}", found)
    if arms is not None:
        means = [math.fsum(column) / len(replicates) for column in zip(*map(arms, replicates), strict=True)]
        if min(means) > 95 or max(means) < 5:
            return verdict("not_judged", "saturated", found)
    if collapsed and word != "inconclusive":
        return verdict("inconclusive", f"collapsed: seed {', '.join(map(str, collapsed))}", found)
    return verdict(word, f"weakest part: {name}" if name else "", found)


def rows_code(study: str) -> str:
    """A hash of the code that computes a study's rows: what its cells were made by, if they are current."""
    return code_of(f"rtkit.measure.{study}", "rows")


def marks(frame: pd.DataFrame, replicates: int) -> tuple[str, ...]:
    """What a reader must know beside a verdict: changed knobs, cells of other code, intervals over something else."""
    changed, unit, current = frame.attrs.get("changed"), frame.attrs.get("unit"), rows_code(frame.attrs["study"])
    other = sum(one["cells"] for one in frame.attrs.get("made", ()) if one["code"] != current)
    found = [f"exploratory: {', '.join(changed)} changed" if changed else ""]
    found += ["exploratory: seeds that rates were chosen on"] if frame.seed.isin(TUNING).any() else []
    found += [f"{other} cells of other code" if other else "", f"{replicates} {unit}" if unit else ""]
    return tuple(filter(None, found))


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
            found = judge(get(name), effect, self.main if rows is None else rows, arms=arms, **options)
            self.verdicts[name] = replace(found, marks=marks(self.frame if rows is None else rows, found.replicates))
        return self.verdicts[name]

    def state(self, name: str, found: Sequence[Part], unit: str) -> Verdict:
        """Remember a verdict of parts whose intervals are over something else than replicates, named by `unit`."""
        verdict = told(get(name), self.preset, SCOPES[self.preset], decide(found), found=found)
        self.verdicts[name] = replace(verdict, marks=(unit,))
        return self.verdicts[name]

    def values(self, frame: pd.DataFrame) -> pd.DataFrame:
        """All effects of the claims judged so far, a row for each part and replicate of a frame's judged rows."""
        rows = []
        for name, effect in self.effects.items():
            with suppress(Missing, OutOfRange):
                for seed, one in frame.groupby("seed"):
                    found = effect(one)
                    for part, value in (found if isinstance(found, Mapping) else {"": found}).items():
                        value = value[0] if isinstance(value, tuple) else value
                        rows.append({"claim": name, "part": part, "seed": int(seed), "value": value})
        return pd.DataFrame(rows, columns=["claim", "part", "seed", "value"])

    def interval(self, name: str, part: str = "") -> Interval:
        """The effect of a claim, or of a named part, over the replicates, whatever its verdict. Raises `Missing`."""

        def value(frame: pd.DataFrame) -> float:
            found = self.effects[name](frame)
            found = found[part] if part else found
            return found[0] if isinstance(found, tuple) else found

        return frames.over_seeds(self.main, value, within=get(name).range)
