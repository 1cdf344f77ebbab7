"""The figures of notebook 06."""

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from rtkit import claims, plots
from rtkit.plots import axes
from rtkit.studies import tradeoff_effects as effects
from rtkit.studies.tradeoff import MAIN_WEIGHT

NAMES = {"pgd_at": "PGD-AT", "pgd_at+vfd": "PGD-AT + VFD", "trades": "TRADES", "trades+vfd": "TRADES + VFD"}
NAMES |= {"mart": "MART", "region": "region, hard labels", "rat": "RAT", "arks": "ARKS", "logits": "logits"}
NAMES |= {name: name for name in ("clean images only", "attacked images only", "robust teacher")}
BASE, TAUGHT = ("#0072B2", "o"), ("#D55E00", "D")  # colour and marker
LOOKS = {"pgd_at": BASE, "mart": ("#009E73", "s"), "region": ("#CC79A7", "^"), "rat": ("#CC79A7", "v")}
LOOKS |= {"arks": ("#E69F00", "P")}
_LIMITS = {"xlabel": "clean accuracy (%)", "ylabel": "robust accuracy at 4/255 (%)"}


def title(arm: str) -> str:
    """What a list of ways of teaching calls one of them."""
    return NAMES[arm] + (f", weight {MAIN_WEIGHT:g}" if arm == "pgd_at+vfd" else "")


def means(frame: pd.DataFrame, method: str) -> np.ndarray:
    """Clean and robust accuracy in percent by knob, averaged over replicates. Shape: (knobs, 2)."""
    rows = frame[frame.method == method]
    return np.array([effects.point(rows, method, knob) for knob in effects.knobs(rows, method)])


def frontier(frame: pd.DataFrame, base: str = "pgd_at", ax: Axes | None = None, knob: str = "") -> Axes:
    """A base's points and frontier, and an arrow from each point to its counterpart with a teacher.

    Args:
        base: a method of the frame; its counterpart is called after it with "+vfd".
        knob: how a label says the knob, such as "eps {:g}/255"; by default of PGD-AT or TRADES.
    """
    ax = axes(ax, (8.5, 4.4))
    knob = knob or ("β {:g}" if base.startswith("trades") else "{:g}/255")
    found = effects.points(_averaged(frame), base)
    edge = effects.frontier(found)
    ax.plot(*edge.T, color=BASE[0], lw=1.5, alpha=0.6)
    ax.plot([found[:, 0].min() - 1, edge[0, 0]], [edge[0, 1]] * 2, color=BASE[0], lw=1, ls=":", alpha=0.6)
    for _, part in frame.groupby("seed"):
        ax.plot(*effects.points(part, base).T, BASE[1], color=BASE[0], ms=4, alpha=0.35)
    ax.plot(*found.T, BASE[1], color=BASE[0], ms=9, label="without a teacher")
    levels = [0.0, *(level for level in effects.knobs(frame, base) if level)]
    _label(ax, found, ["standard" if not level else knob.format(level) for level in levels], "left")
    taught = effects.taught_name(base)
    for at, weight in effects.settings(frame, taught):
        new = effects.point(frame, taught, at, weight)
        if at in levels:
            start = effects.point(frame, base, at)
            ax.annotate("", new, start, arrowprops={"arrowstyle": "->", "color": "#7F7F7F", "shrinkA": 6, "shrinkB": 6})
        for _, part in frame.groupby("seed"):
            ax.plot(*effects.point(part, taught, at, weight), TAUGHT[1], color=TAUGHT[0], ms=4, alpha=0.35)
        ax.plot(*new, TAUGHT[1], color=TAUGHT[0], ms=9)
        _label(ax, [new], [f"weight {weight:g}"], "right", TAUGHT[0])
    ax.plot([], [], TAUGHT[1], color=TAUGHT[0], ms=9, label="with a vanilla teacher")
    ax.set(**_LIMITS)
    ax.margins(x=0.08)
    ax.legend(loc="upper left", bbox_to_anchor=(1, 1))
    return ax


def _label(ax: Axes, places: Sequence, words: Sequence[str], side: str, colour: str = "black") -> None:
    """Write to the left or to the right of each point, away from others of its series."""
    written: list[float] = []
    for place, word in sorted(zip(map(tuple, places), words, strict=True), key=lambda pair: -pair[0][1]):
        y = min([place[1], *(above - 5 for above in written[-1:])])  # points of robust accuracy
        written.append(y)
        shift, anchor = (-9, "right") if side == "left" else (9, "left")
        ax.annotate(word, (place[0], y), (shift, 0), textcoords="offset points", fontsize=9, color=colour, ha=anchor,
                    va="center")  # fmt: skip


def _averaged(frame: pd.DataFrame) -> pd.DataFrame:
    """The frame as if it were one replicate: effects average what they pick."""
    return frame.assign(seed=0)


