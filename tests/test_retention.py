"""Keeping robustness: the target's two cues, the grid, effects on made-up frames, and what notebook 05 concludes."""

from functools import partial
from unittest import mock

import numpy as np
import pandas as pd
import pytest
import torch
import torch.nn.functional as F
from lessons import given, read, study, swapped
from matplotlib.figure import Figure

from rtkit import checks, evaluation, experiment, labels, lesson, presets
from rtkit.data import targets
from rtkit.data.glyphs import World
from rtkit.frames import Missing, OutOfRange, mean, pick
from rtkit.measure import retention, students

SCRATCH, LAMBDA = "adversarial, from scratch", 0.15
DEPTHS = ("head", "last_block", "last_stage", "last_two_stages", "full_network")


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
    ways = grid["ways"](0.5, "frozen", 0.02, 100)
    head = ways["head"]
    assert (head.phases[0].trainable, head.phases[0].batchnorm, head.hidden) == (0, "frozen", ())
    assert ways["mlp 2"].hidden == (64, 64)
    assert [ways[name].phases[0].trainable for name in grid["DEPTHS"]] == [0, 1, 2, 4, None]
    assert [*grid["DEPTHS"].values()] == [0, 1, 2, 4, 6]  # of the six blocks of the kit's network
    first, second = ways["lwf"].phases
    assert (first.steps, second.steps, first.trainable, second.trainable) == (20, 80, 0, None)
    assert (first.terms, second.terms[0].weight) == ((), 0.5)
    assert (second.lr, second.batchnorm, first.batchnorm) == (0.02, "frozen", "frozen")  # as the authors' code
    assert (ways[SCRATCH].init, ways["adversarial, fine-tuned"].init) == ("random", "source")
    assert ways[SCRATCH].phases[0].adversary.threat == students.THREAT
    assert ways["source itself"].phases == ()
    assert {labels.name(name) for name in ways}.isdisjoint({"mlp", "lwf", "full_network", "last_block"})


def test_depth_and_normalisation_are_two_factors(grid):
    """Each depth is there under both policies, each sweep under one, and the column says what the phases do."""
    every = set(grid["cells"](presets.get("glyphs"), 0, ()))
    for one in every:
        said = dict(one.knobs)["batchnorm"]
        assert {phase.batchnorm for phase in one.method.phases} <= {said}, one.name
        assert said == "adapt" or one.method.init == "source"
    deep = [one for one in every if one.target == "digits_cued" and one.source.kind == "robust"]
    deep = [one for one in deep if one.name in grid["DEPTHS"] and one.world.shape_reliability == grid["SHAPE"]]
    there = {(one.name, dict(one.knobs)["batchnorm"]) for one in deep}
    assert there == {(name, normal) for name in grid["DEPTHS"] for normal in ("frozen", "adapt")}


def test_every_way_has_the_same_steps_and_a_tuned_rate(grid):
    glyphs, full = (presets.get(name) for name in ("glyphs", "glyphs-full"))
    every = [one for one in set(grid["cells"](full, 0, ())) if one.method.phases]
    steps = {one.target == "source": {sum(phase.steps for phase in other.method.phases) for other in every
             if (other.target == "source") == (one.target == "source")} for one in every}  # fmt: skip
    assert steps == {True: {grid["PLANS"]["glyphs"]["own"]}, False: {200}}
    tried = list(grid["tried"](glyphs, 100))
    assert {setting["method"] for setting, _ in tried} == {*grid["DEPTHS"], "lwf"}
    chosen = {(one.name, dict(one.knobs)["batchnorm"]): one.method.phases[-1].lr for one in every}
    for setting in ({"method": name, "batchnorm": normal} for name, normal in chosen if name in grid["DEPTHS"]):
        rates = {tried["lr"] for tried, _ in tried if tried.items() >= setting.items()}
        assert chosen[setting["method"], setting["batchnorm"]] in rates
    assert len({repr(student) for _, student in tried}) == len(tried)


