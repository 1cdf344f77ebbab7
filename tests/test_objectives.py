"""The loss of a step on cases that can be computed by hand, and methods that must coincide when a weight is zero."""

import math

import pytest
import torch

from rtkit import adversaries, attacks, methods, models, objectives
from rtkit.adversaries import Adversary, Attacked
from rtkit.models import Activations
from rtkit.objectives import DISTANCES, Term, Views
from rtkit.threat import ThreatModel
from rtkit.training import Phase, train

HALF = torch.tensor([[0.0, 0.0]])  # logits of a network that cannot decide
THREE_TO_ONE = torch.tensor([[math.log(3.0), 0.0]])  # probabilities .75 and .25
LABEL = torch.tensor([0])


def seen(student, reference=None, clean=None, y=LABEL) -> Views:
    return Views(None, None, clean or student, student, reference, y)


def activations(maps=(), features=None, logits=None) -> Activations:
    return Activations(list(maps), features, logits)


def test_distances_by_hand():
    ours = activations([torch.full((1, 2, 1, 1), 3.0), torch.zeros(1, 1, 1, 1)], torch.tensor([[1.0, 5.0]]), HALF)
    theirs = activations([torch.ones(1, 2, 1, 1), torch.ones(1, 1, 1, 1)], torch.tensor([[0.0, 2.0]]), THREE_TO_ONE)
    views = seen(ours, theirs)
    assert float(DISTANCES["stages"].of(views, ours)) == pytest.approx(4 + 1)  # a mean within, a sum over stages
    assert float(DISTANCES["features"].of(views, ours)) == pytest.approx((1 + 9) / 2)
    assert float(DISTANCES["features_l1"].of(views, ours)) == pytest.approx(1 + 3)
    divergence = 0.75 * math.log(0.75 / 0.5) + 0.25 * math.log(0.25 / 0.5)
    assert float(DISTANCES["logits"].of(views, ours)) == pytest.approx(divergence, rel=1e-5)
    pair = seen(activations(logits=HALF), clean=activations(logits=THREE_TO_ONE))
    assert float(DISTANCES["consistency"].of(pair, None)) == pytest.approx(divergence, rel=1e-5)
    assert float(DISTANCES["weighted_consistency"].of(pair, None)) == pytest.approx(0.25 * divergence, rel=1e-5)


def test_distance_of_weights_by_hand():
    source = models.create(5, "small-8", 0)
    net = models.with_new_head(source, 3, 0)
    with torch.no_grad():
        for parameter in net.head.parameters():
            parameter.zero_()
        net.stem[0].weight.add_(0.1)
        net.head.bias.fill_(2.0)
    expected = 0.5 * (0.01 * net.stem[0].weight.numel() + 3 * 4)
    found = DISTANCES["weights"].of(Views(net, source, None, None, None, LABEL), None)
    assert float(found.detach()) == pytest.approx(expected, rel=1e-4)


def test_losses_on_labels_by_hand():
    views = seen(activations(logits=HALF), clean=activations(logits=THREE_TO_ONE))
    plain = Attacked(None)
    assert float(objectives.on_labels("attacked", views, plain)) == pytest.approx(math.log(2))
    assert float(objectives.on_labels("clean", views, plain)) == pytest.approx(-math.log(0.75))
    boosted = -math.log(0.5) - math.log(1 - 0.5)
    assert float(objectives.on_labels("boosted", views, plain)) == pytest.approx(boosted, abs=1e-3)
    halved = Attacked(None, weight=torch.tensor([0.5]))
    assert float(objectives.on_labels("attacked", views, halved)) == pytest.approx(math.log(2) / 2)
    soft = seen(activations(logits=THREE_TO_ONE))
    target = Attacked(None, target=torch.tensor([[0.5, 0.5]]))
    expected = -0.5 * (math.log(0.75) + math.log(0.25))
    assert float(objectives.on_labels("attacked", soft, target)) == pytest.approx(expected)


def test_a_loss_runs_the_networks_on_what_it_needs(small_net, batch):
    x, y = batch
    attacked = Attacked(x + 0.01)

    def look(loss="attacked", terms=(), attacked=attacked):
        return objectives.views(small_net, small_net, loss, terms, x, attacked, y)

    assert look().clean is None
    assert look("clean").attacked is None
    assert look(terms=(Term("features", 1.0),)).reference is not None
    assert look(terms=(Term("features", 0.0),)).reference is None
    assert look(terms=(Term("weights", 1.0),)).clean is None
    both = look("clean", (Term("consistency", 6.0),))
    small_net.eval()
    both = look("clean", (Term("consistency", 6.0),))
    torch.testing.assert_close(both.clean.logits, small_net(x))
    torch.testing.assert_close(both.attacked.logits, small_net(x + 0.01))
    assert [part.shape[0] for part in both.clean.stages] == [len(x)] * 3
    alone = look(attacked=Attacked(x), terms=(Term("stages", 1.0),))
    assert alone.clean is alone.attacked


