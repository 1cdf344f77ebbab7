"""The engine: what is read, what is computed, and that both give the same frame."""

import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace

import pandas as pd
import pytest
from lessons import study

from rtkit import STUDIES, experiment, lesson, presets, records, store
from rtkit.measure import retention, transfer


@pytest.fixture(autouse=True)
def runs(tmp_path, monkeypatch):
    monkeypatch.setattr(store, "RUNS", tmp_path / "runs")


@pytest.fixture(scope="module")
def grid() -> dict:
    return lesson.execute(lesson.path("05"), {"preset": "smoke"}, lesson.GRID)


@pytest.fixture
def computed(monkeypatch) -> list[list]:
    """The cells that were asked to be computed, call by call; each would have one row."""
    asked = []

    def compute(rows, todo, alone):
        asked.append(list(dict.fromkeys(todo)))
        found = pd.DataFrame([{"seed": one.seed, "cell": store.name(one), "value": 0.0} for one in asked[-1]])
        found.attrs["made"] = [{"code": "now", "cells": len(asked[-1]), "seconds": 1.0}]
        return found

    monkeypatch.setattr(experiment, "compute_cells", compute)
    return asked


def test_the_kit_s_frame_is_read_and_nothing_is_computed(grid, computed):
    found, kept = experiment.run(retention.rows, grid["cells"], "glyphs"), records.frame("retention", "glyphs")
    assert (found.attrs["study"], found.attrs["preset"], found.attrs["run"]) == ("retention", "glyphs", "kit")
    assert sum(one["cells"] for one in found.attrs["made"]) == found.cell.nunique()
    assert len(found) == len(kept)
    some = experiment.run(retention.rows, grid["cells"], "glyphs", [201, 203])
    assert sorted(some.seed.unique()) == [201, 203]
    # A knob turned to what it was anyway: cell by cell it is the same.
    again = experiment.run(retention.rows, grid["cells"], "glyphs", changed={"lr": 0.1})
    assert sorted(again.cell) == sorted(kept.cell)
    assert again.attrs["changed"] == {"lr": 0.1}
    assert not computed


@pytest.mark.parametrize("study", [study for study, (_, where) in STUDIES.items() if "glyphs" in where])
def test_the_grid_of_a_notebook_is_what_came_with_the_kit(study):
    space = lesson.execute(lesson.path(STUDIES[study][0]), {"preset": "glyphs"}, lesson.GRID)
    kept = records.frame(study, "glyphs")
    todo = [store.name(one) for seed in set(kept.seed) for one in space["cells"](presets.get("glyphs"), int(seed), ())]
    assert set(todo) == set(kept.cell)


def test_what_the_kit_lacks_is_computed(grid, computed):
    kit = records.frame("retention", "glyphs")
    own = {"run": "live"}
    assert experiment.run(retention.rows, grid["cells"], "glyphs", [7], **own).attrs["run"] == "mine"  # another seed
    assert experiment.run(retention.rows, grid["cells"], "glyphs", run="mine").attrs["run"] == "mine"
    assert experiment.run(retention.rows, grid["cells"], "smoke").attrs["run"] == "mine"  # smoke ships no frame
    assert [len({cell.seed for cell in cells}) for cells in computed] == [1, 10, 1]

    def more(preset, seed, targets):
        """One cell of each replicate is another than the kit's."""
        yield from (replace(one, n_train=77) if not k else one for k, one in enumerate(grid["cells"](preset, seed, ())))

    found = experiment.run(retention.rows, more, "glyphs", run="live", changed={"n_train": 77})
    assert found.attrs["run"] == "both"
    assert [one.n_train for one in computed[-1]] == [77] * 10
    assert set(found.cell) - set(kit.cell) == {store.name(one) for one in computed[-1]}
    assert sum(one["cells"] for one in found.attrs["made"]) == kit.cell.nunique() + 10


def test_one_replicate_more_is_computed_live(grid, computed):
    found = experiment.run(retention.rows, grid["cells"], "glyphs", run="live")
    assert found.attrs["live"] == 0  # the kit has 200 to 209
    assert {one.seed for one in computed[-1]} == {0}
    assert sorted(found.seed.unique()) == [0, *range(200, 210)]


def test_what_takes_long_is_not_computed_unasked(grid, computed):
    with pytest.raises(ValueError, match=r'26 cells .* about \d+ minutes? here: set run = "live"'):
        experiment.run(retention.rows, grid["cells"], "glyphs", [7])
    with pytest.raises(ValueError, match='no transfer at cifar comes with the kit; run = "mine"'):
        experiment.run(transfer.rows, lambda *_: [], "cifar")
    assert not computed


