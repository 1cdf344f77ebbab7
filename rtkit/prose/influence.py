"""Sentences of notebook 03, computed from its frame, so that they read true whichever way the results fall."""

import pandas as pd

from rtkit import prose
from rtkit.claims import Interval
from rtkit.studies import influence_effects as effects
from rtkit.studies.influence_effects import core
from rtkit.studies.transfer_effects import pick, score

SATURATED = 95.0  # percent, as the judge has it


def _mean(frame: pd.DataFrame, **where) -> float:
    return pick(frame, **where).value.mean()


def proof(frame: pd.DataFrame) -> str:
    """How well influence predicts leaving images out, where parameters are few and where they are many."""
    found = pick(core(frame), method="fixed_feature")
    large = int(found[found.metric == "lds"].n_train.max())
    small = int(found[found.metric == "loo_pearson"].n_train.min())

    def one(n: int, name: str, metric: str) -> float:
        return _mean(found, n_train=n, score=name, metric=metric)

    newton = one(large, "newton", "loo_error") < one(large, "influence", "loo_error")
    least = pick(found, n_train=large, score="influence", metric="loo_pearson").value.min()
    worse = one(small, "influence", "loo_pearson") < one(large, "influence", "loo_pearson")
    return (
        f"With n = {large} and few components, first-order influence correlates with the truth at "
        f"{one(large, 'influence', 'loo_pearson'):.4f} (worst replicate {least:.3f}), the Newton step at "
        f"{one(large, 'newton', 'loo_pearson'):.4f}; relative errors {one(large, 'influence', 'loo_error'):.2f} and "
        f"{one(large, 'newton', 'loo_error'):.2f}: the Newton step is the {'better' if newton else 'worse'} one. "
        f"LDS: {one(large, 'influence', 'lds'):.2f}; gradient products reach {one(large, 'products', 'lds'):.2f}.\n\n"
        f"With n = {small} and all features (more parameters than images, hardly any ridge) first order is at "
        f"{one(small, 'influence', 'loo_pearson'):.3f} with an error of {one(small, 'influence', 'loo_error'):.2f}: "
        f"{'here it fails' if worse else 'here it does not do worse'}, and the Newton step is at "
        f"{one(small, 'newton', 'loo_pearson'):.3f}."
    )


def match(frame: pd.DataFrame) -> str:
    """Top-1 and three-of-five label match by number of training images."""
    found, lines = pick(core(frame), method="last_stage", score="influence"), []
    for n in sorted(found[found.source == "robust"].n_train.unique()):
        for metric, words in (("top1_match", "top 1"), ("top5_match", "at least 3 of the top 5")):
            values = [score(found, source, metric, n_train=n) for source in ("standard", "robust")]
            gain = effects.match_gain(frame, "influence", metric, n)
            full = " (both saturated)" if min(values) > SATURATED else ""
            words = f"* n = {n}, {words}: standard {values[0]:.1f} %, robust {values[1]:.1f} %{full}; "
            lines.append(words + prose.compare(gain))
    return "\n".join(lines)


def saturation(frame: pd.DataFrame) -> str:
    """What the match is on misclassified images, and what is left of it when the true label is not told."""
    found = pick(core(frame), method="last_stage", n_train=effects.few(frame), source=("standard", "robust"))
    wrong = pick(found, metric="top1_match_misclassified")
    if not len(wrong):
        return "No test image is misclassified in this run."
    told = 100 * _mean(wrong, score="influence")
    untold, near = (100 * _mean(wrong, score=name) for name in ("predicted", "neighbours"))
    verdict = (
        "The label comes from the loss, not from what the network sees"
        if told - untold > 30
        else "Telling the label makes little difference here"
    )
    return (
        f"On **misclassified** test images, influence on the true label's loss still ranks an image of the true label "
        f"first in {told:.0f} % of cases; on the loss of the label that the network *predicts*, in {untold:.0f} %; the "
        f"nearest neighbour has the true label in {near:.0f} %. {verdict}."
    )


def matched(frame: pd.DataFrame) -> str:
    """The lead in label match beside what is left of it with heads of equal accuracy."""
    lines = []
    for name, words in (("influence", "influence"), ("neighbours", "nearest neighbours"), ("kernel", "the kernel")):
        same, equal = effects.match_gain(frame, name), effects.matched_gain(frame, "top1_match", name)
        lines.append(f"* {words}: {prose.number(same)} with the same images, {prose.number(equal)} at equal accuracy")
    kept = effects.matched_gain(frame, "top1_match", "neighbours")
    told = (
        "more than accuracy"
        if kept.low > 0
        else "less than that"
        if kept.high < 0
        else "no more than accuracy, as far as one can tell"
    )
    left = prose.number(effects.matched_gain(frame, "clean_accuracy"))
    sizes = [size for _, part in core(frame).groupby("seed") for size in effects.matched_sizes(part).values()]
    counts = ", ".join(f"{n} ({sizes.count(n)} of {len(sizes)} times)" for n in sorted(set(sizes)))
    head = f"Images that bring the standard source nearest the robust one's {effects.few(frame)}: {counts}."
    lines.append(f"\nSo the lead of the nearest neighbours, which no label is told to, is {told}.")
    return "\n".join([f"{head} Accuracy left between them: {left}. The robust source's lead in top-1 match:\n", *lines])


def mislabelled(frame: pd.DataFrame) -> str:
    """AUC of finding wrong labels: self-influence against the loss, robust against standard."""
    found = pick(core(frame), metric="mislabelled_auc")

    def difference(part: pd.DataFrame, one: dict, other: dict) -> float:
        return 100 * (_mean(part, **one) - _mean(part, **other))

    loss, own = {"score": "loss"}, {"score": "self_influence"}
    ranked = effects.over_seeds(found, lambda part: difference(part, own, loss))
    robust = effects.over_seeds(found, lambda part: difference(part, {"source": "robust"}, {"source": "standard"}))
    table = found.groupby(["source", "score"]).value.mean()
    return (
        f"AUC of self-influence: standard {table['standard', 'self_influence']:.3f}, robust "
        f"{table['robust', 'self_influence']:.3f}; of the plain loss: {table['standard', 'loss']:.3f} and "
        f"{table['robust', 'loss']:.3f}. By AUC (x 100), {prose.compare(ranked, 'self-influence', 'the plain loss')}. "
        f"Mean of both scores: {prose.compare(robust)}."
    )


def removal(frame: pd.DataFrame) -> str:
    """Predicted and measured change of the loss when helpful or random images go."""
    found = core(frame)

    def nats(metric: str, name: str) -> Interval:
        return effects.over_seeds(found, lambda part: _mean(part, metric=metric, score=name))

    measured, chance = (nats("removal_measured", name).effect for name in ("helpful", "random"))
    predicted = nats("removal_predicted", "helpful").effect
    missed = effects.over_seeds(
        found,
        lambda part: (
            _mean(part, metric="removal_measured", score="helpful")
            - _mean(part, metric="removal_predicted", score="helpful")
        ),
    )
    adds = missed.low <= 0 <= missed.high
    k = int(found[found.metric == "removal_measured"]["rank"].max())
    short = f"{100 * predicted / measured:.0f} % of it" if measured > 0 else "more than that"
    return (
        f"Removing the {k} most helpful images raises a test image's loss by {measured:+.3f} nats, {k} random ones by "
        f"{chance:+.3f}. Adding up first-order influences predicts {predicted:+.3f}, {short}: what single removals do "
        f"{'adds up, as far as one can tell' if adds else 'does not simply add up'}."
    )
