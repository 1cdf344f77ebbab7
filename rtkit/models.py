"""Networks: normalisation, a backbone that shows its stages, and a linear head."""

import re
from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import nn


class Block(nn.Module):
    """A residual block of two 3 x 3 convolutions. He et al. 2016, section 3.3."""

    def __init__(self, inputs: int, outputs: int, stride: int):
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(outputs)
        self.shortcut = nn.Sequential()
        if stride != 1 or inputs != outputs:
            self.shortcut = nn.Sequential(nn.Conv2d(inputs, outputs, 1, stride, bias=False), nn.BatchNorm2d(outputs))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = F.relu(self.bn1(self.conv1(x)))
        return F.relu(self.bn2(self.conv2(y)) + self.shortcut(x))


class Activations(NamedTuple):
    """What a network computes on its way: the maps after each stage, the penultimate features, the logits."""

    stages: list[torch.Tensor]
    features: torch.Tensor
    logits: torch.Tensor


class Network(nn.Module):
    """A network in the order in which transfer cuts it: stem, stages of residual blocks, average pooling, head.

    Normalisation is part of the network, so pixels in [0, 1] are all that any caller ever handles.

    Args:
        architecture: see `create`; stem, backbone: its parts.
        width: channels of the last stage.
        classes: number of outputs.
        hidden: sizes of the head's hidden layers; none for a linear head.
        mean, std: of the normalisation, for each colour.

    Attributes:
        dropout: probability with which, in training mode, a channel is set to zero after each stage. A training phase
            sets it, and takes it back at its end.

    Shape:
        x (N, 3, H, W) in [0, 1]; stages(x): a list of (N, C, h, w); features(x): (N, width); forward(x): (N, classes)
        logits in float32. The small network at width w and 32 x 32 pixels: stages of w, 2w and 4w channels at 16, 8
        and 4 pixels.
    """

    def __init__(
        self,
        architecture: str,
        stem: nn.Module,
        backbone: Sequence[nn.Module],
        width: int,
        classes: int,
        hidden: Sequence[int] = (),
        mean: Sequence[float] = (0.5, 0.5, 0.5),
        std: Sequence[float] = (0.25, 0.25, 0.25),
    ):
        super().__init__()
        self.architecture, self.dropout = architecture, 0.0
        self.register_buffer("mean", torch.tensor(mean).view(1, 3, 1, 1))
        self.register_buffer("std", torch.tensor(std).view(1, 3, 1, 1))
        self.stem, self.backbone = stem, nn.ModuleList(backbone)
        *inner, last = (nn.Linear(inputs, outputs) for inputs, outputs in pairwise([width, *hidden, classes]))
        self.head = nn.Sequential(*(part for layer in inner for part in (layer, nn.ReLU())), last) if hidden else last
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def _drop(self, x: torch.Tensor) -> torch.Tensor:
        return F.dropout2d(x, self.dropout, self.training) if self.dropout else x

    def stages(self, x: torch.Tensor) -> list[torch.Tensor]:
        """The feature maps after each stage, first stage first, each before its own dropout."""
        x = self.stem((x - self.mean) / self.std)
        maps = []
        for stage in self.backbone:
            x = stage(self._drop(x) if maps else x)
            maps.append(x)
        return maps

    def activations(self, x: torch.Tensor) -> Activations:
        """Stage maps, features and logits of one pass."""
        maps = self.stages(x)
        features = self._drop(maps[-1]).float().mean((2, 3))
        return Activations(maps, features, self.head(features).float())

    def features(self, x: torch.Tensor) -> torch.Tensor:
        """The penultimate features: the last stage's maps, averaged over the image."""
        return self.activations(x).features

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.activations(x).logits

    def parts(self) -> list[nn.Module]:
        """The network cut where transfer cuts it: stem, then block after block. The head is not among them."""
        return [self.stem, *(block for stage in self.backbone for block in stage)]


# torchvision's residual networks by name: blocks of each stage, whether a block is a bottleneck, width of its groups.
RESNETS = {
    "resnet18": ((2, 2, 2, 2), False, 64),
    "resnet50": ((3, 4, 6, 3), True, 64),
    "wide_resnet50_2": ((3, 4, 6, 3), True, 128),
    "wide_resnet50_4": ((3, 4, 6, 3), True, 256),
}
IMAGENET = {"mean": (0.485, 0.456, 0.406), "std": (0.229, 0.224, 0.225)}


