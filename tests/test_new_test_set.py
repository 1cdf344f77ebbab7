"""The new test set of notebook 06: its reader, effects by hand, from file to record, and a null that must stay one."""

import numpy as np
import pandas as pd
import pytest
from lessons import study

from rtkit import claims, cli, evaluation, experiment, lesson, plots, presets, records
from rtkit import judge as judging
from rtkit.data import downloads
from rtkit.data.pictures import Pictures
from rtkit.measure import new_test_set
from rtkit.measure.new_test_set import HALVES, NEW, OLD, PARTS
from rtkit.presets import Preset

PRESET = Preset("photos", (0, 1), "small-8", 40, 20, 8, 0.1, world=Pictures("cifar100"))
NAMES = np.array(["airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"])
JITTER = (-0.01, 0.0, 0.01)


@pytest.fixture(autouse=True, scope="module")
def _three_replicates_are_enough():
    """For frames that are made up, in which nothing is left to chance."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("rtkit.judge.MINIMUM_REPLICATES", 3)
        yield


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
    new_test_set._digest_of.cache_clear()


@pytest.fixture
def root(root, monkeypatch):
    """A folder for data, a preset that trains eight steps, and no further process."""
    monkeypatch.setitem(presets.PRESETS, "photos", PRESET)
    monkeypatch.setattr(experiment, "workers", lambda: 1)
    new_test_set._digest_of.cache_clear()
    return root


@pytest.fixture(scope="module")
def space() -> dict:
    """What notebook 06 defines, by the kit's own frames."""
    return study("06")


def run(space: dict, preset: str = "photos", only=()) -> pd.DataFrame | None:
    def cells(*args):
        return [cell for cell in space["new_cells"](*args) if not only or cell.network in only]

    return experiment.run(new_test_set.rows, cells, preset, run="mine")


def judged(space: dict, frame: pd.DataFrame) -> judging.Judge:
    """What the notebook's effect cell makes of a frame."""
    (source,) = [source for _, marks, source in lesson.cells(lesson.path("06")) if "judge_anew = Judge" in source]
    space = space | {"anew": frame}
    exec(source, space)
    return space["judge_anew"]


def test_what_is_missing_or_wrong_is_named(root, space):
    with pytest.raises(ValueError, match="no data set is called 'cifar10': `rtkit data get cifar10`"):
        run(space)
    photographs(root, NAMES[:3])
    with pytest.raises(ValueError, match=r"cifar10\.npz has 3 classes instead of CIFAR-10's ten; `rtkit data get"):
        run(space)
    photographs(root)
    with pytest.raises(ValueError, match=r"no CIFAR-10\.1: .*cifar10_1\.npz is missing; .*data/README\.md"):
        run(space)
    assert run(space, "glyphs") is records.any_frame("new_test_set")  # None, until the kit has one
    path = root / "cifar10_1.npz"
    path.write_bytes(b"PK\x03\x04 cut short")
    with pytest.raises(ValueError, match=r"cifar10_1\.npz cannot be read .* fetch or write it again"):
        run(space)
    np.savez(path, x=np.zeros(3))
    with pytest.raises(ValueError, match=r"cifar10_1\.npz lacks the arrays x_test, y_test; it must hold x_test, y_t"):
        run(space)
    x, y = images(2)
    for arrays, words in (
        ((x / 255, y), r"cifar10_1\.npz: x_test must be uint8 of shape .* got float64"),
        ((x[0], y), r"x_test must be uint8 of shape"),
        ((x, y / 1.0), r"y_test must be one whole number for each of 90 images, got float64"),
        ((x, y[1:]), r"y_test must be one whole number for each of 90 images"),
        ((x, y + 1), r"y_test\[9\] is 10, but labels must lie between 0 and 9 .* 9 labels .*data/README\.md"),
        ((x[:9], y[:9]), rf"cifar10_1\.npz has 9 images; it needs {PARTS} or more"),
    ):
        write(root, *arrays)
        with pytest.raises(ValueError, match=words):
            run(space)


def test_images_of_another_size_are_resized(root):
    photographs(root)
    write(root, *images(2, size=40))
    found = new_test_set.new_images(Pictures("cifar10"))
    assert found.x.shape == (90, 3, 32, 32)
    assert found.classes == tuple(NAMES)
    assert found.y.tolist() == images(2)[1].tolist()
    other = new_test_set.digest(found)
    write(root)
    assert new_test_set.digest(new_test_set.new_images(Pictures("cifar10"))) != other


