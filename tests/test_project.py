"""What holds the project together: versions that agree, commands that answer, a tree that stays clean."""

import ast
import io
import re
import shutil
import subprocess
import sys
import tokenize
import tomllib
import zipfile
from collections import Counter
from pathlib import Path

import pytest
import yaml
from lessons import study
from packaging.requirements import Requirement

from rtkit import PRESETS, PUBLISHED, STUDIES, labels, lesson, presets, records, store
from rtkit.data import named
from rtkit.data.pictures import Pictures
from rtkit.judge import Judge

ROOT = store.ROOT
REQUIRED = {"torch", "torchvision", "jupyterlab", "ipywidgets", "seaborn", "captum", "papermill"}


def lock() -> dict[str, str]:
    lines = (ROOT / "requirements.lock").read_text().splitlines()
    pins = [line for line in lines if line and not line.startswith("#")]
    for line in pins:
        assert re.fullmatch(r"[A-Za-z0-9._-]+==[A-Za-z0-9.+!]+", line), line
    return {name.lower(): version for name, version in (line.split("==") for line in pins)}


def project() -> dict:
    return tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


def test_versions_agree_everywhere():
    """pyproject's ranges hold the lock's pins; environment.yml installs the same packages at the same versions."""
    pins = lock()
    needs = [Requirement(line) for line in project()["dependencies"]]
    extra = [Requirement(line) for line in project()["optional-dependencies"]["test"]]
    assert {need.name for need in needs} >= REQUIRED
    for need in needs + extra:
        assert need.specifier.contains(pins[need.name]), f"{need} does not hold {pins[need.name]}"
    text = (ROOT / "environment.yml").read_text()
    conda = dict(re.findall(r"^      - ([a-z-]+)==(\S+)$", text, re.MULTILINE))
    assert conda == {need.name: pins[need.name] for need in needs + extra}
    assert "--constraint requirements.lock" in text
    assert f"python{project()['requires-python']}" in text


def test_the_package_asks_for_torch_2_6_or_newer():
    (torch,) = [need for need in map(Requirement, project()["dependencies"]) if need.name == "torch"]
    assert torch.specifier.contains("2.6.0")
    assert not torch.specifier.contains("2.5.1")


def test_required_top_level_is_there():
    for name in ("notebooks", "rtkit", "data", "tests", "environment.yml", "README.md", "LICENSE", "Makefile"):
        assert (ROOT / name).exists(), name


SOURCES = sorted((ROOT / "rtkit").rglob("*.py"))


def code_lines(text: str) -> int:
    """Lines of code, without docstrings, comments, blank lines and imports at the top."""
    tree, skipped, used = ast.parse(text), set(), set()
    for node in ast.walk(tree):
        body = getattr(node, "body", None)
        first = body[0] if isinstance(body, list) and body else None
        if isinstance(first, ast.Expr) and isinstance(first.value, ast.Constant) and isinstance(first.value.value, str):
            skipped |= set(range(first.lineno, first.end_lineno + 1))
    for node in tree.body:
        if isinstance(node, ast.Import | ast.ImportFrom):
            skipped |= set(range(node.lineno, node.end_lineno + 1))
    quiet = {getattr(tokenize, name) for name in ["COMMENT", "NL", "NEWLINE", "INDENT", "DEDENT", "ENDMARKER"]}
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        if token.type not in quiet:
            used |= set(range(token.start[0], token.end[0] + 1))
    return len(used - skipped)


def notebook_code(path: Path) -> str:
    return "\n\n".join(source for kind, _, source in lesson.cells(path) if kind == "code")


def test_the_package_is_thin():
    package = sum(code_lines(path.read_text()) for path in SOURCES)
    scripts = [code_lines(path.read_text()) for path in (ROOT / "scripts").glob("*.py")]
    notebooks = sum(code_lines(notebook_code(path)) for path in lesson.paths())
    assert package <= 4850
    assert package + notebooks <= 8280, (package, notebooks)
    assert max(scripts) <= 212, scripts
    for path in SOURCES:
        assert len(path.read_text().splitlines()) <= 250, path


def uses(text: str) -> Counter:
    """How often each name is used, as a name or as an attribute."""
    nodes = list(ast.walk(ast.parse(text)))
    names = [node.id for node in nodes if isinstance(node, ast.Name)]
    names += [node.attr for node in nodes if isinstance(node, ast.Attribute)]
    return Counter(names + [alias.name for node in nodes if isinstance(node, ast.ImportFrom) for alias in node.names])


