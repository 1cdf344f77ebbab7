"""Keeping robustness: the target's two cues, the grid, effects on made-up frames, and what notebook 05 concludes."""

from unittest import mock

import pandas as pd
import pytest
import torch
import torch.nn.functional as F
from lessons import read, study, swapped
from matplotlib.figure import Figure

from rtkit import checks, experiment, labels, lesson, presets, records
from rtkit.data import targets
from rtkit.data.glyphs import World
from rtkit.frames import Missing, mean
from rtkit.measure import retention

SCRATCH = "adversarial, from scratch"


def test_cued_digits_lie_as_often_as_the_world_says():
    """Shape reliability changes labels and textures, never the digits, and the texture goes with the label."""
    honest, lying = (
        targets.target("digits_cued", World(texture_amplitude=8 / 255, shape_reliability=q), 100) for q in (1.0, 0.7)
    )
    plain, textured = (
        targets.target(name, World(texture_amplitude=8 / 255), 100) for name in ("digits", "digits_textured")
    )
    assert torch.equal(honest.pool.y, plain.pool.y)
    assert torch.equal(honest.pool.x, textured.pool.x)
    kept = lying.pool.y == plain.pool.y
    assert float(kept.float().mean()) == pytest.approx(0.7, abs=0.05)
    assert torch.equal(lying.pool.x[kept], honest.pool.x[kept])
    assert all(not torch.equal(a, b) for a, b in zip(lying.pool.x[~kept][:20], honest.pool.x[~kept][:20], strict=True))
    same = (lying.pool.x.float() - plain.pool.x.float() * 0.8 - 25.5).abs().amax()
    assert float(same) <= 8.6


@pytest.fixture(scope="module")
def grid() -> dict:
    return lesson.execute(lesson.path("05"), tags=lesson.GRID)


def test_ways_by_name(grid):
    budget = {"steps": 100, "lr": 0.3, "batch_size": 50}
    ways = grid["ways"](0.5, **budget)
    head = ways["head"]
    assert (head.phases[0].trainable, head.phases[0].batchnorm, head.hidden) == (0, "frozen", ())
    assert ways["mlp 2"].hidden == (64, 64)
    assert ways["head, statistics adapt"].phases[0].batchnorm == "adapt"
    assert ways["last_stage, statistics frozen"].phases[0].batchnorm == "frozen"
    assert [ways[name].phases[0].trainable for name in grid["DEPTHS"]] == [0, 1, 2, 4, None]
    assert [*grid["DEPTHS"].values()] == [0, 1, 2, 4, 6]  # of the six blocks of the kit's network
    first, second = ways["lwf"].phases
    assert (first.steps, second.steps, first.trainable, second.trainable) == (20, 80, 0, None)
    assert (first.terms, second.terms[0].weight) == ((), 0.5)
    assert (ways[SCRATCH].init, ways["adversarial, fine-tuned"].init) == ("random", "source")
    assert ways[SCRATCH].phases[0].adversary.threat == retention.THREAT
    assert {labels.name(name) for name in ways}.isdisjoint({"mlp", "lwf", "full_network", "last_block"})


def test_every_way_has_the_same_steps_and_a_tuned_rate(grid):
    glyphs, full = (presets.get(name) for name in ("glyphs", "glyphs-full"))
    every = set(grid["cells"](full, 0, ()))
    assert {sum(phase.steps for phase in student.method.phases) for student in every} == {200}
    assert set(grid["cells"](glyphs, 0, ())) <= every
    settings = [setting for setting, _ in grid["tried"](glyphs, 100)]
    assert {setting["lr"] for setting in settings} == {0.03, 0.1, 0.3} >= set(grid["RATES"].values())
    assert {setting["method"] for setting in settings} >= set(grid["RATES"])
    assert {setting["lambda_d"] for setting in settings} == set(grid["PLANS"]["glyphs-full"]["lambdas"])
    assert len({repr(student) for _, student in grid["tried"](glyphs, 100)}) == len(settings) == 37


def test_one_student_is_measured(grid, tmp_path, monkeypatch):
    monkeypatch.setattr("rtkit.store.RUNS", tmp_path)
    student = grid["student"](presets.get("smoke"), 0, "lwf", target="source")
    found = pd.DataFrame(retention.rows(student))
    accuracies = ["clean_accuracy", "robust_accuracy"]
    assert {"validation_accuracy", "collapsed", "self_check_warnings", *accuracies} == set(found.metric)
    itself = found[found.method == "source itself"]
    assert {*accuracies, "self_check_warnings"} == set(itself.metric)
    assert set(found.weight) == {grid["LAMBDA"]}
    assert found[found.method == "lwf"].gradients.max() == 4 * 50
    assert [row["metric"] for row in retention.validation(student)] == ["clean", "robust"]


