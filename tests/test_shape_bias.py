"""Shape bias by hand, images with one cue changed, stimuli from a folder, and what notebook 02 concludes."""

import copy
import math
from unittest import mock

import numpy as np
import pandas as pd
import pytest
import torch
from captum.attr import IntegratedGradients
from lessons import read, study
from PIL import Image

from rtkit import checks, experiment, lesson, models, plots, presets, shape_bias
from rtkit.data import glyphs, targets
from rtkit.data.glyphs import World
from rtkit.knobs import LIMITS
from rtkit.labels import SHAPES
from rtkit.measure import shape_bias as measure
from rtkit.sources import Source

EPS = 4 / 255


def test_four_rows_by_hand():
    shape, texture = torch.tensor([0, 1, 2, 3]), torch.tensor([1, 2, 3, 0])
    # For the shape, for the shape, for the texture, for neither.
    assert shape_bias.shape_bias(torch.tensor([0, 1, 3, 9]), shape, texture) == pytest.approx(2 / 3)
    assert shape_bias.shape_bias(texture, shape, texture) == 0
    assert math.isnan(shape_bias.shape_bias(torch.full((4,), 9), shape, texture))


@pytest.fixture(scope="module")
def drawn() -> dict[str, shape_bias.Letters]:
    return {change: shape_bias.letters(World(), 40, 3, change) for change in shape_bias.CHANGES}


def test_a_change_leaves_letters_places_and_labels_alone(drawn):
    plain = drawn["none"]
    for change, letters in drawn.items():
        assert torch.equal(letters.images.y, plain.images.y), change
        assert torch.equal(letters.masks, plain.masks), change
        assert letters.images.x.shape == (40, 3, 32, 32)
        assert letters.images.x.dtype == torch.uint8
        assert change == "none" or not torch.equal(letters.images.x, plain.images.x)
    # On a pixel the textured and the plain image differ by the texture at most, and by rounding.
    apart = (plain.images.x.int() - drawn["texture removed"].images.x.int()).abs()
    assert 10 <= apart.max() <= 15
    assert (drawn["texture removed"].textures == -1).all()
    assert (drawn["texture swapped"].textures != plain.images.y).all()
    assert torch.equal(plain.textures, plain.images.y)


def test_each_change_takes_away_what_it_says(drawn):
    def spread(change, inside):
        letters = drawn[change]
        chosen = letters.masks > 0.99 if inside else letters.masks == 0
        return torch.stack(
            [x[:, m].float().std(1).mean() for x, m in zip(letters.images.x, chosen, strict=True)]
        ).mean()

    def contrast(change):
        letters = drawn[change]
        pairs = zip(letters.images.x.float(), letters.masks, strict=True)
        return torch.stack([(x[:, m > 0.99].mean() - x[:, m == 0].mean()).abs() for x, m in pairs]).mean()

    assert contrast("shape removed") < 5 < 60 < contrast("none")
    assert spread("texture removed", inside=False) < 0.5 * spread("none", inside=False)
    assert set(drawn["silhouette"].images.x[:, :, 0, 0].unique().tolist()) == {255}
    assert (drawn["silhouette"].images.x[:, 0][drawn["silhouette"].masks == 1] == 0).all()


def test_an_unknown_change_or_copy_is_named():
    with pytest.raises(ValueError, match=r"change must be one of none, texture swapped, .*, got 'upside down'"):
        shape_bias.letters(World(), 20, 0, "upside down")
    with pytest.raises(ValueError, match=r"copy must be one of plain, own.*, got 'fuzzy'"):
        shape_bias.target_copy("digits", "fuzzy", World(), 0)


@pytest.mark.parametrize("name", [*SHAPES, "source"])
def test_copies_differ_in_their_texture_only(name):
    own, swapped, low = (shape_bias.target_copy(name, copy, World(), 5) for copy in ("own", "swapped", "low"))
    assert torch.equal(own.test.y, swapped.test.y)
    assert torch.equal(own.test.y, low.test.y)
    apart = (own.test.x.int() - swapped.test.x.int()).abs()
    assert 20 <= apart.max() <= 2 * 14 + 1
    assert not torch.equal(own.test.x, low.test.x)
    again = shape_bias.target_copy(name, "swapped", World(), 5)
    assert torch.equal(again.test.x, swapped.test.x)


