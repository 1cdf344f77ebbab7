"""Sentences and verdict cards computed from a run, so that a notebook reads true whichever way its results fall."""

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace

from IPython.display import Markdown

from rtkit import DRAWN, PUBLISHED, claims, labels, records
from rtkit.claims import Verdict
from rtkit.frames import Interval, Missing, OutOfRange
from rtkit.judge import Judge

NOT_RUN = "*Not run at this preset.*"
_SAID = ("supported", "contradicted", "null", "inconclusive")
_WORDS = {
    "mechanism": ("seen in this world", "opposite seen in this world", "no difference in this world", "cannot tell"),
    "published results": (
        *("holds for these networks", "does not hold for these networks"),
        *("no difference in these networks", "cannot tell"),
    ),
}


def text(sentence: str | Callable[[], str]) -> str:
    """A sentence, or what a function makes of the run; where that finds no rows, that it was not run."""
    try:
        return sentence() if callable(sentence) else sentence
    except (Missing, OutOfRange):
        return NOT_RUN


def tell(sentence: str | Callable[[], str]) -> Markdown:
    """`text` as a notebook shows it; under a figure `plots.tell`."""
    return Markdown(text(sentence))


def number(found: Interval, unit: str = "points", sign: bool = True) -> str:
    """An effect with its interval, such as "+3.1 points [+1.0, +5.2]"; `sign=False` for a level, not a difference."""

    def shown(value: float) -> str:
        fine = unit in ("correlation", "rank correlation", "slope", "log odds", "log ratio", "Fisher's z", "z")
        digits = 2 if fine or 0 < abs(value) < 0.05 else 1  # no "-0.0": which side of zero it is decides a verdict
        return f"{value:{'+' if sign else ''}.{digits}f}"

    over = "(one replicate)" if math.isinf(found.low) else f"[{shown(found.low)}, {shown(found.high)}]"
    return " ".join(filter(None, (shown(found.effect), unit, over)))


def which(found: Interval, above: str, below: str, between: str, margin: float = 0.0) -> str:
    """One of three wordings: the interval lies above the margin, below it, or holds it."""
    return above if found.low > margin else below if found.high < margin else between


def compare(found: Interval, first: str = "the robust source", second: str = "the standard source") -> str:
    """Who is ahead, or that there is no clear difference, with the numbers."""
    word = which(found, "is **ahead** of", "is **behind**", "is **not clearly different** from") + f" {second}"
    return f"{first} {word}: {number(found)}"


def listed(parts: Iterable[str]) -> str:
    """Parts as a list in a sentence: "a, b and c"."""
    *first, last = list(parts)
    return f"{', '.join(first)} and {last}" if first else last


def lines(*parts: str) -> str:
    """Parts as a Markdown list."""
    return "\n".join(f"* {part}" for part in parts)


def word(verdict: Verdict) -> str:
    """A verdict as it is called in its scope: "seen in this world" for a built one, "supported" for real images."""
    if verdict.verdict == "not_judged":
        return f"not judged: {verdict.reason.replace('_', ' ')}"
    found = dict(zip(_SAID, _WORDS.get(verdict.scope, _SAID), strict=True))[verdict.verdict]
    return f"{found} ({', '.join(verdict.marks)})" if verdict.marks else found


def checks(judge: Judge) -> Markdown:
    """The study's checks, a line each: whether it passes, what must hold, and the numbers."""
    shown = [
        f"{'**shown**' if one.expected == 'shown' else '**pass**' if one.holds else '**FAIL**'}: {one.name}, "
        f"{'' if one.expected == 'shown' else f'must be {one.expected}: '}{number(one.interval, '')}"
        for one in judge.controls
    ]
    return Markdown(lines(*shown) if shown else "*A single replicate: nothing can be checked.*")


def effect(verdict: Verdict) -> str:
    """The effect of a verdict with its interval; of a conjunction every part, with the margin that it must clear."""
    if not verdict.parts or verdict.effect is None:
        return word(verdict)
    shown = []
    for part in verdict.parts:
        name = part.name.partition(", in ")[0]
        found = number(Interval(part.effect, part.low, part.high, verdict.replicates), claims.unit_of(verdict, part))
        shown.append(f"{f'{name}: ' if name else ''}**{found}**, must lie above {part.margin:.3g}")
    return "; ".join(shown)


