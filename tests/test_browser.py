"""Notebooks in JupyterLab, driven in a real browser: every cell runs, and the explorers answer, sliders by keyboard."""

import json
import os
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from contextlib import contextmanager, suppress

import nbformat
import papermill
import pytest

from rtkit import runner

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
playwright = pytest.importorskip("playwright.sync_api", reason="needs playwright")
pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(CHROMIUM is None, reason="needs Chromium (Debian: apt-get install chromium)"),
]
TOKEN = "a-token-for-this-test-only"
# What a browser would otherwise do of its own accord: talk to the outside.
QUIET = ("--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking", "--disable-sync")
# Every cell is in the page, so that what is looked for can be found.
SETTINGS = {"notebook-extension/tracker": {"windowingMode": "none"}}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("lab")


@pytest.fixture(scope="module")
def lab(folder):
    """A JupyterLab server on loopback; yields its address."""
    for name, values in SETTINGS.items():
        path = folder / "settings" / "@jupyterlab" / f"{name}.jupyterlab-settings"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(values))
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "jupyterlab", "--ip=127.0.0.1", f"--port={port}", "--no-browser", "--allow-root"]
    command += [f"--ServerApp.root_dir={folder}", f"--IdentityProvider.token={TOKEN}"]
    environment = {"JUPYTERLAB_SETTINGS_DIR": str(folder / "settings"), "RTKIT_RUNS": str(folder / "runs")}
    with (folder / "lab.log").open("w") as log:
        process = subprocess.Popen(command, env=os.environ | environment, stdout=log, stderr=subprocess.STDOUT)
        address = f"http://127.0.0.1:{port}"
        try:
            for _ in range(60):
                try:
                    urllib.request.urlopen(f"{address}/api?token={TOKEN}").close()
                    break
                except OSError:
                    time.sleep(0.5)
            yield address
        finally:
            process.terminate()
            process.wait(30)


@pytest.fixture(scope="module")
def browser():
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=CHROMIUM, args=list(QUIET))
        yield browser
        browser.close()


def answers(page, box) -> bool:
    """Whether one of an explorer's sliders, moved by the arrow keys, changes its sentence and its figure."""
    sentence, figure = box.locator(".widget-html-content p"), box.locator("img.widget-image")
    box.scroll_into_view_if_needed()
    for handle in box.locator(".noUi-handle").all():
        assert handle.get_attribute("aria-label"), "a slider without a name for those who hear it"
        before = sentence.inner_text(), figure.get_attribute("src")
        handle.focus()
        page.keyboard.press("ArrowRight")
        for _ in range(40):
            if sentence.inner_text() != before[0] and figure.get_attribute("src") != before[1]:
                box.get_by_role("button", name="reset").press("Space")  # back to the start, by keyboard
                for _ in range(40):
                    if sentence.inner_text() == before[0]:
                        return True
                    time.sleep(0.25)
                return False
            time.sleep(0.25)
        page.keyboard.press("ArrowLeft")
    return False


def plays(page, box) -> bool:
    """Whether a player, started and stopped by the space bar, moves the explorer's sentence."""
    sentence, (play, stop) = box.locator(".widget-html-content p"), box.locator(".widget-play button:visible").all()
    assert play.get_attribute("title").startswith("play"), "a button without a name for those who hear it"
    before = sentence.inner_text()
    play.press("Space")
    for _ in range(40):
        if sentence.inner_text() != before:
            stop.press("Space")
            return True
        time.sleep(0.25)
    return False


# Every kind of explorer: those that ask networks, toys, frames of a study, claims. That every notebook runs from
# top to bottom is test_notebooks' to say. At smoke, where sweeps have a single setting, some have nothing to move to.
EXPLORERS = {"00": 3, "03": 2, "04": 1, "07": 2}  # at least so many must answer


@contextmanager
def opened(number: str, preset: str, folder, lab, browser):
    """A notebook in JupyterLab, all of its cells run; nothing was asked, nothing failed, nothing is complained of."""
    notebook = runner.find(number)
    copy = folder / notebook.name
    papermill.execute_notebook(notebook, copy, {"preset": preset}, prepare_only=True, progress_bar=False)
    page = browser.new_page(viewport={"width": 1280, "height": 800})
    page.set_default_timeout(60_000)
    said = []
    page.on("console", lambda message: said.append(message.text) if message.type == "error" else None)
    page.on("pageerror", lambda error: said.append(str(error)))
    page.goto(f"{lab}/lab/tree/{copy.name}?token={TOKEN}&reset")
    page.wait_for_selector(".jp-Notebook .jp-CodeCell")
    assert not page.locator(".jp-Dialog, .Toastify__toast").count()  # `make` leaves nothing to be asked
    page.get_by_text("| Idle").wait_for()  # cells sent to a kernel that is not there yet are lost
    page.click("text=Run >> nth=0")
    page.click('text="Run All Cells"')
    ran = []
    for _ in range(240):
        page.keyboard.press("Control+s")
        with suppress(nbformat.reader.NotJSONError):  # it is being written at this moment
            ran = [cell for cell in nbformat.read(copy, 4).cells if cell.cell_type == "code"]
        if ran and all(cell.execution_count for cell in ran):
            break
        time.sleep(1)
    assert ran
    assert all(cell.execution_count for cell in ran)
    assert not [output for cell in ran for output in cell.outputs if output.output_type == "error"]
    yield page
    page.screenshot(path=folder / f"{number}.png")
    page.close()
    assert not said


@pytest.mark.parametrize("number", EXPLORERS)
def test_all_cells_run_and_the_explorers_answer_to_the_keyboard(number, folder, lab, browser):
    with opened(number, "smoke", folder, lab, browser) as page:
        boxes = page.locator(".rtkit-explorer").all()
        assert sum(answers(page, box) for box in boxes) >= EXPLORERS[number]
        played = [plays(page, box) for box in boxes if box.locator(".widget-play").count()]
        assert all(played)
        assert played or number != "00"


def test_a_point_that_the_kit_lacks_is_trained_by_keyboard(folder, lab, browser):
    with opened("05", "glyphs", folder, lab, browser) as page:
        box = page.locator(".rtkit-explorer", has=page.get_by_role("button", name="train this point"))
        sentence, train = box.locator(".widget-html-content p"), box.get_by_role("button", name="train this point")
        box.scroll_into_view_if_needed()
        box.get_by_role("slider", name="trained").focus()
        for _ in range(20):
            if train.is_enabled():
                break
            page.keyboard.press("ArrowRight")
            time.sleep(1)
        assert "about" in train.inner_text()  # how long it will take
        before = sentence.inner_text()
        train.press("Space")
        box.get_by_text("done", exact=True).wait_for(timeout=180_000)
        assert sentence.inner_text() != before
        assert not train.is_enabled()  # it is there now