def trained(images, method, seed=0, net=None, reference=None):
    net = net or models.create(2, "small-8", 0)
    train(net, images, method.phases, seed, reference=reference)
    return net.state_dict()


def same(one, other) -> bool:
    return all(torch.allclose(one[name].float(), other[name].float(), atol=1e-6) for name in one)


BUDGET = {"steps": 4, "lr": 0.05, "batch_size": 16}


def test_methods_coincide_where_their_weight_is_zero(two_classes):
    source = models.create(5, "small-8", 3)

    def carried():
        return models.with_new_head(source, 2, 1)

    fine_tuned = trained(two_classes, methods.transfer("full_network", **BUDGET), net=carried())
    delta = trained(two_classes, methods.distilled("source", weight=0.0, **BUDGET), net=carried())
    assert same(fine_tuned, delta)
    assert not same(
        fine_tuned,
        trained(two_classes, methods.distilled("source", weight=9.0, **BUDGET), net=carried(), reference=source),
    )
    free = methods.lwf(weight=0.0, warmup_steps=1, **BUDGET)
    by_hand = methods.Method("source", (Phase(steps=1, lr=0.05, batch_size=16, trainable=0),
                                        Phase(steps=3, lr=0.05, batch_size=16)))  # fmt: skip
    assert same(trained(two_classes, free, net=carried()), trained(two_classes, by_hand, net=carried()))
    unattached = methods.l2_sp(weight=0.0, **BUDGET)
    undecayed = methods.Method("source", (Phase(steps=4, lr=0.05, batch_size=16, weight_decay=0.0),))
    assert same(trained(two_classes, unattached, net=carried()), trained(two_classes, undecayed, net=carried()))


def test_adversarial_methods_coincide_where_their_weight_is_zero(two_classes):
    """TRADES at beta 0 is cross-entropy on clean images; a teacher of weight 0 changes nothing, for any base."""
    clean = trained(two_classes, methods.transfer("scratch", **BUDGET))
    assert same(clean, trained(two_classes, methods.adversarial("trades", 4 / 255, beta=0.0, attack_steps=1, **BUDGET)))
    taught = (Term("features", 0.0), Term("features", 0.0, on="attacked"))
    for base in methods.BASES:
        options = {"attack_steps": 2, **BUDGET}
        alone = trained(two_classes, methods.adversarial(base, 4 / 255, **options))
        assert same(alone, trained(two_classes, methods.adversarial(base, 4 / 255, teach=taught, **options)))


def test_region_lies_in_the_ball_and_softens_with_distance(small_net, batch):
    x, y = batch
    threat, generator = ThreatModel("linf", 8 / 255), torch.Generator().manual_seed(0)
    found = adversaries.region(small_net, x, y, threat, 3, 0.5, generator)
    distance = (found.x - x).flatten(1).abs().amax(1)
    assert 0 < float(distance.max()) <= 8 / 255 + 1e-6
    assert 0 <= float(found.x.min()) <= float(found.x.max()) <= 1
    right = found.target.gather(1, y[:, None])[:, 0]
    torch.testing.assert_close(found.target.sum(1), torch.ones(len(x)))
    softness = 0.5 * distance / (8 / 255)
    torch.testing.assert_close(right, 1 - softness + softness / 4)


@pytest.mark.parametrize("steps", [4, 15])
def test_kernel_raises_the_smoothed_loss(small_net, batch, steps):
    x, y = batch
    small_net.eval()
    found = adversaries.kernel(small_net, x, y, sigma=1.0, steps=steps)
    moved = (found.x - x).flatten(1).square().sum(1)
    torch.testing.assert_close(found.weight, (-moved / 2).exp())
    assert 0 <= float(found.x.min()) <= float(found.x.max()) <= 1
    with attacks.frozen(small_net, batch_statistics=True):
        before, after = (attacks.cross_entropy(small_net(part), y) for part in (x, found.x))
    assert float((found.weight * after - before).mean()) > 0
    assert 0.1 < float(moved.max().sqrt()) <= 1.51
    wider = adversaries.kernel(small_net, x, y, sigma=2.0, steps=steps)
    assert float((wider.x - x).norm()) > float((found.x - x).norm())
    assert adversaries.kernel(small_net, x, y, sigma=0.0, steps=15).x is x


def test_wasserstein_raises_the_loss_minus_the_distance_it_moves(small_net, batch):
    x, y = batch
    small_net.eval()
    found = Adversary("wasserstein", ThreatModel("l2", 0.5), steps=15, warmup=0)(small_net, x, y, 0.0, None)
    moved = (found.x - x).flatten(1).square().sum(1)
    assert found.weight is None
    with attacks.frozen(small_net, batch_statistics=True):
        before, after = (attacks.cross_entropy(small_net(part), y) for part in (x, found.x))
    assert float((after - moved / (2 * 0.5**2) - before).mean()) > 0  # Sinha et al. 2018, gamma = 2
    free = Adversary("wasserstein", ThreatModel("l2", 5.0), steps=15, warmup=0)(small_net, x, y, 0.0, None)
    assert float((free.x - x).norm()) > float(moved.sum().sqrt())