def test_one_student_is_measured(grid, tmp_path, monkeypatch):
    monkeypatch.setattr("rtkit.store.RUNS", tmp_path)
    make = partial(grid["student"], presets.get("smoke"), 0, target="source")
    found, itself = (pd.DataFrame(retention.rows(make(name))) for name in ("lwf", "source itself"))
    attacked = {"robust_accuracy", "self_check_warnings", "only_transferred", "only_auto_pgd"}
    assert {"clean_accuracy", "validation_accuracy", "collapsed", *attacked} == set(found.metric) == set(itself.metric)
    assert set(found.weight) == {grid["LAMBDA"]}
    assert found[found.method == "lwf"].gradients.max() == 4 * 50
    assert itself.gradients.max() == 0  # nothing is trained: it is the source, on its own twenty letters
    network = make("source itself").source.load()[0]
    right = evaluation.accuracy(network, make("lwf").task().test)
    assert itself[itself.metric == "clean_accuracy"].value.item() == right
    assert [row["metric"] for row in retention.validation(make("lwf"))] == ["clean", "robust"]
    twice = (one(make("lwf")).net.state_dict() for one in (retention.trained, students.trained))
    assert all(torch.equal(mine, theirs) for mine, theirs in zip(*(state.values() for state in twice), strict=True))


HEAD, FULL, LWF = (70.0, 50.0), (85.0, 10.0), (75.0, 60.0)


MAIN, OWN = 0.7, 0.15  # as in the notebook; its λ on the source's own task
FEW = {50: (40, 30), 150: (50, 60), 450: (60, 80)}  # pictures of plain digits: the head, adversarial training


def made_up(full=FULL, lwf=LWF, mine: tuple | None = None) -> pd.DataFrame:
    """Five replicates in which every student's accuracies are known; `mine` adds a data set of a reader's own."""
    rows = []

    def add(seed, name, point, source="robust", shape=MAIN, n=900, weight=0.0, target="digits_cued", normal="frozen"):
        common = {"study": "retention", "method": name, "source": source, "target": target, "n_train": n, "seed": seed}
        common |= {"shape_reliability": shape, "weight": weight, "batchnorm": normal, "n_test": 400, "seconds": 1.0}
        values = {"clean_accuracy": point[0] + 0.2 * (seed - 2), "robust_accuracy": point[1]}
        values |= {"self_check_warnings": 0.0, "collapsed": 0.0}
        cost = {"gradients": 150 if name == SCRATCH else 50}
        rows.extend(common | cost | {"metric": key, "value": value / 100} for key, value in values.items())

    for seed in range(5):
        for name, point in {"head": HEAD, "full_network": full}.items():
            add(seed, name, point)
            add(seed, name, point, shape=1.0, normal="adapt")
        for name in ("last_block", "last_stage", "last_two_stages"):
            add(seed, name, (72, 45))
        for name, point in zip(DEPTHS, ((60, 20), (62, 30), (64, 30), (66, 30), (70, 30)), strict=True):
            add(seed, name, point, normal="adapt")
        add(seed, "mlp", (71, 52))
        add(seed, "lwf", lwf, weight=LAMBDA)
        add(seed, "lwf", (65, 35), weight=LAMBDA, normal="adapt")
        add(seed, "head", (HEAD[0], 0), "standard")
        add(seed, "lwf", (99, 99), weight=7.0)  # another λ must not touch any verdict
        for n, (head, trained) in FEW.items():
            add(seed, "head", (80, head), n=n, target="digits")
            add(seed, SCRATCH, (40, trained), n=n, target="digits", normal="adapt")
        add(seed, "head", (80, 72), n=450, target="lower")
        add(seed, "source itself", (85, 80), target="source", n=5000)
        add(seed, "full_network", (88, 10), target="source", n=5000)
        add(seed, "lwf", (88, 60), target="source", n=5000, weight=OWN)
        for name, point in {"head": HEAD, "full_network": full, "lwf": lwf}.items() if mine else ():
            weight = LAMBDA * (name == "lwf")
            add(seed, name, (point[0], mine[name == "full_network"]), target="mine", n=80, weight=weight)
            add(seed, name, (point[0], 0), "standard", target="mine", n=80, weight=weight)
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
    assert all(control.holds for control in judge.controls)
    assert len(judge.controls) == 4
    assert found["LwF-C1"].effect == pytest.approx(62.5)  # 50 of 80
    assert parts(found["LwF-C2@digit always right"]) == {"accuracy rises": (15, 0), "robustness falls": (40, 0)}
    # By hand: over blocks 0, 1, 2, 4 the line through 50, 45, 45, 45 has the slope -8.75 / 8.75.
    assert parts(found["LwF-C2"])["robustness falls before the last step"] == (4, 0)
    # Over the same blocks the line through 20, 30, 30, 30 has the slope 17.5 / 8.75.
    assert parts(found["LwF-C2@adapting"])["robustness falls before the last step"] == (-8, 0)
    # At 75 clean a coin between (70, 50) and (85, 10) offers 50 - 40 / 3, between (72, 45) and (85, 10) 45 - 105 / 13.
    height = parts(found["LwF-C3"]).pop("more robust than any depth at its accuracy")
    assert height[0] == pytest.approx(60 - (45 - 105 / 13), abs=0.5)  # clean accuracy differs by replicate
    assert parts(found["LwF-C3"]).items() >= {
        "more accurate than the head": (5, 0), "more robust than fine-tuning": (50, 0)}.items()  # fmt: skip
    assert parts(found["LwF-C3@adapting"])["more robust than any depth at its accuracy"] == (5, 0)
    assert parts(found["LwF-C4"]) == {"accuracy": (3, 0), "kept, of 100 points of robust accuracy": (75, 50)}
    ways = {f"{name}, deep minus linear": by for name, by in (("accuracy", 1), ("robustness", 2))}
    ways |= {name.replace("deep minus linear", "linear minus deep"): -by for name, by in ways.items()}
    assert parts(found["LwF-C5"]) == {name: (by, -3) for name, by in ways.items()}
    # From 10 points ahead at 50 pictures to 10 behind at 150: half way, of the logarithm.
    assert found["LwF-C6"].effect == pytest.approx(np.log((50 * 150) ** 0.5 / 100))
    always = made_up()
    always.loc[(always.method == SCRATCH) & (always.metric == "robust_accuracy"), "value"] = 0.1
    ahead = judged(always).verdicts["LwF-C6"]
    assert ahead.effect == pytest.approx(np.log(4.5))  # ahead throughout: the end of the range
    assert found["LwF-C7"].effect == pytest.approx(100 * (72 - 60) / 80, abs=0.1)


