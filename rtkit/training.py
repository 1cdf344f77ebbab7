"""The one training loop. A method is a tuple of phases; a phase says what is trained, on what, and how."""

from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Literal

import torch
from torch.nn.modules.batchnorm import _BatchNorm
from torch.optim.lr_scheduler import ConstantLR, MultiStepLR, OneCycleLR
from torch.optim.swa_utils import AveragedModel, update_bn

from rtkit import attacks, compute, objectives
from rtkit.adversaries import Adversary, Attacked
from rtkit.data.glyphs import Images
from rtkit.limits import must_be_one_of, must_lie
from rtkit.models import Network, set_trainable
from rtkit.objectives import Term
from rtkit.threat import ThreatModel


@dataclass(frozen=True)
class Phase:
    """One stretch of training.

    Args:
        steps: number of SGD steps.
        lr: peak learning rate.
        schedule: "one_cycle" (Smith & Topin 2019); "step" (the peak first, a tenth of it after a third of the steps, a
            hundredth after two thirds, as Utrera et al. 2021); or "constant".
        batch_size: images a step, at most as many as there are.
        trainable: how many of the last residual blocks learn beside the head; None trains everything.
        batchnorm: "adapt" lets all normalisation layers follow the target's statistics, as both transfer papers do;
            "frozen" keeps all in eval mode, those of parts that learn among them, as Shafahi et al. 2020.
        adversary: what replaces x by x'; None trains on x.
        loss: what the loss on labels looks at: "attacked" images (with the adversary's weights and targets), "clean"
            ones, or attacked ones by the "boosted" cross-entropy of MART.
        terms: distances added to it, most of them to a reference network.
        dropout: probability with which the student's channels are set to zero after each stage.
        averaging: share of the phase, at its end, over which weights are averaged once an epoch (Izmailov et al. 2018).
    """

    steps: int
    lr: float
    batch_size: int = 128
    trainable: int | None = None
    batchnorm: Literal["adapt", "frozen"] = "adapt"
    adversary: Adversary | None = None
    loss: Literal["attacked", "clean", "boosted"] = "attacked"
    terms: tuple[Term, ...] = ()
    dropout: float = 0.0
    schedule: Literal["one_cycle", "step", "constant"] = "one_cycle"
    averaging: float = 0.0
    momentum: float = 0.9
    weight_decay: float = 5e-4

    def __post_init__(self):
        must_lie("[1, inf)", whole=True, steps=self.steps, batch_size=self.batch_size)
        must_lie("[0, inf)", whole=True, trainable=0 if self.trainable is None else self.trainable)
        must_lie("(0, inf)", lr=self.lr)
        must_lie("[0, inf)", weight_decay=self.weight_decay)
        must_lie("(0, 1)", momentum=self.momentum)  # Nesterov's has none at 0
        must_lie("[0, 1)", dropout=self.dropout)
        must_lie("[0, 1]", averaging=self.averaging)
        must_be_one_of(("adapt", "frozen"), batchnorm=self.batchnorm)
        must_be_one_of(("attacked", "clean", "boosted"), loss=self.loss)
        must_be_one_of(("one_cycle", "step", "constant"), schedule=self.schedule)
        if self.averaging and self.batchnorm == "frozen":
            raise ValueError("averaging estimates BatchNorm statistics anew, which frozen layers keep: use 'adapt'")


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


def _train_mode(net: Network, phase: Phase) -> None:
    net.train()
    for part in net.modules():
        if isinstance(part, _BatchNorm):
            part.train(phase.batchnorm == "adapt")


