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
        cell("secret_code = 1", outputs=[figure, bar, verdict]),
        nbformat.v4.new_markdown_cell("Move the slider", metadata={"tags": ["interactive"]}),
        cell(
            "explorer()", metadata={"tags": ["interactive"]}, outputs=[output("display_data", {"text/plain": "VBox"})]
        ),
    ]
    path = tmp_path / "runs" / "notebooks" / "smoke" / "01_robust_features_transfer.ipynb"
    path.parent.mkdir(parents=True)
    nbformat.write(nbformat.v4.new_notebook(cells=cells), path)
    index = report.write("smoke")
    return {path.stem: path.read_text() for path in index.parent.iterdir()}


def test_pages_fetch_nothing_and_say_what_figures_show(pages):
    assert set(pages) == {"index", "01_robust_features_transfer"}
    for text in pages.values():
        assert Page(text).fetched == []
        assert "@import" not in text
        assert "url(" not in text
    assert Page(pages["01_robust_features_transfer"]).alt == ["A curve that rises."]


def test_code_is_folded_explorers_and_progress_bars_are_gone(pages):
    text = pages["01_robust_features_transfer"]
    assert Page(text).closed == [True]
    assert "secret_code" in text
    for gone in ("Move the slider", "explorer", "VBox", "sources: 100"):
        assert gone not in text


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
