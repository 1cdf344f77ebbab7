"""Registered protocols: what they fix, what the engine refuses without one, and what verdicts say of them."""

import json

import pandas as pd
import pytest

from rtkit import CONFIRMATION, STUDIES, TUNING, claims, experiment, lesson, presets, protocols, store
from rtkit.judge import Judge
from rtkit.measure import transfer

REGISTERED = [study for study in STUDIES if protocols.versions(study)]


@pytest.fixture
def elsewhere(tmp_path, monkeypatch):
    """An empty results/ and runs/."""
    monkeypatch.setattr(store, "RESULTS", tmp_path / "results")
    monkeypatch.setattr(store, "RUNS", tmp_path / "runs")
    return tmp_path


def smoke_cells(preset, seed, targets):
    space = lesson.execute(lesson.path("01"), {"preset": "smoke"}, lesson.GRID)
    return list(space["cells"](preset, seed, targets))[:1]


def test_no_seed_that_judges_is_computed_before_a_protocol_names_it(elsewhere):
    how = {"seeds": [200], "run": "mine"}
    with pytest.raises(ValueError, match=r"seeds \[200\] are kept .* none of transfer at smoke names them"):
        experiment.run(transfer.rows, smoke_cells, "smoke", **how)
    assert not list(elsewhere.rglob("*.json"))
    facts = protocols.register(transfer.rows, smoke_cells, "smoke", 0.1)
    assert (facts["version"], facts["seeds"], facts["cells"]) == (1, list(range(200, 210)), 1)
    assert set(experiment.run(transfer.rows, smoke_cells, "smoke", **how).seed) == {200}
    with pytest.raises(ValueError, match=r"seeds \[210\] are kept"):
        experiment.run(transfer.rows, smoke_cells, "smoke", seeds=[210], run="mine")
    with pytest.raises(ValueError, match="needs no new version"):
        protocols.register(transfer.rows, smoke_cells, "smoke", 0.1)

    def other(*args):
        return [
            transfer.Cell("transfer", cell.source, cell.seed, "source", "none", n_test=20)
            for cell in smoke_cells(*args)
        ]

    assert protocols.register(transfer.rows, other, "smoke", 0.1)["seeds"] == list(range(210, 220))
    assert [one["version"] for one in protocols.versions("transfer")] == [1, 2]
    assert protocols.current("transfer", "smoke")["version"] == 2


def judged(seeds, effect=lambda part: part.value.iloc[0], **facts):
    shown = pd.DataFrame({"seed": list(seeds), "value": [5.0, 6.0] * (len(seeds) // 2), "n_test": 100})
    shown.attrs = {"study": "transfer", "preset": "glyphs", "run": "mine"} | facts
    found = Judge(shown, collapsed=())
    return found("U-C1", effect)


def register(**facts):
    path = protocols.path("transfer")
    path.parent.mkdir(parents=True, exist_ok=True)
    kept = {"preset": "glyphs", "seeds": list(range(200, 210)), "reading": protocols.reading("transfer"), "hash": ""}
    path.write_text(json.dumps({"study": "transfer", "versions": [kept | facts]}), encoding="utf-8")


def test_verdicts_say_whether_they_were_registered(elsewhere):
    assert judged(range(200, 210)).marks[0] == "exploratory: no protocol names these seeds"
    register()
    assert judged(range(200, 210)).marks[0] == "confirmatory"
    assert judged(range(10)).marks[0] == "exploratory: no protocol names these seeds"
    assert judged(TUNING[:2]).marks[0] == "exploratory: seeds that rates were chosen on"
    assert judged(range(200, 210), changed={"lr": [1]}).marks[0] == "exploratory: lr changed"
    register(reading="other")
    assert judged(range(200, 210)).marks[0] == "exploratory: read otherwise than registered"


def test_the_first_replicate_of_a_notebook_is_that_of_its_protocol():
    assert protocols.first("01", "glyphs") == protocols.current("transfer", "glyphs")["seeds"][:1] == [210]
    assert protocols.first("04", "glyphs") == [200]
    assert protocols.first("04", "smoke") == protocols.first("00", "smoke") == list(presets.get("smoke").seeds[:1])


def test_no_word_before_all_registered_replicates_are_there(elsewhere):
    register()
    few = judged(range(200, 206))
    assert (few.verdict, few.reason) == ("not_judged", "not_run: 6 of 10 replicates")
    assert few.effect == pytest.approx(5.5)
    assert judged(range(200, 210)).verdict == "supported"
    assert judged(range(6)).verdict == "supported"  # of other seeds five are enough to explore


def test_a_hash_of_reading_knows_effects_and_what_they_use(monkeypatch):
    before = protocols.reading("transfer")
    assert before != protocols.reading("retention")
    margin = claims.load()["U-C1"]
    monkeypatch.setitem(claims.load(), "U-C1", type(margin)(**vars(margin) | {"margin": 1.0}))
    assert protocols.reading("transfer") != before
    monkeypatch.undo()
    assert protocols.reading("transfer") == before
    monkeypatch.setattr(lesson.definitions, "code_of", lambda module, name: f"another {name}")
    lesson.reading.cache_clear()
    assert protocols.reading("transfer") != before
    lesson.reading.cache_clear()


@pytest.mark.parametrize("study", REGISTERED)
def test_what_was_registered_stands(study):
    """Seeds of no version overlap with another's at its preset, nor with those that anything was chosen on."""
    versions = protocols.versions(study)
    for preset in {one["preset"] for one in versions}:
        seeds = [seed for one in versions if one["preset"] == preset for seed in one["seeds"]]
        assert len(seeds) == len(set(seeds)) >= 5
        assert set(seeds) <= set(CONFIRMATION)
        assert protocols.since(study, preset) == {}, "cells that a protocol names were changed: register a new version"
    for one in versions:
        assert all(claim["open"] or claim["certain"] for claim in one["claims"].values())
        assert all(claim["expected"] for claim in one["claims"].values() if not claim["certain"])
