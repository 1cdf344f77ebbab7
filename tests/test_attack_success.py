"""Success rates by hand, attacks on features, the paper's clipping, and what the attack success study concludes."""

import math

import numpy as np
import pandas as pd
import pytest
import torch

from rtkit import claims, feature_attacks, models, store
from rtkit.data import targets
from rtkit.feature_attacks import THREAT
from rtkit.plots import attack_success as figures
from rtkit.prose import attack_success as said
from rtkit.studies import attack_cells, attack_students
from rtkit.studies import attack_success as study
from rtkit.studies import attack_success_effects as effects
from rtkit.widgets import attack_success as widget


def test_success_on_four_images_by_hand():
    decided, y = torch.tensor([0, 1, 2, 9]), torch.tensor([0, 1, 2, 3])
    copies = torch.tensor([[0, 7, 2, 3], [0, 7, 2, 8]])
    # Images 1 to 3 are right; the second is fooled, by both copies; the fourth was wrong before.
    assert feature_attacks.fooled(decided, y, copies) == (1, 3)
    assert feature_attacks.fooled(decided, y, copies[:, :1].expand(2, 4)) == (2, 3)
    assert feature_attacks.fooled(decided, y, decided[None]) == (0, 3)
    assert feature_attacks.fooled(torch.tensor([9]), torch.tensor([0]), torch.tensor([[1]])) == (0, 0)


def test_losses_by_hand():
    features = torch.tensor([[2.0, 1.0, 3.0]])
    assert float(feature_attacks.neuron(features, features, unit=1, goal=5.0)) == pytest.approx(-16 - 0.1 * (4 + 9) / 2)
    assert float(feature_attacks.displacement(features, torch.tensor([[2.0, 0.0, 1.0]]))) == 5.0
    # 0.1 in inputs divided by 0.226, the mean of ImageNet's standard deviations.
    assert THREAT.eps == pytest.approx(0.0226)


def test_stage_maps_have_the_lengths_of_the_distilled_distance(small_net, batch):
    x, _ = batch
    with torch.no_grad():
        one, other = feature_attacks.stage_maps(small_net, x), feature_attacks.stage_maps(small_net, x.flip(0))
        pairs = zip(small_net.stages(x), small_net.stages(x.flip(0)), strict=True)
        expected = sum((a - b).square().flatten(1).mean(1) for a, b in pairs)
    torch.testing.assert_close(feature_attacks.displacement(one, other), expected)


def test_attacks_do_what_they_are_for_and_stay_in_the_ball(small_net, batch):
    x, _ = batch
    before = {name: value.clone() for name, value in small_net.state_dict().items()}
    generator = torch.Generator().manual_seed(0)
    found = feature_attacks.attacked(small_net, x, [3, 5], steps=10, generator=generator)
    assert list(found) == ["neuron 3", "neuron 5", "features", "stages"]
    noise = (x + THREAT.eps * torch.randn_like(x).sign()).clamp(0, 1)
    with torch.no_grad():
        clean, by_noise = small_net.features(x), small_net.features(noise)
        for name, copy in found.items():
            assert float((copy - x).abs().max()) <= THREAT.eps + 1e-6
            assert 0 <= float(copy.min()) <= float(copy.max()) <= 1
            moved = small_net.features(copy)
            if name.startswith("neuron"):
                unit = int(name.split()[1])
                assert float(moved[:, unit].mean()) > float(torch.maximum(clean, by_noise)[:, unit].mean())
            else:
                far, near = (feature_attacks.displacement(part, clean).mean() for part in (moved, by_noise))
                assert float(far) > 2 * float(near)
    assert all(torch.equal(value, before[name]) for name, value in small_net.state_dict().items())
    only = feature_attacks.attacked(small_net, x, [3], steps=2, forms=("neuron",))
    assert list(only) == ["neuron 3"]


