"""The studies: one module per notebook, each making that notebook's whole frame, cell by cell, without Jupyter."""

import multiprocessing
import os
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from contextlib import nullcontext

import pandas as pd
import torch
from tqdm import tqdm

from rtkit import compute, presets, tasks
from rtkit.data.targets import NAMES
from rtkit.studies.influence_heads import one_thread

# Training computes in bfloat16 where that pays; what is left in float32, decisions above all, is meant to be float32.
torch.backends.cudnn.allow_tf32 = False


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
        with one_thread() if alone else nullcontext():
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


def size(study: str, plans: Mapping, preset: str):
    """How much of a study a preset runs.

    Raises:
        ValueError: the study has no plan at this preset.
    """
    if preset not in plans:
        raise ValueError(f"the study {study} does not run at the preset {preset!r}, only at {', '.join(plans)}")
    return plans[preset]


def sizes(wanted: Sequence[int], target: str, world, seed: int, parts: int = 1) -> tuple[int, ...]:
    """Those numbers of training images that a target has; if none fits, all that it has.

    Args:
        parts: how many share the images; there must be enough for each to have one of every class.
    """
    if target in NAMES:
        return tuple(wanted)
    task = tasks.target(target, world, seed)  # seconds for large images: once for both questions
    return tuple(n for n in wanted if parts * len(task.classes) <= n <= len(task.pool)) or (len(task.pool),)


def load_source(source) -> None:
    """Make sure that a source network is in the cache."""
    source.load()


def frame(preset: str, todo: Sequence, rows: Callable, is_cached: Callable) -> pd.DataFrame:
    """Make the frame of a study: the rows of all its cells, those missing from the cache computed first.

    Args:
        todo: cells with an attribute `source`, the network that each needs.
        rows: cell -> its rows, from the cache or computed; is_cached: cell -> whether they only have to be read.
    """
    missing = [cell for cell in todo if not is_cached(cell)]
    if missing:
        # Long trainings first, so that no core is left alone with one at the end.
        needed = sorted(dict.fromkeys(cell.source for cell in missing), key=lambda source: source.kind != "robust")
        stages = ((load_source, needed, "source networks"), (rows, missing, "cells"))
        spread(*stages, alone=presets.get(preset).scope is None)
    return pd.DataFrame([row for cell in todo for row in rows(cell)])
