"""Shape bias by hand, images with one cue changed, stimuli from a folder, and what the study concludes."""

import math

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image

from rtkit import shape_bias
from rtkit.data import glyphs, targets
from rtkit.data.glyphs import World
from rtkit.studies import shape_bias as study
from rtkit.studies import shape_bias_effects as effects
from rtkit.studies.transfer import MAIN_EPS, SHAPES


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
    with pytest.raises(ValueError, match="'upside down'; there are none, texture swapped"):
        shape_bias.letters(World(), 20, 0, "upside down")
    with pytest.raises(ValueError, match="'fuzzy'; there are plain, own"):
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
    assert float(shape_bias.attribution_share(attribution, masks)) == pytest.approx((3 + 0.5) / 4)


def test_a_single_feature_grows(small_net):
    x = torch.full((2, 3, 32, 32), 0.5)
    for feature in (0, 3):
        changed = shape_bias.single_feature(small_net, x, feature, steps=5)
        with torch.no_grad():
            assert small_net.features(changed)[0, feature] > small_net.features(x)[0, feature]
        assert changed.min() >= 0
        assert changed.max() <= 1


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
    with pytest.raises(ValueError, match=r"cat1-dog2.png is not an image"):
        shape_bias.read_stimuli(tmp_path, 32, names)
    (tmp_path / "cat" / "cat1-dog2.png").rename(tmp_path / "cat" / "dog1-cat2.png")
    with pytest.raises(ValueError, match=r"dog1-cat2.png: the name must be"):
        shape_bias.read_stimuli(tmp_path, 32, names)


def made_up(lead: float) -> pd.DataFrame:
    """Five replicates in which the robust source has the given lead wherever a claim says it should."""
    rows = []

    def add(seed, source, target, value, method="none", metric="clean_accuracy", change=""):
        eps = MAIN_EPS if source == "robust" else 0.0
        row = {"seed": seed, "source": source, "source_eps": eps, "target": target, "method": method, "metric": metric}
        row |= {"texture_amplitude": World().texture_amplitude}
        rows.append(row | {"value": value + 0.001 * seed, "change": change, "n_test": 500})

    for seed in range(5):
        for source, sign in (("standard", -0.5), ("robust", 0.5)):
            add(seed, source, "source", 0.9, change="none")
            add(seed, source, "source", 0.5 - 0.8 * sign, change="shape removed")
            add(seed, source, "source", 0.5 + lead * sign, change="texture swapped")
            add(seed, source, "source:swapped", 0.5 + lead * sign, "fixed_feature")
            for name in SHAPES:
                add(seed, source, f"{name}:own", 0.7 - 0.1 * sign, "last_stage")
                add(seed, source, f"{name}:swapped", 0.7 + (lead - 0.1) * sign, "last_stage")
                add(seed, source, f"{name}:low", 0.7 + (2 * lead - 0.1) * sign, "last_stage")
                add(seed, source, f"{name}:plain", 0.6 + lead * sign, "fixed_feature")
        for name in SHAPES:
            add(seed, "randomised", f"{name}:plain", 0.6, "fixed_feature")
        for source, bias in (("standard", 0.1), ("randomised", 0.9), ("robust", 1.0)):
            add(seed, source, "source", bias, metric="shape_bias")
            add(seed, source, "source", -0.001 * seed, metric="self_check_warnings")
            add(seed, source, "source", -0.001 * seed, metric="collapsed")
    return pd.DataFrame(rows)


def test_effects_by_hand():
    frame = made_up(0.2)
    one = frame[frame.seed == 0]
    assert effects.EFFECTS["U-C9"](one) == pytest.approx({"texture-swapped": 20.0, "down-scaled": 40.0})
    assert effects.EFFECTS["S-C8"](one) == pytest.approx({"zero-shot": 20.0, "with transfer": 20.0})
    assert effects.EFFECTS["S-C9"](one) == pytest.approx(10.0)
    assert all(control.holds for control in effects.controls(frame))


@pytest.mark.parametrize(("lead", "word"), [(0.2, "supported"), (-0.2, "contradicted")])
def test_verdicts_flip_with_the_frame(lead, word):
    frame = made_up(lead)
    frame["value"] += 0.002 * np.random.default_rng(0).normal(size=len(frame)) * (frame.target != "source")
    assert {verdict.verdict for verdict in effects.verdicts(frame, "glyphs").values()} == {word}
    assert {verdict.reason for verdict in effects.verdicts(frame, "smoke").values()} == {"smoke"}


def test_a_failing_control_stops_the_verdicts():
    frame = made_up(0.2)
    frame.loc[(frame.source == "randomised") & (frame.metric == "shape_bias"), "value"] = 0.05
    reasons = {verdict.reason.partition(":")[0] for verdict in effects.verdicts(frame, "glyphs").values()}
    assert reasons == {"invalid_control"}


def test_rank_correlation():
    x = list(range(20))
    assert effects.rank_correlation(x, [value**3 for value in x]) == (
        pytest.approx(1),
        pytest.approx(1),
        pytest.approx(1),
    )
    found, low, high = effects.rank_correlation(x, np.random.default_rng(1).permutation(20))
    assert low < found < high
    assert low < 0 < high
    with pytest.raises(ValueError, match="at least four"):
        effects.rank_correlation([1, 2], [1, 2])


def test_a_replicate_shares_its_plan_with_the_full_preset():
    glyphs_plan, full = (set(study.plan(name)) for name in ("glyphs", "glyphs-full"))
    assert glyphs_plan <= full
    assert len({cell.seed for cell in glyphs_plan}) == 5