def heights(frame: pd.DataFrame, ax: Axes | None = None) -> Axes:
    """How far each way of teaching lifts a point above PGD-AT's frontier, with 95 % intervals."""
    ax = axes(ax, (7, 3.2))
    found = effects.lifts(frame)
    for row, values in enumerate(reversed(found.values())):
        if not values:
            continue
        shown = claims.interval(values)
        if np.isfinite(shown.low):
            ax.plot([shown.low, shown.high], [row, row], color=TAUGHT[0], lw=3)
        ax.plot(values, [row + 0.18] * len(values), "o", color="#7F7F7F", ms=4)
        ax.plot(shown.effect, row, TAUGHT[1], color=TAUGHT[0], ms=9)
    ax.set_yticks(range(len(found)), [title(arm) for arm in reversed(found)])
    ax.axvline(0, color=BASE[0], lw=1.5)
    ax.set(xlabel="height above PGD-AT's frontier (points of robust accuracy)", ylim=(-0.6, len(found) - 0.4))
    return ax


def others(frame: pd.DataFrame, ax: Axes | None = None) -> Axes:
    """MART, RAT and ARKS on the clean-robust plane, beside PGD-AT."""
    ax = axes(ax, (8.5, 4.4))
    for method in LOOKS:
        if method not in set(frame.method):
            continue
        colour, marker = LOOKS[method]
        found = means(frame, method)
        ax.plot(*found.T, marker, color=colour, ms=9, ls="-" if len(found) > 1 else "", lw=1, label=NAMES[method])
        if method in ("pgd_at", "arks"):
            word = "σ {:g}" if method == "arks" else "{:g}/255"
            labels = [word.format(level) for level in effects.knobs(frame, method)]
            _label(ax, found, labels, "left" if method == "pgd_at" else "right", colour)
    ax.set(**_LIMITS)
    ax.margins(x=0.08)
    ax.legend(loc="upper left", bbox_to_anchor=(1, 1))
    return ax


def checkpoints(frame: pd.DataFrame, ax: Axes | None = None) -> Axes:
    """The last checkpoint and the one that did best on validation images, arm by arm: an arrow from last to best."""
    ax = axes(ax, (6, 4.2))
    for method, (colour, marker) in {"pgd_at": BASE, "pgd_at+vfd": TAUGHT}.items():
        for setting in effects.settings(frame, method):
            last, best = (
                effects.point(frame[frame.checkpoint == which], method, *setting) for which in ("last", "best")
            )
            ax.plot([last[0], best[0]], [last[1], best[1]], color=colour, lw=1)
            ax.plot(*last, marker, color=colour, ms=8)
            ax.plot(*best, marker, color="white", mec=colour, mew=2, ms=8)
    for label, (colour, marker) in {"PGD-AT": BASE, "PGD-AT + VFD": TAUGHT}.items():
        ax.plot([], [], marker, color=colour, ms=8, label=f"{label}, last")
        ax.plot([], [], marker, color="white", mec=colour, mew=2, ms=8, label=f"{label}, best on validation")
    ax.set(**_LIMITS)
    ax.legend()
    return ax


def table(frame: pd.DataFrame, metrics: Mapping[str, str] | None = None) -> pd.DataFrame:
    """Means over replicates in percent, one line per arm and knob."""
    metrics = metrics or {"clean_accuracy": "clean (%)", "robust_accuracy": "robust (%)", "moved": "moved (points)"}
    keys = ["method", "knob", "weight"]
    rows = frame[frame.metric.isin(list(metrics))]
    out = 100 * rows.pivot_table(index=keys, columns="metric", values="value")
    seconds = frame[frame.metric == "clean_accuracy"].groupby(keys).seconds.mean()
    return out[list(metrics)].rename(columns=metrics).assign(**{"training (s)": seconds}).round(1)


def teacher(frame: pd.DataFrame, ax: Axes | None = None) -> Axes:
    """Clean and robust accuracy of PGD-AT at one radius against the weight of the teacher's distances."""
    ax = axes(ax)
    rows = frame[
        (frame.checkpoint == "last") & (frame.knob == effects.MAIN) & frame.method.isin(["pgd_at", "pgd_at+vfd"])
    ]
    weights = sorted(rows.weight.unique())
    for metric, label, (colour, marker) in (
        ("clean_accuracy", "clean", BASE),
        ("robust_accuracy", "robust at 4/255", TAUGHT),
    ):
        shown = plots.summary(rows[rows.metric == metric], ["weight"])
        plots.bars(ax, range(len(shown)), shown, label=label, color=colour, marker=marker)
    ax.set_xticks(range(len(weights)), [f"{weight:g}" for weight in weights])
    ax.set(xlabel="weight of either distance", ylabel="test accuracy (%)", ylim=(-3, 103))
    ax.legend()
    return ax
