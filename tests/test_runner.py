"""Finding notebooks and parameters, running each in a process of its own, and what goes wrong."""

import json
import os
import re
import signal
import subprocess
import sys
import time

import nbformat
import pandas as pd
import psutil
import pytest

from rtkit import PRESETS, STUDIES, claims, cli, lesson, presets, records, runner, store
from rtkit.judge import Judge


def notebook(path, *cells: str, parameters: str = 'preset: str = "glyphs"  # which\nseeds: list[int] = []  # many'):
    code = [nbformat.v4.new_code_cell(parameters, metadata={"tags": ["parameters"]})]
    code += [nbformat.v4.new_code_cell(cell) for cell in cells]
    kernel = {"name": "python3", "language": "python", "display_name": "Python 3"}
    title = nbformat.v4.new_markdown_cell(f"# {path.stem}")
    nbformat.write(nbformat.v4.new_notebook(cells=[title, *code], metadata={"kernelspec": kernel}), path)


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """Notebooks of our own, and a place for what they leave."""
    monkeypatch.setattr(lesson, "NOTEBOOKS", tmp_path)
    monkeypatch.setattr(store, "RUNS", tmp_path / "runs")
    return tmp_path


def test_notebooks_are_found_by_number_name_or_file(folder):
    for name in ("01_first.ipynb", "02_second.ipynb"):
        notebook(folder / name)
    for word in ("02", "02_second", "02_second.ipynb", str(folder / "02_second.ipynb")):
        assert runner.find(word) == folder / "02_second.ipynb"
    assert lesson.title(folder / "01_first.ipynb") == "01_first"
    with pytest.raises(runner.UsageError, match="'02_secnd'; did you mean 02_second"):
        runner.find("02_secnd")


@pytest.mark.parametrize(
    ("name", "text", "value"),
    [
        ("preset", "smoke", "smoke"),
        ("seeds", "[0, 1]", [0, 1]),
        ("share", "0.5", 0.5),
        ("share", "1", 1),
        ("on", "true", True),
    ],
)
def test_parameters_are_read_as_their_notebook_types_them(folder, name, text, value):
    notebook(
        folder / "01_a.ipynb",
        parameters='preset: str = "x"\nseeds: list[int] = []\nshare: float = 0.1\non: bool = False',
    )
    notebook(folder / "02_b.ipynb", parameters='preset: str = "x"')
    first, second = runner.assign(runner.paths(), {name: text})
    assert first == {name: value}
    assert second == ({name: value} if name == "preset" else {})


@pytest.mark.parametrize("text", ["3", "[a]", "[true]", "{", "[0, 0.5]"])
def test_values_of_another_type_are_refused(folder, text):
    notebook(folder / "01_a.ipynb")
    with pytest.raises(runner.UsageError, match=r"parameter seeds must be of type list\[int\]"):
        runner.assign(runner.paths(), {"seeds": text})


@pytest.mark.parametrize(
    ("text", "value"),
    [("mine", ["mine"]), ("2024", ["2024"]), ("yes", ["yes"]), ("[mine, yours]", ["mine", "yours"]), ("[]", [])],
)
def test_a_bare_word_is_a_list_of_one_name(folder, text, value):
    notebook(folder / "01_a.ipynb", parameters="targets: list[str] = []")
    assert runner.assign(runner.paths(), {"targets": text}) == [{"targets": value}]


@pytest.mark.parametrize("text", ["", "{", "a b", "[2024]", "{a: 1}"])
def test_what_is_neither_a_word_nor_a_list_of_words_is_refused(folder, text):
    notebook(folder / "01_a.ipynb", parameters="targets: list[str] = []")
    with pytest.raises(runner.UsageError, match=r"parameter targets must be of type list\[str\]"):
        runner.assign(runner.paths(), {"targets": text})


def test_unknown_parameters_are_refused(folder):
    notebook(folder / "01_a.ipynb")
    with pytest.raises(runner.UsageError, match="no parameter is called 'seed'; did you mean seeds"):
        runner.assign(runner.paths(), {"seed": "3"})


