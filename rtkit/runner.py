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

import papermill
import yaml

from rtkit import DRAWN, STUDIES, lesson, store

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
    """The notebook that a word names: its number, its name, or its file.

    Raises:
        UsageError: there is none.
    """
    name = Path(word).name.removesuffix(".ipynb")
    for path in paths():
        if name in (path.stem, path.stem.partition("_")[0]):
            return path
    raise UsageError(nearest("notebook", word, [path.stem for path in paths()]))


def parameters(path: Path) -> dict[str, dict]:
    """What a notebook takes, by name: papermill's `inferred_type_name`, `default` and `help`."""
    return papermill.inspect_notebook(str(path))


def _parse(name: str, text: str, kind: str) -> object:
    """Read the text of a parameter as the type that its notebook names, such as "str" or "list[int]"."""
    if kind == "str":
        return text
    try:
        value = yaml.safe_load(text)
    except yaml.YAMLError:
        value = text
    if kind == "list[str]" and re.fullmatch(r"[\w.-]+", text):
        return [text]  # a bare word, whatever else YAML would make of it
    outer, inner = re.fullmatch(r"(\w+)(?:\[(\w+)\])?", kind).groups()
    types = {"int": int, "float": (int, float), "bool": bool, "list": list, "str": str, "dict": dict}

    def fits(value, kind: str | None) -> bool:
        if kind not in types:
            return True
        return isinstance(value, types[kind]) and (kind == "bool" or not isinstance(value, bool))

    if fits(value, outer) and (outer != "list" or all(fits(member, inner) for member in value)):
        return value
    raise UsageError(f"parameter {name} must be of type {kind}, got {text!r}")


def assign(notebooks: list[Path], given: Mapping[str, str]) -> list[dict]:
    """Give every notebook those of the parameters that it takes, read as the types that it names.

    Papermill itself only warns about a parameter that no cell uses, so they are looked up first.

    Raises:
        UsageError: no notebook takes a parameter, or a value is of another type.
    """
    known = [parameters(path) for path in notebooks]
    for name in given:
        if not any(name in takes for takes in known):
            raise UsageError(nearest("parameter", name, sorted({name for takes in known for name in takes})))
    return [
        {name: _parse(name, text, takes[name]["inferred_type_name"]) for name, text in given.items() if name in takes}
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
        raise UsageError(f"cannot write to {folder}: {error.strerror}; set RTKIT_RUNS to a folder of yours") from error
    return folder


def _execute(path: Path, out: Path, values: dict) -> int:
    """Execute one notebook in a process of its own; return its exit status."""
    command = [sys.executable, "-m", "rtkit.runner", str(path), str(out), json.dumps(values)]
    # A session of its own keeps the terminal's Ctrl-C from it, so that it hears of it once, and from us.
    process = subprocess.Popen(command, start_new_session=True)
    try:
        return process.wait()
    except KeyboardInterrupt:
        process.send_signal(signal.SIGINT)
        try:
            process.wait(PATIENCE)
        except subprocess.TimeoutExpired:
            process.kill()
        raise


def run(notebooks: list[Path], given: Mapping[str, str]) -> int:
    """Execute notebooks, keep the executed copies under runs/, and return the exit status: 1 where one failed.

    Each runs in a process of its own. One that fails keeps its partly executed copy, with the traceback, and the
    others go on.

    Args:
        given: parameters by name, as text; `preset` among them.

    Raises:
        UsageError: see `assign` and `writable`.
    """
    values = assign(notebooks, given)
    folder = writable(store.RUNS / "notebooks" / given["preset"])
    failed = []
    for path, chosen in zip(notebooks, values, strict=True):
        print(f"{path.stem}: {', '.join(f'{name} {value}' for name, value in chosen.items())}", file=sys.stderr)
        if _execute(path, folder / path.name, chosen):
            failed.append(path.stem)
    print(f"executed notebooks: {os.path.relpath(folder)}")
    if failed:
        print(f"failed: {', '.join(failed)}; the copies there hold the tracebacks", file=sys.stderr)
    return 1 if failed else 0


def print_scorecard(preset: str, as_json: bool = False) -> None:
    """Print every claim at a preset: the verdict of the reader's own run, else the kit's, or why there is none."""
    from rtkit import claims, records

    found = records.scorecard(preset)
    if as_json:
        print(json.dumps([verdict.to_dict() for verdict in found], indent=1, ensure_ascii=False, allow_nan=False))
    else:
        print(claims.table(found).to_string(max_colwidth=60))


def _child(path: str, out: str, values: str) -> int:
    try:
        papermill.execute_notebook(path, out, json.loads(values), cwd=Path(path).parent, stderr_file=sys.stderr)
    except papermill.PapermillExecutionError as error:
        print(f"{Path(path).stem} failed in cell {error.exec_count}: {error.ename}: {error.evalue}", file=sys.stderr)
        return 1
    except (KeyboardInterrupt, RuntimeError) as error:  # a kernel that died, by Ctrl-C or for want of memory
        logging.getLogger("asyncio").setLevel(logging.CRITICAL)  # it would tell of tasks that were cut short
        print(f"{Path(path).stem} stopped: {str(error) or 'interrupted'}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(_child(*sys.argv[1:]))
