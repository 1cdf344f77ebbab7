"""What the cue-conflict study's frame says: no claim is about it, so that its record holds controls and no verdict."""

from pathlib import Path

import pandas as pd

from rtkit import claims
from rtkit.claims import Interval, Verdict
from rtkit.studies import judging
from rtkit.studies.cue_conflict import ALL, FOLDER, PLANS, STUDY
from rtkit.studies.judging import Control, over_seeds
from rtkit.studies.transfer_effects import score


def lead(frame: pd.DataFrame, metric: str = "shape_bias", first: str = "robust", second: str = "standard") -> Interval:
    """By how many points one kind of source network is above another on the stimuli, over the replicates."""
    where = {"metric": metric, "target": FOLDER, "shape": ALL}
    return over_seeds(frame, lambda part: score(part, first, **where) - score(part, second, **where))


def controls(frame: pd.DataFrame) -> list[Control]:
    """The study's controls; none for a single replicate."""
    if len(frame.seed.unique()) < 2:
        return []
    attacked = over_seeds(
        frame, lambda part: score(part, "robust", "robust_accuracy") - score(part, "standard", "robust_accuracy")
    )
    blind = claims.interval([-value for value in frame[frame.metric == "self_check_warnings"].value])
    return [
        Control("robust accuracy, robust minus standard", "above zero", attacked.low > 0, attacked),
        Control("self-checks of the attacks", "no warning", blind.effect == 0, blind),
    ]


def verdicts(frame: pd.DataFrame, preset: str) -> dict[str, Verdict]:
    """No verdict: the papers' claims are about transfer, not about the decisions of source networks."""
    return {}


def publish(frame: pd.DataFrame, preset: str, folder: Path | None = None) -> dict[str, Verdict]:
    """Keep the frame with its record (by default under runs/) and return the verdicts, of which there are none."""
    judging.publish(STUDY, frame, preset, {}, controls(frame), judging.collapsed(frame), folder, PLANS[preset])
    return {}
