"""Sentences of notebook 02's section on real images, computed from its frame."""

import pandas as pd

from rtkit import plots, prose
from rtkit.studies import cue_conflict_effects as effects
from rtkit.studies.cue_conflict import ALL, FOLDER, KINDS
from rtkit.studies.judging import over_seeds
from rtkit.studies.transfer_effects import pick, score

NONE = (
    "No run on real images: put cue-conflict stimuli into `data/cue_conflict/` and CIFAR-10 into `data/cifar10.npz` "
    "(`data/README.md` says how to get both), then `rtkit run 02 --preset cifar-small`."
)


def kind(frame: pd.DataFrame, source: str) -> str:
    """What one kind of source network does on CIFAR-10 and on the stimuli, in percent."""
    there = frame[frame.target == FOLDER]
    share = {cue: score(there, source, f"{cue}_decisions", shape=ALL) for cue in ("shape", "texture", "other")}
    clean, attacked = (
        score(frame, source, metric, target="source") for metric in ("clean_accuracy", "robust_accuracy")
    )
    return (
        f"* {source}: by the shape {share['shape']:.1f} %, by the texture {share['texture']:.1f} %, by neither "
        f"{share['other']:.1f} %; shape bias {score(there, source, 'shape_bias', shape=ALL):.1f} %. On CIFAR-10's test "
        f"images {clean:.1f} % correct, {attacked:.1f} % under attack."
    )


def _by_class(there: pd.DataFrame) -> str:
    """In how many classes the robust networks are clearly above or below the standard ones."""
    rows = pick(there, metric="shape_bias")
    rows = plots.differences(rows[rows["shape"] != ALL], ["shape"])
    found = plots.summary(rows, ["shape"])  # no bounds, and so no claim, from a single replicate
    return (
        f"Class by class, of {len(found)} shapes the robust networks are clearly above the standard ones in "
        f"{(found.low > 0).sum()}, clearly below in {(found.high < 0).sum()}. Of so many intervals one may err."
    )


def tell(frame: pd.DataFrame | None) -> str:
    """What the networks decide by, and whether robust training or noise changes it.

    Args:
        frame: of the study, or None where there is none.
    """
    if frame is None:
        return NONE
    there = frame[frame.target == FOLDER]
    names = [name for name in there["shape"].unique() if name != ALL]
    n = int(pick(there, metric="shape_decisions", shape=ALL).n_test.max())
    kinds = [name for name in KINDS if name in set(there.source)]
    chance = 100 / len(names)
    lines = [
        f"{n} stimuli of {len(names)} classes ({', '.join(names)}); who guessed would decide by the shape in "
        f"{chance:.0f} %, by the texture as often, and have a shape bias of 50 %.\n",
        *(kind(frame, name) for name in kinds),
        "",
    ]
    for first in [name for name in kinds if name != "standard"]:
        bias = prose.compare(effects.lead(there, first=first), f"the {first} source", "the standard source")
        by_shape = prose.number(effects.lead(there, "shape_decisions", first))
        lines.append(f"In shape bias {bias}; decisions by the shape {by_shape}.")
    beyond = over_seeds(there, lambda part: score(part, "standard", "texture_decisions", shape=ALL) - chance)
    word = "**more often**" if beyond.low > 0 else "**less often**" if beyond.high < 0 else "**not clearly more often**"
    guess = f"The texture decides {word} in the standard networks than in guesses: {prose.number(beyond)}."
    return "\n".join([*lines, guess, _by_class(there)])
