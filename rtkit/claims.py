"""From frames to verdicts: the claims as data, their intervals, and the judge."""

import math
import tomllib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cache
from pathlib import Path

import pandas as pd
from scipy import stats

CONFIDENCE = 0.95
MINIMUM_REPLICATES = 3


@dataclass(frozen=True)
class Claim:
    """One claim of one paper; `claims.toml` explains the fields."""

    id: str
    paper: str
    statement: str
    protocol: str
    paper_effect: str
    where: str
    unit: str
    margin: float
    fidelity: str
    study: str
    untestable: str = ""


@dataclass(frozen=True)
class Interval:
    """Mean of an effect over replicates and its two-sided confidence interval, in the unit of the claim."""

    effect: float
    low: float
    high: float
    replicates: int


@dataclass(frozen=True)
class Verdict:
    """What the kit's own experiment says about a claim.

    `verdict` is "supported", "contradicted", "inconclusive" or "not_judged"; `reason` says why, where it needs saying.
    """

    claim: str
    paper: str
    preset: str
    scope: str
    verdict: str
    reason: str
    effect: float | None
    low: float | None
    high: float | None
    replicates: int
    unit: str
    paper_effect: str

    def to_dict(self) -> dict:
        """All fields as plain values."""
        return asdict(self)

    def __str__(self) -> str:
        number = "" if self.effect is None else f" {self.effect:+.1f} [{self.low:+.1f}, {self.high:+.1f}] {self.unit}"
        reason = f" ({self.reason})" if self.reason else ""
        return f"{self.claim}: {self.verdict.replace('_', ' ')}{reason}{number}"


class OutOfRange(ValueError):
    """Two things that an effect compares have no common range in a replicate."""


# An effect maps the frame of one replicate to a number, or for a conjunction to one number per part.
Effect = Callable[[pd.DataFrame], float | Mapping[str, float]]


@cache
def load() -> dict[str, Claim]:
    """All claims, by id, in the order of the file."""
    with Path(__file__).with_suffix(".toml").open("rb") as file:
        return {entry["id"]: Claim(**entry) for entry in tomllib.load(file)["claim"]}


def get(name: str) -> Claim:
    """The claim of that id; in "U-C1@half the texture" what follows the @ names a regime other than the default one.

    Raises:
        KeyError: no claim has that id.
    """
    return replace(load()[name.partition("@")[0]], id=name)


def anchor(name: str) -> str:
    """The id of a claim as the name of a place in a page, without spaces."""
    return name.replace(" ", "-")


def log_odds(successes: float, n: int) -> float:
    """Log odds of a rate with half a count added to either side, so that 0 and n stay finite."""
    return math.log((successes + 0.5) / (n - successes + 0.5))


def interval(values: Sequence[float], confidence: float = CONFIDENCE) -> Interval:
    """Student's t interval of the mean over replicates; a single replicate leaves it unbounded.

    Raises:
        ValueError: there are no values.
    """
    n = len(values)
    if not n:
        raise ValueError("an interval needs at least one replicate")
    mean = math.fsum(values) / n
    if n == 1:
        return Interval(mean, -math.inf, math.inf, 1)
    spread = math.sqrt(math.fsum((value - mean) ** 2 for value in values) / (n - 1) / n)
    half = float(stats.t.ppf((1 + confidence) / 2, n - 1)) * spread
    return Interval(mean, mean - half, mean + half, n)


