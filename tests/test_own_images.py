"""A reader's own images in notebooks 01, 03, 04 and 05: shown, kept out of the verdicts, and refused if unusable."""

import subprocess
import sys

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import papermill
import pytest
import torch
from lessons import study
from PIL import Image

from rtkit import lesson, plots, presets, records, store

NUMBERS = {"01": "transfer", "03": "influence", "04": "attack_success", "05": "retention"}
LIKE = {"01": "digits", "03": "digits", "04": "greek", "05": "digits_cued"}  # the target whose rows are copied


def folder(path, classes=("left", "right"), count: int = 14) -> None:
    """A folder of images, of mixed sizes and two kinds, in which the lit side tells the class; classes are uneven."""
    rng = np.random.default_rng(0)
    for k, name in enumerate(classes):
        (path / name).mkdir(parents=True)
        for at in range(count * (1 + k)):
            x = rng.integers(120, size=(30 + at, 48 - at // 2, 3), dtype=np.uint8)
            half = x.shape[1] // 2
            x[:, :half] += np.uint8(100 * (k == 0))
            x[:, half:] += np.uint8(100 * (k == 1))
            Image.fromarray(x).save(path / name / f"{at}.{'png' if at % 2 else 'jpg'}")


def execute(number: str, tmp_path, monkeypatch, names: list[str]):
    monkeypatch.setenv("RTKIT_RUNS", str(tmp_path / "runs"))
    monkeypatch.setenv("RTKIT_DATA", str(tmp_path / "data"))
    path, values = lesson.path(number), {"preset": "smoke", "targets": names}
    return papermill.execute_notebook(path, tmp_path / path.name, values, cwd=path.parent, progress_bar=False)


def shown(done) -> str:
    """All Markdown, and the alternative texts of all figures, of an executed notebook."""
    outputs = [output for cell in done.cells if cell.cell_type == "code" for output in cell.outputs]
    words = [output.data.get("text/markdown", "") for output in outputs if "data" in output]
    return "\n".join(words + [output.get("metadata", {}).get("image/png", {}).get("alt", "") for output in outputs])


@pytest.mark.notebook
# One of each kind: cells of sources, and students. In 03 and 05 the same door is tested below without a kernel.
@pytest.mark.parametrize("number", ["01", "04"])
def test_a_folder_of_ones_own_in_a_notebook(number, tmp_path, monkeypatch):
    folder(tmp_path / "data" / "mine")
    done = execute(number, tmp_path, monkeypatch, ["mine"])
    assert "mine" in shown(done)
    frame = store.load_frame(tmp_path / "runs" / "records" / "smoke" / f"{NUMBERS[number]}.csv.gz")
    assert "mine" in set(frame.target)


@pytest.mark.notebook
def test_a_missing_data_set_is_named_where_the_notebook_stops(tmp_path, monkeypatch):
    (tmp_path / "data").mkdir()
    with pytest.raises(papermill.PapermillExecutionError, match=r"no data set is called 'absent'.*data/README\.md"):
        execute("03", tmp_path, monkeypatch, ["absent"])


@pytest.mark.parametrize("number", NUMBERS)
def test_what_cannot_be_a_target_is_refused_before_anything_is_computed(number, root):
    folder(root / "few", count=3)
    folder(root / "alone", ("left",))
    cells = lesson.execute(lesson.path(number), {}, lesson.GRID)["cells"]
    for name, words in (
        ("few", r"few: class 'left' would get .* it needs two; .* add some, or leave the class out"),
        ("alone", "alone"),
        ("absent", "no data set is called 'absent'.*there are: alone, few"),
    ):
        with pytest.raises(ValueError, match=words):
            list(cells(presets.get("smoke"), 0, [name]))


@pytest.mark.parametrize("number", NUMBERS)
def test_ones_own_data_set_adds_its_cells_and_changes_no_other(number, root):
    folder(root / "mine", count=40)
    cells = lesson.execute(lesson.path(number), {}, lesson.GRID)["cells"]
    without, with_it = (set(cells(presets.get("smoke"), 0, names)) for names in ((), ("mine",)))
    assert without < with_it
    assert {getattr(cell, "target", None) or cell.student.target for cell in with_it - without} == {"mine"}


def with_a_readers_own(number: str, frame: pd.DataFrame) -> pd.DataFrame:
    """A frame with rows of another target, on fewer images, on more test images, and worse than any in it."""
    more = frame[frame.target == LIKE[number]].assign(target="mine", n_test=9999)
    if number == "03":
        more = more[more.method == "last_stage"]
    worst = more.metric == "self_check_warnings"
    more = more.assign(value=worst.astype(float), n_train=(more.n_train // 2).where(more.method != "source", 0))
    found = pd.concat([frame, more], ignore_index=True)
    found.attrs = frame.attrs
    return found


@pytest.mark.parametrize("number", NUMBERS)
def test_a_readers_own_data_set_enters_no_verdict_and_no_control(number):
    name = NUMBERS[number]
    frame = records.frame(name, "glyphs")
    before, after = (study(number, {name: one})["judge"] for one in (frame, with_a_readers_own(number, frame)))
    assert after.verdicts == before.verdicts
    assert after.controls == before.controls
    assert after.collapsed == before.collapsed


def test_the_command_line_says_in_a_line_which_data_set_is_missing(tmp_path):
    command = [sys.executable, "-c", "import sys; from rtkit.cli import main; sys.exit(main(sys.argv[1:]))", "study"]
    environment = {"RTKIT_DATA": str(tmp_path), "RTKIT_RUNS": str(tmp_path / "runs"), "PYTHONPATH": str(store.ROOT)}
    command += ["03", "--preset", "photos"]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, cwd=tmp_path)
    assert done.returncode == 2
    assert done.stderr.strip().startswith("rtkit: no data set is called 'cifar10'")
    assert len(done.stderr.strip().splitlines()) == 1


ODD = ("a$b_c^$", "$\\frac$", r"50% \alpha", "cat_dog^")


def test_names_in_figures_are_taken_literally():
    with plt.rc_context():
        plots.style()
        ax = plots.top_classes(torch.tensor([0.4, 0.3, 0.2, 0.1]), ODD, 0)
        ax.set_title(ODD[0])
        plots.images(torch.zeros(2, 3, 4, 4), ODD[:2], columns=1)
        shown = pd.DataFrame({"n": [1, 10, 100] * 2, "percent": [10.0, 20, 30] * 2, "arm": [*ODD[:2]] * 3, "seed": 0})
        shown = shown.assign(target=ODD[0])
        grid = plots.lines(shown, "n", col="target", log=True, ticks=False)
        for figure in map(plt.figure, plt.get_fignums()):
            figure.canvas.draw()
        assert "$" not in "".join(label.get_text() for label in grid.ax.get_xticklabels())
        plt.close("all")


@pytest.mark.parametrize("number", NUMBERS)
def test_the_parameter_says_where_to_read_on(number):
    (parameters,) = [source for _, tags, source in lesson.cells(lesson.path(number)) if "parameters" in tags]
    (line,) = [line for line in parameters.splitlines() if line.startswith("targets: list[str] = []")]
    assert "docs/own_images.md" in line
    assert (store.ROOT / "docs" / "own_images.md").exists()
