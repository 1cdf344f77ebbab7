"""Figures: seaborn with the judge's own intervals and the kit's labels. Nothing here computes or imports torch."""

from collections.abc import Callable, Sequence
from functools import partial
from statistics import fmean

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import seaborn as sns
from IPython import get_ipython
from IPython.core.pylabtools import print_figure
from IPython.display import Markdown, display
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from rtkit import claims, labels, records, say
from rtkit.frames import EVERYTHING, POINTS, predicted, t95
from rtkit.judge import Judge
from rtkit.labels import COLOURS

GREY = "#7F7F7F"
VERDICTS = {  # colour and marker
    "supported": ("#009E73", "o"),
    "contradicted": ("#D55E00", "X"),
    "null": ("#56B4E9", "P"),
    "inconclusive": ("#E69F00", "s"),
    "not_judged": (GREY, "d"),
}


def style() -> None:
    """Set the look of all figures: white ground, readable sizes, no formulas; in a notebook an alternative text."""
    shell = get_ipython()
    if hasattr(shell, "kernel"):
        shell.enable_matplotlib("inline")  # first, because it registers a formatter of its own
        formatter = shell.display_formatter.formatters["image/png"]
        formatter.for_type(Figure, lambda figure: (print_figure(figure, base64=True), {"alt": describe(figure)}))
    # A class or a data set may be called "a$b_c^$", which is no formula.
    look = {"figure.dpi": 100, "axes.titlesize": 12, "text.parse_math": False}
    sns.set_theme(style="whitegrid", context="notebook", rc=look)


def describe(figure: Figure) -> str:
    """Say what a figure shows, for those who cannot see it: its finding (`tell`), then panels, axes and series."""
    panels = []
    for ax in figure.axes:
        words = [ax.get_title(), " against ".join(filter(None, (ax.get_ylabel(), ax.get_xlabel())))]
        rows = [label.get_text() for label in ax.get_yticklabels()] if ax.images else []
        names = [text.get_text() for text in ax.get_legend().get_texts()] if ax.get_legend() else rows
        if any(names):
            words.append(("images of " if rows else "series ") + ", ".join(filter(None, names)))
        panels.append(": ".join(filter(None, words)))
    finding = getattr(figure, "finding", "").replace("*", "")
    return " ".join(filter(None, ["Figure.", finding, "; ".join(filter(None, panels)) + "."]))


def tell(sentence: str | Callable[[], str]) -> None:
    """Show the figure at hand, then the sentence about it, which becomes its alternative text as well.

    Args:
        sentence: Markdown, or a function that makes it; one that finds nothing (`frames.Missing`) says so instead.
    """
    text, figure = say.text(sentence), plt.gcf()
    figure.finding = text
    display(figure, Markdown(text))
    plt.close(figure)


def axes(ax: Axes | None, size: tuple[float, float] = (5.5, 4)) -> Axes:
    """The given axes, or those of a new figure of that size in inches."""
    return plt.subplots(figsize=size, layout="constrained")[1] if ax is None else ax


def _labelled(shown: pd.DataFrame, *columns: str | None) -> pd.DataFrame:
    return labels.named(shown, *(name for name in dict.fromkeys(columns) if name and shown[name].dtype != float))


def _bars(shown: pd.DataFrame, y: str) -> Callable:
    """The judge's interval for `errorbar`: percentages end where they must, and differences of them at 100 points."""
    return partial(t95, within=shown.attrs.get("percent", POINTS) if y == "percent" else EVERYTHING)


