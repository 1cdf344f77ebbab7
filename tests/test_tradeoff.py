"""Notebook 06: frontiers and heights by hand, its grid, verdicts and words that follow the frame."""

import numpy as np
import pandas as pd
import pytest
from lessons import read, study
from matplotlib.figure import Figure

from rtkit import checks, lesson, methods, presets, store
from rtkit.frames import Missing, OutOfRange

BASE = np.array([[99.0, 0.0], [90.0, 60.0], [85.0, 80.0], [84.0, 70.0]])  # the last is worse than the third on both
TAUGHT = ("clean images only", "attacked images only")
# Lines from the standard network (99 and 0): WRM loses a point for four, ARKS one for five.
SMOOTHED = (("wrm", 0.25, 94.0, 20.0), ("wrm", 1.0, 89.0, 40.0), ("arks", 0.25, 94.0, 25.0), ("arks", 1.0, 89.0, 50.0))


def made_up(lift: float, seeds=(0, 1, 2, 3, 4), cleaner: float = 0.0, preset="glyphs-full") -> pd.DataFrame:
    """PGD-AT with the points of `BASE`; taught networks `lift` above its frontier, `cleaner` along it."""
    rows = []

    def add(seed, method, knob, clean, robust, weight=0.0):
        common = {"study": "tradeoff", "method": method, "knob": float(knob), "seed": seed, "n_test": 500}
        common |= {"weight": weight, "teacher": "standard" if weight else "none"}
        common |= {"source": "standard", "source_eps": 0.0, "target": "source", "n_train": 5000, "seconds": 1.0}
        values = {"clean_accuracy": clean, "robust_accuracy": robust, "moved": 0.2, "only_transferred": 0.1}
        values |= {"self_check_warnings": 0.0, "collapsed": 0.0, "generalisation_gap": 3.0 - (method == "rat")}
        values |= {"pgd_accuracy": robust}
        common |= {"checkpoint": "last", "attack_eps": 0.0}
        rows.extend(common | {"metric": name, "value": value / 100} for name, value in values.items())
        rows.append(common | {"checkpoint": "best", "metric": "pgd_accuracy", "value": robust / 100})
        curve = common | {"metric": "accuracy_at"}
        rows.extend(curve | {"attack_eps": eps, "value": at / 100} for eps, at in ((0.0, clean), (4.0, robust)))

    for seed in seeds:  # robust accuracy 70 lies on the frontier at clean accuracy 87.5
        noise = (0.2, -0.15, -0.1, 0.12, -0.07)[seed % 5]
        for knob, (clean, robust) in zip((0.0, 1.0, 2.0, 4.0), BASE, strict=True):
            add(seed, "pgd_at", knob, clean, robust)
        for weight in (0.3, 1.0):
            add(seed, "pgd_at+vfd", 2, 87.5 + cleaner, 70 - 4 * cleaner + lift + noise, weight)
        add(seed, "trades+vfd", 3, 87.5 + cleaner, 70 - 4 * cleaner - lift + noise, 0.3)
        for beta, (clean, robust) in zip((1.0, 3.0), BASE[1:3], strict=True):
            add(seed, "trades", beta, clean, robust)
        for name in TAUGHT:
            add(seed, name, 2, 87.5, 70 + noise, 0.3)
        add(seed, "logits", 2, 87.5, 70 + noise, 0.3)
        for radius, (clean, robust) in zip((4.0, 8.0), ((87.5, 70.0), (85.0, 82.0)), strict=True):
            add(seed, "rat", radius, clean, robust + noise)
        add(seed, "region", 4, 87.5, 68 + noise)
        for method, sigma, clean, robust in SMOOTHED:
            add(seed, method, sigma, clean, robust + noise)
    frame = pd.DataFrame(rows)
    frame.attrs = {"study": "tradeoff", "preset": preset, "run": "mine"}
    return frame


def run(frame: pd.DataFrame) -> dict:
    return study("06", {"tradeoff": frame}, preset=frame.attrs["preset"])


