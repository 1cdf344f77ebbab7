"""Attacks against paper and pencil, against an independent implementation, and against their own promises."""

import copy
from functools import partial

import captum.robust
import pytest
import torch
import torch.nn.functional as F

from rtkit import apgd, attacks
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
    attacks.n_fgsm(small_net, x, y, THREATS[0])
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
    with pytest.raises(ValueError, match=r"eps must lie in .0, 1., got -1.*8/255, not 8"):
        ThreatModel("linf", -1)
    with pytest.raises(ValueError, match="norm must be one of linf, l2, got 'l1'"):
        ThreatModel("l1", 1)


def test_pixels_outside_the_range_are_refused(small_net, batch):
    x, y = batch
    with pytest.raises(ValueError, match=r"pixels must lie in \[0, 1\], got \[0.*, 2"):
        attacks.pgd(small_net, 255 * x, y, THREATS[0])
    with pytest.raises(ValueError, match=r"steps must be a whole number in .1, inf., got 0"):
        attacks.pgd(small_net, x, y, THREATS[0], steps=0)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
@pytest.mark.parametrize("height", [1e-44, 1e-30, 1e-20, 1e-7, 1.0, 1e4, 1e30])
def test_a_step_has_its_length_however_small_or_large_the_gradient(dtype, height):
    if not 0 < torch.tensor(height, dtype=torch.float64).to(dtype) < torch.inf:
        pytest.skip("no such number in this precision")
    grad = torch.zeros(3, 3, 8, 8, dtype=dtype)
    grad[1], grad[2, 0, 0, 0] = height, -height
    threat = ThreatModel("l2", 1.0)
    step = threat.ascend(grad, 0.5)
    assert step.dtype == dtype
    assert step.double().flatten(1).norm(dim=1).tolist() == pytest.approx([0, 0.5, 0.5], rel=4e-3)
    assert threat.ascend(grad, torch.full((3, 1, 1, 1), 0.5)).dtype == dtype
    assert l2_norm(grad).flatten()[2] == pytest.approx(float(grad.abs().max()), rel=1e-6)
    radius = height / 2
    inside = ThreatModel("l2", radius).project(grad.double())
    assert inside.flatten(1).norm(dim=1).tolist() == pytest.approx([0, radius, radius], rel=1e-2)
    assert threat.project(grad).isfinite().all()
    assert not ThreatModel("l2", 0.0).project(grad).any()


@pytest.mark.parametrize("size", [1, 8, 32])
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_the_power_of_two_changes_no_bit_of_ordinary_perturbations(size, layout):
    delta = 0.01 * torch.randn(20, 3, size, size, generator=torch.Generator().manual_seed(0))
    delta = delta.contiguous(memory_format=layout)
    norm = delta.flatten(1).norm(dim=1).view(-1, 1, 1, 1)
    threat = ThreatModel("l2", float(norm.median()))
    assert torch.equal(l2_norm(delta), norm)
    assert torch.equal(threat.ascend(delta, 0.37), 0.37 * delta / norm)
    assert torch.equal(threat.project(delta), delta * (threat.eps / norm).clamp(max=1))


class Sure(torch.nn.Module):
    """Linear, and right by a margin that leaves gradients of about 1e-22."""

    def __init__(self):
        super().__init__()
        self.w = 0.4 * torch.randn(3072, generator=torch.Generator().manual_seed(0))

    def forward(self, x):
        z = (x - 0.5).flatten(1) @ self.w
        return torch.stack([z + 50, -z], 1)


@pytest.mark.parametrize("attack", [partial(attacks.pgd, random_start=False), apgd.apgd])
@pytest.mark.parametrize("threat", [ThreatModel("linf", 8 / 255), ThreatModel("l2", 8 / 255 * 3072**0.5)])
def test_the_larger_ball_is_no_weaker_where_gradients_are_tiny(attack, threat):
    x, y = torch.full((2, 3, 32, 32), 0.5), torch.zeros(2, dtype=torch.long)
    assert (Sure()(attack(Sure(), x, y, threat, steps=20)).argmax(1) != y).all()


