"""Finding notebooks and parameters, running each in a process of its own, and what goes wrong."""

import json
import os
import re
import signal
import subprocess
import sys
import time

import nbformat
import numpy as np
import pandas as pd
import psutil
import pytest

from rtkit import PRESETS, STUDIES, claims, cli, lesson, presets, protocols, records, runner, store, tasks
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
    monkeypatch.setattr(lesson, "paths", lambda: sorted(tmp_path.glob("*.ipynb")))
    monkeypatch.setattr(store, "RUNS", tmp_path / "runs")
    return tmp_path


def test_notebooks_are_found_by_number_or_name(folder):
    for name in ("01_first.ipynb", "02_second.ipynb"):
        notebook(folder / name)
    for word in ("02", "02_second"):
        assert runner.find(word) == folder / "02_second.ipynb"
    assert lesson.title(folder / "01_first.ipynb") == "01_first"
    with pytest.raises(runner.UsageError, match="'02_secnd'; did you mean 02_second"):
        runner.find("02_secnd")


def test_copies_beside_the_kit_s_notebooks_are_none_of_them(tmp_path, monkeypatch):
    kept = [path.name for path in lesson.paths()]
    assert kept == sorted(path.name for path in lesson.NOTEBOOKS.glob("[0-9][0-9]_*.ipynb"))
    monkeypatch.setattr(lesson, "NOTEBOOKS", tmp_path)
    for name in (*kept, "07_scorecard-Copy1.ipynb", "07_a.ipynb", "08_mine.ipynb"):
        (tmp_path / name).touch()
    assert [path.name for path in runner.paths()] == kept
    assert runner.find("07").name == lesson.path("07").name == "07_scorecard.ipynb"
    for word in ("07_scorecard-Copy1", "08", "7", ""):
        with pytest.raises(runner.UsageError, match="there are: 00_start_here"):
            runner.find(word)


def test_a_path_names_that_very_file(folder, monkeypatch):
    notebook(folder / "07_scorecard.ipynb")
    own = folder / "my" / "07_scorecard.ipynb"
    own.parent.mkdir()
    notebook(own)
    monkeypatch.chdir(own.parent)
    monkeypatch.setenv("HOME", str(own.parent))
    for word in (
        "07_scorecard.ipynb",
        "./07_scorecard.ipynb",
        "../my/07_scorecard.ipynb",
        str(own),
        "~/07_scorecard.ipynb",
    ):
        assert runner.find(word).samefile(own)
        assert runner._copy(runner.find(word), "smoke").is_relative_to(store.RUNS / "notebooks" / "smoke" / "own")
    for word in ("../07_scorecard.ipynb", str(folder / "07_scorecard.ipynb")):
        assert runner.find(word) == folder / "07_scorecard.ipynb"
        assert runner._copy(runner.find(word), "smoke") == store.RUNS / "notebooks" / "smoke" / "07_scorecard.ipynb"
    for word in ("08.ipynb", "other/07_scorecard.ipynb", "./07", "07/"):
        with pytest.raises(runner.UsageError, match=f"there is no file {re.escape(word)}; .* such as 01"):
            runner.find(word)


@pytest.mark.parametrize("text", ["", "not JSON", "[]", "{}", '{"cells": 1}', "\xff"])
def test_a_file_that_is_no_notebook_is_named(folder, text):
    (folder / "mine.ipynb").write_bytes(text.encode("latin-1"))
    with pytest.raises(runner.UsageError, match=r"mine\.ipynb cannot be read as a notebook"):
        runner.assign([folder / "mine.ipynb"], {})


