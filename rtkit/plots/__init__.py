"""Figures. A plot function takes (frame, ax=None), draws one panel and returns the axes; nothing here computes."""

from collections.abc import Iterable, Mapping, Sequence

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import seaborn as sns
import torch
from IPython import get_ipython
from IPython.core.pylabtools import print_figure
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from scipy import stats

from rtkit import claims
from rtkit.claims import Verdict

# Okabe and Ito's colours, told apart by readers with any common kind of colour blindness; markers say it once more.
COLOURS = {"standard": "#0072B2", "noise": "#009E73", "robust": "#D55E00", "randomised": "#E69F00"}
COLOURS |= {"untrained": "#7F7F7F", "scratch": "#CC79A7"}
MARKERS = {"standard": "o", "noise": "s", "robust": "D", "randomised": "^", "untrained": "x", "scratch": "v"}
VERDICTS = {  # colour and marker
    "supported": ("#009E73", "o"),
    "contradicted": ("#D55E00", "X"),
    "inconclusive": ("#E69F00", "s"),
    "not_judged": ("#7F7F7F", "d"),
}


def style() -> None:
    """Set the look of all figures: white ground, readable sizes, and in a notebook an alternative text (`describe`)."""
    shell = get_ipython()
    if hasattr(shell, "kernel"):
        shell.enable_matplotlib("inline")  # first, because it registers a formatter of its own
        formatter = shell.display_formatter.formatters["image/png"]
        formatter.for_type(Figure, lambda figure: (print_figure(figure, base64=True), {"alt": describe(figure)}))
    sns.set_theme(style="whitegrid", context="notebook", rc={"figure.dpi": 100, "axes.titlesize": 12})


def describe(figure: Figure) -> str:
    """Say what a figure shows, for readers who cannot see it: per panel its title, axes and the names of its series."""
    panels = []
    for ax in figure.axes:
        words = [ax.get_title()]
        if ax.get_xlabel() and ax.get_ylabel():
            words.append(f"{ax.get_ylabel()} against {ax.get_xlabel()}")
        elif ax.get_xlabel() or ax.get_ylabel():
            words.append(ax.get_xlabel() or ax.get_ylabel())
        rows = [label.get_text() for label in ax.get_yticklabels()] if ax.images else []
        names = [text.get_text() for text in ax.get_legend().get_texts()] if ax.get_legend() else rows
        if any(names):
            words.append(("images of " if rows else "series ") + ", ".join(filter(None, names)))
        panels.append(": ".join(filter(None, words)))
    return "Figure. " + "; ".join(filter(None, panels)) + "."


def axes(ax: Axes | None, size: tuple[float, float] = (5.5, 4)) -> Axes:
    """The given axes, or those of a new figure of that size in inches."""
    return plt.subplots(figsize=size, layout="constrained")[1] if ax is None else ax


def summary(frame: pd.DataFrame, by: Sequence[str]) -> pd.DataFrame:
    """Mean over replicates of `value`, in percent, with its 95 % t interval (not a number for a single replicate).

    Rows of one replicate within a group (several targets, say) are averaged first.
    """
    per_seed = frame.groupby([*by, "seed"], as_index=False).value.mean()
    rows = []
    for group, part in per_seed.groupby(list(by)):
        shown = claims.interval((100 * part.value).tolist())
        rows.append(dict(zip(by, group, strict=True)) | {"mean": shown.effect, "low": shown.low, "high": shown.high})
    return pd.DataFrame(rows, columns=[*by, "mean", "low", "high"]).replace([-np.inf, np.inf], np.nan)


def differences(frame: pd.DataFrame, by: Sequence[str]) -> pd.DataFrame:
    """Robust minus standard source, paired within each replicate, as a frame with a `value` per group and seed."""
    keys = [*by, "seed"]
    robust = frame[frame.source == "robust"].groupby(keys).value.mean()
    standard = frame[frame.source == "standard"].groupby(keys).value.mean()
    return (robust - standard).dropna().rename("value").reset_index()


def bars(ax: Axes, x, table: pd.DataFrame, **options) -> None:
    """Means of a `summary` with their intervals as error bars, at places x."""
    errors = np.nan_to_num(np.vstack([table["mean"] - table["low"], table["high"] - table["mean"]]))
    ax.errorbar(x, table["mean"], yerr=errors, **{"capsize": 3, "lw": 1.8, "ms": 7} | options)


def by_source(ax: Axes, table: pd.DataFrame, x: str, dodge: float = 1.0) -> None:
    """A line per source; `dodge` moves neighbours apart by that factor so that their bars do not hide each other."""
    present = [name for name in COLOURS if name in set(table.source)]
    for k, name in enumerate(present):
        part = table[table.source == name]
        place = part[x] * dodge ** (k - (len(present) - 1) / 2)
        bars(ax, place, part, label=name, color=COLOURS[name], marker=MARKERS[name])
    ax.legend(title="source", loc="lower right")


