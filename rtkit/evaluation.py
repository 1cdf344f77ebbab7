"""How well a network does, clean and under attack, and whether the number can be believed."""

from collections.abc import Iterator
from contextlib import nullcontext
from dataclasses import asdict, dataclass

import torch

from rtkit import attacks, compute
from rtkit.data.glyphs import Images
from rtkit.models import Network
from rtkit.threat import ThreatModel

BATCH = 300  # images at a time; bounds memory, changes no result


def batches(images: Images) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """Yield (pixels, labels) on the device. Shape: (N, 3, H, W) in [0, 1], (N,)."""
    for x, y in zip(images.x.split(BATCH), images.y.split(BATCH), strict=True):
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


@dataclass(frozen=True)
class Robustness:
    """The result of an evaluation under attack, with what is needed to doubt it.

    `clean` and `robust` are shares of all images; `constant` is the score of always answering the commonest class;
    `zero_gradients` the share of images whose gradient vanishes; `large_eps` the accuracy under eps = 0.5 (linf), which
    any working attack brings near zero. `warnings` says in words what is wrong; a verdict needs it empty.
    """

    clean: float
    robust: float
    constant: float
    zero_gradients: float
    large_eps: float
    n_test: int
    warnings: tuple[str, ...]

    def to_dict(self) -> dict:
        """All fields as plain values."""
        return asdict(self)


def _broken(net, x, y, threat: ThreatModel, reduced: bool, options: dict) -> tuple[torch.Tensor, torch.Tensor]:
    """Attack once; tell which images it breaks in float32, and which only seemed broken in reduced precision."""
    with compute.autocast() if reduced else nullcontext():
        attacked = attacks.pgd(net, x, y, threat, **options)
        claimed = logits(net, attacked).argmax(1) != y
    broken = logits(net, attacked).argmax(1) != y
    return broken, claimed & ~broken


def worst_case(
    net: Network, x: torch.Tensor, y: torch.Tensor, threat: ThreatModel, *, steps: int, generator: torch.Generator
) -> torch.Tensor:
    """Tell which images stay correct under every attack: PGD on the cross-entropy and on the margin.

    Each attack sees only the images that survived the one before. Attacks may run in bfloat16, decisions are made in
    float32, and an image that only rounding had broken is attacked once more in float32.

    Shape:
        x (N, 3, H, W) in [0, 1], y (N,) -> (N,) bool.
    """
    robust = logits(net, x).argmax(1) == y
    for loss in (attacks.cross_entropy, attacks.margin):
        left = robust.nonzero()[:, 0]
        if not len(left):
            break
        options = {"steps": steps, "loss": loss, "generator": generator}
        broken, reverted = _broken(net, x[left], y[left], threat, compute.bf16(), options)
        if reverted.any():
            broken[reverted], _ = _broken(net, x[left][reverted], y[left][reverted], threat, False, options)
        robust[left[broken]] = False
    return robust


def robustness(
    net: Network, images: Images, threat: ThreatModel, *, steps: int = 20, seed: int = 0, vanishing: float = 0.05
) -> Robustness:
    """Measure clean accuracy and per-image worst-case robust accuracy, with self-checks.

    Args:
        steps: PGD steps of each attack, in eval mode, from one random start, step size 2.5 eps / steps.
        vanishing: share of vanishing gradients above which the result carries a warning.

    Raises:
        ValueError: there are no images.
    """
    if not len(images):
        raise ValueError("cannot evaluate on no images")
    generator = torch.Generator(device=compute.device()).manual_seed(seed)
    clean, robust, vanished, large, probabilities = [], [], [], [], []
    for x, y in batches(images):
        out = logits(net, x)
        probabilities.append(bool((out >= 0).all() and torch.allclose(out.sum(1), torch.ones_like(y, dtype=out.dtype))))
        clean.append(out.argmax(1) == y)
        robust.append(worst_case(net, x, y, threat, steps=steps, generator=generator))
        with attacks.frozen(net):
            _, grad = attacks.gradient(net, x, y, attacks.margin)
        vanished.append(grad.flatten(1).abs().amax(1) == 0)
        far = attacks.pgd(net, x[:64], y[:64], ThreatModel("linf", 0.5), steps=steps, generator=generator)
        large.append(logits(net, far).argmax(1) == y[:64])
    share = {name: float(torch.cat(v).float().mean()) for name, v in
             {"clean": clean, "robust": robust, "zero_gradients": vanished, "large_eps": large}.items()}  # fmt: skip
    constant = float(images.y.bincount().max() / len(images))
    found = []
    if all(probabilities):
        found.append("the network returns probabilities; attacks need logits")
    if share["zero_gradients"] > vanishing:
        found.append(f"{share['zero_gradients']:.0%} of the gradients vanish: the attacks are blind there")
    if share["large_eps"] > max(0.1, constant):
        found.append(f"accuracy is still {share['large_eps']:.0%} at eps = 0.5: the attacks do not work here")
    return Robustness(**share, constant=constant, n_test=len(images), warnings=tuple(found))