def test_the_command_line_refuses_in_a_line(root, capsys):
    photographs(root)
    with pytest.raises(SystemExit) as stopped:
        cli.main(["study", "new_test_set", "--preset", "photos"])
    assert stopped.value.code == 2
    assert "cifar10_1.npz is missing" in capsys.readouterr().err


def test_what_lies_beside_the_data_sets_is_not_listed(root):
    photographs(root)
    write(root)
    for name in ("checkpoints", "cue_conflict/cat", "mine/cat"):
        (root / name).mkdir(parents=True)
    there = [name for name, state, _ in downloads.listing() if state != "absent"]
    assert there == ["cifar10", "mine"]


def test_networks_are_those_of_the_cue_conflict_study_and_more(space):
    preset, eps = presets.get("photos"), Pictures.eps
    found = [cell.source for cell in space["new_cells"](preset, 1, ())]
    stimuli = lesson.execute(lesson.path("02"), {}, lesson.GRID)["stimuli_cells"](preset, 1, ())
    assert set(found[:3]) == {cell.source for cell in stimuli}
    assert [source.source_eps for source in found] == [0, eps, eps, 2 * eps, 0, 0]
    assert [source.steps for source in found] == [2340, 2340, 2340, 2340, 780, 292]


def test_from_a_file_to_a_record(root, space, monkeypatch):
    three = ("standard", "robust", "standard, an eighth of the steps")  # a few seconds less
    monkeypatch.setattr(new_test_set, "ATTACKED", 6)
    photographs(root)
    write(root)
    frame = run(space, only=three)
    assert list(frame.network.unique()) == list(three)
    clean = frame[frame.metric == "clean_accuracy"]
    assert set(clean.images) == {OLD, NEW, *HALVES}
    whole = clean.pivot_table(index=["seed", "network"], columns="images", values="value")
    assert np.allclose(whole[list(HALVES)].mean(axis=1), whole[OLD])
    for part in (OLD, NEW):
        rows = frame[(frame.metric == "accuracy_in_part") & (frame.images == part)]
        assert (rows.groupby(["seed", "network"]).size() == PARTS).all()
        total = (rows.value * rows.n_test).groupby([rows.seed, rows.network]).sum() / 90
        assert np.allclose(total, whole[part].loc[total.index])
        assert len(frame[(frame.metric == "robust_accuracy") & (frame.images == part)]) == 6
    (first, *_) = space["new_cells"](PRESET, 1, ())
    new = evaluation.accuracy(first.source.load()[0], new_test_set.new_images(Pictures("cifar10")))
    assert whole[NEW][1, "standard"] == pytest.approx(new)

    records.publish(judged(space, frame))
    record = records.load("new_test_set", "photos")
    assert set(record.verdicts) == {"C101-T1", "C101-T2", "C101-T3"}
    assert record.verdicts["C101-T1"].reason == "not_run: 2 of 3 replicates"
    assert record.computed_by_this
    kept = records.frame("new_test_set", "photos", None)
    assert judged(space, kept).controls == judged(space, frame).controls

    # A second run reads; other new images ask the networks again, without training them.
    networks = sorted((root.parent / "runs" / "networks").iterdir())
    same = experiment.code(new_test_set.rows)
    monkeypatch.setattr(experiment, "code", lambda _: same)
    monkeypatch.setattr(new_test_set, "_measure", lambda *_: pytest.fail("computed again"))
    pd.testing.assert_frame_equal(run(space, only=three), frame)
    write(root, images(3)[0])
    with pytest.raises(pytest.fail.Exception, match="computed again"):
        run(space, only=three)
    assert sorted((root.parent / "runs" / "networks").iterdir()) == networks


