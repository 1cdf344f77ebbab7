"""The study behind notebook 03: effects on a made-up frame, verdicts that flip or saturate, rankings, a small run."""

import numpy as np
import pandas as pd
import pytest
import torch

from rtkit import captum_influence, influence, presets, records, store
from rtkit.data.glyphs import World
from rtkit.influence import Head
from rtkit.plots import influence as figures
from rtkit.prose import influence as say
from rtkit.studies import influence as study
from rtkit.studies import influence_effects as effects
from rtkit.studies import influence_heads as heads
from rtkit.studies.influence_plans import TARGETS
from rtkit.studies.transfer import MAIN_EPS
from rtkit.widgets.influence import influence_explorer

WORLD = World()
JITTER = (0.0, 0.004, -0.003, 0.002, -0.001)


def row(seed: int, source: str, target: str, n: int, metric: str, value: float, **more) -> dict:
    base = {"study": "influence", "method": "last_stage", "source": source, "target": target, "n_train": n}
    base |= {"source_eps": MAIN_EPS if source == "robust" else 0.0, "seed": seed, "metric": metric, "value": value}
    base |= {"n_test": 597, "seconds": 1.0, "gradients": 1, "step": 0, "source_seed": seed, "score": "", "rank": 0}
    base |= {"texture_amplitude": WORLD.texture_amplitude, "shape_reliability": WORLD.shape_reliability}
    return base | more


def made_up(lead: float, level: float = 0.7, pearson: float = 0.995) -> pd.DataFrame:
    """Five replicates; the robust source leads by `lead` in label match, and the standard one catches up at n = 400."""
    rows = []
    for seed, jitter in enumerate(JITTER):
        for source, plus in (("standard", 0.0), ("robust", lead + jitter)):
            for target in TARGETS:
                for n, more in ((100, 0.0), (400, 0.5 * lead)):
                    where = (seed, source, target, n)
                    rows.append(row(*where, "top1_match", level + plus + more, score="influence"))
                    rows.append(row(*where, "clean_accuracy", 0.6 + plus + 2 * more))
                    rows.append(row(*where, "validation_accuracy", 0.6 + plus + 2 * more))
                    rows.append(row(*where, "train_accuracy", 1.0))
            proof = {"method": "fixed_feature", "score": "newton"}
            rows.append(row(seed, source, "digits", 900, "loo_pearson", pearson, **proof))
            rows.append(row(seed, source, "digits", 400, "loo_pearson", 0.8, **proof))
            rows.append(row(seed, source, "digits", 900, "lds", 0.9, **proof))
        for target in TARGETS:
            more = {"score": "influence", "source_seed": seed + 1000}
            rows.append(row(seed, "standard", target, 100, "top1_match", level + 5 * jitter, **more))
    return pd.DataFrame(rows)


def test_effects_by_hand():
    frame = made_up(0.10)
    replicate = frame[(frame.seed == 0) & (frame.source_seed == 0)]
    assert effects.few(frame) == 100
    assert effects.EFFECTS["U-C8"](replicate) == pytest.approx(10.0)
    assert effects.ARMS["U-C8"](replicate) == pytest.approx((80.0, 70.0))
    # At 400 images the standard source is as accurate as the robust one at 100, and half of the lead is gone.
    assert effects.matched_sizes(replicate) == {"digits": 400, "lower": 400}
    assert effects.matched_gain(frame, "top1_match", "influence").effect == pytest.approx(5.04)
    assert effects.matched_gain(frame, "clean_accuracy").effect == pytest.approx(0.04)
    assert effects.match_gain(frame, "influence", n=400).effect == pytest.approx(10.04)
    with pytest.raises(KeyError):
        effects.EFFECTS["U-C8"](replicate[replicate.source == "standard"])


def test_verdicts_flip_with_the_frame():
    found, flipped = (effects.verdicts(made_up(lead), "glyphs")["U-C8"] for lead in (0.10, -0.10))
    assert (found.verdict, flipped.verdict) == ("supported", "contradicted")
    assert effects.verdicts(made_up(0.10), "smoke")["U-C8"].reason == "smoke"


def test_where_both_sources_saturate_nothing_is_judged():
    found = effects.verdicts(made_up(0.02, level=0.96), "glyphs")["U-C8"]
    assert (found.verdict, found.reason) == ("not_judged", "saturated")
    assert found.effect == pytest.approx(2.04)


def test_failing_controls_stop_the_verdict():
    assert all(control.holds for control in effects.controls(made_up(0.10)))
    found = effects.verdicts(made_up(0.10, pearson=0.95), "glyphs")["U-C8"]
    assert found.reason.startswith("invalid_control: Newton step against leaving one out")
    frame = made_up(0.10)
    other = frame.assign(value=frame.value + 0.3 * (frame.source_seed != frame.seed))
    assert "two standard sources" in effects.verdicts(other, "glyphs")["U-C8"].reason
    loose = frame.assign(value=frame.value.where(frame.metric != "train_accuracy", 0.9))
    assert "training accuracy" in effects.verdicts(loose, "glyphs")["U-C8"].reason


