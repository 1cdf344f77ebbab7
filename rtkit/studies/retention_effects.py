"""What the retention study's frame says: effects, controls and verdicts behind notebook 05."""

from pathlib import Path

import numpy as np
import pandas as pd

from rtkit import claims
from rtkit.claims import Interval, Verdict
from rtkit.studies import judging, transfer_effects
from rtkit.studies.judging import Control
from rtkit.studies.retention import LAMBDA, LOW_DATA, MAIN_SHAPE, PLANS, STUDY, TARGET

EQUIVALENT = 5.0  # points within which a deeper head "changes little"
_WITHIN = (("hardly lower", 1), ("hardly higher", -1))  # equivalence: neither side of the interval leaves the range
BLOCKS = {"head": 0, "last_block": 1, "last_stage": 2, "last_two_stages": 4, "full_network": 6}
ADVERSARIAL = "adversarial, from scratch"
BEFORE_LAST = "robustness falls before the last step"  # a part of LwF-C2


def own(frame: pd.DataFrame) -> pd.DataFrame:
    """The rows of the study's own target and of the source's task, without a reader's data sets."""
    return frame[frame.target.isin([TARGET, "source"])]


def pick(frame: pd.DataFrame, **where) -> pd.DataFrame:
    """The rows of the judged lambda, or without one, whose columns have the given values."""
    return transfer_effects.pick(frame[frame.weight.isin([0.0, where.pop("weight", LAMBDA)])], **where)


def point(
    frame: pd.DataFrame, method: str, source: str = "robust", shape: float = MAIN_SHAPE, n: int = 0, **where
) -> tuple[float, float]:
    """Clean and robust accuracy in percent of a method on the target.

    Args:
        n: target images; by default as many as most students have.

    Raises:
        KeyError: no row matches.
    """
    where = {"target": TARGET} | where
    if where["target"] == TARGET:
        where |= {"shape_reliability": shape, "n_train": n or size(frame)}
    found = pick(frame, method=method, source=source, **where)
    values = found.groupby("metric").value.mean()
    if not {"clean_accuracy", "robust_accuracy"} <= set(values.index):
        raise KeyError(f"no {method} from the {source} source at {where}")
    return 100 * values["clean_accuracy"], 100 * values["robust_accuracy"]


def size(frame: pd.DataFrame) -> int:
    """The number of target images that the study's main arms have."""
    return int(frame[(frame.target == TARGET) & (frame.method == "lwf")].n_train.max())


def _kept(frame: pd.DataFrame) -> float:
    return point(frame, "head")[1] - point(frame, "head", "standard")[1]


def _deeper(shape: float):
    def effect(frame: pd.DataFrame) -> dict[str, float]:
        depths = list(BLOCKS) if shape == MAIN_SHAPE else ["head", "full_network"]
        values = np.array([point(frame, name, shape=shape) for name in depths])
        blocks = np.array([BLOCKS[name] for name in depths])
        # The slope of a straight line through all depths, over the way from the head to all layers.
        clean, robust = np.polyfit(blocks, values, 1)[0] * blocks[-1]
        found = {"accuracy rises": float(clean), "robustness falls": float(-robust)}
        if len(depths) > 2:  # "the more" is said of every step, so the last one must not decide alone
            slope = np.polyfit(blocks[:-1], values[:-1, 1], 1)[0]
            found[BEFORE_LAST] = float(-slope * blocks[-2])
        return found

    return effect


def _remembering(shape: float):
    def effect(frame: pd.DataFrame) -> dict[str, float]:
        head, full, lwf = (point(frame, name, shape=shape) for name in ("head", "full_network", "lwf"))
        return {"more accurate than the head": lwf[0] - head[0], "more robust than fine-tuning": lwf[1] - full[1]}

    return effect


def _same(frame: pd.DataFrame) -> dict[str, float]:
    before, after = (point(frame, name, target="source") for name in ("source itself", "lwf"))
    return {"accuracy": after[0] - before[0], "robustness, half allowed": after[1] - before[1] / 2}


