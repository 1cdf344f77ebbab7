"""Accuracy, robust accuracy and the self-checks; the convex probe against an independent implementation."""

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression

from rtkit import compute, evaluation, probe
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
    found = [evaluation.robustness(Threshold(), images, ThreatModel("linf", eps / 255)) for eps in (0, 2, 3, 13)]
    assert [result.clean for result in found] == [0.75] * 4
    assert [result.robust for result in found] == [0.75, 0.75, 0.5, 0.25]
    assert found[0].constant == 1.0
    assert not found[0].warnings


def test_l2_robust_accuracy_by_hand():
    # Moving every one of 192 entries by d costs sqrt(192) d in l2.
    eps = 192**0.5 * 12 / 255
    found = evaluation.robustness(Threshold(), flat(255, 140, 130, 100), ThreatModel("l2", eps))
    assert found.robust == 0.5


def test_accuracy_does_not_depend_on_mode_or_batches(small_net, monkeypatch):
    x = torch.randint(0, 256, (50, 3, 32, 32), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    images = Images(x, torch.arange(50) % 4, tuple("abcd"))
    first = evaluation.predictions(small_net, images)
    small_net.train()
    monkeypatch.setattr(evaluation, "BATCH", 7)
    assert torch.equal(evaluation.predictions(small_net, images), first)
    assert small_net.training


def test_self_check_probabilities():
    net = Threshold(after=lambda logits: logits.softmax(1))
    found = evaluation.robustness(net, flat(255, 140, 130, 100), ThreatModel("linf", 2 / 255))
    assert any("probabilities" in warning for warning in found.warnings)


def test_self_check_vanishing_gradients():
    class Quantised(Threshold):
        def forward(self, x):
            return super().forward((x * 8).round() / 8)

    found = evaluation.robustness(Quantised(), flat(255, 140, 200, 240), ThreatModel("linf", 2 / 255))
    assert found.zero_gradients == 1.0
    assert any("gradients vanish" in warning for warning in found.warnings)


def test_self_check_attack_that_does_not_work():
    class Misleading(Threshold):
        def forward(self, x):
            true = super().forward(x.detach())
            return true - 1e-9 * super().forward(x)  # the same decisions, the gradient turned round

    found = evaluation.robustness(Misleading(), flat(255, 255, 0, 0, y=(0, 0, 1, 1)), ThreatModel("linf", 2 / 255))
    assert any("eps = 0.5" in warning for warning in found.warnings)


def test_nothing_to_evaluate_is_an_error():
    with pytest.raises(ValueError, match="no images"):
        evaluation.robustness(Threshold(), flat(255)[:0], ThreatModel("linf", 0.1))


def blobs(n: int, classes: int = 3, d: int = 6) -> tuple[torch.Tensor, torch.Tensor]:
    rng = np.random.default_rng(0)
    y = np.arange(n) % classes
    x = rng.normal(size=(n, d)) + 1.5 * rng.normal(size=(classes, d))[y]
    ones = np.ones((n, 1))
    return torch.from_numpy(np.hstack([x, ones])), torch.from_numpy(y)


@pytest.mark.parametrize("penalty", [0.1, 1.0])
def test_softmax_regression_equals_scikit_learn(penalty):
    x, y = blobs(120)
    ours = probe._fit(x, y, 3, torch.tensor([penalty]).double(), torch.ones(1, len(y)).double())[0]
    theirs = LogisticRegression(C=1 / penalty, tol=1e-8, max_iter=1000).fit(x[:, :-1].numpy(), y.numpy())
    ours = torch.softmax(x @ ours, 1).numpy()
    np.testing.assert_allclose(ours, theirs.predict_proba(x[:, :-1].numpy()), atol=2e-3)


def test_probe_chooses_its_penalty_inside_the_images_it_gets():
    x, y = blobs(90)
    weights = probe.probe(x, y, 3, seed=0)
    assert weights.shape == (7, 3)
    assert ((x @ weights).argmax(1) == y).double().mean() > 0.8
    # Features without any signal deserve the heaviest penalty, so small weights.
    noise = torch.randn(90, 7, generator=torch.Generator().manual_seed(0)).double()
    assert probe.probe(noise, y, 3, seed=0)[:-1].norm() < 0.5 * weights[:-1].norm()


def test_features_that_never_fired_on_the_source_stay_out():
    features = torch.tensor([[1.0, 5.0], [3.0, 7.0]])
    scaled = probe.standardise(features, torch.tensor([2.0, 0.0]), torch.tensor([1.0, 0.0]))
    assert scaled.tolist() == [[-1.0, 0.0, 1.0], [1.0, 0.0, 1.0]]
