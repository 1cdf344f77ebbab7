"""The study behind notebook 01: its plan, its effects on a made-up frame, its verdicts and its prose when they flip."""

import math

import pandas as pd
import pytest

from rtkit import claims, plots, presets, prose, widgets
from rtkit.data.glyphs import World
from rtkit.prose import transfer as say
from rtkit.studies import cells, judging, transfer
from rtkit.studies import transfer_effects as effects
from rtkit.studies.transfer import FINE, MAIN_EPS, SHAPES

WORLD = World()
JITTER = (0.0, 0.004, -0.003, 0.002, -0.001)  # so that five replicates have an interval


def row(seed: int, source: str, target: str, method: str, value: float, **more) -> dict:
    eps = {"standard": 0.0, "untrained": 0.0}.get(source, MAIN_EPS)
    base = {
        "study": "transfer",
        "method": method,
        "source": source,
        "source_eps": eps,
        "target": target,
        "n_train": 100,
    }
    base |= {"seed": seed, "metric": "clean_accuracy", "value": value, "n_test": 597, "seconds": 1.0, "gradients": 1}
    base |= {"step": 80, "source_seed": seed, "texture_amplitude": WORLD.texture_amplitude}
    return base | {"shape_reliability": WORLD.shape_reliability} | more


def made_up(lead: float) -> pd.DataFrame:
    """A frame of five replicates in which the robust source leads by `lead` wherever shape decides."""
    rows = []
    for seed, jitter in enumerate(JITTER):
        for source, plus in (("standard", 0.0), ("robust", lead + jitter)):
            rows.append(row(seed, source, "source", "none", 0.9 - plus / 2, n_train=0))
            rows.append(row(seed, source, "source", "none", 0.5 if source == "standard" else 0.9, metric="shape_bias"))
            rows.append(row(seed, source, "source", "none", 0.0, metric="self_check_warnings"))
            rows.append(row(seed, source, "source", "none", 0.0, metric="collapsed"))
            for n, shrink in ((100, 1.0), (400, 0.6), (900, 0.2)):
                for target in SHAPES:
                    value = 0.7 + plus * shrink
                    rows.append(row(seed, source, target, "last_stage", value, n_train=n))
                    if n == 400:
                        rows.append(
                            row(
                                seed,
                                source,
                                target,
                                "last_stage",
                                0.4 + 1.5 * plus,
                                n_train=n,
                                step=8,
                                metric="accuracy_at_step",
                            )
                        )
            for target in SHAPES:
                for method in ("fixed_feature", "full_network"):
                    for metric in ("clean_accuracy", "validation_accuracy"):
                        rows.append(row(seed, source, target, method, 0.6 + plus, metric=metric))
            for target, value in ((FINE, 0.9 - plus), (f"{FINE}_low", 0.6 + plus), ("textures", 0.8 - 5 * abs(plus))):
                for metric in ("clean_accuracy", "validation_accuracy"):
                    rows.append(row(seed, source, target, "fixed_feature", value, metric=metric))
        for target, gain in (("digits", 0.05), ("lower", -0.05)):
            rows.append(row(seed, "robust", target, "last_block", 0.7 + lead + jitter - gain))
            rows.append(row(seed, "robust", target, "last_two_stages", 0.6 + lead))
            rows.append(row(seed, "untrained", target, "fixed_feature", 0.3 + jitter))
            rows.append(row(seed, "standard", target, "fixed_feature", 0.6 + 2 * jitter, source_seed=seed + 1000))
    return pd.DataFrame(rows)


def test_effects_by_hand():
    frame = effects.core(made_up(0.10))
    replicate = frame[frame.seed == 0]
    several = ("U-C7", "S-C1", "S-C4")  # they need several radii
    wanted = {name: effect for name, effect in effects.EFFECTS.items() if name not in several}
    found = {name: effect(replicate) for name, effect in wanted.items()}
    expected = {
        "U-C1": 8.0,
        "U-C2": 8.0,
        "U-C4": 9.0,
        "U-C5": 10.0,
        "S-C2": 10.0,
    }
    assert {name: found[name] for name in expected} == pytest.approx(expected)
    assert list(found["U-C3"].values()) == pytest.approx([2.0, 4.0])
    assert list(found["U-C6"].values()) == pytest.approx([5.0, 5.0, 10.0])
    assert list(found["S-C5"].values()) == pytest.approx([20.0, 10.0])
    for name in several:
        with pytest.raises(KeyError):
            effects.EFFECTS[name](replicate)


def test_verdicts_flip_with_the_frame():
    found, flipped = (effects.verdicts(made_up(lead), "glyphs") for lead in (0.10, -0.10))
    for name in ("U-C1", "U-C5", "S-C2"):
        assert (found[name].verdict, flipped[name].verdict) == ("supported", "contradicted"), name
    assert found["U-C7"].reason == "not_run"
    assert {verdict.verdict for verdict in effects.verdicts(made_up(0.10), "smoke").values()} == {"not_judged"}


