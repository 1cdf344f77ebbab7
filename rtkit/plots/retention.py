"""The figures of notebook 05."""

from collections.abc import Sequence

import pandas as pd
from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from rtkit import plots
from rtkit.plots import COLOURS, MARKERS, axes, bars
from rtkit.studies import retention_effects as effects
from rtkit.studies.retention import MAIN_SHAPE, TARGET

NAMES = {
    "head": "head alone",
    "last_block": "last block",
    "last_stage": "last stage",
    "last_two_stages": "last two stages",
    "full_network": "all layers",
    "lwf": "all layers, LwF",
    "mlp": "head, 1 hidden layer",
    "mlp 2": "head, 2 hidden layers",
    "head, statistics adapt": "head, BatchNorm adapts",
    "last_stage, statistics frozen": "last stage, BatchNorm frozen",
    "adversarial, from scratch": "adversarial, from scratch",
    "adversarial, fine-tuned": "adversarial, fine-tuned",
    "source itself": "source itself",
}
LOOKS = {"head": ("#0072B2", "o"), "full_network": ("#D55E00", "D"), "lwf": ("#009E73", "s")}
LOOKS |= {"adversarial, from scratch": ("#CC79A7", "v"), "adversarial, fine-tuned": ("#E69F00", "^")}
METRICS = {"clean_accuracy": "clean", "robust_accuracy": "under attack, 4/255"}
_PLANE = {"xlabel": "clean accuracy (%)", "ylabel": "robust accuracy at 4/255 (%)"}


def _target(frame: pd.DataFrame, **where) -> pd.DataFrame:
    return effects.pick(frame, target=TARGET, **where)


def by_shape(frame: pd.DataFrame) -> Figure:
    """Clean and robust accuracy against how often the target's shape is right, a series per method: the headline."""
    figure, panels = plt.subplots(1, 2, figsize=(11, 4.2), layout="constrained", sharey=True)
    rows = _target(frame, n_train=effects.size(frame), source="robust")
    for ax, (metric, label) in zip(panels, METRICS.items(), strict=True):
        for k, (name, (colour, marker)) in enumerate(LOOKS.items()):
            part = rows[(rows.method == name) & (rows.metric == metric)]
            if name.startswith("adversarial") or not len(part):
                continue
            shown = plots.summary(part, ["shape_reliability"])
            place = 100 * shown.shape_reliability + 0.4 * (k - 1)
            bars(ax, place, shown, label=NAMES[name], color=colour, marker=marker)
        ax.set(title=label, xlabel="digit right (%)", ylim=(-3, 103))
    panels[0].set_ylabel("test accuracy (%)")
    panels[1].legend()
    return figure


def by_depth(frame: pd.DataFrame) -> Figure:
    """Clean and robust accuracy against the number of trained blocks, robust and standard source."""
    figure, panels = plt.subplots(1, 2, figsize=(11, 4.2), layout="constrained", sharey=True)
    rows = effects.trend(frame)
    for ax, (metric, label) in zip(panels, METRICS.items(), strict=True):
        table = plots.summary(rows[rows.metric == metric], ["source", "blocks"])
        for source, part in table.groupby("source"):
            bars(ax, part.blocks, part, label=source, color=COLOURS[source], marker=MARKERS[source])
        ax.set_xticks(list(effects.BLOCKS.values()), ["head", "1", "2", "4", "all 6"])
        ax.set(title=label, xlabel="residual blocks trained beside the head", ylim=(-3, 103))
    panels[0].set_ylabel("test accuracy (%)")
    panels[1].legend(title="source")
    return figure


