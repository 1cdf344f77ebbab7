"""The GPU script, dry: every stage on a processor, at a size that takes seconds, with carried data and a notebook."""

import importlib
import json
import os
import subprocess
import sys
from pathlib import Path

import nbformat
import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image

from rtkit import store

SCRIPTS = store.ROOT / "scripts"
NOTEBOOK = "from rtkit import compute, presets\nprint(presets.get(preset).name, compute.device().type)"


def sheets(folder: Path, size: int) -> None:
    """Eighty images for training and as many to test on, of four classes that brightness tells apart, on sheets."""
    folder.mkdir(parents=True)
    y = np.arange(80) % 4
    for part in ("train", "test"):
        x = (60 * y[:, None, None, None] + np.arange(size)[:, None]).repeat(3, 3) + np.zeros((1, size, size, 3))
        sheet = x.astype(np.uint8).reshape(2, 40, size, size, 3).swapaxes(1, 2).reshape(2 * size, 40 * size, 3)
        Image.fromarray(sheet).save(folder / f"{part}_00.webp", lossless=True)
    np.savez(folder / "labels.npz", train=y, test=y, classes=np.array([*"abcd"]))


@pytest.fixture
def words(tmp_path) -> list[str]:
    """The arguments of a dry run, with what it is carried."""
    for name, size in (("cifar10", 32), ("cifar100", 32), ("mnist", 28)):
        sheets(tmp_path / "carried" / "data" / name, size)
    (tmp_path / "carried" / "wheels").mkdir()
    (tmp_path / "carried" / "wheels" / "nosuchpackage-1.0-py3-none-any.whl").write_bytes(b"no wheel at all")
    cells = [nbformat.v4.new_code_cell('preset: str = "glyphs"  # which', metadata={"tags": ["parameters"]})]
    cells += [nbformat.v4.new_code_cell(NOTEBOOK)]
    kernel = {"kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"}}
    nbformat.write(nbformat.v4.new_notebook(cells=cells, metadata=kernel), tmp_path / "tiny.ipynb")
    words = ["--tiny", "--notebook", tmp_path / "tiny.ipynb", "--out", tmp_path / "out"]
    return [str(word) for word in (*words, "--work", tmp_path / "work", "--carried", tmp_path / "carried")]


@pytest.fixture
def inside(monkeypatch):
    """The scripts as modules of this process, whose environment and threads they change."""
    threads = torch.get_num_threads()
    monkeypatch.syspath_prepend(str(SCRIPTS))
    for name in ("PYTHONPATH", "RTKIT_DATA"):
        monkeypatch.setenv(name, os.environ.get(name, ""))
    yield importlib.import_module
    torch.set_num_threads(threads)


def test_every_stage_leaves_its_file(words, tmp_path):
    variables = {"PYTHONPATH": str(store.ROOT), "RTKIT_RUNS": str(tmp_path / "runs"), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, str(SCRIPTS / "gpu.py"), *words]
    ended = subprocess.run(command, capture_output=True, text=True, env=os.environ | variables, timeout=300)
    out = tmp_path / "out"
    stages = json.loads((out / "stages.json").read_text())
    assert {name: stage["state"] for name, stage in stages.items()} == dict.fromkeys(stages, "done"), ended
    assert ended.returncode == 0
    assert list(stages) == ["facts", "tests", "speed", "network", "notebook", "pairs"]
    assert len(list(out.iterdir())) <= 8
    found = json.loads((out / "facts.json").read_text())
    assert found["wheels"]["nosuchpackage"].startswith("failed")
    assert found["data"]["mnist"] == [80, 28, 28, 3]
    assert "exit status 0" in (out / "tests.txt").read_text()
    speed = json.loads((out / "speed.json").read_text())
    assert {(row["training"], row["batch"]) for row in speed["rows"]} >= {("N-FGSM", 8), ("PGD-10", 16)}
    network = json.loads((out / "network.json").read_text())["correct after"]
    assert network["worst case"]["clean"] >= network["worst case"]["APGD towards class 3 in rank"]
    rows = pd.read_csv(out / "pairs.csv.gz").query("metric == 'clean_accuracy'")
    ladder = {"mnist", "cifar10", *(f"cifar10_{side}" for side in (16, 12, 8, 6))}  # no KMNIST was carried
    assert set(rows.target) == {"source", *ladder}
    assert len(rows) == 2 * (1 + 2 * len(ladder))
    assert "smoke" in "".join(nbformat.read(out / "notebook.ipynb", 4).cells[-1].outputs[0].text)


def test_what_cannot_be_had_is_said_and_the_rest_goes_on(words, tmp_path, inside, monkeypatch):
    stages = ["--notebook", str(tmp_path / "missing.ipynb"), "--stages", "notebook", "speed"]
    monkeypatch.setattr(sys, "argv", ["gpu.py", *words, *stages])
    assert inside("gpu").main() == 1
    stages = json.loads((tmp_path / "out" / "stages.json").read_text())
    assert "papermill ended with" in stages["notebook"]["state"]
    assert stages["speed"]["state"] == "done"