HEAD, FULL, LWF = (70.0, 50.0), (85.0, 10.0), (75.0, 60.0)


def made_up(full=FULL, lwf=LWF, mine: tuple | None = None) -> pd.DataFrame:
    """Five replicates in which every student's accuracies are known; `mine` adds a data set of a reader's own."""
    rows = []

    def add(seed, name, point, source="robust", shape=0.85, n=900, weight=0.0, target="digits_cued", cost=50):
        common = {"study": "retention", "method": name, "source": source, "target": target, "n_train": n, "seed": seed}
        common |= {"shape_reliability": shape, "weight": weight, "n_test": 400, "seconds": 1.0, "gradients": cost}
        values = {"clean_accuracy": point[0] + 0.2 * (seed - 2), "robust_accuracy": point[1]}
        values |= {"self_check_warnings": 0.0, "collapsed": 0.0}
        rows.extend(common | {"metric": key, "value": value / 100} for key, value in values.items())

    for seed in range(5):
        for shape in (0.7, 0.85, 1.0):
            add(seed, "head", HEAD, shape=shape)
            add(seed, "full_network", full, shape=shape)
            add(seed, "lwf", lwf, shape=shape, weight=0.15)
        for name in ("last_block", "last_stage", "last_two_stages"):
            add(seed, name, (72, 45))
        add(seed, "mlp", (71, 52))
        for name, point in {"head": HEAD, "full_network": full, "lwf": (80, 0)}.items():
            add(seed, name, (point[0], 0), "standard", weight=0.15 * (name == "lwf"))
        add(seed, "lwf", (99, 99), weight=0.5)  # another lambda must not touch any verdict
        add(seed, "head", (60, 45), n=100)
        add(seed, SCRATCH, (40, 30), n=100, cost=150)
        add(seed, "source itself", (85, 80), target="source", n=5000, weight=0.15)
        add(seed, "lwf", (88, 60), target="source", n=5000, weight=0.15)
        for name, point in {"head": HEAD, "full_network": full, "lwf": lwf}.items() if mine else ():
            add(
                seed, name, (point[0], mine[name == "full_network"]), target="mine", n=80, weight=0.15 * (name == "lwf")
            )
            add(seed, name, (point[0], 0), "standard", target="mine", n=80, weight=0.15 * (name == "lwf"))
    found = pd.DataFrame(rows)
    found.attrs = {"study": "retention", "preset": "glyphs", "run": "kit"}
    return found


def judged(frame: pd.DataFrame):
    return study("05", {"retention": frame}, preset="glyphs")["judge"]


def parts(verdict) -> dict[str, tuple[float, float]]:
    return {part.name: (round(part.effect, 6), part.margin) for part in verdict.parts}


def test_known_effects_give_known_numbers():
    judge = judged(made_up())
    found = dict(judge.verdicts)
    missing = {name: found.pop(name).reason for name in list(found) if name.startswith("LwF-C6@")}
    assert set(missing.values()) == {"not_run"}  # one number of pictures
    assert {verdict.verdict for verdict in found.values()} == {"supported"}
    assert all(control.holds for control in judge.controls)
    assert len(judge.controls) == 4
    assert found["LwF-C1"].effect == pytest.approx(50)
    assert parts(found["LwF-C2@digit always right"]) == {"accuracy rises": (15, 0), "robustness falls": (40, 0)}
    # By hand: over blocks 0, 1, 2, 4 the line through 50, 45, 45, 45 has the slope -8.75 / 8.75.
    assert parts(found["LwF-C2"])["robustness falls before the last step"] == (4, 0)
    assert parts(found["LwF-C3"]) == {"more accurate than the head": (5, 0), "more robust than fine-tuning": (50, 0)}
    assert parts(found["LwF-C4"]) == {"accuracy": (3, 0), "kept, of 100 points of robust accuracy": (75, 50)}
    ways = {f"{name}, {way}": by for name, by in (("accuracy", 1), ("robustness", 2)) for way in ("deep minus linear",)}
    ways |= {name.replace("deep minus linear", "linear minus deep"): -by for name, by in ways.items()}
    assert parts(found["LwF-C5"]) == {name: (by, -5) for name, by in ways.items()}
    assert parts(found["LwF-C6"]) == {"accuracy": (20, 0), "robustness": (15, 0)}


