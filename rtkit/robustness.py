"""How well a network does under attack, and whether the number can be believed."""

from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from functools import partial

import torch
from torch import Generator, Tensor

from rtkit import apgd, attacks, compute
from rtkit.data.glyphs import Images
from rtkit.evaluation import batches, logits
from rtkit.models import Network
from rtkit.threat import ThreatModel

VANISHING = 0.05  # share of vanishing gradients above which a result carries a warning
# (network, x, y, threat, generator) -> attacked x, all as in `attacks.pgd`.
Attack = Callable[..., Tensor]


def _transferred(net, x, y, threat, *, surrogate: Network, **options) -> Tensor:
    """Attack another network; what fools it may fool this one too, whatever this one's gradients hide."""
    return attacks.pgd(surrogate, x, y, threat, loss=attacks.margin, **options)


def _targeted(net, x, y, threat, *, rank: int, **options) -> Tensor:
    """Auto-PGD towards the class that the clean image resembles most but for `rank` others and the label itself."""
    order = logits(net, x).scatter(1, y[:, None], -torch.inf).argsort(1, descending=True)
    return apgd.apgd(net, x, y, threat, loss=apgd.targeted_dlr(order[:, rank]), **options)


def battery(
    classes: int, *, steps: int, strong: bool = False, surrogates: Sequence[Network] = (), apgd_steps: int = 100
) -> dict[str, Attack]:
    """The attacks of an evaluation by name, in the order in which they are tried.

    Args:
        classes: number of classes; below four the targeted ratio of logits does not exist and the margin stands in.
        steps: PGD steps, on the cross-entropy and on the margin.
        strong: add Auto-PGD on the cross-entropy and, towards up to nine classes, on the targeted ratio of logits: the
            white-box part of AutoAttack (Croce & Hein 2020, section 5).
        surrogates: networks with the same classes, whose adversarial images are tried as well.
        apgd_steps: steps of each Auto-PGD.
    """
    out = {
        "PGD on the cross-entropy": partial(attacks.pgd, steps=steps, loss=attacks.cross_entropy),
        "PGD on the margin": partial(attacks.pgd, steps=steps, loss=attacks.margin),
    }
    for k, surrogate in enumerate(surrogates, 1):
        out[f"transferred from network {k}"] = partial(_transferred, surrogate=surrogate, steps=steps)
    if strong:
        out["APGD on the cross-entropy"] = partial(apgd.apgd, steps=apgd_steps)
        if classes < 4:
            out["APGD on the margin"] = partial(apgd.apgd, loss=attacks.margin, steps=apgd_steps)
        else:
            for rank in range(min(9, classes - 1)):
                name = f"APGD towards class {rank + 1} in rank"
                out[name] = partial(_targeted, rank=rank, steps=apgd_steps)
    return out


@dataclass(frozen=True)
class Robustness:
    """The result of an evaluation under attack, with what is needed to doubt it.

    `clean` and `robust` are shares of all images; `after` has the share still correct after each attack, in their
    order; `constant` is the score of always answering the commonest class; `zero_gradients` the share of images where
    an attack stands still, for want of a gradient of the cross-entropy or of the margin; `large_eps` the accuracy under
    eps = 0.5 (linf), which any working attack brings near zero. `warnings` says in words what is wrong; a verdict needs
    it empty.
    """

    clean: float
    robust: float
    after: dict[str, float]
    constant: float
    zero_gradients: float
    large_eps: float
    n_test: int
    warnings: tuple[str, ...]


def _broken(net, attack: Attack, x, y, threat: ThreatModel, generator, reduced: bool):
    """Attack once; tell which images it breaks in float32, and which only seemed broken in reduced precision."""
    with compute.autocast() if reduced else nullcontext():
        attacked = attack(net, x, y, threat, generator=generator)
        claimed = logits(net, attacked).argmax(1) != y
    broken = logits(net, attacked).argmax(1) != y
    return broken, claimed & ~broken


def worst_case(
    net: Network, x: Tensor, y: Tensor, threat: ThreatModel, tried: Sequence[Attack], generator: Generator
) -> Tensor:
    """Tell after each attack which images are still correct: an image counts as robust if it survives them all.

    Each attack sees only the images that survived the ones before. Attacks may run in bfloat16, decisions are made in
    float32, and an image that only rounding had broken is attacked once more in float32.

    Shape:
        x (N, C, H, W) in [0, 1], y (N,) -> (1 + tried, N) bool; the first row is the clean decision.
    """
    robust = logits(net, x).argmax(1) == y
    rows = [robust.clone()]
    for attack in tried:
        left = robust.nonzero()[:, 0]
        if len(left):
            broken, reverted = _broken(net, attack, x[left], y[left], threat, generator, compute.bf16())
            if reverted.any():
                again = left[reverted]
                broken[reverted], _ = _broken(net, attack, x[again], y[again], threat, generator, False)
            robust[left[broken]] = False
        rows.append(robust.clone())
    return torch.stack(rows)


def _vanishing(net: Network, x: Tensor, y: Tensor, threat: ThreatModel) -> Tensor:
    """Tell on which images a step up one of the losses leads nowhere near as far as it should. (N,) bool.

    So it is where there is no gradient, or none that is finite, as behind rounding or a saturated softmax.
    """
    with attacks.frozen(net):
        grads = [attacks.gradient(net, x, y, loss)[1] for loss in (attacks.cross_entropy, attacks.margin)]
    return ~torch.stack([threat.size(threat.ascend(grad, 1.0)) > 0.5 for grad in grads]).all(0)


def robustness(
    net: Network,
    images: Images,
    threat: ThreatModel,
    *,
    steps: int = 20,
    strong: bool = False,
    surrogates: Sequence[Network] = (),
    seed: int = 0,
) -> Robustness:
    """Measure clean accuracy and per-image worst-case robust accuracy, with self-checks.

    Args:
        steps, strong, surrogates: see `battery`; PGD starts once, at random, with step size 2.5 eps / steps.

    Raises:
        ValueError: there are no images.
    """
    if not len(images):
        raise ValueError("cannot evaluate on no images")
    tried = battery(len(images.classes), steps=steps, strong=strong, surrogates=surrogates)
    generator = Generator(device=compute.device()).manual_seed(seed)
    survived, vanished, large, probabilities = [], [], [], []
    for x, y in batches(images):
        out = logits(net, x)
        probabilities.append(bool((out >= 0).all() and torch.allclose(out.sum(1), torch.ones_like(y, dtype=out.dtype))))
        survived.append(worst_case(net, x, y, threat, list(tried.values()), generator))
        vanished.append(_vanishing(net, x, y, threat))
        far = attacks.pgd(net, x[:64], y[:64], ThreatModel("linf", 0.5), steps=steps, generator=generator)
        large.append(float((logits(net, far).argmax(1) == y[:64]).float().mean()) * len(y))
    clean, *after = torch.cat(survived, 1).float().mean(1).tolist()
    constant, still = float(images.y.bincount().max() / len(images)), sum(large) / len(images)
    zero = float(torch.cat(vanished).float().mean())
    doubts = {
        "the network returns probabilities; attacks need logits": all(probabilities),
        f"{zero:.0%} of the gradients vanish: some of the attacks stand still there": zero > VANISHING,
        f"accuracy is still {still:.0%} at eps = 0.5: the attacks do not work here": still > max(0.1, constant),
    }
    warnings = tuple(text for text, holds in doubts.items() if holds)
    passed = dict(zip(tried, after, strict=True))
    return Robustness(clean, after[-1], passed, constant, zero, still, len(images), warnings)
