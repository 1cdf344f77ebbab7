"""How well a network does on clean images."""

from collections.abc import Iterator

import torch

from rtkit import attacks, compute
from rtkit.data.glyphs import Images
from rtkit.models import Network

BATCH = 300  # images of 32 x 32 pixels at a time, fewer of larger ones; bounds memory, changes no result


def batches(images: Images) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """Yield (pixels, labels) on the device. Shape: (N, 3, H, W) in [0, 1], (N,)."""
    size = max(32, BATCH * 32 * 32 // images.x[0, 0].numel())
    for x, y in zip(images.x.split(size), images.y.split(size), strict=True):
        yield compute.to_pixels(x), y.to(compute.device())


@torch.no_grad()
def logits(net: Network, x: torch.Tensor) -> torch.Tensor:
    """The network's logits in eval mode and float32, whatever mode it is in. Shape: (N, 3, H, W) -> (N, K)."""
    with attacks.frozen(net):
        return net(x)


def predictions(net: Network, images: Images) -> torch.Tensor:
    """The decided class of each image, in float32. Shape: (N,)."""
    return torch.cat([logits(net, x).argmax(1).cpu() for x, _ in batches(images)])


def accuracy(net: Network, images: Images) -> float:
    """Share of images classified correctly."""
    return float((predictions(net, images) == images.y).float().mean())


@torch.no_grad()
def features(net: Network, images: Images) -> torch.Tensor:
    """The penultimate features of each image, in eval mode. Shape: (N, D) float32 on the host."""
    with attacks.frozen(net), compute.autocast():
        return torch.cat([net.features(x).cpu() for x, _ in batches(images)])