def decide(parts: Sequence[Interval], margin: float) -> str:
    """Judge a conjunction: supported if every part lies above the margin, contradicted if one lies below it."""
    if all(part.low > margin for part in parts):
        return "supported"
    if any(part.high < margin for part in parts):
        return "contradicted"
    return "inconclusive"


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
        effect: frame of one replicate -> number, or one number per part of a conjunction, in the claim's unit. A
            KeyError means that the frame lacks what it needs, OutOfRange that it cannot be compared.
        arms: frame of one replicate -> the accuracies that the effect compares, in percent. Where all of them,
            averaged over replicates, lie beyond 95 or below 5 there is nothing to compare: not judged (saturated).
        failed_controls: names of the study's controls that do not hold; any of them stops the judgement.
        collapsed: replicates whose training collapsed; they count, and cap the verdict at inconclusive.
    """

    def verdict(word: str, reason: str, shown: Interval | None = None) -> Verdict:
        numbers = (None, None, None, 0) if shown is None else (shown.effect, shown.low, shown.high, shown.replicates)
        return Verdict(claim.id, claim.paper, preset, scope, word, reason, *numbers, claim.unit, claim.paper_effect)

    replicates = [part for _, part in frame.groupby("seed", sort=True)]
    try:
        values = [effect(part) for part in replicates]
        values = [value if isinstance(value, Mapping) else {"": value} for value in values]
    except KeyError:
        return verdict("not_judged", "not_run")
    except OutOfRange as error:
        return verdict("not_judged", f"out_of_range: {error}")
    if len(values) < MINIMUM_REPLICATES:
        return verdict("not_judged", f"not_run: {len(values)} of at least {MINIMUM_REPLICATES} replicates")
    parts = {name: interval([value[name] for value in values]) for name in values[0]}
    if not all(math.isfinite(part.effect) for part in parts.values()):
        return verdict("not_judged", "undefined: a replicate has no such number")
    word = decide(list(parts.values()), claim.margin)
    weakest = min(parts, key=lambda name: parts[name].high if word == "contradicted" else parts[name].low)
    note, shown = (f"weakest part: {weakest}" if weakest else ""), parts[weakest]
    if failed_controls:
        return verdict("not_judged", f"invalid_control: {', '.join(failed_controls)}", shown)
    if arms is not None:
        means = [math.fsum(column) / len(replicates) for column in zip(*map(arms, replicates), strict=True)]
        if min(means) > 95 or max(means) < 5:
            return verdict("not_judged", "saturated", shown)
    if collapsed and word != "inconclusive":
        return verdict("inconclusive", f"collapsed: seed {', '.join(map(str, collapsed))}", shown)
    return verdict(word, note, shown)


def unjudged(claim: Claim, preset: str, scope: str, reason: str) -> Verdict:
    """A claim that was not judged, and why."""
    facts = (claim.id, claim.paper, preset, scope, "not_judged", reason)
    return Verdict(*facts, None, None, None, 0, claim.unit, claim.paper_effect)


def scorecard(preset: str, scope: str | None, judged: Mapping[str, Verdict], studies: Sequence[str]) -> list[Verdict]:
    """One verdict for every claim: those judged, and for the others the reason why there is none.

    A claim that was judged in further regimes is followed by those verdicts.

    Args:
        scope: the preset's; None where it is too small to judge anything.
        judged: verdicts by claim id; studies: the studies that the kit has.
    """

    def verdict(claim: Claim) -> Verdict:
        if claim.id in judged:
            return judged[claim.id]
        if claim.untestable:
            return unjudged(claim, preset, scope or "none", f"untestable_here: {claim.untestable}")
        if claim.study not in studies:
            return unjudged(claim, preset, scope or "none", "no_experiment")
        return unjudged(claim, preset, scope or "none", "not_run" if scope else "smoke")

    card = []
    for claim in load().values():
        card.append(verdict(claim))
        card += [found for name, found in judged.items() if name.startswith(f"{claim.id}@")]
    return card


def table(verdicts: Sequence[Verdict]) -> pd.DataFrame:
    """The scorecard for people: claim, scope, the paper's number, ours with its interval, verdict, reason."""
    rows = []
    for verdict in verdicts:
        ours = "" if verdict.effect is None else f"{verdict.effect:+.1f} [{verdict.low:+.1f}, {verdict.high:+.1f}]"
        row = {"claim": verdict.claim, "scope": verdict.scope, "paper": verdict.paper_effect, "ours": ours}
        row |= {"unit": verdict.unit if ours else "", "verdict": verdict.verdict.replace("_", " ")}
        rows.append(row | {"reason": verdict.reason})
    return pd.DataFrame(rows).set_index("claim")


def short(found: Verdict) -> str:
    """A verdict in a few words, for a table: "supported +22.6 points", or "not judged: smoke"."""
    if found.verdict == "not_judged":
        return f"not judged: {found.reason.partition(':')[0].replace('_', ' ')}"
    return f"{found.verdict} {found.effect:+.1f} {found.unit}"