def test_the_frontier_is_what_the_depths_and_coins_between_them_offer():
    space = study("05", {"retention": made_up()}, preset="glyphs")
    offer, height = space["offer"], space["height"]
    points = [(60, 50), (70, 30), (80, 40)]
    assert offer(points, 60) == 50
    assert offer(points, 70) == 45  # the coin between the first and the last, above the second
    assert offer(points, 50) == 50  # less accurate than all: they are at least as accurate
    assert height(points, (70, 47)) == 2
    assert height(points, (81, 53)) == 3  # more accurate and more robust than all
    with pytest.raises(OutOfRange):
        height(points, (81, 49))


def test_verdicts_follow_the_frame():
    flipped = judged(made_up(full=(65.0, 70.0), lwf=(65.0, 60.0))).verdicts
    assert {flipped[name].verdict for name in ("LwF-C2", "LwF-C3", "LwF-C2@digit always right")} == {"contradicted"}
    last = made_up()
    middle = last.method.isin(["last_block", "last_stage", "last_two_stages"]) & (last.metric == "robust_accuracy")
    last.loc[middle, "value"] = 0.51  # a little more than the head: only the last step costs
    found = judged(last).verdicts["LwF-C2"]
    assert (found.verdict, found.reason) == ("contradicted", "weakest part: robustness falls before the last step")
    dominated = made_up(
        lwf=(71.0, 46.0)
    )  # more accurate than the head, more robust than fine-tuning, no better than depths
    assert judged(dominated).verdicts["LwF-C3"].verdict == "contradicted"
    little = made_up()
    little.loc[(little.method == "mlp") & (little.metric == "clean_accuracy"), "value"] += 0.05  # 6 points: not little
    assert judged(little).verdicts["LwF-C5"].verdict == "contradicted"
    half = made_up()
    after = (half.target == "source") & (half.method == "lwf") & (half.metric == "robust_accuracy")
    half.loc[after, "value"] = 0.39  # less than half of 80 %
    assert judged(half).verdicts["LwF-C4"].verdict == "contradicted"
    gone = made_up()
    head = (gone.method == "head") & (gone.source == "robust") & (gone.target == "digits_cued")
    gone.loc[head & (gone.metric == "robust_accuracy"), "value"] = 0.1
    assert judged(gone).verdicts["LwF-C1"].verdict == "contradicted"
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
        judge.interval("LwF-C6")
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
    assert "Statistics frozen, on a straight line through all five depths robust accuracy **falls** (-" in page
    assert "Statistics adapting, on a straight line through all five depths robust accuracy **rises** (+" in page
    assert "it **gains** robust accuracy where the shape is right in 70 of 100 pictures (+10.0 points [+10.0" in page
    assert "it **loses** robust accuracy where the shape is right in 100 of 100 pictures (-40.0 points [-40.0" in page
    assert "You said: fall, and fall.* It is **fall and rise**" in page
    assert "You said: 50.* It is **62 of 100**" in page
    assert "LwF is more (+" in page
    assert "of 100 points of robust accuracy 75 are kept" in page
    assert "robust accuracy by +2.0 points" in page
    assert "overtakes at 87 pictures [87, 87]." in page
    assert "on letters **more** survives" in page
    assert "From the robust source, the full network against the head alone: -10.0 points on mine." in page
    assert "SEEN IN THIS WORLD" in page
    assert "Not yet: the term that holds the features is missing." in page
    assert "digit right" in page  # the explorer
    assert "full network, against the head: clean" in page
    seen = "\n".join(line for line in page.splitlines() if not line.startswith("VBox("))
    for internal in ("full_network", "last_two_stages", "not_run", "digits_cued"):
        assert internal not in seen, internal


