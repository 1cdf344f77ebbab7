"""The explorers: what they say and draw follows their controls, and reset brings back the start."""

import pytest
import torch

from rtkit import claims, records, widgets
from rtkit.data.glyphs import Images


def parts(widget):
    """Controls by description, sentence, image and reset button of an explorer."""
    sentence, row = widget.children
    box, image = row.children
    *controls, reset = box.children
    return {control.description: control for control in controls}, sentence, image, reset


@pytest.fixture
def images() -> Images:
    x = torch.randint(0, 256, (6, 3, 32, 32), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    return Images(x, torch.arange(6) % 4, tuple("abcd"))


def test_the_playground_tells_what_both_networks_say(small_net, images):
    other = torch.nn.Sequential(small_net, torch.nn.Linear(4, 4)).eval()
    controls, sentence, image, reset = parts(widgets.attack_playground({"first": small_net, "second": other}, images))
    assert list(controls) == ["image", "attack on", "norm", "eps", "steps"]
    start, picture = sentence.value, image.value
    controls["eps"].value = 0.0
    assert "eps 0/255" in sentence.value
    assert "by more than 0.0 of 255" in sentence.value
    for name, net in (("first", small_net), ("second", other)):
        with torch.no_grad():
            said = images.classes[int(net(images.x[:1].float() / 255).argmax())]
        assert f"the {name} network says {said} (" in sentence.value
    assert image.value != picture
    controls["eps"].value, controls["norm"].value = 32 / 255, "l2"
    assert "RMS 32/255 a pixel" in sentence.value
    controls["image"].value = 3
    assert "A d, attacked on the first network" in sentence.value
    reset.click()
    assert sentence.value == start
    assert image.value == picture


def test_every_claim_can_be_looked_up():
    controls, sentence, image, _ = parts(widgets.claim_explorer(records.every()))
    pictures = set()
    for name, claim in claims.load().items():
        controls["claim"].value = name
        assert claim.statement in sentence.value
        assert claim.paper_effect in sentence.value
        assert not claim.untestable or claim.untestable in sentence.value
        pictures.add(image.value)
    assert len(pictures) > 2
