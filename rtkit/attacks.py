"""Attacks: how to find, within a threat model, the image that a network gets most wrong."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from inspect import getclosurevars
from types import FunctionType, MethodType

import torch
import torch.nn.functional as F
from torch import Generator, Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from rtkit.limits import must_lie
from rtkit.threat import ThreatModel, per_image

Loss = Callable[[Tensor, Tensor], Tensor]


def cross_entropy(logits: Tensor, y: Tensor) -> Tensor:
    """Cross-entropy of each image, in nats. Shape: (N, K), (N,) -> (N,)."""
    return F.cross_entropy(logits.float(), y, reduction="none")


def margin(logits: Tensor, y: Tensor) -> Tensor:
    """Best wrong logit minus the right one: positive where the image is misclassified. Shape: (N, K), (N,) -> (N,).

    Unlike the cross-entropy it does not flatten out where a network is very sure (Carlini & Wagner 2017, section VI).
    """
    logits = logits.float()
    right = logits.gather(1, y[:, None])[:, 0]  # (N,)
    wrong = logits.scatter(1, y[:, None], -torch.inf).amax(1)  # (N,)
    return wrong - right


def networks(model: Callable) -> list[nn.Module]:
    """The networks behind a callable: itself, that of a bound method, and what a partial, object or function holds."""
    found, left, seen = [], [model], set()
    while left:
        one = left.pop()
        if isinstance(one, nn.Module):
            found.append(one)
        elif callable(one) and not isinstance(one, type) and id(one) not in seen:
            seen.add(id(one))
            if isinstance(one, partial):
                left += [one.func, *one.args, *one.keywords.values()]
            elif isinstance(one, FunctionType):
                known = getclosurevars(one)
                left += [*known.nonlocals.values(), *known.globals.values()]
            else:
                owner = one.__self__ if isinstance(one, MethodType) else one
                left += [owner, *getattr(owner, "__dict__", {}).values()]
    return found


@contextmanager
def frozen(model: Callable, *, batch_statistics: bool = False) -> Iterator[None]:
    """Lend a network to an attack: parameters take no gradient, running statistics stay bit-identical, modes return.

    Args:
        model: a network, or a callable that leads to some (see `networks`): all of them are lent.
        batch_statistics: BatchNorm normalises by the batch it sees, as in training, instead of by its running
            statistics. For attacks inside a training step, where the running statistics lag behind.
    """
    nets = networks(model)
    modules = [module for net in nets for module in net.modules()]
    lent = [*modules, *(parameter for net in nets for parameter in net.parameters())]
    names = ("training", "track_running_stats", "requires_grad")
    before = [(one, name, getattr(one, name)) for one in lent for name in names if hasattr(one, name)]
    for net in nets:
        net.eval().requires_grad_(False)
    for module in modules:
        if batch_statistics and isinstance(module, _BatchNorm):
            # In this combination torch uses the batch and leaves the buffers alone.
            module.training, module.track_running_stats = True, False
    try:
        yield
    finally:
        for one, name, value in before:
            setattr(one, name, value)


def check(x: Tensor, threat: ThreatModel) -> None:
    """Refuse pixels outside [0, 1], and an l2 ball that reaches beyond every corner of them.

    Raises:
        ValueError: either of them; the message says what was found.
    """
    if x.numel() and not 0 <= float(x.amin()) <= float(x.amax()) <= 1:
        raise ValueError(f"pixels must lie in [0, 1], got [{float(x.amin()):.3g}, {float(x.amax()):.3g}]")
    far = x.shape[1:].numel() ** 0.5
    if threat.norm == "l2" and threat.eps > far:
        raise ValueError(
            f"eps must be at most {far:.3g} in l2, from corner to corner of such images, got {threat.eps!r} "
            "(pixels lie in [0, 1]: 8/255, not 8)"
        )


def gradient(model: nn.Module, x: Tensor, y: Tensor, loss: Loss) -> tuple[Tensor, Tensor]:
    """Each image's loss and its gradient with respect to that image. Shape: (N, ...), (N,) -> (N,), (N, ...)."""
    x = x.detach().requires_grad_(True)
    with torch.enable_grad():
        value = loss(model(x), y)
        # The sum keeps every image's gradient its own; a mean would shrink it towards underflow in bfloat16.
        (grad,) = torch.autograd.grad(value.sum(), x)
    return value.detach(), grad


