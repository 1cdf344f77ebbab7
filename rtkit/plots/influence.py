"""The figures of notebook 03."""

from collections.abc import Mapping, Sequence

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from rtkit.data.glyphs import Images
from rtkit.plots import COLOURS, axes, bars, differences, summary

SCORES = {
    "influence": "influence (Utrera et al.)",
    "absolute": "|influence|",
    "products": "gradient products (TracIn)",
    "predicted": "influence on the predicted label's loss",
    "kernel": "kernel without labels",
    "neighbours": "nearest neighbours",
}
_DASH = {"self_influence": "-", "loss": "--"}
_NAMES = {"self_influence": "self-influence", "loss": "training loss"}
_POINTS = {
    "first order": ("#0072B2", "o"),
    "Newton step": ("#009E73", "D"),
    "gradient products, rescaled": ("#7F7F7F", "x"),
}


def match_by_rank(frame: pd.DataFrame, ax: Axes | None = None) -> Axes:
    """Share of k-th ranked training images with the test image's label, against k; a band for the 95 % interval."""
    ax = axes(ax)
    table = summary(frame, ["source", "rank"])
    for name in [name for name in COLOURS if name in set(table.source)]:
        part = table[table.source == name]
        ax.plot(
            part["rank"], part["mean"], color=COLOURS[name], lw=2, ls="-" if name == "standard" else "--", label=name
        )
        ax.fill_between(part["rank"], part.low, part.high, color=COLOURS[name], alpha=0.2, lw=0)
    ax.axhline(10, color="black", lw=1, ls=":")
    ax.set_xscale("log")
    ax.set_xticks([1, 2, 5, 10, 20, 50, 100], ["1", "2", "5", "10", "20", "50", "100"])
    ax.minorticks_off()
    ax.set(xlabel="rank of the training image", ylabel="same label (%)", ylim=(0, 102))
    ax.legend(title="source", loc="lower left")
    return ax


def match_by_score(frame: pd.DataFrame, ax: Axes | None = None) -> Axes:
    """Top-1 label match of both sources, for every way to rank training images, with 95 % intervals."""
    ax = axes(ax, (7.5, 3.8))
    table = summary(frame, ["source", "score"])
    names = [name for name in SCORES if name in set(table.score)]
    for k, (source, marker) in enumerate((("standard", "o"), ("robust", "D"))):
        part = table[table.source == source].set_index("score").reindex(names)
        errors = np.nan_to_num(np.vstack([part["mean"] - part.low, part.high - part["mean"]]))
        place = np.arange(len(names)) + 0.2 * (k - 0.5)
        look = {"color": COLOURS[source], "fmt": marker, "capsize": 3, "ms": 7}
        ax.errorbar(part["mean"], place, xerr=errors, label=source, **look)
    ax.set_yticks(range(len(names)), [SCORES[name] for name in names])
    ax.invert_yaxis()
    ax.set(xlabel="top-ranked training image has the test image's label (%)", xlim=(0, 102))
    ax.legend(title="source", loc="lower left")
    return ax


def match_by_target(frame: pd.DataFrame, names: Sequence[str]) -> Figure:
    """`match_by_score` for each of these targets, with as few training images as it was run with, in one figure."""
    size = (4.5 + 3.2 * len(names), 3.8)
    figure, panels = plt.subplots(1, len(names), figsize=size, layout="constrained", squeeze=False)
    for ax, name in zip(panels[0], names, strict=True):
        part = frame[(frame.target == name) & (frame.metric == "top1_match")]
        n = int(part.n_train.min())
        match_by_score(part[part.n_train == n], ax).set_title(f"{name}, {n} images")
        ax.set_xlabel("ranked first: same label (%)")
        if ax is not panels[0, 0]:
            ax.set_yticklabels([])
        ax.get_legend().remove()
    panels[0, -1].legend(title="source", loc="upper left", bbox_to_anchor=(1, 1))
    return figure


def match_gains(frame: pd.DataFrame, ax: Axes | None = None) -> Axes:
    """Robust minus standard source in top-1 label match, by way of ranking and number of training images."""
    ax = axes(ax, (7.5, 3.8))
    table = summary(differences(frame, ["score", "n_train"]), ["score", "n_train"])
    names = [name for name in SCORES if name in set(table.score)]
    sizes = sorted(table.n_train.unique())
    for k, n in enumerate(sizes):
        part = table[table.n_train == n].set_index("score").reindex(names)
        errors = np.nan_to_num(np.vstack([part["mean"] - part.low, part.high - part["mean"]]))
        place = np.arange(len(names)) + 0.2 * (k - 0.5)
        look = {"color": ("#0072B2", "#E69F00")[k % 2], "fmt": "os"[k % 2], "capsize": 3, "ms": 7}
        ax.errorbar(part["mean"], place, xerr=errors, label=str(n), **look)
    ax.axvline(0, color="black", lw=1)
    ax.set_yticks(range(len(names)), [SCORES[name] for name in names])
    ax.invert_yaxis()
    ax.set(xlabel="top-1 label match, robust minus standard (points)")
    ax.legend(title="training images", loc="upper left", bbox_to_anchor=(1, 1))
    return ax


