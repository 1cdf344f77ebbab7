"""What the attack success study's frame says: effects, controls and verdicts behind notebook 04."""

import math
from pathlib import Path

import pandas as pd
from scipy import stats

from rtkit import claims
from rtkit.claims import Verdict
from rtkit.studies import judging
from rtkit.studies.attack_students import DROPOUT, LEARNING_RATES, STUDY, WEIGHT, WHITE_BOX
from rtkit.studies.attack_success import PLANS
from rtkit.studies.judging import Control, over_seeds
from rtkit.studies.transfer_effects import pick

CHOSEN = (WEIGHT, DROPOUT, LEARNING_RATES["nfd"])  # lambda, dropout and learning rate of the full method
READABLE = 0.6  # clean accuracy below which a success rate is shown and not judged
QUESTION = 5.0  # points by which scratch must be below fine-tuning for there to be anything to gain
VALID = 90.0  # percent of the source's own decisions that the attack must flip


def core(frame: pd.DataFrame) -> pd.DataFrame:
    """The rows of the chosen students at the study's number of images, and of the source, without the sweeps."""
    frame = own(named(frame))
    return _chosen(frame[(frame.n_train == judged_size(frame)) | (frame.method == "source")])


def _chosen(main: pd.DataFrame) -> pd.DataFrame:
    full, tuned = main[main.method == "nfd"], main[main.method == "fine_tuning"]
    chosen = pick(full, **dict(zip(("weight", "dropout", "lr"), CHOSEN, strict=True)))
    off = full.index.difference(chosen.index)
    return main.drop(off.union(tuned.index.difference(pick(tuned, lr=LEARNING_RATES["fine_tuning"]).index)))


def own(frame: pd.DataFrame) -> pd.DataFrame:
    """The rows of the study's own target (that of a plan, of the glyph world first), without a reader's.

    Of two architectures the first one counts, which is the preset's.
    """
    there = set(frame.target)
    mine = next((plan.target for plan in PLANS.values() if plan.target in there), None)
    frame = frame if mine is None else frame[frame.target == mine]
    return frame[frame.architecture == frame.architecture.iloc[0]]


def by_architecture(frame: pd.DataFrame) -> pd.DataFrame:
    """Clean accuracy and success in percent by method and architecture, over the replicates that have every one.

    Returns:
        Columns `clean`, `success`, `own` (of the source's own decisions, flipped) and `replicates`, indexed by method
        and architecture; one architecture where there are no others.
    """
    main, frame = own(named(frame)), named(frame)
    sized = frame[(frame.n_train == judged_size(main)) | (frame.method == "source")]
    found = _chosen(sized[sized.target == main.target.iloc[0]])
    counts = found.groupby("seed").architecture.transform("nunique")
    groups = found[counts == counts.max()].groupby("architecture", sort=False)
    rows = [
        (method, name, value(part, method), success(part, method), success(part, "source"), part.seed.nunique())
        for name, part in groups
        for method in WHITE_BOX
    ]
    table = pd.DataFrame(rows, columns=["method", "architecture", "clean", "success", "own", "replicates"])
    return table.set_index(["method", "architecture"])


def named(frame: pd.DataFrame) -> pd.DataFrame:
    """The frame with "" as the form of what is no attack, which a file gives back as a missing value."""
    return frame.assign(form=frame.form.fillna(""))


def judged_size(frame: pd.DataFrame) -> int:
    """The number of labelled images at which every student of a frame was trained."""
    return int(frame[frame.method == "nfd_averaging"].n_train.max())  # its rows are never swept


def by_size(table: pd.DataFrame) -> pd.DataFrame:
    """The rows of `by_student` with the chosen knobs, at every number of images, of replicates that have them all."""
    nfd = pick(table, method="nfd", **dict(zip(("weight", "dropout", "lr"), CHOSEN, strict=True)))
    tuned = pick(table, method="fine_tuning", lr=LEARNING_RATES["fine_tuning"])
    rows = pd.concat([nfd, tuned, table[table.method == "scratch"]])
    return complete(rows)


def by_rate(table: pd.DataFrame, size: int) -> pd.DataFrame:
    """The rows of `by_student` of fine-tuning on so many images, by learning rate, of replicates that have all."""
    return complete(pick(table, method="fine_tuning", n_train=size))


def complete(table: pd.DataFrame) -> pd.DataFrame:
    """The rows of those replicates that have the most: sources differ too much to mix replicates in a sweep."""
    counts = table.groupby("seed").seed.transform("size")
    return table[counts == counts.max()]


def value(frame: pd.DataFrame, method: str, metric: str = "clean_accuracy", form: str = "") -> float:
    """Mean of a metric of one student, in percent.

    Raises:
        KeyError: no row matches.
    """
    found = pick(frame, method=method, metric=metric, form=form)
    if not len(found):
        raise KeyError(f"no {metric} {form} of {method!r}")
    return 100 * found.value.mean()


def success(frame: pd.DataFrame, method: str, form: str = "any") -> float:
    """Success rate of an attack on one student, in percent."""
    return value(frame, method, "attack_success_rate", form)


def odds(frame: pd.DataFrame, method: str, form: str = "any") -> float:
    """Log odds of the success rate on one student in one replicate, half a count added to either side.

    Raises:
        KeyError: no row matches.
    """
    found = pick(frame, method=method, metric="attack_success_rate", form=form)
    if not len(found):
        raise KeyError(f"no success rate {form} of {method!r}")
    count, right = (found.value * found.n_test).sum(), found.n_test.sum()
    return claims.log_odds(count, right)