def _split(architecture: str) -> tuple[str, str]:
    """An architecture's family and its variant.

    Raises:
        ValueError: there is no such architecture.
    """
    family, _, variant = architecture.partition("-")
    small = family == "small" and re.fullmatch("[1-9][0-9]*", variant)
    if small or (family in RESNETS and architecture in (family, f"{family}-cifar")):
        return family, variant
    raise ValueError(
        f"no architecture is called {architecture!r}; there are small-WIDTH (such as small-16), {', '.join(RESNETS)}, "
        "and each of these with -cifar after it for images of 32 x 32 pixels"
    )


def blocks(architecture: str) -> tuple[int, ...]:
    """How many residual blocks each stage of an architecture has."""
    family, _ = _split(architecture)
    return RESNETS[family][0] if family in RESNETS else (2, 2, 2)


def _small(width: int) -> tuple[nn.Module, list[nn.Module], int]:
    """Stem, stages and the width of the last."""
    stem = nn.Sequential(nn.Conv2d(3, width, 3, 2, 1, bias=False), nn.BatchNorm2d(width), nn.ReLU())
    sizes = ((width, width, 1), (width, 2 * width, 2), (2 * width, 4 * width, 2))  # channels in and out, stride
    backbone = [nn.Sequential(Block(*size), Block(size[1], size[1], 1)) for size in sizes]
    return stem, backbone, 4 * width


def _resnet(family: str, variant: str) -> tuple[nn.Module, list[nn.Module], int]:
    """The same of a residual network of torchvision's."""
    from torchvision.models import resnet  # the small network needs torch alone

    sizes, bottleneck, group = RESNETS[family]
    net = resnet.ResNet(resnet.Bottleneck if bottleneck else resnet.BasicBlock, list(sizes), width_per_group=group)
    stem = nn.Sequential(net.conv1, net.bn1, net.relu, net.maxpool)
    if variant == "cifar":  # He et al. 2016, section 4.2: small images are not reduced before the first stage
        stem = nn.Sequential(nn.Conv2d(3, 64, 3, 1, 1, bias=False), net.bn1, net.relu)
    return stem, [net.layer1, net.layer2, net.layer3, net.layer4], net.fc.in_features


def create(classes: int, architecture: str, seed: int, hidden: Sequence[int] = ()) -> Network:
    """Make a freshly initialised network; the seed decides its weights and leaves the global generator alone.

    Args:
        architecture: "small-16" for the small network of width 16 (a stem and three stages of two blocks), or of any
            other width; a name of `RESNETS`; "resnet18-cifar" for one whose stem keeps 32 x 32 pixels as they are.

    Raises:
        ValueError: there is no such architecture.
    """
    family, variant = _split(architecture)
    devices = [torch.cuda.current_device()] if torch.cuda.is_available() else []  # the seed reaches it, too
    with torch.random.fork_rng(devices):
        torch.manual_seed(seed)
        parts = _small(int(variant)) if family == "small" else _resnet(family, variant)
        net = Network(architecture, *parts, classes, hidden, **({} if family == "small" else IMAGENET))
    return net.to(memory_format=torch.channels_last)


def from_torchvision(state: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Rename the weights of a torchvision residual network to those of a `Network`; the normalisation is ImageNet's."""
    names = {"conv1": "stem.0", "bn1": "stem.1", "fc": "head"} | {f"layer{k + 1}": f"backbone.{k}" for k in range(4)}
    parts = ((name.partition("."), value) for name, value in state.items())
    renamed = {f"{names.get(first, first)}.{rest}": value for (first, _, rest), value in parts}
    return renamed | {name: torch.tensor(value).view(1, 3, 1, 1) for name, value in IMAGENET.items()}


def with_new_head(net: Network, classes: int, seed: int, hidden: Sequence[int] = ()) -> Network:
    """Copy a network and give it a fresh head for another number of classes (nn.Linear's default initialisation)."""
    copy = create(classes, net.architecture, seed, hidden)
    state = {name: value for name, value in net.state_dict().items() if not name.startswith("head.")}
    copy.load_state_dict(state | {f"head.{name}": value for name, value in copy.head.state_dict().items()})
    return copy.to(next(net.parameters()).device)


def set_trainable(net: Network, blocks: int | None) -> list[nn.Module]:
    """Let only the head and the last `blocks` residual blocks learn (None: everything); return the frozen parts.

    Raises:
        ValueError: the network has fewer blocks.
    """
    parts = net.parts()
    if blocks is not None and not 0 <= blocks < len(parts):
        raise ValueError(f"the network has {len(parts) - 1} blocks, cannot train its last {blocks}")
    net.requires_grad_(True)
    fixed = [] if blocks is None else parts[: len(parts) - blocks]
    for part in fixed:
        part.requires_grad_(False)
    return fixed
