"""Notebook 01 on real images: plans, frames with data sets by name, and the path from a folder to a figure."""

import json
import math

import numpy as np
import pandas as pd
import pytest
from lessons import study
from test_data import arrays
from test_transfer import JITTER, framed, grid, judged, made_up, row, value  # noqa: F401

from rtkit import experiment, presets, records, tasks
from rtkit.data.pictures import Pictures
from rtkit.frames import pick
from rtkit.labels import PHOTOS
from rtkit.measure import transfer

EPS, THREE = Pictures.eps, PHOTOS[:3]
OWN = "at_photos ="  # the cell that draws data sets of one's own


def real(lead: float, targets=THREE, **more) -> pd.DataFrame:
    """A frame of a world of real images in which the robust source leads by `lead` everywhere."""
    rows, world = [], {"texture_amplitude": math.nan, "shape_reliability": math.nan} | more
    world |= {"architecture": presets.get("cifar").architecture} if "texture_amplitude" not in more else {}
    for seed, jitter in enumerate(JITTER):
        for source, plus in (("standard", 0.0), ("robust", lead + jitter)):
            radius = {"source_eps": EPS if source == "robust" else 0.0} | world
            for target in targets:
                for n in (100, 400, 1600):
                    for method in ("fixed_feature", "last_stage", "full_network"):
                        for metric in ("clean_accuracy", "validation_accuracy"):
                            share = 0.5 + plus + n / 10**4
                            rows.append(row(seed, source, target, method, share, n_train=n, metric=metric, **radius))
            rows.append(row(seed, source, "source", "none", 0.3, n_train=0, **radius))
            rows.append(row(seed, source, "source", "none", 0.0, n_train=0, metric="self_check_warnings", **radius))
        for target in targets:
            rows.append(row(seed, "untrained", target, "fixed_feature", 0.3 + jitter, **world))
            other = {"source_seed": seed + 1000} | world
            rows.append(row(seed, "standard", target, "fixed_feature", 0.51 + 2 * jitter, **other))
    return framed(rows, "cifar")


def test_data_sets_of_a_reader_leave_every_verdict_of_the_glyph_world_as_it_was():
    frame = made_up(0.10)
    world = {name: frame[name].iloc[0] for name in ("texture_amplitude", "shape_reliability")}
    extra = real(-0.3, ("mine",), **world).assign(source_eps=lambda rows: 2 * rows.source_eps)
    both = framed(pd.concat([frame, extra[extra.target == "mine"]]))
    before, after = judged(frame), judged(both)
    assert after.verdicts == before.verdicts
    assert after.controls == before.controls
    assert not pick(after.main, target="mine").judged.any()
    assert set(pick(after.main, target="mine").arm) == {"standard", "robust", "untrained", "second"}


@pytest.mark.parametrize(("lead", "word"), [(0.1, "supported"), (-0.1, "contradicted"), (0.0, "null")])
def test_verdicts_on_real_images(lead, word):
    judge = judged(real(lead))
    assert set(judge.main[judge.main.judged].target) == set(THREE)
    assert set(pick(judge.main, arm="robust").source_eps) == {EPS}
    assert set(judge.main[judge.main.common].n_train) == {100}
    found = judge.verdicts
    assert {found[name].verdict for name in ("U-C1", "U-C5", "S-C2")} == {word}
    missing = ("U-C3", "U-C4", "U-C6", "U-C7", "S-C1", "S-C4", "S-C5", "S-C6", "S-C7", "KIT-T1", "KIT-T2")
    assert {found[name].reason for name in missing} == {"not_run"}
    assert {verdict.scope for verdict in found.values()} == {"small-scale"}
    assert [control.holds for control in judge.controls] == [True, True]


@pytest.mark.parametrize(
    ("radii", "main"), [((4 / 255, 0.05, 3.0, 2 / 255), 3.0), ((4 / 255, 2 / 255, 1 / 255), 2 / 255), ((8.0, 0.5), 0.5)]
)
def test_the_main_contrast_is_the_published_one_where_it_is_there(grid, radii, main):  # noqa: F811
    frame = real(0.1)
    robust = frame[frame.source == "robust"]
    rows = [frame[frame.source != "robust"], *(robust.assign(source_eps=eps) for eps in radii)]
    judge = judged(framed(pd.concat(rows), "cifar"))
    assert set(pick(judge.main, arm="robust").source_eps) == {main}
    others = judge.main[judge.main.arm.str.startswith("robust ")]
    assert set(others.source_eps) == set(radii) - {main}


