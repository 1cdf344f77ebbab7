"""What notebooks 03 to 05 say about data sets of real images: those of the kit's own run, and a reader's."""

import pandas as pd

from rtkit import claims, prose
from rtkit.data import targets
from rtkit.plots.retention import NAMES
from rtkit.studies import attack_success_effects as attacks
from rtkit.studies import retention_effects as retained
from rtkit.studies.attack_success_effects import QUESTION, odds, success, value
from rtkit.studies.influence_effects import gain
from rtkit.studies.judging import over_seeds
from rtkit.studies.transfer_effects import pick, score

NONE = (
    "This run was given no data set of yours. Put one into `data/`, as `data/README.md` says, and name it: set "
    '`targets = ["mydata"]` in the cell of parameters, or `rtkit run {number} -p targets mydata` on the command line.'
)


def names(frame: pd.DataFrame | None) -> list[str]:
    """The data sets of real images in a frame, in its order; none without a frame."""
    if frame is None:
        return []
    return [name for name in frame.target.unique() if name not in (*targets.NAMES, "source")]


def _rates(*values: float) -> str:
    return " and ".join(f"{value:.1f} %" for value in values)


def influence(frame: pd.DataFrame, name: str) -> str:
    """The robust source's lead in label match on one data set, at its smallest number of images."""
    found = pick(frame[frame.seed == frame.source_seed], method="last_stage", target=name)
    n, test = int(found.n_train.min()), int(pick(found, metric="clean_accuracy").n_test.max())
    found = pick(found, n_train=n)
    clean = [score(found, source) for source in ("standard", "robust")]
    lines = [
        f"**{name}**, {n} training and {test} test images. Clean accuracy from the standard and the robust source: "
        f"{_rates(*clean)}."
    ]
    for ranking, words in (("influence", "the most helpful image"), ("neighbours", "the nearest neighbour")):
        where = {"metric": "top1_match", "score": ranking}
        match = [score(found, source, **where) for source in ("standard", "robust")]
        lead = over_seeds(found, lambda part, where=where: gain(part, **where))
        full = "; both saturated" if min(match) > 95 else ""
        lines.append(f"By label match of {words} ({_rates(*match)}{full}) {prose.compare(lead)}.")
    return " ".join(lines)


def attack_success(frame: pd.DataFrame, name: str) -> str:
    """Clean accuracy and attack success of fine-tuning, training from scratch and the full method on one data set."""
    found = attacks.core(frame[frame.target == name])
    labels = {"fine_tuning": "fine-tuning", "scratch": "from scratch", "nfd": "NFD"}
    clean = "; ".join(f"{label} {value(found, one):.1f} %" for one, label in labels.items())
    fooled = "; ".join(f"{label} {success(found, one):.1f} %" for one, label in labels.items())
    lead = over_seeds(found, lambda part: value(part, "fine_tuning") - value(part, "scratch"))
    fall = over_seeds(found, lambda part: odds(part, "fine_tuning") - odds(part, "nfd"))
    word = "**less often**" if fall.low > 0 else "**more often**" if fall.high < 0 else "**not clearly less often**"
    own = success(found, "source")
    doubt = (
        ""
        if own >= attacks.VALID
        else f" **Not valid here**: on average the attack flips {own:.1f} % of the source's own decisions, less than "
        f"the {attacks.VALID:g} % asked for, so nothing of this is judged."
    )
    question = (
        f"is at least {QUESTION:g} points, so there is something to gain from the source"
        if lead.effect >= QUESTION
        else f"is less than {QUESTION:g} points, so nobody needs the source here"
    )
    return (
        f"**{name}**, {attacks.judged_size(found)} training and {int(found.n_test.max())} test images. Clean accuracy: "
        f"{clean}. Fine-tuning's lead over training from scratch {question}. Success of the attack: {fooled}; noise of "
        f"its size fools fine-tuning on {success(found, 'fine_tuning', 'noise'):.1f} %. NFD is fooled {word} than "
        f"fine-tuning, by {prose.number(fall, 'log odds')}.{doubt}"
    )


def retention(frame: pd.DataFrame, name: str) -> str:
    """What more training does to clean and robust accuracy on one data set, from the robust source."""
    found = frame[frame.target == name]

    def difference(first: tuple, second: tuple, metric: int) -> claims.Interval:
        def one(part: pd.DataFrame) -> float:
            ends = [retained.point(part, *arm, target=name)[metric] for arm in (first, second)]
            return ends[0] - ends[1]

        return over_seeds(found, one)

    lines = [f"**{name}**, {int(found.n_train.max())} training images. Clean accuracy and accuracy under attack:"]
    for source in ("robust", "standard"):
        points = [
            f"{NAMES[method]} {_rates(*retained.point(found, method, source, target=name))}"
            for method in ("head", "full_network", "lwf")
        ]
        lines.append(f"from the {source} source {', '.join(points)}{';' if source == 'robust' else '.'}")
    for method, words in (("full_network", "training all layers"), ("lwf", "learning without forgetting")):
        clean, robust = (difference((method, "robust"), ("head", "robust"), metric) for metric in (0, 1))
        change = "**gains**" if robust.low > 0 else "**loses**" if robust.high < 0 else "does **not clearly change**"
        lines.append(
            f"From the robust source, against the head alone, {words} {change} robust accuracy "
            f"({prose.number(robust)}; clean {prose.number(clean)})."
        )
    kept = difference(("head", "robust"), ("head", "standard"), 1)
    return " ".join([*lines, f"Under attack, by the head alone, {prose.compare(kept)}."])


TELL = {"influence": influence, "attack_success": attack_success, "retention": retention}


def tell(study: str, number: str, frame: pd.DataFrame, kit: pd.DataFrame | None = None) -> str:
    """What a study found on real images: in the kit's run, where there is one, and in the reader's, a line a data set.

    Args:
        number: of the notebook; frame: the reader's run, in which no data set may have been named.
        kit: the frame of a preset of real images that comes with the kit.
    """
    parts = []
    for title, found in (("The kit's run at `cifar-small`", kit), ("Your run", frame)):
        lines = [f"* {TELL[study](found, name)}" for name in names(found)]
        parts += [f"{title}:", "\n".join(lines)] if lines else []
    return "\n\n".join(parts + ([] if names(frame) else [NONE.format(number=number)]))
