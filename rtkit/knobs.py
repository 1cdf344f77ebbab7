"""The knobs of a notebook: parameters that stand empty for the preset's own values. Imports no torch."""

from collections.abc import Collection
from numbers import Integral, Real


class Knobs:
    """What was given for each knob, checked; one that stands empty (`[]` or None) is the preset's own.

    Args:
        given: (value, allowed) by name. A single value means a list of one. What is allowed is a collection of words,
            or (int or float, lowest, highest).

    Raises:
        ValueError: a value is of another type, or not among those allowed; names the knob, the value and what would do.
    """

    def __init__(self, **given: tuple):
        found = {name: _values(name, value, allowed) for name, (value, allowed) in given.items()}
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


def _values(name: str, value, allowed: Collection) -> tuple:
    if value is None:
        return ()
    values = tuple(value) if isinstance(value, Collection) and not isinstance(value, str) else (value,)
    kind, *limits = allowed
    words = kind not in (int, float)
    fits = _known(allowed) if words else _between(kind, *limits)
    if not all(map(fits, values)):
        valid = f"some of {', '.join(allowed)}" if words else f"{_NAMES[kind]} from {limits[0]:g} to {limits[1]:g}"
        raise ValueError(f"{name} must be {valid}, or [] for the preset's own, got {value!r}")
    return tuple(dict.fromkeys(values if words else map(kind, values)))


_NAMES = {int: "whole numbers", float: "numbers"}


def _known(words: Collection[str]):
    return lambda value: isinstance(value, str) and value in words


def _between(kind: type, low: float, high: float):
    number = Integral if kind is int else Real

    def fits(value) -> bool:
        return isinstance(value, number) and not isinstance(value, bool) and low <= value <= high

    return fits