def problem() -> tuple[Head, influence.Examples, influence.Examples]:
    generator = torch.Generator().manual_seed(0)
    y = torch.arange(60) % 3
    x = torch.randn(60, 5, generator=generator).double() + 2 * torch.nn.functional.one_hot(y, 5)
    train, test = ((heads.with_ones(x[part]), y[part]) for part in (slice(40), slice(40, 60)))
    return Head.of(influence.fit(train, 3, 1.0), train[0], 1.0), train, test


def test_rankings():
    head, train, test = problem()
    found = heads.rankings(head, train, test)
    assert set(found) == set(figures.SCORES)
    assert {tuple(scores.shape) for scores in found.values()} == {(20, 40)}
    torch.testing.assert_close(found["absolute"], found["influence"].abs())
    nearest = (test[0][3] - train[0]).norm(dim=1).argmin()
    assert found["neighbours"][3].argmax() == nearest
    right = (test[0] @ head.weights.T).argmax(1) == test[1]
    torch.testing.assert_close(found["predicted"][right], found["influence"][right])
    assert right.any()
    shuffled = heads.rankings(head, (train[0], train[1].flip(0)), test)
    torch.testing.assert_close(found["kernel"], shuffled["kernel"])  # no label enters
    pearson, error = heads.agreement(2 * found["influence"], found["influence"])
    assert (pearson, error) == pytest.approx((1.0, 1.0))


def test_one_thread_is_given_back():
    before = torch.get_num_threads()
    with heads.one_thread():
        assert torch.get_num_threads() == 1
    assert torch.get_num_threads() == before


def test_plans_keep_tuning_seeds_out_and_the_proof_determined():
    assert all(size.n_proof >= 3 * 10 * (size.dims + 1) for size in study.PLANS.values())
    for preset in ("smoke", "glyphs", "glyphs-full"):  # the others need data
        todo = study.plan(preset)
        assert all(cell.seed < 100 for cell in todo)
        assert {cell.part for cell in todo} == {"last_stage", "proof"}
    assert study.PLANS["glyphs"].n_train[0] < 650  # fewer images than parameters


@pytest.fixture(scope="module")
def smoke():
    return study.run("smoke")


def test_a_small_run_is_complete_and_read_back(smoke, tmp_path, monkeypatch):
    assert set(smoke.metric) == {
        *("train_accuracy", "validation_accuracy", "clean_accuracy", "train_loss", "top1_match", "top5_match"),
        *("match_at_rank", "top1_match_misclassified", "loo_pearson", "loo_error", "lds", "removal_predicted"),
        *("removal_measured", "mislabelled_auc", "mislabelled_found"),
    }
    assert smoke.value.notna().all()
    monkeypatch.setattr(study, "fine_tuned", None)
    monkeypatch.setattr(study, "frozen", None)
    pd.testing.assert_frame_equal(study.run("smoke"), smoke)
    found = effects.publish(smoke, "smoke", tmp_path)
    assert found["U-C8"].reason == "smoke"
    assert records.path("influence", "smoke", tmp_path).exists()
    assert store.load_frame(tmp_path / "smoke" / "influence.csv.gz").columns.tolist() == smoke.columns.tolist()


def test_wrong_labels_are_as_many_as_said_and_all_found_at_the_end(smoke):
    source = study.sources(presets.get("smoke"), 0)["standard"]
    found = heads.frozen(source, "digits", 60, flip=0.1)
    assert int((found.train[1] != found.train_images.y).sum()) == 6
    ends = smoke[(smoke.metric == "mislabelled_found") & (smoke["rank"] == 100)]
    assert np.allclose(ends.value, 1)


def test_the_explorer_moves(smoke):
    both = {k: heads.frozen(one, "digits", 40) for k, one in study.sources(presets.get("smoke"), 0).items()}
    box = influence_explorer(both, count=5)
    sentence, panel = box.children
    image, ranked, reset = panel.children[0].children
    before = sentence.value
    assert "ranked by influence" in before
    image.value = 3
    ranked.value = "neighbours"
    assert "ranked by nearest neighbours" in sentence.value
    reset.click()
    assert sentence.value == before


def test_prose_follows_the_frame(smoke):
    assert "**ahead**" in say.match(made_up(0.10).pipe(with_five))
    assert "**behind**" in say.match(made_up(-0.10).pipe(with_five))
    assert "both saturated" in say.match(made_up(0.02, level=0.96).pipe(with_five))
    for sentence in (say.proof, say.match, say.saturation, say.matched, say.mislabelled, say.removal):
        assert "nan" not in sentence(effects.core(smoke))
    untold = smoke.metric.eq("top1_match_misclassified") & smoke.score.eq("predicted")
    assert "little difference" in say.saturation(effects.core(smoke.assign(value=smoke.value.where(~untold, 1.0))))


def with_five(frame: pd.DataFrame) -> pd.DataFrame:
    return pd.concat([frame, frame[frame.metric == "top1_match"].assign(metric="top5_match")])


def test_captum_agrees():
    head, train, test = problem()
    first = influence.influence(head, train, test)
    assert heads.agreement(captum_influence.naive(head, train, test), first)[1] < 1e-10
    identity = Head(head.weights, 0.0, torch.eye(head.weights.numel(), dtype=torch.float64))
    products = influence.influence(identity, train, test)
    assert heads.agreement(captum_influence.tracin(head, train, test), products)[1] < 1e-10