@pytest.fixture(scope="module")
def grid() -> dict:
    return lesson.execute(lesson.path("06"), {}, lesson.GRID)


@pytest.fixture(scope="module")
def up() -> dict:
    return run(made_up(5.0))


@pytest.fixture(scope="module")
def down() -> dict:
    return run(made_up(-5.0))


def test_a_coin_is_on_offer(up):
    assert up["offer"](BASE, 87.5) == pytest.approx(70)  # half way between 80 and 60
    assert up["offer"](BASE, 80.0) == 80
    # A coin tossed between the outer two reaches 90 and 50, more than the network in the middle.
    assert up["offer"](np.array([[80.0, 80.0], [90.0, 40.0], [100.0, 20.0]]), 90.0) == pytest.approx(50)
    assert up["offer"](np.array([[50.0, 50.0], [50.0, 40.0]]), 50.0) == 50
    edge = up["edge"](BASE)
    assert (np.diff(edge[:, 1]) <= 1e-9).all()
    assert edge[[0, -1]].tolist() == [[84.0, 80.0], [99.0, 0.0]]


def test_height_by_hand(up):
    height = up["height"]
    assert height(BASE, (87.5, 80.0)) == pytest.approx(10)
    assert height(BASE, (90.0, 60.0)) == pytest.approx(0)
    assert height(BASE, (80.0, 75.0)) == pytest.approx(-5)  # the base has 85 and 80: more of both
    assert height(BASE, (99.5, 85.0)) == pytest.approx(5)  # beats every point
    with pytest.raises(OutOfRange, match=r"99\.5 lies beyond"):
        height(BASE, (99.5, 70.0))


def test_settled_rests_at_a_small_rate(grid):
    (phase,) = methods.adversarial("pgd_at", 2 / 255, steps=100, lr=0.4).phases
    first, rest = grid["settled"](phase)
    assert (first.steps, rest.steps) == (80, 20)
    assert (rest.lr, rest.schedule, rest.adversary.warmup) == (pytest.approx(0.008), "constant", 0.0)


def test_the_grid(grid):
    every = [list(grid["cells"](presets.get(preset), 0, ())) for preset in ("smoke", "glyphs", "glyphs-full")]
    assert [len(found) for found in every] == [4, 19, 21]
    assert set(every[1]) <= set(every[2])
    standard, *others = every[1]
    assert sum(phase.steps for phase in standard.method.phases) == 480
    assert {sum(phase.steps for phase in student.method.phases) for student in others} == {240}
    assert {student.source.architecture for student in every[1]} == {"small-8"}
    assert all(phase.adversary is None for phase in standard.method.phases)
    attack = {one.name: one.method.phases[0].adversary for one in others}
    assert {name: one.steps for name, one in attack.items() if one.steps != 2} == grid["ATTACK_STEPS"] | {"region": 3}
    assert (attack["arks"].kind, attack["wrm"].kind) == ("kernel", "wasserstein")
    assert {one.world for one in every[1]} == {one.source.world for one in every[1]} == {grid["WORLD"]}


def test_a_rate_of_its_own(grid):
    rates = dict(zip(grid["LR"], (0.1, 0.2, 0.3, 0.4, 0.5), strict=True))
    space = lesson.execute(lesson.path("06"), {}, lesson.GRID)
    space["LR"].update(rates)
    for one in space["cells"](presets.get("glyphs-full"), 0, ()):
        base = one.name.partition("+")[0]
        assert one.method.phases[0].lr == rates.get({"region": "rat"}.get(base, base), rates["pgd_at"])


def test_what_is_tuned(grid):
    tried = list(grid["tried"](presets.get("glyphs"), 100))
    assert {setting["base"] for setting, _ in tried} == set(grid["LR"])
    assert {setting["taught"] for setting, _ in tried} == {"none", "features", "logits"}
    assert len({tuple(setting.values()) for setting, _ in tried}) == len(tried)
    assert all(cell.study == "tuning" and cell.seed == 100 for _, cell in tried)
    assert all(cell.method.phases[0].lr == setting["lr"] for setting, cell in tried)


