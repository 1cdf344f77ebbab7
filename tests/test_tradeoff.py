"""The trade-off study: frontiers by hand, effects on made-up frames, sentences that follow the result."""

import numpy as np
import pandas as pd
import pytest

from rtkit import claims, methods
from rtkit.plots import tradeoff as figures
from rtkit.prose import tradeoff as say
from rtkit.studies import tradeoff
from rtkit.studies import tradeoff_effects as effects
from rtkit.widgets.tradeoff import sentence, tradeoff_explorer

BASE = np.array([[99.0, 0.0], [90.0, 60.0], [85.0, 80.0], [84.0, 70.0]])  # the last is worse than the third on both


def test_frontier_keeps_what_nothing_beats():
    assert effects.frontier(BASE).tolist() == [[85.0, 80.0], [90.0, 60.0], [99.0, 0.0]]
    assert effects.frontier(np.array([[50.0, 50.0], [50.0, 40.0]])).tolist() == [[50.0, 50.0]]
    # A coin tossed between the outer two reaches 90 and 50.
    assert effects.frontier(np.array([[80.0, 80.0], [90.0, 40.0], [100.0, 20.0]])).tolist() == [[80, 80], [100, 20]]


def test_height_by_hand():
    assert effects.height(BASE, (87.5, 80.0)) == pytest.approx(10)  # half way between 80 and 60
    assert effects.height(BASE, (90.0, 60.0)) == pytest.approx(0)
    assert effects.height(BASE, (80.0, 75.0)) == pytest.approx(-5)  # the base has 85 and 80: more of both
    assert effects.height(BASE, (99.5, 85.0)) == pytest.approx(5)  # beats every point
    with pytest.raises(claims.OutOfRange, match=r"99\.5 lies beyond"):
        effects.height(BASE, (99.5, 70.0))


def test_settled_rests_at_a_small_rate():
    (phase,) = methods.adversarial("pgd_at", 2 / 255, steps=100, lr=0.4).phases
    first, rest = tradeoff.settled(phase)
    assert (first.steps, rest.steps) == (80, 20)
    assert (rest.lr, rest.schedule, rest.adversary.warmup) == (pytest.approx(0.008), "constant", 0.0)


def test_every_arm_has_the_same_budget():
    plan = tradeoff.plan("glyphs-full", [0])
    rates = {phase.lr for student in plan for phase in student.method.phases[:1]}
    assert rates == {tradeoff.LEARNING_RATE}
    steps = {sum(phase.steps for phase in student.method.phases) for student in plan}
    assert steps == {tradeoff.PLANS["glyphs-full"].steps}
    assert set(tradeoff.plan("glyphs", [0])) <= set(plan)
    for preset, replicates in (("glyphs", 3), ("glyphs-full", 5)):
        assert len({student.seed for student in tradeoff.plan(preset)}) == replicates


def made_up(lift: float, seeds=(0, 1, 2)) -> pd.DataFrame:
    """PGD-AT with the points of BASE; taught points `lift` above it; a little noise between replicates."""
    rows = []

    def add(seed, method, knob, clean, robust, weight=0.0, checkpoint="last"):
        common = {"study": "tradeoff", "method": method, "knob": knob, "seed": seed, "n_test": 500, "seconds": 1.0}
        common |= {"weight": weight, "checkpoint": checkpoint, "teacher": "standard" if weight else "none"}
        values = {"clean_accuracy": clean, "robust_accuracy": robust, "moved": 0.2, "only_transferred": 0.1}
        values |= {"self_check_warnings": 0.0, "collapsed": 0.0, "generalisation_gap": 3.0}
        rows.extend(common | {"metric": name, "value": value / 100} for name, value in values.items())

    for seed in seeds:  # robust accuracy 70 lies on the frontier at clean accuracy 87.5
        noise = (0.2, -0.1, -0.1)[seed % 3]
        for checkpoint in ("last", "best"):
            for knob, (clean, robust) in zip((0.0, 1.0, 2.0, 4.0), BASE, strict=True):
                add(seed, "pgd_at", knob, clean, robust, checkpoint=checkpoint)
            for weight in tradeoff.WEIGHTS:
                add(seed, "pgd_at+vfd", 2.0, 87.5, 70 + lift + noise, weight, checkpoint)
        for name in ("clean images only", "attacked images only", "robust teacher"):
            add(seed, name, 2.0, 87.5, 70 + noise, tradeoff.MAIN_WEIGHT)
        add(seed, "logits", 2.0, 87.5, 70 + noise, tradeoff.LOGITS_WEIGHT)
        for name in ("region", "rat", "mart"):
            add(seed, name, 2.0, 87.5, 70 + noise)
        for sigma, robust in ((0.5, 10), (1.0, 20), (2.0, 40)):
            add(seed, "arks", sigma, 99 - sigma, robust + noise)
    return pd.DataFrame(rows)


def test_verdicts_follow_the_frame():
    up, down = (effects.verdicts(made_up(lift), "glyphs-full") for lift in (5.0, -5.0))
    assert (up["VFD-C2"].verdict, down["VFD-C2"].verdict) == ("supported", "contradicted")
    assert up["VFD-C2"].effect == pytest.approx(5.0)
    assert up["VFD-C1"].effect == pytest.approx(2.5)
    assert (up["VFD-C3"].verdict, down["VFD-C4"].verdict) == ("supported", "contradicted")
    assert up["ARKS-A3"].verdict == "supported"
    assert {verdict.reason for verdict in effects.verdicts(made_up(5.0, (0,)), "smoke").values()} == {"smoke"}


def test_a_frame_without_a_trade_off_is_not_judged():
    flat = made_up(5.0)
    flat.loc[flat.metric == "clean_accuracy", "value"] = 0.85
    found = effects.verdicts(flat, "glyphs")["VFD-C2"]
    assert (found.verdict, found.reason.partition(":")[0]) == ("not_judged", "invalid_control")


def test_sentences_read_true_either_way():
    assert "lie **above** the frontier: +5.0" in say.taught(made_up(5.0))
    assert "lie **below** the frontier: -5.0" in say.taught(made_up(-5.0))
    assert "part of `glyphs-full`" in say.taught(made_up(5.0), "trades")
    assert "there is a trade-off to improve" in say.span(made_up(5.0))
    assert say.ablation(made_up(5.0)).splitlines()[2].startswith("* PGD-AT + VFD")
    assert say.ablation(made_up(-5.0)).splitlines()[-1].startswith("* PGD-AT + VFD")
    assert "**does not clearly change**" in say.checkpoints(made_up(5.0))
    assert "* RAT: +2.5 points clean, -10.0 points robust" in say.others(made_up(5.0))


def test_figures_and_explorer():
    frame = made_up(5.0)
    assert figures.frontier(frame).get_xlabel() == "clean accuracy (%)"
    assert [text.get_text() for text in figures.heights(frame).get_yticklabels()][-1] == "PGD-AT + VFD, weight 3"
    assert figures.others(frame).get_legend()
    assert figures.checkpoints(frame).get_legend()
    assert figures.table(frame).loc[("pgd_at", 4.0, 0.0), "robust (%)"] == 70
    assert "87.5 % clean, 75.0 % robust, +5.0 points above PGD-AT's frontier" in sentence(frame, "pgd_at", 2.0, 1.0)
    assert "not in this frame" in sentence(frame, "pgd_at", 4.0, 1.0)
    box = tradeoff_explorer(frame)
    assert "no teacher" in box.children[0].value
