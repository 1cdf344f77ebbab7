"""The new test set: its reader, effects by hand, the path from a file to a figure, and a null that must stay one."""

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest

from rtkit import claims, cli, evaluation, presets, records, store, studies
from rtkit.data import downloads
from rtkit.data.pictures import Pictures
from rtkit.plots import new_test_set as figures
from rtkit.presets import Preset
from rtkit.prose import new_test_set as say
from rtkit.studies import new_test_set as study
from rtkit.studies import new_test_set_effects as effects
from rtkit.studies.new_test_set import NETWORKS, NEW, OLD, PARTS

PRESET = Preset("cifar-small", (0, 1), "small-8", 40, 20, 8, 0.1, world=Pictures("cifar100"))
NAMES = np.array(["airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"])
JITTER = (-0.01, 0.0, 0.01)


def photographs(root, classes=NAMES) -> None:
    """A tiny CIFAR-10: a level of grey for each class."""
    made = {"classes": classes}
    for part, seed in (("train", 0), ("test", 1)):
        made[f"x_{part}"], made[f"y_{part}"] = images(seed, len(classes))
    np.savez(root / "cifar10.npz", **made)


def images(seed: int, classes: int = 10, size: int = 32) -> tuple[np.ndarray, np.ndarray]:
    y = np.arange(90) % classes
    noise = np.random.default_rng(seed).integers(20, size=(90, size, size, 3))
    return (noise + 20 * y[:, None, None, None]).astype(np.uint8), y


def write(root, x=None, y=None, **more) -> None:
    """The new test set; without arguments one of the same kind as `photographs`."""
    x, y = (given if given is not None else made for given, made in zip((x, y), images(2), strict=True))
    np.savez(root / "cifar10_1.npz", x_test=x, y_test=y, **more)


@pytest.fixture
def root(root, tmp_path, monkeypatch):
    """A folder for data, none of the kit's results, a preset that trains eight steps, and no further process."""
    monkeypatch.setattr(store, "RESULTS", tmp_path / "results")
    monkeypatch.setitem(presets.PRESETS, "cifar-small", PRESET)
    monkeypatch.setattr(studies, "workers", lambda: 1)
    return root


def test_what_is_missing_or_wrong_is_named(root):
    with pytest.raises(ValueError, match="no data set is called 'cifar10': `rtkit data get cifar10`"):
        study.plan("cifar-small")
    photographs(root, NAMES[:3])
    with pytest.raises(ValueError, match=r"cifar10\.npz has 3 classes instead of CIFAR-10's ten; `rtkit data get"):
        study.plan("cifar-small")
    photographs(root)
    with pytest.raises(ValueError, match=r"no CIFAR-10\.1: .*cifar10_1\.npz is missing; .*data/README\.md"):
        study.plan("cifar-small")
    with pytest.raises(ValueError, match="new_test_set does not run at the preset 'glyphs', only at cifar-small"):
        study.plan("glyphs")
    path = root / "cifar10_1.npz"
    path.write_bytes(b"PK\x03\x04 cut short")
    with pytest.raises(ValueError, match=r"cifar10_1\.npz cannot be read .* fetch or write it again"):
        study.plan("cifar-small")
    np.savez(path, x=np.zeros(3))
    with pytest.raises(ValueError, match=r"cifar10_1\.npz lacks the arrays x_test, y_test; it must hold x_test, y_t"):
        study.plan("cifar-small")
    x, y = images(2)
    for arrays, words in (
        ((x / 255, y), r"cifar10_1\.npz: x_test must be uint8 of shape .* got float64"),
        ((x[0], y), r"x_test must be uint8 of shape"),
        ((x, y / 1.0), r"y_test must be one whole number for each of the 90 images, got float64"),
        ((x, y[1:]), r"y_test must be one whole number for each of the 90 images"),
        ((x, y + 1), r"y_test\[9\] is 10, but labels must lie between 0 and 9 .* 9 labels .*data/README\.md"),
        ((x[:9], y[:9]), rf"cifar10_1\.npz has 9 images; it needs {PARTS} or more"),
    ):
        write(root, *arrays)
        with pytest.raises(ValueError, match=words):
            study.plan("cifar-small")


