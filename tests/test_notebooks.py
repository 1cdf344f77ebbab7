"""The notebooks: clean in git, regular in form, and running from a fresh kernel."""

import json
import re
import statistics
import time
from pathlib import Path

import nbformat
import papermill
import pytest

from rtkit import presets, records, store
from rtkit.runner import NOTEBOOKS

PATHS = sorted(NOTEBOOKS.glob("*.ipynb"))
FIGURES = {
    "00": 7,
    "01": 6,
    "02": 6,
    "03": 8,
    "04": 8,
    "05": 5,
    "06": 4,
    "07": 2,
}  # at least so many at the preset smoke


@pytest.fixture(params=PATHS, ids=lambda path: path.stem)
def path(request) -> Path:
    return request.param


@pytest.fixture
def notebook(path):
    return nbformat.read(path, as_version=4)


def tagged(notebook, tag: str) -> list:
    return [cell for cell in notebook.cells if tag in cell.metadata.get("tags", [])]


def test_there_are_notebooks():
    assert [path.stem[:2] for path in PATHS] == [f"{number:02}" for number in range(8)]


def test_nothing_that_was_computed_is_stored(notebook):
    nbformat.validate(notebook)
    for cell in notebook.cells:
        assert set(cell.metadata) <= {"tags"}
        if cell.cell_type == "code":
            assert cell.outputs == []
            assert cell.execution_count is None
    assert set(notebook.metadata) == {"kernelspec", "language_info"}
    assert notebook.metadata.kernelspec.language == "python"
    assert set(notebook.metadata.language_info) == {"name"}


def test_one_cell_of_parameters_with_literals_and_comments(notebook, path):
    (cell,) = tagged(notebook, "parameters")
    lines = cell.source.splitlines()
    # The scorecard reads what others computed, so it has no seeds.
    names = [line.split(":")[0] for line in lines]
    assert names[:2] == (["preset"] if path.stem[:2] == "07" else ["preset", "seeds"])
    for line in lines:
        assert re.fullmatch(r"\w+: \w+(\[\w+\])? = .+  # .+", line), line


def test_form(notebook):
    code = [cell.source for cell in notebook.cells if cell.cell_type == "code"]
    prose = [cell.source for cell in notebook.cells if cell.cell_type == "markdown"]
    assert 12 <= len(code) <= 25
    assert statistics.median(len(source.splitlines()) for source in code) <= 6
    assert sum(len(source.splitlines()) for source in code) <= 150
    assert sum(len(re.findall(r"^def ", source, re.MULTILINE)) for source in code) <= 2
    assert not any(re.search(r"^(class |[%!])|/home/|/root/|/tmp/", source, re.MULTILINE) for source in code)
    everything = "\n".join(prose)
    for part in ("Predict before you run", "How could this be wrong?", "Exercises", "References", "arXiv:"):
        assert part in everything
    assert 800 <= len(everything.split()) <= 2500
    assert len({cell.id for cell in notebook.cells}) == len(notebook.cells)
    assert [cell.cell_type for cell in tagged(notebook, "interactive")] == ["markdown", "code"]


@pytest.mark.notebook
def test_papermill_at_smoke(path, tmp_path, monkeypatch):
    """Runs top to bottom from nothing, draws its figures, keeps its record, and in a second run only reads."""
    monkeypatch.setenv("RTKIT_RUNS", str(tmp_path / "runs"))
    seconds = []
    for _ in range(2):
        start = time.perf_counter()
        done = papermill.execute_notebook(
            path, tmp_path / path.name, {"preset": "smoke"}, cwd=path.parent, progress_bar=False
        )
        seconds.append(time.perf_counter() - start)
    outputs = [output for cell in done.cells if cell.cell_type == "code" for output in cell.outputs]
    figures = [output for output in outputs if "image/png" in output.get("data", {})]
    assert len(figures) >= FIGURES[path.stem[:2]]
    assert all(output.metadata["image/png"]["alt"].startswith("Figure. ") for output in figures)
    assert not [output for output in outputs if output.output_type == "error"]
    warned = [output.text for output in outputs if output.get("name") == "stderr" and "Warning" in output.text]
    assert not warned
    runs = [study for study, number in records.STUDIES.items() if path.stem.startswith(number)]
    for study in [study for study in runs if study not in ("cue_conflict", "new_test_set")]:  # real images only
        record = json.loads((tmp_path / "runs" / "records" / "smoke" / f"{study}.json").read_text())
        assert {verdict["reason"] for verdict in record["verdicts"].values()} == {"smoke"}
        assert record["seeds"] == list(presets.get("smoke").seeds)
        assert (tmp_path / "runs" / "records" / "smoke" / f"{study}.csv.gz").exists()
        assert seconds[1] < seconds[0]
    assert not list(store.ROOT.glob("notebooks/runs"))