def test_no_label_is_asked_for_and_a_larger_ball_moves_farther(small_net, batch):
    x, _ = batch
    far = []
    for eps in (0.0, 2 / 255, 8 / 255):
        threat = feature_attacks.ThreatModel("linf", eps)
        copy = feature_attacks.attacked(small_net, x, [], threat, steps=5, generator=torch.Generator().manual_seed(0))
        with torch.no_grad():
            far.append(
                float(feature_attacks.displacement(small_net.features(copy["features"]), small_net.features(x)).sum())
            )
    assert far[0] == pytest.approx(0, abs=1e-9)
    assert far[0] < far[1] < far[2]


def test_noise_has_the_size_of_the_attack():
    x = torch.full((3, 3, 4, 4), 0.5)
    draws = feature_attacks.noise(x, THREAT, 7, torch.Generator().manual_seed(0))
    assert len(draws) == 7
    for draw in draws:
        torch.testing.assert_close((draw - x).abs(), torch.full_like(x, THREAT.eps))
    assert not torch.equal(draws[0], draws[1])


def test_the_papers_clipping_by_hand():
    white, grey = torch.ones(1, 3, 1, 1), torch.full((1, 3, 1, 1), 0.5)
    # 2.2 standard deviations above the mean: 0.485 + 2.2 * 0.229 and so on.
    expected = torch.tensor([0.9888, 0.9488, 0.901]).view(1, 3, 1, 1)
    torch.testing.assert_close(feature_attacks.clip_as_the_paper(white), expected)
    torch.testing.assert_close(feature_attacks.clip_as_the_paper(grey), grey)
    # Black lies at -2.12, inside.
    torch.testing.assert_close(feature_attacks.clip_as_the_paper(0 * grey), 0 * grey, atol=1e-6, rtol=0)
    changed = float((1 - feature_attacks.clip_as_the_paper(white)).max())
    assert changed > 4 * THREAT.eps


def test_similarity_ignores_turns_and_scales():
    generator = torch.Generator().manual_seed(0)
    one = torch.randn(50, 4, generator=generator)
    turn = torch.linalg.qr(torch.randn(4, 4, generator=generator)).Q
    assert feature_attacks.similarity(one, 3 * one @ turn + 2) == pytest.approx(1)
    assert feature_attacks.similarity(one, torch.randn(50, 4, generator=generator)) < 0.3
    # By hand: two features that share nothing.
    a, b = torch.tensor([[1.0], [-1.0], [1.0], [-1.0]]), torch.tensor([[1.0], [1.0], [-1.0], [-1.0]])
    assert feature_attacks.similarity(a, b) == 0
    assert math.isnan(feature_attacks.similarity(a, torch.zeros(4, 1)))


def test_students_differ_in_what_they_are_called_for():
    plan = attack_students.Plan()
    made = {name: attack_students.method(name, plan, 50)[0] for name in attack_students.LEARNING_RATES}
    assert len(set(made.values())) == len(made) == 9
    assert {sum(phase.steps for phase in one.phases) for one in made.values()} == {plan.steps}
    assert {name for name, one in made.items() if one.init == "random"} == {
        *("scratch", "delta_r", "nfd_dropout", "nfd_averaging", "nfd")
    }
    assert set(made) == set(figures.STUDENTS)


def test_packed_changes_stay_in_the_ball():
    delta = torch.tensor([-1.0, -0.5, 0.0, 0.3, 1.0]) * THREAT.eps
    packed = attack_cells._pack(delta)
    again = packed.float() * (THREAT.eps / 127)
    assert (again.abs() <= delta.abs() + 1e-9).all()
    torch.testing.assert_close(again, delta, atol=THREAT.eps / 127, rtol=0)


def test_a_replicate_shares_its_students_with_the_full_preset():
    glyphs, full = (study.plan(name) for name in ("glyphs", "glyphs-full"))
    assert len({cell.student.seed for cell in glyphs}) == 5
    assert {cell.student for cell in glyphs} <= {cell.student for cell in full}
    assert {cell.attacker.config["attacker"]["n_train"] for cell in full} == {attack_students.Plan().n_train}


