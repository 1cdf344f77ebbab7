"""The engine: what is read, what is computed, and that both give the same frame."""

import pandas as pd
import pytest
from lessons import study

from rtkit import experiment, lesson, presets, records, store
from rtkit.measure import retention


@pytest.fixture(autouse=True)
def runs(tmp_path, monkeypatch):
    monkeypatch.setattr(store, "RUNS", tmp_path / "runs")


@pytest.fixture(scope="module")
def grid() -> dict:
    return lesson.execute(lesson.path("05"), {"preset": "smoke"}, lesson.GRID)


def test_the_kit_s_frame_is_read_and_nothing_is_computed(grid, monkeypatch):
    monkeypatch.setattr(experiment, "compute_cells", lambda *_: pytest.fail("computes"))
    found = experiment.run(retention.rows, grid["cells"], "glyphs")
    assert found.attrs == {"study": "retention", "preset": "glyphs", "run": "kit"}
    assert len(found) == len(records.frame("retention", "glyphs"))
    some = experiment.run(retention.rows, grid["cells"], "glyphs", [1, 3])
    assert sorted(some.seed.unique()) == [1, 3]


def test_what_the_kit_lacks_is_computed(grid, monkeypatch):
    asked = []

    def compute(rows, todo, alone):
        asked.append(list(todo))
        return pd.DataFrame({"seed": [7], "value": [0.0]})

    monkeypatch.setattr(experiment, "compute_cells", compute)
    assert experiment.run(retention.rows, grid["cells"], "glyphs", [7]).attrs["run"] == "mine"  # another seed
    assert experiment.run(retention.rows, grid["cells"], "glyphs", run="mine").attrs["run"] == "mine"
    assert experiment.run(retention.rows, grid["cells"], "smoke").attrs["run"] == "mine"  # smoke ships no frame
    assert [len({cell.seed for cell in cells}) for cells in asked] == [1, 5, 1]


def test_a_study_that_does_not_run_at_a_preset_shows_the_kit_s(grid):
    assert experiment.run(retention.rows, grid["cells"], "cifar-small").attrs["preset"] == "glyphs"


@pytest.mark.parametrize(
    ("options", "named"),
    [({"run": "kits"}, "kit, mine"), ({"seeds": ["a"]}, "whole numbers"), ({"preset": "x"}, "smoke")],
)
def test_bad_requests_name_the_value_and_the_valid_ones(grid, options, named):
    with pytest.raises(ValueError, match=named):
        experiment.run(retention.rows, grid["cells"], **{"preset": "glyphs"} | options)


@pytest.mark.slow
def test_computed_and_read_frames_are_equal(grid):
    cells = list(dict.fromkeys(grid["cells"](presets.get("smoke"), 0, ())))[:3]
    first = experiment.compute_cells(retention.rows, cells, True)
    pd.testing.assert_frame_equal(experiment.compute_cells(retention.rows, cells, True), first, check_exact=True)
    assert len(list((store.RUNS / "cells" / "retention").glob("*.json"))) == 3


def test_a_notebook_s_study_keeps_no_record_of_what_it_only_read(grid):
    space = study("05", preset="glyphs")
    records.publish(space["judge"])
    assert not (store.RUNS / "records").exists()