def test_a_readers_images_enter_no_verdict():
    assert judged(made_up(mine=(30, 20))).verdicts == judged(made_up()).verdicts


def test_swapped_arms_turn_the_page_round():
    frame = made_up()
    ours = (frame.source == "robust") & (frame.target == "digits_cued")
    turned = pd.concat([swapped(frame[ours], "method", "head", "full_network"), frame[~ours]])
    turned.attrs = frame.attrs
    with mock.patch.object(lesson, "cells", quick):
        said = read("05", {"retention": turned}, preset="glyphs")
    there = judged(turned).verdicts
    assert there["LwF-C2@digit always right"].verdict == there["LwF-C2"].verdict == "contradicted"
    assert there["LwF-C1"].verdict == "contradicted"  # what is called the head keeps 10 of 80
    assert "Statistics frozen, on a straight line through all five depths robust accuracy **rises** (+" in said
    assert "Statistics adapting, on a straight line through all five depths robust accuracy **falls** (-" in said
    assert "**gains** robust accuracy where the shape is right in 100 of 100 pictures (+40.0" in said
    assert "It is **rise and fall**" in said
    assert "It is **12 of 100**" in said


def explored(**values) -> dict:
    """What the notebook's study and its explorer define, of the made-up frame."""
    with given({"retention": made_up()}):
        return lesson.execute(lesson.path("05"), {"preset": "glyphs"} | values, (*lesson.STUDY, "interactive"))


def test_the_explorer_says_what_is_there_and_trains_what_is_not():
    space = explored()
    show, lacking, student = space["show"], space["lacking"], space["student"]
    figure = Figure()
    said = show(figure, MAIN, ("full_network", 0.0), "frozen")
    assert said.endswith("clean +15.0, under attack -40.0 points.")
    assert show(Figure(), MAIN, ("full_network", 0.0), "adapt").endswith("clean +10.0, under attack +10.0 points.")
    assert figure.axes[0].get_xlim()[0] > 50
    assert lacking(MAIN, ("full_network", 0.0), "frozen") == []
    not_run = "not run where the digit is right in 100 of 100; the button trains it"
    assert not_run in show(Figure(), 1.0, ("mlp", 0.0), "adapt")
    glyphs = presets.get("glyphs")
    assert lacking(1.0, ("mlp", 0.0), "adapt") == [student(glyphs, 0, "mlp", shape=1.0, normal="adapt")]
    held = ("lwf", 0.5)  # neither it nor the head was run where the digit is right in 60 of 100
    pair = [student(glyphs, 0, name, shape=0.6, weight=0.5, normal="adapt") for name in ("head", "lwf")]
    assert lacking(0.6, held, "adapt") == pair
    assert "LwF, λ = 0.5: not run where the digit is right in 60 of 100" in show(Figure(), 0.6, held, "adapt")
    points = {"head": (0.5, 0.4), "lwf": (0.62, 0.37)}
    metrics = ("clean_accuracy", "robust_accuracy")
    space["join"](
        pd.DataFrame([one.row(name, points[one.name][k], 300) for one in pair for k, name in enumerate(metrics)])
    )
    assert lacking(0.6, held, "adapt") == []
    figure = Figure()
    assert show(figure, 0.6, held, "adapt").endswith("clean +12.0, under attack -3.0 points.")
    (dots,) = figure.axes[0].collections
    assert sorted(map(tuple, dots.get_offsets().round(6).tolist())) == [(50, 40), (62, 37)]


