"""The engine on a Dask cluster of two processes."""

import os
import signal
import time
from functools import partial
from pathlib import Path

import pandas as pd
import pytest

from rtkit import cli, cluster, experiment, lesson, presets, store
from rtkit.measure import retention

distributed = pytest.importorskip("distributed", reason="rtkit[dask] is not installed")
RUNS = Path(os.environ["RTKIT_RUNS"])


@pytest.fixture(scope="module")
def address():
    """A cluster whose workers see the same RTKIT_RUNS as this process."""
    with distributed.LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=":0") as found:
        yield found.scheduler_address


@pytest.fixture
def connected(address, monkeypatch):
    monkeypatch.setenv("RTKIT_CLUSTER", address)
    cluster.connect.cache_clear()
    yield
    cluster.connect(address).close()
    cluster.connect.cache_clear()


def _pid(_: int) -> int:
    time.sleep(0.2)
    return os.getpid()


def _fatal(flag: Path, number: int) -> int:
    """Die the first time that the third task runs."""
    with open(flag.with_name("calls"), "a", encoding="utf-8") as calls:
        calls.write(f"{number}\n")
    time.sleep(0.1)
    if number == 3 and not flag.exists():
        flag.touch()
        os.kill(os.getpid(), signal.SIGKILL)
    return number


@pytest.mark.slow
def test_a_cluster_computes_the_same_frame(connected, tmp_path, monkeypatch):
    grid = lesson.execute(lesson.path("05"), {"preset": "smoke"}, lesson.GRID)
    cells = list(dict.fromkeys(grid["cells"](presets.get("smoke"), 0, ())))[:5]
    shared = experiment.compute_cells(retention.rows, cells)
    monkeypatch.delenv("RTKIT_CLUSTER")
    monkeypatch.setattr(store, "RUNS", tmp_path)
    here = experiment.compute_cells(retention.rows, cells, True)
    pd.testing.assert_frame_equal(shared.drop(columns="seconds"), here.drop(columns="seconds"), check_exact=True)


def test_the_workers_share_the_tasks(connected):
    (found,) = experiment.spread((_pid, range(8), "tasks"))
    assert len(set(found)) == 2
    assert os.getpid() not in found


def test_a_worker_that_is_killed_loses_what_it_had_in_hand(connected, tmp_path):
    (found,) = experiment.spread((partial(_fatal, tmp_path / "flag"), range(8), "tasks"))
    assert found == list(range(8))
    calls = (tmp_path / "calls").read_text(encoding="utf-8").split()
    assert len(calls) <= 9 + 1  # dask may have handed a finished result back to be made again


def test_a_worker_that_differs_is_named(connected, address, monkeypatch, tmp_path):
    monkeypatch.setattr(store, "RUNS", tmp_path)  # not where the workers look
    with pytest.raises(ValueError, match=r"cannot share this run: tcp.*: RTKIT_RUNS is .*, not shared, here shared"):
        cluster.connect(address)
    monkeypatch.undo()
    here = cluster.facts()
    (line,) = cluster.differences({"tcp://a": here | {"torch": "2.6"}, "tcp://b": here}, here)
    assert line == f"tcp://a: torch is 2.6, here {here['torch']}"


def test_a_scheduler_that_is_not_there_is_said(monkeypatch):
    monkeypatch.setattr(cluster, "TIMEOUT", 1)
    with pytest.raises(ValueError, match=r"no Dask scheduler answers at tcp://127.0.0.1:9 .*docs/clusters.md"):
        cluster.connect("tcp://127.0.0.1:9")


def test_the_command_line_looks_at_the_cluster_before_it_starts(monkeypatch, capsys):
    monkeypatch.setattr(cluster, "TIMEOUT", 1)
    monkeypatch.setenv("RTKIT_CLUSTER", "")  # put back afterwards
    with pytest.raises(SystemExit) as stopped:
        cli.main(["study", "05", "--preset", "smoke", "--cluster", "tcp://127.0.0.1:9"])
    assert stopped.value.code == 2
    assert "no Dask scheduler answers" in capsys.readouterr().err
