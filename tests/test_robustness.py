"""Robust accuracy by hand, and the self-checks that catch a defence which only blinds the attacks."""

import copy

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


@pytest.fixture(scope="module")
def trained():
    """A standard network that knows its task, and images that it classifies correctly."""
    from rtkit import evaluation, models
    from rtkit.data import glyphs
    from rtkit.training import Phase, train

    world = glyphs.World(texture_amplitude=20 / 255)
    net, images = models.create(20, "small-8", seed=0), glyphs.source(world, 1500, 0)
    train(net, images, (Phase(steps=100, lr=0.2),), 0)
    test = glyphs.source(world, 200, 0, split="test")
    return net, test[evaluation.predictions(net, test) == test.y][:100]


THREAT = ThreatModel("linf", 8 / 255)


def masked(net, how: str):
    net = copy.deepcopy(net)
    if how == "logits x 100":
        for parameter in net.head.parameters():
            parameter.data *= 100
    elif how == "rounded input":
        net.register_forward_pre_hook(lambda module, inputs: ((inputs[0] * 15).round() / 15,))
    return net


@pytest.mark.slow
def test_a_network_without_robustness_is_seen_through(trained):
    net, images = trained
    found = robustness.robustness(net, images, THREAT, steps=10)
    assert found.clean == 1
    assert found.robust < 0.2
    assert not found.warnings


@pytest.mark.slow
@pytest.mark.parametrize("how", ["logits x 100", "rounded input"])
def test_masked_gradients_are_caught(trained, how):
    """Both defences hide the gradient from PGD on the cross-entropy; the self-checks say so, and a transferred attack
    shows that there is no robustness behind it."""
    net, images = trained
    hidden = masked(net, how)
    found = robustness.robustness(hidden, images, THREAT, steps=10, surrogates=[net])
    assert found.after["PGD on the cross-entropy"] > 0.5
    assert any("gradients vanish" in warning for warning in found.warnings)
    assert found.robust < 0.3


def test_the_worst_case_only_falls_and_each_attack_sees_survivors():
    seen = []

    def attack(broken):
        def run(net, x, y, threat, generator):
            seen.append(len(x))
            return torch.where((x.mean((1, 2, 3), keepdim=True) * 255 < broken), 0.0, x)

        return run

    images = flat(255, 200, 150, 140)
    x, y = images.x.float() / 255, images.y
    rows = robustness.worst_case(Threshold(), x, y, THREAT, [attack(145), attack(100), attack(160)], None)
    assert rows.tolist() == [
        [True] * 4,
        [True, True, True, False],
        [True, True, True, False],
        [True, True, False, False],
    ]
    assert seen == [4, 3, 3]


def test_the_battery():
    names = list(robustness.battery(20, steps=5, strong=True, surrogates=[None]))
    assert names[:4] == [
        "PGD on the cross-entropy",
        "PGD on the margin",
        "transferred from network 1",
        "APGD on the cross-entropy",
    ]
    assert len(names) == 4 + 9
    assert len(robustness.battery(5, steps=5, strong=True)) == 3 + 4
    # Below four classes the ratio of logits does not exist.
    assert list(robustness.battery(3, steps=5, strong=True))[2:] == ["APGD on the cross-entropy", "APGD on the margin"]


def test_strong_attacks_by_hand(precision):
    images = flat(255, 140, 130, 100)
    found = robustness.robustness(Threshold(), images, ThreatModel("linf", 3 / 255), strong=True)
    assert list(found.after.values()) == [0.5] * 4


class Faint(Threshold):
    """Right by far, with gradients that are no zeros, yet far below what squares can be summed of."""

    def forward(self, x):
        return super().forward(x) + torch.tensor([60.0, 0.0])


@pytest.mark.parametrize("threat", [ThreatModel("linf", 0.5), ThreatModel("l2", 0.5 * 192**0.5)])
def test_faint_gradients_do_not_vanish_and_are_followed(threat):
    images = flat(255, 140, 200, 240)
    x, y = compute.to_pixels(images.x), images.y
    assert not robustness._vanishing(Faint(), x, y, threat).any()
    found = robustness.attacks.pgd(Faint(), x, y, threat, steps=10, keep_best=False)
    assert (threat.size(found - x) > 0.7 * threat.eps).all()


def test_an_l2_attack_that_stands_still_is_a_warning(monkeypatch):
    images, threat = flat(255, 140, 200, 240), ThreatModel("l2", 0.5)
    assert not robustness.robustness(Faint(), images, threat, steps=2).zero_gradients
    guard = 1e-12  # absolute, as other people's attacks have it
    monkeypatch.setattr(ThreatModel, "ascend", lambda self, grad, size: size * grad / (guard + grad.abs().amax()))
    found = robustness.robustness(Faint(), images, threat, steps=2)
    assert found.zero_gradients == 1
    assert any("stand still" in warning for warning in found.warnings)


@pytest.mark.parametrize("value", [0.0, torch.nan, torch.inf])
@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_what_is_no_direction_counts_as_vanished(value, norm, monkeypatch):
    monkeypatch.setattr(robustness.attacks, "gradient", lambda net, x, y, loss: (y, torch.full_like(x, value)))
    blind = robustness._vanishing(Threshold(), torch.zeros(2, 3, 8, 8), torch.zeros(2), ThreatModel(norm, 0.5))
    assert blind.tolist() == [norm == "l2" or value != torch.inf] * 2
