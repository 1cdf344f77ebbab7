"""What a GPU says of the kit, in one command of a few minutes; every stage writes its own small file at once.

    make gpu GPU="--out OUT --carried FOLDER"          the same as: PYTHONPATH=. python scripts/gpu.py ...

Stages, in this order; one that fails or finds no time is noted in `stages.json`, and the others go on:

    facts      facts.json      device, driver, versions, and what was carried
    tests      tests.txt       the tests that need a GPU (pytest -m gpu)
    speed      speed.json      images a second, and seconds an epoch of 50,000, by adversary and batch size
    network    network.json    one network trained by N-FGSM on CIFAR-10 within two minutes, and what each attack leaves
    notebook   notebook.ipynb  one notebook, executed by papermill at the preset smoke
    pairs      pairs.csv.gz    pairs of sources of the preset cifar, as many as fit, carried to MNIST, KMNIST and
                               CIFAR-10 at five resolutions; started again, it goes on from there

Nothing is downloaded. `--carried` names a folder with what the machine lacks; without it, the data sets of $RTKIT_DATA
serve. It may hold `wheels/*.whl`, of which those are installed (aside, and for this run) whose package is missing, and
`data/NAME/` with `labels.npz` (arrays `train`, `test`, `classes`) and lossless sheets `train_00.webp`, ... with forty
square images in a row.
"""

import argparse
import json
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import time
import traceback
from dataclasses import dataclass, replace
from functools import partial
from importlib.metadata import PackageNotFoundError, version
from itertools import product
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from PIL import Image

from rtkit import compute, evaluation, experiment, models, presets, robustness, store
from rtkit.adversaries import Adversary
from rtkit.data import named, npz
from rtkit.data.augmentation import crop_and_flip
from rtkit.data.glyphs import Images
from rtkit.measure import transfer
from rtkit.sources import Source
from rtkit.threat import ThreatModel
from rtkit.training import Phase, train

ROOT = Path(__file__).resolve().parent.parent
PACKAGES = ("torchvision", "pandas", "scipy", "seaborn", "pytest", "papermill", "ipykernel", "captum")
THREAT = ThreatModel("linf", 8 / 255)  # of speed and network; the pairs have the preset's
LADDER = (("mnist", 0), ("kmnist", 0), *(("cifar10", side) for side in (0, 16, 12, 8, 6)))  # target, pixels if reduced


@dataclass
class Run:
    """What the stages share.

    Args:
        out: where results go; work: where everything else does.
        deadline: when all must be over, by time.monotonic().
        seconds: of an N-FGSM step on 128 images; the stage `speed` measures it.
    """

    out: Path
    work: Path
    carried: Path | None
    notebook: Path
    tiny: bool
    deadline: float
    seconds: float = 0.03

    @property
    def left(self) -> float:
        """Seconds that are left."""
        return self.deadline - time.monotonic()

    def variables(self) -> None:
        """Tell this process and those that it starts where wheels and data were unpacked."""
        os.environ["PYTHONPATH"] = os.pathsep.join([str(ROOT), str(self.work / "site")])
        if self.carried and (self.work / "data").exists():
            os.environ["RTKIT_DATA"] = str(self.work / "data")

    def write(self, name: str, facts: dict) -> None:
        """Write a small file of results."""
        store.write_atomically(self.out / name, f"{json.dumps(facts, indent=1)}\n".encode())

    def command(self, words: list, seconds: float, **variables: str) -> tuple[int, str]:
        """Run a command for at most so many seconds; return its exit status, 124 if that was too short, and output."""
        with tempfile.TemporaryFile("w+") as log:  # a pipe would wait for all that holds it
            options = {"stdout": log, "stderr": subprocess.STDOUT, "start_new_session": True}
            process = subprocess.Popen(list(map(str, words)), cwd=ROOT, env=os.environ | variables, **options)
            try:
                status = process.wait(max(1, min(seconds, self.left)))
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)  # with what it started
                process.wait()
                status = 124
            log.seek(0)
            return status, log.read()


