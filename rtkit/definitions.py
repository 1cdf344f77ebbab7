"""The code behind a function: a hash of the definitions of this package that it refers to, however indirectly.

Cache keys hold it, so that another grid, effect, figure or sentence retires nothing, and a changed training loop all
that was trained by it. What only keeps and runs things (`IGNORED`) decides no number and is left out.
"""

import ast
import hashlib
import json
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path

PACKAGE = Path(__file__).parent
IGNORED = ("rtkit", "rtkit.store", "rtkit.definitions")


def plain(node) -> object:
    """A syntax tree as nested lists, without docstrings and places: the same for every version of Python."""
    if isinstance(node, list):
        return [plain(member) for member in node]
    if not isinstance(node, ast.AST):
        return repr(node)
    fields = {name: value for name, value in ast.iter_fields(node) if value not in (None, []) and name != "kind"}
    body = fields.get("body")
    first = body[0] if isinstance(body, list) else None
    if isinstance(first, ast.Expr) and isinstance(first.value, ast.Constant) and isinstance(first.value.value, str):
        fields["body"] = body[1:]
    if isinstance(node, ast.JoinedStr):  # Python 3.12 alone ends a nested format with an empty text
        fields["values"] = [part for part in node.values if getattr(part, "value", None) != ""]
    return [type(node).__name__, *([name, plain(value)] for name, value in sorted(fields.items()))]


def digest(*trees) -> str:
    """A short hash of syntax trees."""
    return hashlib.sha256(json.dumps(plain(list(trees))).encode()).hexdigest()[:16]


def _path(module: str) -> Path | None:
    base = PACKAGE.parent.joinpath(*module.split("."))
    return next((path for path in (base.with_suffix(".py"), base / "__init__.py") if path.is_file()), None)


def imported(tree: ast.AST) -> dict[str, tuple[str, str]]:
    """What the package's names in import statements stand for: (module, name), the name "" for a whole module."""
    found = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.module and node.module.partition(".")[0] == "rtkit":
            for alias in node.names:
                whole = f"{node.module}.{alias.name}"
                found[alias.asname or alias.name] = (whole, "") if _path(whole) else (node.module, alias.name)
    return found


@cache
def _module(name: str) -> tuple[dict[str, list[ast.stmt]], dict[str, tuple[str, str]]]:
    """The definitions of a module by name, statements that define nothing under "", and what it imports."""
    tree, found = ast.parse(_path(name).read_bytes()), {}
    for node in tree.body:
        names = [node.name] if isinstance(node, ast.FunctionDef | ast.ClassDef) else [""]
        if isinstance(node, ast.Assign | ast.AnnAssign | ast.AugAssign):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            names = [part.id for target in targets for part in ast.walk(target) if isinstance(part, ast.Name)]
        docstring = isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)
        for name in [] if isinstance(node, ast.Import | ast.ImportFrom) or docstring else names:
            found.setdefault(name, []).append(node)
    return found, imported(tree)


def _references(module: str, name: str) -> Iterator[tuple[str, str]]:
    known, imported = _module(module)
    for node in (part for one in known.get(name, []) for part in ast.walk(one)):
        if isinstance(node, ast.Name):
            if node.id in known:
                yield module, node.id
            elif imported.get(node.id, ("", ""))[1]:
                yield imported[node.id]
        elif isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
            home, whole = imported.get(node.value.id, ("", " "))
            if not whole:
                yield home, node.attr


@cache
def reached(module: str, name: str) -> tuple[tuple[str, str], ...]:
    """All definitions that one refers to, itself included, as sorted (module, name)."""
    todo, seen = [(module, name)], set()
    while todo:
        one = todo.pop()
        if one in seen or one[0] in IGNORED or one[1] not in _module(one[0])[0]:
            continue
        seen.add(one)
        todo += [(one[0], ""), *_references(*one)]
    return tuple(sorted(seen))


@cache
def _one(module: str, name: str) -> str:
    return digest(*_module(module)[0][name])


@cache
def code_of(module: str, name: str) -> str:
    """`code` of a function that need not be imported."""
    parts = [f"{where}.{what} {_one(where, what)}" for where, what in reached(module, name)]
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:16]


def code(function: Callable) -> str:
    """A hash of the code behind a function or class of this package."""
    return code_of(function.__module__, function.__qualname__.partition(".")[0])
