"""Sentences of notebook 05, computed from its frame, so that they read true whichever way the results fall."""

import pandas as pd

from rtkit import prose
from rtkit.claims import Interval
from rtkit.plots.retention import NAMES
from rtkit.studies import judging
from rtkit.studies import retention_effects as effects
from rtkit.studies.retention import MAIN_SHAPE, TARGET


def _difference(frame: pd.DataFrame, first: dict, second: dict, metric: int) -> Interval:
    return judging.over_seeds(
        frame, lambda part: effects.point(part, **first)[metric] - effects.point(part, **second)[metric]
    )


def by_shape(frame: pd.DataFrame) -> str:
    """For each reliability of the target's shape: who keeps more robustness than the head alone."""
    shapes = sorted(frame[(frame.target == TARGET) & (frame.method == "full_network")].shape_reliability.unique())
    lines = []
    for shape in shapes:
        head = {"method": "head", "shape": shape}
        found = [_difference(frame, {"method": name, "shape": shape}, head, 1) for name in ("full_network", "lwf")]
        words = []
        for name, d in zip(("full_network", "lwf"), found, strict=True):
            change = "**gains**" if d.low > 0 else "**loses**" if d.high < 0 else "**does not clearly change**"
            words.append(f"{NAMES[name]} {change} ({prose.number(d)})")
        lines.append(
            f"* digit right in {100 * shape:.3g} %: against the head alone, robust accuracy with {'; '.join(words)}"
        )
    return "\n".join(lines)


def head(frame: pd.DataFrame) -> str:
    """What the head alone keeps of the source's robustness, and what a standard source has to keep."""
    robust, standard = (effects.point(frame, "head", source) for source in ("robust", "standard"))
    own = effects.point(frame, "source itself", target="source")
    share = robust[1] / max(robust[0], 1e-9)
    return (
        f"With the head alone retrained the robust source's student is right on {robust[0]:.0f} % of the target images "
        f"and on {robust[1]:.0f} % of the attacked ones, {share:.0%} of the former; the source itself, on its own "
        f"task, on {own[0]:.0f} % and {own[1]:.0f} %. The standard source's student: {standard[0]:.0f} % and "
        f"{standard[1]:.0f} %."
    )


def depth(frame: pd.DataFrame) -> str:
    """Where, over the number of trained blocks, accuracy and robustness are highest."""
    rows = effects.trend(frame)
    means = 100 * rows[rows.source == "robust"].pivot_table(index="blocks", columns="metric", values="value")
    words = {0: "the head alone", 6: "all layers"}
    best = [means[metric].idxmax() for metric in ("clean_accuracy", "robust_accuracy")]
    named = [words.get(k, f"{k} block{'s' if k > 1 else ''}") for k in best]
    falls = means.robust_accuracy.is_monotonic_decreasing
    before = judging.over_seeds(frame, lambda part: effects.EFFECTS["LwF-C2"](part)[effects.BEFORE_LAST])
    word = "falls" if before.low > 0 else "rises" if before.high < 0 else "does not clearly fall"
    return (
        f"Clean accuracy is highest with {named[0]} trained ({means.clean_accuracy.max():.0f} %), robust accuracy with "
        f"{named[1]} ({means.robust_accuracy.max():.0f} %). On the way robustness "
        f"{'falls with every step' if falls else 'does not fall with every step'}: "
        f"{', '.join(f'{value:.0f}' for value in means.robust_accuracy)} %. Up to the last step but one it {word}, by "
        f"{prose.number(before)}."
    )


def forgetting(frame: pd.DataFrame) -> str:
    """LwF against the head alone, against fine-tuning and against training less of the network, on both axes."""
    lines = []
    for other in ("head", "full_network", "last_two_stages"):
        clean, robust = (_difference(frame, {"method": "lwf"}, {"method": other}, k) for k in (0, 1))
        lines.append(f"* against {NAMES[other]}: clean {prose.number(clean)}, robust {prose.number(robust)}")
    return "\n".join(["Learning without forgetting, main regime:\n", *lines])


def weights(frame: pd.DataFrame) -> str:
    """How robustness follows lambda, and whether it rises throughout."""
    rows = frame[(frame.target == TARGET) & (frame.method == "lwf") & (frame.shape_reliability == MAIN_SHAPE)]
    rows = rows[(rows.source == "robust") & (rows.metric == "robust_accuracy")]
    means = 100 * rows.groupby("weight").value.mean()
    if len(means) < 3:
        return "The sweep over λ is part of `glyphs-full`."
    rises = "rises with λ throughout" if means.is_monotonic_increasing else f"is highest at λ = {means.idxmax():g}"
    return f"Robust accuracy {rises}: " + ", ".join(f"{value:.0f} % at {w:g}" for w, value in means.items()) + "."


def low_data(frame: pd.DataFrame) -> str:
    """With few images: frozen robust features against adversarial training from scratch."""
    lines = []
    for n in sorted(frame[frame.method == effects.ADVERSARIAL].n_train.unique()):
        first, second = {"method": "head", "n": n}, {"method": effects.ADVERSARIAL, "n": n}
        clean, robust = (_difference(frame, first, second, k) for k in (0, 1))
        times = effects.cost(frame, effects.ADVERSARIAL, n) / effects.cost(frame, "head", n)
        lines.append(
            f"* {n} images: clean {prose.number(clean)}, robust {prose.number(robust)}, {times:.1f} times cheaper"
        )
    return "\n".join(["The head on frozen robust features, against adversarial training from scratch:\n", *lines])


def same(frame: pd.DataFrame) -> str:
    """LwF on the source's own task."""
    source, after = (effects.point(frame, name, target="source") for name in ("source itself", "lwf"))
    return (
        f"On its own task the source goes from {source[0]:.1f} % clean and {source[1]:.1f} % robust to "
        f"{after[0]:.1f} % and {after[1]:.1f} %: {after[0] - source[0]:+.1f} and {after[1] - source[1]:+.1f} points."
    )
