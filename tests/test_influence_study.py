"""Notebook 03: its cells, its effects on a made-up frame, its page when the arms are swapped, rankings, a small run."""

import re

import numpy as np
import pandas as pd
import pytest
import torch
from lessons import explorer, read, study, swapped

from rtkit import TUNING, checks, compute, influence, lesson, presets, records, store
from rtkit.data.glyphs import Images, World
from rtkit.frames import Missing, OutOfRange, lead, over_seeds, pick
from rtkit.influence import Head
from rtkit.measure import heads
from rtkit.measure import influence as measure
from rtkit.measure.heads import Frozen

WORLD = World()
JITTER = (0.0, 0.004, -0.003, 0.002, -0.001)
# Records of an earlier edition, which have no parts, are passed over with a warning.
pytestmark = pytest.mark.filterwarnings("ignore::rtkit.store.DamagedFile")


def row(seed: int, source: str, target: str, n: int, metric: str, value: float, **more) -> dict:
    base = {"study": "influence", "method": "last_stage", "source": source, "target": target, "n_train": n}
    base |= {"source_eps": 4 / 255 if source == "robust" else 0.0, "seed": seed, "metric": metric, "value": value}
    base |= {"n_test": 597, "seconds": 1.0, "gradients": 1, "step": 0, "source_seed": seed, "score": "", "rank": 0}
    base |= {"texture_amplitude": WORLD.texture_amplitude, "shape_reliability": WORLD.shape_reliability}
    base |= {"draw": 0, "scale": 1.0}
    return base | more


def made_up(lead: float, level: float = 0.7, pearson: float = 0.995, preset: str = "glyphs") -> pd.DataFrame:
    """Five replicates; the robust source leads by `lead` in label match, and the standard one catches up at n = 400."""
    rows = []
    for seed, jitter in enumerate(JITTER):
        for source, plus in (("standard", 0.0), ("robust", lead + jitter)):
            for target in measure.TARGETS:
                for n, more in ((100, 0.0), (400, 0.5 * lead)):
                    where = (seed, source, target, n)
                    rows.append(row(*where, "top1_match", level + plus + more, score="influence"))
                    rows.append(row(*where, "clean_accuracy", 0.6 + plus + 2 * more))
                    rows.append(row(*where, "validation_accuracy", 0.6 + plus + 2 * more))
                    rows.append(row(*where, "train_accuracy", 1.0))
                # The match falls by a point with each power of ten; the robust head is a hundred times less sure.
                for scale, loss in ((0.5, 1e-4), (1, 1e-7), (4, 1e-13)):
                    where = (seed, source, target, 100)
                    loss = loss * 100 if source == "robust" else loss
                    match = level + plus + 0.01 * np.log10(loss)
                    rows.append(row(*where, "scaled_loss", loss, scale=scale))
                    rows.append(row(*where, "scaled_match", match, score="influence", scale=scale))
            proof = {"method": "fixed_feature", "score": "newton"}
            rows.append(row(seed, source, "digits", 900, "loo_pearson", pearson, **proof))
            rows.append(row(seed, source, "digits", 400, "loo_pearson", 0.8, **proof))
            first = {"method": "fixed_feature", "score": "influence"}
            rows.append(row(seed, source, "digits", 900, "lds", 0.8 + plus, rank=50, **first))
            rows.append(row(seed, source, "digits", 900, "loo_error", 0.1 * np.exp(-plus), **first))
            for score, auc in (("self_influence", 0.8 + lead + jitter), ("loss", 0.8)):
                found = {"method": "fixed_feature", "score": score, "n_test": 400}
                rows.append(row(seed, source, "digits", 400, "mislabelled_auc", auc, **found))
    return told(pd.DataFrame(rows), preset)


def told(frame: pd.DataFrame, preset: str = "glyphs") -> pd.DataFrame:
    """The frame as one that was computed at a preset."""
    frame.attrs = {"study": "influence", "preset": preset, "run": "mine"}
    return frame


def judged(frame: pd.DataFrame):
    """What notebook 03 makes of a frame."""
    return study("03", {"influence": frame}, preset=frame.attrs["preset"])


