"""The report is whole, readable offline, and leaves the explorers out."""

from html.parser import HTMLParser

import nbformat
import pytest

from rtkit import report, runner, store

PIXEL = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="


class Page(HTMLParser):
    """What a page fetches, and the alternative texts of its images."""

    def __init__(self, text: str):
        super().__init__()
        self.fetched, self.alt, self.links, self.closed = [], [], [], []
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        given = dict(attributes)
        if tag == "a":
            self.links.append(given.get("href", ""))
        elif tag == "img":
            self.alt.append(given.get("alt"))
        elif tag == "details":
            self.closed.append("open" not in given)
        self.fetched += [
            value for name, value in attributes if name in ("src", "data") and not value.startswith("data:")
        ]
        self.fetched += [given["href"]] if tag == "link" else []


@pytest.fixture
def pages(tmp_path, monkeypatch) -> dict[str, str]:
    monkeypatch.setattr(store, "RUNS", tmp_path / "runs")
    cell, output = nbformat.v4.new_code_cell, nbformat.v4.new_output
    figure = output("display_data", {"image/png": PIXEL}, metadata={"image/png": {"alt": "A curve that rises."}})
    bar = output("stream", name="stderr", text="sources: 100%|####|")
    verdict = output("execute_result", {"text/markdown": '<a id="U-C1"></a>**U-C1** holds.'}, execution_count=1)
    cells = [
        nbformat.v4.new_markdown_cell("# 01 · A title"),
        cell("import secret_module", metadata={"tags": ["plumbing"]}),
        nbformat.v4.new_markdown_cell("## 1. A section\n\n[Next](00_start_here.ipynb#Glossary)"),
        cell("open_code = 1", metadata={"tags": ["effect"]}, outputs=[figure, bar, verdict]),
        nbformat.v4.new_markdown_cell("Move the slider", metadata={"tags": ["interactive"]}),
        cell(
            "explorer()", metadata={"tags": ["interactive"]}, outputs=[output("display_data", {"text/plain": "VBox"})]
        ),
    ]
    path = tmp_path / "runs" / "notebooks" / "smoke" / "01_robust_features_transfer.ipynb"
    path.parent.mkdir(parents=True)
    nbformat.write(nbformat.v4.new_notebook(cells=cells), path)
    for other in ("02_shape_bias.unfinished.ipynb", "own/02_shape_bias.ipynb"):  # neither was executed to its end
        path.with_name("own").mkdir(exist_ok=True)
        nbformat.write(nbformat.v4.new_notebook(cells=cells), path.parent / other)
    index = report.write("smoke")
    return {path.stem: path.read_text() for path in index.parent.iterdir()}


def test_pages_fetch_nothing_and_say_what_figures_show(pages):
    assert set(pages) == {"index", "01_robust_features_transfer"}
    for text in pages.values():
        assert Page(text).fetched == []
        assert "@import" not in text
        assert "url(" not in text
    assert Page(pages["01_robust_features_transfer"]).alt == ["A curve that rises."]


def test_imports_are_folded_effects_open_explorers_and_progress_bars_gone(pages):
    text = pages["01_robust_features_transfer"]
    assert Page(text).closed == [False, True]  # the contents, and the imports
    folded = text.partition('<details class="code">')[2].partition("</details>")[0]
    assert "secret_module" in folded
    assert "open_code" in text
    assert "open_code" not in folded
    for gone in ("Move the slider", "explorer", "VBox", "sources: 100"):
        assert gone not in text


def test_a_page_has_contents_and_links_to_pages(pages):
    page = Page(pages["01_robust_features_transfer"])
    assert "#1.-A-section" in page.links
    assert 'id="1.-A-section"' in pages["01_robust_features_transfer"]
    assert "00_start_here.html#Glossary" in page.links
    assert "index.html" in page.links


def test_the_scorecard_links_to_where_a_claim_is_judged(pages):
    links = Page(pages["index"]).links
    assert "01_robust_features_transfer.html#U-C1" in links
    assert "01_robust_features_transfer.html" in links
    assert all(link.split("#")[0].removesuffix(".html") in pages for link in links if not link.startswith("#"))
    assert 'id="U-C1"' in pages["01_robust_features_transfer"]
    assert "00_start_here" in pages["index"]  # said to be missing


def test_without_executed_notebooks_it_says_what_to_do(tmp_path, monkeypatch):
    monkeypatch.setattr(store, "RUNS", tmp_path)
    with pytest.raises(runner.UsageError, match="rtkit run --preset glyphs"):
        report.write("glyphs")