@pytest.mark.parametrize("norm", ["linf", "l2"])
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("scale", [0.0, 1e-6, 1.0])
def test_half_precision(norm, dtype, scale):
    w = torch.linspace(-1, 1, 192).to(dtype)

    def net(x):
        z = scale * (x.flatten(1) * w).sum(1)
        return torch.stack([z, -z], 1)

    x, y = torch.full((2, 3, 8, 8), 0.5, dtype=dtype), torch.tensor([0, 1])
    for attack in (attacks.pgd, apgd.apgd):
        found = attack(net, x, y, ThreatModel(norm, 0.1), steps=3)
        assert found.dtype == dtype
        assert found.isfinite().all()
        assert (ThreatModel(norm, 0.1).size((found - x).float()) < 0.11).all()  # to a step of bfloat16


@pytest.mark.parametrize("attack", [attacks.pgd, apgd.apgd, attacks.n_fgsm])
@pytest.mark.parametrize("threat", THREATS)
def test_no_images_are_no_error(small_net, attack, threat):
    none = torch.zeros(0, 3, 32, 32), torch.zeros(0, dtype=torch.long)
    assert attack(small_net, *none, threat).shape == none[0].shape


class Holder:
    def __init__(self, net):
        self.net = net

    def called(self, x):
        return self.net(x)


class Callable_(Holder):
    __call__ = Holder.called


def _wrapped(model):
    def inner(x):
        return model(x)

    return inner


CALLABLES = {
    "network": lambda net: net,
    "bound method": lambda net: net.features,
    "partial": lambda net: partial(lambda model, x: model.features(x), net),
    "partial by name": lambda net: partial(lambda x, model: model.features(x), model=net),
    "partial of a method": lambda net: partial(net.features),
    "closure": lambda net: lambda x: net(x),
    "closure of a closure": lambda net: _wrapped(_wrapped(net.features)),
    "object": Callable_,
    "method of an object": lambda net: Holder(net).called,
}


@pytest.mark.parametrize("attack", [attacks.pgd, apgd.apgd])
@pytest.mark.parametrize("form", CALLABLES)
def test_the_network_behind_any_callable_is_left_as_it_was(small_net, batch, attack, form):
    net, (x, y) = copy.deepcopy(small_net).train(), batch
    model, before = CALLABLES[form](net), copy.deepcopy(net.state_dict())
    found = attack(model, x, y, THREATS[1], steps=2, generator=torch.Generator().manual_seed(0))
    assert all(torch.equal(value, before[name]) for name, value in net.state_dict().items())
    assert all(module.training for module in net.modules())
    assert all(parameter.requires_grad for parameter in net.parameters())
    net.eval()
    assert torch.equal(found, attack(model, x, y, THREATS[1], steps=2, generator=torch.Generator().manual_seed(0)))


def test_a_global_network_is_found_too(small_net):
    space = {}
    exec("def model(x):\n    return net(x)\ndef outer(x):\n    return model(x)", space)  # as in a notebook
    space["net"] = small_net
    assert attacks.networks(space["outer"]) == [small_net]
    assert attacks.networks(torch.relu) == []


@pytest.mark.parametrize("eps", [-1, 1.5, 8, float("nan"), float("inf"), True])
def test_radii_are_refused_on_both_sides(eps):
    with pytest.raises(ValueError, match=r"eps must lie in .0, 1., got .*8/255, not 8"):
        ThreatModel("linf", eps)
    if eps not in (1.5, 8) or eps is True:
        with pytest.raises(ValueError, match=r"eps must lie in .0, inf., got .*8/255, not 8"):
            ThreatModel("l2", eps)
    assert ThreatModel("linf", 1).eps == 1


@pytest.mark.parametrize("attack", [attacks.pgd, apgd.apgd])
def test_an_l2_ball_beyond_every_corner_is_refused(small_net, batch, attack):
    x, y = batch
    with pytest.raises(ValueError, match=r"eps must be at most 55.4 in l2, .*got 60"):
        attack(small_net, x, y, ThreatModel("l2", 60))
    with pytest.raises(ValueError, match=r"pixels must lie in \[0, 1\]"):
        attack(small_net, x - 0.5, y, ThreatModel("l2", 1))
    attack(small_net, x[:1], y[:1], ThreatModel("l2", 3072**0.5), steps=1)


@pytest.mark.parametrize("step_size", [-0.1, float("nan"), float("inf")])
def test_a_step_size_out_of_range_is_refused(small_net, batch, step_size):
    with pytest.raises(ValueError, match=r"step_size must lie in .0, inf., got"):
        attacks.pgd(small_net, *batch, THREATS[0], step_size=step_size)
