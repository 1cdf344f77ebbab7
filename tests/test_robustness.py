"""Robust accuracy by hand, and the self-checks that catch a defence which only blinds the attacks."""

import pytest
import torch

from rtkit import compute, robustness
from rtkit.data.glyphs import Images
from rtkit.threat import ThreatModel


class Threshold(torch.nn.Module):
    """Logits [m - 1/2, 1/2 - m] times `scale`, m the mean of the image: robust within |m - 1/2| in l-infinity."""

    def __init__(self, scale: float = 10.0, after=lambda logits: logits):
        super().__init__()
        self.scale, self.after = scale, after

    def forward(self, x):
        height = self.scale * (x.mean((1, 2, 3)) - 0.5)
        return self.after(torch.stack([height, -height], 1))


def flat(*levels: int, y=(0, 0, 0, 0)) -> Images:
    x = torch.tensor(levels, dtype=torch.uint8).view(-1, 1, 1, 1).expand(-1, 3, 8, 8).contiguous()
    return Images(x, torch.tensor(y), ("bright", "dark"))


@pytest.fixture(params=[False, True], ids=["fp32", "bf16"])
def precision(request, monkeypatch):
    monkeypatch.setattr(compute, "bf16", lambda: request.param)


def test_robust_accuracy_by_hand(precision):
    # Grey levels 255, 140, 130 are bright by 127.5, 12.5 and 2.5 grey levels, 100 is misclassified.
    images = flat(255, 140, 130, 100)
    found = [robustness.robustness(Threshold(), images, ThreatModel("linf", eps / 255)) for eps in (0, 2, 3, 13)]
    assert [result.clean for result in found] == [0.75] * 4
    assert [result.robust for result in found] == [0.75, 0.75, 0.5, 0.25]
    assert found[0].constant == 1.0
    assert not found[0].warnings


def test_l2_robust_accuracy_by_hand():
    # Moving every one of 192 entries by d costs sqrt(192) d in l2.
    eps = 192**0.5 * 12 / 255
    found = robustness.robustness(Threshold(), flat(255, 140, 130, 100), ThreatModel("l2", eps))
    assert found.robust == 0.5


def test_self_check_probabilities():
    net = Threshold(after=lambda logits: logits.softmax(1))
    found = robustness.robustness(net, flat(255, 140, 130, 100), ThreatModel("linf", 2 / 255))
    assert any("probabilities" in warning for warning in found.warnings)


def test_self_check_vanishing_gradients():
    class Quantised(Threshold):
        def forward(self, x):
            return super().forward((x * 8).round() / 8)

    found = robustness.robustness(Quantised(), flat(255, 140, 200, 240), ThreatModel("linf", 2 / 255))
    assert found.zero_gradients == 1.0
    assert any("gradients vanish" in warning for warning in found.warnings)


def test_self_check_attack_that_does_not_work():
    class Misleading(Threshold):
        def forward(self, x):
            true = super().forward(x.detach())
            return true - 1e-9 * super().forward(x)  # the same decisions, the gradient turned round

    found = robustness.robustness(Misleading(), flat(255, 255, 0, 0, y=(0, 0, 1, 1)), ThreatModel("linf", 2 / 255))
    assert any("eps = 0.5" in warning for warning in found.warnings)


def test_nothing_to_evaluate_is_an_error():
    with pytest.raises(ValueError, match="no images"):
        robustness.robustness(Threshold(), flat(255)[:0], ThreatModel("linf", 0.1))