def test_the_best_eps_is_chosen_on_validation_images_only():
    frame = made_up(0.10)
    tempting = frame[(frame.source == "robust") & frame.method.eq("fixed_feature")].assign(source_eps=8 / 255)
    tempting = tempting.assign(
        value=tempting.value + tempting.metric.map({"clean_accuracy": 0.2, "validation_accuracy": -0.2})
    )
    frame = pd.concat([frame, tempting])
    replicate = frame[frame.seed == 0].query("source_seed == seed")
    assert effects.EFFECTS["S-C1"](replicate) == pytest.approx(10.0)
    assert effects.EFFECTS["S-C4"](replicate) == pytest.approx(4.0)


def test_sizes_that_only_some_sources_have_do_not_disturb():
    frame = made_up(0.10)
    extra = frame[
        frame.method.isin(["fixed_feature", "last_stage"]) & (frame.n_train == 100) & frame.target.isin(SHAPES)
    ]
    more = pd.concat([frame, extra.assign(n_train=50)])
    before, after = (effects.verdicts(one, "glyphs") for one in (frame, more))
    assert effects.few(more) == 100
    for name in ("S-C2", "S-C5", "U-C6"):
        assert after[name] == before[name]


def test_failing_controls_stop_the_verdicts():
    frame = made_up(0.10)
    assert all(control.holds for control in effects.controls(frame))
    odd = frame.assign(value=frame.value.where(frame.source_seed == frame.seed, frame.value + 0.3))
    assert [control.name for control in effects.controls(odd) if not control.holds] == [
        "two standard sources of different seed (99 % interval)"
    ]
    assert effects.verdicts(odd, "glyphs")["U-C1"].reason.startswith("invalid_control: two standard sources")
    immune = frame.assign(value=frame.value.where(frame.target != "textures", 0.8))
    assert "textures only" in str([control for control in effects.controls(immune) if not control.holds])


def test_collapsed_replicates_cap_the_verdict():
    frame = made_up(0.10)
    fell = (frame.metric == "collapsed") & (frame.seed == 2) & (frame.source == "robust")
    frame = frame.assign(value=frame.value.where(~fell, 1.0))
    assert judging.collapsed(effects.core(frame)) == [2]
    assert effects.verdicts(frame, "glyphs")["U-C1"].verdict == "inconclusive"


@pytest.mark.parametrize(("lead", "word"), [(0.10, "**ahead**"), (-0.10, "**behind**"), (0.0, "**not told apart**")])
def test_prose_follows_the_frame(lead, word):
    frame = made_up(lead)
    where = {"method": "last_stage", "n_train": 100, "target": "digits"}
    assert word in prose.compare(effects.gain_interval(frame, **where))
    sentence = widgets.transfer_sentence(frame[frame.metric == "clean_accuracy"], "digits", "last_stage", MAIN_EPS, 100)
    assert word.strip("*") in sentence
    assert f"{100 * lead:+.1f}"[:3] in sentence or lead == 0
    judged = effects.verdicts(frame, "glyphs")["U-C1"]
    assert {"supported": "Supported", "contradicted": "Contradicted", "inconclusive": "Inconclusive"}[
        judged.verdict
    ] in prose.verdict(judged)


def test_prose_of_one_replicate_and_of_change():
    assert "single replicate" in prose.compare(claims.interval([3.0]))
    assert "**grows**" in prose.change(claims.Interval(2, 1, 3, 5), "It")
    assert "**shrinks**" in prose.change(claims.Interval(-2, -3, -1, 5), "It")
    assert "Not judged: smoke" in prose.verdict(claims.unjudged(claims.load()["U-C1"], "smoke", "none", "smoke"))


@pytest.mark.parametrize(
    ("lead", "word"), [(20.0, "ahead in 3, clearly behind in 0"), (-20.0, "ahead in 0, clearly behind in 3")]
)
def test_prose_of_the_phase_diagram_follows_the_table(lead, word):
    table = pd.DataFrame({"texture_amplitude": [0.0, 0.04, 0.04], "shape_reliability": [1.0, 0.85, 1.0]})
    table = table.assign(mean=lead, low=lead - 1, high=lead + 1, bias=[100.0, 10.0, 95.0])
    sentence = say.phase(table)
    assert word in sentence
    assert "In the 2 worlds whose standard source decides by shape" in sentence
    assert ("**ahead**" if lead > 0 else "**behind**") in sentence
    assert "single world" in say.phase(table[:1])


def test_summary_averages_targets_before_replicates():
    frame = pd.DataFrame(
        {"source": "robust", "seed": [0, 0, 1, 1], "target": ["a", "b"] * 2, "value": [0.1, 0.3, 0.2, 0.4]}
    )
    found = plots.summary(frame, ["source"]).iloc[0]
    expected = claims.interval([20.0, 30.0])
    assert (found["mean"], found.low, found.high) == pytest.approx((expected.effect, expected.low, expected.high))
    assert math.isnan(plots.summary(frame[frame.seed == 0], ["source"]).iloc[0].low)


