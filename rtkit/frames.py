"""Questions to a tidy frame: pick rows, average them, compare arms within each replicate. Pandas and scipy alone."""

import functools
import math
import operator
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass

import numpy as np
import pandas as pd
from scipy import stats

from rtkit.limits import must_lie

CONFIDENCE = 0.95
EVERYTHING, POINTS = (-math.inf, math.inf), (-100, 100)
# Between what the values of a metric lie; those that are not named here are shares.
_RANGES = dict.fromkeys(("generalisation_gap", "lds", "loo_pearson"), (-1, 1))
_RANGES |= dict.fromkeys(("loo_error", "loo_noise", "self_check_warnings", "train_loss"), (0, math.inf))
_RANGES |= dict.fromkeys(("removal_measured", "removal_predicted"), EVERYTHING)


class Missing(LookupError):
    """The frame holds no row that a question needs: what it asks about was not run."""


class OutOfRange(ValueError):
    """Two things that an effect compares have no common range in a replicate."""


class Ranged(float):
    """A number that knows between which others it must lie, as do sums, differences, whole multiples; no others."""

    def __new__(cls, value: float, low: float = -math.inf, high: float = math.inf):
        self = super().__new__(cls, value)
        self.low, self.high = low, high
        return self

    def __add__(self, other):
        if not isinstance(other, Ranged | int):
            return float(self) + other
        low, high = (other.low, other.high) if isinstance(other, Ranged) else (other, other)
        return Ranged(float(self) + float(other), self.low + low, self.high + high)

    def __sub__(self, other):
        return self + -1 * other

    def __rsub__(self, other):
        return -1 * self + other

    def __neg__(self):
        return -1 * self

    def __mul__(self, other):
        found = float(self) * other
        return Ranged(found, *sorted((self.low * other, self.high * other))) if isinstance(other, int) else found

    def __truediv__(self, other):
        found = float(self) / other
        return Ranged(found, *sorted((self.low / other, self.high / other))) if isinstance(other, int) else found

    __radd__, __rmul__ = __add__, __mul__


@dataclass(frozen=True)
class Interval:
    """Mean of an effect over replicates and its two-sided interval, in the unit of the effect."""

    effect: float
    low: float
    high: float
    replicates: int


@dataclass(frozen=True)
class Control:
    """A check on the experiment itself: what must hold, whether it does, and the interval that says so."""

    name: str
    expected: str
    holds: bool
    interval: Interval


def pick(frame: pd.DataFrame, **where) -> pd.DataFrame:
    """The rows whose columns have the given values; a tuple or list as a value means any of its members."""
    kept = [frame[key].isin(at) if isinstance(at, tuple | list) else frame[key] == at for key, at in where.items()]
    return frame[functools.reduce(operator.and_, kept)] if kept else frame


def _percent(values: pd.Series, metrics: Iterable[str]) -> tuple[float, float]:
    """Between what percentages a mean of values must lie; anything, where one is not what its metric says."""
    low, high = zip(*(_RANGES.get(name, (0, 1)) for name in metrics), strict=True)
    return (100 * min(low), 100 * max(high)) if values.between(min(low), max(high)).all() else EVERYTHING


def mean(frame: pd.DataFrame, metric: str = "clean_accuracy", **where) -> Ranged:
    """Mean of a metric over all matching rows (see `pick`), in percent.

    Raises:
        Missing: no row matches. A column that does not exist is a KeyError, as anywhere.
    """
    found = pick(frame, metric=metric, **where)
    if not len(found):
        raise Missing(f"no {metric} at {where}")
    return Ranged(100 * found.value.mean(), *_percent(found.value, [metric] if isinstance(metric, str) else metric))


def lead(
    frame: pd.DataFrame, first: dict | str = "robust", second: dict | str = "standard", of=mean, **where
) -> Ranged:
    """`mean`, or what is asked `of` them, of one arm minus another: each a dict of columns, or a value of `arm`."""
    first, second = ({"arm": arm} if isinstance(arm, str) else arm for arm in (first, second))
    return of(frame, **where | first) - of(frame, **where | second)


def log_odds(successes: float, n: int) -> float:
    """Log odds of a rate with half a count added to either side, so that 0 and n stay finite."""
    return math.log((successes + 0.5) / (n - successes + 0.5))


def odds(frame: pd.DataFrame, metric: str = "clean_accuracy", **where) -> float:
    """Log odds of a rate over all matching rows. Raises `Missing`, as `mean`."""
    found = pick(frame, metric=metric, **where)
    if not len(found):
        raise Missing(f"no {metric} at {where}")
    return log_odds((found.value * found.n_test).sum(), found.n_test.sum())


def _skewed(values: Sequence[float], confidence: float) -> tuple[float, float]:
    """The ends about the mean of an interval that allows for skewness: Hall 1992, his cubic transformation of t."""
    n, third = len(values), stats.skew(values, bias=False) / 3 or 1e-9  # of no skewness it is Student's
    t = stats.t.ppf((1 + confidence) / 2, n - 1) * np.array([1, -1]) / math.sqrt(n)
    below, above = (1 - np.cbrt(1 + 3 * third * (t - third / (2 * n)))) / third * np.std(values, ddof=1)
    return float(below), float(above)


