"""The retention study: its arms, its effects on made-up frames, sentences that follow the result."""

import pandas as pd
import pytest
import torch

from rtkit.data import targets
from rtkit.data.glyphs import World
from rtkit.plots import retention as figures
from rtkit.prose import retention as say
from rtkit.studies import retention
from rtkit.studies import retention_effects as effects
from rtkit.widgets.retention import retention_explorer, sentence


def test_cued_digits_lie_as_often_as_the_world_says():
    """Shape reliability changes labels and textures, never the digits, and the texture goes with the label."""
    honest, lying = (
        targets.target("digits_cued", World(texture_amplitude=8 / 255, shape_reliability=q), 100) for q in (1.0, 0.7)
    )
    plain, textured = (
        targets.target(name, World(texture_amplitude=8 / 255), 100) for name in ("digits", "digits_textured")
    )
    assert torch.equal(honest.pool.y, plain.pool.y)
    assert torch.equal(honest.pool.x, textured.pool.x)
    kept = lying.pool.y == plain.pool.y
    assert float(kept.float().mean()) == pytest.approx(0.7, abs=0.05)
    assert torch.equal(lying.pool.x[kept], honest.pool.x[kept])
    assert all(not torch.equal(a, b) for a, b in zip(lying.pool.x[~kept][:20], honest.pool.x[~kept][:20], strict=True))
    same = (lying.pool.x.float() - plain.pool.x.float() * 0.8 - 25.5).abs().amax()
    assert float(same) <= 8.6


def test_methods_by_name():
    head = retention.method("head", 100, 0.3)
    assert (head.phases[0].trainable, head.phases[0].batchnorm, head.hidden) == (0, "frozen", ())
    assert retention.method("mlp 2", 100, 0.3).hidden == (64, 64)
    assert retention.method("head, statistics adapt", 100, 0.3).phases[0].batchnorm == "adapt"
    assert retention.method("last_stage, statistics frozen", 100, 0.3).phases[0].batchnorm == "frozen"
    first, second = retention.method("lwf", 100, 0.1, 0.5).phases
    assert (first.steps, second.steps, first.trainable, second.trainable) == (20, 80, 0, None)
    assert (first.terms, second.terms[0].weight) == ((), 0.5)
    scratch, tuned = (retention.method(f"adversarial, {how}", 9, 0.1) for how in ("from scratch", "fine-tuned"))
    assert (scratch.init, tuned.init) == ("random", "source")
    assert scratch.phases[0].adversary.threat == retention.THREAT
    with pytest.raises(ValueError, match="no protocol is called 'linear'"):
        retention.method("linear", 9, 0.1)


def test_every_arm_has_the_same_steps_and_a_tuned_rate():
    plan = retention.plan("glyphs-full", [0])
    assert {sum(phase.steps for phase in student.method.phases) for student in plan} == {retention.Plan.steps}
    assert set(retention.LEARNING_RATES.values()) <= set(retention.LEARNING_RATE_GRID)
    assert set(retention.plan("glyphs", [0])) <= set(plan)
    assert len(plan) == len(set(plan))


HEAD, FULL, LWF = (70.0, 50.0), (85.0, 10.0), (75.0, 60.0)


def made_up(full=FULL, lwf=LWF, seeds=(0, 1, 2, 3, 4)) -> pd.DataFrame:
    rows = []

    def add(
        seed, name, clean, robust, source="robust", shape=0.85, n=900, weight=0.0, target=retention.TARGET, cost=50
    ):
        common = {"study": "retention", "method": name, "source": source, "target": target, "n_train": n, "seed": seed}
        common |= {"shape_reliability": shape, "weight": weight, "n_test": 400, "seconds": 1.0, "gradients": cost}
        noise = 0.2 * (seed - 2)
        values = {
            "clean_accuracy": clean + noise,
            "robust_accuracy": robust,
            "self_check_warnings": 0.0,
            "collapsed": 0,
        }
        rows.extend(common | {"metric": key, "value": value / 100} for key, value in values.items())

    for seed in seeds:
        for shape in (0.7, 0.85, 1.0):
            add(seed, "head", *HEAD, shape=shape)
            add(seed, "full_network", *full, shape=shape)
            add(seed, "lwf", *lwf, shape=shape, weight=retention.LAMBDA)
        for name in ("last_block", "last_stage", "last_two_stages"):
            add(seed, name, 72, 45)
        add(seed, "mlp", 71, 52)
        for name, (clean, _) in {"head": HEAD, "full_network": full}.items():
            add(seed, name, clean, 0, "standard")
        add(seed, "lwf", 80, 0, "standard", weight=retention.LAMBDA)
        add(seed, "head", 60, 45, n=retention.LOW_DATA)
        add(seed, effects.ADVERSARIAL, 40, 30, n=retention.LOW_DATA, cost=150)
        add(seed, "source itself", 85, 83, target="source")
        add(seed, "lwf", 88, 70, target="source", n=5000, weight=retention.LAMBDA)
    return pd.DataFrame(rows)


