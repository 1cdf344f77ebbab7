"""What notebook 04 says about its own results."""

import math

import pandas as pd

from rtkit import prose
from rtkit.plots.attack_success import STUDENTS
from rtkit.studies.attack_success_effects import VALID, correlation, odds, success, value
from rtkit.studies.judging import over_seeds
from rtkit.studies.transfer_effects import pick

ENOUGH = 2000  # test images above which a ratio of more than ten is printed


def clean(frame: pd.DataFrame) -> str:
    """Whether there is anything to gain from the source, and where the full method stands."""
    lead = over_seeds(frame, lambda part: value(part, "fine_tuning") - value(part, "scratch"))
    labels = {"fine_tuning": "Fine-tuning reaches", "scratch": "training from scratch", "nfd": "NFD"}
    lines = [", ".join(f"{label} {value(frame, name):.1f} %" for name, label in labels.items()) + "."]
    lines.append(f"As to clean accuracy, {prose.compare(lead, 'fine-tuning', 'training from scratch')};")
    for other, label in (("fine_tuning", "fine-tuning"), ("scratch", "training from scratch")):
        gap = over_seeds(frame, lambda part, other=other: value(part, "nfd") - value(part, other))
        lines.append(f"{prose.compare(gap, 'NFD', label)}{';' if other == 'fine_tuning' else '.'}")
    return " ".join(lines)


def valid(frame: pd.DataFrame) -> str:
    """Whether the attack works on the network that it is made on."""
    flipped, noise, paper = (success(frame, "source", form) for form in ("any", "noise", "paper"))
    word = "so it is valid" if flipped >= VALID else f"fewer than the {VALID:g} % that make it valid"
    single = [100 * value for value in pick(frame, method="source", metric="attack_success_rate", form="any").value]
    return (
        f"The seven attacks together flip {flipped:.1f} % of the source's own decisions (in single replicates "
        f"{min(single):.1f} to {max(single):.1f} %), {word}; as many draws of noise "
        f"of the same size flip {noise:.1f} %. The paper's single unit flips {paper:.1f} %."
    )


def ratio(frame: pd.DataFrame, more: str, less: str) -> str:
    """How many times as often the attack fools one student as another, in words that the sample can bear."""
    n = int(pick(frame, method=less, metric="attack_success_rate", form="any").n_test.sum())
    high, low = success(frame, more), success(frame, less)
    if low == 0:
        return f"not once in {n} images" if high else "neither is ever fooled"
    times = high / low
    if times > 10 and n < ENOUGH:
        return "more than ten times as often; with fewer than 2,000 test images the number is not printed"
    return f"{times:.1f} times as often"


def outcome(frame: pd.DataFrame) -> str:
    """Whom the attack fools."""
    gap = over_seeds(frame, lambda part: odds(part, "fine_tuning") - odds(part, "nfd"))
    word = "**less often**" if gap.low > 0 else "**more often**" if gap.high < 0 else "**not clearly less often**"
    names = sorted(STUDENTS, key=lambda name: -success(frame, name))
    listed = "; ".join(f"{STUDENTS[name][0]} {success(frame, name):.1f} %" for name in names)
    return (
        f"Success of the attack (of images that are right when clean): {listed}. Noise of the same size fools "
        f"fine-tuning on {success(frame, 'fine_tuning', 'noise'):.1f} %. NFD is fooled {word} than fine-tuning, by "
        f"{prose.number(gap, 'log odds')}. Fine-tuning against NFD: {ratio(frame, 'fine_tuning', 'nfd')}."
    )


def noise(frame: pd.DataFrame) -> str:
    """What dropout and averaging do to the success."""
    lines = []
    for name, label in (("nfd_dropout", "dropout"), ("nfd_averaging", "averaging"), ("nfd", "the pair of them")):
        fall = over_seeds(frame, lambda part, name=name: odds(part, "delta_r") - odds(part, name))
        word = "**lowers**" if fall.low > 0 else "**raises**" if fall.high < 0 else "**does not clearly change**"
        lines.append(f"* {label} {word} the success: a fall of {prose.number(fall, 'log odds')}")
    return "\n".join(lines)


