"""Sentences of notebook 01, computed from its frame, so that they read true whichever way the results fall."""

import math

import pandas as pd

from rtkit import plots
from rtkit.claims import Interval
from rtkit.plots.transfer import PROTOCOLS, by_name, title
from rtkit.prose import compare
from rtkit.studies.judging import over_seeds
from rtkit.studies.transfer_effects import pick, score


def scale(frame: pd.DataFrame, target: str = "digits") -> str:
    """What the standard source is worth on one target, beside random weights.

    Args:
        frame: clean accuracies at one number of images, of all sources.
    """
    arms = {"untrained": ("fixed_feature", "random weights"), "standard": ("scratch", "training from scratch")}
    words = []
    for source, (method, name) in arms.items():
        mine = {"method": "fixed_feature" if source == "untrained" else "full_network", "target": target}
        lead = over_seeds(
            frame,
            lambda part, source=source, method=method, mine=mine: (
                score(part, "standard", **mine) - score(part, source, method=method, target=target)
            ),
        )
        words.append(compare(lead, "the standard source", name))
    return (
        f"For scale, {title(target)}: with fixed features {words[0]}; with the full network trained {words[1]}. Where the "
        "standard source is worth no more than random weights, part of the robust one's lead is the standard one's failure."
    )


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