def test_verdicts_follow_the_frame():
    found = effects.verdicts(made_up(), "glyphs")
    missing = {name: found.pop(name).reason for name in list(found) if name.startswith("LwF-C6@")}
    assert set(missing.values()) == {"not_run"}  # one number of images
    assert {verdict.verdict for verdict in found.values()} == {"supported"}
    assert set(found) | set(missing) == set(effects.EFFECTS)
    assert found["LwF-C1"].effect == pytest.approx(50)
    assert found["LwF-C2@digit always right"].effect == pytest.approx(15)  # two depths: their difference
    assert found["LwF-C4"].effect == pytest.approx(3)
    assert found["LwF-C5"].effect == pytest.approx(5 - 2)  # robust accuracy two points higher
    assert found["LwF-C6"].effect == pytest.approx(15)
    flipped = effects.verdicts(made_up(full=(85.0, 70.0), lwf=(65.0, 60.0)), "glyphs")
    assert {flipped[name].verdict for name in ("LwF-C2", "LwF-C3")} == {"contradicted"}
    last = made_up()
    last.loc[
        last.method.isin(["last_block", "last_stage", "last_two_stages"]) & (last.metric == "robust_accuracy"), "value"
    ] = 0.51  # a little more than the head: only the last step costs
    assert effects.verdicts(last, "glyphs")["LwF-C2"].reason == f"weakest part: {effects.BEFORE_LAST}"
    assert effects.verdicts(last, "glyphs")["LwF-C2"].verdict != "supported"
    kept = made_up()
    kept.loc[(kept.source == "standard") & (kept.method == "head") & (kept.metric == "robust_accuracy"), "value"] = 0.3
    assert effects.verdicts(kept, "glyphs")["LwF-C1"].reason.startswith("invalid_control: a standard source's features")


def test_sentences_read_true_either_way():
    frame, flipped = made_up(), made_up(full=(85.0, 70.0), lwf=(65.0, 40.0))
    assert "all layers **loses** (-40.0" in say.by_shape(frame)
    assert "all layers **gains** (+20.0" in say.by_shape(flipped)
    assert "all layers, LwF **gains** (+10.0" in say.by_shape(frame)
    assert "50 % of the attacked ones, 71% of the former" in say.head(frame)
    assert "falls with every step" in say.depth(frame)
    assert "does not fall with every step" in say.depth(flipped)
    assert "against head alone: clean +5.0" in say.forgetting(frame)
    assert "* 100 images: clean +20.0" in say.low_data(frame)
    assert "3.0 times cheaper" in say.low_data(frame)
    assert "+3.0 and -13.0 points" in say.same(frame)
    assert "part of `glyphs-full`" in say.weights(frame)


def test_figures_and_explorer():
    frame = made_up()
    assert (
        len(figures.by_shape(frame).axes) == len(figures.by_depth(frame).axes) == len(figures.low_data(frame).axes) == 2
    )
    assert figures.plane(frame).get_xlabel() == "clean accuracy (%)"
    assert figures.table(frame).loc[("robust", "head"), "robust (%)"] == 50
    rows = frame[(frame.source == "robust") & (frame.shape_reliability == 0.85) & (frame.n_train == 900)]
    assert "85.0 % clean, 10.0 % under attack; against the head alone +15.0 and -40.0 points" in sentence(
        rows, 0.85, ("full_network", 0.0)
    )
    assert "not in this frame" in sentence(rows, 0.85, ("lwf", 9.0))
    assert "all layers" in retention_explorer(frame).children[0].value
