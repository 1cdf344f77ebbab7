"""What has been computed, on disk: cached cells and networks, and the records of whole studies.

A key is a hash of everything that decides a result: its configuration, the code that computes it, device and number
format. Nothing is ever invalidated by hand; another key is simply another file.
"""

import errno
import gzip
import hashlib
import json
import os
import platform
import secrets
import time
import warnings
from collections.abc import Callable
from contextlib import ExitStack, suppress
from dataclasses import asdict, is_dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import filelock

from rtkit.definitions import PACKAGE

ROOT = PACKAGE.parent
RUNS = Path(os.environ.get("RTKIT_RUNS") or (ROOT if (ROOT / "pyproject.toml").exists() else Path.cwd()) / "runs")
RESULTS = ROOT / "results"
kit = True  # whether networks that come with the kit may stand for those that are not in the cache; `experiment.use`


class DamagedFile(Warning):
    """A file could not be trusted: one of the cache is removed and computed again, a record is passed over."""


def _plain(value):
    if is_dataclass(value):
        return {"type": type(value).__name__} | asdict(value)
    raise TypeError(f"{value!r} cannot be part of a cache key")


def to_json(value) -> str:
    """Write a configuration as JSON: dataclasses as objects, keys sorted, so that equal configurations hash alike."""
    return json.dumps(value, sort_keys=True, default=_plain, ensure_ascii=False)


def key(config: dict, code: str) -> str:
    """The cache key of a configuration computed by code of the given hash (`definitions.code`)."""
    return hashlib.sha256(f"{to_json(config)}\n{code}".encode()).hexdigest()[:24]


def _refused(path: Path, error: OSError) -> OSError:
    remedy = "; set RTKIT_RUNS to a folder of yours with room" if RUNS in path.parents else ""
    return OSError(error.errno, f"cannot write to {path.parent}: {error.strerror}{remedy}")


def write_atomically(path: Path, data: bytes) -> None:
    """Write under a temporary name, then rename: a reader sees the whole file or none.

    Raises:
        OSError: it cannot be written; says where, and under runs/ what to do.
    """
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(6)}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary.write_bytes(data)
        temporary.replace(path)
    except OSError as error:
        raise _refused(path, error) from error
    finally:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)


def cached(path: Path, read: Callable, compute: Callable, write: Callable):
    """Read `path`, or compute and write it; of two processes that want the same file one computes, the other waits."""

    def attempt():
        try:
            return read(path)
        except FileNotFoundError:
            return None
        except ValueError as error:  # its checksum fails; whatever else goes wrong says nothing about the file
            warnings.warn(f"{path} is damaged ({error}); computing it again", DamagedFile, stacklevel=4)
            with suppress(OSError):  # where it may not be removed, it may not be written either, which is said below
                path.unlink()
            return None

    value = attempt()
    if value is not None:
        return value
    lock = Path(f"{path}.lock")
    with ExitStack() as held:
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            held.enter_context(filelock.FileLock(lock))
        except OSError as error:
            # A lock file of another user's, or a network folder without locks: at worst two compute the same.
            if error.errno not in (errno.EACCES, errno.ENOLCK) or not os.access(path.parent, os.W_OK):
                raise _refused(path, error) from error
        try:
            value = attempt() if path.exists() else None
            if value is None:
                value = compute()
                write_atomically(path, write(value))
        finally:
            with suppress(OSError):
                lock.unlink()
    return value


def read_sealed(path: Path) -> dict:
    """The document in a sealed file; ValueError where its checksum does not match."""
    seal, _, payload = path.read_bytes().partition(b"\n")
    if hashlib.sha256(payload).hexdigest().encode() != seal:
        raise ValueError("its checksum does not match")
    return json.loads(payload)


def cell_path(study: str, config: dict, code: str) -> Path:
    """Where the cell of this study with this configuration lives."""
    return RUNS / "cells" / study / f"{key(config, code)}.json"


def name(cell) -> str:
    """What rows of a cell are told by: a hash of its own fields, the same on every machine and with any code."""
    return hashlib.sha256(to_json(cell).encode()).hexdigest()[:12]


def _made(since: float) -> dict:
    """When something was computed, in how many seconds, on what machine and by which versions."""
    return {"when": time.strftime("%Y-%m-%d"), "seconds": round(time.time() - since, 2)} | versions()


