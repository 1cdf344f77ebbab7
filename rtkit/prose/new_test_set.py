"""Sentences of notebook 06's section on new images, computed from the frame of that study."""

import math

import numpy as np
import pandas as pd

from rtkit import prose
from rtkit.claims import Interval
from rtkit.studies import new_test_set_effects as effects
from rtkit.studies.judging import over_seeds
from rtkit.studies.new_test_set import NEW, OLD
from rtkit.studies.new_test_set_effects import score

NONE = (
    "No run on new images: put CIFAR-10 into `data/cifar10.npz` and CIFAR-10.1 into `data/cifar10_1.npz` "
    "(`data/README.md` says how to get both), then `rtkit study new_test_set --preset cifar-small`, and run this again."
)


def _number(interval: Interval) -> str:
    bounds = "" if math.isinf(interval.low) else f" [{interval.low:.2f}, {interval.high:.2f}]"
    return f"{interval.effect:.2f}{bounds}"


def network(frame: pd.DataFrame, name: str, loss: Interval) -> str:
    """What one network scores on old and on new images, clean and under attack, in percent."""
    clean, attacked = ([score(frame, images, metric)[name] for images in (OLD, NEW)]
                       for metric in ("clean_accuracy", "robust_accuracy"))  # fmt: skip
    word = "**loses**" if loss.low > 0 else "**gains**" if loss.high < 0 else "does **not clearly change**"
    return (
        f"* {name}: {clean[0]:.1f} % and {clean[1]:.1f} %, it {word} ({prose.number(loss)} lost); under attack "
        f"{attacked[0]:.1f} % and {attacked[1]:.1f} %."
    )


def order(frame: pd.DataFrame) -> str:
    """In how many replicates the networks keep their order, and how much of it all of them keep."""
    kept = [(np.argsort(score(part, OLD)) == np.argsort(score(part, NEW))).all() for _, part in frame.groupby("seed")]
    return (
        f"The networks stand in the same order on old and on new images in {sum(kept)} of {len(kept)} replicates; "
        f"rank correlation {_number(over_seeds(frame, effects.order))}."
    )


def slope(frame: pd.DataFrame) -> str:
    """Whether better networks lose less."""
    found = over_seeds(effects.with_shares(frame), effects.slope)
    word = (
        "better networks lose **less**"
        if found.low > 1
        else "better networks lose **more**"
        if found.high < 1
        else "**no clear difference** between what better and worse networks lose"
    )
    return f"A further point on the old images is worth {_number(found)} points on the new ones: {word}."


def tell(frame: pd.DataFrame | None, preset: str = "cifar-small") -> str:
    """What becomes of the networks' accuracies on new images, and the verdicts on the claims about them.

    Args:
        frame: of the study, or None where there is none.
    """
    if frame is None:
        return NONE
    counts = frame[frame.metric == "clean_accuracy"].groupby("images").n_test.max()
    attacked = frame[frame.metric == "robust_accuracy"].n_test.max()
    lost = effects.losses(frame)
    lines = [
        f"Correct of {counts[OLD]:,} old and of {counts[NEW]:,} new images, and under attack of {attacked} each, means "
        "over replicates. For losses and slope each replicate has a share of its own of either test set, so that their "
        "intervals cover the draw of the images; those of the figure, on all images, do not.\n",
        *(network(frame, name, loss) for name, loss in lost.items()),
        "",
        f"Of {len(lost)} networks {sum(loss.low > 0 for loss in lost.values())} clearly lose accuracy, "
        f"{sum(loss.high < 0 for loss in lost.values())} clearly gain it. {order(frame)} {slope(frame)}",
    ]
    checks = [f"* {prose.control(control)}" for control in effects.controls(frame)]
    found = [prose.verdict(verdict) for verdict in effects.verdicts(frame, preset).values()]
    return "\n\n".join(["\n".join(lines), "\n".join(checks), *found])
