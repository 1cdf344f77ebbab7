"""Clean accuracy; the convex probe against an independent implementation."""

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression

from rtkit import evaluation, probe
from rtkit.data.glyphs import Images


def test_accuracy_does_not_depend_on_mode_or_batches(small_net, monkeypatch):
    x = torch.randint(0, 256, (50, 3, 32, 32), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    images = Images(x, torch.arange(50) % 4, tuple("abcd"))
    first = evaluation.predictions(small_net, images)
    small_net.train()
    monkeypatch.setattr(evaluation, "BATCH", 7)
    assert torch.equal(evaluation.predictions(small_net, images), first)
    assert small_net.training


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
