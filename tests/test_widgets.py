"""The explorers: what they say and draw follows their controls, and reset brings back the start."""

from itertools import product
from unittest import mock

import ipywidgets
import numpy as np
import pytest
import torch
from lessons import explorer, study
from matplotlib.figure import Figure

from rtkit import lesson, models, records, widgets
from rtkit.data.glyphs import SOURCE_LETTERS, Images


def parts(widget):
    """Controls by description, sentence, image and reset button of an explorer."""
    sentence, row = widget.children
    box, image = row.children
    *controls, reset, _ = box.children
    return {control.description: control for control in controls}, sentence, image, reset


@pytest.fixture
def images() -> Images:
    x = torch.randint(0, 256, (6, 3, 32, 32), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    return Images(x, torch.arange(6) % 4, tuple("abcd"))


def test_a_slider_names_its_options():
    plain = widgets.slider("network", ["standard", "robust"])
    assert (plain.description, plain.value) == ("network", "standard")
    named = widgets.slider("eps", [("4/255", 4 / 255), ("8/255", 8 / 255)])
    assert named.value == 4 / 255
    named.index = 1
    assert (named.label, named.value) == ("8/255", 8 / 255)
    assert widgets.slider("eps", [("4/255", 4 / 255), ("8/255", 8 / 255)], 8 / 255).value == 8 / 255
    assert not plain.continuous_update  # a drawing for each place the handle passes would lag behind it


def test_an_explorer_hands_values_on_in_order():
    seen = []

    def draw(figure, name, n):
        seen.append((name, n))
        figure.subplots().plot([0, n])
        return f"<b>{name}</b> at {n}"

    controls = [widgets.slider("name", ["a", "b"]), widgets.slider("n", [1, 2, 3], 2)]
    found, sentence, image, reset = parts(widgets.explorer(controls, draw, (4, 3)))
    assert list(found) == ["name", "n"]
    assert seen == [("a", 2)]
    start, first = sentence.value, image.value
    assert "<b>a</b> at 2" in start
    assert bytes(first).startswith(b"\x89PNG")
    found["n"].value, found["name"].value = 3, "b"
    assert seen[1:] == [("a", 3), ("b", 3)]
    assert "<b>b</b> at 3" in sentence.value
    assert image.value != first
    reset.click()
    assert (sentence.value, image.value) == (start, first)


def test_a_slider_can_be_played():
    seen = []
    step, other = widgets.slider("step", [0, 5, 10], 5), widgets.slider("of", ["a", "b"])
    box = widgets.explorer([other, step], lambda _, *values: str(seen.append(values)), (4, 3), plays=step)
    *_, play, reset, named = box.children[1].children[0].children
    assert isinstance(play, ipywidgets.Play)
    assert (play.min, play.max, play.value) == (0, 2, 1)
    play.value = 2  # as the button does, at every tick
    other.value, step.value = "b", 0
    assert seen == [("a", 5), ("a", 10), ("b", 10), ("b", 0)]
    assert play.value == 0
    reset.click()
    assert play.value == 1
    assert "play or pause" in named.value  # for those who hear it
    assert ".widget-play button" in named.value


def playground(networks, images):
    """Notebook 00's attack by hand."""
    return explorer("00", '"attack on"', live=networks, test=images)


def test_explorers_are_operable_by_keyboard(small_net, images):
    """No menu anywhere: JupyterLab takes its arrow keys."""
    controls, *_ = parts(playground({"one": small_net}, images))
    assert {type(control).__name__ for control in controls.values()} == {"SelectionSlider"}


def test_the_playground_tells_what_both_networks_say(small_net, images):
    other = torch.nn.Sequential(small_net, torch.nn.Linear(4, 4)).eval()
    networks = {"first": small_net, "second": other}
    controls, sentence, image, reset = parts(playground(networks, images))
    assert list(controls) == ["image", "attack on", "norm", "eps", "steps"]
    start, picture = sentence.value, image.value
    controls["eps"].value = 0.0
    assert "eps 0/255" in sentence.value
    assert "by more than 0.0 of 255" in sentence.value
    for name, net in networks.items():
        with torch.no_grad():
            said = images.classes[int(net(images.x[:1].float() / 255).argmax())]
        assert f"the {name} network says {said} (" in sentence.value
    assert image.value != picture
    controls["eps"].value, controls["norm"].value = 32 / 255, "l2"
    assert "RMS 32/255 a pixel" in sentence.value
    controls["image"].value = 3
    assert "Image 4 (d), attacked on the first network" in sentence.value
    controls["attack on"].value = "second"
    assert "attacked on the second network" in sentence.value
    reset.click()
    assert sentence.value == start
    assert image.value == picture


def test_the_playground_takes_networks_of_two_classes(images):
    two = Images(images.x, images.y % 2, tuple("LU"))
    _, sentence, image, _ = parts(playground({"one": models.create(2, "small-8", 0).eval()}, two))
    assert "Image 1 (L)" in sentence.value
    assert bytes(image.value).startswith(b"\x89PNG")


def test_the_studio_says_which_cue_decides():
    class Reads(torch.nn.Module):
        """Whatever it sees, it says the same letter, and its logits hang on the image."""

        def __init__(self, letter):
            super().__init__()
            self.k = SOURCE_LETTERS.index(letter)

        def forward(self, x):
            return torch.nn.functional.one_hot(torch.tensor([self.k]), 20) * (5 + x.mean((1, 2, 3))[:, None])

    networks = {"first": Reads("A"), "second": Reads("B"), "third": Reads("C")}
    controls, sentence, image, _ = parts(explorer("02", '"texture of"', networks=networks))
    assert list(controls) == ["shape", "texture of", "amplitude"]
    for name, letter, cue in (("first", "A", "shape"), ("second", "B", "texture")):
        assert f"the {name} network says {letter} (" in sentence.value
        assert sentence.value.partition(f"{name} network says")[2].partition(": ")[2].startswith(f"the {cue}")
    assert "third network says C" in sentence.value
    assert "neither" in sentence.value
    before = image.value
    controls["amplitude"].value = 0.0
    assert "texture, 0/255 strong" in sentence.value
    assert image.value != before
    controls["shape"].value = int(np.int64(2))
    assert sentence.value.partition("third network says")[2].partition(": ")[2].startswith("the shape")


def test_alpha_moves_the_false_verdicts_of_notebook_07():
    space = lesson.execute(lesson.path("07"), {}, ("parameters", "plumbing")) | {"colours": ["C0", "C1"]}
    cells = [text for kind, _, text in lesson.cells(lesson.path("07")) if kind == "code"]
    wanted = [text for text in cells if any(word in text for word in ("def false_verdicts", "(figure, alpha"))]
    with mock.patch.object(widgets, "explorer") as explorer:
        for text in wanted:
            exec(text, space)
    (controls, draw, _), _ = explorer.call_args
    assert [one.description for one in controls] == ["alpha", "claims"]
    assert (controls[0].value, set(map(type, controls[0].options))) == (0.05, {float})
    count = space["false_verdicts"]
    for alpha in (0.01, 0.05, 0.2):
        assert count(20, 0.0, alpha).mean() == pytest.approx(20 * alpha, rel=0.1)
        assert count(20, 0.7, alpha).mean() == pytest.approx(20 * alpha, rel=0.25)  # as many, in clusters
        assert (count(20, 0.7, alpha) > 0).mean() < (count(20, 0.0, alpha) > 0).mean()
    figure = Figure()
    said = draw(figure, 0.2, 20)
    assert f"intervals of 80.0% (alpha 0.2): {count(20, 0.0, 0.2).mean():.2f} false verdicts on average" in said
    assert figure.axes[0].get_xlim()[1] < 20.7  # zoomed on what there is


def test_the_first_of_many_analyses_is_the_one_that_was_judged():
    space = study("07")
    for name, (of, _, _, switches) in space["MANY"].items():
        claimed = space["analysed"](name, tuple(next(iter(some)) for some in switches.values()))
        kept = records.frame(of, "glyphs")
        assert claimed.replicates == len(set(kept.seed))
    lead = space["analysed"]("U-C1", ("last stage", "all three", "100 and 400", "texture 6/255", "points"))
    record = records.load("transfer", "glyphs", "kit").verdicts["U-C1"]
    assert lead.effect == pytest.approx(record.effect)
    fell = space["analysed"]("NFD-C2", ("nfd", "any", "log odds"))
    record = records.load("attack_success", "glyphs", "kit").verdicts["NFD-C2"]
    assert fell.effect == pytest.approx(record.effect)
    every = {space["analysed"]("U-C1", one) for one in product(*space["MANY"]["U-C1"][3].values())}
    assert len(every) > 20