def rows(seed: int, name: str, kind: str, old, new) -> list[dict]:
    """One network of one replicate by its accuracies on the parts of either test set, of 100 and of 10 images each."""
    facts = {"network": name, "source": kind, "source_eps": 0.0, "seed": seed, "target": "source"}
    facts |= {"source_seed": seed, "part": 0, "n_train": 0}
    out = []
    for images, values, n in ((OLD, old, 100), (NEW, new, 10)):
        base = facts | {"images": images, "n_test": n}
        out += [base | {"metric": "accuracy_in_part", "value": v, "part": k} for k, v in enumerate(values)]
        out.append(base | {"metric": "clean_accuracy", "value": float(np.mean(values)), "n_test": n * len(values)})
        for metric, value in (("robust_accuracy", 0.3 + 0.2 * (kind == "robust")), ("self_check_warnings", 0.0)):
            out.append(base | {"metric": metric, "value": value, "n_test": 256})
    for half, values in zip(HALVES, np.array_split(old, 2), strict=True):
        value = float(np.mean(values))
        out.append(facts | {"images": half, "n_test": 1200, "metric": "clean_accuracy", "value": value})
    return [*out, facts | {"images": OLD, "n_test": 64, "metric": "collapsed", "value": 0.0}]


def framed(rows) -> pd.DataFrame:
    frame = pd.DataFrame(rows)
    frame.attrs = {"study": "new_test_set", "preset": "photos", "run": "mine"}
    return frame


def made_up(space: dict, rise: float, at_best: float, wobble=JITTER) -> pd.DataFrame:
    """Three replicates whose networks score 50, 55 ... 75 % on old images, on new ones along a line of slope `rise`.

    Args:
        at_best: accuracy on new images of the network with 75 %; wobble: added to it and to the slope, by replicate.
    """
    out = []
    for seed, extra in enumerate(wobble):
        for k, (name, (kind, *_)) in enumerate(space["NETWORKS"].items()):
            old = 0.75 - 0.05 * k
            new = at_best - (rise + extra) * 0.05 * k + extra
            out += rows(seed, name, kind, np.full(PARTS, old), np.full(PARTS, new))
    return framed(out)


def test_shares_by_hand(space):
    ramp = [row for seed in (3, 7) for row in rows(seed, "standard", "standard", np.arange(PARTS), np.ones(PARTS))]
    frame = pd.DataFrame(ramp)
    frame.loc[(frame.part == 2) & (frame.images == OLD), "n_test"] = 300
    found = space["with_shares"](frame)
    found = found[(found.metric == "accuracy_of_share") & (found.images == OLD)].set_index("seed")
    even = [*range(0, PARTS, 2), 2, 2]  # the second part counts three times
    assert found.value[3] == pytest.approx(np.mean(even))
    assert found.value[7] == pytest.approx(np.mean(range(1, PARTS, 2)))
    assert found.n_test.tolist() == [1400, 1200]


def test_effects_by_hand(space):
    judge = judged(space, made_up(space, 1.5, 0.65, wobble=(0.0,)))
    part, effects = judge.main, judge.effects
    assert effects["C101-T1"](part)["standard"] == pytest.approx(10)
    assert effects["C101-T1"](part)["standard, an eighth of the steps"] == pytest.approx(50 - 65 + 37.5)
    assert effects["C101-T3"](part) == pytest.approx(1.5)
    assert effects["C101-T2"](part) == pytest.approx(1)
    # The first two change places: rank differences 1 and 1 of six networks.
    swapped = part.copy()
    chosen = (swapped.images == NEW) & (swapped.metric == "clean_accuracy")
    swapped.loc[chosen & (swapped.network == "noise"), "value"] = 0.7
    assert effects["C101-T2"](swapped) == pytest.approx(1 - 6 * 2 / (6 * 35))


@pytest.mark.parametrize(
    ("rise", "best", "wobble", "words"),
    [
        (1.5, 0.65, JITTER, ("supported", "supported", "supported")),
        (0.5, 0.65, JITTER, ("inconclusive", "supported", "contradicted")),  # the worst gains, as one of six may
        (1.0, 0.75, (-0.05, 0.0, 0.05), ("inconclusive", "supported", "inconclusive")),
        (-1.0, 0.45, JITTER, ("contradicted", "contradicted", "contradicted")),
    ],
)
def test_verdicts_flip_with_the_frame(space, rise, best, wobble, words):
    judge = judged(space, made_up(space, rise, best, wobble))
    assert [control.holds for control in judge.controls] == [True] * 4
    assert tuple(verdict.verdict for verdict in judge.verdicts.values()) == words
    assert judge.verdicts["C101-T3"].effect == pytest.approx(rise)
    assert {verdict.scope for verdict in judge.verdicts.values()} == {"small-scale"}


