"""The report: the executed notebooks and the scorecard as a folder of HTML that needs neither Jupyter nor a network."""

import html
import os
import re
from collections.abc import Mapping
from pathlib import Path

import nbformat
import pandas as pd
from nbconvert import HTMLExporter
from nbconvert.preprocessors import TagRemovePreprocessor
from pygments.formatters import HtmlFormatter
from traitlets.config import Config

from rtkit import PRESETS, claims, lesson, plots, records, runner, say, store


def _page(notebook: nbformat.NotebookNode, title: str, navigation: str, footer: str, contents: bool = True) -> str:
    """One notebook as a page: without explorers (their static figures stand), imports and grids folded."""
    exporter = HTMLExporter(
        template_file="report.html.j2",
        template_name="basic",
        extra_template_basedirs=[str(store.PACKAGE)],
        extra_template_paths=[str(store.PACKAGE)],
        exclude_input_prompt=True,
        exclude_output_prompt=True,
        config=Config(TagRemovePreprocessor={"remove_cell_tags": ["interactive", "parameters", "injected-parameters"]}),
    )
    exporter.register_preprocessor(TagRemovePreprocessor(config=exporter.config), enabled=True)
    style = HtmlFormatter(style="default").get_style_defs(".highlight")
    resources = {"title": title, "navigation": navigation, "pygments": style, "footer": footer}
    resources["contents"] = _contents(notebook) if contents else []
    page = exporter.from_notebook_node(notebook, resources=resources)[0]
    return re.sub(r'href="(\d\d_\w+)\.ipynb', r'href="\1.html', page)


def _contents(notebook: nbformat.NotebookNode) -> list[tuple[str, str]]:
    """(anchor, heading) of each section, as nbconvert names them."""
    text = "\n".join(cell.source for cell in notebook.cells if cell.cell_type == "markdown")
    return [
        (html.escape(found.replace(" ", "-")), html.escape(found)) for found in re.findall(r"^## (.+)$", text, re.M)
    ]


def _navigation(stem: str, titles: Mapping[str, str]) -> str:
    """Links to the page before, the index and the page after, with their titles."""
    order = list(titles)
    at = order.index(stem)
    links = [f'<a href="{order[at - 1]}.html">← {titles[order[at - 1]]}</a>'] if at else []
    links.append('<a href="index.html">report</a>')
    links += [f'<a href="{name}.html">{titles[name]} →</a>' for name in order[at + 1 : at + 2]]
    return " · ".join(links)


def _table(preset: str, pages: Mapping[str, str]) -> str:
    """The scorecard as an HTML table whose claims link to the place in a page that judges them."""
    found = records.scorecard(preset)
    homes = {
        one.claim: name for one in found for name, page in pages.items() if f'id="{claims.anchor(one.claim)}"' in page
    }
    rows = []
    for one in found:
        link = f'<a href="{homes[one.claim]}.html#{claims.anchor(one.claim)}">' if one.claim in homes else ""
        shown = "" if one.effect is None else say.number(records.interval(one), claims.unit_of(one))
        row = {"claim": f"{link}{html.escape(one.claim)}{'</a>' if link else ''}"}
        row |= {"statement": claims.get(one.claim).statement, "the paper": one.paper_effect, "here": shown}
        row = {name: value if name == "claim" else html.escape(value) for name, value in row.items()}
        style = plots.verdict_colour(one.verdict)
        rows.append(row | {"verdict": f'<span style="{style}">{html.escape(say.word(one))}</span>'})
    return pd.DataFrame(rows).to_html(index=False, escape=False, border=0)


def write(preset: str) -> Path:
    """Write the report of a preset under runs/report/; return its index page.

    Raises:
        UsageError: no notebook was executed at this preset, or the folder cannot be written to.
    """
    executed = [store.RUNS / "notebooks" / preset / path.name for path in runner.paths()]
    present = [path for path in executed if path.exists()]
    if not present:
        raise runner.UsageError(f"no notebook has been executed at preset {preset}: rtkit run --preset {preset}")
    folder = runner.writable(store.RUNS / "report" / preset)
    titles = {path.stem: html.escape(lesson.title(lesson.NOTEBOOKS / path.name)) for path in present}
    footer = html.escape(", ".join(f"{name} {value}" for name, value in store.versions().items()))
    pages = {
        path.stem: _page(nbformat.read(path, 4), titles[path.stem], _navigation(path.stem, titles), footer)
        for path in present
    }
    missing = ", ".join(path.stem for path in executed if path not in present)
    parts = [f"# rtkit: what was found at the preset {preset}"]
    parts += ["## Notebooks", "\n".join(f"* [{title}]({stem}.html)" for stem, title in titles.items())]
    parts += [f"Not executed at this preset: {missing}."] if missing else []
    scope = f"The verdicts speak of: {PRESETS[preset]}." if PRESETS[preset] else "This preset judges nothing."
    parts += ["## Scorecard", scope, _table(preset, pages)]
    cell = nbformat.v4.new_markdown_cell("\n\n".join(parts))
    pages["index"] = _page(nbformat.v4.new_notebook(cells=[cell]), f"rtkit: {preset}", "", footer, contents=False)
    for stem, page in pages.items():
        store.write_atomically(folder / f"{stem}.html", page.encode())
    return folder / "index.html"


def main(preset: str) -> int:
    """Write the report and say where it is; return the exit status."""
    index = write(preset)
    print(f"{os.path.relpath(index)} ({runner.megabytes(index.parent.glob('*.html'))}, needs no network)")
    return 0
