"""Sentences of notebook 01, computed from its frame, so that they read true whichever way the results fall."""

import math

import pandas as pd

from rtkit import plots
from rtkit.claims import Interval, log_odds
from rtkit.plots.transfer import PROTOCOLS, by_name, title
from rtkit.prose import compare, number
from rtkit.studies.judging import over_seeds
from rtkit.studies.transfer_effects import effect_interval, pick, score


def scale(frame: pd.DataFrame, target: str = "digits") -> str:
    """What the standard source is worth on one target, beside random weights.

    Args:
        frame: clean accuracies at one number of images, of all sources.
    """
    words = []
    for other, (ours, method, name) in {
        "untrained": ("fixed_feature", "fixed_feature", "random weights"),
        "standard": ("full_network", "scratch", "training from scratch"),
    }.items():
        first, second = {"method": ours, "target": target}, {"method": method, "target": target}
        lead = over_seeds(
            frame, lambda part, a=first, b=second, other=other: score(part, "standard", **a) - score(part, other, **b)
        )
        words.append(compare(lead, "the standard source", name))
    return (
        f"For scale, {title(target)}: with fixed features {words[0]}; with the full network trained {words[1]}. Where "
        "the standard source is worth no more than random weights, the robust one's lead is in part its failure."
    )


def ceiling(frame: pd.DataFrame) -> str:
    """Whether the lead also shrinks on a scale without a ceiling.

    Args:
        frame: clean accuracies of the last stage fine-tuned, from the standard and the robust source of one radius.
    """
    sizes = sorted(frame.n_train.unique())

    def lead(part: pd.DataFrame, n: int) -> float:
        odds = pick(part, n_train=n)
        odds = odds.assign(value=[log_odds(share * n, n) for share, n in zip(odds.value, odds.n_test, strict=True)])
        means = odds.groupby("source").value.mean()
        return means["robust"] - means["standard"]

    fall = over_seeds(frame, lambda part: lead(part, sizes[0]) - lead(part, sizes[-1]))
    word = (
        "shrinks there, too" if fall.low > 0 else "**grows** there" if fall.high < 0 else "does **not** clearly shrink"
    )
    return (
        "In points a lead must shrink where both arms near 100 %. In log odds, a scale without a ceiling, it "
        f"{word}: {number(fall, 'log odds')}."
    )


def radius(frame: pd.DataFrame) -> str:
    """Which radius validation chooses for targets with and without a fine cue."""
    try:
        found = number(effect_interval(frame, "S-C4"), "grey levels")
    except KeyError:
        return "With a single robust source there is no radius to choose; the sweep is part of `glyphs-full`."
    return f"The radius that validation chooses for the shape targets minus that for the digits with textures: {found}."


def phase(table: pd.DataFrame) -> str:
    """What the phase diagram shows.

    Args:
        table: `plots.summary` of the gain by texture amplitude and shape reliability, and for each world `bias`, the
            standard source's shape bias in percent.
    """
    if len(table) < 2:
        return "A single world makes no phase diagram; the sweep is part of the preset `glyphs-full`."
    ahead, behind = (table.low > 0).sum(), (table.high < 0).sum()
    parts = [f"Of {len(table)} worlds the robust source is clearly ahead in {ahead}, clearly behind in {behind}."]
    shape = table.bias > 90
    if shape.any() and not shape.all():
        parts.append(
            f"In the {shape.sum()} worlds whose standard source decides by shape anyway (shape bias above 90 %), it "
            f"leads by {table['mean'][shape].mean():+.1f} points on average; in the other {(~shape).sum()}, by "
            f"{table['mean'][~shape].mean():+.1f}."
        )
    always = table[(table.shape_reliability == 1) & (table.texture_amplitude > 0) & (table["mean"] > 10) & ~shape]
    for _, row in always.iterrows():
        parts.append(
            f"A shape that is always right is no off-switch at a texture of {255 * row.texture_amplitude:g}/255: the "
            f"standard source takes the texture all the same (shape bias {row.bias:.0f} %), and the lead is "
            f"{row['mean']:+.1f}."
        )
    both = table[(table.texture_amplitude == 0) & (table.shape_reliability == 1)]
    for _, row in both.iterrows():
        both_off = Interval(row["mean"], row.low, row.high, 0)
        parts.append(f"With both off-switches thrown, {compare(both_off)}.")
    return " ".join(parts)


def real(frame: pd.DataFrame) -> str:
    """Where the robust source helps on data sets by name, and where it does not.

    Args:
        frame: `transfer_effects.named` of a run.
    """
    if not len(frame):
        return (
            "No run on real images: name a data set of yours (`-p targets NAME`), or run the preset `cifar-small` once "
            "CIFAR-100 and one of its targets are there (`rtkit data list`)."
        )
    ahead, behind, lines = 0, 0, []
    for target in by_name(frame.target):
        rows = pick(frame, target=target)
        few, most = rows.n_train.min(), rows.n_train.max()
        cases = [(name, n) for name in ("fixed_feature", "last_stage") for n in dict.fromkeys((few, most))]
        for method, n in cases:
            table = plots.summary(plots.differences(pick(rows, method=method, n_train=n), ["target"]), ["target"])
            for row in table.fillna({"low": -math.inf, "high": math.inf}).itertuples():
                ahead, behind = ahead + (row.low > 0), behind + (row.high < 0)
                lead = Interval(row.mean, row.low, row.high, rows.seed.nunique())
                lines.append(f"* {title(target)}, {PROTOCOLS[method]}, n = {n}: {compare(lead)}")
    told = len(lines) - ahead - behind
    head = f"Of {len(lines)} comparisons the robust source is clearly ahead in {ahead} and clearly behind in {behind}"
    return "\n".join([f"{head}; {told} are not told apart.\n", *lines])
