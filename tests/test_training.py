"""The one training loop: what it trains, what it leaves alone, and what it says when it fails."""

import copy

import pytest
import torch
from torch.optim import swa_utils

from rtkit import compute, frames, influence, methods, models, training
from rtkit.adversaries import Adversary
from rtkit.data.glyphs import World
from rtkit.objectives import Term
from rtkit.threat import ThreatModel
from rtkit.training import History, Phase, train


def changed(net, before) -> set[str]:
    return {name for name, value in net.state_dict().items() if not torch.equal(value, before[name])}


def snapshot(net) -> dict:
    return {name: value.clone() for name, value in net.state_dict().items()}


def test_it_learns_and_the_same_seed_learns_the_same(two_classes):
    nets = [models.create(2, "small-8", 0) for _ in range(2)]
    histories = [train(net, two_classes, (Phase(steps=20, lr=0.05, batch_size=32),), 0) for net in nets]
    assert histories[0].loss[-1] < 0.1 * histories[0].loss[0]
    assert histories[0].gradients == 20 * 32
    for one, other in zip(nets[0].state_dict().values(), nets[1].state_dict().values(), strict=True):
        torch.testing.assert_close(one, other)


@pytest.mark.parametrize(
    ("protocol", "learns"),
    [
        ("fixed_feature", {"head"}),
        ("last_block", {"head", "backbone.2.1"}),
        ("last_stage", {"head", "backbone.2"}),
        ("last_two_stages", {"head", "backbone.2", "backbone.1"}),
        ("full_network", {"head", "backbone", "stem"}),
    ],
)
@pytest.mark.parametrize("batchnorm", ["adapt", "frozen"])
def test_freeze_levels_and_batchnorm_policy(two_classes, protocol, learns, batchnorm):
    blocks = methods.transfer(protocol, steps=3, lr=0.1, batch_size=32).phases[0].trainable
    net = models.create(2, "small-8", 0)
    before = snapshot(net)
    train(net, two_classes, (Phase(steps=3, lr=0.1, batch_size=32, trainable=blocks, batchnorm=batchnorm),), 0)
    learned, statistics = set(), set()
    for name in changed(net, before):
        (statistics if "running" in name or "tracked" in name else learned).add(name)
    parameters = {name for name, _ in net.named_parameters()}
    assert learned == {name for name in parameters if any(name.startswith(part) for part in learns)}
    everywhere, tracked = ({name for name in before if word in name} for word in ("running", "tracked"))
    assert statistics == (everywhere | tracked if batchnorm == "adapt" else set())


def test_a_step_schedule_starts_at_its_peak(two_classes, monkeypatch):
    rates, step = [], torch.optim.SGD.step

    def watched(self, *args, **kwargs):
        rates.append(self.param_groups[0]["lr"])
        return step(self, *args, **kwargs)

    monkeypatch.setattr(torch.optim.SGD, "step", watched)
    train(models.create(2, "small-8", 0), two_classes, (Phase(9, 0.1, 8, schedule="step"),), 0)
    assert rates == pytest.approx([0.1] * 3 + [0.01] * 3 + [0.001] * 3)


