"""Sentences of notebook 06, computed from its frame, so that they read true whichever way the results fall."""

import numpy as np
import pandas as pd

from rtkit import claims, prose
from rtkit.plots.tradeoff import NAMES, title
from rtkit.studies import judging
from rtkit.studies import tradeoff_effects as effects


def span(frame: pd.DataFrame, base: str = "pgd_at") -> str:
    """What a base's frontier offers, and whether there is a trade-off to speak of."""
    found = effects.points(frame, base)
    clean, robust = np.ptp(found[:, 0]), np.ptp(found[:, 1])
    words = "there is a trade-off to improve" if min(clean, robust) >= 5 else "there is hardly a trade-off to improve"
    edge = effects.frontier(found)
    single = [np.ptp(effects.points(part, base)[:, 0]) for _, part in frame.groupby("seed")]
    each = ", ".join(f"{value:.1f}" for value in single)
    return (
        f"Over its knob {NAMES[base]} spans {clean:.1f} points of clean accuracy and {robust:.1f} points of robust "
        f"accuracy: {words}. In single replicates its clean accuracy spans {each} points; where that is little, "
        f"heights above the frontier rest on little, too. {len(edge)} of its {len(found)} points lie on the frontier, "
        f"from {edge[0, 0]:.1f} % clean and {edge[0, 1]:.1f} % robust to {edge[-1, 0]:.1f} % clean and "
        f"{edge[-1, 1]:.1f} % robust."
    )


def taught(frame: pd.DataFrame, base: str = "pgd_at") -> str:
    """What the teacher changes at each knob, and how far the points lie above the base's frontier."""
    name, lines = effects.taught_name(base), []
    if not {base, name} <= set(frame.method):
        return f"No run of {NAMES[name]} in this frame; it is part of `glyphs-full`."
    for knob, weight in effects.settings(frame, name):
        change = []
        for k, word in enumerate(("clean", "robust")):
            shown = judging.over_seeds(
                frame,
                lambda part, k=k, at=(knob, weight): (
                    effects.point(part, name, *at)[k] - effects.point(part, base, at[0])[k]
                ),
            )
            change.append(f"{word} accuracy {prose.number(shown)}")
        lines.append(f"* weight {weight:g}: {', '.join(change)}")
    try:
        shown = judging.over_seeds(frame, lambda part: np.mean(list(effects.heights(part, base, name).values())))
    except (KeyError, claims.OutOfRange):
        return "\n".join([*lines, "", "No point can be compared with the base's frontier."])
    where = "**above**" if shown.low > 0 else "**below**" if shown.high < 0 else "**not clearly off**"
    return "\n".join([*lines, "", f"On average the taught points lie {where} the frontier: {prose.number(shown)}."])


def ablation(frame: pd.DataFrame) -> str:
    """Which way of teaching lifts the point most, as an ordered list."""
    found = {arm: values for arm, values in effects.lifts(frame).items() if values}
    if len(found) < 2:
        return "This frame has one way of teaching only; the ablation is part of `glyphs-full`."
    every, lines = frame.seed.nunique(), []
    for arm in sorted(found, key=lambda arm: -np.mean(found[arm])):
        missing = every - len(found[arm])
        beyond = f" (without {missing} of {every} replicates, where it lies beyond the base's range)" if missing else ""
        lines.append(f"* {title(arm)}: {prose.number(claims.interval(found[arm]))}{beyond}")
    return "\n".join(["Height above the frontier of PGD-AT, highest first:\n", *lines])


def checkpoints(frame: pd.DataFrame) -> str:
    """What choosing a checkpoint on validation images changes, over all arms."""
    rows = frame[frame.metric == "robust_accuracy"]
    keys = ["method", "knob", "weight", "teacher", "seed"]
    wide = rows.pivot_table(index=keys, columns="checkpoint", values="value").dropna()
    gains = 100 * (wide["best"] - wide["last"]).groupby("seed").mean()
    shown = claims.interval(gains.tolist())
    return prose.change(shown, "Taking the best checkpoint instead of the last, robust accuracy on test images")


def others(frame: pd.DataFrame) -> str:
    """MART, RAT and ARKS beside PGD-AT at the same radius."""
    if "rat" not in set(frame.method):
        return "MART, RAT and ARKS are part of `glyphs-full`."
    base, lines = effects.point(frame, "pgd_at"), []
    for method in ("mart", "region", "rat"):
        clean, robust = np.subtract(effects.point(frame, method), base)
        lines.append(f"* {NAMES[method]}: {clean:+.1f} points clean, {robust:+.1f} points robust")
    standard = effects.point(frame, "pgd_at", 0.0)
    for sigma in effects.knobs(frame, "arks"):
        clean, robust = np.subtract(effects.point(frame, "arks", sigma), standard)
        lines.append(f"* ARKS, σ = {sigma:g}, against standard training: {clean:+.1f} clean, {robust:+.1f} robust")
    return "\n".join(["Against PGD-AT of the same radius (means over replicates):\n", *lines])
