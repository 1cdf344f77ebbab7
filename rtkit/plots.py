"""Figures. A plot function takes (frame, ax=None), draws one panel and returns the axes; nothing here computes."""

from collections.abc import Mapping, Sequence

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import seaborn as sns
import torch
from matplotlib.axes import Axes
from scipy import stats

from rtkit import claims
from rtkit.claims import Verdict

# Okabe and Ito's colours, told apart by readers with any common kind of colour blindness; markers say it once more.
COLOURS = {"standard": "#0072B2", "noise": "#009E73", "robust": "#D55E00", "untrained": "#7F7F7F", "scratch": "#CC79A7"}
MARKERS = {"standard": "o", "noise": "s", "robust": "D", "untrained": "x", "scratch": "v"}
VERDICTS = {"supported": "#009E73", "contradicted": "#D55E00", "inconclusive": "#E69F00", "not_judged": "#7F7F7F"}
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
}
PROTOCOLS = {
    "fixed_feature": "fixed features",
    "probe": "convex probe",
    "last_block": "last block",
    "last_stage": "last stage",
    "last_two_stages": "last two stages",
    "full_network": "full network",
    "scratch": "from scratch",
}


def style() -> None:
    """Set the look of all figures: white ground, readable sizes."""
    sns.set_theme(style="whitegrid", context="notebook", rc={"figure.dpi": 100, "axes.titlesize": 12})


def _axes(ax: Axes | None, size: tuple[float, float] = (5.5, 4)) -> Axes:
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


def _bars(ax: Axes, x, table: pd.DataFrame, **options) -> None:
    errors = np.nan_to_num(np.vstack([table["mean"] - table["low"], table["high"] - table["mean"]]))
    ax.errorbar(x, table["mean"], yerr=errors, **{"capsize": 3, "lw": 1.8, "ms": 7} | options)


def _by_source(ax: Axes, table: pd.DataFrame, x: str, dodge: float = 1.0) -> None:
    """A line per source; `dodge` moves neighbours apart by that factor so that their bars do not hide each other."""
    present = [name for name in COLOURS if name in set(table.source)]
    for k, name in enumerate(present):
        part = table[table.source == name]
        place = part[x] * dodge ** (k - (len(present) - 1) / 2)
        _bars(ax, place, part, label=name, color=COLOURS[name], marker=MARKERS[name])
    ax.legend(title="source", loc="lower right")


def images(x: torch.Tensor, titles: Sequence[str] = (), ax: Axes | None = None, columns: int = 10) -> Axes:
    """A sheet of images, row by row, with a title to the left of each row.

    Shape:
        x (N, 3, H, W) uint8 or in [0, 1], N a multiple of `columns`.
    """
    x = x.float() / 255 if x.dtype == torch.uint8 else x
    rows, size = len(x) // columns, x.shape[-1]
    sheet = x.view(rows, columns, 3, size, size).permute(0, 3, 1, 4, 2).reshape(rows * size, columns * size, 3)
    ax = _axes(ax, (1.0 * columns + 2, 1.0 * rows))
    ax.imshow(sheet.numpy(), interpolation="nearest")
    ax.set_xticks([])
    ax.set_yticks([(row + 0.5) * size for row in range(len(titles))], titles)
    ax.tick_params(length=0)
    ax.grid(False)
    for edge in range(size, rows * size, size):
        ax.axhline(edge - 0.5, color="white", lw=2)
    return ax


def few_shot(frame: pd.DataFrame, ax: Axes | None = None) -> Axes:
    """Test accuracy against the number of target images, a line per source. One target, one protocol."""
    ax = _axes(ax)
    table = summary(frame, ["source", "n_train"])
    _by_source(ax, table, "n_train", dodge=1.04)
    sizes = sorted(table.n_train.unique())
    ax.set_xscale("log")
    ax.set_xticks(sizes, [str(n) for n in sizes])
    ax.minorticks_off()
    ax.set(xlabel="target training images", ylabel="test accuracy (%)")
    return ax


def by_eps(frame: pd.DataFrame, ax: Axes | None = None) -> Axes:
    """Test accuracy against the source's eps (0 is the standard source), a line per target."""
    ax = _axes(ax, (8, 4.2))
    frame = frame[frame.source.isin(["standard", "robust"])]
    levels = sorted(frame.source_eps.unique())
    table = summary(frame, ["target", "source_eps"])
    for target in [name for name in TARGETS if name in set(table.target)]:
        part = table[table.target == target]
        place = [levels.index(eps) for eps in part.source_eps]
        _bars(ax, place, part, label=TARGETS[target], **_TARGET_LOOK[target])
    ax.set_xticks(range(len(levels)), [f"{255 * eps:g}" for eps in levels])
    ax.set(xlabel="source eps (n/255, l-infinity; 0 = standard)", ylabel="test accuracy (%)", ylim=(0, 100))
    ax.legend(title="target", fontsize=9, loc="upper left", bbox_to_anchor=(1, 1))
    return ax