def by_student(frame: pd.DataFrame) -> pd.DataFrame:
    """Students of one or more replicates, on the study's own target: `clean` accuracy, `success`, `similarity`.

    Returns:
        One row per student and replicate: `method, n_train, lr, weight, dropout, seed`, rates in percent, similarity
        to the source on clean images from 0 to 1.
    """
    frame, keys = own(named(frame)), ["method", "n_train", "lr", "weight", "dropout", "seed"]

    def column(metric: str, form: str) -> pd.Series:
        return pick(frame, metric=metric, form=form).groupby(keys).value.mean()

    table = {"clean": 100 * column("clean_accuracy", ""), "success": 100 * column("attack_success_rate", "any")}
    table |= {"noise": 100 * column("attack_success_rate", "noise"), "similarity": column("similarity", "")}
    return pd.DataFrame(table).dropna(subset=["clean", "success"]).reset_index()


def correlation(frame: pd.DataFrame, form: str = "") -> float:
    """Rank correlation of success with similarity over the students of one replicate that are often enough right.

    Args:
        form: of the images on which features are compared: "" as they are, "stages" attacked.

    Returns:
        From -1 to 1; not a number where all have the same success.

    Raises:
        KeyError: fewer than four such students.
    """
    alike = pick(frame, metric="similarity", form=form).groupby("method").value.mean()
    table = by_student(frame).set_index("method")
    table = table[table.clean >= 100 * READABLE]
    if len(table) < 4:
        raise KeyError("fewer than four students to correlate")
    alike = alike.reindex(table.index)
    constant = alike.nunique() < 2 or table.success.nunique() < 2
    return math.nan if constant else float(stats.spearmanr(alike, table.success).statistic)


def _less(frame: pd.DataFrame, more: str, *fewer: str) -> dict[str, float]:
    return {f"{one} against {more}": odds(frame, more) - odds(frame, one) for one in fewer}


def _at_a_cost(frame: pd.DataFrame) -> dict[str, float]:
    return {
        "success, fine-tuning minus scratch": success(frame, "fine_tuning") - success(frame, "scratch"),
        "clean accuracy, fine-tuning minus scratch": value(frame, "fine_tuning") - value(frame, "scratch"),
    }


def _competitive(frame: pd.DataFrame) -> dict[str, float]:
    margin = claims.get("NFD-C4").margin
    return {
        "minus fine-tuning": value(frame, "nfd") - value(frame, "fine_tuning"),
        # Above scratch means above zero: the margin, meant for the other part, is taken out of this one.
        f"minus scratch, {-margin:g} points taken off": value(frame, "nfd") - value(frame, "scratch") + margin,
    }


EFFECTS: dict[str, claims.Effect] = {
    "NFD-C1": lambda frame: success(frame, "fine_tuning") - success(frame, "fine_tuning", "noise"),
    "NFD-C2": lambda frame: odds(frame, "fine_tuning") - odds(frame, "nfd"),
    "NFD-C3": _at_a_cost,
    "NFD-C4": _competitive,
    "NFD-C5": lambda frame: _less(frame, "delta_r", "nfd_dropout", "nfd_averaging"),
    "NFD-C6": lambda frame: {name: -value for name, value in _less(frame, "fine_tuning", "l2_sp", "delta").items()},
    "NFD-C7": lambda frame: correlation(frame, "stages"),
}
ARMS = {
    "NFD-C1": lambda frame: (success(frame, "fine_tuning"), success(frame, "fine_tuning", "noise")),
    "NFD-C2": lambda frame: (success(frame, "fine_tuning"), success(frame, "nfd")),
    "NFD-C4": lambda frame: (value(frame, "nfd"), value(frame, "fine_tuning"), value(frame, "scratch")),
}


def controls(frame: pd.DataFrame) -> list[Control]:
    """The study's controls, in points; none for a single replicate."""
    main = core(frame)
    if len(main.seed.unique()) < 2:
        return []
    judged = ("fine_tuning", "l2_sp", "delta", "delta_r", "nfd_dropout", "nfd_averaging", "nfd", "scratch")
    valid = over_seeds(main, lambda part: success(part, "source"))
    noise = over_seeds(main, lambda part: success(part, "source") - success(part, "source", "noise"))
    question = over_seeds(main, lambda part: value(part, "fine_tuning") - value(part, "scratch"))
    readable = over_seeds(main, lambda part: min(value(part, name) for name in judged))
    white = over_seeds(main, lambda part: success(part, "nfd", "white box") - success(part, "nfd"))
    return [
        Control("the source's own decisions flipped", f"at least {VALID:g} %", valid.effect >= VALID, valid),
        Control("source flipped, attack minus noise of its size", "above zero", noise.low > 0, noise),
        Control("clean, fine-tuning minus scratch", f"at least {QUESTION:g}", question.effect >= QUESTION, question),
        Control(
            "lowest clean accuracy of a student judged", "at least 60", readable.effect >= 100 * READABLE, readable
        ),
        # Who has the student must do better than who has not, or its gradients would be hiding something.
        Control("full method fooled, white box minus transferred", "above zero", white.low > 0, white),
    ]


def verdicts(frame: pd.DataFrame, preset: str) -> dict[str, Verdict]:
    """Judge every claim that this study can speak of, by id."""
    return judging.verdicts(EFFECTS, ARMS, core(frame), preset, controls(frame), collapsed=())


def publish(frame: pd.DataFrame, preset: str, folder: Path | None = None) -> dict[str, Verdict]:
    """Judge the frame, keep it with its record (by default under runs/) and return the verdicts by claim."""
    found = verdicts(frame, preset)
    judging.publish(STUDY, frame, preset, found, controls(frame), collapsed=(), folder=folder)
    return found