def made_up(sign: float, seeds: int = 5) -> pd.DataFrame:
    """A frame in which everything is as the paper says it is (sign 1) or the other way round (sign -1)."""
    rows, rng = [], np.random.default_rng(0)
    clean = {"probe": 0.5, "fine_tuning": 0.9, "l2_sp": 0.9, "delta": 0.9, "scratch": 0.7}
    clean |= {"delta_r": 0.85, "nfd_dropout": 0.85, "nfd_averaging": 0.85, "nfd": 0.92 if sign > 0 else 0.65}
    rate = {"probe": 0.8, "fine_tuning": 0.5, "l2_sp": 0.5 + 0.1 * sign, "delta": 0.5 + 0.2 * sign}
    rate |= {"delta_r": 0.3, "nfd_dropout": 0.3 - 0.1 * sign, "nfd_averaging": 0.3 - 0.05 * sign}
    rate |= {"nfd": 0.5 - 0.4 * sign, "scratch": 0.5 - 0.45 * sign}
    rank = sorted((rate[name], name) for name in rate)

    def add(name, metric, value, n, form="", seed=0):
        lr = attack_students.LEARNING_RATES.get(name, 0.0)
        knobs = {"weight": attack_students.WEIGHT, "dropout": attack_students.DROPOUT, "lr": lr}
        value = float(np.clip(value + 0.004 * rng.normal(), 0, 1))
        row = {"study": "attack_success", "method": name, "target": "greek", "n_train": 200, "seed": seed}
        row |= {"architecture": "small-16"}
        rows.append(row | {"metric": metric, "value": value, "n_test": n, "form": form, "seconds": 1.0} | knobs)

    for seed in range(seeds):
        for form, value in (("any", 0.98), ("noise", 0.1), ("paper", 0.4), ("clipping", 0.01)):
            add("source", "attack_success_rate", value, 597, form, seed)
        add("source", "clipped_pixels", 0.1, 597, "clipping", seed)
        for name, share in clean.items():
            n = round(597 * share)
            add(name, "clean_accuracy", share, 597, seed=seed)
            place = [one for _, one in rank].index(name) / len(rank)
            for form in ("", "stages"):
                add(name, "similarity", 0.1 + 0.8 * (place if sign > 0 else 1 - place), 597, form, seed)
            noise = 0.05 if sign > 0 else 0.7
            for form, value in (("any", rate[name]), ("noise", noise), ("neurons", 0.2), ("features", 0.2)):
                add(name, "attack_success_rate", value, n, form, seed)
            for form, value in (("stages", 0.1), ("paper", 0.05), ("clipping", 0.01), ("white box", 0.99)):
                add(name, "attack_success_rate", value, n, form, seed)
            add(name, "attack_success_rate", 0.3 if sign > 0 else 0.1, n, "adaptive", seed)
    return pd.DataFrame(rows)


def test_effects_by_hand():
    frame = pd.DataFrame(
        [
            {"method": name, "metric": "attack_success_rate", "form": "any", "value": value, "n_test": 100, "seed": 0}
            for name, value in (("fine_tuning", 0.5), ("nfd", 0.1))
        ]
    )
    # log(50.5 / 50.5) - log(10.5 / 90.5)
    assert effects.EFFECTS["NFD-C2"](frame) == pytest.approx(math.log(90.5 / 10.5))
    with pytest.raises(KeyError, match="no success rate any of 'delta'"):
        effects.odds(frame, "delta")


@pytest.mark.parametrize(("sign", "word"), [(1, "supported"), (-1, "contradicted")])
def test_verdicts_flip_with_the_frame(sign, word):
    found = effects.verdicts(made_up(sign), "glyphs")
    assert {name: verdict.verdict for name, verdict in found.items()} == dict.fromkeys(effects.EFFECTS, word)
    assert set(found) == {name for name, claim in claims.load().items() if claim.study == "attack_success"}
    assert {verdict.reason for verdict in effects.verdicts(made_up(sign), "smoke").values()} == {"smoke"}


@pytest.mark.parametrize(
    ("name", "form", "value"),
    [("source", "any", 0.8), ("nfd", "white box", 0.05), ("source", "noise", 0.99)],
)
def test_a_failing_control_stops_the_verdicts(name, form, value):
    frame = made_up(1)
    assert all(control.holds for control in effects.controls(frame))
    frame.loc[(frame.method == name) & (frame.form == form), "value"] = value
    assert {verdict.reason.partition(":")[0] for verdict in effects.verdicts(frame, "glyphs").values()} == {
        "invalid_control"
    }


