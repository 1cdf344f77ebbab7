"""Explorers: controls beside a figure and a sentence. Nothing here trains, so a move answers at once."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from io import BytesIO

import ipywidgets
import numpy as np
import pandas as pd
import torch
from matplotlib.figure import Figure

from rtkit import attacks, claims, compute, plots
from rtkit.data import glyphs
from rtkit.data.glyphs import Images, World
from rtkit.evaluation import logits
from rtkit.models import Network
from rtkit.plots import transfer as figures
from rtkit.records import Record
from rtkit.studies import transfer
from rtkit.studies import transfer_effects as effects
from rtkit.threat import ThreatModel

_LOOK = {"style": {"description_width": "9em"}, "layout": {"width": "25em"}}


def choice(name: str, options: Sequence, index: int = 0) -> ipywidgets.Dropdown:
    """A menu of (label, value) options, or of plain ones."""
    return ipywidgets.Dropdown(options=options, index=index, description=name, **_LOOK)


def slider(name: str, options: Sequence[tuple[str, object]], value) -> ipywidgets.SelectionSlider:
    """A slider over (label, value) options, moved by mouse or keyboard."""
    return ipywidgets.SelectionSlider(options=options, value=value, description=name, continuous_update=False, **_LOOK)


def _radii(levels: Sequence[float]) -> list[tuple[str, float]]:
    return [(f"{255 * eps:g}/255", eps) for eps in levels]


def explorer(
    controls: Sequence[ipywidgets.Widget],
    draw: Callable[..., str],
    size: tuple[float, float],
    layout: str | None = "constrained",
) -> ipywidgets.Widget:
    """Lay out controls with a reset button, a sentence, and a figure that follows them.

    Args:
        draw: (figure, *values of the controls) -> the sentence, as HTML; the figure comes empty.
        size: of the figure, in inches of 100 pixels.
        layout: matplotlib's layout engine; None, for panels placed by hand, saves half the time of a drawing.
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
    return ipywidgets.VBox(
        [sentence, ipywidgets.Box([ipywidgets.Box([*controls, reset], layout=beside), image], layout=row)]
    )


def transfer_sentence(frame: pd.DataFrame, target: str, protocol: str, eps: float, n: int) -> str:
    """Say in words and numbers what the frame holds at one setting."""
    rows = frame[(frame.target == target) & (frame.method == protocol) & (frame.n_train == n)]
    pair = rows[(rows.source == "standard") | ((rows.source == "robust") & (rows.source_eps == eps))]
    table = plots.summary(pair, ["source"]).set_index("source")
    if not {"standard", "robust"} <= set(table.index):
        return f"No run with {n} images of {figures.TARGETS[target]} and source eps {255 * eps:g}/255 in this frame."
    gain = plots.summary(plots.differences(pair, ["target"]), ["target"]).iloc[0]
    word = "Robust is ahead" if gain.low > 0 else "Robust is behind" if gain.high < 0 else "The two are not told apart"
    return (
        f"{n} images of {figures.TARGETS[target]}, {figures.PROTOCOLS[protocol]}: "
        f"standard {table['mean']['standard']:.1f} %, "
        f"robust at eps {255 * eps:g}/255 {table['mean']['robust']:.1f} %. {word}: "
        f"{gain['mean']:+.1f} points [{gain.low:+.1f}, {gain.high:+.1f}], {pair.seed.nunique()} replicates."
    )


def transfer_explorer(frame: pd.DataFrame) -> ipywidgets.Widget:
    """Explore notebook 01's frame: choose target, protocol, source eps and n; see the curves and what they mean."""
    frame = effects.core(frame)
    frame = frame[(frame.metric == "clean_accuracy") & (frame.n_train > 0)]
    frame = frame[frame.source.isin(["standard", "robust", "noise"])]
    runs = frame[frame.source == "robust"]
    sizes = sorted(runs.n_train.unique())
    methods = [name for name in figures.PROTOCOLS if name in set(runs.method)]
    controls = [
        choice("target", [(figures.TARGETS[name], name) for name in figures.TARGETS if name in set(runs.target)]),
        choice("what is trained", [(figures.PROTOCOLS[name], name) for name in methods], methods.index("last_stage")),
        slider("source eps", _radii(sorted(runs.source_eps.unique())), transfer.MAIN_EPS),
        slider("target images n", [(str(n), n) for n in sizes], sizes[0]),
    ]

    def draw(figure: Figure, target: str, protocol: str, eps: float, n: int) -> str:
        figure.subplots_adjust(0.13, 0.16, 0.97, 0.96)
        ax = figure.subplots()
        part = frame[(frame.target == target) & (frame.method == protocol)]
        part = part[(part.source != "robust") | (part.source_eps == eps)]
        if len(part):
            figures.few_shot(part, ax)
        ax.axvline(n, color="black", lw=1, ls=":")
        ax.set(ylim=(0, 100), xlim=(0.8 * sizes[0], 1.25 * sizes[-1]))
        return transfer_sentence(frame, target, protocol, eps, n)

    return explorer(controls, draw, (5, 3.6), layout=None)