def lines(shown: pd.DataFrame, x: str, *, y="percent", hue="arm", col=None, ticks=True, log=False, **labelled):
    """Means over replicates with the judge's 95 % intervals, as lines: `seaborn.relplot`, a panel for each `col`.

    Args:
        shown: one row per replicate and point (`frames.per_replicate`).
        ticks: mark the values of x that there are; log: a logarithmic x axis.
        labelled: `xlabel`, `ylabel`, `ylim`, `title` (of the legend), and seaborn's own options.

    Returns:
        The `seaborn.FacetGrid`.
    """
    bars = {"errorbar": _bars(shown, y), "err_style": "bars", "err_kws": {"capsize": 3}}
    shown, options = _labelled(shown, hue, col), {"height": 3.8, "aspect": 1.15} | labelled
    words = {key: options.pop(key) for key in ("xlabel", "ylabel", "ylim", "title") if key in options}
    colours, markers = labels.looks(shown[hue].cat.categories if hasattr(shown[hue], "cat") else shown[hue].unique())
    series = {"hue": hue, "style": hue, "palette": colours or None, "markers": markers or False, "dashes": False}
    grid = sns.relplot(shown, kind="line", x=x, y=y, col=col, **(series | bars | options))
    for ax in grid.axes.flat:
        if log:
            ax.set_xscale("log")
            ax.xaxis.set_major_formatter("{x:g}")
        if ticks:
            found = sorted(shown[x].unique())
            ax.set_xticks(found, [f"{value:g}" for value in found])
            ax.minorticks_off()
    return _finish(grid, col, **{"title": None, "xlabel": x} | words)


def points(shown: pd.DataFrame, x: str, *, y="percent", hue="arm", col=None, zero=False, **labelled):
    """Means over replicates with the judge's 95 % intervals, as points side by side: `seaborn.catplot`.

    Args and value as `lines`; `x` may be any column, also of words, and `zero` draws a line at y = 0.
    """
    bars = {"errorbar": _bars(shown, y), "linestyle": "none", "capsize": 0.05, "err_kws": {"linewidth": 2}}
    shown, options = _labelled(shown, hue, col, x), {"height": 3.8, "aspect": 1.3, "dodge": 0.35} | labelled
    words = {key: options.pop(key) for key in ("xlabel", "ylabel", "ylim", "title") if key in options}
    if hue:
        kinds = list(shown[hue].cat.categories)
        colours, markers = labels.looks(kinds)
        options |= {"palette": colours, "markers": [markers[kind] for kind in kinds]}
        options["dodge"] = len(kinds) > 1 and options["dodge"]  # seaborn divides by their number less one
    else:
        options |= {"dodge": False, "color": labels.WHEEL[0]}
    grid = sns.catplot(shown, kind="point", x=x, y=y, hue=hue, col=col, **bars, **options)
    if zero:
        for ax in grid.axes.flat:
            ax.axhline(0, color=GREY, lw=1)
    return _finish(grid, col, **{"title": None, "xlabel": ""} | words)


def _finish(grid, col, *, title, xlabel, ylabel="test accuracy (%)", ylim=None):
    grid.set_axis_labels(xlabel, ylabel)
    if col:
        grid.set_titles("{col_name}")
    if ylim:
        grid.set(ylim=ylim)
    if grid.legend is not None:
        grid.legend.set_title(title or "")
    return grid


def ladder(shown: pd.DataFrame, x: str, *, y: str = "percent", ax: Axes | None = None, **words) -> Axes:
    """A grey line for each replicate over the steps of `x`, and their means with intervals: what is judged is paired.

    Args:
        shown: one row per replicate and step; words: for `Axes.set`.
    """
    bars, shown, ax = _bars(shown, y), _labelled(shown, x), axes(ax, (7, 4.2))
    sns.lineplot(shown, x=x, y=y, units="seed", estimator=None, color="#BBBBBB", lw=1.2, ax=ax, legend=False)
    look = {"color": COLOURS["robust"], "marker": "D", "linestyle": "none", "capsize": 0.06, "zorder": 3}
    sns.pointplot(shown, x=x, y=y, errorbar=bars, ax=ax, err_kws={"linewidth": 2}, **look)
    ax.set(**{"xlabel": "", "ylabel": "%"} | words)
    return ax


def images(x, titles: Sequence[str] = (), ax: Axes | None = None, columns: int = 10) -> Axes:
    """A sheet of images, row by row, with a title to the left of each row.

    Shape:
        x (N, 3, H, W) uint8 or in [0, 1], N a multiple of `columns`.
    """
    x = np.asarray(x.cpu())
    x = x / 255 if x.dtype == np.uint8 else x
    rows, size = len(x) // columns, x.shape[-1]
    sheet = x.reshape(rows, columns, 3, size, size).transpose(0, 3, 1, 4, 2)
    ax = axes(ax, (1.0 * columns + 2, 1.0 * rows))
    ax.imshow(sheet.reshape(rows * size, columns * size, 3), interpolation="nearest")
    ax.set_xticks([])
    ax.set_yticks([(row + 0.5) * size for row in range(len(titles))], titles)
    ax.tick_params(length=0)
    ax.grid(False)
    for edge in range(size, rows * size, size):
        ax.axhline(edge - 0.5, color="white", lw=2)
    return ax


