"""The button of an explorer that trains a chosen point in the background."""

import contextlib
import html
import multiprocessing
import os
import sys
import threading
import time
from collections.abc import Callable, Sequence

import ipywidgets

from rtkit import experiment, records


class Trainer:
    """A button for an explorer that computes a setting which the frame lacks, in a process of its own.

    Args:
        rows: what a cell measures, see `experiment.run`.
        preset: whose cells tell how long it will take.
        cells: values of the controls -> the cells to compute; none where the frame has the setting.
        join: the frame of those cells -> None; adds it to what the explorer draws.
    """

    def __init__(self, rows: Callable, preset: str, cells: Callable[..., Sequence], join: Callable):
        self.rows, self.preset, self.cells, self.join = rows, preset, cells, join
        self.kit = records.frame(experiment.study_of(rows), preset)
        self.todo, self.refresh, self.process = [], None, None
        self.button = ipywidgets.Button(layout={"width": "auto"})
        self.stop = ipywidgets.Button(description="cancel", disabled=True)
        self.progress = ipywidgets.HTML()
        self.button.on_click(lambda _: self.start())
        self.stop.on_click(lambda _: self.process.terminate())
        self.box = ipywidgets.VBox([self.button, self.stop, self.progress])

    def follow(self, values: Sequence, refresh: Callable[[], None]) -> None:
        """Offer to compute the setting that the controls show; called at every move."""
        if self.process:
            return
        self.todo, self.refresh = list(self.cells(*values)), refresh
        self.button.disabled = not self.todo
        self.button.description = "train this point: it is there already"
        if self.todo:
            seconds = "" if self.kit is None else f"{experiment.expected(self.kit, self.preset, self.todo, 1):.0f}"
            self.button.description = "train this point" + (f" (about {seconds} s)" if seconds else "")

    def start(self) -> None:
        """Compute in the background; the process and a thread that waits for it end by themselves."""
        self.button.disabled, self.stop.disabled = True, False
        context = multiprocessing.get_context("spawn")
        failure, sender = context.Pipe(duplex=False)
        self.process = context.Process(target=_train, args=(self.rows, self.todo, sender), daemon=True)
        self.process.start()
        threading.Thread(target=self._wait, args=(failure,), daemon=True).start()

    def _wait(self, failure) -> None:
        since = time.monotonic()
        while self.process.is_alive():
            done = sum(experiment.is_cached(self.rows, cell) for cell in self.todo)
            self.progress.value = f"{done} of {len(self.todo)} trained, {time.monotonic() - since:.0f} s"
            self.process.join(0.5)
        status = self.process.exitcode
        if status == 0:
            self.join(experiment.compute_cells(self.rows, self.todo, alone=True))
        self.process, self.stop.disabled = None, True
        self.refresh()
        failed = f"failed: {html.escape(failure.recv())}" if status == 1 else "cancelled"
        self.progress.value = failed if status else "done"


def _train(rows: Callable, cells: Sequence, failure) -> None:
    try:
        with open(os.devnull, "w", encoding="utf-8") as quiet, contextlib.redirect_stderr(quiet):
            experiment.compute_cells(rows, cells, alone=True)
    except Exception as error:
        failure.send(f"{type(error).__name__}: {error}")
        sys.exit(1)