def test_images_of_another_size_are_resized(root):
    photographs(root)
    write(root, *images(2, size=40))
    found = study.new_images(Pictures("cifar10"))
    assert found.x.shape == (90, 3, 32, 32)
    assert found.classes == tuple(NAMES)
    assert found.y.tolist() == images(2)[1].tolist()
    other = study.digest(found)
    write(root)
    assert study.digest(study.new_images(Pictures("cifar10"))) != other


def test_the_command_line_refuses_in_a_line(root, capsys):
    photographs(root)
    with pytest.raises(SystemExit) as stopped:
        cli.main(["study", "new_test_set", "--preset", "cifar-small"])
    assert stopped.value.code == 2
    assert "cifar10_1.npz is missing" in capsys.readouterr().err


def test_what_lies_beside_the_data_sets_is_not_listed(root):
    photographs(root)
    write(root)
    for name in ("checkpoints", "cue_conflict/cat", "mine/cat"):
        (root / name).mkdir(parents=True)
    there = [name for name, state, _ in downloads.listing() if state != "absent"]
    assert there == ["cifar10", "mine"]


def test_networks_are_those_of_the_cue_conflict_study_and_more():
    from rtkit.studies import cue_conflict

    found, eps = study.networks("cifar-small", 1), Pictures.eps
    assert list(found.values())[:3] == list(cue_conflict.sources("cifar-small", 1).values())
    assert [source.source_eps for source in found.values()] == [0, eps, eps, 2 * eps, 0, 0]
    assert [source.steps for source in found.values()] == [2340, 2340, 2340, 2340, 780, 292]


def test_from_a_file_to_a_figure(root, monkeypatch):
    three = {name: NETWORKS[name] for name in ("standard", "robust", study.BRIEF[1])}  # a few seconds less
    monkeypatch.setattr(study, "NETWORKS", three)
    monkeypatch.setattr(study, "ATTACKED", 6)
    photographs(root)
    write(root)
    frame = study.run("cifar-small")
    assert list(frame.network.unique()) == list(three)
    clean = frame[frame.metric == "clean_accuracy"]
    assert set(clean.images) == {OLD, NEW, *study.HALVES}
    whole = clean.pivot_table(index=["seed", "network"], columns="images", values="value")
    assert np.allclose(whole[list(study.HALVES)].mean(axis=1), whole[OLD])
    for part in (OLD, NEW):
        rows = frame[(frame.metric == "accuracy_in_part") & (frame.images == part)]
        assert (rows.groupby(["seed", "network"]).size() == PARTS).all()
        total = (rows.value * rows.n_test).groupby([rows.seed, rows.network]).sum() / 90
        assert np.allclose(total, whole[part].loc[total.index])
        assert len(frame[(frame.metric == "robust_accuracy") & (frame.images == part)]) == 6
    net, _ = study.networks("cifar-small", 1)["standard"].load()
    assert whole[NEW][1, "standard"] == pytest.approx(evaluation.accuracy(net, study.new_images(Pictures("cifar10"))))

    assert records.latest("new_test_set", "cifar-small") is None
    effects.publish(frame, "cifar-small")
    record = records.load("new_test_set", "cifar-small")
    assert set(record.verdicts) == {"C101-T1", "C101-T2", "C101-T3"}
    assert record.verdicts["C101-T1"].reason == "not_run: 2 of at least 3 replicates"
    assert record.same_code
    kept = records.latest("new_test_set", "cifar-small")
    assert say.tell(kept) == say.tell(frame)
    assert "Correct of 90 old and of 90 new images" in say.tell(kept)

    # A second run reads; other new images ask the networks again, without training them.
    monkeypatch.setattr(study, "_measure", lambda *_: pytest.fail("computed again"))
    pd.testing.assert_frame_equal(study.run("cifar-small"), frame)
    write(root, images(3)[0])
    networks = sorted((root.parent / "runs" / "networks").iterdir())
    with pytest.raises(pytest.fail.Exception, match="computed again"):
        study.run("cifar-small")
    assert sorted((root.parent / "runs" / "networks").iterdir()) == networks


