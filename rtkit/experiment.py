"""Running the cells of a study: from the cache, from what comes with the kit, or computed, a process for each core."""

import multiprocessing
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from contextlib import nullcontext
from functools import partial

import pandas as pd
import torch
from tqdm import tqdm

from rtkit import STUDIES, compute, presets, records, store
from rtkit.definitions import code
from rtkit.presets import Preset

RUN = ("kit", "mine")
TUNING_SEEDS = (100, 101)  # no verdict uses them


def workers() -> int:
    """How many processes share independent cells: one a core, or one alone where a GPU does the work."""
    if compute.device().type == "cuda":
        return 1
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _prepare_worker() -> None:
    torch.set_num_threads(1)
    torch.set_flush_denormal(True)


def spread(*stages: tuple[Callable, Sequence, str], alone: bool = False) -> list[list]:
    """Run stages of independent tasks one after the other, one process a core with one thread each.

    Args:
        stages: (function, tasks, title); `function(task)` is called for every task, under a progress bar of that title.
        alone: stay in this process, for work that is over before others have started.

    Returns:
        The results of each stage, in the order of its tasks. An error or an interrupt stops what has not begun and is
        raised; what was finished by then stays in the cache.
    """
    count = min(workers(), max(len(tasks) for _, tasks, _ in stages))
    if alone or count <= 1:
        # Such work is too small for a second thread; and on several, torch 2.15 crashes in the backward pass of a
        # network of width 8 when a batch is odd (seen on an AMD EPYC, in float32 as in bfloat16).
        with compute.one_thread() if alone else nullcontext():
            return [[function(task) for task in tqdm(todo, title, mininterval=1)] for function, todo, title in stages]
    compute.bf16()  # one timed probe before every worker wants one
    before = os.environ.get("OMP_NUM_THREADS")
    os.environ["OMP_NUM_THREADS"] = "1"  # children read it when they import torch
    try:
        with ProcessPoolExecutor(count, multiprocessing.get_context("spawn"), _prepare_worker) as pool:
            try:
                return [_stage(pool, *stage) for stage in stages]
            except BaseException:
                pool.shutdown(cancel_futures=True)
                raise
    finally:
        if before is None:
            del os.environ["OMP_NUM_THREADS"]
        else:
            os.environ["OMP_NUM_THREADS"] = before


def _stage(pool: ProcessPoolExecutor, function: Callable, todo: Sequence, title: str) -> list:
    futures = [pool.submit(function, task) for task in todo]
    for future in tqdm(as_completed(futures), title, len(futures), mininterval=1):
        future.result()
    return [future.result() for future in futures]


def load(needed) -> None:
    """Make sure that a source network, or whatever else has a `load`, is in the cache."""
    needed.load()


def _path(rows: Callable, cell):
    return store.cell_path(rows.__module__.rpartition(".")[2], cell.config, code(rows))


def cached(rows: Callable, cell) -> list[dict]:
    """The rows of one cell, from the cache or computed."""
    return store.cell(_path(rows, cell), cell.config, code(rows), lambda: list(rows(cell)))


def compute_cells(rows: Callable, todo: Iterable, alone: bool = False) -> pd.DataFrame:
    """The frame of all rows of some cells, those missing from the cache computed first.

    Args:
        rows: cell -> its rows, a function of `rtkit.measure`.
        todo: cells with an attribute `source`, the network that each needs, or `needs`, things to `load` in this order.
    """
    todo = list(dict.fromkeys(todo))
    missing, made = [cell for cell in todo if not _path(rows, cell).exists()], {}
    if missing:
        needs = [getattr(cell, "needs", None) or (cell.source,) for cell in missing]
        # Long trainings first, so that no core is left alone with one at the end.
        networks = sorted(dict.fromkeys(need[0] for need in needs), key=lambda source: source.kind != "robust")
        others = list(dict.fromkeys(need[1] for need in needs if need[1:]))
        stages = [
            (load, networks, "source networks"),
            (load, others, "attacks"),
            (partial(cached, rows), missing, "cells"),
        ]
        made = dict(zip(missing, spread(*(stage for stage in stages if stage[1]), alone=alone)[-1], strict=True))
    return pd.DataFrame([row for cell in todo for row in made.get(cell) or cached(rows, cell)])


def run(
    rows: Callable,
    cells: Callable[[Preset, int, Sequence[str]], Iterable],
    preset: str,
    seeds: Sequence[int] = (),
    targets: Sequence[str] = (),
    run: str = "kit",
) -> pd.DataFrame:
    """Make the frame of a study, a row per observation: `method, source, target, seed, metric, value, n_test, ...`.

    Accuracies and rates are fractions. `frame.attrs` says the `study`, the `preset`, and whose `run` it is: "kit",
    "mine", or "both" where a reader's own targets stand beside the kit's.

    Args:
        rows: what a cell measures: a function of the module of `rtkit.measure` that has the study's name.
        cells: (preset, seed, targets) -> the cells of one replicate; `targets` are data sets by name, beside the
            study's own.
        seeds: the replicates; none for the preset's own.
        run: "kit" reads what comes with the kit and computes only what it lacks; "mine" leaves the kit's run aside and
            computes everything that is not in the cache.

    At a preset that the study does not run at, the kit's frame at the first preset that it has one for.

    Raises:
        ValueError: no such preset, run or data set; the seeds are no whole numbers.
    """
    if run not in RUN:
        raise ValueError(f"run must be one of {', '.join(RUN)}, got {run!r}")
    chosen, study = presets.get(preset), rows.__module__.rpartition(".")[2]
    if preset not in STUDIES[study][1]:
        return records.any_frame(study)
    seeds, names = presets.replicates(chosen, seeds), tuple(targets)
    alone = chosen.scope is None
    kit = records.frame(study, preset) if run == "kit" else None
    if kit is None or not set(seeds) <= set(kit.seed):
        found = compute_cells(rows, (cell for seed in seeds for cell in cells(chosen, seed, names)), alone)
        found.attrs = {"study": study, "preset": preset, "run": "mine"}
        return found
    kit = kit[kit.seed.isin(seeds)]
    if not names:
        return kit
    own = [cell for seed in seeds for cell in cells(chosen, seed, names) if cell.target in names]
    both = pd.concat([kit, compute_cells(rows, own, alone)], ignore_index=True)
    both.attrs = kit.attrs | {"run": "both"}
    return both


def tune(rows: Callable, tried: Callable[[Preset, int], Iterator[tuple[dict, object]]], preset: str) -> pd.DataFrame:
    """What was tried on the tuning seeds: the mean over them of each metric, in percent, by setting.

    Args:
        rows: cell -> rows with metrics on validation images.
        tried: (preset, seed) -> pairs of a setting, such as {"method": "head", "lr": 0.1}, and its cell. Real source
            networks take minutes each: there one seed tunes.
    """
    chosen = presets.get(preset)
    seeds = TUNING_SEEDS if presets.is_drawn(chosen) else TUNING_SEEDS[:1]
    todo = [pair for seed in seeds for pair in tried(chosen, seed)]
    compute_cells(rows, (cell for _, cell in todo), chosen.scope is None)
    every = [(setting, row) for setting, cell in todo for row in cached(rows, cell)]
    found = pd.DataFrame([setting | {name: row[name] for name in ("metric", "value")} for setting, row in every])
    found = found[found.metric.isin(["validation_accuracy", "clean", "robust"])]
    by = list(dict.fromkeys(name for setting, _ in todo for name in setting))
    return 100 * found.pivot_table(index=by, columns="metric", values="value", sort=False)
