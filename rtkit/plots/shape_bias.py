"""The figures of notebook 02."""

import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes

from rtkit.plots import COLOURS, MARKERS, axes, bars, differences, summary
from rtkit.shape_bias import CHANGES

COPIES = {"own": "as it is", "swapped": "texture-swapped", "low": "down-scaled"}
BASES = {
    "digits": ("digits", "#0072B2", "o"),
    "lower": ("lower case", "#D55E00", "s"),
    "greek": ("Greek", "#009E73", "D"),
}


def by_change(frame: pd.DataFrame, ax: Axes | None = None) -> Axes:
    """Accuracy on images of the source classes with one cue changed, a series per source network."""
    ax = axes(ax, (9, 4))
    table = summary(frame[(frame.target == "source") & (frame.metric == "clean_accuracy")], ["source", "change"])
    order = list(CHANGES)
    for k, name in enumerate([name for name in COLOURS if name in set(table.source)]):
        part = table[table.source == name]
        place = [order.index(change) + 0.2 * (k - 1) for change in part.change]
        bars(ax, place, part, label=name, color=COLOURS[name], marker=MARKERS[name], ls="none")
    ax.set_xticks(range(len(order)), [change.replace(" ", "\n") for change in order])
    ax.axhline(5, color="black", lw=1, ls=":")
    ax.set(ylabel="source test accuracy (%)", xlabel="what was changed (dotted: chance)", ylim=(-3, 103))
    ax.legend(title="source", loc="upper left", bbox_to_anchor=(1, 1))
    return ax


def copies(frame: pd.DataFrame, ax: Axes | None = None) -> Axes:
    """Lead of the robust source on a target with a fine cue of its own and on its copies, a series per target."""
    ax = axes(ax, (7, 4))
    frame = frame[(frame.method == "last_stage") & (frame.metric == "clean_accuracy")]
    table = summary(differences(frame, ["target"]), ["target"])
    for k, (base, (label, colour, marker)) in enumerate(BASES.items()):
        part = table.set_index("target").reindex([f"{base}:{copy}" for copy in COPIES])
        bars(ax, np.arange(len(COPIES)) + 0.12 * (k - 1), part, label=label, color=colour, marker=marker)
    ax.axhline(0, color="black", lw=1)
    ax.set_xticks(range(len(COPIES)), list(COPIES.values()))
    ax.set(xlabel="copy of the target", ylabel="robust minus standard (points)")
    ax.legend(title="target")
    return ax


def bias_map(frame: pd.DataFrame, ax: Axes | None = None) -> Axes:
    """Shape bias in percent over the texture amplitude of the test images (columns) and the source network (rows)."""
    ax = axes(ax, (7.5, 3.5))
    rows = frame[frame.metric == "shape_bias"]
    radius = (255 * rows.source_eps).map(" eps {:g}/255".format)
    rows = rows.assign(network=rows.source + radius.where(rows.source == "robust", ""), order=rows.source_eps)
    rows = rows.assign(order=rows.order.where(rows.source != "randomised", -1))
    grid = rows.pivot_table(index=["order", "network"], columns="test_amplitude", values="value").droplevel(0)
    sns.heatmap(100 * grid, ax=ax, cmap="cividis", vmin=0, vmax=100, annot=True, fmt=".0f", linewidths=1,
                cbar_kws={"label": "shape bias (%)"})  # fmt: skip
    ax.set_xticks(np.arange(grid.shape[1]) + 0.5, [f"{255 * value:g}" for value in grid.columns], rotation=0)
    ax.tick_params(axis="y", rotation=0)
    ax.set(xlabel="texture amplitude of the test images (n/255)", ylabel="")
    return ax


def bias_and_transfer(table: pd.DataFrame, ax: Axes | None = None) -> Axes:
    """Transfer accuracy against shape bias, a point per source network (`shape_bias_effects.with_transfer`)."""
    ax = axes(ax)
    for name, part in table.groupby("source"):
        ax.plot(part.bias, part.transfer, MARKERS[name], color=COLOURS[name], label=name, alpha=0.8)
    ax.set(xlabel="shape bias of the source (%)", ylabel="transfer accuracy (%)")
    ax.legend(title="source", loc="center")
    return ax