def test_knobs_have_columns_of_their_own(up):
    main = up["main"]
    assert "knob" not in main
    assert set(main[main.method == "pgd_at"].eps) == {0.0, 1 / 255, 2 / 255, 4 / 255}
    assert set(main[main.method == "arks"].sigma) == {0.25, 1.0}
    assert set(main[main.method == "arks"].eps) == {0.0}
    trades = up["readable"](pd.DataFrame({"method": ["trades", "trades+vfd", "pgd_at+vfd"], "knob": [6.0, 3.0, 3.0]}))
    assert trades.eps.tolist() == [4 / 255, 4 / 255, 3 / 255]
    assert trades.beta.tolist() == [6.0, 3.0, 0.0]
    # A teacher at a radius of 3/255 is none of the judged ones, though 3 is the judged beta.
    other = made_up(5.0).replace({"knob": {2.0: 3.0}})
    assert "pgd_at+vfd" not in set(up["core"](other).method)


def test_verdicts_follow_the_frame(up, down):
    high, low = (found["judge"].verdicts for found in (up, down))
    assert (high["VFD-C2"].verdict, low["VFD-C2"].verdict) == ("supported", "contradicted")
    assert high["VFD-C2"].effect == pytest.approx(5.0)
    assert high["VFD-C1"].effect == pytest.approx(2.5)  # 87.5 against the 85 of radius 2
    assert (high["VFD-C3"].verdict, low["VFD-C4"].verdict) == ("supported", "contradicted")
    assert high["VFD-C4"].effect == pytest.approx(5.0)
    assert (high["RAT-R2"].verdict, high["RAT-R2"].effect) == ("supported", pytest.approx(1.0))
    assert high["ARKS-A3"].verdict == "supported"
    assert all(control.holds for control in up["judge"].controls)
    assert len(up["judge"].controls) == 6
    smoke = run(made_up(5.0, (0,), preset="smoke"))["judge"]
    assert {verdict.reason for verdict in smoke.verdicts.values()} == {"smoke"}


def test_trades_is_judged_by_itself(up, down):
    for space, word in ((up, "contradicted"), (down, "supported")):  # taught TRADES is made up the other way round
        assert space["judge"].verdicts["VFD-C2@TRADES"].verdict == word
    assert up["judge"].verdicts["VFD-C2@TRADES"].effect == pytest.approx(-5.0)
    assert up["judge"].verdicts["VFD-C1@TRADES"].effect == pytest.approx(2.5)  # 87.5 against the 85 of beta 3


def test_rat_is_judged_over_its_radii(up):
    found = up["judge"].verdicts
    assert found["RAT-R1"].effect == pytest.approx(1.0)  # 0 and 2 points above the frontier
    parts = {part.name: part.effect for part in found["RAT-R3"].parts}
    assert parts == {"region": pytest.approx(-2.0), "smoothing": pytest.approx(2.0)}


def test_smoothing_by_hand(up):
    found = up["judge"].verdicts
    parts = {part.name: part for part in found["ARKS-A1"].parts}
    assert parts["robust"].effect == pytest.approx(37.5)  # 25 and 50, of the standard network 0
    # PGD-AT is as robust at 92.75 (a coin of 99 and 90) and 91.5.
    assert parts["clean"].effect == pytest.approx((94 - 95.25 + 89 - 91.5) / 2)
    assert (parts["clean"].margin, parts["robust"].margin) == (-1.0, 0.0)
    assert found["ARKS-A2"].effect == pytest.approx((5 + 10) / 2, abs=0.05)  # WRM has 20 and 40 there
    strong = made_up(5.0)
    there = (strong.method == "arks") & (strong.knob == 1.0) & (strong.metric == "robust_accuracy")
    cost = run(strong.assign(value=strong.value.mask(there, 0.95)))["judge"].verdicts["ARKS-A1"].parts[1]
    assert cost.effect == pytest.approx((94 - 95.25 + 89 - 85) / 2)  # held against the most robust on offer