def test_a_decision_without_doubt_has_a_gradient():
    clean, attacked = (torch.tensor([[first, 0.0]], requires_grad=True) for first in (200.0, 0.0))
    loss = adversaries.divergence(attacked, clean.softmax(1))  # the second chance is zero in float32
    assert float(loss.detach()) == pytest.approx(math.log(2))
    for gradient in torch.autograd.grad(loss, (clean, attacked)):
        assert gradient.isfinite().all()


def test_divergence_attack_changes_the_decision_not_the_label(small_net, batch):
    x, y = batch
    adversary = Adversary("divergence", ThreatModel("linf", 8 / 255), steps=5, warmup=0.0)
    small_net.eval()
    with attacks.frozen(small_net, batch_statistics=True):
        clean = small_net(x).softmax(1)
    found = adversary(small_net, x, y, 1.0, torch.Generator().manual_seed(0)).x
    other = adversary(small_net, x, (y + 1) % 4, 1.0, torch.Generator().manual_seed(0)).x
    assert torch.equal(found, other)
    with attacks.frozen(small_net, batch_statistics=True):
        after = adversaries.divergence(small_net(found), clean).mean()
        by_noise = adversaries.divergence(small_net((x + 8 / 255 * torch.sign(torch.randn_like(x))).clamp(0, 1)), clean)
    assert float(after) > float(by_noise.mean()) > 0


def test_dropout_acts_on_the_student_only_and_ends_with_its_phase(two_classes):
    source, net = models.create(2, "small-8", 3), models.create(2, "small-8", 0)
    before = {name: value.clone() for name, value in source.state_dict().items()}
    rates = {"source": set(), "student": set()}
    for name, one in (("source", source), ("student", net)):
        one.stem.register_forward_hook(lambda *_, name=name, one=one: rates[name].add((one.dropout, one.training)))
    method = methods.distilled("random", weight=1.0, dropout=0.3, averaged_steps=2, **BUDGET)
    state = torch.get_rng_state()
    train(net, two_classes, method.phases, 0, reference=source)
    assert torch.equal(torch.get_rng_state(), state)
    assert rates["source"] == {(0.0, False)}
    assert rates["student"] == {(0.3, True), (0.0, True)}  # without it where BatchNorm is estimated anew
    assert net.dropout == 0.0
    assert all(torch.equal(before[name], value) for name, value in source.state_dict().items())


def test_dropout_drops_whole_channels_between_stages(small_net, batch):
    x, _ = batch
    small_net.train()
    small_net.dropout = 0.5
    torch.manual_seed(0)
    found = small_net.activations(x)
    assert float((found.features == 0).float().mean()) > 0.3
    assert float((found.stages[-1].mean((2, 3)) == 0).float().mean()) < 0.3  # read before its own dropout
    small_net.eval()
    torch.testing.assert_close(small_net(x), small_net(x))


def test_a_hidden_head():
    net = models.with_new_head(models.create(5, "small-8", 0), 3, 1, hidden=(16, 12))
    assert [tuple(layer.weight.shape) for layer in net.head if hasattr(layer, "weight")] == [
        (16, 32),
        (12, 16),
        (3, 12),
    ]
    assert net(torch.rand(2, 3, 32, 32)).shape == (2, 3)


def test_bad_settings_are_named(two_classes):
    with pytest.raises(ValueError, match="distance must be one of weights"):
        Term("cosine", 1.0)
    with pytest.raises(ValueError, match=r"weight must lie in .0, inf., got -1"):
        Term("stages", -1.0)
    with pytest.raises(ValueError, match="on must be one of clean, attacked, got 'noisy'"):
        Term("stages", 1.0, on="noisy")
    with pytest.raises(ValueError, match="kind must be one of noise"):
        Adversary("fgsm", ThreatModel("linf", 0.1))
    with pytest.raises(ValueError, match="smoothing must lie in"):
        Adversary("region", ThreatModel("linf", 0.1), smoothing=2.0)
    with pytest.raises(ValueError, match=r"base must be one of pgd_at, .*, got 'free'"):
        methods.adversarial("free", 0.1, steps=1, lr=0.1)
    with pytest.raises(ValueError, match=r"dropout must lie in \[0, 1\), got 1"):
        Phase(steps=1, lr=0.1, dropout=1.0)
    with pytest.raises(ValueError, match="schedule must be"):
        Phase(steps=1, lr=0.1, schedule="cosine")
    with pytest.raises(ValueError, match="loss must be"):
        Phase(steps=1, lr=0.1, loss="both")
    with pytest.raises(ValueError, match="pass reference="):
        train(models.create(2, "small-8", 0), two_classes, methods.distilled("random", weight=1.0, **BUDGET).phases, 0)