@pytest.mark.notebook
def test_a_failing_notebook_keeps_its_copy_and_the_others_go_on(folder, capfd):
    notebook(folder / "01_good.ipynb", "print(preset, seeds)")
    notebook(folder / "02_bad.ipynb", "before = 1", "before / 0", "print('never')")
    notebook(folder / "03_good.ipynb", "import os; print(os.getcwd())")
    assert runner.run(runner.paths(), {"preset": "smoke", "seeds": "[7]"}) == 1
    err = capfd.readouterr().err
    assert "failed: 02_bad" in err
    assert "ZeroDivisionError" in err
    done = {path.stem: nbformat.read(path, 4) for path in (folder / "runs" / "notebooks" / "smoke").iterdir()}
    printed = {
        name: "".join(o.get("text", "") for c in nb.cells for o in c.get("outputs", [])) for name, nb in done.items()
    }
    assert printed["01_good"] == "smoke [7]\n"
    assert printed["03_good"].strip() == str(folder)
    errors = [o for c in done["02_bad"].cells for o in c.get("outputs", []) if o.output_type == "error"]
    assert "ZeroDivisionError" in errors[0].ename
    assert "never" not in printed["02_bad"]


@pytest.mark.notebook
@pytest.mark.parametrize("sent", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupt_stops_everything_at_once(folder, sent):
    """Ctrl-C, or being told to end, ends command, kernel and the kernel's own processes; the exit status says so."""
    sleeper = "import subprocess, pathlib; subprocess.Popen(['sleep', '90'])"
    notebook(folder / "01_slow.ipynb", f"{sleeper}; pathlib.Path('started').touch()", "import time; time.sleep(90)")
    # Where the tests themselves run in the background, interrupts are ignored, and children inherit that.
    heed = "import signal; signal.signal(signal.SIGINT, signal.default_int_handler)"
    code = "import sys; from pathlib import Path; from rtkit import cli, lesson; lesson.NOTEBOOKS = Path(sys.argv[1])"
    run = f"{heed}; {code}; sys.exit(cli.main(['run', '--preset', 'smoke']))"
    command = [sys.executable, "-c", run, str(folder)]
    environment = os.environ | {"RTKIT_RUNS": str(folder / "runs")}
    process = subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True)
    until = time.monotonic() + 60
    while not (folder / "started").exists() and time.monotonic() < until:
        time.sleep(0.2)
    family = psutil.Process(process.pid).children(recursive=True)
    assert len(family) >= 2
    process.send_signal(sent)
    _, err = process.communicate(timeout=40)
    assert process.returncode == 130
    assert "goes on from here" in err
    assert "Traceback" not in err
    _, alive = psutil.wait_procs(family, timeout=5)
    for orphan in alive:
        orphan.kill()
    assert not alive


def run(*words: str, **environment: str) -> subprocess.CompletedProcess:
    command = [sys.executable, "-m", "rtkit.cli", *words]
    return subprocess.run(command, capture_output=True, text=True, check=False, env=os.environ | environment)


@pytest.mark.parametrize(
    ("words", "named"),
    [
        (["run", "--preset", "glyph"], "glyphs"),
        (["run", "01_robust_features"], "01_robust_features_transfer"),
        (["run", "01", "-p", "seed", "1"], "seeds"),
        (["run", "01", "-p", "seeds", "one"], "'one'"),
        (["run", "01", "-p", "preset", "smok"], "smoke"),
        (["study", "transfr"], "transfer"),
        (["report", "--preset", "smoke"], "rtkit run --preset smoke"),
        ([], "COMMAND"),
    ],
)
def test_what_makes_no_sense_is_answered_in_a_line(words, named, tmp_path):
    done = run(*words, RTKIT_RUNS=str(tmp_path))
    assert done.returncode == 2
    assert named in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("words", [["run", "01", "--preset", "smoke"], ["study", "transfer", "--preset", "smoke"]])
def test_a_folder_that_cannot_be_written_to_is_said(words, tmp_path):
    (tmp_path / "file").touch()
    done = run(*words, RTKIT_RUNS=str(tmp_path / "file" / "runs"))
    assert done.returncode == 2
    assert "cannot write to" in done.stderr
    assert "RTKIT_RUNS" in done.stderr