def loo_scatter(predicted: Mapping[str, torch.Tensor], true: torch.Tensor, ax: Axes | None = None) -> Axes:
    """Predicted against true change of test losses when one training image is left out, one series per method."""
    ax = axes(ax, (5, 4.4))
    truth = 1000 * true.flatten().numpy()
    for name, scores in predicted.items():
        colour, marker = _POINTS.get(name, ("#CC79A7", "s"))
        values = 1000 * scores.flatten().numpy()
        ax.plot(truth, values, marker, color=colour, ms=4, alpha=0.5, ls="none", label=name, rasterized=True)
    limit = [float(truth.min()), float(truth.max())]
    ax.plot(limit, limit, color="black", lw=1)
    ax.set(xlabel="true change of a test loss (1/1000 nats)", ylabel="predicted change (1/1000 nats)")
    ax.legend(loc="upper left")
    return ax


def found_by_inspection(frame: pd.DataFrame, ax: Axes | None = None) -> Axes:
    """Share of the wrong labels found against the share of training images inspected, most suspicious first."""
    ax = axes(ax)
    table = summary(frame, ["source", "score", "rank"])
    for source in ("standard", "robust"):
        for score, dash in _DASH.items():
            part = table[(table.source == source) & (table.score == score)]
            ax.plot(part["rank"], part["mean"], dash, color=COLOURS[source], lw=2, label=f"{source}, {_NAMES[score]}")
    ax.plot([0, 100], [0, 100], color="black", lw=1, ls=":", label="at random")
    ax.set(xlabel="training images inspected (%)", ylabel="wrong labels found (%)", ylim=(0, 102), xlim=(0, 100))
    ax.legend(loc="lower right", fontsize=9)
    return ax


def removals(frame: pd.DataFrame, ax: Axes | None = None) -> Axes:
    """Change of a test image's loss when k images are removed, predicted and measured, helpful ones and random ones."""
    ax = axes(ax)
    frame = frame.assign(value=frame.value / 100)  # `summary` counts in percent; these are nats
    table = summary(frame, ["source", "score", "metric"])
    groups = [
        (score, metric) for score in ("helpful", "random") for metric in ("removal_predicted", "removal_measured")
    ]
    for k, source in enumerate(("standard", "robust")):
        part = table[table.source == source].set_index(["score", "metric"]).reindex(groups)
        place = np.arange(4) + 0.2 * (k - 0.5)
        bars(ax, place, part, label=source, color=COLOURS[source], fmt="oD"[k])
    ax.set_xticks(range(4), [f"{score},\n{metric.removeprefix('removal_')}" for score, metric in groups])
    ax.set(ylabel="change of the test loss (nats)")
    ax.axhline(0, color="black", lw=1)
    ax.legend(title="source")
    return ax


def gallery(
    test: Images,
    train: Images,
    scores: Mapping[str, torch.Tensor],
    chosen: Sequence[int],
    figure: Figure | None = None,
    k: int = 3,
) -> Figure:
    """Test images with their k most helpful and k most harmful training images, a panel for each source.

    Args:
        scores: by source, (N_test, N_train), positive = helpful.
        chosen: indices of the test images, one row each.
    """
    figure = figure or plt.figure(figsize=(5.4 * len(scores), 0.72 * len(chosen) + 0.7), layout="constrained")
    figure.get_layout_engine().set(wspace=0.06)
    for ax, (name, each) in zip(np.atleast_1d(figure.subplots(1, len(scores))), scores.items(), strict=True):
        size, gap = test.x.shape[-1], 8
        sheet = np.full((len(chosen) * (size + 2), (2 * k + 1) * size + 2 * gap, 3), 255, np.uint8)
        for row, t in enumerate(chosen):
            order = each[t].argsort(descending=True)
            shown = [test.x[t], *train.x[order[:k]], *train.x[order.flip(0)[:k]]]
            labels = [test.y[t], *train.y[order[:k]], *train.y[order.flip(0)[:k]]]
            for column, (image, label) in enumerate(zip(shown, labels, strict=True)):
                left = column * size + gap * ((column > 0) + (column > k))
                top = row * (size + 2)
                sheet[top : top + size, left : left + size] = image.permute(1, 2, 0).numpy()
                same = bool(label == test.y[t])
                look = {"color": "white", "fontsize": 9, "va": "bottom", "ha": "right", "weight": "bold"}
                box = {"facecolor": "#009E73" if same else "#D55E00", "edgecolor": "none", "pad": 1}
                ax.text(left + size - 2, top + size - 2, test.classes[int(label)][:8], bbox=box, **look)
        ax.imshow(sheet, interpolation="nearest")
        middle = [size / 2, gap + (1 + k / 2) * size, 2 * gap + (1 + 1.5 * k) * size]
        ax.set_xticks(middle, ["test", "most helpful", "most harmful (first: worst)"])
        ax.xaxis.tick_top()
        ax.tick_params(length=0)
        ax.set_yticks([])
        ax.grid(False)
        for edge in ax.spines.values():
            edge.set_visible(False)
        ax.set_title(f"{name} source", color=COLOURS[name])
    return figure
