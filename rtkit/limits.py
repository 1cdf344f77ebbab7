"""Between what numbers a setting may lie: one check for all of them, on both sides."""

from numbers import Integral, Real


def must_lie(span: str, *, whole: bool = False, **values) -> None:
    """Check that numbers, given by name, lie in a span such as "[0, 1)"; not a number and True are no numbers.

    Raises:
        ValueError: one of them does not, or is no whole number where it must be; the message names it and the span.
    """
    low, high = map(float, span[1:-1].split(","))
    for name, value in values.items():
        number = isinstance(value, Integral if whole else Real) and not isinstance(value, bool)
        inside = number and low <= value <= high and not (value == low and span[0] == "(")
        if not inside or (value == high and span[-1] == ")"):
            raise ValueError(f"{name} must {'be a whole number' if whole else 'lie'} in {span}, got {value!r}")