def test_a_plain_copy_is_the_target_itself():
    task = targets.target("lower", World(), 5)
    assert torch.equal(shape_bias.target_copy("lower", "plain", World(), 5).test.x, task.test.x)


def test_an_overlay_adds_the_grating_of_its_class():
    x = torch.full((2, 3, 32, 32), 128, dtype=torch.uint8)
    out = shape_bias.overlay(x, np.array([0, 3]), World(), np.random.default_rng(0)).float() - 128
    table = torch.from_numpy(glyphs.gratings(20))
    for image, k in zip(out, (0, 3), strict=True):
        nearest = (image[0] - 14 * table[k]).abs().amax((1, 2)).min()
        assert nearest <= 0.51


def test_attribution_share_by_hand():
    attribution = torch.zeros(1, 3, 2, 2)
    attribution[0, :, 0, 0], attribution[0, 0, 1, 1] = -1.0, 1.0
    masks = torch.tensor([[[1.0, 0.0], [0.0, 0.5]]])
    for scale in (1, 1e-20):
        assert float(shape_bias.attribution_share(scale * attribution, masks)) == pytest.approx((3 + 0.5) / 4)
    assert float(shape_bias.attribution_share(0 * attribution, masks)) == 0
    shown = plots.magnified(torch.cat([1e-25 * attribution, 0 * attribution]))
    torch.testing.assert_close(shown[0], 0.5 + 0.5 * attribution[0])
    assert (shown[1] == 0.5).all()


def test_a_single_feature_grows(small_net):
    x = torch.full((2, 3, 32, 32), 0.5)
    for feature in (0, 3):
        changed = shape_bias.single_feature(small_net, x, feature, steps=5)
        with torch.no_grad():
            assert small_net.features(changed)[0, feature] > small_net.features(x)[0, feature]
        assert changed.min() >= 0
        assert changed.max() <= 1
    faint = copy.deepcopy(small_net)
    with torch.no_grad():
        faint.backbone[-1][-1].bn2.weight.mul_(1e-25)
    x = torch.rand(1, 3, 32, 32, generator=torch.Generator().manual_seed(0)) / 2 + 0.25
    moved = (shape_bias.single_feature(faint, x, 1, steps=1, size=0.1) - x).norm()
    assert float(moved) == pytest.approx(0.1, rel=1e-3)


def test_stimuli_are_read_and_mapped(tmp_path):
    for shape, stem in (("cat", "cat1-dog2"), ("cat", "cat3-cat1"), ("boat", "boat12-car1"), ("clock", "clock1-cat1")):
        (tmp_path / shape).mkdir(exist_ok=True)
        Image.new("RGB", (10, 8), (200, 10, 30)).save(tmp_path / shape / f"{stem}.png")
    names = list(shape_bias.CIFAR_NAMES)
    x, shape, texture = shape_bias.read_stimuli(tmp_path, 32, names)
    assert x.shape == (2, 3, 32, 32)
    assert x[0, :, 5, 5].tolist() == [200, 10, 30]
    assert [shape_bias.CIFAR_NAMES[names[k]] for k in shape] == ["ship", "cat"]
    assert [shape_bias.CIFAR_NAMES[names[k]] for k in texture] == ["automobile", "dog"]


def test_bad_stimuli_are_named(tmp_path):
    names = list(shape_bias.CIFAR_NAMES)
    with pytest.raises(ValueError, match="no cue-conflict stimulus"):
        shape_bias.read_stimuli(tmp_path, 32, names)
    (tmp_path / "cat").mkdir()
    (tmp_path / "cat" / "cat1-dog2.png").write_bytes(b"not an image")
    with pytest.raises(ValueError, match=r"cat1-dog2.png cannot be used"):
        shape_bias.read_stimuli(tmp_path, 32, names)
    (tmp_path / "cat" / "cat1-dog2.png").rename(tmp_path / "cat" / "dog1-cat2.png")
    with pytest.raises(ValueError, match=r"dog1-cat2.png: the name must be"):
        shape_bias.read_stimuli(tmp_path, 32, names)