def test_a_trained_point_is_compared_with_the_head_of_its_own_replicate():
    space = explored()
    row = {"target": "digits_cued", "source": "robust", "n_train": 900, "seed": 0, "shape_reliability": MAIN}
    row |= {"method": "lwf", "weight": 0.5, "batchnorm": "frozen"}
    runs = space["runs"]
    heads = pick(runs, seed=0, method="head", shape_reliability=MAIN, batchnorm="frozen")
    own = heads.set_index("metric").value
    space["join"](pd.DataFrame([row | {"metric": metric, "value": value - 0.05} for metric, value in own.items()]))
    assert space["show"](Figure(), MAIN, ("lwf", 0.5), "frozen").endswith("clean -5.0, under attack -5.0 points.")


def cells_of(**knobs) -> set:
    """The cells of one replicate with knobs changed."""
    space = lesson.execute(lesson.path("05"), knobs, lesson.GRID)
    return set(space["cells"](presets.get("glyphs"), 0, ()))


def test_a_knob_changes_the_cells_that_it_should():
    kit = cells_of()
    assert cells_of(lambda_=LAMBDA, shape_reliability=[MAIN, 1], batchnorm="frozen") == kit
    held = cells_of(lambda_=[0.07, 0.5])
    assert {one.name for one in held ^ kit} == {"lwf"}
    weights = sorted(dict(one.knobs)["weight"] for one in held - kit)
    assert weights == [0.07, 0.07, 0.5]  # under both policies, the other under one; the source's own task has its own
    assert {one.method.phases[1].terms[0].weight for one in held - kit} == {0.07, 0.5}
    shapes = cells_of(shape_reliability=[0.9, 0.6])
    assert {one.world.shape_reliability for one in shapes} == {0.9, 0.6}
    assert {one.name for one in shapes if one.world.shape_reliability == 0.6} == {"head", "full_network"}
    assert {one.name for one in shapes} == {one.name for one in kit}
    adapting = cells_of(batchnorm="adapt")
    deep = {one for one in kit if one.name in (*DEPTHS, "lwf")}
    deep = {one for one in deep if one.target == "digits_cued" and one.source.kind == "robust"}
    assert deep <= adapting  # both sweeps, whatever the knob says
    said = {dict(one.knobs)["batchnorm"] for one in adapting - deep}
    assert said == {"adapt"}


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
        weight=frame.weight.mask((frame.weight == LAMBDA) & (frame.target != "source"), 0.3),
        shape_reliability=frame.shape_reliability.replace({MAIN: 0.9}),
    )
    changed = {"lambda_": (0.3,), "shape_reliability": (0.9, 1.0)}
    other.attrs = frame.attrs | {"changed": changed, "run": "mine"}
    space = study("05", {"retention": other}, preset="glyphs", **changed)
    verdicts = space["judge"].verdicts
    assert {name: (one.verdict, one.effect) for name, one in verdicts.items()} == {
        name: (one.verdict, one.effect) for name, one in judged(frame).verdicts.items()
    }
    assert "exploratory: lambda_, shape_reliability changed" in verdicts["LwF-C3"].marks
    kit = space["judge"].values(space["core"](frame))  # what is drawn beside: its own
    same = judged(frame)
    assert kit.equals(same.values(same.main))
    run = mock.patch.object(experiment, "run", return_value=other)
    with mock.patch.object(lesson, "cells", quick), run:
        said = read("05", preset="glyphs", **changed)
    assert "right in 90 of 100 pictures (+10.0" in said


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
