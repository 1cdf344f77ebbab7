"""What every study does with its effects: check the controls, judge, keep the record."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import pandas as pd

from rtkit import claims, presets, records
from rtkit.claims import Verdict


@dataclass(frozen=True)
class Control:
    """A check on the experiment itself: what must hold, whether it does, and the interval that says so."""

    name: str
    expected: str
    holds: bool
    interval: claims.Interval


def over_seeds(frame: pd.DataFrame, value: Callable, confidence: float = claims.CONFIDENCE) -> claims.Interval:
    """The interval of `value(frame of one replicate)` over the replicates."""
    return claims.interval([value(part) for _, part in frame.groupby("seed")], confidence)


def collapsed(main: pd.DataFrame) -> list[int]:
    """Replicates with a source that collapsed in training or is less than half as accurate as the standard one.

    Args:
        main: the rows of the default world, source networks on their own task as target "source" among them.
    """
    out = []
    for seed, part in main.groupby("seed"):
        rows = part[(part.target == "source") & (part.metric == "clean_accuracy")]
        weak = rows.value.min() < 0.5 * rows[rows.source == "standard"].value.mean()
        if weak or part[part.metric == "collapsed"].value.any():
            out.append(int(seed))
    return out


def verdicts(
    effects: Mapping[str, claims.Effect],
    arms: Mapping[str, Callable],
    main: pd.DataFrame,
    preset: str,
    controls: Sequence[Control],
    collapsed: Sequence[int],
) -> dict[str, Verdict]:
    """Judge every claim that a study can speak of, by id.

    Args:
        effects, arms: by claim (a regime other than the default after an @), see `claims.judge`.
        main: the frame that they are computed from.
        controls: those that do not hold stop the judgement; collapsed: replicates that cap it.
    """
    scope = presets.get(preset).scope
    if scope is None:
        return {name: claims.unjudged(claims.get(name), preset, "none", "smoke") for name in effects}
    options = {"preset": preset, "scope": scope, "collapsed": collapsed}
    options |= {"failed_controls": [control.name for control in controls if not control.holds]}
    return {
        name: claims.judge(claims.get(name), effect, main, arms=arms.get(name), **options)
        for name, effect in effects.items()
    }


def publish(
    study: str,
    frame: pd.DataFrame,
    preset: str,
    found: Mapping[str, Verdict],
    controls: Sequence[Control],
    collapsed: Sequence[int],
    folder: Path | None = None,
    world=None,
) -> None:
    """Keep a study's frame with its record: verdicts, controls, replicates that collapsed; `world` as `records`."""
    record = {"verdicts": {name: verdict.to_dict() for name, verdict in found.items()}, "collapsed": list(collapsed)}
    record |= {"controls": [asdict(control) for control in controls]} if controls else {}
    records.publish(study, preset, frame, record, folder, world)
