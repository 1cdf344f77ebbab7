"""The explorer of notebook 04: turn the knobs of noisy feature distillation, see what accuracy and safety they buy."""

import ipywidgets
import pandas as pd
from matplotlib.figure import Figure

from rtkit.plots import attack_success as figures
from rtkit.studies.attack_success_effects import CHOSEN, by_student, complete
from rtkit.widgets import explorer, slider

KNOBS = ["weight", "dropout", "lr"]


def settings(frame: pd.DataFrame) -> pd.DataFrame:
    """Clean accuracy and success of the full method by its knobs, in percent; the number of images is the study's.

    Sources differ so much that only replicates which have every setting are averaged.

    Returns:
        One row per setting: `weight, dropout, lr, clean, success, replicates`.
    """
    table = by_student(frame)
    size = table[table.method == "nfd_averaging"].n_train.max()
    groups = complete(table[(table.method == "nfd") & (table.n_train == size)]).groupby(KNOBS)
    return groups.agg(
        clean=("clean", "mean"), success=("success", "mean"), replicates=("seed", "nunique")
    ).reset_index()


def sentence(table: pd.DataFrame, weight: float, dropout: float, lr: float) -> str:
    """Say what one setting reaches, and whether another one is better at both."""
    one = table[(table.weight == weight) & (table.dropout == dropout) & (table.lr == lr)]
    what = f"lambda {weight:g}, dropout {dropout:g}, learning rate {lr:g}"
    if not len(one):
        return f"No run with {what} in this frame."
    one = one.iloc[0]
    better = table[(table.clean > one.clean) & (table.success < one.success)]
    word = (
        f"{len(better)} of {len(table)} settings do better at both" if len(better) else "no setting does better at both"
    )
    runs = f"{one.replicates:.0f} replicate{'s' if one.replicates > 1 else ''}"
    return f"{what}: {one.clean:.1f} % right, attack succeeds on {one.success:.1f} % of those ({runs}); {word}."


def frontier_explorer(frame: pd.DataFrame) -> ipywidgets.Widget:
    """Choose lambda, dropout and learning rate of the full method; see its place among all settings of the frame."""
    table = settings(frame)
    own = dict(zip(KNOBS, CHOSEN, strict=True))
    names = {"weight": "lambda", "dropout": "dropout", "lr": "learning rate"}
    controls = [
        slider(names[knob], [(f"{value:g}", value) for value in sorted(table[knob].unique())], own[knob])
        for knob in KNOBS
    ]

    def draw(figure: Figure, *knobs: float) -> str:
        figure.subplots_adjust(0.13, 0.15, 0.97, 0.96)
        ax = figure.subplots()
        figures.frontier(table, knobs, ax)
        ax.set(xlim=(-3, 103), ylim=(-3, 103))
        return sentence(table, *knobs)

    return explorer(controls, draw, (5.5, 4), layout=None)
