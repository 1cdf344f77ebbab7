"""The report: the executed notebooks and the scorecard as a folder of HTML that needs neither Jupyter nor a network."""

import html
import os
from pathlib import Path

import nbformat
from nbconvert import HTMLExporter
from nbconvert.preprocessors import TagRemovePreprocessor
from pygments.formatters import HtmlFormatter
from traitlets.config import Config

from rtkit import PRESETS, claims, lesson, plots, records, runner, store


def _page(notebook: nbformat.NotebookNode, title: str, navigation: str) -> str:
    """One notebook as a page: explorers removed (their static figures stand), code folded, images inside."""
    exporter = HTMLExporter(
        template_file="report.html.j2",
        template_name="basic",
        extra_template_basedirs=[str(store.PACKAGE)],
        extra_template_paths=[str(store.PACKAGE)],
        exclude_input_prompt=True,
        exclude_output_prompt=True,
        config=Config(TagRemovePreprocessor={"remove_cell_tags": ["interactive", "parameters"]}),
    )
    exporter.register_preprocessor(TagRemovePreprocessor(config=exporter.config), enabled=True)
    style = HtmlFormatter(style="default").get_style_defs(".highlight")
    resources = {"title": title, "navigation": navigation, "pygments": style}
    return exporter.from_notebook_node(notebook, resources=resources)[0]


def _table(preset: str, pages: dict[str, str]) -> str:
    """The scorecard as an HTML table whose claims link to the place in a page that judges them."""
    found = records.scorecard(preset)
    card = claims.table(found).reset_index()
    card = card.map(lambda value: html.escape(str(value)))
    homes = {
        claim: name for name, page in pages.items() for claim in card.claim if f'id="{claims.anchor(claim)}"' in page
    }
    links = {claim: f'<a href="{name}.html#{claims.anchor(claim)}">{claim}</a>' for claim, name in homes.items()}
    card["claim"] = [links.get(claim, claim) for claim in card.claim]
    card["verdict"] = [f'<span style="{plots.verdict_colour(word)}">{word}</span>' for word in card.verdict]
    card["statement"] = [html.escape(claims.get(verdict.claim).statement) for verdict in found]
    columns = ["claim", "statement", "paper", "ours", "unit", "verdict", "reason"]
    return card[columns].to_html(index=False, escape=False, border=0)


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
    titles = {path.stem: html.escape(lesson.title(path)) for path in present}
    navigation = " · ".join(
        ['<a href="index.html">report</a>', *(f'<a href="{stem}.html">{stem[:2]}</a>' for stem in titles)]
    )
    pages = {path.stem: _page(nbformat.read(path, 4), titles[path.stem], navigation) for path in present}
    scope = f"Its verdicts speak of: {PRESETS[preset]}." if PRESETS[preset] else "This preset judges nothing."
    missing = ", ".join(path.stem for path in executed if path not in present)
    facts = ", ".join(f"{name} {value}" for name, value in store.versions().items())
    parts = [f"# rtkit: report at preset {preset}", scope, f"*{facts}*", "## Notebooks"]
    parts += ["\n".join(f"* [{title}]({stem}.html)" for stem, title in titles.items())]
    parts += [f"Not executed at this preset: {missing}."] if missing else []
    parts += ["## Scorecard", _table(preset, pages)]
    cell = nbformat.v4.new_markdown_cell("\n\n".join(parts))
    pages["index"] = _page(nbformat.v4.new_notebook(cells=[cell]), f"rtkit: {preset}", navigation)
    for stem, page in pages.items():
        store.write_atomically(folder / f"{stem}.html", page.encode())
    return folder / "index.html"


def main(preset: str) -> int:
    """Write the report and say where it is; return the exit status."""
    index = write(preset)
    size = sum(path.stat().st_size for path in index.parent.glob("*.html"))
    print(f"{os.path.relpath(index)} ({size / 1e6:.1f} MB, needs no network)")
    return 0
