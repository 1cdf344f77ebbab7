"""Attacks against paper and pencil, against an independent implementation, and against their own promises."""

import captum.robust
import pytest
import torch
import torch.nn.functional as F

from rtkit import attacks
from rtkit.threat import ThreatModel, l2_norm

THREATS = [ThreatModel("linf", 8 / 255), ThreatModel("l2", 0.5)]


def image(*pixels: float) -> torch.Tensor:
    return torch.tensor(pixels).view(1, 3, 1, 1)


def fgsm(model, x, y, threat, **options):
    """One step as long as the ball allows (Goodfellow et al. 2015): PGD with nothing else."""
    once = {"steps": 1, "step_size": threat.eps, "random_start": False, "keep_best": False}
    return attacks.pgd(model, x, y, threat, **once | options)


def test_fgsm_linf_by_hand(linear):
    # The loss of class 0 rises against w = (2, -1, 0): down, up, and nothing where the gradient is zero.
    found = fgsm(linear, image(0.5, 0.5, 0.5), torch.tensor([0]), ThreatModel("linf", 0.1))
    torch.testing.assert_close(found, image(0.4, 0.6, 0.5))


def test_fgsm_l2_by_hand(linear):
    found = fgsm(linear, image(0.5, 0.5, 0.5), torch.tensor([0]), ThreatModel("l2", 0.1))
    length = 5**0.5
    torch.testing.assert_close(found, image(0.5 - 0.2 / length, 0.5 + 0.1 / length, 0.5))


def test_fgsm_stops_at_the_edge_of_the_pixel_range(linear):
    found = fgsm(linear, image(0.05, 0.95, 0.5), torch.tensor([0]), ThreatModel("linf", 0.1))
    torch.testing.assert_close(found, image(0.0, 1.0, 0.5))


def test_pgd_by_hand(linear):
    # Three steps of 0.04 reach 0.12 and are cut back to the ball's 0.1.
    threat = ThreatModel("linf", 0.1)
    found = attacks.pgd(
        linear, image(0.5, 0.5, 0.5), torch.tensor([0]), threat, steps=3, step_size=0.04, random_start=False
    )
    torch.testing.assert_close(found, image(0.4, 0.6, 0.5))


def test_losses_by_hand():
    logits, y = torch.tensor([[2.0, 1.0, -1.0], [0.0, 3.0, 3.0]]), torch.tensor([0, 0])
    torch.testing.assert_close(attacks.margin(logits, y), torch.tensor([-1.0, 3.0]))
    torch.testing.assert_close(attacks.cross_entropy(logits, y), F.cross_entropy(logits, y, reduction="none"))


class SignSteps(ThreatModel):
    """captum's PGD takes sign steps in any norm; only its projection is Euclidean in L2."""

    def ascend(self, grad, step_size):
        return step_size * grad.sign()


@pytest.mark.filterwarnings("ignore:Input Tensor 0 did not already require gradients")
@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_pgd_equals_captum(small_net, batch, norm):
    x, y = batch
    eps, step = (8 / 255, 2 / 255) if norm == "linf" else (0.5, 0.02)
    oracle = captum.robust.PGD(small_net, torch.nn.CrossEntropyLoss(reduction="none"), 0.0, 1.0)
    oracle.fgsm.zero_thresh = 0.0  # by default it leaves pixels with a gradient below 1e-6 alone
    name = {"linf": "Linf", "l2": "L2"}[norm]
    theirs = oracle.perturb(x, radius=eps, step_size=step, step_num=5, target=y, norm=name)
    options = {"steps": 5, "step_size": step, "random_start": False, "keep_best": False}
    ours = attacks.pgd(small_net, x, y, SignSteps(norm, eps), **options)
    # A sign turns where a gradient is zero to rounding; nowhere else may the two differ.
    assert (ours - theirs).abs().gt(1e-5).float().mean() < 1e-3
    assert (ours - x).abs().mean() > 1e-3


@pytest.mark.parametrize("threat", THREATS, ids=str)
@pytest.mark.parametrize("attack", [fgsm, attacks.pgd])
def test_result_lies_in_the_ball_and_in_the_pixel_range(small_net, batch, threat, attack):
    x, y = batch
    found = attack(small_net, x, y, threat)
    size = (found - x).abs().amax() if threat.norm == "linf" else l2_norm(found - x).amax()
    assert size <= threat.eps * (1 + 1e-5)
    assert found.amin() >= 0
    assert found.amax() <= 1
    assert not torch.equal(found, x)


