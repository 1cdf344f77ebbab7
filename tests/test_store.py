"""The cache: computed once, never half-written, never trusted blindly, safe for two processes."""

import contextlib
import multiprocessing
import os
import subprocess
import sys
import tempfile
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
    return store.cell("study", config, CODE, make)["rows"]


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
        return store.cell("study", {"compute": "cpu"}, CODE, list)

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
    with monkeypatch.context() as patched:
        patched.setattr(store, "kit", False)
        assert not store.has_network(fp32, CODE)
        assert store.network(fp32, CODE, lambda: ({"w": torch.zeros(2)}, {}))[0]["w"].tolist() == [0, 0]
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
    own = own[own.seed == 202].copy()
    own.attrs = records.frame("retention", "glyphs").attrs | {"run": "mine"}
    attacked = own.index[own.metric == "robust_accuracy"]
    own.loc[attacked[:5], "value"] += 1e-3
    own.loc[attacked[5], "value"] += 2
    records.publish(Judge(own, collapsed=()))
    said = records.compare("retention", "glyphs")
    assert said.startswith("retention: 26 of 260 cells")
    assert f"of {len(own)} numbers {len(own) - 6} are equal bit for bit, 5 lie where" in said
    assert "1 outside" in said


@contextlib.contextmanager
def another_user():
    """As somebody who owns nothing here; whoever runs the tests without being root is somebody already."""
    root = os.geteuid() == 0
    if root:
        os.setresuid(65534, 65534, 0)
    try:
        yield
    finally:
        if root:
            os.setresuid(0, 0, 0)


@pytest.fixture
def shared(monkeypatch):
    """A folder for results that others see too, as those of pytest are not."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        folder.chmod(0o777)
        monkeypatch.setattr(store, "RUNS", folder)
        yield folder
        for path in [folder, *folder.rglob("*")]:
            path.chmod(0o777)


def test_a_lock_that_another_user_left_stops_nobody(shared):
    path = store.cell_path("study", {}, CODE)
    path.parent.mkdir(parents=True)
    path.parent.chmod(0o777)
    lock = Path(f"{path}.lock")
    lock.touch()
    lock.chmod(0)
    with another_user():
        assert cell({}, lambda: [{"value": 1.0}]) == [{"value": 1.0}]
        assert cell({}, lambda: pytest.fail("computes")) == [{"value": 1.0}]


@pytest.mark.parametrize("below", ["", "cells", "cells/study"])
def test_a_folder_of_another_user_s_is_said_before_anything_is_computed(shared, below):
    folder = shared / below
    folder.mkdir(parents=True, exist_ok=True)
    folder.chmod(0o555)
    with another_user(), pytest.raises(OSError, match=r"cannot write to .*cells/study: Permission .* set RTKIT_RUNS"):
        cell({}, lambda: pytest.fail("computes"))
    assert not files(shared)


def test_what_may_not_be_read_is_neither_computed_nor_removed(shared):
    cell({}, lambda: [{"value": 1.0}])
    store.network({}, CODE, lambda: ({"w": torch.zeros(1)}, {}))
    kept = {path: path.read_bytes() for path in files(shared)}
    for path in shared.rglob("*"):
        path.chmod(0o777 if path.is_dir() else 0)
    with another_user():
        for read in (cell, lambda config, make: store.network(config, CODE, make)):
            with pytest.raises(PermissionError):
                read({}, lambda: pytest.fail("computes"))
    for path in kept:
        path.chmod(0o600)
    assert {path: path.read_bytes() for path in files(shared)} == kept


@pytest.mark.parametrize("error", [KeyError("rows"), TypeError("None"), MemoryError(), OSError(5, "Input/output")])
def test_only_a_checksum_that_fails_removes_a_file(runs, error):
    def read(_):
        raise error

    path = runs / "file"
    store.write_atomically(path, b"sound")
    with pytest.raises(type(error)):
        store.cached(path, read, lambda: pytest.fail("computes"), bytes)
    assert path.read_bytes() == b"sound"


@pytest.mark.skipif(os.geteuid() != 0, reason="mounting a disk of our own needs root")
def test_a_full_disk_is_said_and_leaves_nothing_half_written(runs):
    runs.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k", "none", runs], capture_output=True).returncode:
        pytest.skip("no disk can be mounted here")
    try:
        small, large = [{"value": 1.0}], [{"value": "x" * 100_000}]
        assert cell({"n": 1}, lambda: small) == small
        for attempt in (
            lambda: cell({"n": 2}, lambda: large),
            lambda: store.network({}, CODE, lambda: ({"w": torch.zeros(30_000)}, {})),
            lambda: store.save_record(runs / "records" / "a.json", {"text": "x" * 100_000}),
        ):
            with pytest.raises(OSError, match=f"cannot write to {runs}.*: No space left on device; set RTKIT_RUNS"):
                attempt()
        assert cell({"n": 1}, lambda: pytest.fail("computes")) == small
        assert files(runs) == [store.cell_path("study", {"n": 1}, CODE)]
    finally:
        subprocess.run(["umount", runs], check=True)


def test_what_is_not_under_runs_is_not_mended_by_its_variable(shared):
    (shared / "results").touch()
    store.RUNS = shared / "runs"  # the fixture puts it back
    with pytest.raises(OSError, match=r"results/glyphs: Not a directory$"):
        store.write_atomically(shared / "results" / "glyphs" / "a.json", b"")


ENDLESS = """
import sys
from pathlib import Path
from rtkit import store
store.RUNS = Path(sys.argv[1])
for n in range(10**6):
    store.cell("study", {"n": n}, "abc", lambda: [{"value": str(n) * 200_000}])
"""


@pytest.mark.parametrize("seconds", [0.05, 0.23])
def test_a_process_killed_at_any_moment_leaves_whole_cells(runs, seconds):
    process = subprocess.Popen([sys.executable, "-c", ENDLESS, str(runs)])
    while not list(runs.rglob("*.json")):
        time.sleep(0.01)
    time.sleep(seconds)
    process.kill()
    process.wait()
    there = len(list(runs.rglob("*.json")))
    made = []
    for n in range(there + 2):
        expected = [{"value": str(n) * 200_000}]
        assert cell({"n": n}, lambda n=n, rows=expected: made.append(n) or rows) == expected
    assert made == [there, there + 1]