def gains(frame: pd.DataFrame, ax: Axes | None = None) -> Axes:
    """Gain of the robust source by protocol and target, with 95 % intervals and a line at zero."""
    ax = _axes(ax, (7, 4))
    table = summary(differences(frame, ["method", "target"]), ["method", "target"])
    methods = [name for name in PROTOCOLS if name in set(table.method)]
    targets = [name for name in TARGETS if name in set(table.target)]
    for k, target in enumerate(targets):
        part = table[table.target == target]
        place = [methods.index(name) + 0.18 * (k - (len(targets) - 1) / 2) for name in part.method]
        _bars(ax, place, part, label=TARGETS[target], **_TARGET_LOOK[target] | {"ls": "none"})
    ax.axhline(0, color="black", lw=1)
    ax.set_xticks(range(len(methods)), [PROTOCOLS[name] for name in methods])
    ax.set(ylabel="robust minus standard (points)", xlabel="what is trained on the target")
    ax.legend(title="target", loc="upper left", bbox_to_anchor=(1, 1))
    return ax


def learning_speed(frame: pd.DataFrame, ax: Axes | None = None) -> Axes:
    """Test accuracy against the training step, a line per source."""
    ax = _axes(ax)
    _by_source(ax, summary(frame, ["source", "step"]), "step")
    ax.set(xlabel="training step", ylabel="test accuracy (%)", xlim=(0, None))
    return ax


def resolution(frame: pd.DataFrame, ax: Axes | None = None) -> Axes:
    """Gain of the robust source on the textured digits at native and at lowered resolution, a line per replicate."""
    ax = _axes(ax)
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


def phase_diagram(frame: pd.DataFrame, ax: Axes | None = None) -> Axes:
    """Gain of the robust source over (texture amplitude, shape reliability), with its zero line.

    Each field shows the mean gain in points; a star marks those whose 95 % interval excludes zero.
    """
    ax = _axes(ax, (7.5, 4.5))
    knobs = ["shape_reliability", "texture_amplitude"]
    table = summary(differences(frame, knobs), knobs)
    grid = table.pivot_table(index=knobs[0], columns=knobs[1], values="mean").sort_index(ascending=False)
    sure = table.assign(sure=(table.low > 0) | (table.high < 0))
    sure = sure.pivot_table(index=knobs[0], columns=knobs[1], values="sure").sort_index(ascending=False)
    text = grid.map("{:+.1f}".format) + sure.map(lambda value: "*" if value else "")
    limit = max(5.0, float(np.nanmax(np.abs(grid.to_numpy()))))
    bar = {"label": "robust minus standard (points)"}
    sns.heatmap(
        grid, ax=ax, cmap="PuOr_r", center=0, vmin=-limit, vmax=limit, annot=text, fmt="", cbar_kws=bar, linewidths=1
    )
    if min(grid.shape) > 1 and grid.to_numpy().min() < 0 < grid.to_numpy().max():
        columns, rows = np.meshgrid(np.arange(grid.shape[1]) + 0.5, np.arange(grid.shape[0]) + 0.5)
        ax.contour(columns, rows, grid.to_numpy(), levels=[0], colors="black", linewidths=2.5, linestyles="--")
    ax.set_xticks(np.arange(grid.shape[1]) + 0.5, [f"{255 * value:g}" for value in grid.columns], rotation=0)
    ax.set_yticks(np.arange(grid.shape[0]) + 0.5, [f"{100 * value:g}" for value in grid.index], rotation=0)
    ax.set(xlabel="texture amplitude (n/255)", ylabel="how often the shape is right (%)")
    return ax


def verdicts(found: Mapping[str, Verdict], ax: Axes | None = None) -> Axes:
    """A forest plot: each judged effect with its interval, coloured by verdict, in the unit named beside it."""
    shown = [verdict for verdict in found.values() if verdict.effect is not None]
    ax = _axes(ax, (8, 0.45 * max(len(shown), 2) + 1.2))
    for row, verdict in enumerate(reversed(shown)):
        colour = VERDICTS[verdict.verdict]
        ax.plot([verdict.low, verdict.high], [row, row], color=colour, lw=3)
        ax.plot(verdict.effect, row, "o", color=colour, ms=8)
        margin = claims.load()[verdict.claim].margin
        ax.plot([margin, margin], [row - 0.3, row + 0.3], color="black", lw=1.5)
    labels = [f"{verdict.claim}  {verdict.verdict.replace('_', ' ')}" for verdict in reversed(shown)]
    ax.set_yticks(range(len(shown)), labels)
    ax.set(
        xlabel="effect with 95 % interval (points; S-C4: grey levels of 255); black tick: the margin",
        ylim=(-0.6, len(shown) - 0.4),
    )
    return ax


def power(replicates: Sequence[int] = (3, 5, 10), ax: Axes | None = None) -> Axes:
    """Chance that the judge says "supported", against the true effect in standard deviations between replicates."""
    ax = _axes(ax)
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


def _main(path: str) -> None:
    """Draw the README's figure from the frame that comes with the kit."""
    from rtkit import studies
    from rtkit.studies import transfer_effects as effects

    frame = studies.published("transfer", "glyphs-full")
    if frame is None:
        raise SystemExit(
            "no frame of the preset glyphs-full under results/: run rtkit study transfer --preset glyphs-full"
        )
    style()
    phase_diagram(effects.phase(frame)).figure.savefig(path, dpi=110, metadata={"Software": None})


if __name__ == "__main__":
    import sys

    _main(sys.argv[1])
