"""The notebooks: clean in git, regular in form, and running from a fresh kernel."""

import dis
import json
import re
import statistics
from pathlib import Path

import nbformat
import papermill
import pytest
from test_project import code_lines

from rtkit import STUDIES, claims, lesson, presets, records, store

PATHS = lesson.paths()
# At least so many figures at the presets smoke and, where the kit's frames fill the notebook, glyphs.
FIGURES = {"00": 6, "01": 5, "02": 6, "03": 8, "04": 5, "05": 4, "06": 4, "07": 2}
# Every claim that a notebook judges, by name in one of its cells beside its effect.
JUDGED = {
    "01": "U-C1 U-C2 U-C3 U-C4 U-C5 U-C6 U-C7 S-C1 S-C2 S-C4 S-C5",
    "02": "U-C9 S-C8 S-C9",
    "03": "U-C8 INF-K1 INF-K2 INF-K3",
    "04": "NFD-C1 NFD-C2 NFD-C3 NFD-C4 NFD-C5 NFD-C6 NFD-C7",
    "05": "LwF-C1 LwF-C2 LwF-C3 LwF-C4 LwF-C5 LwF-C6 LwF-C7",
    "06": "VFD-C1 VFD-C2 VFD-C3 VFD-C4 RAT-R1 RAT-R2 RAT-R3 ARKS-A1 ARKS-A2 ARKS-A3 C101-T1 C101-T2 C101-T3",
}


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
    names = [line.split(":")[0] for line in lines]
    # The scorecard reads what others computed, so it has no seeds.
    assert names[:2] == (["preset", "guess"] if path.stem[:2] == "07" else ["preset", "seeds"])
    assert names[-1] == "guess"
    for line in lines:
        assert re.fullmatch(r"\w+: \w+(\[\w+\])? = .+  # .+", line), line


def test_form(notebook, path):
    """A lesson: a head, sections with code one can read, three exercises with folded solutions, an end."""
    code = [cell.source for cell in notebook.cells if cell.cell_type == "code"]
    prose = [cell.source for cell in notebook.cells if cell.cell_type == "markdown"]
    assert 12 <= len(code) <= (70 if path.name[:2] == "01" else 64)
    assert 3 <= statistics.median(len(source.splitlines()) for source in code) <= (11 if path.name[:2] == "01" else 9)
    # Sixteen claims of two papers in 01, five to ten in the others; 01, 03, 04 and 05 ask photographs, too.
    asked = {"01": 640, "03": 450, "04": 490, "05": 500, "06": 435}
    assert code_lines("\n\n".join(code)) <= asked.get(path.name[:2], 425)
    assert not any(re.search(r"^[%!]|/home/|/root/|/tmp/", source, re.MULTILINE) for source in code)
    everything = "\n".join(prose)
    for part in ("You will be able to", "How could this be wrong?", "Exercises", "References", "arXiv:"):
        assert part.lower() in everything.lower(), part
    assert len(re.findall(r"<details>", everything)) >= 3
    for kind in ("Warm-up", "Experiment", "Open"):
        assert re.search(rf"\*\*{kind}", everything), kind
    assert 800 <= len(everything.split()) <= (2680 if path.name[:2] == "01" else 2450)
    assert len({cell.id for cell in notebook.cells}) == len(notebook.cells)
    assert any("checks." in source for source in code)
    number = path.stem[:2]
    for near in {f"{int(number) + 1:02}", f"{int(number) - 1:02}"} & {path.stem[:2] for path in PATHS}:
        assert re.search(rf"\]\({near}_\w+\.ipynb", everything), f"no link to {near}"
    assert all(cell.cell_type in ("markdown", "code") for cell in tagged(notebook, "interactive"))


