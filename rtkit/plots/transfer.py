"""The figures of notebook 01."""

from collections.abc import Iterable

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from rtkit.plots import COLOURS, axes, bars, by_source, differences, style, summary
from rtkit.studies.transfer import PAIR, PLANS, SHAPES
from rtkit.studies.transfer_effects import few, pick

TARGETS = {
    "digits": "digits (real)",
    "digits_low": "digits at 12 px",
    "digits_textured": "digits with textures",
    "digits_textured_low": "… reduced to 12 px",
    "lower": "lower-case letters",
    "greek": "Greek letters",
    "lower_textured": "lower case with textures",
    "greek_textured": "Greek with textures",
    "textures": "textures only",
    "mnist": "MNIST",
    "fashion_mnist": "Fashion-MNIST",
    "cifar10": "CIFAR-10",
    "kmnist": "KMNIST",
    "svhn": "SVHN",
}
# Colour and marker of a target: its family gives the colour, a texture an open look.
_TARGET_LOOK = {
    "digits": {"color": "#0072B2", "marker": "o"},
    "digits_low": {"color": "#0072B2", "marker": "v", "ls": ":"},
    "digits_textured": {"color": "#0072B2", "marker": "o", "ls": "--", "mfc": "white"},
    "digits_textured_low": {"color": "#0072B2", "marker": "v", "ls": ":", "mfc": "white"},
    "lower": {"color": "#D55E00", "marker": "s"},
    "greek": {"color": "#009E73", "marker": "D"},
    "lower_textured": {"color": "#D55E00", "marker": "s", "ls": "--", "mfc": "white"},
    "greek_textured": {"color": "#009E73", "marker": "D", "ls": "--", "mfc": "white"},
    "textures": {"color": "black", "marker": "x", "ls": "--"},
    "mnist": {"color": "#0072B2", "marker": "o"},
    "fashion_mnist": {"color": "#009E73", "marker": "D"},
    "cifar10": {"color": "#D55E00", "marker": "s"},
    "kmnist": {"color": "#56B4E9", "marker": "v"},
    "svhn": {"color": "#CC79A7", "marker": "^"},
}
_LIMIT = 40.0  # points, at which the colours of gains end
_OWN_LOOK = {"color": "black", "marker": "*"}  # of a reader's data set
PROTOCOLS = {
    "fixed_feature": "fixed features",
    "probe": "convex probe",
    "last_block": "last block",
    "last_stage": "last stage",
    "last_two_stages": "last two stages",
    "full_network": "full network",
    "scratch": "from scratch",
}


def title(target: str) -> str:
    """What a figure calls a target; a reader's own data set has its own name."""
    return TARGETS.get(target, target)


def by_name(targets: Iterable[str]) -> list[str]:
    """Targets without repetition, in the order in which figures show them."""
    there = list(dict.fromkeys(targets))
    return [name for name in TARGETS if name in there] + [name for name in there if name not in TARGETS]


def few_shot(frame: pd.DataFrame, ax: Axes | None = None) -> Axes:
    """Test accuracy against the number of target images, a line per source. One target, one protocol."""
    ax = axes(ax)
    table = summary(frame, ["source", "n_train"])
    by_source(ax, table, "n_train", dodge=1.04)
    sizes = sorted(table.n_train.unique())
    ax.set_xscale("log")
    ax.set_xticks(sizes, [str(n) for n in sizes])
    ax.minorticks_off()
    ax.set(xlabel="target training images", ylabel="test accuracy (%)")
    return ax


def few_shots(frame: pd.DataFrame) -> Figure:
    """`few_shot`, a panel for each target."""
    targets = by_name(frame.target)
    size = (5 * len(targets), 4.2)
    figure, panels = plt.subplots(1, len(targets), figsize=size, layout="constrained", sharey=True, squeeze=False)
    for ax, target in zip(panels[0], targets, strict=True):
        few_shot(frame[frame.target == target], ax).set_title(title(target))
    return figure