@pytest.mark.parametrize("threat", THREATS, ids=str)
def test_random_starts_fill_the_ball(threat):
    start = threat.random_start(torch.zeros(500, 3, 4, 4), torch.Generator().manual_seed(0))
    size = start.abs().amax((1, 2, 3)) if threat.norm == "linf" else l2_norm(start).flatten()
    assert size.amax() <= threat.eps * (1 + 1e-6)
    assert size.amax() > 0.99 * threat.eps
    assert start.mean().abs() < 0.05 * threat.eps


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_eps_zero_is_the_identity(small_net, batch, norm):
    x, y = batch
    for attack in (fgsm, attacks.n_fgsm, attacks.pgd):
        torch.testing.assert_close(attack(small_net, x, y, ThreatModel(norm, 0.0)), x, rtol=0, atol=0)


@pytest.mark.parametrize("threat", THREATS, ids=str)
def test_more_steps_never_lower_a_loss(small_net, batch, threat):
    x, y = batch
    before = attacks.cross_entropy(small_net(x), y).detach()
    for steps in (1, 2, 5, 10, 20):
        generator = torch.Generator().manual_seed(3)
        found = attacks.pgd(small_net, x, y, threat, steps=steps, step_size=threat.eps / 4, generator=generator)
        after = attacks.cross_entropy(small_net(found), y).detach()
        assert (after >= before - 1e-6).all()
        before = after


def test_restarts_never_lower_a_loss(small_net, batch):
    x, y = batch
    losses = []
    for restarts in (1, 3):
        generator = torch.Generator().manual_seed(3)
        found = attacks.pgd(small_net, x, y, THREATS[0], steps=3, restarts=restarts, generator=generator)
        losses.append(attacks.cross_entropy(small_net(found), y))
    assert (losses[1] >= losses[0] - 1e-6).all()


@pytest.mark.parametrize("batch_statistics", [False, True])
def test_an_attack_leaves_the_network_as_it_was(small_net, batch, batch_statistics):
    x, y = batch
    small_net.train()
    small_net.stem.eval()
    small_net.head.weight.requires_grad_(False)
    modes = [module.training for module in small_net.modules()]
    wanted = [parameter.requires_grad for parameter in small_net.parameters()]
    state = {name: value.clone() for name, value in small_net.state_dict().items()}
    attacks.pgd(small_net, x, y, THREATS[0], steps=3, batch_statistics=batch_statistics)
    attacks.n_fgsm(small_net, x, y, THREATS[0], batch_statistics=batch_statistics)
    assert [module.training for module in small_net.modules()] == modes
    assert [parameter.requires_grad for parameter in small_net.parameters()] == wanted
    assert all(parameter.grad is None for parameter in small_net.parameters())
    for name, value in small_net.state_dict().items():
        assert torch.equal(value, state[name]), name


def test_any_loss_of_any_output_can_be_attacked(small_net, batch):
    x, y = batch
    with torch.no_grad():
        home = small_net.features(x)

    def displacement(features, _):
        return (features - home).square().sum(1)

    class Features(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.net = small_net

        def forward(self, x):
            return self.net.features(x)

    found = attacks.pgd(Features().eval(), x, y, THREATS[0], steps=5, loss=displacement)
    with torch.no_grad():
        assert displacement(small_net.features(found), y).mean() > 1e-3


def test_n_fgsm_leaves_the_ball_but_not_the_pixel_range(small_net, batch):
    x, y = batch
    found = attacks.n_fgsm(small_net, x, y, THREATS[0], generator=torch.Generator().manual_seed(0))
    assert (found - x).abs().amax() > THREATS[0].eps
    assert (found - x).abs().amax() <= 3 * THREATS[0].eps + 1e-6
    assert 0 <= found.amin() <= found.amax() <= 1


def test_bad_input_is_named():
    with pytest.raises(ValueError, match=r"eps must not be negative, got -1.*8/255, not 8"):
        ThreatModel("linf", -1)
    with pytest.raises(ValueError, match="norm must be 'linf' or 'l2', got 'l1'"):
        ThreatModel("l1", 1)


def test_pixels_outside_the_range_are_refused(small_net, batch):
    x, y = batch
    with pytest.raises(ValueError, match=r"pixels must lie in \[0, 1\], got \[0.*, 2"):
        attacks.pgd(small_net, 255 * x, y, THREATS[0])
    with pytest.raises(ValueError, match="at least 1, got 0"):
        attacks.pgd(small_net, x, y, THREATS[0], steps=0)


def test_rms_compares_the_norms():
    # An l2 ball of radius 0.5 on 32 x 32 colour images allows what an l-infinity ball of 0.5 / sqrt(3072) does.
    assert ThreatModel("l2", 0.5).rms(3072) == pytest.approx(0.5 / 3072**0.5)
    assert ThreatModel("linf", 0.1).rms(3072) == 0.1
