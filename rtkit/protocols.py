"""Registered protocols: what was fixed, and committed, before the seeds that judge were computed. Reads no torch."""

import json
import time
from collections.abc import Callable
from pathlib import Path

import pandas as pd

from rtkit import CONFIRMATION, DRAWN, STUDIES, TUNING, claims, lesson, store
from rtkit.definitions import code, code_of


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


def first(number: str, preset: str) -> list[int]:
    """The first replicate of a notebook at a preset: of its protocol, or where it has none the preset's own."""
    from rtkit import presets  # which imports torch

    found = (current(study, preset) for study, (home, _) in STUDIES.items() if home == number)
    seeds = next((one["seeds"] for one in found if one), presets.get(preset).seeds)
    return list(seeds[:1])


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
    return len(found["seeds"]) if found and _seeds(frame) <= set(found["seeds"]) else 0


def _seeds(frame: pd.DataFrame) -> set[int]:
    """The seeds that are judged: without the replicate of `run="live"`."""
    return set(frame.seed) - {frame.attrs.get("live")}


def status(frame: pd.DataFrame) -> str:
    """Whether a verdict on a frame confirms what was registered, or explores, and why."""
    study, preset, changed = (frame.attrs.get(key) for key in ("study", "preset", "changed"))
    found, seeds = current(study, preset), _seeds(frame)
    if changed:
        return f"exploratory: {', '.join(changed)} changed"
    if seeds & set(TUNING):
        return "exploratory: seeds that rates were chosen on"
    if not found or not seeds <= set(found["seeds"]):
        return "exploratory: no protocol names these seeds"
    if found["reading"] != reading(study):
        return "exploratory: read otherwise than registered"
    return "confirmatory"


def since(study: str, preset: str) -> dict[str, tuple[str, str]]:
    """What has changed since the protocol of a study at a preset was registered: the hashes then and now, by name."""
    found = current(study, preset) or {}
    now = {"computing": code_of(f"rtkit.measure.{study}", "rows"), "reading": reading(study)}
    now |= {"photographs": lesson.photographs(STUDIES[study][0])} if preset not in DRAWN else {}
    return {name: (found.get(name), value) for name, value in now.items() if found.get(name) != value}


def register(rows: Callable, cells: Callable, preset: str, core_hours: float, replicates: int = 10) -> dict:
    """Write a protocol: fix what a study compares and how it will be judged, before the seeds that judge are computed.

    Args:
        core_hours: what they will cost, as measured on a tuning seed; replicates: how many, ten at most.

    Raises:
        ValueError: this very protocol is registered.
    """
    from rtkit import compute, experiment, presets  # which import torch

    study = experiment.study_of(rows)
    before, todo = versions(study), list(cells(presets.get(preset), TUNING[0], ()))
    version = 1 + sum(one["preset"] == preset for one in before)
    first = CONFIRMATION[0] + 10 * (version - 1)
    facts = {"version": version, "date": time.strftime("%Y-%m-%d"), "preset": preset}
    facts |= {"seeds": list(range(first, first + replicates)), "looks": 1, "format": compute.kind(), "cells": len(todo)}
    facts |= {"core_hours": core_hours}
    facts |= {"grid": store.key([store.to_json(cell).replace(str(TUNING[0]), "SEED") for cell in todo], "")}
    facts |= {"computing": code(rows), "reading": reading(study), "claims": judged(study)}
    facts |= {"photographs": lesson.photographs(STUDIES[study][0])} if preset not in DRAWN else {}
    kept = ("grid", "computing", "reading", "photographs", "seeds", "claims")
    facts["hash"] = store.key({name: facts[name] for name in kept if name in facts}, "")
    same = ("preset", "grid", "computing", "reading", "photographs", "claims")
    if any(all(one.get(name) == facts.get(name) for name in same) for one in before):
        raise ValueError(f"this protocol of {study} is registered; what changes nothing needs no new version")
    text = json.dumps({"study": study, "versions": [*before, facts]}, indent=1) + "\n"
    store.write_atomically(path(study), text.encode())
    return facts