def test_a_study_that_does_not_run_at_a_preset_shows_the_kit_s(grid):
    assert experiment.run(retention.rows, grid["cells"], "cifar").attrs["preset"] == "glyphs"


def test_knobs_are_refused_where_the_study_does_not_run(grid):
    with pytest.raises(
        ValueError, match=r"lambda_ cannot change.*retention runs at smoke, glyphs, glyphs-full, photos"
    ):
        experiment.run(retention.rows, grid["cells"], "cifar", changed={"lambda_": (0.3,)})


@pytest.mark.parametrize(
    ("options", "named"),
    [({"run": "kits"}, "kit, live, mine"), ({"seeds": ["a"]}, "whole numbers"), ({"preset": "x"}, "smoke")],
)
def test_bad_requests_name_the_value_and_the_valid_ones(grid, options, named):
    with pytest.raises(ValueError, match=named):
        experiment.run(retention.rows, grid["cells"], **{"preset": "glyphs"} | options)


@pytest.mark.slow
def test_computed_and_read_frames_are_equal(grid, monkeypatch):
    cells = list(dict.fromkeys(grid["cells"](presets.get("smoke"), 0, ())))[:3]
    first = experiment.compute_cells(retention.rows, cells, True)
    pd.testing.assert_frame_equal(experiment.compute_cells(retention.rows, cells, True), first, check_exact=True)
    assert len(list((store.RUNS / "cells" / "retention").glob("*.json"))) == 3
    real = store.versions()
    monkeypatch.setattr(store, "versions", lambda: real | {"pillow": "99.0"})
    with pytest.warns(UserWarning, match=rf"computed with pillow {real['pillow']} \(here 99.0\)"):
        again = experiment.compute_cells(retention.rows, cells, True)
    assert {one["pillow"] for one in again.attrs["made"]} == {real["pillow"]}  # of the computing, not of the reading


def test_a_notebook_s_study_keeps_no_record_of_what_it_only_read(grid):
    space = study("05", preset="glyphs")
    records.publish(space["judge"])
    assert not (store.RUNS / "records").exists()


@pytest.mark.slow
def test_modules_in_the_working_folder_do_not_stand_for_the_library_s(tmp_path):
    """Nor where a script without a main guard asks for several processes."""
    for name in ("random", "joblib", "numpy", "torch", "rtkit"):
        (tmp_path / f"{name}.py").write_text("raise SystemExit('not the library')\n", encoding="utf-8")
    script = tmp_path / "elsewhere" / "script.py"
    script.parent.mkdir()
    (script.parent / "helper.py").write_text("def double(x):\n    return 2 * x\n", encoding="utf-8")
    code = "import helper, os\nfrom rtkit import experiment\nexperiment.workers = lambda: 2\n"
    code += "print(experiment.spread((helper.double, [1, 2], '')), os.environ['PYTHONSAFEPATH'] or 'as before')\n"
    script.write_text(code, encoding="utf-8")
    done = subprocess.run([sys.executable, str(script)], capture_output=True, text=True, cwd=tmp_path, check=False)
    assert (done.returncode, done.stdout) == (0, "[[2, 4]] as before\n"), done.stderr


KILLED = """
import sys
import time
from pathlib import Path
from rtkit import experiment, lesson, presets, store
from rtkit.measure import retention
store.RUNS = Path(sys.argv[1])
grid = lesson.execute(lesson.path("05"), {"preset": "smoke"}, lesson.GRID)
experiment.compute_cells(retention.rows, list(dict.fromkeys(grid["cells"](presets.get("smoke"), 0, ())))[:3], True)
"""


@pytest.mark.slow
def test_what_was_killed_goes_on_and_equals_what_was_not(grid):
    """Killed when the first network is there, again when the first cell is: the frame is that of an undisturbed run."""
    cells = list(dict.fromkeys(grid["cells"](presets.get("smoke"), 0, ())))[:3]
    for found in ("networks/*.safetensors", "cells/*/*.json"):
        process = subprocess.Popen([sys.executable, "-c", KILLED, str(store.RUNS)])
        while process.poll() is None and not list(store.RUNS.glob(found)):
            time.sleep(0.02)
        process.kill()
        assert process.wait() == -signal.SIGKILL
    first = experiment.compute_cells(retention.rows, cells, True).drop(columns="seconds")
    shutil.rmtree(store.RUNS)
    again = experiment.compute_cells(retention.rows, cells, True).drop(columns="seconds")
    pd.testing.assert_frame_equal(again, first, check_exact=True)
