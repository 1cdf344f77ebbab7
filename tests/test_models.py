"""Networks by the name of their architecture: how they are cut, what transfer trains of them, where weights go."""

import pytest
import torch
from torch import nn
from torchvision.models import resnet

from rtkit import methods, models

EVERY = [family + variant for family in models.RESNETS for variant in ("", "-cifar")]
FEATURES = {"resnet18": 512, "resnet50": 2048, "wide_resnet50_2": 2048, "wide_resnet50_4": 2048}
BLOCKS = {"resnet18": (2, 2, 2, 2), "resnet50": (3, 4, 6, 3), "wide_resnet50_2": (3, 4, 6, 3)}
BLOCKS["wide_resnet50_4"] = (3, 4, 6, 3)
# Millions of parameters; the first three as torchvision's documentation has them.
PARAMETERS = {"resnet18": 11.69, "resnet50": 25.56, "wide_resnet50_2": 68.88, "wide_resnet50_4": 223.4}


def shapeless(architecture: str, classes: int = 10, hidden: tuple[int, ...] = ()) -> models.Network:
    """The network without memory or weights."""
    with torch.device("meta"):
        return models.create(classes, architecture, 0, hidden)


@pytest.mark.parametrize("architecture", EVERY)
def test_stages_and_features(architecture):
    family, _, cifar = architecture.partition("-")
    net, width = shapeless(architecture), FEATURES[family]
    found = net.activations(torch.empty(2, 3, 32, 32, device="meta"))
    first = 32 if cifar else 8  # the stem of 32 x 32 images reduces nothing, that of ImageNet's by four
    assert [tuple(stage.shape) for stage in found.stages] == [
        (2, width >> (3 - k), max(1, first >> k), max(1, first >> k)) for k in range(4)
    ]
    assert found.features.shape == (2, width)
    assert found.logits.shape == (2, 10)
    assert found.logits.dtype == torch.float32
    assert shapeless(architecture, 3, (5,)).head[-1].weight.shape == (3, 5)


@pytest.mark.parametrize("architecture", EVERY)
def test_parts_are_the_stem_and_every_block(architecture):
    net, sizes = shapeless(architecture), BLOCKS[architecture.removesuffix("-cifar")]
    assert models.blocks(architecture) == sizes
    parts = net.parts()
    assert parts[0] is net.stem
    assert [type(part) for part in parts[1:]] == [type(net.backbone[0][0])] * sum(sizes)
    assert parts[-1] is net.backbone[3][-1]
    held = {id(parameter) for part in parts for parameter in part.parameters()}
    assert held | {id(parameter) for parameter in net.head.parameters()} == {id(one) for one in net.parameters()}


@pytest.mark.parametrize("architecture", [*EVERY, "small-8"])
@pytest.mark.parametrize(
    ("protocol", "stages"),
    [("fixed_feature", 0), ("last_block", None), ("last_stage", 1), ("last_two_stages", 2), ("full_network", 9)],
)
def test_a_protocol_trains_exactly_its_parameters(architecture, protocol, stages):
    sizes = models.blocks(architecture)
    (phase,) = methods.transfer(protocol, steps=1, lr=0.1, batch_size=2, blocks=sizes).phases
    net = shapeless(architecture)
    models.set_trainable(net, phase.trainable)
    last = len(sizes) - 1
    starts = {None: (f"backbone.{last}.{sizes[-1] - 1}.",), 0: ()}.get(
        stages, tuple(f"backbone.{k}." for k in range(len(sizes))[-(stages or 1) :])
    )
    if stages == 9:
        starts += ("stem.",)
    learn = {name for name, parameter in net.named_parameters() if parameter.requires_grad}
    assert learn == {name for name, _ in net.named_parameters() if name.startswith(("head.", *starts))}


@pytest.mark.parametrize("family", models.RESNETS)
def test_torchvisions_weights_fit_under_their_own_names(family):
    sizes, bottleneck, group = models.RESNETS[family]
    with torch.device("meta"):
        theirs = resnet.ResNet(
            resnet.Bottleneck if bottleneck else resnet.BasicBlock, list(sizes), width_per_group=group
        )
    assert sum(one.numel() for one in theirs.parameters()) / 1e6 == pytest.approx(PARAMETERS[family], abs=0.05)
    renamed, ours = models.from_torchvision(theirs.state_dict()), shapeless(family, 1000).state_dict()
    assert {name: value.shape for name, value in renamed.items()} == {name: one.shape for name, one in ours.items()}


