"""Running the cells of a study: from what comes with the kit, from the cache, or computed, a process for each core."""

import os
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from itertools import count

import joblib
import pandas as pd
import torch
from tqdm import tqdm

from rtkit import STUDIES, TUNING, cluster, compute, presets, protocols, records, store, tasks
from rtkit.definitions import code
from rtkit.knobs import several
from rtkit.presets import Preset

RUN = ("kit", "live", "mine")
PATIENCE = 60.0  # seconds that a notebook may compute unasked


def workers() -> int:
    """How many processes share independent cells: one a core, or where GPUs do the work, one a GPU."""
    if compute.device().type == "cuda":
        return torch.cuda.device_count()
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _work(function: Callable, number: int, task, kit: bool) -> tuple[int, object]:
    torch.set_num_threads(1)
    torch.set_flush_denormal(True)
    store.kit = kit
    return number, function(task)


def spread(*stages: tuple[Callable, Sequence, str], alone: bool = False) -> list[list]:
    """Run stages of independent tasks one after the other, one process a core with one thread each.

    Where RTKIT_CLUSTER names the scheduler of a Dask cluster, its workers share the tasks (`rtkit.cluster`).

    Args:
        stages: (function, tasks, title); `function(task)` is called for every task, under a progress bar of that title.
        alone: stay in this process, for work that is over before others have started.

    Returns:
        The results of each stage, in the order of its tasks. An error or an interrupt stops what has not begun and is
        raised; what was finished by then stays in the cache.
    """
    number = min(workers(), max(len(tasks) for _, tasks, _ in stages))
    if alone or (number <= 1 and not cluster.address()):
        # Such work is too small for a second thread; and on several, torch 2.15 crashes in the backward pass of a
        # network of width 8 when a batch is odd (seen on an AMD EPYC, in float32 as in bfloat16).
        with compute.one_thread():
            return [[function(task) for task in tqdm(todo, title, mininterval=1)] for function, todo, title in stages]
    compute.bf16()  # one timed probe before every worker wants one
    with cluster.backend(number):
        return [_stage(*stage) for stage in stages]


def _stage(function: Callable, todo: Sequence, title: str) -> list:
    calls = (joblib.delayed(_work)(function, number, task, store.kit) for number, task in enumerate(todo))
    done = joblib.Parallel(return_as="generator_unordered", pre_dispatch="all", batch_size=1)(calls)
    return [found for _, found in sorted(tqdm(done, title, len(todo), mininterval=1), key=lambda pair: pair[0])]


def use(run: str) -> None:
    """Say whose networks may be read: with "kit" and "live" those that come with the kit, with "mine" only runs/.

    Raises:
        ValueError: `run` is none of these.
    """
    if run not in RUN:
        raise ValueError(f"run must be one of {', '.join(RUN)}, got {run!r}")
    store.kit = run != "mine"


def study_of(rows: Callable) -> str:
    """The study whose cells a function measures."""
    return rows.__module__.rpartition(".")[2]


def load(needed) -> None:
    """Make sure that a source network, or whatever else has a `load`, is in the cache."""
    needed.load()


def cached(rows: Callable, cell) -> dict:
    """One cell, from the cache or computed: its `rows`, and by which `code` they were `made`, on what, and when."""
    return store.cell(study_of(rows), cell.config, code(rows), lambda: list(rows(cell)))


def compute_cells(rows: Callable, todo: Iterable, alone: bool = False) -> pd.DataFrame:
    """The frame of all rows of some cells, those missing from the cache computed first.

    Its column `cell` tells which rows belong together (`store.name`), and `attrs["made"]` how all were made.

    Args:
        rows: cell -> its rows, a function of `rtkit.measure`.
        todo: cells with an attribute `source`, the network that each needs, or `needs`, things to `load` in this order.
    """
    todo = list(dict.fromkeys(todo))
    missing, made = [cell for cell in todo if not is_cached(rows, cell)], {}
    if missing:
        networks, others = _needs(missing)
        stages = [
            (load, networks, "source networks"),
            (load, others, "attacks"),
            (partial(cached, rows), missing, "cells"),
        ]
        made = dict(zip(missing, spread(*(stage for stage in stages if stage[1]), alone=alone)[-1], strict=True))
    found = [(cell, made.get(cell) or cached(rows, cell)) for cell in todo]
    frame = pd.DataFrame([row | {"cell": store.name(cell)} for cell, one in found for row in one["rows"]])
    frame.attrs["made"] = records.summary(one for _, one in found)
    if other := records.upgraded(frame.attrs["made"]):
        message = f"some cells in {store.RUNS} were computed with {', '.join(other)}; delete them to compute them anew"
        warnings.warn(message, stacklevel=2)
    return frame


def _needs(cells: Sequence) -> tuple[list, list]:
    """The source networks that cells need, and what is made of these before the cells are computed."""
    needs = [getattr(cell, "needs", None) or (cell.source,) for cell in cells]
    # Long trainings first, so that no core is left alone with one at the end.
    networks = sorted(dict.fromkeys(need[0] for need in needs), key=lambda source: source.kind != "robust")
    return networks, list(dict.fromkeys(need[1] for need in needs if need[1:]))


def is_cached(rows: Callable, cell) -> bool:
    """Whether a cell is in the cache."""
    return store.cell_path(study_of(rows), cell.config, code(rows)).exists()