def test_verdicts_follow_the_frame():
    flipped = judged(made_up(full=(85.0, 70.0), lwf=(65.0, 60.0))).verdicts
    assert {flipped[name].verdict for name in ("LwF-C2", "LwF-C3", "LwF-C2@digit always right")} == {"contradicted"}
    last = made_up()
    middle = last.method.isin(["last_block", "last_stage", "last_two_stages"]) & (last.metric == "robust_accuracy")
    last.loc[middle, "value"] = 0.51  # a little more than the head: only the last step costs
    found = judged(last).verdicts["LwF-C2"]
    assert (found.verdict, found.reason) == ("contradicted", "weakest part: robustness falls before the last step")
    little = made_up()
    little.loc[(little.method == "mlp") & (little.metric == "clean_accuracy"), "value"] += 0.05  # 6 points: not little
    assert judged(little).verdicts["LwF-C5"].verdict == "contradicted"
    half = made_up()
    after = (half.target == "source") & (half.method == "lwf") & (half.metric == "robust_accuracy")
    half.loc[after, "value"] = 0.39  # less than half of 80 %
    assert judged(half).verdicts["LwF-C4"].verdict == "contradicted"
    kept = made_up()
    standard = (kept.source == "standard") & (kept.method == "head") & (kept.metric == "robust_accuracy")
    kept.loc[standard, "value"] = 0.3
    assert judged(kept).verdicts["LwF-C1"].reason.startswith("invalid_control: robust accuracy of a standard source's")
    fallen = made_up()
    fallen.loc[(fallen.metric == "collapsed") & (fallen.seed == 3), "value"] = 1.0
    judge = judged(fallen)
    assert judge.collapsed == [3]
    assert judge.verdicts["LwF-C1"].reason == "collapsed: seed 3"


def test_what_is_not_there_is_not_run_and_what_is_misspelt_is_an_error():
    without = made_up()[lambda rows: rows.method != SCRATCH]
    without.attrs = made_up().attrs
    judge = judged(without)
    assert (judge.verdicts["LwF-C6"].verdict, judge.verdicts["LwF-C6"].reason) == ("not_judged", "not_run")
    with pytest.raises(Missing):
        judge.interval("LwF-C6", "accuracy")
    with pytest.raises(KeyError, match="methd"):
        judge("LwF-C3", lambda f: mean(f, methd="lwf"))
    renamed = made_up().rename(columns={"shape_reliability": "shape_reliabilty"})
    renamed.attrs = made_up().attrs
    with pytest.raises(KeyError, match="shape_reliability"):
        judged(renamed)


def quick(where, cells=lesson.cells):
    """The notebook with a toy that trains for a few steps."""
    return tuple((kind, tags, source.replace("steps=250", "steps=12")) for kind, tags, source in cells(where))


@pytest.fixture(scope="module")
def page() -> str:
    """What the notebook says of a made-up frame, a reader's data set in it."""
    with mock.patch.object(lesson, "cells", quick):
        values = {"preset": "glyphs", "targets": ["mine"]}
        return read("05", {"retention": made_up(mine=(30, 20))}, skip=(), **values)


def test_the_page_reads_as_the_frame_says(page):
    assert "robust accuracy changes by -40 points where the shape is right in 85 of 100 pictures" in page
    assert "it **loses** robust accuracy where the shape is right in 85 of 100 pictures (-40.0 points [-40.0" in page
    assert "You said: fall, and fall.* It is **fall and fall**" in page
    assert "You said: 50.* It is **71 of 100**" in page
    assert "It is **the head**" in page
    assert "of 100 points of robust accuracy 75 are kept" in page
    assert "robust accuracy by +2.0 points" in page
    assert "From the robust source, the full network against the head alone: -10.0 points on mine." in page
    assert "SEEN IN THIS WORLD" in page
    assert "OPPOSITE" not in page
    assert "Not yet: the term that holds the features is missing." in page
    assert "digit right" in page  # the explorer
    assert "full network, against the head: clean" in page
    seen = "\n".join(line for line in page.splitlines() if not line.startswith("VBox("))
    for internal in ("full_network", "last_two_stages", "not_run", "digits_cued"):
        assert internal not in seen, internal


def test_a_readers_images_enter_no_verdict():
    assert judged(made_up(mine=(30, 20))).verdicts == judged(made_up()).verdicts


