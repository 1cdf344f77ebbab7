"""The cache: computed once, never half-written, never trusted blindly, safe for two processes."""

import multiprocessing
import os
import time
from pathlib import Path

import pandas as pd
import pytest
import torch

from rtkit import experiment, records, store
from rtkit.judge import Judge


@pytest.fixture(autouse=True)
def runs(tmp_path, monkeypatch) -> Path:
    monkeypatch.setattr(store, "RUNS", tmp_path / "runs")
    return tmp_path / "runs"


CODE = "abc"


def cell(config, make):
    return store.cell(store.cell_path("study", config, CODE), config, CODE, make)["rows"]


def files(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.is_file())


def test_a_cell_is_computed_once(runs):
    calls = []

    def make():
        calls.append(1)
        return [{"value": 0.1 + 0.2, "name": "Ω"}]

    first = cell({"n": 1}, make)
    assert cell({"n": 1}, make) == first == [{"value": 0.1 + 0.2, "name": "Ω"}]
    assert len(calls) == 1
    cell({"n": 2}, make)
    assert len(calls) == 2
    assert len(files(runs)) == 2  # no lock, no temporary file is left


def test_a_cell_keeps_how_it_was_made_whoever_reads_it(monkeypatch):
    def read():
        return store.cell(store.cell_path("study", {"compute": "cpu"}, CODE), {"compute": "cpu"}, CODE, list)

    first, real = read(), store.versions()
    monkeypatch.setattr(store, "versions", lambda: real | {"torch": "99.0"})
    assert read() == first
    assert read()["made"]["torch"] == real["torch"]
    (made,) = records.summary([first, first])
    assert made["cells"] == 2
    assert (made["code"], made["compute"], made["torch"]) == (CODE, "cpu", real["torch"])
    upgraded = first | {"made": first["made"] | {"torch": "99.0"}}
    assert [one["cells"] for one in records.summary([first, upgraded, first])] == [2, 1]


def test_another_code_is_another_key():
    one = store.key({"n": 1}, CODE)
    assert store.key({"n": 1}, "abd") != one
    assert store.key({"n": 1.5}, CODE) != one


@pytest.mark.parametrize("damage", ["truncated", "changed", "empty", "binary"])
def test_a_damaged_cell_is_said_and_rebuilt(damage):
    make = lambda: [{"value": 1.0}]  # noqa: E731
    cell({}, make)
    path = store.cell_path("study", {}, CODE)
    data = path.read_bytes()
    path.write_bytes(
        {"truncated": data[:-5], "changed": data.replace(b"1.0", b"2.0"), "empty": b"", "binary": b"\xff\xfe" + data}[
            damage
        ]
    )
    with pytest.warns(store.DamagedFile, match=r"is damaged .*; computing it again"):
        assert cell({}, make) == [{"value": 1.0}]
    assert path.read_bytes() == data


def test_a_file_that_cannot_be_opened_is_kept(monkeypatch):
    cell({}, lambda: [{"value": 1.0}])
    path = store.cell_path("study", {}, CODE)

    def refuse(_):
        raise OSError(24, "Too many open files")

    with monkeypatch.context() as patched:
        patched.setattr(store, "read_sealed", refuse)
        with pytest.raises(OSError, match="Too many open files"):
            cell({}, lambda: [])
    assert cell({}, lambda: []) == [{"value": 1.0}]
    assert path.exists()


def test_a_damaged_network_is_said_and_rebuilt(runs):
    calls = []

    def make():
        calls.append(1)
        return {"w": torch.arange(4.0)}, {"seconds": 1.5}

    store.network({"n": 1}, CODE, make)
    state, facts = store.network({"n": 1}, CODE, make)
    assert state["w"].tolist() == [0, 1, 2, 3]
    assert facts == {"seconds": 1.5}
    assert len(calls) == 1
    (path,) = files(runs)
    data = bytearray(path.read_bytes())
    data[-1] ^= 255  # a flipped byte in a weight still parses
    path.write_bytes(data)
    with pytest.warns(store.DamagedFile, match="checksum"):
        state, _ = store.network({"n": 1}, CODE, make)
    assert state["w"].tolist() == [0, 1, 2, 3]
    path.write_bytes(b"not a network")
    with pytest.warns(store.DamagedFile):
        store.network({"n": 1}, CODE, make)
    assert len(calls) == 3


