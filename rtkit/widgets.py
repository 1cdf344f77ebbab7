"""Explorers: controls beside a figure and a sentence. Nothing here trains, so a move answers at once.

What does train in the background, on request, is `rtkit.trainer.Trainer`.
"""

from collections.abc import Callable, Sequence
from io import BytesIO

import ipywidgets
from matplotlib.figure import Figure

# Handles of sliders and buttons of players come without a name for those who hear them; each gets one.
_NAMED = (
    "<img src='data:,' hidden onerror=\"const box = this.closest('.rtkit-explorer'); "
    "box.querySelectorAll('.widget-hslider').forEach("
    "one => one.querySelector('.noUi-handle').setAttribute('aria-label', one.querySelector('label').innerText)); "
    "box.querySelectorAll('.widget-play button').forEach("
    "(one, k) => one.title = ['play or pause', 'stop, back to the start', 'repeat'][k])\">"
)
_LOOK = {"style": {"description_width": "9em"}, "layout": {"width": "25em"}}


def slider(name: str, options: Sequence, value=None) -> ipywidgets.SelectionSlider:
    """A slider over (label, value) options, or over plain ones, moved by mouse or by the arrow keys.

    Not a menu: JupyterLab takes a menu's arrow keys to move to the next cell.
    """
    first = options[0][1] if isinstance(options[0], tuple) else options[0]
    chosen = first if value is None else value
    return ipywidgets.SelectionSlider(options=options, value=chosen, description=name, continuous_update=False, **_LOOK)


def player(control: ipywidgets.SelectionSlider) -> ipywidgets.Play:
    """A button that plays a slider's options one after the other, to be stopped at any of them."""
    found = ipywidgets.Play(max=len(control.options) - 1, interval=700, show_repeat=False)
    ipywidgets.link((control, "index"), (found, "value"))
    return found


def explorer(
    controls: Sequence[ipywidgets.Widget],
    draw: Callable[..., str],
    size: tuple[float, float],
    layout: str | None = "constrained",
    trainer=None,
    plays: ipywidgets.SelectionSlider | None = None,
) -> ipywidgets.Widget:
    """Lay out controls with a reset button, a sentence, and a figure that follows them.

    Args:
        draw: (figure, *values of the controls) -> the sentence, as HTML; the figure comes empty.
        size: of the figure, in inches of 100 pixels.
        layout: matplotlib's layout engine; None, for panels placed by hand, saves half the time of a drawing.
        trainer: a `trainer.Trainer` whose button computes a setting that the frame lacks.
        plays: the control that a button plays, see `player`.
    """
    sentence, image = ipywidgets.HTML(), ipywidgets.Image(format="png")
    reset = ipywidgets.Button(description="reset")
    start = [control.value for control in controls]

    def update(_=None):
        # No pyplot: nothing is left open, and nothing else draws on it.
        figure = Figure(figsize=size, dpi=100, layout=layout)
        sentence.value = f"<p style='max-width: 60em'>{draw(figure, *(control.value for control in controls))}</p>"
        buffer = BytesIO()
        figure.savefig(buffer, format="png")
        image.value = buffer.getvalue()
        if trainer:
            trainer.follow([control.value for control in controls], update)

    def restore(_):
        for control, value in zip(controls, start, strict=True):
            control.value = value

    for control in controls:
        control.observe(update, "value")
    reset.on_click(restore)
    update()
    # Controls stand beside a narrow figure and above a wide one, and neither squeezes the other.
    beside = ipywidgets.Layout(
        flex="0 0 auto", flex_flow="row wrap", align_content="flex-start", width="26em" if size[0] < 6 else "100%"
    )
    row = ipywidgets.Layout(flex_flow="row wrap")
    below = [*([player(plays)] if plays else []), reset, *([trainer.box] if trainer else []), ipywidgets.HTML(_NAMED)]
    panel = ipywidgets.Box([ipywidgets.Box([*controls, *below], layout=beside), image], layout=row)
    return ipywidgets.VBox([sentence, panel]).add_class("rtkit-explorer")
