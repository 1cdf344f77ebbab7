"""What the influence study's frame says: effects, controls and verdicts behind notebook 03."""

from pathlib import Path

import pandas as pd

from rtkit import claims
from rtkit.claims import Verdict
from rtkit.studies import judging
from rtkit.studies.influence import STUDY
from rtkit.studies.influence_plans import PLANS
from rtkit.studies.judging import Control, over_seeds
from rtkit.studies.transfer_effects import pick, score

INTERPOLATES = 99.5  # training accuracy in percent from which a head counts as interpolating


def own(frame: pd.DataFrame) -> pd.DataFrame:
    """The rows of the study's own targets (those of a plan, of the glyph world first), without a reader's.

    What ranks no image has the score "", which a file gives back as a missing value.
    """
    frame, there = frame.assign(score=frame.score.fillna("")), set(frame.target)
    mine = next((plan.targets for plan in PLANS.values() if there.issuperset(plan.targets)), None)
    return frame if mine is None else frame[frame.target.isin(mine)]


def core(frame: pd.DataFrame) -> pd.DataFrame:
    """The rows of `own`, without the second standard source that serves as a control."""
    frame = own(frame)
    return frame[frame.seed == frame.source_seed]


def gain(frame: pd.DataFrame, **where) -> float:
    """Robust minus standard source, in points; a frame of this study has one robust radius."""
    return score(frame, "robust", **where) - score(frame, "standard", **where)


def few(frame: pd.DataFrame) -> int:
    """The number of training images at which the claim is judged: the smallest."""
    return int(frame[frame.method == "last_stage"].n_train.min())


def _where(frame: pd.DataFrame, score: str = "influence", metric: str = "top1_match") -> dict:
    return {"method": "last_stage", "n_train": few(frame), "metric": metric, "score": score}


EFFECTS: dict[str, claims.Effect] = {"U-C8": lambda frame: gain(frame, **_where(frame))}
ARMS = {"U-C8": lambda frame: tuple(score(frame, source, **_where(frame)) for source in ("robust", "standard"))}


def match_gain(frame: pd.DataFrame, score: str, metric: str = "top1_match", n: int | None = None) -> claims.Interval:
    """Robust minus standard source in a label match, in points, at the claim's number of images or another."""
    where = _where(frame, score, metric) | ({} if n is None else {"n_train": n})
    return over_seeds(core(frame), lambda part: gain(part, **where))


def matched_sizes(frame: pd.DataFrame) -> dict[str, int]:
    """For one replicate, by target: the n that brings the standard source's validation accuracy nearest."""
    out = {}
    for target in pick(frame, method="last_stage").target.unique():
        where = {"metric": "validation_accuracy", "method": "last_stage", "target": target}
        goal = score(frame, "robust", n_train=few(frame), **where)
        sizes = pick(frame, source="standard", **where).n_train.unique()
        out[target] = min(sorted(sizes), key=lambda n: abs(score(frame, "standard", n_train=n, **where) - goal))
    return out


def matched_gain(frame: pd.DataFrame, metric: str = "top1_match", name: str = "") -> claims.Interval:
    """As `match_gain`, but the standard source has as many images as bring it nearest the robust one's accuracy.

    With the metric "clean_accuracy" and no score: what is left of the difference in accuracy.
    """

    def one(part: pd.DataFrame) -> float:
        where = {"method": "last_stage", "metric": metric, "score": name}
        pairs = [
            score(part, "robust", n_train=few(part), target=target, **where)
            - score(part, "standard", n_train=n, target=target, **where)
            for target, n in matched_sizes(part).items()
        ]
        return sum(pairs) / len(pairs)

    return over_seeds(core(frame), one)


def controls(frame: pd.DataFrame) -> list[Control]:
    """What must hold for a verdict: the Newton step predicts leaving one out, heads interpolate, the null is silent.

    None for a single replicate.
    """
    if len(frame.seed.unique()) < 2:
        return []
    main = core(frame)
    n = int(main[main.metric == "lds"].n_train.max())
    proof = {"metric": "loo_pearson", "score": "newton", "n_train": n, "source": ("standard", "robust")}
    pearson = over_seeds(main, lambda part: 100 * pick(part, **proof).value.min())
    fitted = pick(main, metric="train_accuracy", n_train=few(main), method="last_stage")
    fitted = over_seeds(fitted, lambda part: 100 * part.value.min())

    def second(part: pd.DataFrame) -> float:
        where = _where(part)
        own, other = part[part.seed == part.source_seed], part[part.seed != part.source_seed]
        return score(other, "standard", **where) - score(own, "standard", **where)

    null = over_seeds(own(frame), second, 0.99)  # at 99 % a sound control stops one study in a hundred
    return [
        Control("Newton step against leaving one out, Pearson x 100", "at least 99", pearson.effect >= 99, pearson),
        Control("training accuracy of the heads", f"at least {INTERPOLATES}", fitted.effect >= INTERPOLATES, fitted),
        Control(
            "two standard sources of different seed (99 % interval)",
            "differ by nothing",
            null.low <= 0 <= null.high,
            null,
        ),
    ]


def verdicts(frame: pd.DataFrame, preset: str) -> dict[str, Verdict]:
    """Judge every claim that this study can speak of, by id."""
    judged = pick(core(frame), method="last_stage", metric="top1_match")
    return judging.verdicts(EFFECTS, ARMS, judged, preset, controls(frame), collapsed=())


def publish(frame: pd.DataFrame, preset: str, folder: Path | None = None) -> dict[str, Verdict]:
    """Judge the frame, keep it with its record (by default under runs/) and return the verdicts by claim."""
    found = verdicts(frame, preset)
    judging.publish(STUDY, frame, preset, found, controls(frame), collapsed=(), folder=folder)
    return found