def card(judge: Judge, name: str, beside: str = "") -> Markdown:
    """The verdict card of a claim: statement, what was found here, on photographs and by the paper, and the word.

    Args:
        beside: one line more, such as what another world says.
    """
    verdict, claim = judge.verdicts[name], claims.get(name)
    regime = name.partition("@")[2]
    good = sum(one.holds for one in judge.controls)
    checked = f"; {verdict.replicates} replicates, {good} of {len(judge.controls)} checks pass"
    label = "published results" if judge.preset == PUBLISHED else "here"
    rows = {label: effect(verdict) + (checked if label == "here" and verdict.effect is not None else "")}
    if verdict.reason.startswith("collapsed"):
        rows["but"] = f"{verdict.reason}: whatever the interval, the world cannot tell"
    if verdict.verdict == "inconclusive" and any(part.high < part.margin for part in verdict.parts):
        above = min(part.most - part.margin for part in verdict.parts)
        rows["but"] = f"one of {len(verdict.parts)} parts must lie below by a wider interval; it ends {above:.2g} above"
    if judge.preset in DRAWN:
        for preset, label in ((records.REAL, "photographs"), (records.SECOND, "photographs, from Tiny-ImageNet")):
            kept = records.load(claim.study, preset, "kit")
            for key, other in kept.verdicts.items() if kept else ():
                target, asked = split_target(key)
                if asked == name and other.effect is not None:
                    rows[f"{label}, {target}"] = f"{effect(other)}; {word(other)}"
    if beside:
        rows["beside"] = beside
    theirs = records.load(claim.study, PUBLISHED, "kit")
    for key, found in theirs.verdicts.items() if theirs else ():
        if key.partition("@")[0] == name and found.effect is not None:
            rows[f"published results{key.removeprefix(name).replace('@', ', ')}"] = f"{effect(found)}; {word(found)}"
    rows["the paper"] = f"{claim.paper_effect} ({claim.paper})"
    table = "\n".join(f"> | {label} | {value} |" for label, value in rows.items())
    place = f'<a id="{claims.anchor(name)}"></a>'
    head = f"> {place}**{name}** {claim.statement}{f' *Here: {regime}.*' if regime else ''}"
    return Markdown(f"{head} **{word(verdict).upper()}**\n>\n> | | |\n> |---|---|\n{table}")


def cards(judge: Judge, *names: str, beside: Mapping[str, str] | None = None) -> Markdown:
    """The cards of several claims below each other; `beside` has one line more for some of them."""
    return Markdown("\n\n".join(card(judge, name, (beside or {}).get(name, "")).data for name in names))


def answer(said, found: str | Callable[[], str]) -> Markdown:
    """What the reader guessed beside what came out."""
    shown = text(found)
    return Markdown(f"*You said: {said}.* {shown if shown == NOT_RUN else f'It is **{shown}**.'}")


def on_target(name: str, target: str) -> str:
    """What a claim is called where photographs judge it: "NFD-C2@MNIST, a fifth of the odds", by target or kind."""
    claim, _, regime = name.partition("@")
    return f"{claim}@{', '.join(filter(None, (labels.name(target), regime)))}"


def split_target(name: str) -> tuple[str, str]:
    """The target or kind of `on_target`, and the claim without it."""
    claim, _, regime = name.partition("@")
    target, _, rest = regime.partition(", ")
    return target, "@".join(filter(None, (claim, rest)))


def brief(verdict: Verdict | None) -> str:
    """The word of a verdict, and the part that decided: its number, and what it must lie above, or lies within."""
    if verdict is None:
        return ""
    said = word(replace(verdict, marks=()))
    if verdict.effect is None or verdict.replicates < 2:
        return said
    part = claims.deciding(verdict)
    bar = f", must lie above {part.margin:.3g}" if part and part.margin else ""
    bar = f", within ±{claims.get(verdict.claim).bound:.3g}" if verdict.verdict == "null" else bar
    unit = claims.unit_of(verdict)
    name = part.name.partition(", in ")[0] if part and len(verdict.parts) > 1 else unit
    return f"{said}: {number(records.interval(verdict), unit)}{bar}{f' ({name})' if name != unit else ''}"


def photographs(judge: Judge, real: Judge | None, expected: Mapping[str, str] | None = None) -> Markdown:
    """What photographs say: checks, verdicts by target or kind beside those of letters, and what had been expected.

    Args:
        judge: of letters; real: of photographs, its claims called as `on_target` does; None where there are none.
        expected: by claim the word that was registered as expected of every target, or of one as `on_target` says.
    """
    if real is None:
        return Markdown(NOT_RUN)
    columns = {"letters": judge.verdicts}
    for key, verdict in real.verdicts.items():
        place, name = split_target(key)
        columns.setdefault(place, {})[name] = verdict
    asked = dict.fromkeys(name for place, one in columns.items() if place != "letters" for name in one)
    rows = [f"| claim | {' | '.join(columns)} |", "|---" * (1 + len(columns)) + "|"]
    for name in asked:
        found = " | ".join(brief(one.get(name)) for one in columns.values())
        rows.append(f"| **{name}** {claims.get(name).statement} | {found} |")
    told = []
    for key, verdict in real.verdicts.items():
        before = (expected or {}).get(key, (expected or {}).get(split_target(key)[1]))
        if before and verdict.verdict != "not_judged":
            told.append((key, before, verdict.verdict))
    wrong = [f"{key} {before}, came {came}" for key, before, came in told if before != came]
    hits = f"Of {len(told)} words that were expected beforehand {len(told) - len(wrong)} came. " if told else ""
    missed = f"Expected otherwise: {'; '.join(wrong)}." if wrong else ""
    return Markdown("\n".join([checks(real).data, "", *rows, "", hits + missed]))