def test_each_phase_draws_dropout_masks_of_its_own(two_classes, monkeypatch):
    drawn, dropout = [], torch.nn.functional.dropout2d

    def watched(x, *args):
        out = dropout(x, *args)
        drawn.append((out != 0).flatten(2).any(2))
        return out

    monkeypatch.setattr(torch.nn.functional, "dropout2d", watched)
    train(models.create(2, "small-8", 0), two_classes, (Phase(1, 1e-9, 8, dropout=0.5),) * 2, 0)
    first, second = drawn[: len(drawn) // 2], drawn[len(drawn) // 2 :]
    assert not all(torch.equal(one, other) for one, other in zip(first, second, strict=True))


def test_phases_follow_one_another_and_measurements_count_over_all(two_classes):
    net = models.create(2, "small-8", 0)
    phases = (Phase(steps=3, lr=0.1, batch_size=32, trainable=0), Phase(steps=4, lr=0.1, batch_size=32))
    modes = []

    def measure(net):
        modes.append(net.training)
        return 0.5

    history = train(net, two_classes, phases, 0, measure=measure, measure_at=(2, 5, 7))
    assert len(history.loss) == 7
    assert history.measured == {2: 0.5, 5: 0.5, 7: 0.5}
    assert modes == [False] * 3
    assert not net.training


def test_averaging_returns_the_mean_of_the_last_epochs(two_classes, monkeypatch):
    kept = []
    original = training.AveragedModel.update_parameters

    def spy(self, model):
        kept.append(model.head.weight.detach().clone())
        original(self, model)

    monkeypatch.setattr(training.AveragedModel, "update_parameters", spy)
    net = models.create(2, "small-8", 0)
    train(net, two_classes, (Phase(steps=8, lr=0.1, batch_size=32, averaging=0.5),), 0)
    assert len(kept) == 2  # four epochs of two steps; the last half of them
    torch.testing.assert_close(net.head.weight, torch.stack(kept).mean(0))
    assert net.stem[1].running_var.isfinite().all()


@pytest.mark.parametrize("kind", ["noise", "n_fgsm", "pgd"])
def test_adversary_warms_up_and_stays_near(kind, small_net, batch):
    x, y = batch
    adversary = Adversary(kind, ThreatModel("linf", 8 / 255), steps=2, warmup=0.5)
    generator = torch.Generator().manual_seed(0)
    sizes = [(adversary(small_net, x, y, share, generator).x - x).abs().amax() for share in (0.0, 0.25, 0.5, 1.0)]
    reach = 3 if kind == "n_fgsm" else 1
    assert sizes[0] == 0
    assert 0 < sizes[1] <= reach * 4 / 255 + 1e-6 < sizes[2] <= reach * 8 / 255 + 1e-6
    assert sizes[3] <= reach * 8 / 255 + 1e-6


def test_adversarial_training_counts_its_gradients_and_watches(two_classes):
    adversary = Adversary("pgd", ThreatModel("linf", 4 / 255), steps=3)
    net = models.create(2, "small-8", 0)
    history = train(
        net, two_classes, (Phase(steps=4, lr=0.05, batch_size=32, adversary=adversary),), 0, held_out=two_classes
    )
    assert history.gradients == 4 * 32 * 4
    assert len(history.watch) == 2


def test_collapse_is_a_fall_of_twenty_points_within_an_epoch():
    assert History(watch=[0.5, 0.8, 0.55]).collapsed
    assert not History(watch=[0.5, 0.8, 0.65, 0.5]).collapsed
    assert not History().collapsed


def test_a_loss_that_is_not_finite_names_epoch_and_step(two_classes):
    net = models.create(2, "small-8", 0)
    with torch.no_grad():
        net.head.weight.fill_(float("nan"))
    with pytest.raises(FloatingPointError, match="nan in epoch 1, step 1; lower the learning rate"):
        train(net, two_classes, (Phase(steps=4, lr=0.1, batch_size=32),), 0)


def test_few_images_make_smaller_batches(two_classes):
    history = train(models.create(2, "small-8", 0), two_classes[:10], (Phase(steps=2, lr=0.1, batch_size=128),), 0)
    assert history.gradients == 2 * 10


def test_bad_settings_are_named():
    with pytest.raises(ValueError, match=r"steps must be a whole number in .1, inf., got 0"):
        Phase(steps=0, lr=0.1)
    with pytest.raises(ValueError, match="batchnorm must be one of adapt, frozen, got 'eval'"):
        Phase(steps=1, lr=0.1, batchnorm="eval")
    with pytest.raises(ValueError, match="averaging estimates BatchNorm statistics anew"):
        Phase(steps=1, lr=0.1, batchnorm="frozen", averaging=0.5)
    with pytest.raises(ValueError, match=r"source must be one of standard, .*, got 'strong'"):
        methods.source("strong", 0.0, 1, 0.1)
    with pytest.raises(ValueError, match=r"protocol must be one of fixed_feature, .*, got 'linear'"):
        methods.transfer("linear", steps=1, lr=0.1, batch_size=1)
    with pytest.raises(ValueError, match="has 6 blocks, cannot train its last 9"):
        models.set_trainable(models.create(2, "small-8", 0), 9)


def test_a_new_head_leaves_the_backbone_and_the_original_alone(small_net):
    before = snapshot(small_net)
    copy = models.with_new_head(small_net, 7, seed=1)
    assert copy.head.weight.shape == (7, 32)
    assert not changed(small_net, before)
    shared = {name for name in before if not name.startswith("head")}
    assert all(torch.equal(copy.state_dict()[name], before[name]) for name in shared)


def test_shapes(small_net, batch):
    x, _ = batch
    assert [tuple(part.shape[1:]) for part in small_net.stages(x)] == [(8, 16, 16), (16, 8, 8), (32, 4, 4)]
    assert small_net.features(x).shape == (16, 32)
    assert small_net(x).shape == (16, 4)
    assert len(small_net.parts()) == 7


def test_no_images_are_refused(two_classes, small_net):
    with pytest.raises(ValueError, match="no images to train on"):
        train(small_net, two_classes[:0], (Phase(2, 0.1),), seed=0)


NAN, INF = float("nan"), float("inf")
OUTSIDE = {
    "steps": (0, -1, 1.5, True, NAN),
    "batch_size": (0, 2.0, True),
    "lr": (0, -0.1, NAN, INF, True),
    "trainable": (-1, 1.5, True),
    "dropout": (-0.1, 1, NAN),
    "averaging": (-0.1, 1.1, NAN),
    "momentum": (-0.1, 1, NAN),
    "weight_decay": (-1, NAN, INF),
}


@pytest.mark.parametrize(("name", "value"), [(name, value) for name, some in OUTSIDE.items() for value in some])
def test_settings_out_of_range_are_refused_on_both_sides(name, value):
    with pytest.raises(ValueError, match=rf"{name} must .* in [\[(].*, got {value!r}"):
        Phase(**{"steps": 1, "lr": 0.1} | {name: value})


@pytest.mark.parametrize(
    "make",
    [
        lambda value: Adversary("pgd", ThreatModel("linf", 0.1), warmup=value),
        lambda value: Adversary("region", ThreatModel("linf", 0.1), smoothing=value),
        lambda value: Adversary("pgd", ThreatModel("linf", 0.1), steps=value),
        lambda value: Term("features", value),
        lambda value: methods.source("robust", value, 1, 0.1),
        lambda value: World(texture_amplitude=value),
        lambda value: World(contrast=(value, 0.5)),
        lambda value: frames.interval([1.0, 2.0], value),
        lambda value: influence.draw_subsets(10, 2, 0, value),
        lambda value: influence.hessian(torch.zeros(2, 2), torch.zeros(3, 2), value),
        lambda value: influence.inverse(torch.eye(2), value),
    ],
)
@pytest.mark.parametrize("value", [-0.5, NAN, INF, True])
def test_numbers_out_of_range_are_refused_wherever_one_is_given(make, value):
    with pytest.raises(ValueError, match=r"must .*got"):
        make(value)


@pytest.fixture
def weighed(monkeypatch):
    """Sizes of the batches by which BatchNorm statistics are estimated after averaging."""
    found = []

    def watched(parts, net):
        parts = list(parts)
        found.extend(len(part) for part in parts)
        swa_utils.update_bn(parts, net)

    monkeypatch.setattr(training, "update_bn", watched)
    return found


@pytest.mark.parametrize(
    ("n", "sizes"), [(3, [3]), (10, [10]), (20, [10, 10]), (11, [11]), (19, [19]), (21, [11, 10]), (29, [15, 14])]
)
def test_no_short_batch_counts_as_much_as_a_full_one(two_classes, weighed, n, sizes):
    net, images = models.create(2, "small-8", 0), two_classes[:n]
    phases = (Phase(4, 0.1, 10, averaging=1.0),)
    train(net, images, phases, 0)
    assert weighed == sizes
    whole = copy.deepcopy(net).train()
    for part in whole.modules():
        if isinstance(part, torch.nn.BatchNorm2d):
            part.reset_running_stats()
            part.momentum = None
    with torch.no_grad():
        whole(compute.to_pixels(images.x))
    near = torch.allclose(net.stem[1].running_mean, whole.stem[1].running_mean, rtol=0.05, atol=1e-3)
    assert near  # the deeper layers' batches were normalised by themselves


def test_a_resnet_takes_one_image_more_than_a_batch(two_classes):
    net = models.create(2, "resnet18", 0)  # at 32 pixels its last maps are one pixel
    train(net, two_classes[:9], (Phase(1, 0.01, 8, averaging=1.0),), 0)


@pytest.mark.parametrize(("n", "batch"), [(1, 8), (8, 1)])
def test_batches_of_one_image_are_refused_before_training(two_classes, n, batch):
    net, phases = models.create(2, "small-8", 0), (Phase(1, 0.1, 8), Phase(1, 0.1, batch))
    before = copy.deepcopy(net.state_dict())
    with pytest.raises(ValueError, match=f"two images a batch, got {n} in batches of"):
        train(net, two_classes[:n], phases, 0)
    assert all(torch.equal(value, before[name]) for name, value in net.state_dict().items())
    train(net, two_classes[:n], (Phase(1, 0.1, batch, trainable=0, batchnorm="frozen"),), 0)