def rows(seed: int, name: str, old, new) -> list[dict]:
    """One network of one replicate by its accuracies on the parts of either test set, of 100 and of 10 images each."""
    facts = {"network": name, "source": NETWORKS[name][0], "source_eps": 0.0, "seed": seed, "target": "source"}
    facts |= {"source_seed": seed, "part": 0}
    out = []
    for images, values, n in ((OLD, old, 100), (NEW, new, 10)):
        base = facts | {"images": images, "n_test": n}
        out += [base | {"metric": "accuracy_in_part", "value": v, "part": k} for k, v in enumerate(values)]
        out.append(base | {"metric": "clean_accuracy", "value": float(np.mean(values)), "n_test": n * len(values)})
        robust = 0.3 + 0.2 * (facts["source"] == "robust")
        for metric, value in (("robust_accuracy", robust), ("self_check_warnings", 0.0)):
            out.append(base | {"metric": metric, "value": value, "n_test": 256})
    for half, values in zip(study.HALVES, np.array_split(old, 2), strict=True):
        out.append(
            facts | {"images": half, "n_test": 1200, "metric": "clean_accuracy", "value": float(np.mean(values))}
        )
    return [*out, facts | {"images": OLD, "n_test": 64, "metric": "collapsed", "value": 0.0}]


def made_up(rise: float, at_best: float, wobble=JITTER) -> pd.DataFrame:
    """Three replicates whose networks score 50, 55 ... 75 % on old images, on new ones along a line of slope `rise`.

    Args:
        at_best: accuracy on new images of the network with 75 %; wobble: added to it and to the slope, by replicate.
    """
    out = []
    for seed, extra in enumerate(wobble):
        for k, name in enumerate(NETWORKS):
            old = 0.75 - 0.05 * k
            new = at_best - (rise + extra) * 0.05 * k + extra
            out += rows(seed, name, np.full(PARTS, old), np.full(PARTS, new))
    return pd.DataFrame(out)


def test_shares_by_hand():
    frame = pd.DataFrame([row for seed in (3, 7) for row in rows(seed, "standard", np.arange(PARTS), np.ones(PARTS))])
    frame.loc[(frame.part == 2) & (frame.images == OLD), "n_test"] = 300
    found = effects.with_shares(frame)
    found = found[(found.metric == "accuracy_of_share") & (found.images == OLD)].set_index("seed")
    even = [*range(0, PARTS, 2), 2, 2]  # the second part counts three times
    assert found.value[3] == pytest.approx(np.mean(even))
    assert found.value[7] == pytest.approx(np.mean(range(1, PARTS, 2)))
    assert found.n_test.tolist() == [1400, 1200]


def test_effects_by_hand():
    part = effects.with_shares(made_up(1.5, 0.65, wobble=(0.0,)))
    assert effects.loss(part)["standard"] == pytest.approx(10)
    assert effects.loss(part)["standard, an eighth of the steps"] == pytest.approx(50 - 65 + 37.5)
    assert effects.slope(part) == pytest.approx(1.5)
    assert effects.order(part) == pytest.approx(1)
    # The first two change places: rank differences 1 and 1 of six networks.
    swapped = part.copy()
    chosen = (swapped.images == NEW) & (swapped.metric == "clean_accuracy")
    swapped.loc[chosen & (swapped.network == "noise"), "value"] = 0.7
    assert effects.order(swapped) == pytest.approx(1 - 6 * 2 / (6 * 35))