def facts(run: Run) -> None:
    """Which machine this is; unpack what was carried."""
    found = {"kind": compute.kind(), **store.versions()}
    if torch.cuda.is_available():
        one = torch.cuda.get_device_properties(0)
        found |= {"gpu": one.name, "memory": one.total_memory, "multiprocessors": one.multi_processor_count}
        found |= {"cuda": torch.version.cuda, "cudnn": torch.backends.cudnn.version()}
        asked = "nvidia-smi --query-gpu=driver_version --format=csv,noheader || cat /proc/driver/nvidia/version"
        found["driver"] = run.command(["sh", "-c", asked], 20)[1].strip()
    run.write("facts.json", found)
    if run.carried:
        found["wheels"] = wheels(run)
        run.write("facts.json", found)
        found["data"] = unpack(run.carried / "data", run.work / "data")
        run.variables()
    asked = f"import importlib.metadata as m; print({{name: m.version(name) for name in {PACKAGES}}})"
    found["packages"] = run.command([sys.executable, "-c", asked], 30)[1].strip()  # in a process: it sees the wheels
    run.write("facts.json", found)


def wheels(run: Run) -> dict[str, str]:
    """Install those of the carried wheels whose package is missing; tell what became of each."""
    site, out = run.work / "site", {}
    words = [sys.executable, "-m", "pip", "install", "--quiet", "--no-index", "--no-deps", "--no-compile"]
    words += ["--disable-pip-version-check", "--upgrade", "--target", site]
    for wheel in sorted((run.carried / "wheels").glob("*.whl")):
        name = wheel.name.split("-")[0]
        try:
            out[name] = f"is there: {version(name)}"
        except PackageNotFoundError:
            out[name] = wheel
    missing = [name for name, wheel in out.items() if isinstance(wheel, Path)]
    whole = missing and run.command([*words, *(out[name] for name in missing)], 60)[0]
    for name in missing:
        status, output = run.command([*words, out[name]], 20) if whole else (0, "")  # one by one if not at once
        out[name] = f"failed: {output[-300:]}" if status else "installed"
    return out


def unpack(sheets: Path, folder: Path) -> dict[str, list[int]]:
    """Write carried sheets as the npz files that the kit reads; the shapes of their training images."""
    out = {}
    for path in sorted(sheets.glob("*/labels.npz")):
        with np.load(path) as file:
            arrays = {"classes": file["classes"]} | {f"y_{part}": file[part] for part in ("train", "test")}
        for part in ("train", "test"):
            x = []
            for sheet in sorted(path.parent.glob(f"{part}_*.webp")):
                grid = np.asarray(Image.open(sheet).convert("RGB"))
                size = grid.shape[1] // 40
                x.append(grid.reshape(-1, size, 40, size, 3).swapaxes(1, 2).reshape(-1, size, size, 3))
            arrays[f"x_{part}"] = np.concatenate(x)
        npz.check(arrays, path)
        store.write_atomically(folder / f"{path.parent.name}.npz", npz.to_bytes(arrays))
        out[path.parent.name] = list(arrays["x_train"].shape)
    return out


def tests(run: Run) -> None:
    """The tests that need a GPU; warnings stay warnings, for other versions than the locked ones may warn."""
    files = [path for path in sorted((ROOT / "tests").glob("test_*.py")) if b"mark.gpu" in path.read_bytes()]
    words = [sys.executable, "-m", "pytest", "-m", "gpu", "-v", "-W", "default", "-p", "no:cacheprovider", *files]
    status, output = run.command(words, 120, PYTEST_DISABLE_PLUGIN_AUTOLOAD="1")
    (run.out / "tests.txt").write_text(f"{output}\nexit status {status}\n", encoding="utf-8")
    if status:
        raise RuntimeError(f"pytest ended with {status}: {output[-300:]}")