def test_effects_by_hand():
    found = judged(made_up(0.10))
    judge, matched = found["judge"], found["matched"]
    replicate = judge.main[judge.main.seed == 0]
    assert found["few"](judge.main) == 100
    assert judge.effects["U-C8@as the authors"](replicate) == pytest.approx(10.0)
    assert judge.interval("U-C8@as the authors").effect == pytest.approx(10.04)
    assert judge.effects["U-C8"](replicate) == pytest.approx({"digits (real)": 10.0, "lower-case letters": 10.0})
    assert judge.interval("U-C8", "digits (real)").effect == pytest.approx(10.04)
    assert judge.effects["INF-K1"](replicate) == pytest.approx(np.arctanh(0.9) - np.arctanh(0.8))
    assert judge.effects["INF-K2"](replicate) == pytest.approx(0.1)
    first, second = (np.log((400 * p + 0.5) / (400 * (1 - p) + 0.5)) for p in (0.9, 0.8))
    assert judge.effects["INF-K3"](replicate) == pytest.approx(first - second, rel=0.01)
    assert found["gain"](replicate, n_train=400) == pytest.approx(10.0)
    # At 400 images the standard source is as accurate as the robust one at 100, and half of the lead is gone.
    same = over_seeds(judge.main, lambda f: matched(f, metric="top1_match", score="influence"))
    assert same.effect == pytest.approx(5.04)
    assert over_seeds(judge.main, lambda f: matched(f, metric="clean_accuracy")).effect == pytest.approx(0.04)
    for name in set(judge.effects) - {"INF-K3"}:
        with pytest.raises(Missing):
            judge.effects[name](replicate[replicate.source == "standard"])


def test_heads_are_compared_where_both_are_as_sure():
    """Sources whose match is the same at equal loss differ by two points as they come; some are never comparable."""
    frame = made_up(0.0)
    surer = (frame.metric == "scaled_loss") & (frame.source == "standard")
    judge = judged(frame)["judge"]
    assert judge.interval("U-C8", "lower-case letters").effect == pytest.approx(0.04)
    assert lead(judge.main, metric="scaled_match", scale=1) == pytest.approx(2.04)
    apart = judged(told(frame.assign(value=frame.value.where(~surer, frame.value * 1e-20))))["judge"]
    with pytest.raises(OutOfRange, match="never equally sure"):
        apart.effects["U-C8"](apart.main[apart.main.seed == 0])


def test_the_score_of_what_ranks_nothing_comes_back_from_a_file(tmp_path):
    store.save_frame(made_up(0.10), tmp_path / "frame.csv.gz")
    frame = store.load_frame(tmp_path / "frame.csv.gz")
    assert frame.score.isna().any()
    assert judged(told(frame))["judge"].verdicts["U-C8"].effect == pytest.approx(10.04)


def test_verdicts_flip_with_the_frame():
    for ahead, word in ((0.10, "supported"), (-0.10, "contradicted")):
        found = judged(made_up(ahead))["judge"].verdicts
        assert {name: verdict.verdict for name, verdict in found.items()} == dict.fromkeys(found, word)
    assert judged(made_up(0.10, preset="smoke"))["judge"].verdicts["U-C8"].reason == "smoke"


def test_where_both_sources_saturate_nothing_is_judged():
    found = judged(made_up(0.02, level=0.96))["judge"].verdicts["U-C8@as the authors"]
    assert (found.verdict, found.reason) == ("not_judged", "saturated")
    assert found.effect == pytest.approx(2.04)


def test_failing_controls_stop_the_verdict():
    judge = judged(made_up(0.10))["judge"]
    assert len(judge.controls) == 2
    assert all(control.holds for control in judge.controls)
    found = judged(made_up(0.10, pearson=0.95))["judge"].verdicts["U-C8"]
    assert found.reason.startswith("invalid_control: Newton step and truth")
    frame = made_up(0.10)
    loose = told(frame.assign(value=frame.value.where(frame.metric != "train_accuracy", 0.9)))
    assert "training accuracy" in judged(loose)["judge"].verdicts["U-C8"].reason


