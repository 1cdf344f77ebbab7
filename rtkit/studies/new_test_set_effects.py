"""What the new test set's frame says: effects, controls and verdicts of the claims about CIFAR-10.1.

All networks meet the same new images, and what is odd about these no number of networks averages out. So where old
and new accuracies are compared, each replicate has a share of its own of either test set: then its interval covers the
draw of the images as it covers that of the networks. The order of the networks, which such noise can only blur, is
judged on all images.
"""

from pathlib import Path

import numpy as np
import pandas as pd
from scipy import stats

from rtkit import claims
from rtkit.claims import Interval, Verdict
from rtkit.studies import judging
from rtkit.studies.judging import Control, over_seeds
from rtkit.studies.new_test_set import BRIEF, HALVES, NEW, OLD, PARTS, PLANS, STUDY

SPAN = 10  # points between the best and the worst network, at least, for an order and a slope to mean something


def score(frame: pd.DataFrame, images: str, metric: str = "clean_accuracy") -> pd.Series:
    """Mean of a metric on some test images, in percent, by network.

    Raises:
        KeyError: there is none.
    """
    rows = frame[(frame.metric == metric) & (frame.images == images)]
    if not len(rows):
        raise KeyError(f"no {metric} on the images {images!r}")
    return 100 * rows.groupby("network", sort=False).value.mean()


def with_shares(frame: pd.DataFrame) -> pd.DataFrame:
    """The frame, and as the metric `accuracy_of_share` what each network scores on its replicate's own share.

    Of R replicates the k-th has every R-th part of either test set, from the k-th on; beyond `PARTS` they begin again.
    """
    seeds = sorted(frame.seed.unique())
    count = min(len(seeds), PARTS)
    rows = frame[frame.metric == "accuracy_in_part"]
    rows = rows[rows.part % count == rows.seed.map(seeds.index) % count]
    rows = rows.assign(value=rows.value * rows.n_test)
    found = rows.groupby(["seed", "network", "images"], as_index=False, sort=False)[["value", "n_test"]].sum()
    found = found.assign(value=found.value / found.n_test, metric="accuracy_of_share")
    return pd.concat([frame, found], ignore_index=True)


def loss(frame: pd.DataFrame) -> dict[str, float]:
    """By how many points each network is worse on the replicate's share of the new images than on that of the old."""
    return (score(frame, OLD, "accuracy_of_share") - score(frame, NEW, "accuracy_of_share")).to_dict()


def order(frame: pd.DataFrame) -> float:
    """Spearman's rank correlation of the networks' accuracies on all old and on all new images."""
    return float(stats.spearmanr(score(frame, OLD), score(frame, NEW)).statistic)


def slope(frame: pd.DataFrame) -> float:
    """Points on the new images for a point on the old ones: the least-squares line through the networks."""
    old, new = score(frame, OLD, "accuracy_of_share"), score(frame, NEW, "accuracy_of_share")
    return float(np.polyfit(old, new, 1)[0])


EFFECTS: dict[str, claims.Effect] = {"C101-T1": loss, "C101-T2": order, "C101-T3": slope}


def losses(frame: pd.DataFrame) -> dict[str, Interval]:
    """What each network loses, over the replicates, in points."""
    main = with_shares(frame)
    return {name: over_seeds(main, lambda part, name=name: loss(part)[name]) for name in frame.network.unique()}


def controls(frame: pd.DataFrame) -> list[Control]:
    """The study's controls, in points; none for a single replicate."""
    if len(frame.seed.unique()) < 2:
        return []

    def halves(part: pd.DataFrame) -> float:
        return float((score(part, HALVES[0]) - score(part, HALVES[1])).mean())

    def lead(part: pd.DataFrame) -> float:
        found = score(part, OLD, "robust_accuracy")
        return found["robust"] - found["standard"]

    # At 99 % the null control, which is sound, stops one study in a hundred.
    null, attacked = over_seeds(frame, halves, 0.99), over_seeds(frame, lead)
    span = over_seeds(frame, lambda part: float(np.ptp(score(part, OLD))))
    blind = claims.interval([-value for value in frame[frame.metric == "self_check_warnings"].value])
    return [
        Control("two halves of the old test images", "differ by nothing", null.low <= 0 <= null.high, null),
        Control("best minus worst network on the old images", f"at least {SPAN} points", span.low >= SPAN, span),
        Control("robust accuracy, robust minus standard", "above zero", attacked.low > 0, attacked),
        Control("self-checks of the attacks", "no warning", blind.effect == 0, blind),
    ]


def collapsed(frame: pd.DataFrame) -> list[int]:
    """Replicates with a network of a whole training that collapsed (see `judging.collapsed`)."""
    return judging.collapsed(frame[(frame.images == OLD) & ~frame.network.isin(BRIEF)])


def verdicts(frame: pd.DataFrame, preset: str) -> dict[str, Verdict]:
    """Judge the claims about CIFAR-10.1, by id."""
    return judging.verdicts(EFFECTS, {}, with_shares(frame), preset, controls(frame), collapsed(frame))


def publish(frame: pd.DataFrame, preset: str, folder: Path | None = None) -> dict[str, Verdict]:
    """Judge the frame, keep it with its record (by default under runs/) and return the verdicts by claim."""
    found = verdicts(frame, preset)
    judging.publish(STUDY, frame, preset, found, controls(frame), collapsed(frame), folder, PLANS[preset])
    return found
