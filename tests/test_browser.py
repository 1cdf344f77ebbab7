"""Notebooks in JupyterLab, driven in a real browser: every cell runs, and the explorers answer, sliders by keyboard."""

import json
import os
import shutil
import socket
import subprocess
import sys
import time
import urllib.request

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
SETTINGS = {
    # Every cell is in the page, so that what is looked for can be found; no questions at the first start.
    "notebook-extension/tracker": {"windowingMode": "none"},
    "apputils-extension/notification": {"fetchNews": "false", "checkForUpdates": False},
}


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


SLIDERS = [("00", "eps"), ("01", "target images n"), ("02", "amplitude"), ("03", "test image"), ("04", "lambda")]
SLIDERS += [("05", "digit right"), ("06", "teacher's weight"), ("07", None)]


@pytest.mark.parametrize(("number", "slider"), SLIDERS)
def test_all_cells_run_and_the_explorer_answers(number, slider, folder, lab, browser):
    notebook = runner.find(number)
    copy = folder / notebook.name
    papermill.execute_notebook(notebook, copy, {"preset": "smoke"}, prepare_only=True, progress_bar=False)
    page = browser.new_page(viewport={"width": 1280, "height": 800})
    page.set_default_timeout(60_000)
    said = []
    page.on("console", lambda message: said.append(message.text) if message.type == "error" else None)
    page.on("pageerror", lambda error: said.append(str(error)))
    page.goto(f"{lab}/lab/tree/{copy.name}?token={TOKEN}&reset")
    page.wait_for_selector(".jp-Notebook .jp-CodeCell")
    page.get_by_text("| Idle").wait_for()  # cells sent to a kernel that is not there yet are lost
    page.click("text=Run >> nth=0")
    page.click('text="Run All Cells"')
    sentence, figure = page.locator(".widget-html-content p"), page.locator("img.widget-image")
    sentence.wait_for(timeout=180_000)
    figure.scroll_into_view_if_needed()
    before = sentence.inner_text(), figure.get_attribute("src")
    if slider:
        row = page.locator(".widget-hslider", has=page.get_by_text(slider, exact=True))
        row.locator(".noUi-handle").focus()
        page.keyboard.press("ArrowRight")
    else:
        page.locator(".widget-dropdown select").select_option(index=1)
    page.wait_for_function("text => document.querySelector('.widget-html-content p').innerText != text", arg=before[0])
    page.wait_for_function("src => document.querySelector('img.widget-image').src != src", arg=before[1])
    figure.scroll_into_view_if_needed()
    page.screenshot(path=folder / f"{number}.png")
    page.locator("button.jupyter-button").press("Space")
    page.wait_for_function("text => document.querySelector('.widget-html-content p').innerText == text", arg=before[0])
    page.keyboard.press("Control+s")
    ran = []
    for _ in range(60):
        ran = [cell for cell in nbformat.read(copy, 4).cells if cell.cell_type == "code"]
        if all(cell.execution_count for cell in ran):
            break
        time.sleep(0.5)
    assert all(cell.execution_count for cell in ran)
    assert not [output for cell in ran for output in cell.outputs if output.output_type == "error"]
    page.close()
    assert not said