def flat(frame: pd.DataFrame, *seeds: int) -> pd.DataFrame:
    """The frame with nothing to trade in some replicates."""
    there = (frame.metric == "clean_accuracy") & frame.seed.isin(seeds)
    return frame.assign(value=frame.value.mask(there, 0.85))


def test_a_replicate_without_a_trade_off_is_judged_by_nothing(up):
    part = flat(made_up(5.0), 1)
    one = up["core"](part[part.seed == 1])
    for name in ("VFD-C1", "VFD-C2", "VFD-C2@TRADES", "VFD-C3", "RAT-R1", "RAT-R3", "ARKS-A1", "ARKS-A2"):
        with pytest.raises(OutOfRange, match=r"spans 0\.0 points of clean accuracy"):
            up["judge"].effects[name](one)


def test_a_verdict_counts_the_replicates_that_can_be_compared():
    found = run(flat(made_up(5.0, tuple(range(7))), 1, 4))["judge"]
    assert (found.verdicts["VFD-C2"].replicates, found.verdicts["VFD-C2"].verdict) == (5, "supported")
    assert found.verdicts["VFD-C2"].reason == "5 of 7 replicates can be compared"
    assert found.verdicts["RAT-R2"].replicates == 7
    few = run(flat(made_up(5.0), 1))["judge"].verdicts["VFD-C2"]
    assert (few.verdict, few.reason.partition(":")[0]) == ("not_judged", "out_of_range")


def test_what_cannot_be_compared_and_what_was_not_run(up):
    far = made_up(5.0, tuple(range(6)))
    there = (far.method == "pgd_at+vfd") & (far.metric == "clean_accuracy") & (far.seed == 1)
    assert run(far.assign(value=far.value.mask(there, 0.995)))["judge"].verdicts["VFD-C2"].replicates == 5
    few = made_up(5.0)
    kept = few[few.method.isin(["pgd_at", "arks"])]
    kept.attrs = few.attrs
    judge = run(kept)["judge"]
    unrun = {name for name, verdict in judge.verdicts.items() if verdict.reason == "not_run"}
    assert unrun == set(judge.verdicts) - {"ARKS-A1", "ARKS-A3"}
    assert judge.verdicts["ARKS-A3"].verdict == "supported"
    with pytest.raises(KeyError):
        judge("VFD-C1", lambda f: up["point"](f, "pgd_at", epsilon=0.0)[0])
    with pytest.raises(Missing):
        up["point"](up["core"](kept), "trades")


def test_a_collapsed_replicate_caps_the_verdict():
    weak = made_up(5.0)
    weak.loc[(weak.metric == "collapsed") & (weak.seed == 1) & (weak.method == "wrm"), "value"] = 1.0
    judge = run(weak)["judge"]
    assert judge.collapsed == [1]
    assert judge.verdicts["VFD-C2"].reason == "collapsed: seed 1"


def test_the_page_reads_true_either_way():
    high = read("06", {"tradeoff": made_up(5.0)}, preset="glyphs-full")
    low = read("06", {"tradeoff": made_up(-5.0, cleaner=-3.0)}, preset="glyphs-full")
    assert "Of 10 taught networks 10 lie above" in high
    assert "Of 10 taught networks 0 lie above" in low
    assert "The mean height is largest for PGD-AT + VFD: +5.0 points" in high
    assert "It is **features**" in high
    assert "It is **logits**" in low
    assert "*You said: 4.* It is **3 of 4, by their means**" in high
    assert "SEEN IN THIS WORLD" in high
    assert "OPPOSITE SEEN IN THIS WORLD" in low
    assert "Best minus last checkpoint, right under ten steps of attack, over all networks: +0.0 points" in high
    assert "At radius 4 the best of them is right on 80 % of the images." in high
    assert "RAT lies above PGD-AT's frontier." in high
    assert "`data/`" in high
    assert "nan" not in high + low