def plane(frame: pd.DataFrame, ax: Axes | None = None) -> Axes:
    """Every arm of the main regime on the clean-robust plane; the dots of LwF are joined by rising lambda."""
    ax = axes(ax, (8.5, 4.6))
    rows = frame[(frame.target == TARGET) & (frame.shape_reliability == MAIN_SHAPE) & (frame.source == "robust")]
    rows = rows[rows.n_train == effects.size(frame)]
    means = 100 * rows.pivot_table(index=["method", "weight"], columns="metric", values="value")
    greys = iter("x+*<>hpPX")
    for name in NAMES:
        if name not in means.index.get_level_values(0) or name == "lwf":
            continue
        at = means.loc[name].iloc[0]
        colour, marker = LOOKS.get(name) or ("#7F7F7F", next(greys))
        ax.plot(at.clean_accuracy, at.robust_accuracy, marker, color=colour, ms=9, label=NAMES[name], zorder=4)
    colour, marker = LOOKS["lwf"]
    lwf = means.loc["lwf"].sort_index()
    ax.plot(lwf.clean_accuracy, lwf.robust_accuracy, marker, color=colour, ms=8, ls="-", lw=1, label=NAMES["lwf"])
    for k, (weight, at) in enumerate(lwf.iterrows()):
        label, offset = (at.clean_accuracy, at.robust_accuracy), ((-4, 9), (-40, -4), (7, 6), (7, -11))[k % 4]
        ax.annotate(f"λ {weight:g}", label, offset, textcoords="offset points", fontsize=9, color=colour)
    ax.set(**_PLANE)
    ax.margins(0.15)
    ax.legend(loc="center left", bbox_to_anchor=(1, 0.5))
    return ax


def by_target(frame: pd.DataFrame, names: Sequence[str]) -> Figure:
    """The main methods from either source on the clean-robust plane, a panel for each of these targets."""
    size = (1.5 + 4 * len(names), 4)
    figure, panels = plt.subplots(1, len(names), figsize=size, layout="constrained", sharey=True, squeeze=False)
    for ax, name in zip(panels[0], names, strict=True):
        for method in ("head", "full_network", "lwf"):
            colour, marker = LOOKS[method]
            for source, fill in (("robust", colour), ("standard", "white")):
                at = effects.point(frame, method, source, target=name)
                look = {"color": colour, "mfc": fill, "ms": 9, "ls": "none"}
                ax.plot(*at, marker, label=f"{NAMES[method]}, {source} source", **look)
        ax.set(title=name, xlabel=_PLANE["xlabel"], xlim=(-3, 103), ylim=(-3, 103))
    panels[0, 0].set_ylabel(_PLANE["ylabel"])
    panels[0, -1].legend(loc="upper left", bbox_to_anchor=(1, 1))
    return figure


def low_data(frame: pd.DataFrame) -> Figure:
    """Frozen robust features against adversarial training on the target, over the number of images."""
    figure, panels = plt.subplots(1, 2, figsize=(11, 4.2), layout="constrained", sharey=True)
    rows = _target(frame, shape_reliability=MAIN_SHAPE, source="robust")
    for ax, (metric, label) in zip(panels, METRICS.items(), strict=True):
        for k, name in enumerate(("head", effects.ADVERSARIAL, "adversarial, fine-tuned")):
            part = rows[(rows.method == name) & (rows.metric == metric)]
            if len(part):
                colour, marker = LOOKS[name]
                shown = plots.summary(part, ["n_train"])
                bars(ax, shown.n_train * 1.04 ** (k - 1), shown, label=NAMES[name], color=colour, marker=marker)
        sizes = sorted(rows[rows.method == "head"].n_train.unique())
        ax.set_xscale("log")
        ax.set_xticks(sizes, [str(n) for n in sizes])
        ax.minorticks_off()
        ax.set(title=label, xlabel="target images", ylim=(-3, 103))
    panels[0].set_ylabel("test accuracy (%)")
    panels[0].legend()
    return figure


def table(frame: pd.DataFrame) -> pd.DataFrame:
    """Means over replicates in percent, one line per source and method of the main regime, and what training cost."""
    rows = _target(frame, shape_reliability=MAIN_SHAPE, n_train=effects.size(frame))
    keys = ["source", "method"]
    out = 100 * rows.pivot_table(index=keys, columns="metric", values="value")[list(METRICS)]
    out = out.rename(columns={"clean_accuracy": "clean (%)", "robust_accuracy": "robust (%)"})
    spent = rows[rows.metric == "clean_accuracy"].groupby(keys)[["gradients", "seconds"]].mean()
    return out.join(spent).rename(columns={"seconds": "training (s)"}).round(1)
