"""Playgrounds: explorers that ask a network anew at every move, and what trains a chosen point in the background."""

import contextlib
import html
import multiprocessing
import os
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

import ipywidgets
import numpy as np
import torch
from matplotlib.figure import Figure

from rtkit import attacks, compute, experiment, labels, plots, records
from rtkit.data import glyphs
from rtkit.data.glyphs import Images, World
from rtkit.evaluation import logits
from rtkit.measure.heads import Frozen, rankings
from rtkit.models import Network
from rtkit.threat import ThreatModel
from rtkit.widgets import explorer, slider


def _radii(levels: Sequence[float]) -> list[tuple[str, float]]:
    return [(labels.eps(eps), eps) for eps in levels]


def attack_playground(networks: Mapping[str, Network], images: Images) -> ipywidgets.Widget:
    """Attack an image by hand: choose it, the network attacked, norm, eps and steps; see what both networks say.

    Args:
        networks: by name, with the same classes as the images; an image is attacked on one and shown to all.
    """
    levels = [n / 255 for n in (0, 0.5, 1, 2, 3, 4, 6, 8, 12, 16, 24, 32)]
    controls = [
        slider("image", [(f"{k + 1}: {images.classes[y]}", k) for k, y in enumerate(images.y.tolist())], 0),
        slider("attack on", list(networks)),
        slider("norm", [("l-infinity", "linf"), ("l2 of the same RMS", "l2")]),
        slider("eps", _radii(levels), 4 / 255),
        slider("steps", [(str(n), n) for n in (1, 2, 3, 5, 10)], 10),
    ]

    def draw(figure: Figure, k: int, attacked: str, norm: str, eps: float, steps: int) -> str:
        x, y = compute.to_pixels(images.x[k : k + 1]), images.y[k : k + 1].to(compute.device())
        threat = ThreatModel(norm, eps if norm == "linf" else eps * x[0].numel() ** 0.5)
        generator = torch.Generator(x.device).manual_seed(0)
        x2 = attacks.pgd(networks[attacked], x, y, threat, steps=steps, generator=generator)
        chances = {name: logits(net, x2).softmax(1)[0] for name, net in networks.items()}
        figure.subplots_adjust(0.01, 0.2, 0.98, 0.88)
        pictures, *bars = figure.subplots(1, 1 + len(networks), width_ratios=[2.2] + [1] * len(networks))
        plots.images(torch.cat([x, plots.magnified(x2 - x), x2]), ax=pictures, columns=3)
        pictures.set_title("image, perturbation (magnified), sum", fontsize=11)
        said = []
        for ax, (name, chance) in zip(bars, chances.items(), strict=True):
            plots.top_classes(chance, images.classes, int(y), ax).set_title(f"{name} network", fontsize=11)
            top = int(chance.argmax())
            said.append(f"the {name} network says {images.classes[top]} ({100 * chance[top]:.0f} %)")
        size = f"eps {255 * eps:g}/255" if norm == "linf" else f"eps {threat.eps:.2f}, RMS {255 * eps:g}/255 a pixel"
        moved = 255 * float((x2 - x).abs().max())
        return (
            f"Image {k + 1} ({images.classes[int(y)]}), attacked on the {attacked} network within {norm} {size}, "
            f"{steps} steps; no pixel moved by more than {moved:.1f} of 255 grey levels. Now {', '.join(said)}."
        )

    return explorer(controls, draw, (9, 3), layout=None)


def cue_conflict_studio(networks: Mapping[str, Network], world: World) -> ipywidgets.Widget:
    """Put any letter under any texture; see what each network decides and where its gradient looks."""
    names = glyphs.SOURCE_LETTERS
    letters = [(letter, k) for k, letter in enumerate(names)]
    controls = [
        slider("shape", letters, 0),
        slider("texture of", letters, 1),
        slider("amplitude", _radii([n / 255 for n in (0, 2, 4, 6, 8, 10, 14, 20, 30)]), 14 / 255),
    ]

    def draw(figure: Figure, shape: int, texture: int, amplitude: float) -> str:
        knobs = replace(world, texture_amplitude=amplitude)
        rng, faces = np.random.default_rng(5), glyphs.TEST_FACES
        x = compute.to_pixels(glyphs.draw(names, np.array([shape]), np.array([texture]), knobs, rng, faces=faces))
        figure.subplots_adjust(0.03, 0.2, 0.98, 0.88)
        pictures, *bars = figure.subplots(1, 1 + len(networks), width_ratios=[2.2] + [1] * len(networks))
        shown, said = [x], []
        for ax, (name, net) in zip(bars, networks.items(), strict=True):
            chance = logits(net, x).softmax(1)[0]
            top = chance.argmax()
            with attacks.frozen(net):
                _, grad = attacks.gradient(net, x, top[None], lambda out, k: out.gather(1, k[:, None])[:, 0])
            shown.append(plots.magnified(grad))
            plots.top_classes(chance, names, shape, ax).set_title(f"{name} network", fontsize=11)
            why = {shape: "the shape", texture: "the texture"}.get(int(top), "neither")
            said.append(f"the {name} network says {names[int(top)]} ({100 * chance[top]:.0f} %): {why}")
        plots.images(torch.cat(shown), ax=pictures, columns=len(shown))
        pictures.set_title("image, input gradient of each network", fontsize=11)
        return f"A {names[shape]} under {names[texture]}'s texture, {255 * amplitude:g}/255 strong: {'; '.join(said)}."

    return explorer(controls, draw, (9, 3), layout=None)


def influence_explorer(heads: Mapping[str, Frozen], names: Mapping[str, str], gallery: Callable, count: int = 40):
    """Choose a test image and a way of ranking; see the images ranked first and last, both sources side by side.

    Args:
        heads: by source, on the same training and test images; names: what each ranking is called.
        gallery: (figure, scores by source, index of the test image) -> draws the images ranked first and last.
        count: how many test images to offer.
    """
    first = next(iter(heads.values()))
    count, classes = min(count, len(first.test[1])), first.test_images.classes
    queries = {name: tuple(part[:count] for part in found.test) for name, found in heads.items()}
    ranked = {name: rankings(found.head, found.train, queries[name]) for name, found in heads.items()}
    controls = [
        slider("test image", [(f"{t + 1}: {classes[int(y)]}", t) for t, y in enumerate(first.test[1][:count])]),
        slider("ranked by", [(label, name) for name, label in names.items()]),
    ]

    def draw(figure: Figure, t: int, score: str) -> str:
        gallery(figure, {name: each[score] for name, each in ranked.items()}, t)
        said = []
        for name, found in heads.items():
            chances = (found.test[0][t] @ found.head.weights.T).softmax(0)
            same = int((found.train[1][ranked[name][score][t].topk(10).indices] == found.test[1][t]).sum())
            sure = f"{classes[int(chances.argmax())]} ({100 * float(chances.max()):.0f} %)"
            said.append(f"the {name} source's head says {sure}, {same} of 10 share its label")
        return f"A {classes[int(first.test[1][t])]}, ranked by {names[score]}: {'; '.join(said)}."

    return explorer(controls, draw, (10, 1.9))


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
        self.todo, self.refresh, self.process = [], None, None
        self.button, self.stop = ipywidgets.Button(), ipywidgets.Button(description="cancel", disabled=True)
        self.button.layout.width = "auto"
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
            kit = records.frame(self.rows.__module__.rpartition(".")[2], self.preset)
            about = "" if kit is None else f" (about {experiment.expected(kit, self.preset, self.todo, 1):.0f} s)"
            self.button.description = f"train this point{about}"

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
