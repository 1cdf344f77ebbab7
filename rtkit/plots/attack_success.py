"""The figures of notebook 04."""

from collections.abc import Mapping

import pandas as pd
from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from rtkit.plots import axes, bars, summary

# Label, colour (Okabe and Ito's, black and grey) and marker of each student, nearest to the source first.
STUDENTS = {
    "probe": ("linear probe", "#7F7F7F", "x"),
    "l2_sp": ("L2-SP", "#56B4E9", "P"),
    "delta": ("DELTA", "#009E73", "s"),
    "fine_tuning": ("fine-tuning", "#0072B2", "o"),
    "delta_r": ("DELTA-R", "#E69F00", "^"),
    "nfd_averaging": ("NFD, averaging alone", "#F0E442", "<"),
    "nfd_dropout": ("NFD, dropout alone", "#CC79A7", ">"),
    "nfd": ("NFD", "#D55E00", "D"),
    "scratch": ("from scratch", "#000000", "v"),
}
FORMS = {
    "noise": "noise of\nits size",
    "paper": "paper's\none unit",
    "neurons": "any of\nfive units",
    "features": "pooled\nfeatures",
    "stages": "stage\nmaps",
    "any": "any of\nthe seven",
    "adaptive": "surrogate\n(adaptive)",
    "white box": "student\n(white box)",
}
_EDGE = {"markeredgecolor": "black", "markeredgewidth": 0.6}


def _rates(frame: pd.DataFrame, by: list[str], form: str = "any") -> pd.DataFrame:
    return summary(frame[(frame.metric == "attack_success_rate") & (frame.form == form)], by)


def trade(frame: pd.DataFrame, ax: Axes | None = None) -> Axes:
    """Success of the attack against clean accuracy, a point per student; wanted is the lower right corner."""
    ax = axes(ax, (8, 4.5))
    clean = summary(frame[frame.metric == "clean_accuracy"], ["method"]).set_index("method")
    rates = _rates(frame, ["method"]).set_index("method")
    for name, (label, colour, marker) in STUDENTS.items():
        x, y = clean.loc[name], rates.loc[[name]]
        if x.low == x.low:  # a single replicate has no interval
            ax.plot([x.low, x.high], [y["mean"].iloc[0]] * 2, color=colour, lw=1.8)
        bars(ax, [x["mean"]], y, label=label, color=colour, marker=marker, ls="none", **_EDGE)
    ax.set(xlabel="clean accuracy (%)", ylabel="success of the attack (%)", ylim=(-3, 103))
    ax.set_xlim(min(55, clean["mean"].min() - 5), 101)
    ax.axvline(60, color="#7F7F7F", lw=1, ls=":")
    ax.legend(title="student", loc="upper left", bbox_to_anchor=(1, 1))
    return ax


def trades(frames: Mapping[str, pd.DataFrame]) -> Figure:
    """`trade` for each of several targets, by name, in one figure."""
    size = (2 + 4 * len(frames), 4.2)
    figure, panels = plt.subplots(1, len(frames), figsize=size, layout="constrained", sharey=True, squeeze=False)
    for ax, (name, frame) in zip(panels[0], frames.items(), strict=True):
        trade(frame, ax).set_title(name)
        if ax is not panels[0, -1]:
            ax.get_legend().remove()
        if ax is not panels[0, 0]:
            ax.set_ylabel("")
    return figure


def forms(frame: pd.DataFrame, ax: Axes | None = None) -> Axes:
    """Success by form of the attack, for fine-tuning, the full method and training from scratch."""
    ax = axes(ax, (9.5, 4))
    table = summary(frame[frame.metric == "attack_success_rate"], ["method", "form"])
    order = list(FORMS)
    for k, name in enumerate(("fine_tuning", "nfd", "scratch")):
        label, colour, marker = STUDENTS[name]
        part = table[(table.method == name) & table.form.isin(order)]
        place = [order.index(form) + 0.18 * (k - 1) for form in part.form]
        bars(ax, place, part, label=label, color=colour, marker=marker, ls="none", **_EDGE)
    ax.set_xticks(range(len(order)), list(FORMS.values()), fontsize=9)
    ax.set(ylabel="success of the attack (%)", xlabel="form of the attack", ylim=(-3, 103))
    ax.legend(title="student", loc="upper left", bbox_to_anchor=(1, 1))
    return ax


