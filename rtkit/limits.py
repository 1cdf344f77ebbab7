"""What a setting may be: one check for all numbers, on both sides, and one for all words."""

from collections.abc import Iterable
from numbers import Integral, Real


def must_lie(span: str, *, whole: bool = False, hint: str = "", **values) -> None:
    """Check that numbers, given by name, lie in a span such as "[0, 1)"; not a number and True are no numbers.

    Raises:
        ValueError: one of them does not, or is no whole number where it must be; the message names it and the span.
    """
    low, high = map(float, span[1:-1].split(","))
    for name, value in values.items():
        number = isinstance(value, Integral if whole else Real) and not isinstance(value, bool)
        inside = number and low <= value <= high and not (value == low and span[0] == "(")
        if not inside or (value == high and span[-1] == ")"):
            raise ValueError(f"{name} must {'be a whole number' if whole else 'lie'} in {span}, got {value!r}{hint}")


def must_be_one_of(options: Iterable[str], **values) -> None:
    """Check that settings, given by name, are words that exist.

    Raises:
        ValueError: one of them is not; the message names it and lists the words.
    """
    options = list(options)
    for name, value in values.items():
        if value not in options:
            raise ValueError(f"{name} must be one of {', '.join(options)}, got {value!r}")