def by_eps(frame: pd.DataFrame, ax: Axes | None = None) -> Axes:
    """Test accuracy against the source's eps (0 is the standard source), a line per target."""
    ax = axes(ax, (8, 4.2))
    frame = frame[frame.source.isin(["standard", "robust"])]
    levels = sorted(frame.source_eps.unique())
    table = summary(frame, ["target", "source_eps"])
    for target in [name for name in TARGETS if name in set(table.target)]:
        part = table[table.target == target]
        place = [levels.index(eps) for eps in part.source_eps]
        bars(ax, place, part, label=TARGETS[target], **_TARGET_LOOK[target])
    ax.set_xticks(range(len(levels)), [f"{255 * eps:g}" for eps in levels])
    ax.set(xlabel="source eps (n/255, l-infinity; 0 = standard)", ylabel="test accuracy (%)", ylim=(0, 100))
    ax.legend(title="target", fontsize=9, loc="upper left", bbox_to_anchor=(1, 1))
    return ax


def gains(frame: pd.DataFrame, ax: Axes | None = None) -> Axes:
    """Gain of the robust source by protocol and target, with 95 % intervals and a line at zero."""
    ax = axes(ax, (7, 4))
    table = summary(differences(frame, ["method", "target"]), ["method", "target"])
    methods = [name for name in PROTOCOLS if name in set(table.method)]
    targets = by_name(table.target)
    for k, target in enumerate(targets):
        part = table[table.target == target]
        place = [methods.index(name) + 0.18 * (k - (len(targets) - 1) / 2) for name in part.method]
        bars(ax, place, part, label=title(target), **_TARGET_LOOK.get(target, _OWN_LOOK) | {"ls": "none"})
    ax.axhline(0, color="black", lw=1)
    ax.set_xticks(range(len(methods)), [PROTOCOLS[name] for name in methods])
    ax.set(ylabel="robust minus standard (points)", xlabel="what is trained on the target")
    ax.legend(title="target", loc="upper left", bbox_to_anchor=(1, 1))
    return ax


def resolution(frame: pd.DataFrame, ax: Axes | None = None) -> Axes:
    """Gain of the robust source on the textured digits at native and at lowered resolution, a line per replicate."""
    ax = axes(ax)
    table = differences(frame, ["target"])
    order = ["digits_textured", "digits_textured_low"]
    for _, part in table.groupby("seed"):
        values = 100 * part.set_index("target").value.reindex(order)
        ax.plot([0, 1], values, color="#7F7F7F", marker="o", lw=1)
    mean = 100 * table.groupby("target").value.mean().reindex(order)
    ax.plot([0, 1], mean, color=COLOURS["robust"], marker="D", lw=3, label="mean of the replicates")
    ax.axhline(0, color="black", lw=1)
    ax.set_xticks([0, 1], ["native (32 px)", "reduced to 12 px"])
    ax.set(xlim=(-0.3, 1.3), ylabel="robust minus standard (points)", xlabel="resolution of the textured digits")
    ax.legend()
    return ax


def phase(frame: pd.DataFrame) -> pd.DataFrame:
    """The rows that the phase diagram compares: fixed features, digits and lower case, one n, the grid of worlds.

    A frame without the grid gives its default world alone.
    """
    plan = PLANS["glyphs-full"]
    rows = pick(frame, method="fixed_feature", metric="clean_accuracy", target=SHAPES[:2], source_eps=PAIR)
    rows = pick(rows[rows.seed == rows.source_seed], source=("standard", "robust"))
    grid = pick(rows, texture_amplitude=plan.amplitudes, shape_reliability=plan.reliabilities, n_train=plan.n_train[0])
    return grid if len(grid) else pick(rows, n_train=few(frame))


def worlds(frame: pd.DataFrame) -> pd.DataFrame:
    """The standard source's shape bias in percent, a column `bias`, by texture amplitude and shape reliability."""
    rows = pick(frame[frame.seed == frame.source_seed], source="standard", metric="shape_bias")
    means = 100 * rows.groupby(["texture_amplitude", "shape_reliability"]).value.mean()
    return means.rename("bias").reset_index()