def test_what_one_notebook_alone_needs_stands_in_that_notebook():
    """And what nobody needs stands nowhere; measuring, checks of exercises, explorers and commands are exempt."""
    package = sum((uses(path.read_text()) for path in SOURCES), Counter())
    books = [uses(notebook_code(path)) for path in lesson.paths()]
    exempt = ("measure", "checks.py", "widgets.py", "cli.py", "runner.py", "lesson.py")
    exempt += ("methods.py", "shape_bias.py", "influence.py")  # the papers' methods and measures themselves
    found = []
    for path in SOURCES:
        if path.relative_to(ROOT / "rtkit").parts[0] in exempt:
            continue
        for node in ast.parse(path.read_text()).body:
            if isinstance(node, ast.FunctionDef | ast.ClassDef) and not package[node.name]:
                inside = sum(node.name in book for book in books)
                found += [f"{path.name}: {node.name}, {inside}"] if inside < 2 else []
    assert not found


def test_no_six_lines_stand_twice():
    texts = {path.name: path.read_text() for path in [*SOURCES, *(ROOT / "scripts").glob("*.py")]}
    texts |= {path.name: notebook_code(path) for path in lesson.paths()}
    seen = {}
    for name, text in texts.items():
        lines = [line.strip() for line in text.splitlines() if len(line.strip()) > 3]
        lines = [line for line in lines if not line.startswith(("import ", "from ", "#", '"""'))]
        for at in range(len(lines) - 5):
            place = seen.setdefault(tuple(lines[at : at + 6]), (name, at))
            assert place == (name, at), f"{name} repeats {place[0]}: {lines[at]}"


def test_reading_imports_no_torch():
    """Claims, frames, records, figures, the scorecard and the report's index: a CSV file in, words out."""
    code = """
import sys
from rtkit import claims, frames, judge, labels, plots, records, report, runner, say, widgets
records.scorecard("glyphs"), records.every(), report._table("glyphs", {})
sys.exit("torch" in sys.modules)
"""
    done = subprocess.run([sys.executable, "-W", "ignore", "-c", code], check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_public_functions_say_what_they_do():
    for path in SOURCES:
        tree = ast.parse(path.read_text())
        assert ast.get_docstring(tree), path
        for node in tree.body:
            if isinstance(node, ast.FunctionDef | ast.ClassDef) and not node.name.startswith("_"):
                assert ast.get_docstring(node), f"{path}: {node.name}"


def test_presets_are_the_same_everywhere():
    assert list(presets.PRESETS) == list(PRESETS)
    for name in PRESETS:
        assert f"`{name}`" in (ROOT / "README.md").read_text()
    workflow = yaml.safe_load((ROOT / ".github" / "workflows" / "gpu.yml").read_text())
    assert workflow[True]["workflow_dispatch"]["inputs"]["preset"]["options"] == list(
        PRESETS
    )  # YAML reads "on" as true


def test_the_gpu_workflow_fetches_what_its_presets_need():
    """By the commands as they stand in it: every data set of the real presets is got, and the run names the preset."""
    workflow = yaml.safe_load((ROOT / ".github" / "workflows" / "gpu.yml").read_text())
    steps = [step.get("run", "") for step in workflow["jobs"]["notebooks"]["steps"]]
    (fetch,) = [step for step in steps if "data get" in step]
    source, *targets = re.search(r"data get (\w+)\n", fetch)[1], *re.search(r"for name in ([\w ]+);", fetch)[1].split()
    assert {source, *targets} <= set(named.TORCHVISION)
    worlds = {preset.world.name for preset in presets.PRESETS.values() if isinstance(preset.world, Pictures)}
    assert worlds - {"tiny_imagenet"} == {source, ""}  # that one is fetched by hand
    assert set(targets) == set(labels.PHOTOS)
    assert any("rtkit run --preset" in step for step in steps)


def plain(value):
    """A verdict as plain values, with ten digits of each number."""
    if isinstance(value, dict):
        return {key: plain(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [plain(one) for one in value]
    return value if isinstance(value, str) or value is None else float(f"{value:.10g}")


@pytest.mark.parametrize("number", [f"{number:02}" for number in range(1, 7)])
def test_the_records_of_the_kit_were_made_by_this_code(number):
    """The committed frames, judged again by the notebook as it is, give the committed verdicts; the hashes agree."""
    kept = [record for record in records.every() if record.origin == "kit" and STUDIES[record.study][0] == number]
    assert kept
    for record in kept:
        space = study(number, preset="glyphs" if record.preset == PUBLISHED else record.preset)
        judges = {one for one in space.values() if isinstance(one, Judge)}
        (judge,) = [one for one in judges if (one.study, one.preset) == (record.study, record.preset)]
        assert list(judge.verdicts) == list(record.verdicts)
        for name, verdict in judge.verdicts.items():  # sums end differently in the last digit on another processor
            assert plain(verdict.to_dict()) == plain(record.verdicts[name].to_dict()), name
        assert [one.name for one in judge.controls] == [one["name"] for one in record.controls]
        assert record.read_by_this, f"rtkit study {record.study} --preset {record.preset} --judge"
        assert record.computed_by_this


@pytest.mark.skipif(not (ROOT / ".git").exists(), reason="needs a git checkout")
def test_git_holds_nothing_generated():
    listed = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True).stdout.split()
    assert not [
        name
        for name in listed
        if re.search(r"^runs/|__pycache__|(?<!results/networks)/[^/]*\.safetensors$|\.ipynb_checkpoints", name)
    ]
    assert [name for name in listed if name.startswith("data/")] == ["data/README.md"]


def above(tmp_path: Path, *options: str, code: str) -> subprocess.CompletedProcess:
    """Python without this environment, in a folder that holds a clone of the kit named rtkit."""
    clone = tmp_path / "rtkit"
    clone.mkdir()
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, clone)
    shutil.copytree(ROOT / "rtkit", clone / "rtkit", ignore=shutil.ignore_patterns("__pycache__"))
    (clone / "data").mkdir()
    command = [sys.executable, *options, "-c", code]
    return subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)


