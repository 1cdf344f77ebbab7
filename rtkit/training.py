"""The one training loop. A method is a tuple of phases; a phase says what is trained, on what, and how."""

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from itertools import pairwise
from typing import Literal

import torch
import torch.nn.functional as F
from torch.optim.lr_scheduler import OneCycleLR
from torch.optim.swa_utils import AveragedModel, update_bn

from rtkit import attacks, compute
from rtkit.data.glyphs import Images
from rtkit.models import Network, set_trainable
from rtkit.threat import ThreatModel


@dataclass(frozen=True)
class Adversary:
    """What replaces the training image x by x'.

    Args:
        kind: "noise" (evenly from the ball, a control), "n_fgsm" or "pgd" (as adversarial training, Madry et al. 2018).
        threat: the ball at full size.
        steps: PGD steps; ignored by the others.
        warmup: share of the training over which eps grows from zero. Starting at full eps can leave a small network
            at chance for good.
    """

    kind: Literal["noise", "n_fgsm", "pgd"]
    threat: ThreatModel
    steps: int = 7
    warmup: float = 0.4

    def __call__(self, net, x, y, progress: float, generator: torch.Generator) -> torch.Tensor:
        """Return x' for a batch at the given share of the training. Shape: (N, C, H, W) -> the same, in [0, 1]."""
        scale = min(1.0, progress / self.warmup) if self.warmup else 1.0
        threat = replace(self.threat, eps=scale * self.threat.eps)
        if self.kind == "noise":
            return (x + threat.random_start(x, generator)).clamp(0, 1)
        if self.kind == "n_fgsm":
            return attacks.n_fgsm(net, x, y, threat, generator=generator)
        if self.kind == "pgd":
            options = {"keep_best": False, "batch_statistics": True, "generator": generator}
            return attacks.pgd(net, x, y, threat, steps=self.steps, **options)
        raise ValueError(f"kind must be 'noise', 'n_fgsm' or 'pgd', got {self.kind!r}")

    @property
    def gradients(self) -> int:
        """Gradient evaluations that one x' costs."""
        return {"noise": 0, "n_fgsm": 1, "pgd": self.steps}[self.kind]


@dataclass(frozen=True)
class Phase:
    """One stretch of training.

    Args:
        steps: number of SGD steps.
        lr: peak learning rate of the one-cycle schedule (Smith & Topin 2019).
        batch_size: images a step, at most as many as there are.
        trainable: how many of the last residual blocks learn beside the head; None trains everything.
        batchnorm: "adapt" lets the normalisation layers of frozen parts follow the target's statistics, as both
            transfer papers do; "frozen" keeps them in eval mode.
        adversary: what replaces x by x'; None trains on x.
        averaging: share of the phase, at its end, over which weights are averaged once an epoch (Izmailov et al. 2018).
    """

    steps: int
    lr: float
    batch_size: int = 128
    trainable: int | None = None
    batchnorm: Literal["adapt", "frozen"] = "adapt"
    adversary: Adversary | None = None
    averaging: float = 0.0
    momentum: float = 0.9
    weight_decay: float = 5e-4

    def __post_init__(self):
        if self.steps < 1 or self.lr <= 0 or self.batch_size < 1:
            raise ValueError(f"steps, lr and batch_size must be positive, got {self!r}")
        if self.batchnorm not in ("adapt", "frozen"):
            raise ValueError(f"batchnorm must be 'adapt' or 'frozen', got {self.batchnorm!r}")
        if self.averaging and self.trainable is not None and self.batchnorm == "frozen":
            raise ValueError(
                "averaging estimates BatchNorm statistics anew, which frozen layers must keep: use 'adapt'"
            )


@dataclass
class History:
    """What happened during training.

    `loss` has one value a step; `watch` one PGD accuracy an epoch on held-out images, where an adversary trains;
    `measured` maps a step to what the caller measured there; `gradients` counts gradient evaluations of single images.
    """

    loss: list[float] = field(default_factory=list)
    watch: list[float] = field(default_factory=list)
    measured: dict[int, float] = field(default_factory=dict)
    gradients: int = 0

    @property
    def collapsed(self) -> bool:
        """Whether PGD accuracy fell by 20 points within an epoch (catastrophic overfitting, Wong et al. 2020)."""
        return any(before - after >= 0.2 for before, after in pairwise(self.watch))


def _train_mode(net: Network, phase: Phase, fixed) -> None:
    net.train()
    if phase.batchnorm == "frozen":
        for part in fixed:
            part.eval()


