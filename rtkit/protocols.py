"""Registered protocols: what was fixed, and committed, before the seeds that judge were computed. Imports no torch."""

import json
from pathlib import Path

import pandas as pd

from rtkit import CONFIRMATION, STUDIES, TUNING, claims, lesson, store
from rtkit.definitions import code_of


def path(study: str) -> Path:
    """Where the protocols of a study lie."""
    return store.RESULTS / "registered" / f"{study}.json"


def versions(study: str) -> list[dict]:
    """All protocols of a study, the one in force last; none before the first was registered."""
    there = path(study)
    return json.loads(there.read_text(encoding="utf-8"))["versions"] if there.exists() else []


def current(study: str, preset: str) -> dict | None:
    """The protocol in force of a study at a preset, or None."""
    return next((one for one in reversed(versions(study)) if one["preset"] == preset), None)


def judged(study: str) -> dict[str, dict]:
    """What a protocol fixes of each claim of a study."""
    fixed = ("statement", "unit", "margin", "bound", "open", "expected", "certain")
    return {name: {key: getattr(claim, key) for key in fixed} for name, claim in claims.load().items()
            if claim.study == study}  # fmt: skip


def reading(study: str) -> str:
    """A hash of all that reads verdicts off a study's rows: grid and effects of its notebook, margins, the judge."""
    number = STUDIES[study][0]
    margins = {name: {key: one[key] for key in ("margin", "bound", "certain")} for name, one in judged(study).items()}
    return store.key(margins, code_of("rtkit.judge", "Judge") + lesson.reading(number))


def allow(study: str, preset: str, seeds: set[int]) -> None:
    """Refuse to compute seeds that are kept for verdicts before a protocol names them.

    Raises:
        ValueError: some are, and none does.
    """
    named = {seed for one in versions(study) if one["preset"] == preset for seed in one["seeds"]}
    if early := sorted(seed for seed in seeds - named if seed in CONFIRMATION):
        raise ValueError(
            f"seeds {early} are kept for a registered protocol, and none of {study} at {preset} names them: "
            f"take others, such as 0 to 4 or, to choose by, {TUNING[0]} to {TUNING[-1]}"
        )


def replicates(frame: pd.DataFrame) -> int:
    """How many replicates a verdict on a frame must wait for: those that its protocol names, 0 where it has none."""
    found = current(frame.attrs["study"], frame.attrs["preset"])
    return len(found["seeds"]) if found and set(frame.seed) <= set(found["seeds"]) else 0


def status(frame: pd.DataFrame) -> str:
    """Whether a verdict on a frame confirms what was registered, or explores, and why."""
    study, preset, changed = (frame.attrs.get(key) for key in ("study", "preset", "changed"))
    found, seeds = current(study, preset), set(frame.seed)
    if changed:
        return f"exploratory: {', '.join(changed)} changed"
    if seeds & set(TUNING):
        return "exploratory: seeds that rates were chosen on"
    if not found or not seeds <= set(found["seeds"]):
        return "exploratory: no protocol names these seeds"
    if found["reading"] != reading(study):
        return "exploratory: read otherwise than registered"
    return "confirmatory"