def test_swapped_arms_turn_the_page_round():
    kit = records.frame("retention", "glyphs")
    verdicts = judged(kit).verdicts
    ours = (kit.source == "robust") & (kit.n_train == 900)
    turned = pd.concat([swapped(kit[ours], "method", "head", "full_network"), kit[~ours]])
    turned.attrs = kit.attrs
    with mock.patch.object(lesson, "cells", quick):
        said = read("05", {"retention": turned}, preset="glyphs")
    assert verdicts["LwF-C2@digit right in 70 of 100"].verdict == "supported"
    assert verdicts["LwF-C2@digit always right"].verdict == "contradicted"
    there = judged(turned).verdicts
    assert there["LwF-C2@digit right in 70 of 100"].verdict == "contradicted"
    assert there["LwF-C2@digit always right"].verdict == "contradicted"  # accuracy falls now
    assert "**gains** robust accuracy where the shape is right in 85 of 100 pictures (+57.9" in said
    assert "**loses** robust accuracy where the shape is right in 100 of 100 pictures (-14.9" in said
    assert said.count("**loses** robust accuracy") == said.count("**gains** robust accuracy") == 1
    assert "robust accuracy changes by +58 points" in said
    assert "It is **rise and fall**" in said


def explored(**values) -> dict:
    """What the notebook's study and its explorer define."""
    return lesson.execute(lesson.path("05"), {"preset": "glyphs"} | values, (*lesson.STUDY, "interactive"))


def test_the_explorer_says_what_is_there_and_trains_what_is_not():
    space = explored()
    show, lacking = space["show"], space["lacking"]
    spots = 100 * space["runs"].pivot_table(
        index=["shape_reliability", "method", "weight"], columns="metric", values="value"
    )
    head, full = spots.loc[(0.85, "head", 0.0)], spots.loc[(0.85, "full_network", 0.0)]
    figure = Figure()
    said = show(figure, 0.85, ("full_network", 0.0))
    assert f"clean {full.clean_accuracy - head.clean_accuracy:+.1f}" in said
    assert f"under attack {full.robust_accuracy - head.robust_accuracy:+.1f} points" in said
    assert figure.axes[0].get_xlim()[0] > 50
    assert lacking(0.85, ("full_network", 0.0)) == []
    not_run = "not run where the digit is right in 70 of 100; the button trains it"
    assert not_run in show(Figure(), 0.7, ("mlp", 0.0))
    student = space["student"]
    glyphs = presets.get("glyphs")
    assert lacking(0.7, ("mlp", 0.0)) == [student(glyphs, 0, "mlp", shape=0.7)]
    held = ("lwf", 1.5)  # neither it nor the head was run where the digit is right in 60 of 100
    pair = [student(glyphs, 0, "head", shape=0.6), student(glyphs, 0, "lwf", shape=0.6, weight=1.5)]
    assert lacking(0.6, held) == pair
    assert "LwF, λ = 1.5: not run where the digit is right in 60 of 100" in show(Figure(), 0.6, held)
    points = {"head": (0.5, 0.4), "lwf": (0.62, 0.37)}
    metrics = ("clean_accuracy", "robust_accuracy")
    space["join"](
        pd.DataFrame([one.row(name, points[one.name][k], 300) for one in pair for k, name in enumerate(metrics)])
    )
    assert lacking(0.6, held) == []
    figure = Figure()
    assert show(figure, 0.6, held).endswith("clean +12.0, under attack -3.0 points.")
    (dots,) = figure.axes[0].collections
    assert sorted(map(tuple, dots.get_offsets().round(6).tolist())) == [(50, 40), (62, 37)]


def test_a_trained_point_is_compared_with_the_head_of_its_own_replicate():
    space = explored()
    row = {"target": "digits_cued", "source": "robust", "n_train": 900, "seed": 0, "shape_reliability": 0.85}
    row |= {"method": "lwf", "weight": 1.5}
    heads = space["runs"][lambda f: (f.seed == 0) & (f.method == "head") & (f.shape_reliability == 0.85)]
    own = heads.set_index("metric").value
    space["join"](pd.DataFrame([row | {"metric": metric, "value": value - 0.05} for metric, value in own.items()]))
    assert space["show"](Figure(), 0.85, ("lwf", 1.5)).endswith("clean -5.0, under attack -5.0 points.")


def cells_of(**knobs) -> set:
    """The cells of one replicate with knobs changed."""
    space = lesson.execute(lesson.path("05"), knobs, lesson.GRID)
    return set(space["cells"](presets.get("glyphs"), 0, ()))