def explored(frame: pd.DataFrame) -> dict:
    space = run(frame)
    for kind, marks, source in lesson.cells(lesson.path("06")):
        if kind == "code" and "interactive" in marks:
            exec(source, space)
    return space


def test_the_explorer_says_what_it_draws():
    draw = explored(made_up(5.0))["draw"]
    said = draw(Figure(), 2 / 255, 0.3, 1, 0.5)
    assert said.startswith("The coin: 92.0 % of clean, 40.0 % of attacked images right.")
    assert "a height of +4.8 points" in said
    assert draw(Figure(), 4 / 255, 0.3, 1, 0.0).endswith("with this teacher was not run: the button trains it.")
    assert draw(Figure(), 3 / 255, 0.3, 1, 0.0) == "No network of radius 3/255 was run: the button trains it."


def test_a_point_that_was_not_run_is_trained_and_joins():
    space = explored(made_up(5.0))
    lacking = space["lacking"]
    assert lacking(2 / 255, 0.3, 1, 0.5) == []
    (taught,) = lacking(4 / 255, 0.3, 1, 0.5)
    assert (taught.name, taught.seed, taught.source.seed, dict(taught.knobs)["weight"]) == ("pgd_at+vfd", 1, 1, 0.3)
    alone, taught = lacking(3 / 255, 1.0, 2, 0.5)
    assert [dict(one.knobs)["knob"] for one in (alone, taught)] == [3.0, 3.0]
    assert {one.method.phases[0].adversary.threat.eps for one in (alone, taught)} == {3 / 255}
    rows = [one.row(name, value, 500, checkpoint="last") for one in (alone, taught)
            for name, value in (("clean_accuracy", 0.87), ("robust_accuracy", 0.73))]  # fmt: skip
    space["join"](pd.DataFrame(rows))
    assert lacking(3 / 255, 1.0, 2, 0.5) == []
    assert lacking(3 / 255, 1.0, 1, 0.5) != []
    said = space["draw"](Figure(), 3 / 255, 1.0, 2, 0.0)
    assert said.endswith("With a teacher: 87.0 % and 73.0 %, a height of +0.0 points.")


def of_glyphs(**knobs) -> dict:
    """What the cells of one replicate at glyphs are called, by method, knob and weight."""
    space = lesson.execute(lesson.path("06"), knobs, lesson.GRID)
    made = space["cells"](presets.get("glyphs"), 0, ())
    return {(one.name, dict(one.knobs)["knob"], dict(one.knobs)["weight"]): store.name(one) for one in made}


def test_a_knob_changes_the_cells_that_it_should():
    own = of_glyphs()
    taught = {("pgd_at+vfd", 2.0), ("clean images only", 2.0), ("attacked images only", 2.0), ("trades+vfd", 3.0)}
    assert set(of_glyphs(teacher_weight=0.5)) - set(own) == {(*key, 0.5) for key in taught}
    assert ("pgd_at+vfd", 2.0, 1.0) in set(own) - set(of_glyphs(teacher_weight=[0.5, 3]))
    further = of_glyphs(train_eps=[3, 1])
    levels = {knob for method, knob, _ in further if method == "pgd_at"}
    assert (levels, {knob for method, knob, _ in further if method == "pgd_at+vfd"}) == ({0.0, 1.0, 3.0}, {3.0})
    assert {key: name for key, name in further.items() if key in own}.items() <= own.items()
    trades = of_glyphs(beta=[2.0, 5.0])
    assert set(trades) - set(own) == {("trades", 2.0, 0.0), ("trades", 5.0, 0.0), ("trades+vfd", 2.0, 0.3)}
    assert set(own) - set(trades) == {("trades", 1.0, 0.0), ("trades", 3.0, 0.0), ("trades+vfd", 3.0, 0.3)}


