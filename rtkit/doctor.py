"""What this machine offers, said in one page: for a bug report, or before a long run."""

from importlib.metadata import PackageNotFoundError, version

import torch

from rtkit import __version__, compute, experiment, records, runner, store
from rtkit.data import downloads

PACKAGES = ("torchvision", "captum", "jupyterlab", "ipywidgets", "papermill", "pandas", "seaborn")


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "absent"


def facts() -> dict[str, str]:
    """Versions, device, number format, folders, data and records, each as a line of text."""
    probed = "not asked"
    try:
        runner.writable(store.RUNS)
        writable = "writable"
        probed = "used: the probe found it faster" if compute.bf16() else "not used: no units for it, or slower"
    except runner.UsageError as error:
        writable = f"NOT writable: {error}"
    device, size = compute.device(), sum(path.stat().st_size for path in store.RUNS.rglob("*") if path.is_file())
    name = torch.cuda.get_device_name() if device.type == "cuda" else f"{experiment.workers()} processes at a time"
    out = {"rtkit": __version__} | store.versions() | {package: _version(package) for package in PACKAGES}
    out |= {"device": f"{device.type} ({name})"}
    out["bfloat16"] = probed
    out["runs"] = f"{store.RUNS} ({size / 1e6:.0f} MB, {writable})"
    sets = [name for name, state, _ in downloads.listing() if state != "absent"]
    out["data"] = ", ".join(sets) or "none of your own (the glyph world needs none)"
    kept = [
        f"{record.study} at {record.preset}: {'comes with the kit' if record.origin == 'kit' else 'your run'}, made by "
        f"{'this' if record.same_code else 'OTHER'} code"
        for record in records.every()
    ]
    out["records"] = f"\n{'':<20} ".join(kept) or "none"
    return out


def main() -> int:
    """Print the facts; return the exit status."""
    for name, text in facts().items():
        print(f"{name:<20} {text}")
    return 0