def expected(kit: pd.DataFrame, preset: str, cells: Sequence, processes: int | None = None) -> float:
    """Seconds that some cells will take here, as long each as the kit's own of this study took, sources included."""
    each = sum(one["seconds"] for one in kit.attrs["made"]) / sum(one["cells"] for one in kit.attrs["made"])
    sources, others = _needs(cells)
    made = len([source for source in sources if not source.is_there()]) + len(others)  # attacks take about as long
    trained = records.frame("transfer", preset) if made else None  # an explorer asks at every move
    network = 0.0 if trained is None else trained[trained.target == "source"].groupby("cell").seconds.max().mean()
    return (len(cells) * each + made * network) / (processes or workers())


def run(
    rows: Callable,
    cells: Callable[[Preset, int, Sequence[str]], Iterable],
    preset: str,
    seeds: Sequence[int] = (),
    targets: Sequence[str] = (),
    run: str = "kit",
    changed: dict | None = None,
) -> pd.DataFrame:
    """Make the frame of a study, a row per observation: `method, source, target, seed, metric, value, n_test, ...`.

    Accuracies and rates are fractions. `frame.attrs` says the `study`, the `preset`, whose `run` it is ("kit", "mine",
    or "both" where computed rows stand beside the kit's), which knobs were `changed`, a `live` replicate if there is
    one, and how its cells were `made`.

    Args:
        rows: what a cell measures: a function of the module of `rtkit.measure` that has the study's name.
        cells: (preset, seed, targets) -> the cells of one replicate; `targets` are data sets by name, beside the
            study's own.
        seeds: the replicates; none for the kit's, or those of the protocol, or the preset's own.
        run: "kit" reads what comes with the kit, and computes what it lacks if that takes under a minute; "live"
            computes what it lacks however long it takes, or, where it lacks nothing, one replicate more; "mine" leaves
            the kit's run aside and computes everything that is not in the cache.
        changed: knobs of the grid by name that are not the preset's own; then the kit's cells are read one by one.

    At a preset that the study does not run at, the kit's frame at the first preset that it has one for.

    Raises:
        ValueError: no such preset, run or data set; the seeds are no whole numbers; knobs where the study does not run;
            or it would take too long.
    """
    use(run)
    chosen, study = presets.get(preset), study_of(rows)
    if preset not in STUDIES[study][1]:
        if changed:
            there = f"{study} runs at {', '.join(STUDIES[study][1])}"
            raise ValueError(f"{', '.join(changed)} cannot change the kit's frame that {preset} shows: {there}")
        return records.any_frame(study)
    kit = records.frame(study, preset) if run != "mine" else None
    protocol = protocols.current(study, preset) or {"seeds": ()}
    seeds = presets.replicates(chosen, seeds if several(seeds) else protocol["seeds"] if kit is None else set(kit.seed))
    names = tasks.own(targets, cells(chosen, seeds[0], ()))
    facts = {"study": study, "preset": preset, "run": "mine", "changed": changed or {}}
    alone = chosen.scope is None
    if kit is None:
        if run != "mine" and not alone:
            raise ValueError(f'no {study} at {preset} comes with the kit; run = "mine" computes it (docs/costs.md)')
        protocols.allow(study, preset, set(seeds))
        found = compute_cells(rows, (cell for seed in seeds for cell in cells(chosen, seed, names)), alone)
        found.attrs |= facts
        return found
    whole = not facts["changed"] and set(seeds) <= set(kit.seed)
    asked = [] if whole and not names else dict.fromkeys(cell for seed in seeds for cell in cells(chosen, seed, names))
    there = set(kit.cell)
    lacking = [cell for cell in asked if store.name(cell) not in there and (not whole or cell.target in names)]
    found = kit[kit.seed.isin(seeds) if whole else kit.cell.isin([store.name(cell) for cell in asked])]
    if run == "live" and not lacking:
        facts["live"] = next(seed for seed in count() if seed not in set(kit.seed))
        lacking = list(dict.fromkeys(cells(chosen, facts["live"], ())))
    if not lacking:
        found.attrs = facts | {"run": "kit", "made": kit.attrs["made"]}
        return found
    seconds = expected(kit, preset, lacking)
    if run == "kit" and seconds > PATIENCE:
        raise ValueError(
            f"{len(lacking)} cells do not come with the kit; computing them would take about {seconds / 60:.0f} "
            'minutes here: set run = "live", and they are computed once and kept'
        )
    protocols.allow(study, preset, set(seeds))
    own = compute_cells(rows, lacking, alone)
    both = pd.concat([found, own], ignore_index=True)
    made = records.Made((*kit.attrs["made"], *own.attrs["made"]))
    both.attrs = facts | {"run": "both" if len(found) else "mine", "made": made}
    return both


def tune(rows: Callable, tried: Callable[[Preset, int], Iterator[tuple[dict, object]]], preset: str) -> pd.DataFrame:
    """What was tried on the tuning seeds: the mean over them of each metric, in percent, by setting.

    Args:
        rows: cell -> rows with metrics on validation images.
        tried: (preset, seed) -> pairs of a setting, such as {"method": "head", "lr": 0.1}, and its cell. Real source
            networks take minutes each: there one seed tunes.
    """
    chosen = presets.get(preset)
    seeds = TUNING[: 2 if presets.is_drawn(chosen) else 1]
    todo = [pair for seed in seeds for pair in tried(chosen, seed)]
    compute_cells(rows, (cell for _, cell in todo), chosen.scope is None)
    every = [(setting, row) for setting, cell in todo for row in cached(rows, cell)["rows"]]
    found = pd.DataFrame([setting | {name: row[name] for name in ("metric", "value")} for setting, row in every])
    found = found[found.metric.isin(["validation_accuracy", "clean", "robust"])]
    by = list(dict.fromkeys(name for setting, _ in todo for name in setting))
    return 100 * found.pivot_table(index=by, columns="metric", values="value", sort=False)
