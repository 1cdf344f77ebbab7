"""Adversaries: what a step of training replaces an image, its weight and its label by."""

from dataclasses import dataclass, replace
from typing import Literal, NamedTuple

import torch
import torch.nn.functional as F

from rtkit import attacks
from rtkit.limits import must_be_one_of, must_lie
from rtkit.threat import ThreatModel

KINDS = ("noise", "n_fgsm", "pgd", "divergence", "region", "kernel", "wasserstein")


class Attacked(NamedTuple):
    """What an adversary hands to the loss.

    Shape:
        x (N, C, H, W) in [0, 1]; weight (N,) or None for ones; target (N, K), probabilities, or None for the labels.
    """

    x: torch.Tensor
    weight: torch.Tensor | None = None
    target: torch.Tensor | None = None


@dataclass(frozen=True)
class Adversary:
    """What replaces the training image x by x'.

    Args:
        kind: "noise" (evenly from the ball, a control), "n_fgsm" (de Jorge et al. 2022), "pgd" (Madry et al. 2018),
            "divergence" (PGD on the divergence from the clean decision, as in TRADES, Zhang et al. 2019), "region" (a
            point of the region that PGD's path spans, Song et al. 2021), "kernel" (the image that maximises loss times
            a Gaussian kernel, Zhu et al. 2022), "wasserstein" (loss minus the kernel's exponent, Sinha et al. 2018).
        threat: the ball at full size; for the last two, which know no ball, eps is the kernel's width sigma in l2.
        steps: gradient steps; ignored by "noise" and "n_fgsm".
        warmup: share of the training over which eps grows from zero. Starting at full eps can leave a small network
            at chance for good.
        smoothing: for "region", how much of its label a point at distance eps loses to all classes evenly; nearer
            points lose proportionally less.

    Raises:
        ValueError: the kind is unknown, warmup or smoothing is no share, or steps is no whole number from 1.
    """

    kind: Literal["noise", "n_fgsm", "pgd", "divergence", "region", "kernel", "wasserstein"]
    threat: ThreatModel
    steps: int = 7
    warmup: float = 0.4
    smoothing: float = 0.0

    def __post_init__(self):
        must_be_one_of(KINDS, kind=self.kind)
        must_lie("[0, 1]", warmup=self.warmup, smoothing=self.smoothing)
        must_lie("[1, inf)", whole=True, steps=self.steps)

    def __call__(self, net, x, y, progress: float, generator: torch.Generator) -> Attacked:
        """Attack a batch at the given share of the training. Shape: x (N, C, H, W) in [0, 1], y (N,)."""
        scale = min(1.0, progress / self.warmup) if self.warmup else 1.0
        threat = replace(self.threat, eps=scale * self.threat.eps)
        if self.kind == "noise":
            return Attacked((x + threat.random_start(x, generator)).clamp(0, 1))
        if self.kind == "n_fgsm":
            return Attacked(attacks.n_fgsm(net, x, y, threat, generator=generator))
        if self.kind == "region":
            return region(net, x, y, threat, self.steps, self.smoothing, generator)
        if self.kind in ("kernel", "wasserstein"):
            return kernel(net, x, y, threat.eps, self.steps, additive=self.kind == "wasserstein")
        options = {"steps": self.steps, "keep_best": False, "batch_statistics": True, "generator": generator}
        if self.kind == "divergence":
            with torch.no_grad(), attacks.frozen(net, batch_statistics=True):
                clean = net(x).softmax(1)
            return Attacked(attacks.pgd(net, x, clean, threat, loss=divergence, **options))
        return Attacked(attacks.pgd(net, x, y, threat, **options))

    @property
    def gradients(self) -> int:
        """Gradient evaluations that one x' costs."""
        return {"noise": 0, "n_fgsm": 1}.get(self.kind, self.steps)


def divergence(logits: torch.Tensor, clean: torch.Tensor) -> torch.Tensor:
    """Kullback-Leibler divergence, in nats, of the decision on x' from the one on x. Shape: (N, K), (N, K) -> (N,)."""
    target = clean.float()
    target = target.clamp_min(torch.finfo(target.dtype).tiny)  # the logarithm of zero has no gradient
    return F.kl_div(logits.float().log_softmax(1), target, reduction="none").sum(1)


def region(net, x, y, threat: ThreatModel, steps: int, smoothing: float, generator: torch.Generator) -> Attacked:
    """Draw x' evenly from the smallest box that holds PGD's path, its label the softer the further x' lies from x.

    The paper's abstract leaves box and softness open; both are our reading.

    Shape:
        x (N, C, H, W) in [0, 1], y (N,) -> x' within eps of x, targets (N, K).

    Reference: Song et al. 2021 (regional adversarial training).
    """
    path = [x]

    def watched(point: torch.Tensor) -> torch.Tensor:
        path.append(point.detach())
        return net(point)

    with attacks.frozen(net, batch_statistics=True):
        options = {"keep_best": False, "batch_statistics": True, "generator": generator}
        path.append(attacks.pgd(watched, x, y, threat, steps=steps, **options))
        classes = net(x[:1]).shape[1]
    low, high = torch.stack(path).aminmax(dim=0)  # (N, C, H, W)
    share = torch.rand(x.shape, generator=generator, device=x.device)
    point = low + share * (high - low)
    distance = (point - x).flatten(1).abs().amax(1) / (threat.eps or 1)  # (N,)
    softness = (smoothing * distance).clamp(max=1)[:, None]
    return Attacked(point, target=(1 - softness) * F.one_hot(y, classes) + softness / classes)


def kernel(net, x, y, sigma: float, steps: int, additive: bool = False) -> Attacked:
    """Find u that maximises k(u, x) loss(u), with k(u, x) = exp(-|u - x|^2 / (2 sigma^2)); its kernel is its weight.

    Args:
        sigma: width of the kernel, an l2 length for pixels in [0, 1]; zero leaves the image as it is.
        steps: of Adam (AMSGrad), which move an image by 1.5 sigma at most, however many they are.
        additive: maximise loss(u) - |u - x|^2 / (2 sigma^2) instead, all weights one: distributionally robust training
            within a Wasserstein ball (Sinha et al. 2018, equation 2b, with gamma = 1 / (2 sigma^2)).

    Shape:
        x (N, C, H, W) in [0, 1], y (N,) -> u in [0, 1] (the authors' code does not clip it), weights (N,) in (0, 1].

    Reference: Zhu et al. 2022, equation 6 and their code.
    """
    if not sigma:
        return Attacked(x)

    def closeness(u: torch.Tensor) -> torch.Tensor:
        return -(u - x).flatten(1).square().sum(1) / (2 * sigma**2)  # (N,), the kernel's logarithm

    point = x.clone().requires_grad_(True)
    tiny = torch.finfo(torch.float32).tiny  # the logarithm of zero has no gradient
    ascent = torch.optim.Adam([point], lr=1.5 / steps * sigma / x[0].numel() ** 0.5, amsgrad=True, maximize=True)
    with attacks.frozen(net, batch_statistics=True):
        for _ in range(steps):
            # The logarithm has the same maximiser, and its gradient does not shrink with the kernel.
            loss = attacks.cross_entropy(net(point), y)
            value = (loss if additive else loss.clamp_min(tiny).log()) + closeness(point)
            (point.grad,) = torch.autograd.grad(value.sum(), point)
            ascent.step()
            with torch.no_grad():
                point.clamp_(0, 1)
    point = point.detach()
    return Attacked(point, weight=None if additive else closeness(point).exp())
