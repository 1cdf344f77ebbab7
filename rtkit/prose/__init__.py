"""Sentences computed from a run, so that a notebook reads true whichever way its results fall."""

import math
from collections.abc import Iterable, Sequence

import numpy as np

from rtkit.claims import Interval, Verdict, anchor, get
from rtkit.studies.judging import Control


def number(interval: Interval, unit: str = "points") -> str:
    """An effect with its interval, such as "+3.1 points [+1.0, +5.2]"."""
    if math.isinf(interval.low):
        return f"{interval.effect:+.1f} {unit} in a single replicate, which says nothing about its error"
    return f"{interval.effect:+.1f} {unit} [{interval.low:+.1f}, {interval.high:+.1f}]"


def compare(interval: Interval, first: str = "the robust source", second: str = "the standard source") -> str:
    """Who is ahead, or that the two cannot be told apart, with the numbers."""
    if interval.low > 0:
        return f"{first} is **ahead** of {second}: {number(interval)}"
    if interval.high < 0:
        return f"{first} is **behind** {second}: {number(interval)}"
    return f"{first} and {second} are **not told apart**: {number(interval)}"


def change(interval: Interval, what: str) -> str:
    """Whether something grows, shrinks or does not clearly do either, with the numbers."""
    word = "**grows**" if interval.low > 0 else "**shrinks**" if interval.high < 0 else "**does not clearly change**"
    return f"{what} {word}: {number(interval)}"


def control(found: Control) -> str:
    """A control as a line: whether it holds, what must hold, and the numbers."""
    return f"{'holds' if found.holds else 'FAILS'} {found.name}, {found.expected}: {number(found.interval)}"


# By scope: what a supported claim is called, and where a contradicted one failed.
_SCOPES = {
    "mechanism": ("the mechanism shows in this world", "in this world"),
    "small-scale": ("it shows on real images at small scale", "on real images at small scale"),
    "published networks": ("it shows on published networks", "on published networks"),
}


def verdict(found: Verdict) -> str:
    """A verdict as a paragraph: the claim, what we found, in which scope, and what the paper reports."""
    claim = get(found.claim)
    # The anchor is what the report's scorecard links to.
    heading = f'<a id="{anchor(found.claim)}"></a>**{found.claim}** ({claim.paper}). {claim.statement}'
    if found.verdict == "not_judged":
        return f"{heading}\n\n> Not judged: {found.reason.replace('_', ' ')}. The paper: {claim.paper_effect}."
    ours = number(Interval(found.effect, found.low, found.high, found.replicates), claim.unit)
    shown, where = _SCOPES[found.scope]
    word = {
        "supported": f"**Supported**: {shown}",
        "contradicted": f"**Contradicted** {where}",
        "inconclusive": "**Inconclusive**: the interval holds the margin",
    }[found.verdict]
    if found.reason.startswith("collapsed"):
        word = "**Inconclusive**, whatever the interval"
    note = f" ({found.reason})" if found.reason else ""
    facts = f"{ours}, margin {claim.margin:g}, {found.replicates} replicates"
    return f"{heading}\n\n> {word}{note}: {facts}. The paper: {claim.paper_effect}."


def verdicts(found: Iterable[Verdict]) -> str:
    """A paragraph for each verdict, and a line that names the claims that this preset does not run."""
    found = list(found)
    missing = [one for one in found if one.reason == "not_run"]
    names = [f'<a id="{anchor(one.claim)}"></a>{one.claim}' for one in missing]
    line = [f"Not run at this preset: {', '.join(names)}."] if names else []
    return "\n\n".join([*(verdict(one) for one in found if one not in missing), *line])


def by_chance(found: Sequence[Verdict], *simulated: np.ndarray) -> str:
    """How many of the verdicts chance alone would give.

    Args:
        simulated: false verdicts per simulated world, independent claims first, then with common noise. (W,).
    """
    judged = [verdict for verdict in found if verdict.verdict != "not_judged"]
    if not judged:
        return "At this preset no claim is judged, so there is nothing to compare with chance."
    claimed = len({verdict.claim.partition("@")[0] for verdict in judged})
    firm = [verdict.claim for verdict in judged if verdict.verdict in ("supported", "contradicted")]
    means = " and ".join(f"{counts.mean():.2f}" for counts in simulated)
    some = " and ".join(f"{100 * (counts > 0).mean():.0f} %" for counts in simulated)
    return (
        f"{len(judged)} verdicts on {claimed} claims, {len(firm)} of them supported or contradicted. If no effect "
        f"existed, {0.05 * len(judged):.2f} such verdicts would be expected; the simulation gives {means} (independent "
        f"claims, claims with noise in common), and at least one in {some} of the worlds."
    )