def made_up(lead: float, preset: str = "glyphs") -> pd.DataFrame:
    """Five replicates in which the robust source has the given lead wherever a claim says it should."""
    rows = []

    def add(seed, source, target, value, method="none", metric="clean_accuracy", change=""):
        eps = EPS if source == "robust" else 0.0
        row = {"seed": seed, "source": source, "source_eps": eps, "target": target, "method": method, "metric": metric}
        row |= {"texture_amplitude": World().texture_amplitude}
        rows.append(row | {"value": value + 0.001 * seed, "change": change, "n_test": 500})

    for seed in range(5):
        for source, sign in (("standard", -0.5), ("robust", 0.5)):
            for change, value in (("none", 0.9), ("shape removed", 0.5 - 0.8 * sign), ("texture removed", 0.5)):
                add(seed, source, "source", value, change=change)
            add(seed, source, "source", 0.5 + lead * sign, change="texture swapped")
            add(seed, source, "source:swapped", 0.5 + lead * sign, "fixed_feature")
            for name in SHAPES:
                add(seed, source, f"{name}:own", 0.7 - 0.1 * sign, "last_stage")
                add(seed, source, f"{name}:swapped", 0.7 + (lead - 0.1) * sign, "last_stage")
                add(seed, source, f"{name}:low", 0.7 + (2 * lead - 0.1) * sign, "last_stage")
                add(seed, source, f"{name}:plain", 0.6 + lead * sign, "fixed_feature")
        for name in SHAPES:
            add(seed, "randomised", f"{name}:plain", 0.6, "fixed_feature")
        for source, bias, attacked in (("standard", 0.1, 0.1), ("randomised", 0.9, 0.2), ("robust", 0.99, 0.7)):
            add(seed, source, "source", bias, metric="shape_bias")
            add(seed, source, "source", attacked, metric="robust_accuracy")
            add(seed, source, "source", -0.001 * seed, metric="self_check_warnings")
            add(seed, source, "source", -0.001 * seed, metric="collapsed")
    # No two replicates alike, but for what the checks need.
    noise = 0.002 * np.random.default_rng(0).normal(size=len(rows))
    frame = pd.DataFrame(rows)
    frame["value"] += noise * ((frame.target != "source") | (frame.change == "texture swapped"))
    frame.attrs = {"study": "shape_bias", "preset": preset, "run": "kit"}
    return frame


@pytest.fixture
def quick(monkeypatch):
    """Source networks that nobody trained, and no slow pictures of what they look at."""
    monkeypatch.setattr(Source, "load", lambda self: (models.create(20, "small-8", self.seed).eval(), {}))
    monkeypatch.setattr(shape_bias, "single_feature", lambda net, x, feature, steps: x)
    monkeypatch.setattr(IntegratedGradients, "attribute", lambda self, x, *_, **__: x)


def judged(frame: pd.DataFrame):
    return study("02", {"shape_bias": frame}, preset="glyphs")["judge"]


def test_effects_by_hand():
    judge = judged(made_up(0.2))
    assert judge.interval("U-C9", "texture-swapped").effect == pytest.approx(20, abs=0.3)
    assert judge.interval("U-C9", "down-scaled").effect == pytest.approx(40, abs=0.3)
    assert judge.interval("S-C8", "zero-shot").effect == pytest.approx(20, abs=0.3)
    assert judge.interval("S-C8", "with transfer").effect == pytest.approx(20, abs=0.3)
    assert judge.interval("S-C9").effect == pytest.approx(10, abs=0.3)
    assert [one.interval.effect for one in judge.controls] == pytest.approx([-80, 80, -10, 0], abs=0.3)
    assert all(one.holds for one in judge.controls)
    assert judge.collapsed == []


@pytest.mark.parametrize(("lead", "word"), [(0.2, "supported"), (-0.2, "contradicted")])
def test_verdicts_flip_with_the_frame(lead, word):
    judge = judged(made_up(lead))
    assert {name: found.verdict for name, found in judge.verdicts.items()} == dict.fromkeys(
        ("S-C8", "U-C9", "S-C9"), word
    )
    assert {found.reason for found in judged(made_up(lead, "smoke")).verdicts.values()} == {"smoke"}


