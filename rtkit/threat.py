"""Threat models: what an adversary may do to an image. No attack loop knows a norm; it asks the threat model."""

from dataclasses import dataclass
from typing import Literal

import torch


def _per_image(values: torch.Tensor, like: torch.Tensor) -> torch.Tensor:
    return values.view(-1, *[1] * (like.dim() - 1))


def l2_norm(delta: torch.Tensor) -> torch.Tensor:
    """The Euclidean length of each image's perturbation. Shape: (N, ...) -> (N, 1, ...)."""
    return _per_image(delta.flatten(1).norm(dim=1), delta)


@dataclass(frozen=True)
class ThreatModel:
    """All perturbations of an image within radius `eps` in a norm.

    Args:
        norm: "linf" (largest change of any pixel) or "l2" (Euclidean length over all pixels and channels).
        eps: radius, for pixels in [0, 1]; 8/255 in "linf" moves no pixel by more than 8 of 255 grey levels.

    Raises:
        ValueError: the norm is unknown or eps is negative.

    Reference: Madry et al. 2018, section 2.1.
    """

    norm: Literal["linf", "l2"]
    eps: float

    def __post_init__(self):
        if self.norm not in ("linf", "l2"):
            raise ValueError(f"norm must be 'linf' or 'l2', got {self.norm!r}")
        if not self.eps >= 0:
            raise ValueError(f"eps must not be negative, got {self.eps!r} (pixels lie in [0, 1]: 8/255, not 8)")

    def rms(self, dimensions: int) -> float:
        """The largest root mean square change per pixel that the ball allows, for images of so many entries."""
        return self.eps if self.norm == "linf" else self.eps / dimensions**0.5

    def project(self, delta: torch.Tensor) -> torch.Tensor:
        """Bring each perturbation to the nearest point of the ball. Shape: (N, ...) -> the same."""
        if self.norm == "linf":
            return delta.clamp(-self.eps, self.eps)
        return delta * (self.eps / l2_norm(delta).clamp_min(1e-12)).clamp(max=1)

    def random_start(self, x: torch.Tensor, generator: torch.Generator | None = None) -> torch.Tensor:
        """Draw a perturbation for each image evenly from the ball. Shape: that of x."""
        if self.norm == "linf":
            return (2 * torch.rand(x.shape, generator=generator, device=x.device) - 1).to(x.dtype) * self.eps
        direction = torch.randn(x.shape, generator=generator, device=x.device).to(x.dtype)
        share = torch.rand(len(x), generator=generator, device=x.device).to(x.dtype) ** (1 / x[0].numel())
        return direction / l2_norm(direction) * _per_image(share, x) * self.eps

    def ascend(self, grad: torch.Tensor, step_size: float) -> torch.Tensor:
        """The step of length `step_size` that raises a linear loss most. Shape: that of grad."""
        if self.norm == "linf":
            return step_size * grad.sign()
        return step_size * grad / l2_norm(grad).clamp_min(1e-12)
