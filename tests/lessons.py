"""Notebooks in tests: their studies, and their pages read without a kernel, on frames of our choosing."""

import ast
import contextlib
import io
from unittest import mock

import pandas as pd
from IPython.display import Markdown
from pandas.io.formats.style import Styler

from rtkit import experiment, lesson, plots, records


@contextlib.contextmanager
def given(frames: dict[str, pd.DataFrame]):
    """Let notebooks meet these frames, by study, in place of those that they would compute or read at any preset."""
    run, frame = experiment.run, records.frame

    def chosen(rows, cells, preset, *args, **options):
        study = rows.__module__.rpartition(".")[2]
        return frames[study] if study in frames else run(rows, cells, preset, *args, **options)

    def kept(study, preset, *args):
        found = frames.get(study)
        return found if found is not None and found.attrs["preset"] == preset else frame(study, preset, *args)

    with mock.patch.object(experiment, "run", chosen), mock.patch.object(records, "frame", kept):
        yield


def study(number: str, frames: dict[str, pd.DataFrame] | None = None, **values) -> dict:
    """What the cells of a notebook define that its study needs, on given frames, else on the kit's."""
    with given(frames or {}):
        return lesson.execute(lesson.path(number), {"run": "kit"} | values)


def swapped(frame: pd.DataFrame, column: str, one, other, *more: str) -> pd.DataFrame:
    """The frame with two arms exchanged: each has the other's values, and keeps its own name and the columns `more`."""
    names = frame[column].map({one: other, other: one}).fillna(frame[column])
    found = frame.assign(**{column: names})
    for name in more:  # what belongs to the name, such as the radius of a robust source
        home = frame.drop_duplicates(column).set_index(column)[name]
        there = frame[column].isin([one, other])
        found[name] = frame[name].mask(there, names.map(home))
    found.attrs = frame.attrs
    return found


def read(number: str, frames: dict[str, pd.DataFrame] | None = None, skip=("interactive",), **values) -> str:
    """All that a notebook prints, says and shows in words, its cells executed in order in this process."""
    said, space = [], {"__name__": "notebook"}

    def text(shown):
        if isinstance(shown, Markdown):
            return shown.data
        return shown.to_html() if isinstance(shown, Styler) else repr(shown)

    def show(*shown, **_):
        said.extend(map(text, shown))

    with given(frames or {}), mock.patch.object(plots, "display", show):
        for kind, tags, source in lesson.cells(lesson.path(number)):
            if kind != "code" or tags & set(skip):
                continue
            tree, out = ast.parse(source), io.StringIO()
            last = (
                tree.body.pop() if isinstance(tree.body[-1], ast.Expr) and not source.rstrip().endswith(";") else None
            )
            with contextlib.redirect_stdout(out):
                exec(compile(tree, number, "exec"), space)
                if last:
                    value = eval(compile(ast.Expression(last.value), number, "eval"), space)
                    show(*([] if value is None else [value]))
            said.append(out.getvalue())
            if "parameters" in tags:
                space |= {"run": "kit"} | values
    return "\n".join(said)


def explorer(number: str, word: str, **names):
    """The explorer of the one cell of a notebook that contains a word, on networks or heads of our choosing."""
    space = lesson.execute(lesson.path(number), {}, ("parameters", "plumbing")) | names
    (cell,) = [text for _, tags, text in lesson.cells(lesson.path(number)) if "interactive" in tags and word in text]
    *body, last = ast.parse(cell).body
    exec(compile(ast.Module(body, []), number, "exec"), space)
    return eval(compile(ast.Expression(last.value), number, "eval"), space)