def test_a_misspelt_column_is_an_error_and_missing_rows_were_not_run():
    judge = judged(made_up(0.10))["judge"]
    with pytest.raises(KeyError, match="scoer"):
        judge("U-C8", lambda f: lead(f, metric="top1_match", scoer="influence"))
    frame = made_up(0.10)
    found = judged(told(frame[frame.metric != "scaled_match"]))["judge"].verdicts
    assert (found["U-C8"].verdict, found["U-C8"].reason) == ("not_judged", "not_run")
    assert found["U-C8@as the authors"].verdict == "supported"


def problem(n: int = 60, n_test: int = 20, classes: int = 3) -> tuple[Head, influence.Examples, influence.Examples]:
    generator = torch.Generator().manual_seed(0)
    y = torch.arange(n + n_test) % classes
    x = torch.randn(n + n_test, 8, generator=generator).double() + 2 * torch.nn.functional.one_hot(y, 8)
    train, test = ((heads.with_ones(x[part]), y[part]) for part in (slice(n), slice(n, n + n_test)))
    return Head.of(influence.fit(train, classes, 1.0), train[0], 1.0), train, test


@pytest.fixture
def quick(monkeypatch):
    """Small heads on features that no network made, in place of those of networks that take a minute to train."""

    def pictures(y):
        x = torch.randint(256, (len(y), 3, 32, 32), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
        return Images(x, y, tuple("abcdef"))

    def frozen(source, target, n, dims=None, ridge=3.0, flip=0.0):
        head, train, test = problem(n, 40, 6)
        return Frozen(head, train, test, pictures(train[1]), pictures(test[1]))

    def fine_tuned(cell):
        head, train, test = problem(cell.n_train, 40, 6)
        return head, train, test, test

    monkeypatch.setattr(heads, "frozen", frozen)
    monkeypatch.setattr(measure, "fine_tuned", fine_tuned)


@pytest.fixture(scope="module")
def smoke() -> dict:
    return study("03", preset="smoke")


@pytest.fixture(scope="module")
def kit(smoke) -> pd.DataFrame:
    """A run of five replicates in which the robust source leads by ten points, and is the more faithful one."""
    one = smoke["frame"]
    frame = pd.concat([one.assign(seed=k, source_seed=k) for k in range(len(JITTER))], ignore_index=True)
    robust, jitter = frame.source == "robust", frame.seed.map(dict(enumerate(JITTER)))

    def put(value, robust_value, metric, **where):
        chosen = frame.index.isin(pick(frame, metric=metric, **where).index)
        spread = jitter * (1 + 3 * robust)
        frame.loc[chosen, "value"] = (np.where(robust, robust_value, value) + spread)[chosen]

    put(0.6, 0.7, ["top1_match", "scaled_match", "clean_accuracy"])
    put(0.9, 0.9, "top1_match_misclassified", score="influence")
    put(0.1, 0.1, "top1_match_misclassified", score="predicted")
    put(0.8, 0.9, "lds")
    put(0.1, 0.05, "loo_error")
    put(0.8, 0.7, "mislabelled_auc", score="self_influence")
    put(0.8, 0.8, "mislabelled_auc", score="loss")
    for at in frame["rank"].unique():
        put(min(0.041 * at, 1), min(0.081 * at, 1), "mislabelled_found", rank=at)
    sure = frame.metric == "scaled_loss"
    frame.loc[sure, "value"] = 10.0 ** -(3 * frame.scale[sure])
    frame.loc[frame.metric == "train_accuracy", "value"] = 1.0
    frame.loc[(frame.metric == "loo_pearson") & (frame.score == "newton"), "value"] = 0.995
    return told(frame)


def test_the_page_reads_true_whichever_way_it_falls(quick, kit):
    page = read("03", {"influence": kit}, skip=(), preset="glyphs")
    untold = (kit.metric == "top1_match_misclassified") & (kit.score == "influence")
    turned = told(kit.assign(value=kit.value.mask(untold, 0.1)))
    other = read("03", {"influence": swapped(turned, "source", "standard", "robust", "source_eps")}, preset="glyphs")
    for text, ahead, behind, verdict in (
        (page, "ahead", "behind", "SEEN"),
        (other, "behind", "ahead", "OPPOSITE SEEN"),
    ):
        for name in ("U-C8", "INF-K1", "INF-K2"):
            assert re.search(rf"\*\*{name}\*\* .* \*\*{verdict} IN THIS WORLD", text)
        assert re.search(r"\*\*INF-K3\*\* .* \*\*OPPOSITE SEEN IN THIS WORLD", text)
        assert f"at equal loss: on digits (real) the robust source is **{ahead}**" in text
        assert f"on lower-case letters the robust source is **{ahead}**" in text
        assert f"At rank 1 the robust source is **{ahead}**" in text
        assert f"on lower-case letters the robust source is **{behind}**" not in text
        assert "self-influence is **behind**" in text
        assert "restates accuracy" in text
        assert "nan" not in text
    assert "It is **10 % from the robust source, 20 % from the standard one**" in page
    assert "It is **20 % from the robust source, 10 % from the standard one**" in other
    assert "the label comes from the loss" in page
    assert "the label makes little difference" in other
    # Ten points, each really left out; the kit's function against the four lines, and captum against the kit.
    assert "Correlation with the truth 0.998" in page
    assert float(re.search(r"four lines: (\S+)", page)[1]) < 1e-6
    naive, tracin = (float(found) for found in re.findall(r"relative difference (\S+?)[;\n]", page))
    assert naive < 1e-6  # captum holds the damping in float32
    assert tracin < 1e-10


def test_rankings():
    head, train, test = problem(40)
    found = heads.rankings(head, train, test)
    assert {tuple(scores.shape) for scores in found.values()} == {(20, 40)}
    torch.testing.assert_close(found["absolute"], found["influence"].abs())
    nearest = (test[0][3] - train[0]).norm(dim=1).argmin()
    assert found["neighbours"][3].argmax() == nearest
    right = (test[0] @ head.weights.T).argmax(1) == test[1]
    torch.testing.assert_close(found["predicted"][right], found["influence"][right])
    assert right.any()
    shuffled = heads.rankings(head, (train[0], train[1].flip(0)), test)
    torch.testing.assert_close(found["kernel"], shuffled["kernel"])  # no label enters
    products = influence.gradients(head.weights, test) @ influence.gradients(head.weights, train).T
    torch.testing.assert_close(found["products"], products)
    pearson, error = heads.agreement(2 * found["influence"], found["influence"])
    assert (pearson, error) == pytest.approx((1.0, 1.0))


def test_the_loss_of_a_head_that_is_surer_than_float64():
    head, train, _ = problem(40)
    assert measure.train_loss(head.weights, train) == pytest.approx(float(influence.losses(head.weights, train).mean()))
    x, y = torch.tensor([[50.0], [-50.0]]).double(), torch.tensor([0, 1])
    weights = torch.tensor([[0.5], [-0.5]]).double()  # margins of 50: log(1 + exp(-50))
    assert measure.train_loss(weights, (x, y)) == pytest.approx(np.exp(-50), rel=1e-9)
    assert float(influence.losses(weights, (x, y)).mean()) == 0


def test_the_directions_that_a_cutoff_keeps():
    head, train, _ = problem(40)
    eigenvalues = torch.linalg.eigvalsh(influence.hessian(head.weights, train[0], 0.0))
    at = Head.of(head.weights, train[0], 0.0, rtol=measure.UTRERA_RTOL)
    assert measure.kept(at) == int((eigenvalues > measure.UTRERA_RTOL * eigenvalues.max()).sum())
    assert measure.kept(Head.of(head.weights, train[0], 1.0)) == head.weights.numel()


def test_descent_without_an_image_is_descent_on_the_others():
    _, (x, y), _ = problem(40)
    path = measure.descended((x, y), 3, 50, np.array([7, 0]))
    assert path.shape == (measure.CHECKPOINTS, 3, 3, x.shape[1])
    for k, gone in ((1, 7), (2, 0)):
        keep = np.delete(np.arange(40), gone)
        w, rate = torch.zeros(3, x.shape[1]).double(), 2 / torch.linalg.matrix_norm(x, 2) ** 2
        for _ in range(50):
            w = w - rate * influence.gradients(w, (x[keep], y[keep])).sum(0).view_as(w)
        torch.testing.assert_close(path[-1, k], w)


def test_one_thread_is_given_back():
    before = torch.get_num_threads()
    with compute.one_thread():
        assert torch.get_num_threads() == 1
    assert torch.get_num_threads() == before


def test_plans_keep_tuning_seeds_out_and_the_proof_determined():
    grid = lesson.execute(lesson.path("03"), {}, lesson.GRID)
    assert all(size.n_proof >= 3 * 10 * (size.dims + 1) for size in grid["PLANS"].values())
    for preset in ("smoke", "glyphs", "glyphs-full"):  # the others need data
        chosen = presets.get(preset)
        todo = [cell for seed in chosen.seeds for cell in grid["cells"](chosen, seed, ())]
        assert not {cell.seed for cell in todo} & set(TUNING)
        assert {cell.part for cell in todo} == {"last_stage", "left_out", "proof"}
        assert len(set(todo)) == len(todo)
    assert grid["PLANS"]["glyphs"].n_train[0] < 650  # fewer images than parameters


def test_a_small_run_is_complete_and_read_back(smoke, monkeypatch):
    frame = smoke["frame"]
    assert set(frame.metric) == {
        *("train_accuracy", "validation_accuracy", "clean_accuracy", "train_loss", "top1_match"),
        *("match_at_rank", "top1_match_misclassified", "loo_pearson", "loo_error", "lds", "removal_predicted"),
        *("removal_measured", "mislabelled_auc", "mislabelled_found", "scaled_loss", "scaled_kept", "scaled_match"),
        "loo_noise",
    }
    assert frame.value.notna().all()
    monkeypatch.setattr(measure, "fine_tuned", None)
    monkeypatch.setattr(measure, "frozen", None)
    pd.testing.assert_frame_equal(study("03", preset="smoke")["frame"], frame)
    assert smoke["judge"].verdicts["U-C8"].reason == "smoke"
    records.publish(smoke["judge"])
    where = records.path("influence", "smoke")
    assert where.exists()
    assert store.load_frame(where.with_suffix(".csv.gz")).columns.tolist() == frame.columns.tolist()


def test_wrong_labels_are_as_many_as_said_and_all_found_at_the_end(smoke):
    source = smoke["pair"](presets.get("smoke"), 0)["standard"]
    found = heads.frozen(source, "digits", 60, flip=0.1)
    assert int((found.train[1] != found.train_images.y).sum()) == 6
    ends = smoke["frame"][(smoke["frame"].metric == "mislabelled_found") & (smoke["frame"]["rank"] == 100)]
    assert np.allclose(ends.value, 1)


def test_the_explorer_moves(smoke):
    both = {k: heads.frozen(one, "digits", 40) for k, one in smoke["pair"](presets.get("smoke"), 0).items()}
    drawn, names = [], {"influence": "influence", "neighbours": "nearest neighbours"}
    given = {"heads": both, "SCORES": names, "gallery": lambda figure, scores, t: drawn.append((set(scores), t))}
    box = explorer("03", '"ranked by"', **given)
    sentence, panel = box.children
    image, ranked, reset, *_ = panel.children[0].children
    before = sentence.value
    assert "ranked by influence" in before
    image.value = 3
    ranked.value = "neighbours"
    assert "ranked by nearest neighbours" in sentence.value
    assert drawn[-1] == ({"standard", "robust"}, 3)
    reset.click()
    assert sentence.value == before


def test_the_warm_up_accepts_the_newton_step_alone(capsys):
    assert checks.removal_step(lambda pull, curvature, own: torch.linalg.solve(curvature - own, pull))
    assert checks.removal_step(lambda pull, curvature, own: torch.linalg.inv(curvature - own) @ pull)
    for wrong, hint in (
        (lambda pull, curvature, own: torch.linalg.solve(curvature, pull), "first order"),
        (lambda pull, curvature, own: torch.linalg.solve(curvature + own, pull), "goes with it"),
        (lambda pull, curvature, own: -torch.linalg.solve(curvature - own, pull), "sign"),
        (lambda pull, curvature, own: (curvature - own) @ pull, "do not multiply"),
        (lambda pull, curvature, own: None, "return"),
        (lambda pull, curvature, own: pull, "what is left"),
        (lambda pull, curvature, own: curvature, "what is left"),
    ):
        assert not checks.removal_step(wrong)
        assert hint in capsys.readouterr().out.splitlines()[-1]


def of_glyphs(**knobs) -> tuple[set, set]:
    """The cells of one replicate at glyphs: fine-tuned heads by source, target and size, and the others."""
    space = lesson.execute(lesson.path("03"), knobs, lesson.GRID)
    made = list(space["cells"](presets.get("glyphs"), 0, ()))
    return tuple({cell for cell in made if (cell.part == "last_stage") is tuned} for tuned in (True, False))


def test_a_knob_changes_the_cells_that_it_should():
    (tuned, others), (fewer, same), (kept, ridged) = of_glyphs(), of_glyphs(n_train=[200, 100]), of_glyphs(ridge=0.5)
    assert same == others
    assert {cell.n_train for cell in fewer} == {100, 200}
    assert {cell for cell in fewer if cell.n_train == 100} == {cell for cell in tuned if cell.n_train == 100}
    at_few = [cell for cell in tuned if cell.n_train == 100]
    assert len(at_few) == 8  # two sources, two targets, two subsets
    assert all(cell.scales for cell in at_few)
    assert not any(cell.scales or cell.draw for cell in tuned if cell.n_train > 100)
    assert kept == tuned
    proofs = {cell for cell in ridged if cell.part == "proof"}
    assert {cell.ridge for cell in proofs} == {0.5}
    assert ridged - proofs == {cell for cell in others if cell.part == "left_out"}
    assert of_glyphs(ridge=3)[1] == others  # the kit's own


def test_another_ridge_reaches_the_heads(smoke):
    source, plan = smoke["pair"](presets.get("smoke"), 0)["standard"], smoke["PLANS"]["smoke"]
    where = (source, 0, "digits", "proof", plan.n_proof, plan)
    keys = ("metric", "score", "n_train", "rank")
    both = (measure.Cell(*where), measure.Cell(*where, ridge=0.3))
    own, more = ({tuple(row[key] for key in keys): row["value"] for row in measure.rows(cell)} for cell in both)
    assert own.keys() == more.keys()
    same = {key[:3] for key in own if own[key] == more[key]}
    assert ("loo_pearson", "influence", 60) in same  # the head with more parameters than images has its own ridge
    assert ("loo_pearson", "influence", 120) not in same
    assert own["mislabelled_auc", "self_influence", 60, 0] != more["mislabelled_auc", "self_influence", 60, 0]


@pytest.mark.parametrize(
    ("knobs", "valid"),
    [
        ({"n_train": [100, 0]}, "n_train must be whole numbers from 2 to 3600"),
        ({"ridge": 0}, "ridge must be numbers from 1e-12 to 1000"),
        ({"ridge": [1, 3]}, "ridge takes one value"),
    ],
)
def test_a_knob_that_does_not_fit_is_refused(knobs, valid):
    with pytest.raises(ValueError, match=valid):
        of_glyphs(**knobs)


def test_a_run_with_other_knobs_is_marked_and_one_replicate_more_is_not_judged():
    frame = made_up(0.10)
    frame["n_train"] = frame.n_train.replace({100: 200})
    frame.attrs |= {"changed": {"n_train": (200, 400)}, "live": 4}
    space = study("03", {"influence": frame}, preset="glyphs", n_train=[200, 400])
    judge, kit = space["judge"], records.frame("influence", "glyphs")
    assert judge.verdicts["U-C8"].marks == ("exploratory: n_train changed",)
    assert judge.verdicts["U-C8"].replicates == 4
    assert set(space["main"].seed) == {0, 1, 2, 3}
    assert set(judge.values(space["core"](kit)).seed) == set(kit.seed)  # at its own sizes
