"""The figures of notebook 02's section on real images."""

from collections.abc import Mapping

import numpy as np
import pandas as pd
import torch
from matplotlib.axes import Axes

from rtkit.plots import COLOURS, MARKERS, axes, images, summary
from rtkit.studies.cue_conflict import ALL, FOLDER, KINDS, Stimuli


def by_class(frame: pd.DataFrame, ax: Axes | None = None) -> Axes:
    """Shape bias of each kind of source network, a row for each class of the stimuli's shape and one for all.

    As figure 4 of Geirhos et al. 2019, who count from the texture's side.
    """
    rows = frame[(frame.target == FOLDER) & (frame.metric == "shape_bias")]
    names = [*sorted(set(rows["shape"]) - {ALL}, reverse=True), ALL]
    ax = axes(ax, (8, 0.55 * len(names) + 1.2))
    table = summary(rows, ["source", "shape"])
    for k, kind in enumerate(kind for kind in KINDS if kind in set(table.source)):
        part = table[table.source == kind].set_index("shape").reindex(names)
        place = np.arange(len(names)) + 0.2 * (1 - k)
        errors = np.nan_to_num(np.vstack([part["mean"] - part["low"], part["high"] - part["mean"]]))
        ax.errorbar(part["mean"], place, xerr=errors, ls="none", capsize=3, lw=1.4, ms=7, label=kind,
                    color=COLOURS[kind], marker=MARKERS[kind])  # fmt: skip
    ax.axhline(len(names) - 1.5, color="black", lw=1)
    ax.axvline(50, color="#7F7F7F", lw=1, ls=":")
    ax.set_yticks(range(len(names)), names)
    ax.set(
        xlim=(-2, 102), xlabel="shape bias (%); dotted: as often by shape as by texture", ylabel="class of the shape"
    )
    ax.legend(title="source", loc="upper left", bbox_to_anchor=(1, 1))
    return ax


def strip(found: Stimuli, decided: Mapping[str, torch.Tensor], ax: Axes | None = None) -> Axes:
    """A stimulus of each shape, each of another texture where there is one, and what each network takes it for.

    Args:
        decided: by the network's name, (N,) indices into the stimuli's classes.
    """
    chosen, used = [], set()
    for k in sorted(set(found.shape.tolist())):
        of_shape = (found.shape == k).nonzero()[:, 0].tolist()
        pick = next((at for at in of_shape if int(found.texture[at]) not in used), of_shape[0])
        chosen.append(pick)
        used.add(int(found.texture[pick]))
    ax = images(found.x[chosen], ax=axes(ax, (1.5 * len(chosen) + 1.5, 2.8)), columns=len(chosen))
    size = found.x.shape[-1]
    given = {"shape": found.shape, "texture": found.texture} | dict(decided)
    for at, pick in enumerate(chosen):
        words = "\n".join(found.names[int(values[pick])] for values in given.values())
        ax.text((at + 0.5) * size, 1.1 * size, words, ha="center", va="top", fontsize=10)
    ax.text(-0.1 * size, 1.1 * size, "\n".join(given), ha="right", va="top", fontsize=10, style="italic")
    ax.set_title("A stimulus of each shape, and what the networks take it for")
    return ax