@pytest.mark.parametrize(("rise", "best", "losing"), [(1.5, 0.65, 6), (-1.0, 0.45, 3)])
def test_the_page_follows_the_frame(space, rise, best, losing, monkeypatch):
    said, page = [], space | {"anew": made_up(space, rise, best)}
    monkeypatch.setattr(plots, "display", lambda figure, text: said.append(text.data))
    for _, _, source in lesson.cells(lesson.path("06")):
        if "judge_anew" in source and "publish" not in source:
            exec(source, page)
    assert said == [f"Of 6 networks {losing} are clearly less accurate on new images."]
    word = "SUPPORTED" if rise > 0 else "CONTRADICTED"
    for claim in ("C101-T1", "C101-T2", "C101-T3"):
        assert f"**{claim}** {claims.get(claim).statement} **{word}" in page["said"]


def test_controls_stop_the_judgement(space):
    frame = made_up(space, 1.5, 0.65)

    def failing(change, value):
        broken = frame.assign(value=frame.value.mask(change, value))
        broken.attrs = frame.attrs
        judge = judged(space, broken)
        return [control.name for control in judge.controls if not control.holds], judge.verdicts["C101-T1"].reason

    attacked = (frame.network == "robust") & (frame.metric == "robust_accuracy")
    name = "under attack, robust minus standard"
    assert failing(attacked, 0.1) == ([name], f"invalid_control: {name}")
    alike = failing((frame.metric == "clean_accuracy") & (frame.images == OLD), 0.7 + 0.1 * frame.value)
    assert alike[0] == ["best minus worst network on the old images"]
    assert failing(frame.metric == "self_check_warnings", 1.0)[0] == ["self-checks of the attacks that warn"]
    # Two halves of one test set are shown beside the others, and stop nothing.
    assert failing(frame.images == HALVES[0], 0.1)[0] == []


def test_a_network_that_trains_briefly_has_not_collapsed(space):
    frame = made_up(space, 1.5, 0.65)
    frame.loc[(frame.network == "standard, an eighth of the steps") & (frame.images == OLD), "value"] *= 0.5
    assert judged(space, frame).collapsed == []
    frame.loc[(frame.network == "robust") & (frame.images == OLD) & (frame.seed == 1), "value"] *= 0.5
    assert judged(space, frame).collapsed == [1]


def test_one_replicate_and_what_lacks(space):
    frame = made_up(space, 1.5, 0.65)
    alone = framed(frame[frame.seed == 0])
    judge = judged(space, alone)
    assert judge.controls == []
    assert judge.verdicts["C101-T1"].reason == "not_run: 1 of 3 replicates"
    old = framed(frame[frame.images != NEW])
    assert {verdict.reason for verdict in judged(space, old).verdicts.values()} == {"not_run"}
    with pytest.raises(KeyError):
        judged(space, framed(frame.rename(columns={"images": "pictures"})))
    assert space["anew"] is None or space["anew"].attrs["preset"] == "photos"


def simulated(space: dict, rng: np.random.Generator, harder: float) -> pd.DataFrame:
    """Networks of differing skill on images of differing difficulty, both sets drawn alike but for `harder`.

    All networks, and all replicates, meet the same images, and mostly agree about which are difficult.
    """
    old, new = rng.standard_normal((PARTS, 100)), harder + rng.standard_normal((PARTS, 10))
    out = []
    for seed in range(3):
        for k, (name, (kind, *_)) in enumerate(space["NETWORKS"].items()):
            skill = 0.8 - 0.2 * k + 0.03 * rng.standard_normal()
            either = ((skill + 0.5 * rng.standard_normal(x.shape) > x).mean(1) for x in (old, new))
            out += rows(seed, name, kind, *either)
    return pd.DataFrame(out)


def test_new_images_of_the_same_kind_support_nothing(space):
    """By the judge itself, controls aside. Harder ones are found; so the judge is not merely mute."""
    rng, words = np.random.default_rng(0), {0.0: [], 0.6: []}
    effect = judged(space, made_up(space, 1.5, 0.65)).effects["C101-T1"]
    for harder, found in words.items():
        for _ in range(30):
            frame = space["with_shares"](simulated(space, rng, harder))
            verdict = judging.judge(claims.get("C101-T1"), effect, frame, preset="", scope="", needed=3)
            found.append(verdict.verdict)
    assert words[0.0].count("supported") <= 2
    assert words[0.6].count("supported") >= 15
