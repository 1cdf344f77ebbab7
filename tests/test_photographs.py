"""Photographs in 01, 03, 04 and 05: what is compared, and verdicts that may fall either way, on made-up frames."""

import re

import numpy as np
import pandas as pd
import pytest
from lessons import read, study, swapped
from test_data import arrays

from rtkit import cli, experiment, labels, lesson, plots, presets, protocols, records, say, store
from rtkit.data.pictures import Pictures
from rtkit.presets import Preset

PHOTOS = presets.get("photos")
SEEDS = range(200, 210)


def grid(number: str) -> dict:
    return lesson.execute(lesson.path(number), {"preset": "photos", "run": "mine"}, lesson.GRID)


def framed(study_name: str, rows) -> pd.DataFrame:
    found = pd.DataFrame(rows)
    found.attrs = {"study": study_name, "preset": "photos", "run": "kit", "changed": {}, "made": ()}
    return found


def verdicts(number: str, frame: pd.DataFrame) -> dict:
    return study(number, {frame.attrs["study"]: frame}, preset="photos")["real_judge"].verdicts


@pytest.fixture
def data(tmp_path, monkeypatch):
    """A folder with one small data set."""
    monkeypatch.setenv("RTKIT_DATA", str(tmp_path))
    np.savez(tmp_path / "mnist.npz", **arrays(400, 20, 1, tuple("0123456789")))
    return tmp_path


def test_the_old_name_says_where_to_go(capsys):
    told = r"'cifar-small' is now the preset 'photos'.*results/explored/cifar-small"
    with pytest.raises(ValueError, match=told):
        presets.get("cifar-small")
    with pytest.raises(SystemExit):
        cli.main(["scorecard", "--preset", "cifar-small"])
    assert re.search(told, capsys.readouterr().err)


# 04 -----------------------------------------------------------------------------------------------------------------


def attacked(tuned=0.6, distilled=0.1, probe=0.9) -> pd.DataFrame:
    """Every student of the plan; fine-tuning and NFD are fooled as often as told, and more directly than from afar."""
    rng, rows = np.random.default_rng(0), []
    shares = {"probe": probe, "fine_tuning": tuned, "nfd": distilled, "nfd_long": distilled}
    for seed in SEEDS:
        for cell in dict.fromkeys(grid_04["cells"](PHOTOS, seed, ())):
            one, more = cell.student, {"architecture": "small-16", "cell": store.name(cell)}
            share = shares.get(one.name, 0.3) + rng.normal(0, 0.01)
            for form in ("any", "noise", "paper", "neurons", "adaptive", "features", "stages", "clipping"):
                hit = 0.05 if form == "noise" else share
                rows.append(one.row("attack_success_rate", hit, 400, form=form) | more)
            if one.name == "source":
                continue
            rows += [one.row(name, 0.8, 2000, form="") | more for name in ("clean_accuracy", "validation_accuracy")]
            for k, radius in enumerate((1, 2, 4, 5.76, 8, 16, 32)):
                reach = min(1.0, share + k / 6 + rng.uniform(0, 0.01))
                rows.append(one.row("direct_success_rate", reach, 100, form=f"within {radius:g}") | more)
            for form in ("", "stages"):
                rows.append(one.row("similarity", share, 500, form=form) | more)
    return framed("attack_success", rows)


grid_04 = grid("04")


def test_attacks_on_photographs_are_judged_target_by_target():
    frame = attacked()
    found = verdicts("04", frame)
    there = [labels.name(name) for name in grid_04["PHOTOS"]]
    assert there == ["MNIST", "KMNIST", "Fashion-MNIST"]
    for target in there:
        assert (
            found[f"NFD-C2@{target}"].verdict == found[f"NFD-C2@{target}, a fifth of the odds"].verdict == "supported"
        )
        assert found[f"NFD-K1@{target}"].verdict == "supported"
    other = verdicts("04", swapped(frame, "method", "nfd", "fine_tuning", "role"))
    assert {other[f"NFD-C2@{target}"].verdict for target in there} == {"contradicted"}
    weak = frame.assign(value=frame.value.mask((frame.method == "probe") & (frame.target == "kmnist"), 0.2))
    weak.attrs = frame.attrs
    found = verdicts("04", weak)
    assert found["NFD-C2@KMNIST"].reason.startswith("out_of_range")
    assert found["NFD-C2@MNIST"].verdict == "supported"


def test_students_of_photographs_are_tied_less_firmly():
    made = {cell.student.name: dict(cell.student.knobs) for cell in grid_04["cells"](PHOTOS, 100, ())}
    assert {made[name]["weight"] for name in ("delta", "delta_r", "nfd_dropout", "nfd_long")} == {1.0}
    letters = {cell.student.name: dict(cell.student.knobs) for cell in grid_04["cells"](presets.get("glyphs"), 100, ())}
    assert {letters[name]["weight"] for name in ("delta", "delta_r", "nfd_dropout", "nfd_long")} == {3.0}