def speed(run: Run) -> None:
    """Images a second of the kit's training loop, augmentation included: the median of three trainings."""
    many, rows = 64 if run.tiny else 10240, []
    generator = torch.Generator().manual_seed(0)
    x = torch.randint(256, (many, 3, 32, 32), generator=generator, dtype=torch.uint8)
    images = Images(x, torch.arange(many) % 100, tuple(map(str, range(100))))
    pgd = Adversary("pgd", THREAT, steps=10)
    plan = [("standard", None, 60), ("N-FGSM", Adversary("n_fgsm", THREAT), 60), ("PGD-10", pgd, 20)]
    for batch in (8, 16) if run.tiny else (128, 512):
        for name, adversary, steps in plan:
            if run.left < 20:
                raise TimeoutError("no time for the rest")
            net, took = create(100, run), []
            for k in range(4):  # the first one warms up
                count = 1 if run.tiny else 5 if k == 0 else steps
                with compute.stopwatch() as seconds:
                    train(net, images, (Phase(count, 0.1, batch, adversary=adversary),), k, augment=crop_and_flip)
                took.append(seconds() / count)
            step = statistics.median(took[1:])
            rows.append({"training": name, "batch": batch, "seconds a step": took[1:], "images a second": batch / step})
            rows[-1] |= {"seconds an epoch of 50,000": 50000 * step / batch}
            if compute.device().type == "cuda":
                rows[-1]["peak memory, bytes"] = torch.cuda.max_memory_allocated()
                torch.cuda.reset_peak_memory_stats()
            if (name, batch) == ("N-FGSM", 128):
                run.seconds = step
            run.write("speed.json", {"network": net.architecture, "kind": compute.kind(), "rows": rows})


def create(classes: int, run: Run) -> models.Network:
    """A network as it is before training."""
    return models.create(classes, "small-8" if run.tiny else "resnet18-cifar", 0)


def network(run: Run) -> None:
    """Train by N-FGSM for some 80 seconds, then attack 1,000 test images: by single attacks, and by all in turn."""
    data = named.arrays("cifar10", 32)
    images, held_out = (named.images(data, part, 32) for part in ("train", "test"))
    budget = min(80.0, 0.3 * run.left) / (1.1 * run.seconds)
    steps = 4 if run.tiny else min(int(budget), 3300)
    net, found = create(len(images.classes), run), {"steps": steps, "batch": 128, "lr": 0.2, "images": len(images)}
    phase = Phase(steps, 0.2, adversary=Adversary("n_fgsm", THREAT))
    with compute.stopwatch() as seconds:
        history = train(net, images, (phase,), 0, held_out=held_out[-64:], augment=crop_and_flip)
    found |= {"adversary": "N-FGSM", "eps": THREAT.eps, "seconds": seconds(), "watch": history.watch}
    found |= {"collapsed": history.collapsed, "loss of the last steps": statistics.fmean(history.loss[-50:])}
    found["training accuracy"] = evaluation.accuracy(net, images[:1000])
    run.write("network.json", found)
    images = held_out[: 16 if run.tiny else 1000]
    x, y = compute.to_pixels(images.x), images.y.to(compute.device())
    long, short = (2, 2) if run.tiny else (50, 100)
    tried = robustness.battery(len(images.classes), steps=long, strong=True, apgd_steps=short)
    alone = {f"{name} alone": [name] for name in tried if "cross-entropy" in name}
    found |= {"n_test": len(images), "PGD steps": long, "Auto-PGD steps": short, "correct after": {}}
    for title, names in (alone | {"worst case": list(tried)}).items():
        generator = torch.Generator(device=compute.device()).manual_seed(0)
        with compute.stopwatch() as seconds:
            left = robustness.worst_case(net, x, y, THREAT, [tried[name] for name in names], generator)
        shares = dict(zip(("clean", *names), left.float().mean(1).tolist(), strict=True))
        found["correct after"][title] = shares | {"seconds": seconds()}
        run.write("network.json", found)