@pytest.mark.parametrize(("lead", "word"), [(0.1, "ahead"), (-0.1, "behind")])
def test_what_is_said_of_a_data_set_of_ones_own_follows_the_frame(lead, word):
    both = framed(pd.concat([real(0.0), real(lead, ("mine",))]), "cifar")
    space = study("01", {"transfer": both}, preset="cifar", targets=["mine"])
    assert space["judge"].verdicts["U-C1"].verdict == "null"  # it enters no claim
    value(space, OWN)
    (said,) = space["said"]
    assert f"**mine**, fixed features: the robust source is **{word}**" in said
    assert f"{100 * lead:+.1f} points" in said
    one = framed(both[both.seed == 0], "cifar")
    space = study("01", {"transfer": one}, preset="cifar", targets=["mine"])
    value(space, OWN)
    assert "not clearly different" in space["said"][0]
    assert "(one replicate)" in space["said"][0]
    space = study("01", {"transfer": both}, preset="cifar")
    value(space, OWN)
    assert space["said"] == []


def test_a_preset_without_its_data_says_how_to_get_them(grid, root):  # noqa: F811
    cells = grid["cells"]
    with pytest.raises(
        ValueError, match=r"cifar needs one of the data sets mnist, fashion_mnist, cifar10, kmnist, svhn in .*get"
    ):
        list(cells(presets.get("cifar"), 0, ()))
    np.savez(root / "mnist.npz", **arrays(40, 8, 1, tuple("0123456789")))
    assert {cell.target for cell in cells(presets.get("cifar"), 0, ())} == {"mnist", "source"}
    with pytest.raises(ValueError, match="no data set is called 'cifar100': `rtkit data get cifar100` downloads it"):
        experiment.run(transfer.rows, cells, "cifar", run="mine")
    with pytest.raises(ValueError, match="no data set is called 'absent'"):
        experiment.run(transfer.rows, cells, "smoke", targets=["absent"])


def test_rates_and_radii_of_real_images(grid, root):  # noqa: F811
    np.savez(root / "mnist.npz", **arrays(400, 8, 1, tuple("0123456789")))
    cells = list(grid["cells"](presets.get("cifar"), 0, ()))
    rates = {cell.protocol: cell.lr for cell in cells}
    assert (rates["last_stage"], rates["scratch"], rates["fixed_feature"]) == (0.3, 0.3, 0.1)
    radii = {(cell.source.kind, cell.source.source_eps) for cell in cells}
    assert {("pgd_l2", 0.5), ("robust", 8 / 255), ("robust", EPS), ("noise", EPS)} <= radii
    tried = {(cell.target, cell.seed) for _, cell in grid["tried"](presets.get("cifar"), 100)}
    assert tried == {("mnist", 100), ("cifar10", 100)}


def test_a_data_set_of_a_reader_is_carried_to_and_shown(grid, root):  # noqa: F811
    """Every cell of the smallest preset on an npz of two classes, from the file to figure and sentence."""
    np.savez(root / "mine.npz", **arrays(60, 20))
    world = presets.get("smoke").world
    before = tasks.fingerprints(world, "mine")
    assert tasks.fingerprints(world, "digits") == {}

    def cells(preset, seed, targets):
        return [cell for cell in grid["cells"](preset, seed, targets) if cell.target == "mine"]

    todo = cells(presets.get("smoke"), 0, ["mine"])
    assert {cell.protocol for cell in todo} == {"fixed_feature", "last_stage", "full_network", "probe", "scratch"}
    assert {n for cell in todo for n in cell.n_train} == {20, 40}
    frame = experiment.run(transfer.rows, cells, "smoke", targets=["mine"])
    assert frame.value.between(0, 1).all()
    space = study("01", {"transfer": framed(frame, "smoke")}, preset="smoke", targets=["mine"])
    value(space, OWN)
    assert space["said"][0].startswith("* **mine**, fixed features: the robust source is **not clearly different**")
    assert set(space["own"].source) == {"standard", "robust"}
    assert set(space["own"].n_train) == {20}
    np.savez(root / "mine.npz", **(arrays(60, 20) | {"x_test": arrays(60, 20)["x_train"]}))
    assert tasks.fingerprints(world, "mine") != before  # so that no result outlives its data


def test_a_record_says_which_images_it_rests_on(root, tmp_path):
    np.savez(root / "mnist.npz", **arrays(30, 8, 1))
    for frame in (real(0.1, ("mnist",)), made_up(0.1)):
        frame.attrs["run"] = "mine"
        records.publish(judged(frame))
    kept = json.loads(records.path("transfer", "cifar").read_text())
    assert set(kept["data"]) == {"mnist"}  # CIFAR-100 is not there to be told
    assert (kept["data"]["mnist"]["train"], kept["data"]["mnist"]["test"]) == (30, 30)
    assert "data" not in json.loads(records.path("transfer", "glyphs").read_text())