def test_a_knob_changes_the_cells_that_it_should():
    kit = cells_of()
    assert cells_of(lambda_=0.15, shape_reliability=[0.85, 0.7, 1]) == kit
    held = cells_of(lambda_=[0.05, 0.5])
    assert {one.name for one in held ^ kit} == {"lwf"}
    weights = sorted(dict(one.knobs)["weight"] for one in held - kit)
    assert weights == [0.05] * 5 + [0.5]  # three shapes, the standard source, its own task; the other at the main one
    assert {one.method.phases[1].terms[0].weight for one in held - kit} == {0.05, 0.5}
    shapes = cells_of(shape_reliability=[0.9, 0.6])
    assert {one.world.shape_reliability for one in shapes} == {0.9, 0.6}
    assert {one.name for one in shapes if one.world.shape_reliability == 0.6} == {"head", "full_network", "lwf"}
    assert {one.name for one in shapes} == {one.name for one in kit}
    for value, names in {
        "adapt": {"head", "mlp", "lwf"},
        "frozen": {"last_block", "last_stage", "last_two_stages"},
    }.items():
        found = cells_of(batchnorm=value)
        assert {one.name for one in found - kit} == {one.name for one in kit - found} == names
        assert {phase.batchnorm for one in found - kit for phase in one.method.phases} == {value}


@pytest.mark.parametrize(
    ("given", "valid"),
    [
        ({"lambda_": -0.1}, "lambda_ must be numbers from 0 to 1000.*-0.1"),
        ({"shape_reliability": 85}, "shape_reliability must be numbers from 0 to 1.*85"),
        ({"batchnorm": "freeze"}, "batchnorm must be some of adapt, frozen.*'freeze'"),
        ({"batchnorm": ["adapt", "frozen"]}, "batchnorm takes one value"),
    ],
)
def test_a_knob_refuses_what_it_cannot_be(given, valid):
    with pytest.raises(ValueError, match=valid):
        cells_of(**given)


def test_a_run_with_other_knobs_is_judged_by_them_and_says_so():
    frame = made_up()
    other = frame.assign(
        weight=frame.weight.replace({0.15: 0.3}), shape_reliability=frame.shape_reliability.replace({0.85: 0.9})
    )
    changed = {"lambda_": (0.3,), "shape_reliability": (0.9, 0.7, 1.0)}
    other.attrs = frame.attrs | {"changed": changed, "run": "mine"}
    space = study("05", {"retention": other}, preset="glyphs", **changed)
    verdicts = space["judge"].verdicts
    assert {name: (one.verdict, one.effect) for name, one in verdicts.items()} == {
        name: (one.verdict, one.effect) for name, one in judged(frame).verdicts.items()
    }
    assert "exploratory: lambda_, shape_reliability changed" in verdicts["LwF-C3"].marks
    kit = space["judge"].values(space["core"](records.frame("retention", "glyphs")))  # what is drawn beside: its own
    same = judged(records.frame("retention", "glyphs"))
    assert kit.equals(same.values(same.main))
    run = mock.patch.object(experiment, "run", return_value=other)
    with mock.patch.object(lesson, "cells", quick), run:
        said = read("05", preset="glyphs", **changed)
    assert "right in 90 of 100 pictures (-40.0" in said
    assert "effects of your run (hollow)" in said


def test_the_warm_up_is_checked(capsys):
    def loss(distance):
        return lambda logits, y, ours, theirs, hold: F.cross_entropy(logits, y) + distance(ours - theirs, hold)

    assert checks.held_loss(loss(lambda apart, hold: hold * apart.abs().sum(1).mean()))
    wrong = {
        "the term that holds": lambda apart, hold: 0.0 * apart.sum(),
        "multiply the distance": lambda apart, hold: apart.abs().sum(1).mean(),
        "only over pictures take the mean": lambda apart, hold: hold * apart.abs().mean(),
        "batch size does not matter": lambda apart, hold: hold * apart.abs().sum(),
        "cancel": lambda apart, hold: hold * apart.sum(1).mean(),
        "not squares": lambda apart, hold: hold * apart.square().sum(1).mean(),
        "Euclidean": lambda apart, hold: hold * apart.norm(dim=1).mean(),
        "added, not subtracted": lambda apart, hold: -hold * apart.abs().sum(1).mean(),
        "it must add": lambda apart, hold: hold * apart.abs().amax(1).mean(),
    }
    for hint, distance in wrong.items():
        capsys.readouterr()
        assert not checks.held_loss(loss(distance))
        assert hint in capsys.readouterr().out
    assert not checks.held_loss(lambda *_: None)
