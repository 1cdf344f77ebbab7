"""Attacks on features: made on a public network alone, without labels, without the student that is to be fooled."""

from collections.abc import Sequence
from functools import partial

import torch

from rtkit import attacks, compute
from rtkit.models import IMAGENET, Network
from rtkit.threat import ThreatModel

# Chin et al. take 0.1 in inputs divided by ImageNet's standard deviations, 0.229, 0.224 and 0.225.
THREAT = ThreatModel("linf", 0.1 * (0.229 + 0.224 + 0.225) / 3)  # 5.76/255 in pixels
STEPS = 40  # of eps / 10 each


def neuron(features: torch.Tensor, clean: torch.Tensor, unit: int, goal: float = 1000.0) -> torch.Tensor:
    """Raise one feature towards the goal and hold the others down, whatever they were on the clean image.

    Shape:
        features (N, D), clean (N, D) -> (N,).

    Reference: the code of Chin et al. 2021, where the unit is the first one; after Rezaei & Liu 2020.
    """
    rest = features.square().sum(1) - features[:, unit].square()
    return -(features[:, unit] - goal).square() - 0.1 * rest / (features.shape[1] - 1)


def displacement(found: torch.Tensor, clean: torch.Tensor) -> torch.Tensor:
    """Squared distance to where the clean image was. Shape: (N, D), (N, D) -> (N,)."""
    return (found - clean).square().sum(1)


def stage_maps(net: Network, x: torch.Tensor) -> torch.Tensor:
    """All stage maps as one vector whose squared length is the mean within each stage, summed. Shape: -> (N, D)."""
    return torch.cat([part.float().flatten(1) / part[0].numel() ** 0.5 for part in net.stages(x)], 1)


def attacked(
    net: Network,
    x: torch.Tensor,
    units: Sequence[int],
    threat: ThreatModel = THREAT,
    *,
    steps: int = STEPS,
    forms: Sequence[str] = ("neuron", "features", "stages"),
    generator: torch.Generator | None = None,
) -> dict[str, torch.Tensor]:
    """Attack images on a network's features; the result by form: "neuron J" for every unit, "features", "stages".

    Neuron attacks return the last point, as the paper's code does, displacements the farthest. No label is used.

    Args:
        units: of the pooled features, to be raised one at a time.
        steps: of 4 eps / steps, so that forty of them are the paper's eps / 10.

    Shape:
        x (N, 3, H, W) in [0, 1] -> each the same, in [0, 1] and within eps of x.
    """
    maps = partial(stage_maps, net)
    todo = {f"neuron {unit}": (net.features, partial(neuron, unit=unit), False) for unit in units}
    todo |= {"features": (net.features, displacement, True), "stages": (maps, displacement, True)}
    todo = {name: what for name, what in todo.items() if name.split()[0] in forms}
    options = {"steps": steps, "step_size": 4 * threat.eps / steps, "generator": generator}
    out = {}
    with attacks.frozen(net), compute.autocast():
        for name, (model, loss, farthest) in todo.items():
            with torch.no_grad():
                clean = model(x)
            out[name] = attacks.pgd(model, x, clean, threat, loss=loss, keep_best=farthest, **options)
    return out


def noise(x: torch.Tensor, threat: ThreatModel, draws: int, generator: torch.Generator) -> list[torch.Tensor]:
    """The control: at each pixel eps up or down at random, clipped to [0, 1], as often as there are attacks."""
    signs = (torch.randint(2, x.shape, generator=generator, device=x.device) * 2 - 1 for _ in range(draws))
    return [(x + threat.eps * sign).clamp(0, 1) for sign in signs]


def fooled(decided: torch.Tensor, y: torch.Tensor, attacked: torch.Tensor) -> tuple[int, int]:
    """Count the images that are right as they are, and those of them that any attacked copy gets wrong.

    Their ratio is the attack's success rate (Chin et al. 2021).

    Shape:
        decided (N,), y (N,), attacked (A, N): the decisions on A attacked copies -> (fooled, right).
    """
    right = decided == y
    return int(((attacked != y).any(0) & right).sum()), int(right.sum())


def clip_as_the_paper(x: torch.Tensor, limit: float = 2.2) -> torch.Tensor:
    """What the code of Chin et al. does to an image at eps = 0: clip it at 2.2 once normalised, in all channels.

    ImageNet's statistics put white at 2.25, 2.43 and 2.64, so bright pixels change by up to 0.1, more than four eps.

    Shape:
        x (N, 3, H, W) in [0, 1] -> the same.
    """
    mean, std = (torch.tensor(IMAGENET[name], device=x.device).view(1, 3, 1, 1) for name in ("mean", "std"))
    return ((x - mean) / std).clamp(-limit, limit) * std + mean


def similarity(one: torch.Tensor, other: torch.Tensor) -> float:
    """Linear centred kernel alignment of two networks' features on the same images, 0 to 1. Kornblith et al. 2019.

    Turning or scaling either features changes nothing; features that do not vary give not a number.

    Shape:
        (N, D), (N, E).
    """
    one, other = (part.double() - part.double().mean(0) for part in (one, other))
    shared = (one.T @ other).square().sum()
    return float(shared / ((one.T @ one).norm() * (other.T @ other).norm()))
