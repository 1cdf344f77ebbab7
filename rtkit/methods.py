"""The methods as values: how source networks are trained, and how a network is carried over to a target."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from rtkit.adversaries import Adversary
from rtkit.limits import must_be_one_of
from rtkit.objectives import Term
from rtkit.threat import ThreatModel
from rtkit.training import Phase


@dataclass(frozen=True)
class Method:
    """One row of the table in docs/methods.md: where the weights start, then phase after phase.

    Args:
        hidden: sizes of the new head's hidden layers; none for a linear head.
    """

    init: Literal["source", "random"]
    phases: tuple[Phase, ...]
    hidden: tuple[int, ...] = ()


def source(kind: str, source_eps: float, steps: int, lr: float) -> tuple[Phase, ...]:
    """How a source network is trained from random weights.

    Args:
        kind: "standard"; "noise" (uniform noise of radius source_eps, a control); "robust" (N-FGSM, de Jorge et al.
            2022); "pgd" (adversarial training, Madry et al. 2018); "pgd_l2" (the same within an l2 ball); "untrained"
            (a control: no phase at all).
        source_eps: radius in the l-infinity norm (of "pgd_l2": in l2), for pixels in [0, 1].
        steps: SGD steps; lr: peak learning rate.

    Raises:
        ValueError: no source is trained in that way.
    """
    names = {"standard": None, "untrained": None, "noise": "noise", "robust": "n_fgsm", "pgd": "pgd", "pgd_l2": "pgd"}
    must_be_one_of(names, source=kind)
    threat = ThreatModel("l2" if kind == "pgd_l2" else "linf", source_eps)
    adversary = Adversary(names[kind], threat) if names[kind] else None
    return () if kind == "untrained" else (Phase(steps=steps, lr=lr, adversary=adversary),)


def transfer(protocol: str, *, blocks: Sequence[int] = (2, 2, 2), **budget) -> Method:
    """How a network is carried over to a target (Salman et al. 2020, section 2; Utrera et al. 2021, section 3).

    Frozen parts keep their weights while their BatchNorm statistics follow the target, as in both papers' code.

    Args:
        protocol: "fixed_feature" (a new head alone learns), "last_block", "last_stage", "last_two_stages" (these beside
            the head), "full_network", or "scratch" (everything, from random weights).
        blocks: residual blocks of each stage, see `models.blocks`; a ResNet-50's last stage has the three blocks of
            Utrera et al., its last two stages their nine.
        budget: steps, lr, batch_size, and if need be schedule, of the `Phase`.

    Raises:
        ValueError: the protocol is unknown.
    """
    trainable = {"fixed_feature": 0, "last_block": 1, "last_stage": blocks[-1], "last_two_stages": sum(blocks[-2:])}
    trainable |= {"full_network": None, "scratch": None}
    must_be_one_of(trainable, protocol=protocol)
    phase = Phase(trainable=trainable[protocol], **budget)
    return Method("random" if protocol == "scratch" else "source", (phase,))


def l2_sp(*, weight: float, steps: int, lr: float, batch_size: int) -> Method:
    """Fine-tuning drawn to the source's weights, in place of weight decay (Li et al. 2018, section 3)."""
    terms = (Term("weights", weight),)
    return Method("source", (Phase(steps=steps, lr=lr, batch_size=batch_size, terms=terms, weight_decay=0.0),))


def distilled(
    init: str, *, weight: float, steps: int, lr: float, batch_size: int, dropout: float = 0.0, averaged_steps: int = 0
) -> Method:
    """Training drawn to the source's stage maps.

    From the source's weights it is DELTA (Li et al. 2019, without channel weights), from random ones DELTA-R, and with
    its two kinds of noise, dropout and averaged weights, noisy feature distillation (Chin et al. 2021, section 3).

    Args:
        init: "source" or "random".
        weight: of the distance between the stage maps.
        dropout: of the student's channels, after each stage.
        averaged_steps: the last of the steps, run at a constant half of the learning rate, averaged once an epoch.
    """
    shared = {"batch_size": batch_size, "terms": (Term("stages", weight),), "dropout": dropout}
    phases = (Phase(steps=steps - averaged_steps, lr=lr, **shared),)
    if averaged_steps:
        phases += (Phase(steps=averaged_steps, lr=lr / 2, schedule="constant", averaging=1.0, **shared),)
    return Method(init, phases)


def lwf(*, weight: float, steps: int, lr: float, warmup_steps: int, warmup_lr: float | None = None, **budget) -> Method:
    """Robust transfer by learning without forgetting (Shafahi et al. 2020, section 5).

    Head alone first, then everything, while the penultimate features are held near the source's on the same images.

    Args:
        weight: of the L1 distance between the features; zero makes it fine-tuning with a warmed-up head.
        warmup_steps: the first of the steps, on the head alone; warmup_lr: their peak rate, by default lr as well.
        budget: batch_size and batchnorm, see `Phase`.
    """
    head = Phase(steps=warmup_steps, lr=warmup_lr or lr, trainable=0, **budget)
    body = Phase(steps=steps - warmup_steps, lr=lr, terms=(Term("features_l1", weight),), **budget)
    return Method("source", (head, body))


# Bases of adversarial training: the adversary's kind, the loss on labels, the distance that comes with it.
BASES = {
    "pgd_at": ("pgd", "attacked", None),
    "n_fgsm_at": ("n_fgsm", "attacked", None),
    "trades": ("divergence", "clean", "consistency"),
    "mart": ("pgd", "boosted", "weighted_consistency"),
    "rat": ("region", "attacked", None),
    "arks": ("kernel", "attacked", None),
    "wrm": ("wasserstein", "attacked", None),
}


def adversarial(
    base: str,
    eps: float,
    *,
    steps: int,
    lr: float,
    batch_size: int = 128,
    beta: float = 6.0,
    attack_steps: int = 7,
    smoothing: float = 0.0,
    teach: tuple[Term, ...] = (),
) -> Method:
    """Adversarial training from random weights, with or without a teacher.

    Args:
        base: "pgd_at" (Madry et al. 2018), "n_fgsm_at" (de Jorge et al. 2022), "trades" (Zhang et al. 2019), "mart"
            (Wang et al. 2020), "rat" (Song et al. 2021), "arks" (Zhu et al. 2022) or "wrm" (Sinha et al. 2018).
        eps: l-infinity radius; for "arks" and "wrm" the kernel's width, an l2 length.
        beta: weight of the distance between the decisions on x and x', where the base has one.
        attack_steps: gradient steps of the adversary.
        smoothing: see `Adversary`.
        teach: distances to the teacher; VFD-Adv (Cao et al. 2022) draws the features on x and on x' to those of a
            vanilla teacher on x.

    Raises:
        ValueError: no base has that name.
    """
    must_be_one_of(BASES, base=base)
    kind, loss, distance = BASES[base]
    threat = ThreatModel("l2" if base in ("arks", "wrm") else "linf", eps)
    adversary = Adversary(kind, threat, steps=attack_steps, smoothing=smoothing)
    terms = ((Term(distance, beta),) if distance else ()) + teach
    phase = Phase(steps=steps, lr=lr, batch_size=batch_size, adversary=adversary, loss=loss, terms=terms)
    return Method("random", (phase,))