def test_help_is_quick():
    seconds = []
    for _ in range(3):
        start = time.perf_counter()
        assert run("--help").returncode == 0
        seconds.append(time.perf_counter() - start)
    assert min(seconds) < 0.5


def test_the_command_line_needs_no_torch_until_it_computes():
    code = "import sys, rtkit.cli, rtkit.runner, rtkit.records; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_scorecard_lists_every_claim(capsys):
    """The reader's own verdicts, else the kit's; regimes of a claim follow it."""
    assert cli.main(["scorecard", "--preset", "glyphs"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len([line for line in lines if re.match(r"\S+-[A-Z]\d+ ", line)]) == 47
    assert cli.main(["scorecard", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert {entry["claim"].partition("@")[0] for entry in found} == set(claims.load())
    wanted = "claim paper preset scope verdict reason effect low high replicates unit paper_effect parts"
    assert all(list(entry) == wanted.split() for entry in found)


@pytest.mark.parametrize(
    "text", ["{", '{"code": "", "verdicts": {"U-C1": {"claim": "U-C1", "of another version": 1}}}']
)
def test_a_record_that_cannot_be_read_is_named_and_passed_over(text, tmp_path):
    path = tmp_path / "records" / "smoke" / "transfer.json"
    path.parent.mkdir(parents=True)
    path.write_text(text)
    found = run("scorecard", "--preset", "smoke", RTKIT_RUNS=str(tmp_path))
    assert found.returncode == 0
    assert f"{path} cannot be read" in found.stderr
    assert "run the study again" in found.stderr
    assert re.search(r"^U-C1 .*smoke", found.stdout, re.MULTILINE)


def judged(study: str, preset: str, run: str, **columns) -> Judge:
    frame = pd.DataFrame({"seed": [0], "target": ["digits"], "n_train": [100], "metric": ["none"], "value": [0.0]})
    frame = frame.assign(source="standard", **columns)
    frame.attrs = {"study": study, "preset": preset, "run": run}
    return Judge(frame, collapsed=())


def test_a_data_set_called_like_a_glyph_target_stops_no_record(tmp_path, monkeypatch):
    (tmp_path / "digits" / "cat").mkdir(parents=True)
    monkeypatch.setenv("RTKIT_DATA", str(tmp_path))
    monkeypatch.setattr(store, "RUNS", tmp_path)
    records.publish(judged("transfer", "glyphs", "mine"))
    record = json.loads(records.path("transfer", "glyphs").read_text())
    assert "data" not in record
    assert records.load("transfer", "glyphs").same_code


def test_what_only_reads_the_kit_leaves_no_record(tmp_path, monkeypatch):
    monkeypatch.setattr(store, "RUNS", tmp_path)
    records.publish(judged("transfer", "glyphs", "kit"))
    assert not records.path("transfer", "glyphs").exists()
    assert records.best("transfer", "glyphs").origin == "kit"


def test_list_and_doctor_say_what_there_is(capsys):
    assert cli.main(["list"]) == 0
    out = capsys.readouterr().out
    assert "01_robust_features_transfer" in out
    assert "-p seeds (list[int]" in out
    assert "studies: transfer (notebook 01), shape_bias (notebook 02), cue_conflict (notebook 02)" in out
    assert "attack_success (notebook 04)" in out
    assert cli.main(["doctor"]) == 0
    out = capsys.readouterr().out
    for word in ("torch", "device", "bfloat16", "data", "records"):
        assert re.search(rf"^{word} +\S", out, re.MULTILINE), word


def test_every_study_has_its_measure_and_its_notebook():
    for study, (number, presets_of) in STUDIES.items():
        assert lesson.path(number).exists()
        assert (store.PACKAGE / "measure" / f"{study}.py").exists()
        assert set(presets_of) <= set(PRESETS)
        assert set(records._code(study)) == {"rows", "reading"}


def test_a_preset_of_real_images_runs_the_notebooks_that_have_something_to_say():
    assert [path.name[:2] for path in runner.paths("imagenet")] == ["01", "07"]
    assert runner.paths("glyphs") == runner.paths()
    with pytest.raises(ValueError, match="'cifar' is one of real images; here it must be smoke, glyphs, glyphs-full"):
        presets.drawn("cifar")
