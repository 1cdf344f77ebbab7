"""The loss of a training step: a loss on labels, plus weighted distances to a reference."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from rtkit.adversaries import Attacked, divergence
from rtkit.limits import must_be_one_of, must_lie
from rtkit.models import Activations, Network


class Views(NamedTuple):
    """All that a step's loss may look at.

    `clean` and `attacked` are the student's activations on x and x' (None where no part of the loss needs them; the
    same object without an adversary), `reference` those of the reference network on x.
    """

    net: Network
    reference_net: Network | None
    clean: Activations | None
    attacked: Activations | None
    reference: Activations | None
    y: Tensor

    @property
    def passes(self) -> int:
        """How many images the student saw for each image of the batch: two where it saw x and another x'."""
        return len({id(one) for one in (self.clean, self.attacked) if one is not None})


def _weights(seen: Views, student: None) -> Tensor:
    reference = dict(seen.reference_net.named_parameters())
    total = torch.zeros((), device=seen.y.device)
    for name, value in seen.net.named_parameters():
        # The head is new: it has no reference but zero.
        origin = 0 if name.startswith("head.") else reference[name].detach()
        total = total + 0.5 * (value - origin).square().sum()
    return total


def _stages(seen: Views, student: Activations) -> Tensor:
    pairs = zip(student.stages, seen.reference.stages, strict=True)
    return sum((ours.float() - theirs.float()).square().mean() for ours, theirs in pairs)


def _consistency(seen: Views, student: None) -> Tensor:
    return divergence(seen.attacked.logits, seen.clean.logits.softmax(1)).mean()


def _weighted_consistency(seen: Views, student: None) -> Tensor:
    chances = seen.clean.logits.softmax(1)
    doubt = 1 - chances.gather(1, seen.y[:, None])[:, 0]  # (N,)
    return (divergence(seen.attacked.logits, chances) * doubt).mean()


class Distance(NamedTuple):
    """A distance: (views, the student's activations on the term's images) -> a number, and what it looks at.

    `needs` are activations: of the student on its term's images ("student"), on x and x' ("clean", "attacked"), of the
    "reference" on x; or the reference's "weights".
    """

    of: Callable[[Views, Activations | None], Tensor]
    needs: tuple[str, ...]


_BOTH, _OWN = ("student", "reference"), ("clean", "attacked")
DISTANCES: dict[str, Distance] = {
    "weights": Distance(_weights, ("weights",)),
    "stages": Distance(_stages, _BOTH),
    "features": Distance(lambda seen, ours: (ours.features - seen.reference.features).square().mean(), _BOTH),
    "features_l1": Distance(lambda seen, ours: (ours.features - seen.reference.features).abs().sum(1).mean(), _BOTH),
    "logits": Distance(lambda seen, ours: divergence(ours.logits, seen.reference.logits.softmax(1)).mean(), _BOTH),
    "consistency": Distance(_consistency, _OWN),
    "weighted_consistency": Distance(_weighted_consistency, _OWN),
}


@dataclass(frozen=True)
class Term:
    """A weighted distance that is added to the loss on labels.

    Args:
        distance: to the reference network, "weights" (half the squared L2 length, the head drawn to zero: L2-SP, Li
            et al. 2018), "stages" (squared L2, mean over each stage's maps, sum over stages: DELTA, Li et al. 2019,
            without its channel weights), "features" (squared L2, mean over the penultimate features), "features_l1"
            (L1, sum over features, as Shafahi et al. 2020), "logits" (Kullback-Leibler divergence); between the
            student's own decisions on x and x', "consistency" (divergence: TRADES, Zhang et al. 2019) or
            "weighted_consistency" (the same times the doubt 1 - p_y(x): MART, Wang et al. 2020). All are means over
            the batch, and "weights" knows no batch.
        weight: its factor in the loss; zero leaves it out.
        on: the images that the student sees: "clean" x or "attacked" x'. The reference always sees x.

    Raises:
        ValueError: there is no such distance or image, or the weight is negative or not finite.
    """

    distance: str
    weight: float
    on: Literal["clean", "attacked"] = "clean"

    def __post_init__(self):
        must_be_one_of(DISTANCES, distance=self.distance)
        must_be_one_of(("clean", "attacked"), on=self.on)
        must_lie("[0, inf)", weight=self.weight)

    @property
    def needs(self) -> set[str]:
        """What it looks at: see `Distance`, "student" being "clean" or "attacked" here."""
        return {self.on if need == "student" else need for need in DISTANCES[self.distance].needs}


def views(
    net: Network, reference: Network | None, loss: str, terms: Sequence[Term], x: Tensor, attacked: Attacked, y: Tensor
) -> Views:
    """Run the networks on what the loss needs, and on nothing else.

    Clean and attacked images go through the student as one batch, so that BatchNorm sees both at once.
    """
    needs = {"clean" if loss == "clean" else "attacked"}.union(*(term.needs for term in terms if term.weight))
    clean = other = target = None
    if attacked.x is not x and {"clean", "attacked"} <= needs:
        maps, features, logits = net.activations(torch.cat([x, attacked.x]))
        halves = zip(*(part.chunk(2) for part in (*maps, features, logits)), strict=True)
        clean, other = (Activations(list(half[:-2]), *half[-2:]) for half in halves)
    elif "attacked" in needs:
        other = net.activations(attacked.x)
        clean = other if attacked.x is x else None
    else:
        clean = net.activations(x)
    if "reference" in needs:
        with torch.no_grad():
            target = reference.activations(x)
    return Views(net, reference, clean, other, target, y)


def on_labels(loss: str, seen: Views, attacked: Attacked) -> Tensor:
    """The loss on labels: "attacked" or "clean" cross-entropy, or "boosted" (MART, Wang et al. 2020, section 3.2)."""
    logits = seen.clean.logits if loss == "clean" else seen.attacked.logits
    if loss == "boosted":
        chances = logits.softmax(1)
        right = F.nll_loss((chances + 1e-4).log(), seen.y)
        wrong = chances.scatter(1, seen.y[:, None], 0).amax(1)
        return right - (1.0001 - wrong).log().mean()
    if loss == "clean" or (attacked.weight is None and attacked.target is None):
        return F.cross_entropy(logits, seen.y)
    each = F.cross_entropy(logits, seen.y if attacked.target is None else attacked.target, reduction="none")
    return each.mean() if attacked.weight is None else (attacked.weight * each).mean()


def total(loss: str, terms: tuple[Term, ...], seen: Views, attacked: Attacked) -> Tensor:
    """The loss of a step: that on labels plus every weighted distance."""
    value = on_labels(loss, seen, attacked)
    for term in terms:
        if term.weight:
            student = seen.clean if term.on == "clean" else seen.attacked
            value = value + term.weight * DISTANCES[term.distance].of(seen, student)
    return value
