"""The methods as values: how source networks are trained, and how a network is carried over to a target."""

from dataclasses import dataclass
from typing import Literal

from rtkit.threat import ThreatModel
from rtkit.training import Adversary, Phase


@dataclass(frozen=True)
class Method:
    """One row of the README's table: where the weights start, then phase after phase."""

    init: Literal["source", "random"]
    phases: tuple[Phase, ...]


def source(kind: str, source_eps: float, steps: int, lr: float) -> tuple[Phase, ...]:
    """How a source network is trained from random weights.

    Args:
        kind: "standard"; "noise" (uniform noise of radius source_eps, a control); "robust" (N-FGSM, de Jorge et al.
            2022); "pgd" (adversarial training, Madry et al. 2018); "untrained" (a control: no phase at all).
        source_eps: radius in the l-infinity norm, for pixels in [0, 1].
        steps: SGD steps; lr: peak learning rate.

    Raises:
        ValueError: no source is trained in that way.
    """
    names = {"standard": None, "untrained": None, "noise": "noise", "robust": "n_fgsm", "pgd": "pgd"}
    if kind not in names:
        raise ValueError(f"no source is called {kind!r}; there are {', '.join(names)}")
    adversary = Adversary(names[kind], ThreatModel("linf", source_eps)) if names[kind] else None
    return () if kind == "untrained" else (Phase(steps=steps, lr=lr, adversary=adversary),)


# How much of a network each protocol trains: the number of last residual blocks, None for all of them. Frozen parts
# keep their weights while their BatchNorm statistics follow the target, as in both papers' code.
PROTOCOLS = {
    "fixed_feature": ("source", 0),
    "last_block": ("source", 1),
    "last_stage": ("source", 2),  # the three blocks of a ResNet-50's last stage in Utrera et al.
    "last_two_stages": ("source", 4),  # their nine blocks
    "full_network": ("source", None),
    "scratch": ("random", None),
}


def transfer(protocol: str, *, steps: int, lr: float, batch_size: int) -> Method:
    """How a network is carried over to a target (Salman et al. 2020, section 2; Utrera et al. 2021, section 3).

    Raises:
        ValueError: the protocol is unknown.
    """
    if protocol not in PROTOCOLS:
        raise ValueError(f"no protocol is called {protocol!r}; there are probe, {', '.join(PROTOCOLS)}")
    init, trainable = PROTOCOLS[protocol]
    return Method(init, (Phase(steps=steps, lr=lr, batch_size=batch_size, trainable=trainable),))