def train(
    net: Network,
    images: Images,
    phases: tuple[Phase, ...],
    seed: int,
    *,
    reference: Network | None = None,
    held_out: Images | None = None,
    augment: Callable[[torch.Tensor, torch.Generator], torch.Tensor] | None = None,
    measure: Callable[[Network], float] | None = None,
    measure_at: tuple[int, ...] = (),
) -> History:
    """Train a network in place, phase after phase.

    Args:
        seed: decides the order of the images, the adversary's randomness and dropout.
        reference: the network that the phases' terms compare with; it is left as it is.
        held_out: images for the collapse watch; 64 of them are attacked once an epoch of adversarial training.
        augment: (uint8 images of a batch, generator) -> the same, changed at random.
        measure: called on the network, in eval mode, after each step (counted over all phases) in `measure_at`.

    Raises:
        ValueError: there are no images, or batches of one; or a term compares with a reference network, without one.
        FloatingPointError: a loss was not finite; names the epoch and the step.
    """
    if not len(images):
        raise ValueError("there are no images to train on; ask for one or more of each class")
    needs = set().union(*(term.needs for phase in phases for term in phase.terms if term.weight))
    if reference is None and needs & {"reference", "weights"}:
        raise ValueError("a term compares with a reference network: pass reference=")
    for phase in phases:
        if min(phase.batch_size, len(images)) == 1 and phase.batchnorm == "adapt":
            raise ValueError(f"BatchNorm needs two images a batch, got {len(images)} in batches of {phase.batch_size}")
    where = compute.device()
    net.to(where)
    if reference is not None:
        reference.to(where).eval()
    generator, history = torch.Generator(device=where).manual_seed(seed), History()
    x, y = images.x.to(where), images.y.to(where)
    for number, phase in enumerate(phases):
        # Dropout knows only the global generators: they are lent a seed of the phase, and left as they were.
        with torch.random.fork_rng([where] if where.type == "cuda" else [], enabled=phase.dropout > 0):
            if phase.dropout:
                torch.manual_seed(seed + 10**6 * number)
            _train_phase(phase, net, reference, x, y, generator, history, held_out, augment, measure, measure_at)
    net.requires_grad_(True)
    net.eval()
    return history


def _train_phase(phase, net, reference, x, y, generator, history, held_out, augment, measure, measure_at) -> None:
    """One phase of `train`, whose arguments the others are; adds to the history."""
    set_trainable(net, phase.trainable)
    _train_mode(net, phase)
    net.dropout = phase.dropout
    batch = min(phase.batch_size, len(y))
    epoch = len(y) // batch  # steps
    learn = [parameter for parameter in net.parameters() if parameter.requires_grad]
    options = {"momentum": phase.momentum, "weight_decay": phase.weight_decay, "nesterov": True}
    optimiser = torch.optim.SGD(learn, phase.lr, fused=x.is_cuda, **options)
    if phase.schedule == "constant":
        schedule = ConstantLR(optimiser, factor=1.0)
    elif phase.schedule == "step":
        schedule = MultiStepLR(optimiser, [max(1, phase.steps * part // 3) for part in (1, 2)])
    else:
        total = max(phase.steps, 3)  # below three steps the rise would have no length
        schedule = OneCycleLR(optimiser, phase.lr, total_steps=total, pct_start=0.3, cycle_momentum=False)
    average = AveragedModel(net, use_buffers=False) if phase.averaging else None
    losses = torch.zeros(phase.steps, device=x.device)  # stays on the device: no step waits for the host
    done = len(history.loss)
    for step in range(phase.steps):
        if step % epoch == 0:
            order = torch.randperm(len(y), generator=generator, device=x.device)
        index = order[(step % epoch) * batch : (step % epoch + 1) * batch]
        drawn = augment(x[index], generator) if augment else x[index]
        clean, labels = compute.to_pixels(drawn), y[index]
        with compute.autocast():
            attacked = Attacked(clean)
            if phase.adversary:
                attacked = phase.adversary(net, clean, labels, step / phase.steps, generator)
            seen = objectives.views(net, reference, phase.loss, phase.terms, clean, attacked, labels)
        loss = objectives.total(phase.loss, phase.terms, seen, attacked)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        schedule.step()
        losses[step] = loss.detach()
        history.gradients += batch * (seen.passes + (phase.adversary.gradients if phase.adversary else 0))
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
            _train_mode(net, phase)
    history.loss += losses.tolist()
    net.dropout = 0.0
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
    """Put averaged weights into the network and estimate their BatchNorm statistics on the training images.

    Every batch counts the same, so none may be short: what does not fill one is spread over the others.
    """
    net.load_state_dict(average.module.state_dict())
    with compute.autocast():
        update_bn((compute.to_pixels(part) for part in x.tensor_split(len(x) // batch)), net)
