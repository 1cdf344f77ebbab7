"""Auto-PGD: its loss and its schedule by hand, what it promises, and that it is at least as strong as PGD."""

import pytest
import torch

from rtkit import apgd, attacks
from rtkit.threat import ThreatModel

BALLS = [ThreatModel("linf", 8 / 255), ThreatModel("l2", 0.5)]


def test_targeted_ratio_by_hand():
    logits = torch.tensor([[5.0, 3.0, 1.0, 0.0, -9.0], [1.0, 4.0, 2.0, 0.0, 3.0]])
    # Sorted 5 3 1 0: (3 - 5) / (5 - 0.5); sorted 4 3 2 1: (2 - 1) / (4 - 1.5).
    found = apgd.targeted_dlr(torch.tensor([1, 2]))(logits, torch.tensor([0, 0]))
    torch.testing.assert_close(found, torch.tensor([-2 / 4.5, 1 / 2.5]))


@pytest.mark.parametrize(("scale", "shift"), [(100.0, 0.0), (0.01, 7.0), (1e-13, 0.0), (1e-25, 0.0)])
def test_the_ratio_sees_no_scale_and_no_shift(scale, shift):
    logits = torch.randn(20, 6, generator=torch.Generator().manual_seed(0))
    loss, y = apgd.targeted_dlr(torch.full((20,), 3)), torch.zeros(20, dtype=torch.long)
    torch.testing.assert_close(loss(scale * logits + shift, y), loss(logits, y), rtol=1e-3, atol=1e-3)


def test_the_ratio_of_equal_logits_is_a_number():
    logits = torch.zeros(2, 5, requires_grad=True)
    loss = apgd.targeted_dlr(torch.tensor([1, 2]))(logits, torch.tensor([0, 0]))
    assert loss.tolist() == [0, 0]
    (grad,) = torch.autograd.grad(loss.sum(), logits)
    assert grad.isfinite().all()


def test_checkpoints_of_the_paper():
    # p_1 = 0.22, then each distance shrinks by 0.03, down to 0.06 (Croce & Hein 2020, section 3.1).
    assert apgd.checkpoints(100) == [22, 41, 57, 70, 80, 87, 93, 99]
    assert apgd.checkpoints(3) == [1, 2, 3]


@pytest.mark.parametrize("threat", BALLS, ids=lambda threat: threat.norm)
def test_stays_in_the_ball_and_in_range_and_leaves_the_network_alone(small_net, batch, threat):
    x, y = batch
    state = {name: value.clone() for name, value in small_net.state_dict().items()}
    small_net.train()
    attacked = apgd.apgd(small_net, x, y, threat, steps=12, generator=torch.Generator().manual_seed(0))
    assert attacked.min() >= 0
    assert attacked.max() <= 1
    delta = (attacked - x).flatten(1)
    assert (delta.norm(dim=1) if threat.norm == "l2" else delta.abs().amax(1)).max() <= threat.eps * (1 + 1e-4)
    assert small_net.training
    assert all(torch.equal(value, state[name]) for name, value in small_net.state_dict().items())
    assert all(parameter.requires_grad and parameter.grad is None for parameter in small_net.parameters())


@pytest.mark.parametrize("threat", BALLS, ids=lambda threat: threat.norm)
def test_finds_the_exact_worst_point_of_a_linear_network(linear, threat):
    """The loss falls with the score 2 a - b, so the worst image is x minus eps along sign(w), or along w."""
    x, y = torch.full((1, 3, 1, 1), 0.5), torch.tensor([0])
    weight = linear.weight.detach()
    direction = weight.sign() if threat.norm == "linf" else weight / weight.norm()
    threat = ThreatModel(threat.norm, 0.1)
    found = apgd.apgd(linear, x, y, threat, steps=30, generator=torch.Generator().manual_seed(0))
    score = float(found.flatten() @ weight)
    assert score == pytest.approx(float((x.flatten() - 0.1 * direction) @ weight), abs=1e-4)


def test_a_misclassified_point_is_kept_though_another_has_the_higher_loss():
    """Two classes by the first pixel, and a loss that rises the other way: the point met on the way must come back."""

    def model(x):
        level = x[:, 0, 0, 0]
        return torch.stack([level - 0.45, 0.45 - level], 1)

    def rising(logits, y):
        return logits[:, 0]

    x, y = torch.full((8, 1, 1, 1), 0.5), torch.zeros(8, dtype=torch.long)
    found = apgd.apgd(
        model, x, y, ThreatModel("linf", 0.1), steps=5, loss=rising, generator=torch.Generator().manual_seed(0)
    )
    start = 0.5 + ThreatModel("linf", 0.1).random_start(x, torch.Generator().manual_seed(0))[:, 0, 0, 0]
    wrong = start < 0.45
    assert wrong.any()
    assert (found[:, 0, 0, 0][wrong] < 0.45).all()


def test_is_at_least_as_strong_as_pgd(small_net, batch):
    x, y = batch
    threat = ThreatModel("linf", 2 / 255)
    options = {"generator": torch.Generator().manual_seed(0)}
    with attacks.frozen(small_net), torch.no_grad():
        values = [
            attacks.cross_entropy(small_net(attacked), y).mean()
            for attacked in (
                attacks.pgd(small_net, x, y, threat, steps=40, **options),
                apgd.apgd(small_net, x, y, threat, steps=40, **options),
            )
        ]
    assert values[1] >= 0.99 * values[0]


def test_without_steps_it_refuses(linear):
    with pytest.raises(ValueError, match=r"steps must be a whole number in .1, inf., got 0"):
        apgd.apgd(linear, torch.zeros(1, 3, 1, 1), torch.tensor([0]), BALLS[0], steps=0)
