"""Notebook 01 on real images: plans, frames with data sets by name, and the path from a folder to a figure."""

import json
import math

import numpy as np
import pandas as pd
import pytest
from test_data import arrays
from test_transfer import JITTER, made_up, row

from rtkit import prose, tasks
from rtkit.data.pictures import Pictures
from rtkit.plots import transfer as figures
from rtkit.prose import transfer as say
from rtkit.studies import transfer
from rtkit.studies import transfer_effects as effects
from rtkit.studies.transfer import MAIN_EPS, REAL

EPS = Pictures.eps


def real(lead: float, targets=REAL[:3], **more) -> pd.DataFrame:
    """A frame of a world of real images in which the robust source leads by `lead` everywhere."""
    rows, world = [], {"texture_amplitude": math.nan, "shape_reliability": math.nan} | more
    for seed, jitter in enumerate(JITTER[:3]):
        for source, plus in (("standard", 0.0), ("robust", lead + jitter)):
            radius = {"source_eps": EPS if source == "robust" else 0.0} | world
            for target in targets:
                for n in (100, 400, 1600):
                    for method in ("fixed_feature", "last_stage", "full_network"):
                        for metric in ("clean_accuracy", "validation_accuracy"):
                            value = 0.5 + plus + n / 10**4
                            rows.append(row(seed, source, target, method, value, n_train=n, metric=metric, **radius))
            rows.append(row(seed, source, "source", "none", 0.3, n_train=0, **radius))
            rows.append(row(seed, source, "source", "none", 0.0, metric="self_check_warnings", **radius))
        for target in targets:
            rows.append(row(seed, "untrained", target, "fixed_feature", 0.3 + jitter, **world))
            other = {"source_seed": seed + 1000} | world
            rows.append(row(seed, "standard", target, "fixed_feature", 0.51 + 2 * jitter, **other))
    return pd.DataFrame(rows)


def test_data_sets_of_a_reader_leave_every_verdict_of_the_glyph_world_as_it_was():
    frame = made_up(0.10)
    world = {name: frame[name].iloc[0] for name in ("texture_amplitude", "shape_reliability")}
    extra = real(-0.3, ("mine",), **world).assign(source_eps=lambda rows: 2 * rows.source_eps)
    both = pd.concat([frame, extra[extra.target == "mine"]], ignore_index=True)
    assert effects.verdicts(both, "glyphs") == effects.verdicts(frame, "glyphs")
    assert effects.controls(both) == effects.controls(frame)
    assert not len(effects.named(frame))
    assert set(effects.named(both).target) == {"mine"}
    assert set(effects.named(both).source_eps) == {0.0, MAIN_EPS}


@pytest.mark.parametrize(("lead", "word"), [(0.1, "supported"), (-0.1, "contradicted"), (0.0, "inconclusive")])
def test_verdicts_on_real_images(lead, word):
    frame = real(lead)
    assert effects.judged(frame) == REAL[:3]
    assert effects.main_eps(frame) == EPS
    assert effects.few(frame) == 100
    found = effects.verdicts(frame, "cifar-small")
    assert {found[name].verdict for name in ("U-C1", "U-C5", "S-C2")} == {word}
    assert {found[name].reason for name in ("U-C3", "U-C6", "S-C1", "S-C4", "S-C5")} == {"not_run"}
    assert {verdict.scope for verdict in found.values()} == {"small-scale"}
    assert "small scale" in prose.verdict(found["U-C1"]) or word == "inconclusive"
    assert [control.holds for control in effects.controls(frame)] == [True, True, True]
    sentence = say.real(effects.named(frame))
    expected = {"supported": (12, 0), "contradicted": (0, 12), "inconclusive": (0, 0)}[word]
    assert f"Of 12 comparisons the robust source is clearly ahead in {expected[0]} and clearly behind in" in sentence
    assert f"clearly behind in {expected[1]};" in sentence
    assert "* CIFAR-10, last stage, n = 1600: " in sentence


def test_a_frame_of_one_replicate_says_so():
    frame = effects.named(real(0.1, ("mine",)))
    sentence = say.real(frame[frame.seed == 0])
    assert "ahead in 0 and clearly behind in 0; 4 are not told apart" in sentence
    assert "single replicate" in sentence
    assert "name a data set of yours" in say.real(frame[:0])
    figures.real_gains(frame[:0])


def test_a_preset_without_its_data_says_how_to_get_them(tmp_path, monkeypatch):
    monkeypatch.setenv("RTKIT_DATA", str(tmp_path))
    with pytest.raises(ValueError, match="needs one of the data sets mnist, fashion_mnist, cifar10 in"):
        transfer.plan("cifar-small")
    np.savez(tmp_path / "mnist.npz", **arrays(40, 8, 1, tuple("0123456789")))
    with pytest.raises(ValueError, match="no data set is called 'cifar100': `rtkit data get cifar100` downloads it"):
        transfer.run("cifar-small")
    with pytest.raises(ValueError, match="no data set is called 'absent'"):
        transfer.run("smoke", targets=["absent"])


def test_a_data_set_of_a_reader_is_carried_to_and_shown(tmp_path, monkeypatch):
    """Every cell of the smallest preset on an npz of two classes, from the file to figures and sentences."""
    monkeypatch.setenv("RTKIT_DATA", str(tmp_path))
    np.savez(tmp_path / "mine.npz", **arrays(60, 20))
    world = transfer.presets.get("smoke").world
    before = tasks.fingerprints(world, "mine")
    assert tasks.fingerprints(world, "digits") == {}
    cells = [cell for cell in transfer.plan("smoke", targets=["mine"]) if cell.target == "mine"]
    assert {cell.protocol for cell in cells} == {"fixed_feature", "last_stage", "full_network", "probe", "scratch"}
    assert {n for cell in cells for n in cell.n_train} == {20, 40}
    monkeypatch.setattr(transfer, "plan", lambda preset, seeds=None, targets=(): cells)
    frame = transfer.run("smoke", targets=["mine"])
    shown = effects.named(frame)
    assert set(shown.source) == {"standard", "robust"}
    assert set(shown.value) <= {k / 60 for k in range(61)} or shown.value.between(0, 1).all()
    assert "* mine, fixed features, n = 20: " in say.real(shown)
    assert figures.real_gains(shown[shown.n_train == 20]).get_yticklabels()[0].get_text() == "mine"
    np.savez(tmp_path / "mine.npz", **(arrays(60, 20) | {"x_test": arrays(60, 20)["x_train"]}))
    assert tasks.fingerprints(world, "mine") != before  # so that no result outlives its data


def test_a_record_says_which_images_it_rests_on(tmp_path, monkeypatch):
    monkeypatch.setenv("RTKIT_DATA", str(tmp_path))
    np.savez(tmp_path / "mnist.npz", **arrays(30, 8, 1))
    frame = real(0.1, ("mnist",))
    effects.publish(frame, "cifar-small", tmp_path / "records")
    kept = json.loads((tmp_path / "records" / "cifar-small" / "transfer.json").read_text())
    assert set(kept["data"]) == {"mnist"}  # CIFAR-100 is not there to be told
    assert (kept["data"]["mnist"]["train"], kept["data"]["mnist"]["test"]) == (30, 30)
    effects.publish(made_up(0.1), "glyphs", tmp_path / "records")
    assert "data" not in json.loads((tmp_path / "records" / "glyphs" / "transfer.json").read_text())