USE = "import rtkit.data, rtkit.definitions, rtkit.cli; from rtkit import PRESETS; print(rtkit.__file__)"


def test_the_package_is_found_from_the_folder_above_a_clone_of_its_name(tmp_path):
    """As a folder on the path, wherever it stands there, it comes before the clone's own folder of the same name."""
    done = above(tmp_path, "-S", "-E", code=f"import sys; sys.path.append('rtkit'); {USE}")
    assert Path(tmp_path, done.stdout.strip()) == tmp_path / "rtkit" / "rtkit" / "__init__.py", done.stderr


def test_an_editable_installation_is_a_folder_on_the_path(tmp_path):
    pytest.importorskip("setuptools", reason="needs setuptools, which builds the installation")
    build = "import os; os.chdir('rtkit'); from setuptools import build_meta; build_meta.build_editable('..')"
    done = above(tmp_path, code=build)
    assert done.returncode == 0, done.stderr
    (wheel,) = tmp_path.glob("*.whl")
    with zipfile.ZipFile(wheel) as file:
        (line,) = [file.read(name).decode() for name in file.namelist() if name.endswith(".pth")]
        assert not [name for name in file.namelist() if name.endswith(".py")]
    assert line.strip() == str(tmp_path / "rtkit")
    assert "--editable" in (ROOT / "Makefile").read_text(encoding="utf-8")


def test_python_m_rtkit_is_the_command_line():
    done = subprocess.run([sys.executable, "-m", "rtkit", "--help"], capture_output=True, text=True, check=False)
    assert done.returncode == 0
    assert done.stdout.startswith("usage: rtkit ")


def test_no_text_is_read_or_written_as_the_locale_says():
    """Every text file that package, scripts and notebooks open names its encoding, and so does text of processes."""
    texts = {path: path.read_text(encoding="utf-8") for path in [*SOURCES, *(ROOT / "scripts").glob("*.py")]}
    texts |= {path: notebook_code(path) for path in lesson.paths()}
    found = []
    for path, text in texts.items():
        for node in ast.walk(ast.parse(text)):
            if not isinstance(node, ast.Call):
                continue
            name = getattr(node.func, "attr", getattr(node.func, "id", ""))
            given = {word.arg: word.value for word in node.keywords}
            modes = [one.value for one in [*node.args, given.get("mode")] if isinstance(one, ast.Constant)]
            opens = ast.unparse(node.func) not in ("Image.open", "os.open", "file.open")
            text = name in ("read_text", "write_text") or "text" in given or "universal_newlines" in given
            text |= name == "open" and opens and not any("b" in str(mode) for mode in modes)
            found += [f"{path.name}:{node.lineno} {name}"] if text and "encoding" not in given else []
    assert not found
