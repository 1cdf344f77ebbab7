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
    probed = "not asked"
    try:
        runner.writable(store.RUNS)
        writable = "writable"
        probed = "used: the probe found it faster" if compute.bf16() else "not used: no units for it, or slower"
    except runner.UsageError as error:
        writable = f"NOT writable: {error}"
    device, size = compute.device(), sum(path.stat().st_size for path in _files())
    name = torch.cuda.get_device_name() if device.type == "cuda" else f"{experiment.workers()} processes at a time"
    out = {"rtkit": __version__} | store.versions() | store.versions(PACKAGES)
    out |= {"device": f"{device.type} ({name})", "bfloat16": probed}
    out["runs"] = f"{store.RUNS} ({size / 1e6:.0f} MB, {writable})"
    sets = [name for name, state, _ in downloads.listing() if state != "absent"]
    out["data"] = ", ".join(sets) or "none of your own (the glyph world needs none)"
    out["records"] = f"\n{'':<20} ".join(_told(record) for record in records.every()) or "none"
    old = stale()
    size = sum(path.stat().st_size for path in old) / 1e6
    out["stale"] = f"{len(old)} files in {store.RUNS} that no code reads any more ({size:.1f} MB)"
    out["stale"] += "; `rtkit doctor --tidy` deletes them" if old else ""
    return out


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
    current = {study: {_code(study, name) for name in ("rows", "validation")} for study in STUDIES}
    networks = {code(one) for one in (Source, attack_success.Attacker, tradeoff._train)}
    found = [path for path in _files() if path.name.startswith(".")]
    for path in store.RUNS.glob("cells/*/*.json"):
        with suppress(ValueError, KeyError):
            if store.read_sealed(path)["code"] not in current.get(path.parent.name, ()):
                found.append(path)
    for path in store.RUNS.glob("networks/*.safetensors"):
        with suppress(SafetensorError), safe_open(path, framework="pt") as file:
            if file.metadata().get("code") not in networks:
                found.append(path)
    return found


def _code(study: str, name: str) -> str:
    return code_of(f"rtkit.measure.{study}", name)


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
