"""What the shape bias study's frame says: effects, controls, verdicts and associations behind notebook 02."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from scipy import stats

from rtkit import claims
from rtkit.claims import Verdict
from rtkit.studies import judging
from rtkit.studies.judging import Control, over_seeds
from rtkit.studies.shape_bias import STUDY
from rtkit.studies.transfer import MAIN_EPS, SHAPES
from rtkit.studies.transfer_effects import gain, pick, score


def _copies(frame: pd.DataFrame, copy: str) -> dict:
    return {"method": "last_stage", "target": tuple(f"{name}:{copy}" for name in SHAPES)}


def _finer(frame: pd.DataFrame) -> dict[str, float]:
    own = gain(frame, **_copies(frame, "own"))
    return {
        "texture-swapped": gain(frame, **_copies(frame, "swapped")) - own,
        "down-scaled": gain(frame, **_copies(frame, "low")) - own,
    }


def _swapped_source(frame: pd.DataFrame) -> dict[str, float]:
    return {
        "zero-shot": gain(frame, target="source", change="texture swapped"),
        "with transfer": gain(frame, target="source:swapped", method="fixed_feature"),
    }


_PLAIN = {"target": tuple(f"{name}:plain" for name in SHAPES), "method": "fixed_feature"}


def _against_randomised(frame: pd.DataFrame) -> tuple[float, float]:
    return score(frame, "robust", source_eps=MAIN_EPS, **_PLAIN), score(frame, "randomised", **_PLAIN)


EFFECTS: dict[str, claims.Effect] = {
    "U-C9": _finer,
    "S-C8": _swapped_source,
    "S-C9": lambda frame: _against_randomised(frame)[0] - _against_randomised(frame)[1],
}
ARMS = {"S-C9": _against_randomised}


def controls(frame: pd.DataFrame) -> list[Control]:
    """The study's controls, in points; none for a single replicate."""
    if len(frame.seed.unique()) < 2:
        return []
    only_texture = over_seeds(frame, lambda part: gain(part, target="source", change="shape removed"))
    random = over_seeds(
        frame, lambda part: score(part, "randomised", "shape_bias") - score(part, "standard", "shape_bias")
    )
    fine = over_seeds(frame, lambda part: gain(part, **_copies(part, "own")))
    blind = claims.interval([-value for value in frame[frame.metric == "self_check_warnings"].value])
    return [
        Control("robust minus standard, shape removed", "below zero", only_texture.high < 0, only_texture),
        Control("shape bias, texture-randomised minus standard", "above zero", random.low > 0, random),
        Control("robust minus standard, targets with a fine cue of their own", "below zero", fine.high < 0, fine),
        Control("self-checks of the attacks", "no warning", blind.effect == 0, blind),
    ]


def verdicts(frame: pd.DataFrame, preset: str) -> dict[str, Verdict]:
    """Judge every claim that this study can speak of, by id."""
    return judging.verdicts(EFFECTS, ARMS, frame, preset, controls(frame), _collapsed(frame))


def _collapsed(frame: pd.DataFrame) -> list[int]:
    # Images with a cue taken away say nothing about training.
    return judging.collapsed(frame[frame.change.isin(["", "none"]) | frame.change.isna()])


def publish(frame: pd.DataFrame, preset: str, folder: Path | None = None) -> dict[str, Verdict]:
    """Judge the frame, keep it with its record (by default under runs/) and return the verdicts by claim."""
    found = verdicts(frame, preset)
    judging.publish(STUDY, frame, preset, found, controls(frame), _collapsed(frame), folder)
    return found


def with_transfer(frame: pd.DataFrame) -> pd.DataFrame:
    """Shape bias and transfer of every standard and robust source network in a frame of the transfer study.

    Returns:
        One row per network: `source, source_eps, seed`, its world, `bias` and `transfer` in percent, the latter with
        fixed features and 100 images, averaged over digits and lower-case letters.
    """
    keys = ["source", "source_eps", "source_seed", "texture_amplitude", "shape_reliability"]
    own = pick(frame[frame.seed == frame.source_seed], source=("standard", "robust"))
    bias = pick(own, metric="shape_bias").groupby(keys).value.mean()
    carried = pick(own, metric="clean_accuracy", method="fixed_feature", target=SHAPES[:2], n_train=100)
    both = pd.DataFrame({"bias": 100 * bias, "transfer": 100 * carried.groupby(keys).value.mean()})
    return both.dropna().reset_index()


def rank_correlation(x: Sequence[float], y: Sequence[float], draws: int = 2000) -> tuple[float, float, float]:
    """Spearman's rank correlation with its 95 % bootstrap interval over the points (percentiles).

    Raises:
        ValueError: fewer than four points.
    """
    x, y = np.asarray(x), np.asarray(y)
    if len(x) < 4:
        raise ValueError(f"a rank correlation needs at least four points, got {len(x)}")
    index = np.random.default_rng(0).integers(len(x), size=(draws, len(x)))
    ranks = [stats.rankdata(values[index], axis=1) for values in (x, y)]
    a, b = (rank - rank.mean(1, keepdims=True) for rank in ranks)
    with np.errstate(invalid="ignore"):  # a draw of one point only has no correlation
        drawn = (a * b).sum(1) / np.sqrt((a**2).sum(1) * (b**2).sum(1))
    low, high = np.nanquantile(drawn, [0.025, 0.975])
    return float(stats.spearmanr(x, y).statistic), float(low), float(high)