# 05 -----------------------------------------------------------------------------------------------------------------

grid_05 = grid("05")


def kept(fall=0.02, head=0.3) -> pd.DataFrame:
    """Robust accuracy falls by `fall` with each block, from that of the head; clean accuracy rises."""
    rng, rows, depths = np.random.default_rng(0), [], grid_05["DEPTHS"]
    for seed in range(200, 205):
        for one in dict.fromkeys(grid_05["cells"](PHOTOS, seed, ())):
            blocks, home = depths.get(one.name, 0), one.target == "source"
            robust = 0.16 if home else (head - fall * blocks) * (one.source.kind == "robust")
            values = {"clean_accuracy": (0.3 if home else 0.45) + 0.01 * blocks, "robust_accuracy": robust}
            values = {name: value + rng.normal(0, 0.002) for name, value in values.items()}
            for name, value in (values | {"self_check_warnings": 0.0, "collapsed": 0.0}).items():
                rows.append(one.row(name, value, 120) | {"cell": store.name(one)})
    return framed("retention", rows)


def test_robustness_kept_on_photographs_may_fall_or_rise():
    found = verdicts("05", kept())
    assert found["LwF-C2@CIFAR-10"].verdict == found["LwF-C2@CIFAR-10, adapting"].verdict == "supported"
    assert verdicts("05", kept(fall=-0.02))["LwF-C2@CIFAR-10"].verdict == "contradicted"
    assert {one.scope for one in found.values()} == {"small-scale"}


@pytest.mark.parametrize(("head", "word"), [(0.3, "supported"), (0.1, "contradicted"), (0.15, "contradicted")])
def test_what_chance_alone_keeps_is_not_counted(head, word):
    """A head that always says the same is right on a tenth of CIFAR-10 under any attack; at home, on a hundredth."""
    found = verdicts("05", kept(head=head))["LwF-C1@CIFAR-10"]
    assert found.verdict == word
    assert found.effect == pytest.approx(100 * ((head - 0.1) / 0.35) / (0.15 / 0.29), abs=3)


def test_a_source_that_learned_nothing_robust_stops_every_verdict():
    frame = kept()
    frame.loc[(frame.target == "source") & (frame.metric == "robust_accuracy"), "value"] = 0.01
    assert {one.reason.split(":")[0] for one in verdicts("05", frame).values()} == {"invalid_control"}


# 01 -----------------------------------------------------------------------------------------------------------------


def carried(lead: float) -> pd.DataFrame:
    """The robust source leads on digits by `lead`, and is behind on CIFAR-10 by as much; less so the fewer pixels."""
    space, rng, rows = grid("01"), np.random.default_rng(0), []
    kinds = {name: kind for kind, names in space["KINDS"].items() for name in names}
    for seed in SEEDS:
        who = {name: one for name, (one, *_) in space["sources_of"](PHOTOS, seed).items()}
        for kind in ("standard", "robust", "noise"):
            own = space["cell"](PHOTOS, seed, who[kind], "source", "none", 0)
            strong = 0.1 + 0.1 * (kind == "robust")
            for name, value in (("clean_accuracy", 0.4), ("robust_accuracy", strong), ("self_check_warnings", 0.0)):
                rows.append(own.row(name, value, 2000))
        for name in ("mnist", "cifar10", "cifar10_8", "cifar10_6", "mnist_8", "mnist_6"):
            base, _, side = name.partition("_")
            by = lead * {"dissimilar": 1, "alike": -1}[kinds[base]] * (1.0 if not side else -1.0)
            for kind in ("standard", "robust", "noise", "untrained"):
                ahead = by * (kind == "robust") - 0.2 * (kind == "untrained")
                for n in (100, 400, 1600):
                    for method in ("probe", "last_stage"):
                        one = space["cell"](PHOTOS, seed, who[kind], base, "probe", (n,))
                        where = {"target": name, "method": method, "n_train": n}
                        value = 0.5 + ahead + rng.normal(0, 0.003)
                        for metric in ("clean_accuracy", "validation_accuracy"):
                            rows.append(one.row(metric, value, 10000) | where)
    return framed("transfer", rows)


@pytest.mark.parametrize(
    ("lead", "digits", "alike"), [(0.05, "supported", "contradicted"), (-0.05, "contradicted", "supported")]
)
def test_leads_on_photographs_are_judged_by_kind(lead, digits, alike):
    found = verdicts("01", carried(lead))
    for name in ("U-C1", "U-C5"):
        assert (found[f"{name}@dissimilar"].verdict, found[f"{name}@alike"].verdict) == (digits, alike)
        assert f"{name}@middle" not in found  # no such target is there
    assert (found["S-C5@CIFAR-10"].verdict, found["S-C5@MNIST"].verdict) == (digits, alike)