def _heads(frame: pd.DataFrame) -> dict[str, float]:
    change = np.subtract(point(frame, "mlp"), point(frame, "head"))
    pairs = zip(("accuracy", "robustness"), change.tolist(), strict=True)
    return {f"{name} {word}": EQUIVALENT + sign * by for name, by in pairs for word, sign in _WITHIN}


def _few(n: int):
    # That it is cheaper follows from the number of its steps: no outcome of the experiment, so no part of the effect.
    def effect(frame: pd.DataFrame) -> dict[str, float]:
        frozen, trained = (point(frame, name, n=n) for name in ("head", ADVERSARIAL))
        return {"accuracy": frozen[0] - trained[0], "robustness": frozen[1] - trained[1]}

    return effect


def cost(frame: pd.DataFrame, method: str, n: int) -> float:
    """Gradient evaluations of single images that a method's training took."""
    found = pick(frame, method=method, n_train=n, target=TARGET, metric="clean_accuracy", source="robust")
    return found.gradients.mean()


EFFECTS: dict[str, claims.Effect] = {"LwF-C1": _kept}
for _claim, _effect in (("LwF-C2", _deeper), ("LwF-C3", _remembering)):
    EFFECTS[_claim] = _effect(MAIN_SHAPE)
    EFFECTS[f"{_claim}@digit right in 70 of 100"] = _effect(0.7)
    EFFECTS[f"{_claim}@digit always right"] = _effect(1.0)
EFFECTS |= {"LwF-C4": _same, "LwF-C5": _heads, "LwF-C6": _few(LOW_DATA)}
EFFECTS |= {f"LwF-C6@{n} images": _few(n) for n in PLANS["glyphs-full"].low_data if n != LOW_DATA}
ARMS = {"LwF-C1": lambda frame: (point(frame, "head")[1], point(frame, "head", "standard")[1])}


def trend(frame: pd.DataFrame) -> pd.DataFrame:
    """Clean and robust accuracy in percent by source and number of trained blocks, a column per replicate mean."""
    rows = pick(frame, target=TARGET, shape_reliability=MAIN_SHAPE, n_train=size(frame))
    rows = rows[rows.method.isin(BLOCKS) & rows.metric.isin(["clean_accuracy", "robust_accuracy"])]
    return rows.assign(blocks=rows.method.map(BLOCKS))


def collapsed(frame: pd.DataFrame) -> list[int]:
    """Replicates whose robust source collapsed in training."""
    rows = frame[(frame.metric == "collapsed") & (frame.value > 0)]
    return sorted({int(seed) for seed in rows.seed})


def controls(frame: pd.DataFrame) -> list[Control]:
    """The study's controls, in points; none for a single replicate."""
    frame = own(frame)
    if len(frame.seed.unique()) < 2:
        return []

    def over(value) -> Interval:
        return judging.over_seeds(frame, value)

    # The head alone: whatever is fine-tuned further may learn robust features of the target.
    natural = over(lambda part: point(part, "head", "standard")[1])
    source = over(lambda part: point(part, "source itself", target="source")[1])
    learned = over(lambda part: point(part, "full_network")[0] - 10)
    # Of the robust source, on which every verdict rests: deep heads on a standard one stay at chance, with dead units.
    warnings = frame[(frame.metric == "self_check_warnings") & (frame.source == "robust")]
    warned = judging.over_seeds(warnings, lambda part: 100 * part.value.mean())
    return [
        Control("a standard source's features under attack", "below 10 %", natural.high < 10, natural),
        Control("the robust source under attack on its own task", "above half", source.low > 50, source),
        Control("fine-tuning minus chance", "above zero", learned.low > 0, learned),
        Control("self-checks of the attacks", "no warning", warned.effect == 0, warned),
    ]


def verdicts(frame: pd.DataFrame, preset: str) -> dict[str, Verdict]:
    """Judge every claim that this study can speak of, by id."""
    return judging.verdicts(EFFECTS, ARMS, own(frame), preset, controls(frame), collapsed(frame))


def publish(frame: pd.DataFrame, preset: str, folder: Path | None = None) -> dict[str, Verdict]:
    """Judge the frame, keep it with its record (by default under runs/) and return the verdicts by claim."""
    found = verdicts(frame, preset)
    judging.publish(STUDY, frame, preset, found, controls(frame), collapsed(frame), folder)
    return found