def notebook(run: Run) -> None:
    """Execute one notebook at the preset smoke; what cannot be had is said, and nothing else depends on it."""
    words = [sys.executable, "-m", "papermill", run.notebook, run.out / "notebook.ipynb", "-p", "preset", "smoke"]
    words += ["--cwd", ROOT / "notebooks", "--no-progress-bar"]
    runs = str(run.work / "runs")  # from nothing
    status, output = run.command(words, 90, RTKIT_RUNS=runs)
    if status:
        raise RuntimeError(f"papermill ended with {status}: {output[-1500:]}")


def pairs(run: Run) -> None:
    """Carry pairs of sources, standard and robust, to the targets that are there, while there is time for one."""
    preset, rows, longest = presets.get("cifar"), [], 0.0
    ways = [("fixed_feature", 400), ("last_stage", 100)]
    if run.tiny:
        few = {"n_source": 40, "n_source_test": 40, "source_steps": 2, "steps": 2}
        world = replace(preset.world, pool=40, validation=20, test=20)
        preset = replace(preset, architecture="small-8", world=world, **few)
        ways = [(protocol, n // 10) for protocol, n in ways]
    store.RUNS, longest = run.work / "runs", 2.5 * preset.source_steps * run.seconds
    for seed in range(1 if run.tiny else 10):
        if run.left < longest:
            raise TimeoutError(f"no time for pair {seed}")
        start = time.monotonic()
        for kind, eps in (("standard", 0.0), ("robust", preset.main_eps)):
            carry = partial(transfer.Cell, "transfer", Source.of(preset, kind, eps, seed), seed)
            cells = [carry("source", "none", n_test=preset.n_source_test)]
            for (target, side), (protocol, n) in product(LADDER, ways):
                budget = (preset.steps, preset.batch_size, transfer.RATES[protocol])
                cells += [carry(target, protocol, (n,), *budget, side=side)] if target in named.names() else []
            rows += [row for cell in cells for row in experiment.cached(transfer.rows, cell)["rows"]]
        store.save_frame(pd.DataFrame(rows), run.out / "pairs.csv.gz")
        longest = max(longest, 1.1 * (time.monotonic() - start))


STAGES = {"facts": facts, "tests": tests, "speed": speed, "network": network, "notebook": notebook, "pairs": pairs}


def main() -> int:
    """Run the stages; the exit status is 0 unless one failed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="folder for the results")
    parser.add_argument("--work", type=Path, default=store.RUNS / "gpu", help="folder for all else (runs/gpu)")
    parser.add_argument("--carried", type=Path, help="folder with wheels/ and data/")
    parser.add_argument("--minutes", type=float, default=8)
    parser.add_argument("--stages", nargs="+", default=list(STAGES), choices=list(STAGES))
    parser.add_argument("--notebook", type=Path, default=next((ROOT / "notebooks").glob("01*.ipynb"), None))
    parser.add_argument("--tiny", action="store_true", help="a dry run: every stage at a size that a processor bears")
    given = vars(parser.parse_args())
    chosen, deadline = given.pop("stages"), time.monotonic() + 60 * given.pop("minutes")
    run = Run(**{k: v.resolve() if isinstance(v, Path) else v for k, v in given.items()}, deadline=deadline)
    run.variables()
    if run.tiny:
        torch.set_num_threads(1)
    run.out.mkdir(parents=True, exist_ok=True)
    path = run.out / "stages.json"
    log = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    for name in chosen:
        start = time.monotonic()
        try:
            if run.left < 10:
                raise TimeoutError("no time was left")
            STAGES[name](run)
            state = "done"
        except Exception as error:
            traceback.print_exc()
            state = f"{type(error).__name__}: {error}"
        log[name] = {"state": state, "seconds": round(time.monotonic() - start, 1)}
        print(f"{name}: {state[:300]} ({log[name]['seconds']} s, {run.left:.0f} s left)", flush=True)
        run.write("stages.json", log)
    return int(any(log[name]["state"] != "done" for name in chosen))


if __name__ == "__main__":
    sys.exit(main())