def test_without_a_question_nothing_is_judged():
    frame = made_up(1)
    frame.loc[(frame.method == "scratch") & (frame.metric == "clean_accuracy"), "value"] = 0.88
    failed = [control.name for control in effects.controls(frame) if not control.holds]
    assert failed == ["clean, fine-tuning minus scratch"]


def test_a_frame_from_a_file_says_the_same(tmp_path):
    frame = made_up(1)
    store.save_frame(frame, tmp_path / "frame.csv.gz")
    again = store.load_frame(tmp_path / "frame.csv.gz")
    assert effects.verdicts(again, "glyphs") == effects.verdicts(frame, "glyphs")
    assert len(effects.by_student(again)) == len(effects.by_student(frame)) == 45


def test_the_sweep_does_not_enter_the_verdicts():
    frame = made_up(1)
    other = frame[frame.method.isin(["nfd", "fine_tuning", "scratch"])]
    swept = pd.concat([frame, other[other.method == "nfd"].assign(weight=99.0), other.assign(n_train=900),
                       other[other.method == "fine_tuning"].assign(lr=9.0)], ignore_index=True)  # fmt: skip
    assert effects.verdicts(swept, "glyphs") == effects.verdicts(frame, "glyphs")


def test_the_prose_flips_with_the_frame():
    for sign, less, word in ((1, "**less often**", "**rises**"), (-1, "**more often**", "**falls**")):
        frame = made_up(sign)
        assert less in said.outcome(frame)
        assert word in said.alike(frame)
        assert ("**more**" if sign > 0 else "**less**") in said.limits(frame)
        assert ("dropout **lowers**" if sign > 0 else "dropout **raises**") in said.noise(frame)
        assert ("NFD is **ahead**" if sign > 0 else "NFD is **behind**") in said.clean(frame)
    assert "so it is valid" in said.valid(frame)
    frame.loc[(frame.method == "source") & (frame.form == "any"), "value"] = 0.5
    assert "fewer than the 90 %" in said.valid(frame)
    assert "10." in said.clipping(frame) or "9." in said.clipping(frame)


def test_no_ratio_above_ten_without_two_thousand_images():
    frame = made_up(1)
    frame.loc[(frame.method == "nfd") & (frame.form == "any"), "value"] = 0.01
    assert "times as often" in said.ratio(frame, "fine_tuning", "nfd")
    few = frame[frame.seed < 2]
    assert "the number is not printed" in said.ratio(few, "fine_tuning", "nfd")
    few = few.assign(value=few.value.where(few.form != "any", 0.0))
    assert said.ratio(few, "fine_tuning", "nfd") == "neither is ever fooled"


def test_degenerate_frames_can_be_told_and_drawn():
    for value in (0.0, 1.0):
        frame = made_up(1, seeds=1).assign(value=value)
        assert "single replicate" in said.outcome(frame)
        for text in (said.clean, said.valid, said.noise, said.limits, said.alike, said.clipping):
            assert text(frame)
        table = effects.by_student(frame)
        for draw in (figures.trade, figures.forms, figures.components):
            assert draw(frame).get_xlabel()
        for draw in (figures.closeness, figures.rates, figures.sizes):
            assert draw(table).get_xlabel()
        assert effects.controls(frame) == []


def test_the_frontier_by_hand():
    table = pd.DataFrame({"clean": [90.0, 80.0, 70.0, 85.0], "success": [20.0, 10.0, 15.0, 30.0]})
    best = figures.frontier_points(table)
    assert best.clean.tolist() == [80.0, 90.0]  # 70 and 85 are beaten in both


def test_the_sweeps_are_told():
    table = pd.DataFrame({"weight": [1.0, 3.0, 3.0], "dropout": 0.1, "lr": [0.3, 0.3, 0.1], "replicates": 2,
                          "clean": [91.0, 90.0, 80.0], "success": [10.0, 20.0, 5.0]})  # fmt: skip
    text = said.knobs(table, (3.0, 0.1, 0.3))
    assert "success from 5.0 to 20.0 %" in text
    assert "reaches 90.0 and 20.0 %; 1 do better at both" in text
    assert "single setting" in said.knobs(table[:1], (1.0, 0.1, 0.3))
    tuned = pd.DataFrame({"method": "fine_tuning", "lr": [0.1, 0.01], "clean": [95.0, 90.0], "success": [40.0, 60.0]})
    assert "at 0.01 90.0 % right, fooled on 60.0 % of those; at 0.1 95.0 %" in said.rates(tuned)
    assert "single learning rate" in said.rates(tuned[:1])


