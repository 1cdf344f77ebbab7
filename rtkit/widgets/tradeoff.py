"""The explorer of notebook 06: a base, its knob, the teacher's weight, and where that lands on the plane."""

import ipywidgets
import pandas as pd
from matplotlib.figure import Figure

from rtkit import claims
from rtkit.plots import tradeoff as figures
from rtkit.studies import tradeoff_effects as effects
from rtkit.widgets import choice, explorer, slider


def _chosen(base: str, knob: float, weight: float) -> str:
    return f"{figures.NAMES[base]} at knob {knob:g}, {f'taught with weight {weight:g}' if weight else 'no teacher'}"


def sentence(frame: pd.DataFrame, base: str, knob: float, weight: float) -> str:
    """Say where the chosen point lies and how far above the base's frontier."""
    method = effects.taught_name(base) if weight else base
    rows = frame[(frame.method == method) & (frame.knob == knob) & (frame.weight == weight)]
    rows = rows[rows.checkpoint == "last"]
    name = _chosen(base, knob, weight)
    if not len(rows):
        return f"{name}: not in this frame."
    clean, robust = effects.point(rows, method, knob)
    edge = effects.points(effects.core(frame), base)
    try:
        above = f"{effects.height(edge, (clean, robust)):+.1f} points above {figures.NAMES[base]}'s frontier"
    except (KeyError, claims.OutOfRange):
        above = "beyond the frontier's range, and not better than all of it"
    return f"{name}: {clean:.1f} % clean, {robust:.1f} % robust, {above} ({rows.seed.nunique()} replicates)."


def tradeoff_explorer(frame: pd.DataFrame) -> ipywidgets.Widget:
    """Explore notebook 06's frame: choose base, knob and the teacher's weight; see the point against the frontier."""
    last = frame[frame.checkpoint == "last"]
    bases = [base for base in effects.BASES if effects.taught_name(base) in set(frame.method)]
    every = last[last.method.isin([*bases, *map(effects.taught_name, bases)])]
    knobs = sorted(every.knob.unique())
    weights = sorted(every.weight.unique())
    controls = [
        choice("base", [(effects.BASES[base], base) for base in bases]),
        slider("eps · 255, or β", [(f"{knob:g}", knob) for knob in knobs], effects.MAIN),
        slider("teacher's weight", [(f"{weight:g}", weight) for weight in weights], weights[0]),
    ]
    shown, left = effects.core(frame), 100 * every[every.metric == "clean_accuracy"].value.min()

    def draw(figure: Figure, base: str, knob: float, weight: float) -> str:
        figure.subplots_adjust(0.12, 0.15, 0.97, 0.92)
        ax = figure.subplots()
        figures.frontier(shown, base, ax)
        method = effects.taught_name(base) if weight else base
        rows = every[(every.method == method) & (every.knob == knob) & (every.weight == weight)]
        if len(rows):
            ax.plot(*effects.point(rows, method, knob), "*", color="black", ms=16)
        ax.set(xlim=(left - 6, 106), ylim=(-3, 103))
        ax.set_title(_chosen(base, knob, weight), fontsize=10)
        return sentence(frame, base, knob, weight)

    return explorer(controls, draw, (5.5, 4.2), layout=None)
