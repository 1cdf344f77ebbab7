"""Where the processes are that share a study's cells: joblib's own here, or the workers of a Dask cluster."""

import hashlib
import os
import secrets
from contextlib import contextmanager
from functools import cache

import joblib

from rtkit import compute, store
from rtkit.definitions import PACKAGE

TIMEOUT = 10  # seconds in which a scheduler must answer


def address() -> str:
    """The scheduler of the Dask cluster to use, such as tcp://node1:8786; "" for this machine alone."""
    return os.environ.get("RTKIT_CLUSTER", "")


def facts(token: str = "") -> dict[str, str]:
    """What must be equal on all machines that share a run: the kit's code, its cache, number format and versions."""
    code = hashlib.sha256(b"".join(path.read_bytes() for path in sorted(PACKAGE.rglob("*.py")))).hexdigest()[:16]
    versions = {name: version for name, version in store.versions().items() if name not in ("machine", "cores")}
    shared = "shared" if (store.RUNS / token).exists() else f"{store.RUNS}, not shared"
    return {"code of rtkit": code, "number format": compute.kind(), "RTKIT_RUNS": shared} | versions


def differences(seen: dict[str, dict[str, str]], here: dict[str, str]) -> list[str]:
    """In what each worker differs from this machine, a line each."""
    return [
        f"{worker}: {name} is {there.get(name)}, here {wanted}"
        for worker, there in seen.items()
        for name, wanted in here.items()
        if there.get(name) != wanted
    ]


@cache
def connect(where: str):
    """Connect to a cluster whose workers compute as this machine does.

    Raises:
        ValueError: dask is not installed, nobody answers, there are no workers, or a worker differs; says in what.
    """
    try:
        from distributed import Client
    except ImportError as error:
        raise ValueError("a cluster needs Dask: install rtkit[dask]") from error
    try:
        client = Client(where, timeout=TIMEOUT)
    except (OSError, ValueError) as error:
        raise ValueError(f"no Dask scheduler answers at {where} ({error}); see docs/clusters.md") from error
    token = f".cluster-{secrets.token_hex(8)}"
    store.write_atomically(store.RUNS / token, b"")
    try:
        seen, here = client.run(facts, token), facts(token)
    finally:
        (store.RUNS / token).unlink()
    threads = {name: one["nthreads"] for name, one in client.scheduler_info(n_workers=-1)["workers"].items()}
    found = differences(seen, here) + [f"{name} has {n} threads, not 1" for name, n in threads.items() if n != 1]
    if found or not seen:
        client.close()
        raise ValueError(f"the cluster at {where} cannot share this run: {'; '.join(found) or 'it has no workers'}")
    return client


@contextmanager
def backend(processes: int):
    """A context in which joblib spreads its tasks over so many processes here, or over the cluster that is named."""
    options = {"backend": "loky", "n_jobs": processes, "inner_max_num_threads": 1}
    if address():
        connect(address())
        options = {"backend": "dask", "n_jobs": -1}
    before = os.environ.get("PYTHONSAFEPATH", "")
    os.environ["PYTHONSAFEPATH"] = "1"  # modules in the working folder do not stand for the library's
    try:
        with joblib.parallel_config(**options):
            yield
    finally:
        os.environ["PYTHONSAFEPATH"] = before