def test_only_replicates_with_every_setting_are_averaged():
    frame = made_up(1)
    other = frame[(frame.method == "nfd") & (frame.seed < 2)].assign(weight=10.0)
    table = widget.settings(pd.concat([frame, other], ignore_index=True))
    assert table.replicates.tolist() == [2, 2]
    assert widget.settings(frame).replicates.tolist() == [5]
    slow = frame[(frame.method == "fine_tuning") & (frame.seed == 0)].assign(lr=0.001)
    table = effects.by_rate(effects.by_student(pd.concat([frame, slow], ignore_index=True)), 200)
    assert sorted(table.lr) == [0.001, attack_students.LEARNING_RATES["fine_tuning"]]
    assert set(table.seed) == {0}


def test_the_explorer_says_what_the_frame_holds():
    frame = made_up(1)
    nfd = frame[frame.method == "nfd"]
    other = nfd.assign(weight=10.0, value=nfd.value.where(nfd.form != "any", 0.42))
    found = widget.frontier_explorer(pd.concat([frame, other], ignore_index=True))
    sentence, row = found.children
    controls = {control.description: control for control in row.children[0].children[:-1]}
    assert list(controls) == ["lambda", "dropout", "learning rate"]
    before = sentence.value
    assert f"lambda {attack_students.WEIGHT:g}," in before
    controls["lambda"].value = 10.0
    assert "lambda 10," in sentence.value
    assert "attack succeeds on 42.0 %" in sentence.value
    row.children[0].children[-1].click()
    assert sentence.value == before
    assert "No run with lambda 7" in widget.sentence(widget.settings(frame), 7, 0.1, 0.3)


def test_the_attacker_owns_no_image_of_the_student(monkeypatch):
    attacker = study.plan("smoke")[0].attacker
    seen = []
    monkeypatch.setattr(attack_cells, "train", lambda net, images, *_, **__: seen.append(images))
    monkeypatch.setattr(type(attacker.source), "load", lambda self: (models.create(20, "small-8", 0), {}))
    attacker.surrogate()
    task = targets.target(attacker.plan.target, attacker.world, attacker.seed)
    own = {image.numpy().tobytes() for image in seen[0].x}
    assert len(own) == attacker.plan.n_train
    assert not own & {image.numpy().tobytes() for image in task.subset(attacker.plan.n_train, attacker.seed).x}
    assert not own & {image.numpy().tobytes() for image in task.test.x}


def test_a_second_architecture_is_told_apart_and_judges_nothing():
    frame = made_up(1)
    wide = frame[(frame.seed < 2) & frame.method.isin(["source", *attack_students.WHITE_BOX])]
    wide = wide.assign(architecture="small-32", value=0.5)
    both = pd.concat([frame, wide], ignore_index=True)
    assert effects.verdicts(both, "glyphs") == effects.verdicts(frame, "glyphs")
    table = effects.by_architecture(both)
    assert table.loc[("nfd", "small-32")].tolist() == [50.0, 50.0, 50.0, 2.0]
    first = effects.core(frame[frame.seed < 2])
    assert table.loc[("nfd", "small-16"), "success"] == effects.success(first, "nfd")
    assert "`small-32`: fine-tuning 50.0 % clean" in said.wider(table)
    assert "**not less often**" in said.wider(table)
    assert "flips 50 % of this source's own decisions, less than the 90 % asked for" in said.wider(table)
    assert said.wider(table).startswith("Means over the 2 replicates that have both")
    assert "part of the preset `glyphs-full`" in said.wider(effects.by_architecture(frame))
    cells = {cell.source.architecture for cell in study.plan("glyphs-full")}
    assert cells == {"small-16", "small-32"}
