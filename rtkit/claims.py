"""The papers' claims as data, and what a verdict on one is."""

import textwrap
import tomllib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cache
from itertools import accumulate
from pathlib import Path

import pandas as pd
from scipy import stats

from rtkit.frames import EVERYTHING, POINTS

_RANGES = {"points": POINTS, "grey levels": (-255, 255)} | dict.fromkeys(("correlation", "rank correlation"), (-1, 1))


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
    bound: float = 0.0
    open: str = ""
    expected: str = ""
    certain: str = ""

    @property
    def range(self) -> tuple[float, float]:
        """Between what numbers an effect in this unit must lie, where it does not know better itself."""
        return _RANGES.get(self.unit, EVERYTHING)


@dataclass(frozen=True)
class Part:
    """One part of a claim: its effect over the replicates, and the margin that its interval must clear.

    `least` and `most` are the ends of the wider interval that a conjunction is contradicted by, or called null.
    """

    name: str
    effect: float
    low: float
    high: float
    margin: float
    least: float | None = None  # by default `low` and `high`
    most: float | None = None

    def __post_init__(self):
        for wide, end in (("least", self.low), ("most", self.high)):
            object.__setattr__(self, wide, end if getattr(self, wide) is None else getattr(self, wide))


@dataclass(frozen=True)
class Verdict:
    """What the kit's own experiment says about a claim.

    `verdict` is "supported", "contradicted", "null", "inconclusive" or "not_judged"; `reason` says why, where it needs
    saying. `effect`, `low` and `high` are those of the part that decided: of a conjunction the weakest. `parts` has
    them all. `marks` say what a reader must know beside the word: whether the protocol was registered, that knobs were
    changed, that cells are of other code. `p` is two-sided, that of the part that decided, for `adjusted`.
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
    parts: tuple[Part, ...] = ()
    marks: tuple[str, ...] = ()
    p: float | None = None

    @property
    def margin(self) -> float:
        """The margin of the part that decided."""
        found = [part.margin for part in self.parts if part.effect == self.effect]
        return found[0] if found else get(self.claim).margin

    @classmethod
    def read(cls, kept: Mapping) -> "Verdict":
        """A verdict from its `to_dict`."""
        parts = tuple(Part(**part) for part in kept["parts"])
        return cls(**kept | {"parts": parts, "marks": tuple(kept.get("marks", ()))})

    def to_dict(self) -> dict:
        """All fields as plain values."""
        return asdict(self)


# An effect maps the frame of one replicate to a number, or for a conjunction to one number per part: a part may be a
# pair (number, margin) where its margin is another than the claim's.
Effect = Callable[[pd.DataFrame], float | Mapping[str, float | tuple[float, float]]]


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


def unjudged(claim: Claim, preset: str, scope: str, reason: str) -> Verdict:
    """A claim that was not judged, and why."""
    facts = (claim.id, claim.paper, preset, scope, "not_judged", reason)
    return Verdict(*facts, None, None, None, 0, claim.unit, claim.paper_effect)


def deciding(verdict: Verdict) -> Part | None:
    """The part that decided a verdict: the one whose effect is the verdict's; None where there are no parts."""
    return next((part for part in verdict.parts if part.effect == verdict.effect), None)


def unit_of(verdict: Verdict, part: Part | None = None) -> str:
    """The unit of a part, by default of the one that decided: its own, by which it may be called, or the claim's."""
    part = part or deciding(verdict)
    name, _, own = part.name.partition(", in ") if part else ("", "", "")
    return own or (name if name in ("points", "log odds") else verdict.unit)


def adjusted(verdicts: Sequence[Verdict]) -> dict[str, tuple[str, str]]:
    """By claim the word that is left after Holm's and after Benjamini and Hochberg's adjustment of its p value.

    A family are the verdicts of one study; a word that does not hold at 5 % becomes "inconclusive".
    """
    found = {}
    for study in dict.fromkeys(get(one.claim).study for one in verdicts):
        family = [one for one in verdicts if get(one.claim).study == study and one.p is not None]
        family.sort(key=lambda one: one.p)
        holm = list(accumulate(((len(family) - k) * one.p for k, one in enumerate(family)), max))
        rates = stats.false_discovery_control([one.p for one in family]) if family else ()
        for one, *values in zip(family, holm, rates, strict=True):
            decided = one.verdict in ("supported", "contradicted")
            words = (one.verdict if p <= 0.05 or not decided else "inconclusive" for p in values)
            found[one.claim] = tuple(words)
    return found


def scorecard(preset: str, scope: str | None, judged: Mapping[str, Verdict], studies: Sequence[str]) -> list[Verdict]:
    """One verdict for every claim: those judged, and for the others the reason why there is none.

    A claim that was judged in further regimes is followed by those verdicts, or stands in these alone.

    Args:
        scope: the preset's; None where it is too small to judge anything.
        judged: verdicts by claim id; studies: the studies that the kit has.
    """

    card = []
    for claim in load().values():
        reason = "not_run" if scope else "smoke"
        reason = f"untestable_here: {claim.untestable}" if claim.untestable else reason
        reason = reason if claim.untestable or claim.study in studies else "no_experiment"
        regimes = [found for name, found in judged.items() if name.startswith(f"{claim.id}@")]
        if claim.id in judged or not regimes:
            card.append(judged.get(claim.id) or unjudged(claim, preset, scope or "none", reason))
        card += regimes
    return card


def text(verdicts: Sequence[Verdict], width: int = 80) -> str:
    """The scorecard for people: of each claim verdict, effect with its interval, and reason; below, the paper's."""
    lines, indent, after = [], " " * 23, adjusted(verdicts)
    for one in verdicts:
        ours = "" if one.effect is None else f"{one.effect:+.1f} [{one.low:+.1f}, {one.high:+.1f}] {unit_of(one)}"
        found = "; ".join(filter(None, (ours, one.reason, *one.marks)))
        left = "" if after.get(one.claim, (one.verdict,))[0] == one.verdict else "; not after Holm's adjustment"
        first = f"{one.claim:<9} {one.verdict.replace('_', ' '):<12} {found}{left}"
        for told in (first, f"{indent}the paper: {one.paper_effect}"):
            lines += textwrap.wrap(told, width, subsequent_indent=indent, break_on_hyphens=False)
    return "\n".join(lines)
