"""The stage `pairs` of gpu.py: sources of the preset cifar, carried to real targets; rows as in the kit's frames."""

import csv
import io
import multiprocessing
import signal
import time
from dataclasses import replace
from pathlib import Path

import torch

from rtkit import compute, evaluation, methods, models, presets, robustness, store
from rtkit.data import named, pictures
from rtkit.data.glyphs import Images
from rtkit.data.pictures import Pictures
from rtkit.data.targets import Target, lower_resolution
from rtkit.presets import Preset
from rtkit.sources import Source
from rtkit.threat import ThreatModel
from rtkit.training import train

TARGETS = [("mnist", 28), ("kmnist", 28), *(("cifar10", size) for size in (32, 16, 12, 8, 6))]
SIZES = (100, 400, 1600)  # training images of a target
LEARNING_RATES = {"fixed_feature": 0.1, "last_stage": 0.3}  # found on real images, at the preset cifar-small
COLUMNS = ("study", "method", "source", "source_eps", "target", "n_train", "seed", "metric", "value", "n_test")
COLUMNS += ("seconds", "gradients", "step", "source_seed", "texture_amplitude", "shape_reliability")
COLUMNS += ("resolution", "source_steps", "n_source")  # these the kit's frames do not have
CELL = ("source", "seed", "target", "resolution", "method", "n_train")  # what tells one cell from another


def pairs(run) -> None:
    """Sources, seed after seed, and what they do on every target; one process a source, several at a time.

    Their tables are kept apart under `run.work` and merged to `run.out / "pairs.csv"` again and again.

    Raises:
        RuntimeError: one of the processes failed.
    """
    folder, merged = run.work / "pairs", run.out / "pairs.csv"
    folder.mkdir(parents=True, exist_ok=True)
    if merged.exists() and not list(folder.glob("*.csv")):  # begun on another machine
        (folder / "earlier.csv").write_bytes(merged.read_bytes())
    preset = shortened(run, rows_of(folder))
    kinds = (("robust", preset.main_eps), ("standard", 0.0), ("noise", preset.main_eps))
    todo = [(*kind, seed) for seed in run.seeds for kind in kinds]
    spawn, active, failed = multiprocessing.get_context("spawn"), {}, []
    least = 10 + 2 * preset.source_steps * run.seconds["step"]  # with less, hardly a cell would follow the training
    while active or (todo and run.left > least):
        while todo and len(active) < run.workers and run.left > least:
            one, *todo = todo
            active[one] = spawn.Process(target=unit, args=(preset, *one, folder, run.deadline))
            active[one].start()
        time.sleep(0.5)
        for one, process in list(active.items()):
            if not process.is_alive() or run.left < 1:
                process.terminate()
                process.join()
                failed += [one] if active.pop(one).exitcode not in (0, -signal.SIGTERM) else []
        merge(folder, merged)
    print(f"pairs: {preset.source_steps} source steps, {len(rows_of(folder))} rows, not begun: {todo}", flush=True)
    if failed:
        raise RuntimeError(f"the processes of {failed} failed")