def cell(study: str, config: dict, code: str, compute: Callable[[], list[dict]]) -> dict:
    """Return one cell of a study, computed at most once: its `rows`, `config` and `code`, and how it was `made`."""

    def make():
        since = time.time()
        # What was just computed is what will be read: the same order of columns, plain values.
        return json.loads(to_json({"config": config, "code": code, "rows": compute(), "made": _made(since)}))

    def sealed(found):
        payload = to_json(found).encode()
        return hashlib.sha256(payload).hexdigest().encode() + b"\n" + payload

    return cached(cell_path(study, config, code), read_sealed, make, sealed)


def _digest(tensors: dict) -> str:
    digest = hashlib.sha256()
    for name in sorted(tensors):
        digest.update(name.encode() + tensors[name].cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()


def network_paths(config: dict, code: str) -> tuple[Path, Path]:
    """Where a network lies in the cache, and where in what comes with the kit, there in whatever number format."""
    own, kept = key(config, code), key({**config, "compute": ""}, code)
    return RUNS / "networks" / f"{own}.safetensors", RESULTS / "networks" / f"{kept}.safetensors"


def has_network(config: dict, code: str) -> bool:
    """Whether a network need not be trained any more."""
    own, kept = network_paths(config, code)
    return own.exists() or (kit and kept.exists())


def network(config: dict, code: str, compute: Callable[[], tuple[dict, dict]]) -> tuple[dict, dict]:
    """Return a trained network's (state_dict, facts about its training), trained at most once.

    Args:
        config, code: everything that decides the weights, see `key`.
        compute: trains it and returns both; the facts must be plain JSON values.
    """
    from safetensors import SafetensorError, safe_open
    from safetensors.torch import save

    def read(path):
        path.open("rb").close()  # whether it is there and may be read, safetensors does not tell from damage
        try:
            with safe_open(path, framework="pt") as file:
                meta = file.metadata() or {}
                state = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - not a dict
        except SafetensorError as error:
            raise ValueError(str(error)) from error
        if _digest(state) != meta.get("digest"):
            raise ValueError("its checksum does not match")
        return state, json.loads(meta["facts"])

    def make():
        since = time.time()
        return *compute(), _made(since)

    def write(value):
        state = {name: tensor.cpu().contiguous() for name, tensor in value[0].items()}
        meta = {"config": to_json(config), "facts": to_json(value[1]), "digest": _digest(state)}
        return save(state, meta | {"code": code, "made": to_json(value[2])})

    own, kept = network_paths(config, code)
    if kit and not own.exists() and kept.exists():
        try:
            return read(kept)
        except ValueError as error:
            raise ValueError(f"{kept} comes with the kit and is damaged ({error}); restore it") from error
    return cached(own, read, make, write)[:2]


def _processor() -> str:
    """The processor's name, or where the system does not tell it, its architecture."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
        return next(line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()


def versions(packages=("torch", "numpy", "pillow", "scikit-learn", "matplotlib")) -> dict[str, str]:
    """The machine, and the versions of packages, by default of those that a number may depend on."""
    out = {"python": platform.python_version(), "machine": _processor(), "cores": str(os.cpu_count())}
    for name in packages:
        try:
            out[name] = version(name)
        except PackageNotFoundError:
            out[name] = "absent"
    return out


def save_record(path: Path, record: dict) -> None:
    """Write the record of a study (verdicts, seeds, code, versions, machine)."""
    text = json.dumps(record, indent=1, default=_plain, ensure_ascii=False)
    write_atomically(path, f"{text}\n".encode())


def load_record(path: Path) -> dict:
    """Read a record."""
    return json.loads(path.read_text(encoding="utf-8"))


def save_frame(frame, path: Path) -> None:
    """Write a frame as compressed CSV, the same bytes for the same frame."""
    text = frame.to_csv(index=False, lineterminator="\n")
    write_atomically(path, gzip.compress(text.encode(), mtime=0))


def load_frame(path: Path):
    """Read a frame written by `save_frame`."""
    import pandas as pd  # the command line reads paths only

    return pd.read_csv(path, keep_default_na=False, na_values=[""])  # a data set may be called NA