def images(x: torch.Tensor, titles: Sequence[str] = (), ax: Axes | None = None, columns: int = 10) -> Axes:
    """A sheet of images, row by row, with a title to the left of each row.

    Shape:
        x (N, 3, H, W) uint8 or in [0, 1], N a multiple of `columns`.
    """
    x = x.float() / 255 if x.dtype == torch.uint8 else x
    rows, size = len(x) // columns, x.shape[-1]
    sheet = x.view(rows, columns, 3, size, size).permute(0, 3, 1, 4, 2).reshape(rows * size, columns * size, 3)
    ax = axes(ax, (1.0 * columns + 2, 1.0 * rows))
    ax.imshow(sheet.cpu().numpy(), interpolation="nearest")
    ax.set_xticks([])
    ax.set_yticks([(row + 0.5) * size for row in range(len(titles))], titles)
    ax.tick_params(length=0)
    ax.grid(False)
    for edge in range(size, rows * size, size):
        ax.axhline(edge - 0.5, color="white", lw=2)
    return ax


def magnified(delta: torch.Tensor) -> torch.Tensor:
    """Show signed images, such as perturbations or gradients: zero is grey, each image's largest entry full contrast.

    Shape:
        (N, 3, H, W) -> the same, in [0, 1].
    """
    largest = delta.abs().amax((1, 2, 3), keepdim=True).clamp_min(1e-12)
    return 0.5 + 0.5 * delta / largest


def top_classes(chances: torch.Tensor, classes: Sequence[str], label: int, ax: Axes | None = None) -> Axes:
    """The three most probable classes of one image; the bar of its label is the coloured one. Shape: chances (K,)."""
    ax = axes(ax, (2.5, 2.5))
    top = chances.cpu().topk(3)
    colours = [COLOURS["robust"] if k == label else COLOURS["untrained"] for k in top.indices.tolist()]
    ax.barh(range(3), 100 * top.values.numpy(), color=colours)
    ax.set_yticks(range(3), [classes[k] for k in top.indices.tolist()])
    ax.set(xlim=(0, 100), xlabel="probability (%)")
    ax.invert_yaxis()
    return ax


def curve(frame: pd.DataFrame, x: str, ax: Axes | None = None, **labels) -> Axes:
    """`value` in percent against a column, a line per source, with 95 % intervals where there are replicates."""
    ax = axes(ax)
    by_source(ax, summary(frame, ["source", x]), x)
    ax.legend(title="source")
    ax.set(**{"ylabel": "test accuracy (%)"} | labels)
    return ax


def verdict_colour(text: str) -> str:
    """The style of a table's cell that begins with a verdict: its colour, pale. For `DataFrame.style.map`."""
    colour, _ = VERDICTS.get(text.partition(" ")[0], (None, None))
    return f"background-color: {colour}40" if colour else "color: #666666"


def verdicts(found: Mapping[str, Verdict], ax: Axes | None = None) -> Axes:
    """A forest plot: each judged effect with its interval, by label, coloured by verdict. All of one unit."""
    shown = [(label, verdict) for label, verdict in reversed(found.items()) if verdict.effect is not None]
    ax = axes(ax, (8, 0.42 * max(len(shown), 2) + 1.2))
    for row, (_, verdict) in enumerate(shown):
        colour, marker = VERDICTS[verdict.verdict]
        ax.plot([verdict.low, verdict.high], [row, row], color=colour, lw=3)
        ax.plot(verdict.effect, row, marker, color=colour, ms=9)
        margin = claims.get(verdict.claim).margin
        ax.plot([margin, margin], [row - 0.3, row + 0.3], color="black", lw=1.5)
    labels = [f"{label}  {verdict.verdict.replace('_', ' ')}" for label, verdict in shown]
    ax.set_yticks(range(len(shown)), labels)
    ax.axvline(0, color="#7F7F7F", lw=0.8)
    unit = shown[0][1].unit if shown else "points"
    ax.set(xlabel=f"effect with 95 % interval ({unit}); black tick: the margin", ylim=(-0.6, len(shown) - 0.4))
    return ax


def forest(found: Iterable[Verdict]) -> Figure:
    """All judged effects, a panel for each unit (`verdicts`), labelled by claim and, with several, by preset."""
    order = list(claims.load())
    shown = sorted(
        (verdict for verdict in found if verdict.effect is not None),
        key=lambda v: order.index(v.claim.partition("@")[0]),
    )
    several = len({verdict.preset for verdict in shown}) > 1
    units: dict[str, dict[str, Verdict]] = {}
    for verdict in shown:
        label = f"{verdict.claim} {verdict.preset}" if several else verdict.claim
        units.setdefault(verdict.unit, {})[label] = verdict
    heights = [len(part) + 2 for part in units.values()] or [1]
    figure, panels = plt.subplots(
        len(heights),
        1,
        figsize=(8.5, 0.36 * sum(heights) + 0.8),
        height_ratios=heights,
        layout="constrained",
        squeeze=False,
    )
    for ax, part in zip(panels[:, 0], units.values(), strict=False):
        verdicts(part, ax)
    return figure


def power(replicates: Sequence[int] = (3, 5, 10), ax: Axes | None = None) -> Axes:
    """Chance that the judge says "supported", against the true effect in standard deviations between replicates."""
    ax = axes(ax)
    effects = np.linspace(0, 4, 81)
    for count, colour, dash in zip(replicates, list(COLOURS.values()), ("-", "--", ":"), strict=False):
        limit = stats.t.ppf(0.975, count - 1)
        ax.plot(
            effects, stats.nct.sf(limit, count - 1, effects * count**0.5), dash, color=colour, label=f"{count}", lw=2
        )
    ax.axhline(0.8, color="#7F7F7F", lw=1)
    ax.set(xlabel="true effect beyond the margin (sd between replicates)", ylabel="P(supported)", ylim=(0, 1.02))
    ax.legend(title="replicates")
    return ax
