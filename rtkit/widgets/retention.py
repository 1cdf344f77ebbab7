"""The explorer of notebook 05: how much is trained, how strongly it is held, and what becomes of both accuracies."""

import ipywidgets
import pandas as pd
from matplotlib.figure import Figure

from rtkit.plots import retention as figures
from rtkit.studies import retention_effects as effects
from rtkit.studies.retention import TARGET
from rtkit.widgets import choice, explorer, slider


def sentence(rows: pd.DataFrame, shape: float, arm: tuple[str, float]) -> str:
    """Say where the chosen arm lies on the plane, beside the head alone."""
    name, weight = arm
    label = figures.NAMES[name] + (f" with λ = {weight:g}" if name == "lwf" else "")
    means = 100 * rows.pivot_table(index=["method", "weight"], columns="metric", values="value")
    if arm not in means.index:
        return f"{label}, digit right in {100 * shape:.3g} %: not in this frame."
    here, head = means.loc[arm], means.loc[("head", 0.0)]
    return (
        f"{label}, digit right in {100 * shape:.3g} %: {here.clean_accuracy:.1f} % clean, {here.robust_accuracy:.1f} % "
        f"under attack; against the head alone {here.clean_accuracy - head.clean_accuracy:+.1f} and "
        f"{here.robust_accuracy - head.robust_accuracy:+.1f} points ({rows.seed.nunique()} replicates)."
    )


def retention_explorer(frame: pd.DataFrame) -> ipywidgets.Widget:
    """Explore notebook 05's frame: how often the shape is right, how many blocks learn, how large lambda is."""
    rows = frame[(frame.target == TARGET) & (frame.source == "robust") & (frame.n_train == effects.size(frame))]
    shapes = sorted(rows[rows.method == "full_network"].shape_reliability.unique())
    depths = [name for name in effects.BLOCKS if name in set(rows.method)]
    weights = sorted(rows[rows.method == "lwf"].weight.unique())
    arms = [(figures.NAMES[name], (name, 0.0)) for name in depths]
    arms += [(f"all layers, λ = {weight:g}", ("lwf", weight)) for weight in weights]
    controls = [
        slider("digit right", [(f"{100 * shape:.3g} %", shape) for shape in shapes], shapes[0]),
        choice("trained", arms, arms.index((figures.NAMES["full_network"], ("full_network", 0.0)))),
    ]

    def draw(figure: Figure, shape: float, arm: tuple[str, float]) -> str:
        figure.subplots_adjust(0.12, 0.15, 0.97, 0.97)
        ax = figure.subplots()
        part = rows[rows.shape_reliability == shape]
        means = 100 * part.pivot_table(index=["method", "weight"], columns="metric", values="value")
        for one in (arm for _, arm in arms):
            if one in means.index:
                colour, marker = figures.LOOKS.get(one[0], ("#7F7F7F", "x"))
                ax.plot(*means.loc[one][list(figures.METRICS)], marker, color=colour, ms=8)
        if arm in means.index:
            ax.plot(*means.loc[arm][list(figures.METRICS)], "o", color="black", mfc="none", mew=2, ms=17)
        ax.set(xlim=(-3, 103), ylim=(-3, 103), xlabel="clean accuracy (%)", ylabel="robust accuracy at 4/255 (%)")
        return sentence(part, shape, arm)

    return explorer(controls, draw, (5.5, 4.2), layout=None)
