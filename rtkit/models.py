"""Networks: normalisation, a backbone that shows its stages, and a linear head."""

from collections.abc import Sequence
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
    """A small residual network: stem, three stages of two blocks, average pooling, head.

    Normalisation is part of the network, so pixels in [0, 1] are all that any caller ever handles.

    Args:
        classes: number of outputs.
        width: channels of the first stage; the next ones have two and four times as many.
        hidden: sizes of the head's hidden layers; none for a linear head.

    Attributes:
        dropout: probability with which, in training mode, a channel is set to zero after each stage. A training phase
            sets it, and takes it back at its end.

    Shape:
        x (N, 3, 32, 32) in [0, 1]; stages(x): (N, w, 16, 16), (N, 2w, 8, 8), (N, 4w, 4, 4); features(x): (N, 4w);
        forward(x): (N, classes) logits in float32.
    """

    def __init__(self, classes: int, width: int = 16, hidden: Sequence[int] = ()):
        super().__init__()
        self.dropout = 0.0
        self.register_buffer("mean", torch.full((1, 3, 1, 1), 0.5))
        self.register_buffer("std", torch.full((1, 3, 1, 1), 0.25))
        self.stem = nn.Sequential(nn.Conv2d(3, width, 3, 2, 1, bias=False), nn.BatchNorm2d(width), nn.ReLU())
        widths = [width, width, 2 * width, 4 * width]
        self.backbone = nn.ModuleList(
            nn.Sequential(Block(inputs, outputs, 1 if k == 0 else 2), Block(outputs, outputs, 1))
            for k, (inputs, outputs) in enumerate(pairwise(widths))
        )
        *inner, last = (nn.Linear(inputs, outputs) for inputs, outputs in pairwise([widths[-1], *hidden, classes]))
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


def create(classes: int, width: int, seed: int, hidden: Sequence[int] = ()) -> Network:
    """Make a freshly initialised network; the seed decides its weights and leaves the global generator alone."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return Network(classes, width, hidden).to(memory_format=torch.channels_last)


def with_new_head(net: Network, classes: int, seed: int, hidden: Sequence[int] = ()) -> Network:
    """Copy a network and give it a fresh head for another number of classes (nn.Linear's default initialisation)."""
    copy = create(classes, net.stem[0].out_channels, seed, hidden)
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