def interval(values: Sequence[float], confidence: float = CONFIDENCE, within=EVERYTHING) -> Interval:
    """Student's t interval of the mean over replicates, or where it reaches farther the one that allows for skewness.

    Below eight replicates, too few to see skewness by, t stands alone; a single one leaves the mean unbounded. It ends
    where the mean cannot lie, and so holds the true one no less often: at the range that `Ranged` values know.

    Args:
        within: the range of values that know none.

    Raises:
        ValueError: there are no values, or the confidence is no share.
    """
    must_lie("(0, 1)", confidence=confidence)
    n = len(values)
    if not n:
        raise ValueError("an interval needs at least one replicate")
    center = math.fsum(values) / n
    if n == 1:
        return Interval(center, -math.inf, math.inf, 1)
    spread = math.sqrt(math.fsum((value - center) ** 2 for value in values) / (n - 1) / n)
    half = float(stats.t.ppf((1 + confidence) / 2, n - 1)) * spread
    below, above = _skewed(values, confidence) if n >= 8 and spread > 1e-12 else (-half, half)
    low, high = center + min(below, -half), center + max(above, half)
    ends = [(value.low, value.high) if isinstance(value, Ranged) else within for value in values]
    least, most = min(center, *(low for low, _ in ends)), max(center, *(high for _, high in ends))
    return Interval(center, max(low, least), min(high, most), n)


def predicted(values: Sequence[float], within=EVERYTHING) -> Interval:
    """The interval in which one replicate more lies with 95 %, if it is like these; it ends as `interval` does."""
    found, wider = interval(values), math.sqrt(len(values) + 1)
    low, high = (found.effect + wider * (end - found.effect) for end in (found.low, found.high))
    low, high = max(low, min(found.effect, within[0])), min(high, max(found.effect, within[1]))
    return Interval(found.effect, low, high, found.replicates)


def _values(frame: pd.DataFrame, value: Callable[[pd.DataFrame], float]) -> dict[int, float]:
    found = {}
    for seed, part in frame.groupby("seed"):
        with suppress(OutOfRange):
            found[int(seed)] = value(part)
    if not found and len(frame):
        raise OutOfRange("no replicate can be compared")
    return found


def by_seed(frame: pd.DataFrame, value: Callable[[pd.DataFrame], float]) -> pd.Series:
    """`value(frame of one replicate)`, a row for each that is not `OutOfRange`: what an interval is made of."""
    return pd.Series(_values(frame, value), dtype=float).rename_axis("seed")


def over_seeds(frame: pd.DataFrame, value: Callable, confidence: float = CONFIDENCE, within=EVERYTHING) -> Interval:
    """The `interval` of what `by_seed` finds."""
    return interval([*_values(frame, value).values()], confidence, within)


def per_replicate(frame: pd.DataFrame, *by: str) -> pd.DataFrame:
    """One `percent` per group and replicate: what figures draw, with `errorbar=t95` in any seaborn function.

    Rows of one replicate within a group (several targets, say) are averaged first.
    """
    found = frame.groupby([*by, "seed"], as_index=False).value.mean().assign(percent=lambda table: 100 * table.value)
    found.attrs = dict(frame.attrs)
    if "metric" in frame and len(frame):
        found.attrs["percent"] = _percent(frame.value, frame.metric.unique())
    return found


def t95(values: pd.Series, within: tuple[float, float] = EVERYTHING) -> tuple[float, float]:
    """The 95 % t interval as seaborn's `errorbar` wants it; nothing to draw for a single replicate."""
    found = interval(list(values), within=within)
    return (found.low, found.high) if math.isfinite(found.low) else (math.nan, math.nan)


def paired(frame: pd.DataFrame, *by: str, arm: str = "arm", first="robust", second="standard") -> pd.DataFrame:
    """First arm minus second within each replicate, in the unit of `value` and in points as `percent`."""
    wide = frame.pivot_table(index=[*by, "seed"], columns=arm, values="value")
    found = (wide[first] - wide[second]).dropna().rename("value").reset_index()
    return found.assign(percent=100 * found.value)


def control(name: str, must: str, frame: pd.DataFrame, value: Callable, confidence: float = CONFIDENCE) -> Control:
    """Check `value` over the replicates against "> 0", "< 10", ">= 90", "<= 1", "= 0", or "shown", which stops nothing.

    Values that know no range are taken for differences in points. ">" and "<" ask it of the whole interval, ">=", "<="
    and "=" of the mean.

    Raises:
        Missing: the frame lacks what it needs; ValueError: `must` is none of these.
    """
    found = over_seeds(frame, value, confidence, POINTS)
    if must == "shown":
        return Control(name, must, True, found)
    word, _, number = must.partition(" ")
    value = {">": found.low, "<": found.high}.get(word, found.effect)
    holds = {">": operator.gt, "<": operator.lt, ">=": operator.ge, "<=": operator.le, "=": operator.eq}[word]
    return Control(name, must, holds(value, float(number)), found)


def collapsed(frame: pd.DataFrame) -> list[int]:
    """Replicates with a source that collapsed in training or is less than half as accurate as the standard one.

    Args:
        frame: rows of one world, source networks on their own task as target "source" among them.
    """
    out = []
    for seed, part in frame.groupby("seed"):
        own = pick(part, target="source", metric="clean_accuracy")
        weak = own.value.min() < 0.5 * pick(own, source="standard").value.mean()
        if weak or pick(part, metric="collapsed").value.any():
            out.append(int(seed))
    return out
