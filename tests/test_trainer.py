"""The button that trains a chosen point: what it offers, that the point joins, cancelling, and what goes wrong."""

import time
from dataclasses import replace

import pytest
from matplotlib.figure import Figure

from rtkit import lesson, presets, store, widgets
from rtkit.measure import retention
from rtkit.trainer import Trainer


@pytest.fixture(autouse=True)
def runs(tmp_path, monkeypatch):
    monkeypatch.setattr(store, "RUNS", tmp_path / "runs")
    monkeypatch.setenv("RTKIT_RUNS", str(tmp_path / "runs"))  # for the process in the background


@pytest.fixture(scope="module")
def cells() -> list:
    grid = lesson.execute(lesson.path("05"), {"preset": "smoke"}, lesson.GRID)
    return list(dict.fromkeys(grid["cells"](presets.get("smoke"), 0, ())))[:3]


def made(cells, joined):
    """An explorer of one slider over the cells, of which the first stands for what the frame has."""

    def draw(figure: Figure, k: int) -> str:
        return f"{k}, {len(joined)} joined"

    def lacking(k):
        return [] if k == 0 or joined else [cells[k]]

    trainer = Trainer(retention.rows, "smoke", lacking, joined.append)
    control = widgets.slider("cell", range(len(cells)))
    return trainer, control, widgets.explorer([control], draw, (3, 3), trainer=trainer)


def wait(trainer) -> str:
    """What is said in the end."""
    for _ in range(900):
        if not trainer.progress.value.endswith(" s") and trainer.progress.value:
            return trainer.progress.value
        time.sleep(0.1)
    pytest.fail("still running after 90 seconds")


@pytest.mark.slow
def test_a_point_is_trained_in_the_background_and_joins(cells):
    joined = []
    trainer, control, box = made(cells, joined)
    assert trainer.button.disabled
    control.value = 1
    assert not trainer.button.disabled
    assert trainer.button.description.startswith("train this point")
    trainer.button.click()
    assert trainer.button.disabled
    assert not trainer.stop.disabled
    assert wait(trainer) == "done"
    assert set(joined[0].cell) == {store.name(cells[1])}
    assert "1 joined" in box.children[0].value
    assert trainer.button.description.endswith("there already")


@pytest.mark.slow
def test_training_can_be_cancelled(cells):
    joined = []
    trainer, control, _ = made(cells, joined)
    control.value = 2
    trainer.button.click()
    trainer.stop.click()
    assert wait(trainer) == "cancelled"
    assert not joined
    assert not trainer.button.disabled  # it can be asked for again


@pytest.mark.slow
def test_an_error_is_told(cells, monkeypatch):
    trainer, control, _ = made([cells[0], replace(cells[1], n_train=10**6)], [])
    control.value = 1
    trainer.button.click()
    assert wait(trainer).startswith("failed: ValueError: ")
