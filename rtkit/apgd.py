"""Auto-PGD: an attack that chooses its own step sizes, and the losses that make an evaluation hard to fool."""

import torch
from torch import nn

from rtkit.attacks import Loss, check, cross_entropy, frozen, gradient, pick
from rtkit.limits import must_lie
from rtkit.threat import ThreatModel, per_image

MOMENTUM, RHO = 0.75, 0.75  # as the paper sets them


def targeted_dlr(target: torch.Tensor) -> Loss:
    """The targeted difference-of-logits-ratio loss: (z_t - z_y) / (z_1st - (z_3rd + z_4th) / 2), sorted logits.

    It is positive where the target beats the label. Shifting and scaling the logits leave it as it is, so that no
    rescaling can make its gradients vanish.

    Args:
        target: the class that each image shall be taken for.

    Shape:
        target (N,); the loss maps (N, K), (N,) -> (N,), K at least 4.

    Reference: Croce & Hein 2020, section 4.2.
    """

    def loss(logits: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        logits = logits.float()
        first, _, third, fourth = logits.topk(4).values.unbind(1)
        wanted, right = (logits.gather(1, k[:, None])[:, 0] for k in (target, y))  # (N,)
        spread = first - (third + fourth) / 2
        return (wanted - right) / torch.where(spread > 0, spread, 1)

    return loss


def checkpoints(steps: int) -> list[int]:
    """The steps after which APGD reviews its step sizes, at shrinking distances. Croce & Hein 2020, section 3.1."""
    distance, least, shrink = max(int(0.22 * steps), 1), max(int(0.06 * steps), 1), max(int(0.03 * steps), 1)
    out, at = [], distance
    while at <= steps:
        out.append(at)
        distance = max(distance - shrink, least)
        at += distance
    return out


def apgd(
    model: nn.Module,
    x: torch.Tensor,
    y: torch.Tensor,
    threat: ThreatModel,
    *,
    steps: int = 100,
    loss: Loss = cross_entropy,
    generator: torch.Generator | None = None,
) -> torch.Tensor:
    """Auto-PGD: projected gradient ascent with momentum that halves an image's step size where progress stalls.

    Each image starts with a step of 2 eps. At each checkpoint the step is halved, and the search goes back to the best
    point so far, where fewer than three quarters of the steps raised the loss or where neither step size nor best loss
    has changed since the checkpoint before.

    Args:
        loss: (logits, y) -> (N,); the attack raises it.

    Returns:
        For each image a misclassified point if one was met, the one of highest loss among several; else the point of
        highest loss.

    Shape:
        x (N, C, H, W) in [0, 1], y (N,) -> (N, C, H, W) in [0, 1], within eps of x.

    Raises:
        ValueError: fewer than one step; see also `attacks.check`.

    Reference: Croce & Hein 2020, section 3, algorithm 1.
    """
    must_lie("[1, inf)", whole=True, steps=steps)
    check(x, threat)

    def inside(point: torch.Tensor) -> torch.Tensor:
        return (x + threat.project(point - x)).clamp(0, 1)

    def look(point: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        wrong = torch.empty(len(x), dtype=torch.bool, device=x.device)

        def judged(logits, y):
            wrong.copy_(logits.detach().argmax(1) != y)
            return loss(logits, y)

        return *gradient(model, point, y, judged), wrong

    x = x.detach()
    reviews = checkpoints(steps)
    with frozen(model):
        point = previous = (x + threat.random_start(x, generator)).clamp(0, 1)
        value, grad, fooled = look(point)
        found, found_value = point, value  # what is returned
        best, best_value, best_grad = point, value, grad  # where the search goes back to
        size = torch.full((len(x),), 2 * threat.eps, device=x.device)
        raised = torch.zeros(len(x), device=x.device)  # steps that raised the loss since the last review
        last_best, last_halved, last_review = value, torch.zeros_like(fooled), 0
        for step in range(1, steps + 1):
            plain = inside(point + threat.ascend(grad, per_image(size, x)))
            share = MOMENTUM if step > 1 else 1.0
            ahead = inside(point + share * (plain - point) + (1 - share) * (point - previous))
            point, previous, before = ahead, point, value
            value, grad, wrong = look(point)
            raised += value > before
            better = (wrong & ~fooled) | ((wrong == fooled) & (value > found_value))
            found, found_value = pick(better, point, found), pick(better, value, found_value)
            fooled = fooled | wrong
            better = value > best_value
            best, best_grad = pick(better, point, best), pick(better, grad, best_grad)
            best_value = pick(better, value, best_value)
            if step in reviews:
                stalled = ~last_halved & (best_value <= last_best)
                halved = (raised < RHO * (step - last_review)) | stalled
                size = pick(halved, size / 2, size)
                point, grad = pick(halved, best, point), pick(halved, best_grad, grad)
                value = pick(halved, best_value, value)
                last_best, last_halved, last_review, raised = best_value, halved, step, torch.zeros_like(raised)
    return found.detach()