def phase_diagram(frame: pd.DataFrame, ax: Axes | None = None) -> Axes:
    """Gain of the robust source over (texture amplitude, shape reliability), with its zero line.

    Each field shows the mean gain in points; a star marks those whose 95 % interval excludes zero.
    """
    ax = axes(ax, (7.5, 4.5))
    knobs = ["shape_reliability", "texture_amplitude"]
    table = summary(differences(frame, knobs), knobs)
    grid = table.pivot_table(index=knobs[0], columns=knobs[1], values="mean").sort_index(ascending=False)
    sure = table.assign(sure=(table.low > 0) | (table.high < 0))
    sure = sure.pivot_table(index=knobs[0], columns=knobs[1], values="sure").sort_index(ascending=False)
    text = grid.map("{:+.1f}".format) + sure.map(lambda value: "*" if value else "")
    bar = {"label": "robust minus standard (points)"}
    colours = {"cmap": "PuOr_r", "vmin": -_LIMIT, "vmax": _LIMIT}
    sns.heatmap(grid, ax=ax, annot=text, fmt="", cbar_kws=bar, linewidths=1, **colours)
    if min(grid.shape) > 1 and grid.to_numpy().min() < 0 < grid.to_numpy().max():
        columns, rows = np.meshgrid(np.arange(grid.shape[1]) + 0.5, np.arange(grid.shape[0]) + 0.5)
        ax.contour(columns, rows, grid.to_numpy(), levels=[0], colors="black", linewidths=2.5, linestyles="--")
    ax.set_xticks(np.arange(grid.shape[1]) + 0.5, [f"{255 * value:g}" for value in grid.columns], rotation=0)
    ax.set_yticks(np.arange(grid.shape[0]) + 0.5, [f"{100 * value:g}" for value in grid.index], rotation=0)
    ax.set(xlabel="texture amplitude (n/255)", ylabel="how often the shape is right (%)")
    return ax


def real_gains(frame: pd.DataFrame, ax: Axes | None = None) -> Axes:
    """Gain of the robust source on data sets by name, by target and protocol, in the colours of `phase_diagram`."""
    ax = axes(ax, (7, 3))
    table = summary(differences(frame, ["target", "method"]), ["target", "method"])
    if not len(table):
        ax.set_axis_off()
        return ax
    sure = (table.low > 0) | (table.high < 0)
    table = table.assign(text=table["mean"].map("{:+.1f}".format) + sure.map({True: "*", False: ""}))
    methods = [name for name in PROTOCOLS if name in set(table.method)]
    order = {"index": by_name(table.target), "columns": methods}
    where = {"index": "target", "columns": "method", "aggfunc": "first"}
    grid, text = (table.pivot_table(values=name, **where).reindex(**order) for name in ("mean", "text"))
    colours = {"cmap": "PuOr_r", "vmin": -_LIMIT, "vmax": _LIMIT}
    bar = {"label": "robust minus standard (points)"}
    sns.heatmap(grid, ax=ax, annot=text, fmt="", cbar_kws=bar, linewidths=1, **colours)
    ax.set_xticklabels([PROTOCOLS[name] for name in methods], rotation=0)
    ax.set_yticklabels([title(name) for name in grid.index], rotation=0)
    sizes = " and ".join(f"{n:g}" for n in sorted(frame.n_train.unique()))
    ax.set(xlabel="what is trained on the target", ylabel="", title=f"real images, n = {sizes}")
    return ax


def _main(path: str) -> None:
    """Draw the README's figure from the frame that comes with the kit."""
    from rtkit import records

    frame = records.frame("transfer", "glyphs-full")
    if frame is None:
        raise SystemExit(
            "no frame of the preset glyphs-full under results/: run rtkit study transfer --preset glyphs-full"
        )
    style()
    phase_diagram(phase(frame)).figure.savefig(path, dpi=110, metadata={"Software": None})


if __name__ == "__main__":
    import sys

    _main(sys.argv[1])
