"""Threat models: what an adversary may do to an image. No attack loop knows a norm; it asks the threat model."""

from dataclasses import dataclass
from typing import Literal

import torch

from rtkit.limits import must_be_one_of, must_lie


def per_image(values: torch.Tensor, like: torch.Tensor) -> torch.Tensor:
    """One number for each image, to go with all its entries. Shape: (N,), (N, ...) -> (N, 1, ...)."""
    return values.view(-1, *[1] * (like.dim() - 1))


def _scaled(delta: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Each image's perturbation, its largest entry brought to [1, 2) unless it is zero; its length then; the divisor.

    Squares would underflow, or overflow, long before their entries do. A power of two changes no bit of what follows.
    Half precision becomes single. Shape: (N, ...) -> the same, (N, 1, ...) twice.
    """
    delta = delta.to(torch.promote_types(delta.dtype, torch.float32))
    largest = per_image(delta.flatten(1).abs().amax(1), delta)
    power = torch.where(largest > 0, largest / (2 * torch.frexp(largest).mantissa), 1)
    scaled = delta / power
    return scaled, per_image(scaled.flatten(1).norm(dim=1), scaled), power


def l2_norm(delta: torch.Tensor) -> torch.Tensor:
    """The Euclidean length of each image's perturbation. Shape: (N, ...) -> (N, 1, ...), single precision or better."""
    _, length, power = _scaled(delta)
    return length * power


def l2_unit(delta: torch.Tensor, length: float | torch.Tensor = 1.0) -> torch.Tensor:
    """Bring each image's perturbation to a length, however short it is; zero stays zero. Shape: (N, ...) -> the same.

    Args:
        length: one, or one for each image, (N, 1, ...).
    """
    scaled, own, _ = _scaled(delta)
    return (length * scaled / own.clamp_min(1)).to(delta.dtype)  # only zero is shorter than 1


@dataclass(frozen=True)
class ThreatModel:
    """All perturbations of an image within radius `eps` in a norm.

    Args:
        norm: "linf" (largest change of any pixel) or "l2" (Euclidean length over all pixels and channels).
        eps: radius, for pixels in [0, 1]; 8/255 in "linf" moves no pixel by more than 8 of 255 grey levels.

    Raises:
        ValueError: the norm is unknown, or eps is negative, not finite, or in "linf" above 1.

    Reference: Madry et al. 2018, section 2.1.
    """

    norm: Literal["linf", "l2"]
    eps: float

    def __post_init__(self):
        must_be_one_of(("linf", "l2"), norm=self.norm)
        span = "[0, 1]" if self.norm == "linf" else "[0, inf)"  # how far corners are, an image knows: `attacks.check`
        must_lie(span, hint=" (pixels lie in [0, 1]: 8/255, not 8)", eps=self.eps)

    def size(self, delta: torch.Tensor) -> torch.Tensor:
        """How large each image's perturbation is in the norm. Shape: (N, ...) -> (N,)."""
        return delta.flatten(1).abs().amax(1) if self.norm == "linf" else l2_norm(delta).flatten()

    def project(self, delta: torch.Tensor) -> torch.Tensor:
        """Bring each perturbation to the nearest point of the ball. Shape: (N, ...) -> the same."""
        if self.norm == "linf":
            return delta.clamp(-self.eps, self.eps)
        length = l2_norm(delta).clamp_min(torch.finfo(torch.float32).tiny)
        return (delta * torch.where(length > self.eps, self.eps / length, 1)).to(delta.dtype)

    def random_start(self, x: torch.Tensor, generator: torch.Generator | None = None) -> torch.Tensor:
        """Draw a perturbation for each image evenly from the ball. Shape: that of x."""
        if self.norm == "linf":
            return (2 * torch.rand(x.shape, generator=generator, device=x.device) - 1).to(x.dtype) * self.eps
        direction = torch.randn(x.shape, generator=generator, device=x.device).to(x.dtype)
        share = torch.rand(len(x), generator=generator, device=x.device).to(x.dtype) ** (1 / x.shape[1:].numel())
        return l2_unit(direction) * per_image(share, x) * self.eps

    def ascend(self, grad: torch.Tensor, step_size: float) -> torch.Tensor:
        """The step of length `step_size` that raises a linear loss most. Shape: that of grad, and its precision."""
        if self.norm == "linf":
            return (step_size * grad.sign()).to(grad.dtype)
        return l2_unit(grad, step_size)
