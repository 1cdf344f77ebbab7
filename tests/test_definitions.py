"""Cache keys: they hold the code that a cell's rows reach, all of it and nothing else."""

import ast
import shutil
import subprocess
import sys
from importlib import import_module
from pathlib import Path

import pytest

from rtkit import STUDIES, definitions, lesson, presets, store
from rtkit.definitions import PACKAGE, code_of, digest, reached


def rows(study: str) -> tuple[str, str]:
    return f"rtkit.measure.{study}", "rows"


@pytest.fixture
def changed(monkeypatch):
    """Change one definition in memory; hashes are made anew."""
    read = definitions._one

    def change(module: str, name: str) -> None:
        monkeypatch.setattr(definitions, "_one", lambda *one: "changed" if one == (module, name) else read(*one))
        definitions.code_of.cache_clear()

    yield change
    definitions.code_of.cache_clear()


def test_one_changed_definition_moves_exactly_the_keys_that_depend_on_it(changed):
    before = {study: code_of(*rows(study)) for study in STUDIES}
    every = sorted(set().union(*(reached(*rows(study)) for study in STUDIES)))
    assert len(every) > 150
    for one in every:
        changed(*one)
        moved = {study for study in STUDIES if code_of(*rows(study)) != before[study]}
        assert moved == {study for study in STUDIES if one in reached(*rows(study))}, one


@pytest.mark.parametrize(
    ("module", "name", "depend"),
    [
        ("rtkit.influence", "influence", {"influence"}),
        ("rtkit.training", "train", set(STUDIES)),
        ("rtkit.measure.students", "trained", {"attack_success", "tradeoff"}),
        ("rtkit.feature_attacks", "attacked", {"attack_success"}),
        ("rtkit.measure.transfer", "Cell", {"transfer", "shape_bias", "influence", "cue_conflict", "new_test_set"}),
        ("rtkit.methods", "lwf", set()),  # what it makes stands in a cell's configuration
        ("rtkit.plots", "lines", set()),
        ("rtkit.frames", "interval", set()),
    ],
)
def test_who_depends_on_what(module, name, depend):
    assert name in definitions._module(module)[0]
    assert {study for study in STUDIES if (module, name) in reached(*rows(study))} == depend


def test_prose_and_places_do_not_count():
    trees = [ast.parse(text) for text in ('"""Says."""\nx = 1\n', '"""Says more."""\n\nx = 1  # why\n', "x = 2\n")]
    assert digest(trees[0]) == digest(trees[1]) != digest(trees[2])


TRACED = """
import sys
from pathlib import Path
from rtkit import lesson, presets
from rtkit.definitions import PACKAGE
from rtkit.measure import {study}
space = lesson.execute(lesson.path("{number}"), {{"preset": "smoke"}}, lesson.GRID)
cells = list(dict.fromkeys(space["cells"](presets.get("smoke"), 0, ())))
seen = set()
def look(frame, event, arg):
    if event == "call" and frame.f_code.co_filename.startswith(str(PACKAGE)):
        seen.add((frame.f_code.co_filename, frame.f_code.co_qualname.split(".")[0]))
sys.setprofile(look)
kinds = {{}}
for cell in cells:
    kinds.setdefault((getattr(cell, "protocol", ""), getattr(cell, "part", ""), cell.target), cell)
for cell in kinds.values():
    list({study}.rows(cell))
sys.setprofile(None)
for file, name in sorted(seen):
    if not name.startswith("<"):
        print(".".join(Path(file).relative_to(PACKAGE.parent).with_suffix("").parts), name)
"""


@pytest.mark.slow
@pytest.mark.parametrize("study", ["transfer", "shape_bias", "influence", "attack_success", "retention", "tradeoff"])
def test_nothing_that_a_cell_calls_is_left_out(study, tmp_path):
    """By running cells: every function of the package that is called stands among those that the key holds."""
    code = TRACED.format(study=study, number=STUDIES[study][0])
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        env={"RTKIT_RUNS": str(tmp_path), "PATH": "/usr/bin"},
    )
    assert done.returncode == 0, done.stderr[-2000:]
    called = {tuple(line.split()) for line in done.stdout.splitlines()}
    assert ("rtkit.training", "train") in called
    aside = {*definitions.IGNORED, "rtkit.presets"}  # what makes a cell, not its rows
    assert not {one for one in called - set(reached(*rows(study))) if one[0] not in aside}


def test_every_module_of_the_package_can_be_read():
    for path in PACKAGE.rglob("*.py"):
        parts = path.relative_to(PACKAGE.parent).with_suffix("").parts
        definitions._module(".".join(part for part in parts if part != "__init__"))
    assert import_module("rtkit.definitions").code(presets.get)
    assert Path(lesson.NOTEBOOKS).is_dir()


# What interpreters have printed in different ways: quotes inside f-strings, nested formats, empty fields, docstrings.
TRICKY = """
def f(x: int = 1, *, y=None) -> str:
    \"\"\"A docstring.\"\"\"
    match x:
        case {"a": [1, *rest], **more}:
            return f"{x!r} {', '.join(rest)} {x:>{y}} {x=}" "tail"
    return u"text", 1e300 * 10, 1_000, 2j, -0.0, ..., rf"\\\\d{x}"
"""


def interpreters() -> list[str]:
    """Other versions of Python on this machine that could run the kit."""
    pyenv = Path.home() / ".pyenv" / "versions"
    found = [shutil.which(f"python3.{minor}") for minor in range(11, 16)]
    found += [str(path) for minor in range(11, 16) for path in sorted(pyenv.glob(f"3.{minor}.*/bin/python"))]
    return [one for one in found if one and not subprocess.run([one, "--version"], capture_output=True).returncode]


def test_a_hash_of_code_is_the_same_for_every_version_of_python():
    """Pinned, so that an interpreter alone can say it differs; and asked of all others that are here."""
    ask = (
        "import ast, sys; sys.path.insert(0, sys.argv[1]); from rtkit import definitions, STUDIES;"
        "print(definitions.digest(ast.parse(sys.stdin.read())))\n"
        "for one in STUDIES: print(definitions.code_of(f'rtkit.measure.{one}', 'rows'))"
    )
    here = [digest(ast.parse(TRICKY)), *(code_of(*rows(study)) for study in STUDIES)]
    assert here[0] == "d6c0d44de7af4a86"
    for python in interpreters():
        options = {"input": TRICKY, "capture_output": True, "encoding": "utf-8"}
        said = subprocess.run([python, "-c", ask, str(store.ROOT)], **options)
        assert said.stdout.split() == here, f"{python}: {said.stderr}"
