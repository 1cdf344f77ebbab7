"""Questions to a tidy frame: pick rows, average them, compare arms within each replicate. Pandas and scipy alone."""

import functools
import math
import operator
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import pandas as pd
from scipy import stats

CONFIDENCE = 0.95


class Missing(LookupError):
    """The frame holds no row that a question needs: what it asks about was not run."""


class OutOfRange(ValueError):
    """Two things that an effect compares have no common range in a replicate."""


@dataclass(frozen=True)
class Interval:
    """Mean of an effect over replicates and its two-sided t interval, in the unit of the effect."""

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


def mean(frame: pd.DataFrame, metric: str = "clean_accuracy", **where) -> float:
    """Mean of a metric over all matching rows (see `pick`), in percent.

    Raises:
        Missing: no row matches. A column that does not exist is a KeyError, as anywhere.
    """
    found = pick(frame, metric=metric, **where)
    if not len(found):
        raise Missing(f"no {metric} at {where}")
    return 100 * found.value.mean()


def lead(frame: pd.DataFrame, first: dict | str = "robust", second: dict | str = "standard", **where) -> float:
    """Mean of the first arm minus that of the second, in points. An arm is a dict of columns, or a value of `arm`."""
    first, second = ({"arm": arm} if isinstance(arm, str) else arm for arm in (first, second))
    return mean(frame, **where | first) - mean(frame, **where | second)


def log_odds(successes: float, n: int) -> float:
    """Log odds of a rate with half a count added to either side, so that 0 and n stay finite."""
    return math.log((successes + 0.5) / (n - successes + 0.5))


def odds(frame: pd.DataFrame, metric: str = "clean_accuracy", **where) -> float:
    """Log odds of a rate over all matching rows. Raises `Missing`, as `mean`."""
    found = pick(frame, metric=metric, **where)
    if not len(found):
        raise Missing(f"no {metric} at {where}")
    return log_odds((found.value * found.n_test).sum(), found.n_test.sum())


def interval(values: Sequence[float], confidence: float = CONFIDENCE) -> Interval:
    """Student's t interval of the mean over replicates; a single replicate leaves it unbounded.

    Raises:
        ValueError: there are no values.
    """
    n = len(values)
    if not n:
        raise ValueError("an interval needs at least one replicate")
    center = math.fsum(values) / n
    if n == 1:
        return Interval(center, -math.inf, math.inf, 1)
    spread = math.sqrt(math.fsum((value - center) ** 2 for value in values) / (n - 1) / n)
    half = float(stats.t.ppf((1 + confidence) / 2, n - 1)) * spread
    return Interval(center, center - half, center + half, n)


def by_seed(frame: pd.DataFrame, value: Callable[[pd.DataFrame], float]) -> pd.Series:
    """`value(frame of one replicate)`, a row per replicate: what an interval is made of, to be printed and drawn."""
    return pd.Series({int(seed): value(part) for seed, part in frame.groupby("seed")}, dtype=float).rename_axis("seed")


def over_seeds(frame: pd.DataFrame, value: Callable, confidence: float = CONFIDENCE) -> Interval:
    """The interval of `value(frame of one replicate)` over the replicates."""
    return interval([value(part) for _, part in frame.groupby("seed")], confidence)


def per_replicate(frame: pd.DataFrame, *by: str) -> pd.DataFrame:
    """One `percent` per group and replicate: what figures draw, with `errorbar=t95` in any seaborn function.

    Rows of one replicate within a group (several targets, say) are averaged first.
    """
    return frame.groupby([*by, "seed"], as_index=False).value.mean().assign(percent=lambda table: 100 * table.value)


def t95(values: pd.Series) -> tuple[float, float]:
    """The 95 % t interval as seaborn's `errorbar` wants it; nothing to draw for a single replicate."""
    found = interval(list(values))
    return (found.low, found.high) if math.isfinite(found.low) else (math.nan, math.nan)


def paired(frame: pd.DataFrame, *by: str, arm: str = "arm", first="robust", second="standard") -> pd.DataFrame:
    """First arm minus second within each replicate, in the unit of `value` and in points as `percent`."""
    wide = frame.pivot_table(index=[*by, "seed"], columns=arm, values="value")
    found = (wide[first] - wide[second]).dropna().rename("value").reset_index()
    return found.assign(percent=100 * found.value)


def control(name: str, must: str, frame: pd.DataFrame, value: Callable, confidence: float = CONFIDENCE) -> Control:
    """Check `value` over the replicates against "> 0", "< 10", ">= 90", "<= 1", "= 0", or "shown", which stops nothing.

    ">" and "<" ask it of the whole interval, ">=", "<=" and "=" of the mean.

    Raises:
        Missing: the frame lacks what it needs; ValueError: `must` is none of these.
    """
    found = over_seeds(frame, value, confidence)
    if must == "shown":
        return Control(name, must, True, found)
    word, _, number = must.partition(" ")
    limit = float(number)
    holds = {
        ">": found.low > limit,
        "<": found.high < limit,
        ">=": found.effect >= limit,
        "<=": found.effect <= limit,
        "=": found.effect == limit,
    }[word]
    return Control(name, must, holds, found)


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
