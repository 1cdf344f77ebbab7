"""Explorers: sliders over a frame that has been computed. Nothing here trains, so a move answers at once."""

import ipywidgets
import matplotlib.pyplot as plt
import pandas as pd
from IPython.display import display

from rtkit import plots
from rtkit.studies import transfer
from rtkit.studies import transfer_effects as effects


def transfer_sentence(frame: pd.DataFrame, target: str, protocol: str, eps: float, n: int) -> str:
    """Say in words and numbers what the frame holds at one setting."""
    rows = frame[(frame.target == target) & (frame.method == protocol) & (frame.n_train == n)]
    pair = rows[(rows.source == "standard") | ((rows.source == "robust") & (rows.source_eps == eps))]
    table = plots.summary(pair, ["source"]).set_index("source")
    if not {"standard", "robust"} <= set(table.index):
        return f"No run with {n} images of {plots.TARGETS[target]} and source eps {255 * eps:g}/255 in this frame."
    gain = plots.summary(plots.differences(pair, ["target"]), ["target"]).iloc[0]
    word = "Robust is ahead" if gain.low > 0 else "Robust is behind" if gain.high < 0 else "The two are not told apart"
    return (
        f"{n} images of {plots.TARGETS[target]}, {plots.PROTOCOLS[protocol]}: "
        f"standard {table['mean']['standard']:.1f} %, "
        f"robust at eps {255 * eps:g}/255 {table['mean']['robust']:.1f} %. {word}: "
        f"{gain['mean']:+.1f} points [{gain.low:+.1f}, {gain.high:+.1f}], {pair.seed.nunique()} replicates."
    )


def transfer_explorer(frame: pd.DataFrame) -> ipywidgets.Widget:
    """Explore notebook 01's frame: choose target, protocol, source eps and n; see the curves and what they mean."""
    frame = effects.core(frame)
    frame = frame[(frame.metric == "clean_accuracy") & (frame.n_train > 0)]
    runs = frame[frame.source == "robust"]
    levels, sizes = sorted(runs.source_eps.unique()), sorted(runs.n_train.unique())
    options = {"continuous_update": False, "style": {"description_width": "8em"}, "layout": {"width": "24em"}}
    target = ipywidgets.Dropdown(
        options=[(plots.TARGETS[name], name) for name in plots.TARGETS if name in set(runs.target)],
        description="target",
    )
    protocol = ipywidgets.Dropdown(
        options=[(plots.PROTOCOLS[name], name) for name in plots.PROTOCOLS if name in set(runs.method)],
        description="what is trained",
        value="last_stage",
    )
    eps = ipywidgets.SelectionSlider(
        options=[(f"{255 * value:g}/255", value) for value in levels],
        value=transfer.MAIN_EPS,
        description="source eps",
        **options,
    )
    n = ipywidgets.SelectionSlider(
        options=[(str(size), size) for size in sizes], value=sizes[0], description="target images n", **options
    )
    for box in (target, protocol):
        box.style, box.layout = options["style"], options["layout"]
    reset, sentence, canvas = ipywidgets.Button(description="reset"), ipywidgets.HTML(), ipywidgets.Output()
    controls = (target, protocol, eps, n)
    start = [control.value for control in controls]

    def update(_=None):
        sentence.value = f"<p>{transfer_sentence(frame, *(control.value for control in controls))}</p>"
        part = frame[(frame.target == target.value) & (frame.method == protocol.value)]
        part = part[(part.source != "robust") | (part.source_eps == eps.value)]
        part = part[part.source.isin(["standard", "robust", "noise"])]
        figure, ax = plt.subplots(figsize=(5, 3.6), layout="constrained")
        if len(part):
            plots.few_shot(part, ax)
        ax.axvline(n.value, color="black", lw=1, ls=":")
        ax.set(ylim=(0, 100), xlim=(0.8 * sizes[0], 1.25 * sizes[-1]))
        with canvas:
            canvas.clear_output(wait=True)
            display(figure)
        plt.close(figure)

    def restore(_):
        for control, value in zip(controls, start, strict=True):
            control.value = value

    for control in controls:
        control.observe(update, "value")
    reset.on_click(restore)
    update()
    return ipywidgets.VBox([sentence, ipywidgets.HBox([ipywidgets.VBox([*controls, reset]), canvas])])