@pytest.mark.parametrize("family", ["resnet18", "resnet50"])
def test_torchvisions_weights_are_taken_as_they_are(family):
    theirs = getattr(resnet, family)(num_classes=4).state_dict()
    net = models.create(4, family, 0)
    net.load_state_dict(models.from_torchvision(theirs))
    ours = net.state_dict()
    names = {"conv1": "stem.0", "bn1": "stem.1", "fc": "head"} | {
        f"layer{k}": f"backbone.{k - 1}" for k in (1, 2, 3, 4)
    }
    for name, value in theirs.items():
        first, _, rest = name.partition(".")
        assert torch.equal(ours[f"{names[first]}.{rest}"], value), name
    assert len(ours) == len(theirs) + 2
    torch.testing.assert_close(ours["mean"].flatten(), torch.tensor([0.485, 0.456, 0.406]), rtol=0, atol=0)
    torch.testing.assert_close(ours["std"].flatten(), torch.tensor([0.229, 0.224, 0.225]), rtol=0, atol=0)


@pytest.mark.parametrize(
    "name",
    [
        "",
        "small",
        "small-",
        "small-0",
        "small-08",
        "small-x",
        "small-8-cifar",
        "resnet34",
        "ResNet18",
        "resnet18-",
        "resnet18-8",
    ],
)
def test_unknown_architectures_are_refused_with_those_there_are(name):
    message = r"no architecture is called .*; there are small-WIDTH .*resnet18, resnet50.* with -cifar"
    with pytest.raises(ValueError, match=message):
        models.create(2, name, 0)
    with pytest.raises(ValueError, match=message):
        models.blocks(name)


@pytest.mark.parametrize("architecture", ["small-8", "resnet18-cifar"])
def test_a_new_head_keeps_the_backbone(architecture):
    net = models.create(5, architecture, 0)
    before = {name: value.clone() for name, value in net.state_dict().items()}
    other = models.with_new_head(net, 3, 1)
    assert other.architecture == architecture
    after = other.state_dict()
    assert list(after) == list(before)
    for name, value in before.items():
        assert torch.equal(net.state_dict()[name], value)
        if not name.startswith("head."):
            assert torch.equal(after[name], value), name
            assert after[name].data_ptr() != net.state_dict()[name].data_ptr()
    assert after["head.weight"].shape == (3, net.head.in_features)
    assert after["head.weight"].abs().max() <= 1 / net.head.in_features**0.5  # nn.Linear draws evenly from there
    assert torch.equal(after["head.weight"], models.with_new_head(net, 3, 1).head.weight)
    assert not torch.equal(after["head.weight"], models.with_new_head(net, 3, 2).head.weight)


@pytest.mark.parametrize("architecture", ["small-16", "resnet18-cifar"])
def test_the_seed_decides_every_bit_and_the_global_generator_is_left_alone(architecture):
    torch.manual_seed(7)
    expected = torch.rand(3)
    torch.manual_seed(7)
    one = models.create(20, architecture, 3)
    assert torch.equal(torch.rand(3), expected)
    torch.rand(100)
    same, other = models.create(20, architecture, 3), models.create(20, architecture, 4)
    assert all(torch.equal(a, b) for a, b in zip(one.state_dict().values(), same.state_dict().values(), strict=True))
    assert not torch.equal(one.head.weight, other.head.weight)
    assert not torch.equal(one.stem[0].weight, other.stem[0].weight)


def test_a_resnet_trains_two_steps(two_classes):
    from rtkit.data.augmentation import crop_and_flip
    from rtkit.training import Phase, train

    net = models.create(2, "resnet18-cifar", 0)
    before = {name: value.clone() for name, value in net.named_parameters()}
    history = train(net, two_classes[:16], (Phase(steps=2, lr=0.1, batch_size=8),), 0, augment=crop_and_flip)
    assert all(not torch.equal(value.cpu(), before[name]) for name, value in net.named_parameters())
    assert torch.tensor(history.loss).isfinite().all()
    assert isinstance(net.stem[0], nn.Conv2d)
    assert net.stem[0].weight.is_contiguous(memory_format=torch.channels_last)
