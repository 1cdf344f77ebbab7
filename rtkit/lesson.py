"""Notebooks as data: where they are, what their cells are for, and executing those that a study needs without Jupyter.

Cells are tagged: `parameters`, `plumbing` (imports), `grid` (what is compared), `run` (the cells are computed),
`effect` (what is read off the frame and judged), `photos-grid` and `photos-effect` (the same of photographs, registered
apart), `interactive`. Figures, sentences and cards have no tag.
"""

import ast
import json
import re
from functools import cache
from pathlib import Path

import rtkit
from rtkit import definitions, store

NOTEBOOKS = store.ROOT / "notebooks"
GRID = ("parameters", "plumbing", "grid", "photos-grid")
STUDY = (*GRID, "run", "effect", "photos-effect")


def paths() -> list[Path]:
    """The notebooks of the kit, in the order in which they are read."""
    return [NOTEBOOKS / f"{name}.ipynb" for name in rtkit.NOTEBOOKS]


def path(number: str) -> Path:
    """The notebook of a number, such as "01"."""
    return next(path for path in paths() if path.name.startswith(f"{number}_"))


@cache
def cells(where: Path) -> tuple[tuple[str, frozenset[str], str], ...]:
    """The cells of a notebook: (type, tags, source)."""
    found = json.loads(where.read_text(encoding="utf-8"))["cells"]
    return tuple(
        (cell["cell_type"], frozenset(cell["metadata"].get("tags", ())), "".join(cell["source"])) for cell in found
    )


def title(where: Path) -> str:
    """The heading of a notebook."""
    return re.search(r"^# (.+)$", cells(where)[0][2], re.MULTILINE)[1]


def execute(where: Path, values: dict | None = None, tags: tuple[str, ...] = STUDY) -> dict:
    """Execute those code cells of a notebook that have one of the tags, without a kernel; return what they define.

    Args:
        values: of parameters, in place of those that stand there.
    """
    space = {"__name__": "notebook"}
    for number, (kind, marks, source) in enumerate(cells(where)):
        if kind == "code" and marks & set(tags):
            exec(compile(source, f"{where.name}, cell {number}", "exec"), space)
            space |= (values or {}) if "parameters" in marks else {}
    return space


@cache
def reading(number: str) -> str:
    """A hash of what a notebook compares and reads off it.

    It is made of the syntax of its cells `grid`, `run` and `effect`, and of the code that these refer to in what reads:
    what computes has a hash of its own (`experiment.run`).
    """
    code = [(marks, source) for kind, marks, source in cells(path(number)) if kind == "code"]
    trees = [ast.parse(source) for marks, source in code if marks & {"grid", "run", "effect"}]
    names = definitions.imported(ast.parse("\n".join(source for marks, source in code if "plumbing" in marks)))
    words = {node.id for tree in trees for node in ast.walk(tree) if isinstance(node, ast.Name)}
    used = sorted(names[word] for word in words & set(names) if names[word][0] in ("rtkit.frames", "rtkit.judge"))
    return definitions.digest(*trees) + "".join(definitions.code_of(*one) for one in used if one[1])


def photographs(number: str) -> str:
    """A hash of the syntax of the cells by which a notebook compares and judges photographs, beside `reading`."""
    code = [(marks, source) for kind, marks, source in cells(path(number)) if kind == "code"]
    return definitions.digest(
        *(ast.parse(source) for marks, source in code if marks & {"photos-grid", "photos-effect"})
    )