def test_a_failing_control_stops_the_verdicts():
    frame = made_up(0.2)
    frame.loc[(frame.source == "randomised") & (frame.metric == "shape_bias"), "value"] = 0.05
    reasons = {found.reason.partition(":")[0] for found in judged(frame).verdicts.values()}
    assert reasons == {"invalid_control"}


def test_what_was_not_run_is_not_judged_and_a_misspelt_column_is_an_error():
    frame = made_up(0.2)
    found = judged(frame[~frame.target.str.endswith(":low")]).verdicts
    assert (found["U-C9"].verdict, found["U-C9"].reason) == ("not_judged", "not_run")
    assert found["S-C9"].verdict == "supported"
    judge = judged(frame)
    with pytest.raises(KeyError, match="varient"):
        judge("S-C9", lambda f: study("02")["lead"](f, varient="plain"))


def test_two_arms_at_the_ceiling_are_not_compared():
    frame = made_up(0.02)
    frame.loc[frame.target.str.endswith(":plain"), "value"] += 0.38
    assert judged(frame).verdicts["S-C9"].reason == "saturated"


def test_the_page_flips_with_the_frame(quick):
    ahead, behind = (read("02", {"shape_bias": made_up(lead)}, preset="glyphs") for lead in (0.2, -0.2))
    for claim in ("S-C8", "U-C9", "S-C9"):
        assert f"{claim}: **seen in this world" in ahead
        assert f"{claim}: **opposite seen in this world" in behind
    for page, words, others in (
        (ahead, ("OPPOSITE", "worse** than", "the other**"), ("better** than", "It is **the adversary's**")),
        (behind, ("better** than", "the adversary's**"), ("OPPOSITE", "worse** than", "It is **the other**")),
    ):
        assert not [word for word in words if word in page]
        assert [word for word in others if word in page] == list(others)
    assert "are ahead, by +30" in ahead
    assert "are still behind, by -50" in behind
    assert "It is **50 of 100 (robust networks: 50)**" in ahead
    assert "in part at best: under attack 20 %" in ahead
    assert "4 of 4 checks pass" in ahead
    assert "Traceback" not in ahead


def test_a_rank_correlation_and_its_bootstrap():
    correlation = study("02")["rank_correlation"]
    x = pd.Series(range(20))
    found = correlation(x, x**3)
    assert (found.effect, found.low, found.high) == (pytest.approx(1), pytest.approx(1), pytest.approx(1))
    assert found.replicates == 20
    found = correlation(x, pd.Series(np.random.default_rng(1).permutation(20)))
    assert found.low < found.effect < found.high
    assert found.low < 0 < found.high


def test_transfer_beside_the_shape_bias():
    rows = []
    for seed, bias in ((0, 0.2), (1, 0.4)):
        world = {"source": "standard", "source_eps": 0.0, "source_seed": seed, "seed": seed, "n_train": 100}
        world |= {"texture_amplitude": 0.1, "shape_reliability": 0.85}
        rows.append(world | {"metric": "shape_bias", "value": bias, "method": "none", "target": "source"})
        for target, value in (("digits", 0.5), ("lower", 0.7), ("greek", 0.0)):
            fixed = {"metric": "clean_accuracy", "method": "fixed_feature", "target": target}
            rows.append(world | fixed | {"value": value + bias})
    table = study("02")["with_transfer"](pd.DataFrame(rows))
    assert table.bias.tolist() == pytest.approx([20, 40])
    assert table.transfer.tolist() == pytest.approx([80, 100])


def test_a_replicate_shares_its_cells_with_the_full_preset():
    cells = lesson.execute(lesson.path("02"), tags=lesson.GRID)["cells"]
    every = {}
    for name in ("glyphs", "glyphs-full"):
        preset = presets.get(name)
        every[name] = {cell for seed in preset.seeds for cell in cells(preset, seed, ())}
    assert every["glyphs"] <= every["glyphs-full"]
    assert len({cell.seed for cell in every["glyphs"]}) == 5
    assert all(isinstance(cell, measure.Cell) for cell in every["glyphs"])