def magnified(delta):
    """Show signed images, such as perturbations or gradients: zero is grey, each image's largest entry full contrast.

    Shape:
        (N, 3, H, W) -> the same, in [0, 1].
    """
    largest = delta.abs().amax((1, 2, 3), keepdim=True)
    return 0.5 + 0.5 * delta / largest.where(largest > 0, 1)


def top_classes(chances, classes: Sequence[str], label: int, ax: Axes | None = None) -> Axes:
    """The three most probable classes of one image; the bar of its label is the coloured one. Shape: chances (K,)."""
    ax = axes(ax, (2.5, 2.5))
    top = chances.cpu().topk(min(3, len(chances)))
    colours = [COLOURS["robust"] if k == label else COLOURS["untrained"] for k in top.indices.tolist()]
    ax.barh(range(len(colours)), 100 * top.values.numpy(), color=colours)
    ax.set_yticks(range(len(colours)), [classes[k] for k in top.indices.tolist()])
    ax.set(xlim=(0, 100), xlabel="probability (%)")
    ax.invert_yaxis()
    return ax


def verdict_colour(text: str) -> str:
    """The style of a table's cell that begins with a verdict: its colour, pale. For `DataFrame.style.map`."""
    words = {"seen": "supported", "opposite": "contradicted", "no": "null", "cannot": "inconclusive"}
    first = text.partition(" ")[0].rstrip(":")
    colour, _ = VERDICTS.get(words.get(first, first), (None, None))
    return f"background-color: {colour}40" if colour else "color: #666666"


def beside(judge: Judge, core: Callable[[pd.DataFrame], pd.DataFrame] = lambda frame: frame) -> None:
    """Effects of a live replicate or of a run of your own beside the kit's; nothing where the run is the kit's.

    The bars are the kit's: where one replicate more must be expected (95 %). Hollow points are your replicates.

    Args:
        core: frame -> the rows that are judged, as in the notebook.
    """
    kit = records.frame(judge.study, judge.preset)
    if kit is None or (judge.frame.attrs["run"] == "kit" and not len(judge.live)):
        return
    key = ["claim", "part"]
    yours = judge.values(judge.live if len(judge.live) else judge.main).groupby(key).value.agg(list)
    both = judge.values(core(kit)).groupby(key).value.agg(list).rename("kit").to_frame().join(yours, how="inner")
    both = both.assign(unit=[claims.get(name).unit for name, _ in both.index])
    outside, heights = [], both.groupby("unit", sort=False).size()
    size = {"figsize": (8, 0.36 * len(both) + 0.9 * len(heights)), "layout": "constrained", "squeeze": False}
    _, panels = plt.subplots(max(1, len(heights)), 1, height_ratios=list(heights + 1) or None, **size)
    for ax, (unit, part) in zip(panels[:, 0], both.groupby("unit", sort=False), strict=False):
        for row, ((name, which), found) in enumerate(part.iloc[::-1].iterrows()):
            expected = predicted(found.kit, claims.get(name).range)
            ax.plot([expected.low, expected.high], [row, row], color=GREY, lw=4, alpha=0.5)
            ax.plot(found.value, [row] * len(found.value), "o", mfc="none", mec=COLOURS["robust"], mew=2, ms=9)
            if not expected.low <= fmean(found.value) <= expected.high:
                outside.append(f"{name}{f' ({which})' if which else ''}")
        ax.set_yticks(range(len(part)), [": ".join(filter(None, pair)) for pair in part.index[::-1]])
        ax.set(xlabel=unit, ylim=(-0.6, len(part) - 0.4))
    where = f"outside: {say.listed(outside)}" if outside else "none lies outside"
    inside = f"{len(both) - len(outside)} of {len(both)} effects of your run (hollow) lie where the kit's replicates"
    tell(f"{inside} lead one to expect them (bars); {where}.")