@pytest.mark.parametrize(
    ("name", "text", "value"),
    [
        ("preset", "smoke", "smoke"),
        ("seeds", "[0, 1]", [0, 1]),
        ("seeds", "3", [3]),
        ("seeds", "0", [0]),
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
    assert runner.assign(runner.paths(), {name: text}, {"preset": "a"}) == [
        {"preset": "a"} | first,
        {"preset": "a"} | second,
    ]


@pytest.mark.parametrize("kind", ["dict[str, int]", "Optional[int]", "set"])
def test_types_that_no_notebook_of_the_kit_names_take_any_value(folder, kind):
    notebook(folder / "mine.ipynb", parameters=f"some: {kind} = None")
    assert runner.assign(runner.paths(), {"some": "{a: 1}"}) == [{"some": {"a": 1}}]


@pytest.mark.parametrize("text", ["a", "[a]", "[true]", "true", "{", "[0, 0.5]", "0.5", "null", "", "{0: 1}"])
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
    kept = folder / "runs" / "notebooks" / "smoke" / "02_bad.ipynb"
    kept.parent.mkdir(parents=True)
    kept.write_bytes(b"executed to its end, once")
    assert runner.run(runner.paths(), {"preset": "smoke", "seeds": "[7]"}) == 1
    err = capfd.readouterr().err
    assert "failed: 02_bad" in err
    assert "ZeroDivisionError" in err
    assert kept.read_bytes() == b"executed to its end, once"
    kept.unlink()
    done = {path.stem: nbformat.read(path, 4) for path in kept.parent.iterdir()}
    assert sorted(done) == ["01_good", "02_bad.unfinished", "03_good"]
    printed = {
        name: "".join(o.get("text", "") for c in nb.cells for o in c.get("outputs", [])) for name, nb in done.items()
    }
    assert printed["01_good"] == "smoke [7]\n"
    assert printed["03_good"].strip() == str(folder)
    errors = [o for c in done["02_bad.unfinished"].cells for o in c.get("outputs", []) if o.output_type == "error"]
    assert "ZeroDivisionError" in errors[0].ename
    assert "never" not in printed["02_bad.unfinished"]


@pytest.mark.notebook
@pytest.mark.parametrize("sent", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupt_stops_everything_at_once(folder, sent):
    """Ctrl-C, or being told to end, ends command, kernel and the kernel's own processes; the exit status says so."""
    sleeper = "import subprocess, pathlib; subprocess.Popen(['sleep', '90'])"
    notebook(folder / "01_slow.ipynb", f"{sleeper}; pathlib.Path('started').touch()", "import time; time.sleep(90)")
    # Where the tests themselves run in the background, interrupts are ignored, and children inherit that.
    heed = "import signal; signal.signal(signal.SIGINT, signal.default_int_handler)"
    code = "import sys; from pathlib import Path; from rtkit import cli, lesson"
    run = (
        f"{heed}; {code}; lesson.paths = lambda: [Path(sys.argv[1])]; sys.exit(cli.main(['run', '--preset', 'smoke']))"
    )
    command = [sys.executable, "-c", run, str(folder / "01_slow.ipynb")]
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
        (["run", "01", "-p", "seeds", "1", "-p", "seeds", "2"], "seeds"),
        (["run", "my/01.ipynb"], "there is no file my/01.ipynb"),
        (["study", "my/01.ipynb"], "my/01.ipynb"),
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
    assert len([line for line in lines if re.match(r"\S+-[A-Z]\d+ ", line)]) == 54
    assert cli.main(["scorecard", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert {entry["claim"].partition("@")[0] for entry in found} == set(claims.load())
    wanted = "claim paper preset scope verdict reason effect low high replicates unit paper_effect parts marks p"
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
    assert records.load("transfer", "glyphs").read_by_this


def test_what_only_reads_the_kit_leaves_no_record(tmp_path, monkeypatch):
    monkeypatch.setattr(store, "RUNS", tmp_path)
    records.publish(judged("transfer", "glyphs", "kit"))
    assert not records.path("transfer", "glyphs").exists()
    assert records.load("transfer", "glyphs") is None


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
        assert records.rows_code(study) != protocols.reading(study)


def test_a_preset_of_real_images_runs_the_notebooks_that_have_something_to_say():
    assert [path.name[:2] for path in runner.paths("imagenet")] == ["01", "07"]
    assert runner.paths("glyphs") == runner.paths()
    with pytest.raises(ValueError, match="'cifar' is one of real images; here it must be smoke, glyphs, glyphs-full"):
        presets.drawn("cifar")


@pytest.mark.notebook
def test_one_s_own_notebook_runs_as_it_is_with_its_own_modules(tmp_path):
    """From a folder with braces, spaces and modules called like the library's; all it leaves lies in one place."""
    folder = tmp_path / "my {v2} ü"
    folder.mkdir()
    for name in ("torch", "random", "rtkit", "papermill", "types"):
        (folder / f"{name}.py").write_text("raise SystemExit('not the library')\n", encoding="utf-8")
    (folder / "frames.py").write_text("MINE = 7\n", encoding="utf-8")
    cells = ["import frames, random, rtkit, os; from rtkit import store", "print(frames.MINE, rtkit.__file__)"]
    cells += ["print(store.RUNS, os.environ['RTKIT_RUNS'], os.environ['RTKIT_DATA'], sep='\\n')"]
    notebook(folder / "07_scorecard.ipynb", *cells, parameters="share: float = 0.5")
    command = [sys.executable, "-P", "-m", "rtkit", "run", "my {v2} ü/07_scorecard.ipynb", "-p", "share", "1"]
    environment = os.environ | {"RTKIT_RUNS": "runs {a}", "RTKIT_DATA": "~", "HOME": str(folder)}
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "07_scorecard: share 1" in done.stderr
    runs = tmp_path / "runs {a}"
    (copy,) = (tmp_path / "runs {a}").rglob("*.ipynb")
    assert copy == runs / "notebooks" / "glyphs" / "own" / folder.relative_to("/") / "07_scorecard.ipynb"
    printed = "".join(o.text for c in nbformat.read(copy, 4).cells for o in c.get("outputs", []))
    expected = [f"7 {store.PACKAGE / '__init__.py'}", str(runs), str(runs), str(folder)]
    assert printed.splitlines() == expected


def python(code: str, **options) -> str:
    environment = os.environ | options.pop("env", {})
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, capture_output=True, check=False, env=environment, **options)
    assert done.returncode == 0, done.stderr.decode(errors="replace")
    return done.stdout.decode(errors="replace")


@pytest.mark.parametrize(
    ("given", "meant"),
    [("out", "{here}/out"), ("~/a b", "{home}/a b"), ("/x/{y}", "/x/{y}"), ("", "{kit}/runs"), ("../o", "{here}/../o")],
)
def test_a_folder_is_one_place_for_every_process(given, meant, tmp_path):
    """Said once, by the shell's folder, also to a process that another folder is chosen for."""
    code = "import os; os.chdir('/'); from rtkit import store; print(store.RUNS, os.environ['RTKIT_RUNS'], sep='|')"
    code = f"import os, rtkit; here = os.getcwd(); {code}"
    found = python(code, cwd=tmp_path, env={"RTKIT_RUNS": given, "HOME": str(tmp_path / "home")})
    here = meant.replace("{here}", str(tmp_path)).replace("{home}", str(tmp_path / "home"))
    here = here.replace("{kit}", str(store.ROOT))
    assert found.strip() == f"{here}|{here if given else ''}"


def test_a_kernel_takes_a_relative_folder_as_the_program_does_that_started_it(tmp_path):
    environment = {"RTKIT_DATA": "out", "JPY_PARENT_PID": str(os.getpid())}
    code = "import rtkit, os; print(os.environ['RTKIT_DATA'])"
    assert python(code, cwd=tmp_path, env=environment).strip() == os.path.join(os.getcwd(), "out")
    environment["JPY_PARENT_PID"] = "1"  # a process that a kernel started
    assert python(code, cwd=tmp_path, env=environment).strip() == str(tmp_path / "out")


def test_no_command_stumbles_over_a_locale_that_is_not_utf_8(tmp_path):
    """Nor over a checkout whose folder has letters beyond ASCII, spaces and braces."""
    (tmp_path / "bl\u00fcten").mkdir()
    (checkout := tmp_path / "kit {v2} \u00fc").symlink_to(store.ROOT)
    code = """
import locale, sys
from rtkit import cli, store
assert store.ROOT.name.startswith("kit {v2}")
assert locale.getpreferredencoding(False) != "UTF-8" and sys.stdout.encoding.lower() != "utf-8"
for words in (["list"], ["scorecard"], ["scorecard", "--json"], ["data", "list"]):
    assert cli.main(words) == 0, words
made = []
for _ in range(3):
    path, config = store.cell_path("test", {"target": "bl\\u00fcten"}, "code"), {"target": "bl\\u00fcten"}
    store.cell("test", config, "code", lambda: made.append(1) or [{"value": 1.0}])
assert len(made) == 1, made
"""
    settings = {"PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0", "LC_ALL": "C", "PYTHONIOENCODING": ""}
    settings["PYTHONPATH"] = str(checkout)
    settings |= {"RTKIT_RUNS": str(tmp_path / "runs"), "RTKIT_DATA": str(tmp_path)}
    found = python(code, env=settings, cwd=tmp_path)
    assert "01_robust_features_transfer" in found


@pytest.mark.parametrize("given", [3, [3], (3, 3), {3}, range(3, 4), np.int64(3), np.array(3), np.array([3, 3])])
def test_seeds_are_one_or_many(given):
    assert presets.replicates(presets.get("glyphs"), given) == (3,)
    assert all(type(seed) is int for seed in presets.replicates(presets.get("glyphs"), given))


def test_no_seeds_are_the_preset_s_own_and_seed_0_is_one():
    glyphs = presets.get("glyphs")
    assert presets.replicates(glyphs, 0) == presets.replicates(glyphs, np.array([0])) == (0,)
    assert presets.replicates(glyphs, np.arange(3)) == (0, 1, 2)
    for nothing in (None, [], (), np.array([])):
        assert presets.replicates(glyphs, nothing) == glyphs.seeds


NO_SEEDS = [-1, [0, -1], True, [True, 1], "3", 0.0, [1.0], np.array([0.5]), "", "[0, 1]", {0: 1}, [[0]], b"0", [None]]


@pytest.mark.parametrize("given", [*NO_SEEDS, 2**31])
def test_what_is_no_seed_is_refused(given):
    with pytest.raises(ValueError, match="seeds must be whole numbers"):
        presets.replicates(presets.get("glyphs"), given)


def test_targets_are_one_or_many(root):
    for name in ("a", "b"):
        for part in ("train", "test"):
            for label in ("cat", "dog"):
                (root / name / part / label).mkdir(parents=True)
    for given in ("a", ["a"], ("a", "a"), {"a"}, np.array("a"), np.array(["a"]), np.str_("a"), pd.Series(["a"])):
        assert tasks.own(given) == ("a",)
    assert tasks.own(["b", "a", "b"]) == ("b", "a")
    assert tasks.own(None) == tasks.own([]) == ()
    for given in (0, 2024, True, 0.5, [1], [None], {"a": 1}, [["a"]], b"a"):
        with pytest.raises(ValueError, match="targets must be names of data sets"):
            tasks.own(given)
    for given in ("", "[a, b]"):
        with pytest.raises(ValueError, match=f"no data set is called {re.escape(repr(given))}.*there are: a, b"):
            tasks.own(given)


def test_what_the_disk_refuses_is_a_line_and_exit_status_1(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(store, "RUNS", tmp_path)
    (tmp_path / "records" / "smoke" / "transfer.json").mkdir(parents=True)
    with pytest.raises(SystemExit) as ended:
        cli.main(["scorecard", "--preset", "smoke"])
    assert ended.value.code == 1
    assert re.fullmatch(r"rtkit: .*Is a directory: '.*transfer\.json'\n", capsys.readouterr().err)


ONE = [("01", "targets"), ("03", "seeds"), ("03", "targets"), ("05", "targets"), ("06", "seeds")]


@pytest.mark.parametrize(("number", "name"), ONE)
def test_notebooks_take_one_value_for_a_list_of_one(number, name):
    """As papermill's own command line gives it, before a cell reads it without asking for a list."""
    for given, listed in ((0, [0]), ("mine", ["mine"]), (None, [])):
        space = lesson.execute(lesson.path(number), {name: given}, ("parameters", "plumbing"))
        assert space[name] == listed