def test_cells_from_nothing():
    """A copy of a target is no data set by name, and the randomised source goes by its own name."""
    preset = presets.get("smoke")
    cells = lesson.execute(lesson.path("02"), tags=lesson.GRID)["cells"]
    chosen = [cell for cell in cells(preset, 0, ()) if cell.source.world.texture_reliability == measure.RANDOMISED]
    assert [cell.target for cell in chosen] == ["source", *(f"{name}:plain" for name in SHAPES)]
    frame = experiment.compute_cells(measure.rows, chosen[:2], alone=True)
    assert set(frame.source) == {"randomised"}
    assert set(frame.change) == {"", *shape_bias.CHANGES}
    assert set(frame[frame.target == "digits:plain"].metric) == {"clean_accuracy", "validation_accuracy"}
    assert frame[frame.metric == "shape_bias"].test_amplitude.isin(measure.AMPLITUDES).all()


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        (lambda d, s, t: shape_bias.shape_bias(d, s, t), "Right."),
        (lambda d, s, t: (d == s).float().mean(), "neither cue do not count"),
        (lambda d, s, t: (d == t).sum() / ((d == s) | (d == t)).sum(), "bias for the texture"),
        (lambda d, s, t: (d == s).sum() / (d == t).sum(), "stand both"),
        (lambda d, s, t: 100 * shape_bias.shape_bias(d, s, t), "not percent"),
        (lambda d, s, t: 0.0, "make 0.6, not 0.00"),
        (lambda d, s, t: None, "returns nothing"),
    ],
)
def test_the_exercise_is_checked(answer, said, capsys):
    assert checks.shape_bias(answer) is (said == "Right.")
    assert said in capsys.readouterr().out


def plumbed(**knobs) -> dict:
    return lesson.execute(lesson.path("02"), knobs, lesson.GRID)


def test_what_can_be_changed_is_what_letters_are_drawn_with():
    assert LIMITS["change"] == list(shape_bias.CHANGES)


def test_knobs_change_what_is_shown_and_no_cell():
    own, other = plumbed(), plumbed(change="blurred", amplitude=[28])
    assert own["changes"] == tuple(shape_bias.CHANGES)
    assert (other["changes"], other["level"]) == (("blurred",), 28 / 255)
    assert own["level"] == World().texture_amplitude
    glyph = presets.get("glyphs")
    assert list(own["cells"](glyph, 0, ())) == list(other["cells"](glyph, 0, ()))
    for kind, _, source in lesson.cells(lesson.path("02")):
        if kind == "code" and "plots.images(torch.cat(rows), [" in source:
            with mock.patch.object(plots, "display"), mock.patch.object(plots, "images") as shown:
                exec(source, other)
    (sheet, names), _ = shown.call_args
    assert names == ["blurred"]
    assert torch.equal(sheet, shape_bias.letters(World(), 10, 100, "blurred", 28 / 255).images.x)


@pytest.mark.parametrize(
    ("knobs", "valid"),
    [
        ({"change": "rotated"}, "change must be some of none, texture swapped, .*'rotated'"),
        ({"amplitude": 61}, "amplitude must be numbers from 0 to 60"),
        ({"amplitude": [2, 4]}, "amplitude takes one value"),
    ],
)
def test_a_knob_that_does_not_fit_is_refused(knobs, valid):
    with pytest.raises(ValueError, match=valid):
        plumbed(**knobs)


def test_one_replicate_more_is_shown_and_not_judged():
    frame = made_up(0.2)
    frame.attrs["live"] = 4
    space = study("02", {"shape_bias": frame}, preset="glyphs")
    assert space["judge"].verdicts["S-C9"].replicates == 4
    assert set(space["main"].seed) == {0, 1, 2, 3}
    assert set(space["judge"].live.seed) == {4}


def test_what_others_measured_on_imagenet_is_judged_by_the_same_measure():
    found = study("02")["authors"].verdicts["S-C8"]
    assert found.effect == pytest.approx(7.25, abs=0.006)
    assert found.low == pytest.approx(5.82, abs=0.1)  # 5.82 and 8.68 by Student's t alone; ours may allow for skewness
    assert found.high == pytest.approx(8.68, abs=0.1)
    assert found.marks == ("14 networks",)
    assert found.verdict == "supported"