def components(frame: pd.DataFrame, ax: Axes | None = None) -> Axes:
    """Success on students distilled from random weights: without noise, with dropout, with averaging, with both."""
    ax = axes(ax, (6.5, 4))
    names = ("delta_r", "nfd_averaging", "nfd_dropout", "nfd")
    shown = frame[(frame.metric == "attack_success_rate") & (frame.form == "any")]
    single = 100 * shown.pivot_table(index="seed", columns="method", values="value").reindex(columns=names)
    for k, (_, row) in enumerate(single.iterrows()):
        label = "one replicate" if k == 0 else None
        ax.plot(range(len(names)), row, ".-", color="#7F7F7F", lw=0.9, label=label, zorder=1)
    for k, name in enumerate(names):
        _, colour, marker = STUDENTS[name]
        part = _rates(frame[frame.method == name], ["method"])
        bars(ax, [k], part, color=colour, marker=marker, ls="none", zorder=3, **_EDGE | {"ms": 9})
    ax.set_xticks(range(len(names)), ["neither\n(DELTA-R)", "averaging", "dropout", "both\n(NFD)"])
    ax.set(ylabel="success of the attack (%)", xlabel="noise", xlim=(-0.5, 3.5), ylim=(-3, 103))
    ax.legend()
    return ax


def closeness(table: pd.DataFrame, ax: Axes | None = None) -> Axes:
    """Success against similarity to the source, a point per student and replicate (`by_student`)."""
    ax = axes(ax, (8, 4.5))
    for name, (label, colour, marker) in STUDENTS.items():
        part = table[table.method == name]
        if len(part):
            ax.plot(part.similarity, part.success, marker, color=colour, label=label, alpha=0.85, **_EDGE)
    ax.set(xlabel="similarity of student and source features (linear CKA)", ylabel="success of the attack (%)")
    ax.set(xlim=(0, 1.02), ylim=(-3, 103))
    ax.legend(title="student", loc="upper left", bbox_to_anchor=(1, 1))
    return ax


def rates(table: pd.DataFrame, ax: Axes | None = None) -> Axes:
    """Clean accuracy and success against the learning rate of fine-tuning, means over the replicates of the sweep."""
    ax = axes(ax)
    part = table[table.method == "fine_tuning"].groupby("lr")[["clean", "success"]].mean()
    ax.plot(part.index, part.clean, "o-", color="#0072B2", label="clean accuracy", lw=1.8)
    ax.plot(part.index, part.success, "X--", color="#D55E00", label="success of the attack", lw=1.8)
    ax.set(
        xscale="log",
        xlabel="learning rate of fine-tuning",
        ylabel="clean accuracy, success of the attack (%)",
        ylim=(-3, 103),
    )
    ax.set_xticks(list(part.index), [f"{lr:g}" for lr in part.index], minor=False)
    ax.minorticks_off()
    ax.legend()
    return ax


def sizes(table: pd.DataFrame, ax: Axes | None = None) -> Axes:
    """Clean accuracy (full lines) and success (dashed) against the number of images, by student."""
    ax = axes(ax, (7, 4))
    for name in ("fine_tuning", "nfd", "scratch"):
        label, colour, marker = STUDENTS[name]
        part = table[table.method == name].groupby("n_train")[["clean", "success"]].mean()
        ax.plot(part.index, part.clean, marker + "-", color=colour, label=f"{label}, clean", lw=1.8)
        ax.plot(part.index, part.success, marker + "--", color=colour, label=f"{label}, success", lw=1.8, mfc="white")
    ax.set(
        xlabel="labelled target images n",
        ylabel="clean accuracy, success of the attack (%)",
        ylim=(-3, 103),
        xscale="log",
    )
    ticks = sorted(table.n_train.unique())
    ax.set_xticks(ticks, [str(n) for n in ticks])
    ax.minorticks_off()
    ax.legend(loc="upper left", bbox_to_anchor=(1, 1))
    return ax


def frontier(table: pd.DataFrame, chosen: tuple[float, float, float] | None = None, ax: Axes | None = None) -> Axes:
    """Clean accuracy against success over the knobs of the full method: the other settings, the frontier, one chosen.

    Args:
        table: of `by_student`, the method "nfd" alone, means over replicates; see `frontier_points`.
        chosen: weight, dropout, learning rate.
    """
    ax = axes(ax, (6, 4.2))
    best = frontier_points(table)
    ax.plot(table.clean, table.success, "o", color="#7F7F7F", label="all settings", ms=5)
    ax.plot(best.clean, best.success, "s-", color="#0072B2", label="frontier", ms=6)
    if chosen:
        weight, dropout, lr = chosen
        one = table[(table.weight == weight) & (table.dropout == dropout) & (table.lr == lr)]
        ax.plot(one.clean, one.success, "D", color="#D55E00", label="chosen", ms=10, **_EDGE)
    ax.set(xlabel="clean accuracy (%)", ylabel="success of the attack (%)")
    ax.legend(loc="upper left")
    return ax


def frontier_points(table: pd.DataFrame) -> pd.DataFrame:
    """The settings that no other one beats in both clean accuracy and success, by clean accuracy."""
    ordered = table.sort_values(["clean", "success"], ascending=[False, True])
    lowest = ordered.success.cummin().shift(fill_value=float("inf"))
    return ordered[ordered.success < lowest].sort_values("clean")
