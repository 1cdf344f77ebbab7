"""The sixteen classes of cue-conflict stimuli among ImageNet's thousand."""

import torch

# ImageNet's classes, by their place in its order, that stand for each class of the stimuli (Geirhos et al. 2019; the
# list that accompanies the stimuli, github.com/rgeirhos/texture-vs-shape). "8,10-16" is 8 and 10 to 16.
_PLACES = {
    "airplane": "404",
    "bear": "294-297",
    "bicycle": "444,671",
    "bird": "8,10-16,18-20,22-24,80-83,87-96,98-100,127-133,135-145",
    "boat": "472,554,625,814,914",
    "bottle": "440,720,737,898,899,901,907",
    "car": "436,511,817",
    "cat": "281-286",
    "chair": "423,559,765,857",
    "clock": "409,530,892",
    "dog": "152-191,193-203,205-226,228-241,243-250,252-257,259,261-263,265-268",
    "elephant": "385,386",
    "keyboard": "508,878",
    "knife": "499",
    "oven": "766",
    "truck": "555,569,656,675,717,734,864,867",
}


def _spelled(places: str) -> tuple[int, ...]:
    ends = [part.split("-") for part in places.split(",")]
    return tuple(k for part in ends for k in range(int(part[0]), int(part[-1]) + 1))


CLASSES = {name: _spelled(places) for name, places in _PLACES.items()}


def chances(logits: torch.Tensor) -> torch.Tensor:
    """Map an ImageNet network's logits to the sixteen classes: the mean probability of those that stand for each.

    They do not add up to one; the decision is the largest. A mean, so that a class of many does not win by its number.

    Shape:
        (N, 1000) -> (N, 16), in the order of `CLASSES`.

    Raises:
        ValueError: there are not a thousand logits.

    Reference: Geirhos et al. 2019, section 2.
    """
    if logits.shape[-1] != 1000:
        raise ValueError(f"the sixteen classes are those of ImageNet's 1,000, got {logits.shape[-1]} logits")
    found = logits.softmax(-1)
    return torch.stack([found[:, list(places)].mean(1) for places in CLASSES.values()], 1)