@pytest.mark.parametrize(
    ("knobs", "valid"),
    [
        ({"train_eps": [0]}, "train_eps must be numbers from 0.1 to 64"),
        ({"beta": "many"}, "beta must be numbers from 0.01 to 100"),
        ({"teacher_weight": -1.0}, "teacher_weight must be numbers from 0.001 to 1000"),
        ({"beta": 1.0, "preset": "photos"}, "one of real images; here it must be smoke, glyphs, glyphs-full"),
    ],
)
def test_a_knob_that_does_not_fit_is_refused(knobs, valid):
    with pytest.raises(ValueError, match=valid):
        lesson.execute(lesson.path("06"), knobs, lesson.GRID)


def test_a_run_with_other_knobs_is_judged_at_them_and_marked():
    frame = made_up(5.0)
    frame = frame.assign(knob=frame.knob.replace(2.0, 3.0).where(frame.method != "rat", frame.knob))
    frame = frame.assign(weight=frame.weight.replace(0.3, 0.5))
    frame.attrs = made_up(5.0).attrs | {"changed": {"train_eps": (3.0,), "teacher_weight": (0.5, 1.0)}}
    knobs = {"train_eps": [3.0], "teacher_weight": [0.5, 1.0]}
    space = study("06", {"tradeoff": frame}, preset="glyphs-full", **knobs)
    judge = space["judge"]
    assert judge.verdicts["VFD-C1"].marks == ("exploratory: train_eps, teacher_weight changed",)
    effects = [judge.verdicts[name].effect for name in ("VFD-C1", "VFD-C2", "VFD-C4")]
    assert effects == pytest.approx([2.5, 5.0, 5.0])
    kit = space["core"](made_up(5.0))  # which has no such networks: at its own knobs
    assert set(kit[kit.method == "pgd_at+vfd"].weight) == {0.3, 1.0}
    assert set(judge.values(kit).claim) == set(judge.verdicts)


def test_one_replicate_more_is_shown_and_not_judged():
    frame = made_up(5.0, (0, 1, 2, 3, 4, 5), preset="glyphs-full")
    frame.attrs["live"] = 5
    space = run(frame)
    assert space["judge"].verdicts["VFD-C1"].replicates == 5
    assert set(space["story"].seed) == {0, 1, 2, 3, 4}
    assert set(space["judge"].live.seed) == {5}


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        (lambda a, b, share: tuple(share * x + (1 - share) * y for x, y in zip(a, b, strict=True)), "Right."),
        (lambda a, b, share: ..., "in place of the dots"),
        (lambda a, b, share: None, "in place of the dots"),
        (lambda a, b, share: tuple(share * y + (1 - share) * x for x, y in zip(a, b, strict=True)), "belongs to"),
        (lambda a, b, share: tuple((x + y) / 2 for x, y in zip(a, b, strict=True)), "fair coin"),
        (lambda a, b, share: (max(a[0], b[0]), max(a[1], b[1])), "better of both"),
        (lambda a, b, share: (share * a[0] + (1 - share) * b[0], share * b[1] + (1 - share) * a[1]), "same share"),
        (lambda a, b, share: (1.0, 2.0), "Not yet: of (96, 4)"),
    ],
)
def test_the_warm_up_is_checked(answer, said, capsys):
    assert checks.coin(answer) is (said == "Right.")
    assert said in capsys.readouterr().out


def test_thirty_networks_on_new_images():
    """Known values; redrawing the networks as well leaves the order of accuracies open."""
    space = study("06", {"tradeoff": made_up(5.0)}, preset="glyphs-full")
    found = space["authors"].verdicts
    assert found["C101-T1"].effect == pytest.approx(4.0, abs=0.06)
    assert found["C101-T2"].effect == pytest.approx(0.971, abs=6e-4)
    assert found["C101-T3"].effect == pytest.approx(1.595, abs=6e-4)
    assert [one.verdict for one in found.values()] == ["supported", "inconclusive", "supported"]
    assert found["C101-T1"].low > 0
    assert found["C101-T2"].low < 0.9