def train(
    net: Network,
    images: Images,
    phases: tuple[Phase, ...],
    seed: int,
    *,
    held_out: Images | None = None,
    measure: Callable[[Network], float] | None = None,
    measure_at: tuple[int, ...] = (),
) -> History:
    """Train a network in place, phase after phase.

    Args:
        seed: decides the order of the images and the adversary's randomness.
        held_out: images for the collapse watch; 64 of them are attacked once an epoch of adversarial training.
        measure: called on the network, in eval mode, after each step (counted over all phases) in `measure_at`.

    Raises:
        FloatingPointError: a loss was not finite; names the epoch and the step.
    """
    where = compute.device()
    generator = torch.Generator(device=where).manual_seed(seed)
    net.to(where)
    x, y = images.x.to(where), images.y.to(where)
    history = History()
    for phase in phases:
        _train_phase(net, x, y, phase, generator, history, held_out, measure, measure_at)
    net.requires_grad_(True)
    net.eval()
    return history


def _train_phase(net, x, y, phase, generator, history, held_out, measure, measure_at) -> None:
    fixed = set_trainable(net, phase.trainable)
    _train_mode(net, phase, fixed)
    batch = min(phase.batch_size, len(y))
    epoch = len(y) // batch  # steps
    learn = [parameter for parameter in net.parameters() if parameter.requires_grad]
    optimiser = torch.optim.SGD(
        learn, phase.lr, phase.momentum, weight_decay=phase.weight_decay, nesterov=True, fused=x.is_cuda
    )
    # Below three steps the schedule's rise would have no length.
    total = max(phase.steps, 3)
    schedule = OneCycleLR(optimiser, phase.lr, total_steps=total, pct_start=0.3, cycle_momentum=False)
    average = AveragedModel(net, use_buffers=False) if phase.averaging else None
    losses = torch.zeros(phase.steps, device=x.device)  # stays on the device: no step waits for the host
    done = len(history.loss)
    for step in range(phase.steps):
        if step % epoch == 0:
            order = torch.randperm(len(y), generator=generator, device=x.device)
        index = order[(step % epoch) * batch : (step % epoch + 1) * batch]
        clean, labels = compute.to_pixels(x[index]), y[index]
        with compute.autocast():
            if phase.adversary:
                clean = phase.adversary(net, clean, labels, step / phase.steps, generator)
            logits = net(clean)
        loss = F.cross_entropy(logits, labels)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        schedule.step()
        losses[step] = loss.detach()
        last_of_epoch = (step + 1) % epoch == 0 or step + 1 == phase.steps
        if average and last_of_epoch and step + 1 > (1 - phase.averaging) * phase.steps:
            average.update_parameters(net)
        if last_of_epoch and phase.adversary and phase.adversary.gradients and held_out is not None:
            history.watch.append(_watch(net, held_out, phase.adversary.threat))
        if last_of_epoch and (not x.is_cuda or step + 1 == phase.steps):
            _check_finite(losses[: step + 1], epoch)
        if measure and done + step + 1 in measure_at:
            net.eval()
            history.measured[done + step + 1] = measure(net)
            _train_mode(net, phase, fixed)
    history.loss += losses.tolist()
    history.gradients += phase.steps * batch * (1 + (phase.adversary.gradients if phase.adversary else 0))
    if average:
        _adopt(net, average, x, batch)


def _check_finite(losses: torch.Tensor, epoch: int) -> None:
    bad = (~losses.isfinite()).nonzero()
    if len(bad):
        step = int(bad[0])
        raise FloatingPointError(
            f"the loss became {float(losses[step])} in epoch {step // epoch + 1}, step {step + 1}; lower the learning "
            "rate or check the images"
        )


def _watch(net: Network, held_out: Images, threat: ThreatModel) -> float:
    x, y = compute.to_pixels(held_out.x[:64]), held_out.y[:64].to(compute.device())
    generator = torch.Generator(device=x.device).manual_seed(0)
    with compute.autocast(), torch.no_grad():
        attacked = attacks.pgd(net, x, y, threat, steps=5, keep_best=False, generator=generator)
        with attacks.frozen(net):
            return float((net(attacked).argmax(1) == y).float().mean())


def _adopt(net: Network, average: AveragedModel, x: torch.Tensor, batch: int) -> None:
    """Put averaged weights into the network and estimate their BatchNorm statistics on the training images."""
    net.load_state_dict(average.module.state_dict())
    with compute.autocast():
        update_bn((compute.to_pixels(part) for part in x.split(batch)), net)