def test_the_ladder_takes_the_data_sets_that_are_there_and_a_reader_s(data):
    np.savez(data / "mine.npz", **arrays(60, 20))
    cells = list(grid("01")["cells"](PHOTOS, 100, ("mine",)))
    assert {cell.target for cell in cells} == {"source", "mnist", "mine"}
    sides = {name: {cell.side for cell in cells if cell.target == name} for name in ("mnist", "mine")}
    assert sides == {"mnist": {0, 16, 12, 8, 6}, "mine": {0, 8}}
    budgets = {cell.steps * cell.batch_size / cell.n_train[0] for cell in cells if cell.protocol == "last_stage"}
    assert all(epochs == pytest.approx(40, abs=0.5) for epochs in budgets)  # however many pictures
    (data / "mnist.npz").unlink()
    with pytest.raises(ValueError, match="photos needs one of the data sets mnist, kmnist, usps"):
        list(grid("01")["cells"](PHOTOS, 100, ("mine",)))


# the page -----------------------------------------------------------------------------------------------------------


def test_the_page_says_what_came_beside_letters_and_beside_what_was_expected():
    frame = attacked()
    page = read("04", {"attack_success": frame}, preset="photos")
    assert "| claim | letters | MNIST | KMNIST | Fashion-MNIST |" in page
    assert "words that were expected beforehand" in page
    space = study("04", {"attack_success": frame}, preset="photos")
    assert space["judge"].preset == "glyphs"  # the sections tell of letters, whatever runs
    records.publish(space["real_judge"])
    assert say.photographs(space["judge"], None).data == say.NOT_RUN


def test_the_scorecard_shows_where_letters_and_photographs_differ():
    page = read("07")
    assert re.search(r"the same way point \d+ of \d+ in 01, .* and \d+ of \d+ in 05. The others:", page)
    assert re.search(r">U-C1@alike<", page)  # seen on letters, contradicted where the target is like the source
    words = ("supported", "supported: +1.0 points", "seen in this world: +1.0 points")
    assert len({plots.verdict_colour(word) for word in words}) == 1


@pytest.mark.parametrize("preset", ["photos", "glyphs"])
def test_photographs_judged_otherwise_than_registered_only_explore(preset, monkeypatch):
    def word():
        kept = records.frame("retention", preset)
        return protocols.status(records.sides(kept)[preset == "photos"])

    assert word() == "confirmatory"
    monkeypatch.setattr(lesson, "photographs", lambda number: "another way")
    assert word() == ("confirmatory" if preset == "glyphs" else "exploratory: the judging of photographs changed")


# a reader's own data set ---------------------------------------------------------------------------------------------


def test_a_data_set_of_many_small_classes_is_a_target_of_01_as_it_is(data, monkeypatch, tmp_path):
    """From the file to the sentences, on sources that hardly learned anything."""
    tiny = Preset("photos", (0,), "small-8", 40, 20, 2, 0.1, world=Pictures("cifar100", test=40))
    monkeypatch.setitem(presets.PRESETS, "photos", tiny)
    monkeypatch.setattr(store, "RUNS", tmp_path / "runs")
    monkeypatch.setattr(experiment, "workers", lambda: 1)
    np.savez(data / "cifar100.npz", **arrays(100, 20))
    np.savez(data / "mine.npz", **arrays(240, 16, 3, tuple(f"class {k}" for k in range(20))))
    (data / "mnist.npz").unlink()
    np.savez(data / "mnist.npz", **arrays(60, 20, 1))
    page = read("01", preset="photos", run="mine", seeds=[0], targets=["mine"])
    assert "**mine** has 16 pixels: on section 10's ladder it stands at 2.0 times." in page
    assert "**mine**, fixed features: the robust source" in page
    record = records.load("transfer", "photos")
    assert record is not None
    assert not [name for name in record.verdicts if "mine" in name]


def test_a_data_set_of_a_reader_meets_every_student_of_04(data):
    for name in ("kmnist", "fashion_mnist"):
        np.savez(data / f"{name}.npz", **arrays(400, 20, 1, tuple("0123456789")))
    np.savez(data / "mine.npz", **arrays(60, 20))
    mine = [cell for cell in grid_04["cells"](PHOTOS, 100, ("mine",)) if cell.target == "mine"]
    assert {cell.student.name for cell in mine} == {"source", *grid_04["STUDENTS"]}
    sizes = {cell.student.n_train for cell in mine} - {0}
    assert sizes == {cell.attacker.n_train for cell in mine}
    assert max(sizes) * 2 <= 60
