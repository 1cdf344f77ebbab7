"""Running notebooks without a browser: which there are, what they take, and each in a process of its own."""

import difflib
import json
import logging
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path

import nbformat
import papermill
import yaml

from rtkit import DRAWN, PRESETS, STUDIES, lesson, protocols, store

PATIENCE = 20  # seconds that an interrupted notebook gets to shut its kernel down


class UsageError(ValueError):
    """A request that makes no sense: the message names the value and what would be valid."""


def nearest(kind: str, word: str, known: Iterable[str]) -> str:
    """Say that no `kind` is called `word`, and which names are valid, the most similar first."""
    known = list(known)
    close = difflib.get_close_matches(word, known, n=3, cutoff=0.5)
    hint = f"did you mean {' or '.join(close)}? " if close else ""
    return f"no {kind} is called {word!r}; {hint}there are: {', '.join(known)}"


def paths(preset: str = "") -> list[Path]:
    """The notebooks, in the order in which they are read; with a preset of real images those that run at it."""
    running = {number for number, presets in STUDIES.values() if preset in presets} | {"07"}
    return [path for path in lesson.paths() if preset in ("", *DRAWN) or path.name[:2] in running]


def find(word: str) -> Path:
    """The notebook that a word names: one of the kit's by its number or name, or by its path that very file.

    Raises:
        UsageError: there is none.
    """
    if word.endswith(".ipynb") or Path(word).name != word:
        file = Path(word).expanduser().absolute()
        if not file.is_file():
            raise UsageError(f"there is no file {word}; the kit's notebooks go by number or name alone, such as 01")
        return next((path for path in paths() if path.exists() and path.samefile(file)), file)
    for path in paths():
        if word in (path.stem, path.stem.partition("_")[0]):
            return path
    raise UsageError(nearest("notebook", word, [path.stem for path in paths()]))


def _verbatim(path: Path) -> str:
    return str(path).replace("{", "{{").replace("}", "}}")  # papermill takes paths for templates


def parameters(path: Path) -> dict[str, dict]:
    """What a notebook takes, by name: papermill's `inferred_type_name`, `default` and `help`.

    Raises:
        UsageError: the file is no notebook.
    """
    try:
        return papermill.inspect_notebook(_verbatim(path))
    except Exception as error:  # papermill and what it stands on raise nearly anything where a file is no notebook
        raise UsageError(f"{path} cannot be read as a notebook: {type(error).__name__}: {error}") from error


_TYPES = {"int": int, "float": (int, float), "bool": bool, "str": str, "dict": dict}


def _fits(value, kind: str) -> bool:
    return kind not in _TYPES or (isinstance(value, _TYPES[kind]) and isinstance(value, bool) == (kind == "bool"))


def _parse(name: str, text: str, kind: str) -> object:
    """Read the text of a parameter as the type that its notebook names, such as "str" or "list[int]"."""
    outer, _, inner = kind.removesuffix("]").partition("[")
    try:  # a bare word for a list of words stays one, whatever else YAML would make of it
        word = outer == "str" or (inner == "str" and re.fullmatch(r"[\w.-]+", text))
        value = text if word else yaml.safe_load(text)
    except yaml.YAMLError:
        value = text
    many = [value] if word or (inner != "str" and not isinstance(value, list)) else value  # one means a list of one
    if outer != "list" and _fits(value, outer):
        return value
    if outer == "list" and isinstance(many, list) and all(_fits(member, inner) for member in many):
        return many
    raise UsageError(f"parameter {name} must be of type {kind}, got {text!r}")


def assign(notebooks: list[Path], given: Mapping[str, str], default: Mapping[str, str] = {}) -> list[dict]:
    """Give every notebook those of the parameters that it takes, read as the types that it names.

    Papermill itself only warns about a parameter that no cell uses, so they are looked up first.

    Args:
        default: values of parameters that are not given, for notebooks that take them.

    Raises:
        UsageError: no notebook takes a parameter, or a value is of another type.
    """
    known = [parameters(path) for path in notebooks]
    for name in given:
        if not any(name in takes for takes in known):
            raise UsageError(nearest("parameter", name, sorted({name for takes in known for name in takes})))
    every = {**default, **given}
    return [
        {name: _parse(name, text, takes[name]["inferred_type_name"]) for name, text in every.items() if name in takes}
        for takes in known
    ]


def writable(folder: Path) -> Path:
    """Make a folder under runs/ and return it.

    Raises:
        UsageError: it cannot be written to.
    """
    try:
        store.write_atomically(folder / ".writable", b"")
        (folder / ".writable").unlink(missing_ok=True)  # another process may have looked at the same time
    except OSError as error:
        raise UsageError(error.strerror) from error
    return folder