def test_links_between_notebooks_lead_somewhere(notebook):
    headings = {
        path.name: re.findall(r"^#+ (.+)$", "\n".join(c[2] for c in lesson.cells(path) if c[0] == "markdown"), re.M)
        for path in PATHS
    }
    for cell in notebook.cells:
        for name, anchor in re.findall(r"\]\((\d\d_\w+\.ipynb)#?([^)]*)\)", cell.source):
            assert name in headings, name
            assert not anchor or anchor in [heading.replace(" ", "-") for heading in headings[name]], anchor


def test_every_claim_stands_beside_its_effect(notebook, path):
    effects = "\n".join(cell.source for cell in tagged(notebook, "effect"))
    for claim in JUDGED.get(path.stem[:2], "").split():
        assert re.search(rf"[\"']{claim}[\"'@{{]", effects), claim
        assert STUDIES[claims.get(claim).study][0] == path.stem[:2]


def test_captum_and_widgets_are_used(notebook, path):
    source = "\n".join(cell.source for cell in notebook.cells if cell.cell_type == "code")
    assert ("captum" in source) or path.stem[:2] not in ("00", "02", "03")
    assert "explorer(" in source


def names(code, *kinds) -> set[str]:
    """Names that the instructions of these kinds touch, in a code object and in the functions within it."""
    within = [names(const, *kinds) for const in code.co_consts if hasattr(const, "co_consts")]
    return {step.argval for step in dis.get_instructions(code) if step.opname in kinds}.union(*within)


def test_what_an_explorer_reads_is_not_given_another_meaning_further_down(notebook):
    """Its functions are called again when all cells have run: `clean`, bound anew in a later cell, breaks them."""
    reads, explorers = {}, []  # of each function, the globals; of each explorer, all that its functions reach
    for cell in notebook.cells:
        if cell.cell_type != "code" or cell.source.startswith("%"):
            continue
        code = compile(cell.source, cell.id, "exec")
        bound = {step.argval for step in dis.get_instructions(code) if step.opname == "STORE_NAME"}
        for reached in explorers:
            assert not reached & bound, (cell.id, reached & bound)
        own = {one.co_name: names(one, "LOAD_GLOBAL") for one in code.co_consts if hasattr(one, "co_consts")}
        reads |= own
        if "explorer" in code.co_names:
            reached, more = set(), set().union(*own.values(), *(reads.get(name, set()) for name in code.co_names))
            while more - reached:
                reached, more = reached | more, set().union(*(reads.get(name, set()) for name in more))
            explorers.append(reached)


@pytest.mark.notebook
def test_papermill_at_smoke(path, tmp_path, monkeypatch):
    """Runs top to bottom from nothing, draws its figures, keeps its record."""
    monkeypatch.setenv("RTKIT_RUNS", str(tmp_path / "runs"))
    monkeypatch.setattr(store, "RUNS", tmp_path / "runs")
    done = papermill.execute_notebook(
        path, tmp_path / path.name, {"preset": "smoke"}, cwd=path.parent, progress_bar=False
    )
    outputs = [output for cell in done.cells if cell.cell_type == "code" for output in cell.outputs]
    figures = [output for output in outputs if "image/png" in output.get("data", {})]
    assert len(figures) >= FIGURES[path.stem[:2]]
    assert all(output.metadata["image/png"]["alt"].startswith("Figure. ") for output in figures)
    assert not [output for output in outputs if output.output_type == "error"]
    warned = [output.text for output in outputs if output.get("name") == "stderr" and "Warning" in output.text]
    assert not warned
    runs = [study for study, (number, at) in STUDIES.items() if path.stem.startswith(number) and "smoke" in at]
    for study in runs:
        record = json.loads((tmp_path / "runs" / "records" / "smoke" / f"{study}.json").read_text())
        assert {verdict["reason"] for verdict in record["verdicts"].values()} == {"smoke"}
        assert record["seeds"] == list(presets.get("smoke").seeds)
        assert (tmp_path / "runs" / "records" / "smoke" / f"{study}.csv.gz").exists()
        assert records.load(study, "smoke").computed_by_this
    assert not list(store.ROOT.glob("notebooks/runs"))