def pick(chosen: Tensor, one: Tensor, other: Tensor) -> Tensor:
    """Image by image one where it is chosen, else the other. Shape: (N,) bool, (N, ...), (N, ...) -> (N, ...)."""
    return torch.where(per_image(chosen, one), one, other)


def n_fgsm(
    model: nn.Module, x: Tensor, y: Tensor, threat: ThreatModel, *, generator: Generator | None = None
) -> Tensor:
    """Noisy FGSM: strong noise, then one full step, and no projection onto the ball. For training, not for testing.

    The noise is of radius 2 eps, so the result may leave the ball by as much; clipping it there is what makes plain
    FGSM training collapse. BatchNorm normalises by the batch (see `frozen`).

    Shape:
        x (N, C, H, W) in [0, 1], y (N,) -> (N, C, H, W) in [0, 1].

    Reference: de Jorge et al. 2022, section 4.
    """
    start = (x + 2.0 * threat.random_start(x, generator)).clamp(0, 1)
    with frozen(model, batch_statistics=True):
        _, grad = gradient(model, start, y, cross_entropy)
    return (start + threat.ascend(grad, threat.eps)).clamp(0, 1)


def pgd(
    model: nn.Module,
    x: Tensor,
    y: Tensor,
    threat: ThreatModel,
    *,
    steps: int = 10,
    step_size: float | None = None,
    restarts: int = 1,
    random_start: bool = True,
    keep_best: bool = True,
    loss: Loss = cross_entropy,
    generator: Generator | None = None,
    batch_statistics: bool = False,
) -> Tensor:
    """Projected gradient ascent: step uphill on the loss, return to the ball and to [0, 1], repeat.

    Args:
        step_size: length of a step in pixel values of [0, 1]; by default 2.5 eps / steps, so that the far side of the
            ball can be reached from any start.
        restarts: number of tries from fresh random starts; the worst result of each image counts.
        random_start: begin at a random point of the ball instead of at the image.
        keep_best: return, image by image, the point of the highest loss met on the way (the image itself included)
            instead of the last one. More steps can then never lower an image's loss.
        loss: (output of the model, y) -> (N,); the attack raises it. Any callable serves as the model, so a loss of
            features is attacked in the same way; the `networks` behind it are frozen meanwhile.
        generator: source of the random starts. One start is drawn per restart, so a run with more steps has the same.
        batch_statistics: see `frozen`.

    Shape:
        x (N, C, H, W) in [0, 1], y (N,) -> (N, C, H, W) in [0, 1], within eps of x.

    Raises:
        ValueError: see `check`; steps or restarts are no whole numbers from 1, or a step size is negative or infinite.

    Reference: Madry et al. 2018, section 2.1.
    """
    must_lie("[1, inf)", whole=True, steps=steps, restarts=restarts)
    step_size = 2.5 * threat.eps / steps if step_size is None else step_size
    must_lie("[0, inf)", step_size=step_size)
    if not batch_statistics:  # inside a training step the host would have to wait for the device
        check(x, threat)
    x = x.detach()
    best, best_loss = x, torch.full((len(x),), -torch.inf, device=x.device)

    @torch.no_grad()
    def remember(candidate: Tensor, value: Tensor | None = None) -> None:
        nonlocal best, best_loss
        value = loss(model(candidate), y) if value is None else value
        better = value > best_loss  # (N,)
        best, best_loss = pick(better, candidate.detach(), best), pick(better, value, best_loss)

    with frozen(model, batch_statistics=batch_statistics):
        if keep_best:
            remember(x)
        for _ in range(restarts):
            delta = threat.random_start(x, generator) if random_start else torch.zeros_like(x)
            point = (x + delta).clamp(0, 1)
            for _ in range(steps):
                value, grad = gradient(model, point, y, loss)
                if keep_best:
                    remember(point, value)
                delta = threat.project(point - x + threat.ascend(grad, step_size))
                point = (x + delta).clamp(0, 1)
            if keep_best or restarts > 1:
                remember(point)
    return best if keep_best or restarts > 1 else point.detach()
