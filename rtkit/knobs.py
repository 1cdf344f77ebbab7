"""The knobs of notebooks: parameters that stand empty for the preset's own values. Imports no torch."""

from collections.abc import Iterable, Mapping
from numbers import Integral, Real

# What each may be: words, or numbers of a type and between limits. Radii and amplitudes are grey levels of 255.
LIMITS = {
    "source_eps": (float, 0.1, 64),
    "train_eps": (float, 0.1, 64),
    "attack_eps": (float, 0.1, 64),
    "n_train": (int, 2, 900),
    "steps": (int, 1, 5000),
    "attack_steps": (int, 1, 1000),
    "lr": (float, 1e-4, 10),
    "trained": ("fixed_feature", "last_block", "last_stage", "last_two_stages", "full_network", "scratch", "probe"),
    "change": ("none", "texture swapped", "texture removed", "shape removed", "silhouette", "blurred", "down-scaled"),
    "texture_amplitude": (float, 0, 60),
    "amplitude": (float, 0, 60),
    "shape_reliability": (float, 0, 1),
    "ridge": (float, 1e-12, 1e3),
    "lambda_": (float, 0, 1e3),
    "dropout": (float, 0, 0.9),
    "batchnorm": ("adapt", "frozen"),
    "beta": (float, 0.01, 100),
    "teacher_weight": (float, 0.001, 1e3),
}


def several(given) -> list:
    """What was given for a parameter that takes several values: nothing, one, or many, of numpy's types or Python's."""
    given = given.tolist() if hasattr(given, "tolist") else given
    if given is None:
        return []
    many = isinstance(given, Iterable) and not isinstance(given, str | bytes | Mapping)
    return list(given) if many else [given]


class Knobs:
    """What was given for each knob, checked; one that stands empty (`[]` or None) is the preset's own.

    Args:
        given: values by name, which must be in `LIMITS`; a single value means a list of one.

    Raises:
        ValueError: a value is of another type, or not within the limits; names the knob, the value and what would do.
    """

    def __init__(self, **given):
        found = {name: tuple(dict.fromkeys(_checked(name, value) for value in several(values)))
                 for name, values in given.items()}  # fmt: skip
        self.changed = {name: values for name, values in found.items() if values}

    def all(self, name: str, own):
        """The values of a knob as a tuple, or the preset's `own` as they are."""
        return self.changed.get(name, own)

    def one(self, name: str, own):
        """The value of a knob that takes one, or the preset's `own`.

        Raises:
            ValueError: several were given.
        """
        values = self.changed.get(name, (own,))
        if len(values) > 1:
            raise ValueError(f"{name} takes one value, got {list(values)!r}")
        return values[0]


def _checked(name: str, value):
    kind, *limits = LIMITS[name]
    if isinstance(kind, str):
        fits, valid = value in LIMITS[name], f"some of {', '.join(LIMITS[name])}"
    else:
        number, words = (Integral, "whole numbers") if kind is int else (Real, "numbers")
        fits = isinstance(value, number) and not isinstance(value, bool) and limits[0] <= value <= limits[1]
        valid = f"{words} from {limits[0]:g} to {limits[1]:g}"
    if not fits:
        raise ValueError(f"{name} must be {valid}, or [] for the preset's own, got {value!r}")
    return value if isinstance(kind, str) else kind(value)