def megabytes(paths: Iterable[Path]) -> str:
    """How large some files are."""
    return f"{sum(path.stat().st_size for path in paths) / 1e6:.1f} MB"


def _copy(path: Path, preset: str) -> Path:
    """Where the executed copy of a notebook goes: one of the kit's by its name, one's own by its whole path."""
    folder, own = store.RUNS / "notebooks" / preset, path.resolve()
    return folder / (path.name if path in lesson.paths() else Path("own", own.relative_to(own.anchor)))


def _execute(path: Path, out: Path, values: dict) -> int:
    """Execute one notebook in a process of its own; return its exit status."""
    command = [sys.executable, "-m", "rtkit.runner", str(path), str(out), json.dumps(values)]
    # Modules in the working folder, and in the notebook's, must not stand for the library's: see `_child`.
    environment = os.environ | {"PYTHONSAFEPATH": "1", "RTKIT_RUNS": str(store.RUNS)}
    # A session of its own keeps the terminal's Ctrl-C from it, so that it hears of it once, and from us.
    process = subprocess.Popen(command, start_new_session=True, env=environment)
    try:
        return process.wait()
    except KeyboardInterrupt:
        process.send_signal(signal.SIGINT)
        try:
            process.wait(PATIENCE)
        except subprocess.TimeoutExpired:
            process.kill()
        raise


def run(notebooks: list[Path], given: Mapping[str, str], preset: str = "glyphs", first: bool = False) -> int:
    """Execute notebooks, keep the executed copies under runs/, and return the exit status: 1 where one failed.

    Each runs in a process of its own. One that fails leaves how far it came, with the traceback, as
    NAME.unfinished.ipynb beside the copy that was executed to its end, if there is one, and the others go on.

    Args:
        given: parameters by name, as text.
        preset: for notebooks that take one, where none is given.
        first: run only the first replicate of each, unless seeds are given.

    Raises:
        UsageError: see `assign` and `writable`.
    """
    preset = given.get("preset", preset)
    values = assign(notebooks, given, {"preset": preset})
    for path, chosen in zip(notebooks, values, strict=True):
        if first and "seeds" in parameters(path):
            chosen.setdefault("seeds", protocols.first(path.stem[:2], preset))
    outs = [_copy(path, preset) for path in notebooks]
    folders = [os.path.relpath(writable(folder)) for folder in dict.fromkeys(out.parent for out in outs)]
    failed = []
    for path, out, chosen in zip(notebooks, outs, values, strict=True):
        print(f"{path.stem}: {', '.join(f'{name} {value}' for name, value in chosen.items())}", file=sys.stderr)
        if _execute(path, out, chosen):
            failed.append(path.stem)
    print(f"executed notebooks: {', '.join(folders)}")
    if failed:
        print(f"failed: {', '.join(failed)}; NAME.unfinished.ipynb there holds the traceback", file=sys.stderr)
    return 1 if failed else 0


def print_scorecard(preset: str, as_json: bool = False) -> None:
    """Print every claim at a preset: the verdict of the reader's own run, else the kit's, or why there is none."""
    from rtkit import claims, records

    found = records.scorecard(preset)
    if as_json:
        print(json.dumps([verdict.to_dict() for verdict in found], indent=1, allow_nan=False))
    else:
        speaks = f"at the preset {preset}, which speaks of: {PRESETS[preset] or 'nothing'}"
        print(f"{speaks}; of your own runs with the kit's knobs, else the kit's\n\n{claims.text(found)}")


def _child(path: Path, out: Path, values: dict) -> int:
    unfinished = out.with_suffix(".unfinished.ipynb")
    # A reader's own modules beside the notebook can be imported, after those of the library.
    last = "__import__('os').environ.pop('PYTHONSAFEPATH', 0), __import__('sys').path.append('')"
    options = {"cwd": path.parent, "stderr_file": sys.stderr}
    options["extra_arguments"] = ["--InteractiveShellApp.ignore_cwd=True", f"--IPKernelApp.exec_lines={last}"]
    try:
        done = papermill.execute_notebook(_verbatim(path), _verbatim(unfinished), values, **options)
        store.write_atomically(out, nbformat.writes(done).encode())
        unfinished.unlink(missing_ok=True)
    except papermill.PapermillExecutionError as error:
        print(f"{path.stem} failed in cell {error.exec_count}: {error.ename}: {error.evalue}", file=sys.stderr)
        return 1
    except (KeyboardInterrupt, RuntimeError, OSError) as error:  # by Ctrl-C, or for want of memory or room on the disk
        logging.getLogger("asyncio").setLevel(logging.CRITICAL)  # it would tell of tasks that were cut short
        print(f"{path.stem} stopped: {str(error) or 'interrupted'}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(_child(Path(sys.argv[1]), Path(sys.argv[2]), json.loads(sys.argv[3])))