def test_the_explorer_moves():
    frame = made_up(0.10)
    box = widgets.transfer_explorer(frame)
    sentence, row = box.children
    target, protocol, eps, n, reset = row.children[0].children
    before = sentence.value
    assert "digits (real), last stage" in before
    n.value = 900
    assert "900 images" in sentence.value
    protocol.value = "fixed_feature"
    assert "No run with 900 images" in sentence.value
    reset.click()
    assert sentence.value == before
    assert [control.value for control in (target, protocol, eps, n)] == ["digits", "last_stage", MAIN_EPS, 100]


def test_plans():
    glyphs, full = (set(transfer.plan(name)) for name in ("glyphs", "glyphs-full"))
    assert glyphs <= full  # what the default preset computes, the full one reads
    assert len({cell.seed for cell in glyphs}) == 5
    for cell in full:
        assert cell.seed < 100  # tuning seeds are never judged
    with pytest.raises(ValueError, match="no preset is called 'glyph'; there are smoke, glyphs"):
        presets.get("glyph")
    assert {cell.seed for cell in transfer.plan("glyphs", [7, 7])} == {7}
    for wrong in ("[0, 1]", [0.5], [-1], ["0"]):
        with pytest.raises(ValueError, match=r"seeds must be whole numbers such as \[0, 1, 2\]"):
            transfer.plan("glyphs", wrong)


def test_cells_are_read_back_and_an_interrupted_study_resumes(monkeypatch):
    """A study that stops in its third cell has the first two when it runs again."""
    todo = [cell for cell in transfer.plan("smoke", [0, 1]) if cell.source.kind == "untrained"]
    assert len(todo) == 4
    monkeypatch.setattr(transfer, "plan", lambda preset, seeds=None, targets=(): todo)
    monkeypatch.setattr("rtkit.studies.workers", lambda: 1)
    computed, original = [], cells.trained_rows

    def flaky(cell, task):
        if len(computed) == 2:
            raise KeyboardInterrupt
        computed.append(cell)
        return original(cell, task)

    monkeypatch.setattr(cells, "trained_rows", flaky)
    with pytest.raises(KeyboardInterrupt):
        transfer.run("smoke")
    assert [cells.is_cached(cell) for cell in todo] == [True, True, False, False]
    computed.clear()
    frame = transfer.run("smoke")
    assert computed == todo[2:]
    assert set(frame.columns) >= {
        "study",
        "method",
        "source",
        "source_eps",
        "target",
        "n_train",
        "seed",
        "metric",
        "value",
    }
    assert set(frame.columns) >= {"n_test", "seconds", "gradients"}
    computed.clear()
    again = transfer.run("smoke")
    assert not computed
    pd.testing.assert_frame_equal(frame, again)


def test_what_the_standard_source_is_worth_and_the_lead_without_a_ceiling():
    frame = effects.core(made_up(0.10))
    full = frame[(frame.source == "standard") & (frame.method == "full_network") & (frame.target == "digits")]
    for change, word in ((-0.2, "ahead"), (0.2, "behind")):
        both = pd.concat([frame, full.assign(method="scratch", value=full.value + change)])
        text = say.scale(effects.pick(both, metric="clean_accuracy", n_train=100))
        assert "the standard source is **ahead** of random weights: +30.0" in text
        assert f"the standard source is **{word}** {'of ' if word == 'ahead' else ''}training from scratch: " in text
    curve = effects.pick(frame, metric="clean_accuracy", method="last_stage", source=("standard", "robust"))
    assert "it shrinks there, too" in say.ceiling(curve)
    odds = {("standard", 100): 0.6, ("robust", 100): 0.8, ("standard", 900): 0.97, ("robust", 900): 0.999}
    near = curve[curve.n_train.isin([100, 900])]
    near = near.assign(value=[odds[row.source, row.n_train] for row in near.itertuples()])
    assert "it **grows** there" in say.ceiling(near)
    assert "there is no radius to choose" in say.radius(made_up(0.10))


def test_a_shape_that_is_always_right_is_named_where_it_is_no_off_switch():
    knobs = ["texture_amplitude", "shape_reliability", "mean", "low", "high", "bias"]
    rows = [(20 / 255, 1.0, 36.8, 20.0, 50.0, 3.0), (0.0, 1.0, 4.2, 0.5, 7.9, 100.0), (0.0, 0.85, 6.0, 1.0, 9.0, 99.0)]
    text = say.phase(pd.DataFrame(rows, columns=knobs))
    assert "no off-switch at a texture of 20/255: the standard source takes the texture all the same" in text
    assert "no off-switch" not in say.phase(pd.DataFrame(rows[1:], columns=knobs))