@pytest.mark.parametrize(
    ("rise", "best", "wobble", "words"),
    [
        (1.5, 0.65, JITTER, ("supported", "supported", "supported")),
        (0.5, 0.65, JITTER, ("contradicted", "supported", "contradicted")),  # the worst gains
        (1.0, 0.75, (-0.05, 0.0, 0.05), ("inconclusive", "supported", "inconclusive")),
        (-1.0, 0.45, JITTER, ("contradicted", "contradicted", "contradicted")),
    ],
)
def test_verdicts_flip_with_the_frame(rise, best, wobble, words):
    frame = made_up(rise, best, wobble)
    assert [control.holds for control in effects.controls(frame)] == [True] * 4
    found = effects.verdicts(frame, "cifar-small")
    assert tuple(verdict.verdict for verdict in found.values()) == words
    assert found["C101-T3"].effect == pytest.approx(rise)
    assert {verdict.scope for verdict in found.values()} == {"small-scale"}
    told = say.tell(frame)
    word = {"supported": "lose **less**", "contradicted": "lose **more**", "inconclusive": "**no clear difference**"}
    assert word[words[2]] in told
    assert f"in {3 * (rise > 0)} of 3 replicates" in told
    lost = effects.losses(frame).values()
    assert f"{sum(loss.low > 0 for loss in lost)} clearly lose accuracy" in told
    assert f"{sum(loss.high < 0 for loss in lost)} clearly gain it" in told
    assert told.count("**loses**") == sum(loss.low > 0 for loss in lost)
    assert told.count("**gains**") == sum(loss.high < 0 for loss in lost)
    ax = figures.old_and_new(frame)
    drawn = {"as on the old images", "least squares", *NETWORKS}
    assert {text.get_text() for text in ax.get_legend().get_texts()} == drawn
    plt.close("all")


def test_controls_stop_the_judgement():
    frame = made_up(1.5, 0.65)
    for change, name in (
        ((frame.images == study.HALVES[0]), "two halves of the old test images"),
        ((frame.network == "robust") & (frame.metric == "robust_accuracy"), "robust accuracy, robust minus standard"),
    ):
        broken = frame.copy()
        broken.loc[change, "value"] = 0.1
        assert [control.name for control in effects.controls(broken) if not control.holds] == [name]
        assert effects.verdicts(broken, "cifar-small")["C101-T1"].reason == f"invalid_control: {name}"
    alike = frame.assign(value=frame.value.where(frame.metric != "clean_accuracy", 0.7))
    assert [control.holds for control in effects.controls(alike)] == [True, False, True, True]
    blind = frame.assign(value=frame.value.where(frame.metric != "self_check_warnings", 1.0))
    assert [control.holds for control in effects.controls(blind)] == [True, True, True, False]


def test_a_network_that_trains_briefly_has_not_collapsed():
    frame = made_up(1.5, 0.65)
    frame.loc[(frame.network == study.BRIEF[1]) & (frame.images == OLD), "value"] *= 0.5
    assert effects.collapsed(frame) == []
    frame.loc[(frame.network == "robust") & (frame.images == OLD) & (frame.seed == 1), "value"] *= 0.5
    assert effects.collapsed(frame) == [1]


def test_one_replicate_and_none():
    frame = made_up(1.5, 0.65)
    told = say.tell(frame[frame.seed == 0])
    assert "does **not clearly change**" in told
    assert "in a single replicate" in told
    assert "Not judged: not run: 1 of at least 3 replicates" in told
    assert effects.controls(frame[frame.seed == 0]) == []
    figures.old_and_new(frame[frame.seed == 0])
    plt.close("all")
    assert "data/cifar10_1.npz" in say.tell(None)


def simulated(rng: np.random.Generator, harder: float) -> pd.DataFrame:
    """Networks of differing skill on images of differing difficulty, both sets drawn alike but for `harder`.

    All networks, and all replicates, meet the same images, and mostly agree about which are difficult.
    """
    old, new = rng.standard_normal((PARTS, 100)), harder + rng.standard_normal((PARTS, 10))
    out = []
    for seed in range(3):
        for k, name in enumerate(NETWORKS):
            skill = 0.8 - 0.2 * k + 0.03 * rng.standard_normal()
            either = ((skill + 0.5 * rng.standard_normal(x.shape) > x).mean(1) for x in (old, new))
            out += rows(seed, name, *either)
    return pd.DataFrame(out)


def test_new_images_of_the_same_kind_support_nothing():
    """By the judge itself, controls aside. Harder ones are found; so the judge is not merely mute."""
    rng, words = np.random.default_rng(0), {0.0: [], 0.6: []}
    for harder, found in words.items():
        for _ in range(30):
            frame = effects.with_shares(simulated(rng, harder))
            verdict = claims.judge(claims.get("C101-T1"), effects.loss, frame, preset="", scope="")
            found.append(verdict.verdict)
    assert words[0.0].count("supported") <= 2
    assert words[0.6].count("supported") >= 15
