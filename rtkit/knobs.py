"""The knobs of notebooks: parameters that stand empty for the preset's own values. Imports no torch."""

import tomllib
from collections.abc import Iterable, Mapping
from numbers import Integral, Real
from pathlib import Path

LIMITS = tomllib.loads(Path(__file__).with_suffix(".toml").read_text(encoding="utf-8"))


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
        given: values by name, which knobs.toml knows; a single value means a list of one.

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
    limits = LIMITS[name]
    if isinstance(limits, list):
        fits, valid = value in limits, f"some of {', '.join(limits)}"
    else:
        whole, low, high = limits.get("whole", False), limits["low"], limits["high"]
        number = isinstance(value, Integral if whole else Real) and not isinstance(value, bool)
        fits, valid = number and low <= value <= high, f"{'whole ' * whole}numbers from {low:g} to {high:g}"
    if not fits:
        raise ValueError(f"{name} must be {valid}, or [] for the preset's own, got {value!r}")
    return value if isinstance(limits, list) else int(value) if whole else float(value)
