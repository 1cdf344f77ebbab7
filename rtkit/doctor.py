"""What this machine offers, said in one page: for a bug report, or before a long run."""

import os
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open

from rtkit import PUBLISHED, STUDIES, __version__, compute, experiment, records, runner, store
from rtkit.data import downloads
from rtkit.definitions import code, code_of
from rtkit.measure import attack_success, tradeoff
from rtkit.sources import Source

PACKAGES = ("torchvision", "captum", "jupyterlab", "ipywidgets", "papermill", "pandas", "seaborn")


def facts() -> dict[str, str]:
    """Versions, device, number format, folders, data and records, each as a line of text."""
    writable, probed = "writable", "not asked"
    try:
        runner.writable(store.RUNS)
        probed = "used: the probe found it faster" if compute.bf16() else "not used: no units for it, or slower"
    except runner.UsageError as error:
        writable = f"NOT writable: {error}"
    device = compute.device()
    name = torch.cuda.get_device_name() if device.type == "cuda" else f"{experiment.workers()} processes at a time"
    out = {"rtkit": __version__} | store.versions() | store.versions(PACKAGES)
    out |= {"device": f"{device.type} ({name})", "bfloat16": probed}
    out["runs"] = f"{store.RUNS} ({runner.megabytes(_files())}, {writable})"
    sets = [name for name, state, _ in downloads.listing() if state != "absent"]
    out["data"] = ", ".join(sets) or "none of your own (the glyph world needs none)"
    out["records"] = f"\n{'':<20} ".join(_told(record) for record in records.every()) or "none"
    old = stale()
    told = f"{len(old)} files that no code reads any more ({runner.megabytes(old)}); `rtkit doctor --tidy` deletes them"
    return out | {"stale": told if old else "nothing"}


def _files() -> Iterator[Path]:
    """The files of the cache; another user's closed folders are passed over."""
    for folder, _, names in os.walk(store.RUNS):
        yield from (Path(folder, name) for name in names)


def _told(record: records.Record) -> str:
    """Whose record it is, what of it is stale, and how to mend that."""
    number, kit = STUDIES[record.study][0], record.origin == "kit"
    at = "" if record.preset == PUBLISHED else f" --preset {record.preset}"
    anew = f"`rtkit run {number}{at} -p run mine` computes it anew"
    faults = [] if record.computed_by_this else [f"computed by OTHER code; {anew}"]
    faults += [] if record.read_by_this else [f"judged by OTHER code; `rtkit study {number}{at}"
                                              f"{' --judge' if kit else ''}` judges it anew"]  # fmt: skip
    other = records.upgraded(record.made)
    faults += [f"computed with {', '.join(other)}; {anew}"] if other else []
    name = f"{record.study} at {record.preset}, {'comes with the kit' if kit else 'your run'}"
    return f"{name}: {'; '.join(faults) or 'current'}"


def stale() -> list[Path]:
    """Files of the cache that are never read again: cells and networks of other code, and what a crash left behind."""
    cells = {code_of(f"rtkit.measure.{study}", name) for study in STUDIES for name in ("rows", "validation")}
    networks = {code(one) for one in (Source, attack_success.Attacker, tradeoff._train)}
    return [path for path in _files() if path.name.startswith(".") or _made_by(path) not in {None, *cells, *networks}]


def _made_by(path: Path) -> str | None:
    """The hash of the code that made a cell or a network; None where a file is neither, or damaged."""
    with suppress(ValueError, KeyError, SafetensorError):
        if path.suffix == ".safetensors":
            with safe_open(path, framework="pt") as file:
                return file.metadata()["code"]
        return store.read_sealed(path)["code"] if path.parent.parent.name == "cells" else None
    return None


def main(tidy: bool = False) -> int:
    """Print the facts, or delete what is stale; return the exit status."""
    if tidy:
        for path in stale():
            path.unlink(missing_ok=True)
            print(f"deleted {path}")
        return 0
    for name, text in facts().items():
        print(f"{name:<20} {text}")
    return 0