def test_a_network_that_comes_with_the_kit_stands_for_one_of_any_number_format(tmp_path, monkeypatch):
    monkeypatch.setattr(store, "RESULTS", tmp_path / "results")
    weights = {"w": torch.ones(2)}
    store.network({"n": 1, "compute": "cpu-bf16"}, CODE, lambda: (weights, {}))
    own, kept = store.network_paths({"n": 1, "compute": "cpu-bf16"}, CODE)
    kept.parent.mkdir(parents=True)
    own.rename(kept)
    fp32, never = {"n": 1, "compute": "cpu-fp32"}, lambda: pytest.fail("trains")
    assert store.has_network(fp32, CODE)
    assert store.network(fp32, CODE, never)[0]["w"].tolist() == [1, 1]
    assert not store.has_network(fp32, "other code")
    store.use_kit(False)
    try:
        assert not store.has_network(fp32, CODE)
        assert store.network(fp32, CODE, lambda: ({"w": torch.zeros(2)}, {}))[0]["w"].tolist() == [0, 0]
    finally:
        store.use_kit(True)
    assert store.network(fp32, CODE, never)[0]["w"].tolist() == [0, 0]  # one's own comes first
    kept.write_bytes(b"no network")
    with pytest.raises(ValueError, match="comes with the kit and is damaged"):
        store.network({"n": 1, "compute": "cuda-bf16"}, CODE, never)
    assert kept.exists()


def test_a_failed_write_leaves_nothing(tmp_path):
    path = tmp_path / "file"
    path.write_text("old")
    with pytest.raises(TypeError):
        store.write_atomically(path, "text, not bytes")
    assert path.read_text() == "old"
    assert files(tmp_path) == [path]


def test_an_interrupted_computation_leaves_nothing(runs):
    def make():
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        cell({}, make)
    assert not [path for path in files(runs) if path.suffix == ".json"]
    assert cell({}, lambda: []) == []


def _slow(folder: str, results) -> None:
    store.RUNS = Path(folder)

    def make():
        Path(folder, f"computed-{os.getpid()}").write_text("")
        time.sleep(0.5)
        return [{"value": 1.0}]

    results.put(cell({}, make))


def test_two_processes_that_want_one_cell_compute_it_once(tmp_path):
    context = multiprocessing.get_context("spawn")
    results = context.Queue()
    both = [context.Process(target=_slow, args=(str(tmp_path), results)) for _ in range(2)]
    for process in both:
        process.start()
    assert [results.get(timeout=60) for _ in both] == [[{"value": 1.0}]] * 2
    for process in both:
        process.join()
    assert len(list(tmp_path.glob("computed-*"))) == 1


def test_what_cannot_be_a_key_is_refused():
    with pytest.raises(TypeError, match="cannot be part of a cache key"):
        store.key({"net": torch.nn.Linear(1, 1)}, CODE)


def test_frames_and_records_come_back(tmp_path):
    frame = pd.DataFrame({"seed": [0, 1], "value": [10 / 255, 0.1 + 0.2], "target": ["digits", "greek"]})
    frame = frame.assign(n_train=100, metric="none", source="standard")
    made = [{"code": "abc", "torch": "2.6", "cells": 2}]
    frame.attrs = {"study": "transfer", "preset": "glyphs", "run": "mine", "made": made}
    records.publish(Judge(frame, collapsed=()))
    path = records.path("transfer", "glyphs")
    again = records.frame("transfer", "glyphs", None)
    # Knobs are compared for equality, so every bit of a float has to come back.
    pd.testing.assert_frame_equal(again, frame, check_exact=True, check_dtype=False)
    first = path.with_suffix(".csv.gz").read_bytes()
    records.publish(Judge(frame, collapsed=()))
    assert path.with_suffix(".csv.gz").read_bytes() == first
    record = store.load_record(path)
    assert record["seeds"] == [0, 1]
    assert record["made"] == made  # how it was computed, whoever reads it with whatever versions
    assert not records.load("transfer", "glyphs").computed_by_this


def _square(task: int) -> int:
    if task < 0:
        raise ValueError(f"task {task}")
    return task * task


def test_tasks_are_spread_and_come_back_in_order():
    assert experiment.spread((_square, [3, 1, 2], "squares"), (_square, [5], "more")) == [[9, 1, 4], [25]]
    with pytest.raises(ValueError, match="task -1"):
        experiment.spread((_square, [3, -1], "squares"))


def test_a_run_of_one_s_own_is_compared_with_the_kit_s_number_by_number():
    """Equal where it is equal; else whether it lies where the other replicates do."""
    assert records.compare("retention", "glyphs") == ""  # nothing to compare yet
    own = records.frame("retention", "glyphs")
    own = own[own.seed == 2].copy()
    own.attrs = records.frame("retention", "glyphs").attrs | {"run": "mine"}
    attacked = own.index[own.metric == "robust_accuracy"]
    own.loc[attacked[:5], "value"] += 1e-3
    own.loc[attacked[5], "value"] += 2
    records.publish(Judge(own, collapsed=()))
    said = records.compare("retention", "glyphs")
    assert said.startswith("retention: 19 of 95 cells")
    assert f"of {len(own)} numbers {len(own) - 6} are equal bit for bit, 5 lie where" in said
    assert "1 outside" in said