def limits(frame: pd.DataFrame) -> str:
    """What other attackers do to the full method."""
    white, adaptive, blind = (success(frame, "nfd", form) for form in ("white box", "adaptive", "any"))
    gain = over_seeds(frame, lambda part: odds(part, "nfd", "adaptive") - odds(part, "nfd"))
    word = "**more**" if gain.low > 0 else "**less**" if gain.high < 0 else "not clearly more or less"
    return (
        f"Who holds the NFD student itself fools {white:.1f} % of its images; fine-tuning falls to the same attack on "
        f"{success(frame, 'fine_tuning', 'white box'):.1f} %. Who knows the method and distils a surrogate fools "
        f"{adaptive:.1f} %, {word} than the attack on the public source with its {blind:.1f} %: "
        f"{prose.number(gain, 'log odds')}. The same surrogate's images fool fine-tuning on "
        f"{success(frame, 'fine_tuning', 'adaptive'):.1f} % and training from scratch on "
        f"{success(frame, 'scratch', 'adaptive'):.1f} %."
    )


def alike(frame: pd.DataFrame) -> str:
    """How success goes with similarity over the students."""
    lines = []
    for form, label in (("", "clean"), ("stages", "attacked")):
        try:
            found = over_seeds(frame, lambda part, form=form: correlation(part, form))
        except KeyError:
            return "Fewer than four students are right on 60 % of their images, so there is nothing to correlate."
        if math.isnan(found.effect):
            return "The students do not differ in success, so there is nothing to correlate."
        word = "rises" if found.low > 0 else "falls" if found.high < 0 else "neither clearly rises nor falls"
        number = f"{found.effect:+.2f}" + ("" if math.isinf(found.low) else f" [{found.low:+.2f}, {found.high:+.2f}]")
        lines.append(f"compared on {label} images, success **{word}** with similarity: rank correlation {number}")
    return "; ".join(lines).capitalize() + "."


def rates(table: pd.DataFrame) -> str:
    """What the learning rate does to fine-tuning.

    Args:
        table: of `by_rate`.
    """
    means = table[table.method == "fine_tuning"].groupby("lr")[["clean", "success"]].mean()
    ends = [
        f"at {lr:g} {row.clean:.1f} % right, fooled on {row.success:.1f} % of those" for lr, row in means.iterrows()
    ]
    if len(means) < 2:
        return f"Fine-tuning at a single learning rate: {ends[0]}."
    return f"Fine-tuning by learning rate: {'; '.join(ends)}."


def knobs(table: pd.DataFrame, chosen: tuple[float, float, float]) -> str:
    """What the sweep of the full method's knobs shows.

    Args:
        table: of `widgets.attack_success.settings`; chosen: weight, dropout, learning rate.
    """
    if len(table) < 2:
        return "A single setting makes no frontier; the sweep is part of the preset `glyphs-full`."
    weight, dropout, lr = chosen
    one = pick(table, weight=weight, dropout=dropout, lr=lr).iloc[0]
    better = int(((table.clean > one.clean) & (table.success < one.success)).sum())
    return (
        f"{len(table)} settings, {one.replicates:.0f} replicate{'s' if one.replicates > 1 else ''}: clean accuracy "
        f"from {table.clean.min():.1f} to {table.clean.max():.1f} %, success from {table.success.min():.1f} to "
        f"{table.success.max():.1f} %. The chosen one reaches {one.clean:.1f} and {one.success:.1f} %; {better} do "
        "better at both."
    )


def clipping(frame: pd.DataFrame) -> str:
    """What the paper's clipping does at eps = 0."""
    pixels = 100 * frame[frame.metric == "clipped_pixels"].value.mean()
    decided = success(frame, "source", "clipping")
    return (
        f"At eps = 0 the paper's clipping changes {pixels:.1f} % of the pixel values, and with them {decided:.1f} % of "
        f"the source's decisions; it makes {success(frame, 'fine_tuning', 'clipping'):.1f} % of fine-tuning's right "
        "answers wrong."
    )


def wider(table: pd.DataFrame) -> str:
    """Whether a wider source and wider students say the same.

    Args:
        table: `attack_success_effects.by_architecture`.
    """
    names = table.index.unique("architecture")
    if len(names) < 2:
        return "A second architecture is part of the preset `glyphs-full`."
    lines = []
    for name in names:
        part, listed = table.xs(name, level="architecture"), []
        for method, row in part.iterrows():
            listed.append(f"{STUDENTS[method][0]} {row.clean:.1f} % clean, {row.success:.1f} % fooled")
        fewer = "less often" if part.success["nfd"] < part.success["fine_tuning"] else "**not less often**"
        own = part.own.iloc[0]
        doubt = "" if own >= VALID else f", less than the {VALID:g} % asked for, so low success may be a weak attack"
        lines.append(
            f"* `{name}`: {'; '.join(listed)}. NFD is fooled {fewer} than fine-tuning. The attack flips {own:.0f} % of "
            f"this source's own decisions{doubt}."
        )
    count = f"{int(table.replicates.max())} replicates that have both architectures, too few for an interval"
    return "\n".join([f"Means over the {count}:\n", *lines])