def shortened(run, earlier: list[dict]) -> Preset:
    """The preset cifar with the source images that are there, and the source steps that leave time for the targets.

    Args:
        earlier: rows of a run that is taken up again, whose steps are kept.
    """
    preset, there = presets.get("cifar"), named.arrays("cifar100", 32)
    if run.tiny:
        world = Pictures("cifar100", pool=40, validation=20, test=20)
        preset = replace(preset, architecture="small-8", n_source=32, source_steps=3, steps=2, world=world)
    if earlier:
        steps = int(earlier[0]["source_steps"])
    else:
        # At the pace of one process, or of the device shared by all: a seed's three sources are two robust ones' work.
        each = 1.2 * max(run.seconds["step"], run.seconds["large"] * 2 * max(1, run.workers // 3))
        steps = max(3, int(0.35 * run.left / each) // 100 * 100)
    limits = {"n_source": len(there["y_train"]), "n_source_test": len(there["y_test"]), "source_steps": steps}
    return replace(preset, **{name: min(getattr(preset, name), value) for name, value in limits.items()})


def unit(preset: Preset, kind: str, eps: float, seed: int, folder: Path, deadline: float) -> None:
    """In a process of its own: train one source, then score it on its own task and on one target cell after another."""
    torch.set_num_threads(1)
    source = Source.of(preset, kind, eps, seed)
    net, trained = source.load()
    done = {tuple(row[name] for name in CELL) for row in rows_of(folder)}
    blank = dict.fromkeys(COLUMNS, 0) | {"study": "transfer", "source": kind, "source_eps": eps, "seed": seed}
    blank |= {"source_seed": seed, "texture_amplitude": "nan", "shape_reliability": "nan"}
    blank |= {"source_steps": preset.source_steps, "n_source": preset.n_source}

    def missing(cell: dict) -> bool:
        return tuple(str((blank | cell)[name]) for name in CELL) not in done

    def add(scores: dict[str, tuple[float, int]], **columns) -> None:
        path, text = folder / f"{kind}-{seed}.csv", io.StringIO()
        table = csv.DictWriter(text, COLUMNS)
        if not path.exists():
            table.writeheader()
        for metric, (value, n) in scores.items():
            table.writerow(blank | columns | {"metric": metric, "value": value, "n_test": n})
        with path.open("a") as file:
            file.write(text.getvalue())

    own = {"target": "source", "resolution": preset.world.size, "method": "none"}
    if missing(own):
        images = source.images("test", preset.n_source_test)
        attacked = robustness.robustness(net, images[:256], ThreatModel("linf", preset.main_eps), steps=10, seed=seed)
        scores = {"clean_accuracy": (evaluation.accuracy(net, images), len(images))}
        scores |= {"robust_accuracy": (attacked.robust, attacked.n_test)}
        scores |= {"self_check_warnings": (len(attacked.warnings), attacked.n_test)}
        scores |= {"collapsed": (float(trained["collapsed"]), 64)}
        add(scores, **own, seconds=trained["seconds"], gradients=trained["gradients"])
    tasks = {one: target(preset, *one, seed) for one in TARGETS}
    pool = min(len(task.pool) for task in tasks.values())
    for n in sorted({min(n, pool) for n in SIZES}):  # size by size: when time is over, all sources have the same cells
        for (name, resolution), task in tasks.items():
            for method, lr in LEARNING_RATES.items():
                cell = {"target": name, "resolution": resolution, "method": method, "n_train": n}
                if time.monotonic() > deadline - 4:
                    return
                if not missing(cell):
                    continue
                budget = {"steps": preset.steps, "lr": lr, "batch_size": preset.batch_size}
                phases = methods.transfer(method, blocks=models.blocks(preset.architecture), **budget).phases
                student = models.with_new_head(net, len(task.classes), seed)
                with compute.stopwatch() as seconds:
                    history = train(student, task.subset(n, seed), phases, seed)
                cost = {"seconds": seconds(), "gradients": history.gradients, "step": preset.steps}
                parts = {"clean_accuracy": task.test, "validation_accuracy": task.validation}
                scores = {metric: (evaluation.accuracy(student, part), len(part)) for metric, part in parts.items()}
                add(scores, **cell, **cost)


def target(preset: Preset, name: str, resolution: int, seed: int) -> Target:
    """A target as the kit cuts it; where its own resolution is not the one asked for, reduced and enlarged again."""
    world = preset.world
    task = pictures.target(name, seed, world.size, world.pool, world.validation, world.test)
    if (name, resolution) in (("mnist", 28), ("kmnist", 28), ("cifar10", 32)):
        return task
    parts = (task.pool, task.validation, task.test)
    return Target(*(Images(lower_resolution(part.x, resolution), part.y, part.classes) for part in parts))


def rows_of(folder: Path) -> list[dict]:
    """The rows of all tables in a folder; of one that was cut short, the whole ones."""
    rows = [row for path in sorted(folder.glob("*.csv")) for row in csv.DictReader(io.StringIO(path.read_text()))]
    return [row for row in rows if None not in row and None not in row.values()]


def merge(folder: Path, path: Path) -> None:
    """Write all rows of a folder as one table."""
    text = io.StringIO()
    table = csv.DictWriter(text, COLUMNS, lineterminator="\n")
    table.writeheader()
    table.writerows(rows_of(folder))
    store.write_atomically(path, text.getvalue().encode())