def attack_playground(networks: Mapping[str, Network], images: Images) -> ipywidgets.Widget:
    """Attack an image by hand: choose it, the network attacked, norm, eps and steps; see what both networks say.

    Args:
        networks: by name, with the same classes as the images; an image is attacked on one and shown to all.
    """
    levels = [n / 255 for n in (0, 0.5, 1, 2, 3, 4, 6, 8, 12, 16, 24, 32)]
    controls = [
        slider("image", [(f"{k + 1}: {images.classes[y]}", k) for k, y in enumerate(images.y.tolist())], 0),
        choice("attack on", list(networks)),
        choice("norm", [("l-infinity", "linf"), ("l2 of the same RMS", "l2")]),
        slider("eps", _radii(levels), 4 / 255),
        slider("steps", [(str(n), n) for n in (1, 2, 3, 5, 10)], 10),
    ]

    def draw(figure: Figure, k: int, attacked: str, norm: str, eps: float, steps: int) -> str:
        x, y = compute.to_pixels(images.x[k : k + 1]), images.y[k : k + 1].to(compute.device())
        threat = ThreatModel(norm, eps if norm == "linf" else eps * x[0].numel() ** 0.5)
        generator = torch.Generator(x.device).manual_seed(0)
        x2 = attacks.pgd(networks[attacked], x, y, threat, steps=steps, generator=generator)
        chances = {name: logits(net, x2).softmax(1)[0] for name, net in networks.items()}
        figure.subplots_adjust(0.01, 0.2, 0.98, 0.88)
        pictures, *bars = figure.subplots(1, 1 + len(networks), width_ratios=[2.2] + [1] * len(networks))
        plots.images(torch.cat([x, plots.magnified(x2 - x), x2]), ax=pictures, columns=3)
        pictures.set_title("image, perturbation (magnified), sum", fontsize=11)
        said = []
        for ax, (name, chance) in zip(bars, chances.items(), strict=True):
            plots.top_classes(chance, images.classes, int(y), ax).set_title(f"{name} network", fontsize=11)
            top = int(chance.argmax())
            said.append(f"the {name} network says {images.classes[top]} ({100 * chance[top]:.0f} %)")
        size = f"eps {255 * eps:g}/255" if norm == "linf" else f"eps {threat.eps:.2f}, RMS {255 * eps:g}/255 a pixel"
        moved = 255 * float((x2 - x).abs().max())
        return (
            f"A {images.classes[int(y)]}, attacked on the {attacked} network within {norm} {size}, {steps} steps; "
            f"no pixel moved by more than {moved:.1f} of 255 grey levels. Now {', '.join(said)}."
        )

    return explorer(controls, draw, (9, 3), layout=None)


def cue_conflict_studio(networks: Mapping[str, Network], world: World) -> ipywidgets.Widget:
    """Put any letter under any texture; see what each network decides and where its gradient looks."""
    names = glyphs.SOURCE_LETTERS
    letters = [(letter, k) for k, letter in enumerate(names)]
    controls = [
        slider("shape", letters, 0),
        slider("texture of", letters, 1),
        slider("amplitude", _radii([n / 255 for n in (0, 2, 4, 6, 8, 10, 14, 20, 30)]), 14 / 255),
    ]

    def draw(figure: Figure, shape: int, texture: int, amplitude: float) -> str:
        knobs = replace(world, texture_amplitude=amplitude)
        rng, faces = np.random.default_rng(5), glyphs.TEST_FACES
        x = compute.to_pixels(glyphs.draw(names, np.array([shape]), np.array([texture]), knobs, rng, faces=faces))
        figure.subplots_adjust(0.03, 0.2, 0.98, 0.88)
        pictures, *bars = figure.subplots(1, 1 + len(networks), width_ratios=[2.2] + [1] * len(networks))
        shown, said = [x], []
        for ax, (name, net) in zip(bars, networks.items(), strict=True):
            chance = logits(net, x).softmax(1)[0]
            top = chance.argmax()
            with attacks.frozen(net):
                _, grad = attacks.gradient(net, x, top[None], lambda out, k: out.gather(1, k[:, None])[:, 0])
            shown.append(plots.magnified(grad))
            plots.top_classes(chance, names, shape, ax).set_title(f"{name} network", fontsize=11)
            why = {shape: "the shape", texture: "the texture"}.get(int(top), "neither")
            said.append(f"the {name} network says {names[int(top)]} ({100 * chance[top]:.0f} %): {why}")
        plots.images(torch.cat(shown), ax=pictures, columns=len(shown))
        pictures.set_title("image, input gradient of each network", fontsize=11)
        return f"A {names[shape]} under {names[texture]}'s texture, {255 * amplitude:g}/255 strong: {'; '.join(said)}."

    return explorer(controls, draw, (9, 3), layout=None)


def claim_explorer(records: Sequence[Record]) -> ipywidgets.Widget:
    """Look up any claim: what the paper says, how we test it, and what each record found."""
    known = claims.load()
    control = choice("claim", [(f"{name} ({claim.paper})", name) for name, claim in known.items()])

    def draw(figure: Figure, name: str) -> str:
        claim, ax = known[name], figure.subplots()
        found = {
            f"{record.preset} ({record.origin}){regime and f', {regime}'}": verdict
            for record in records
            for (at, _, regime), verdict in ((key.partition("@"), value) for key, value in record.verdicts.items())
            if at == name and verdict.effect is not None
        }
        plots.verdicts(found, ax) if found else ax.set_axis_off()
        ours = (
            "; ".join(f"{at}: {str(verdict).partition(': ')[2]}" for at, verdict in found.items()) or "no judged record"
        )
        return (
            f"<b>{name}.</b> {claim.statement}<br>The paper: {claim.paper_effect} ({claim.where}). Its protocol: "
            f"{claim.protocol}. Ours follows: {claim.fidelity}, margin {claim.margin:g} {claim.unit}."
            f"{f'<br>Why it cannot be tested here: {claim.untestable}.' if claim.untestable else ''}<br>Ours: {ours}."
        )

    return explorer([control], draw, (8, 2.2))
