"""Notebook 01: its grid, its effects on a made-up frame, its verdicts, and its page when the results flip."""

import ast
import math
import re
from unittest import mock

import pandas as pd
import pytest
import torch
from lessons import read, study

from rtkit import checks, experiment, labels, lesson, models, plots, presets, say, tasks, widgets
from rtkit.data import targets
from rtkit.data.glyphs import World
from rtkit.frames import by_seed, lead
from rtkit.judge import Judge
from rtkit.labels import SHAPES
from rtkit.labels import TEXTURED as FINE
from rtkit.measure import transfer
from rtkit.sources import Source
from rtkit.training import History

AUTHORS = "last_stage, authors"
CELLS = 209  # of one replicate at the default preset
DOSE, EPS = labels.HOME_DOSE / 255, 4 / 255
JITTER = (0.0, 0.004, -0.003, 0.002, -0.001)  # so that five replicates have an interval


def row(seed: int, source: str, target: str, method: str, value: float, **more) -> dict:
    eps = {"standard": 0.0, "untrained": 0.0, "randomised": 0.0}.get(source, EPS)
    base = {"study": "transfer", "method": method, "source": source, "source_eps": eps, "target": target}
    base |= {"n_train": 100, "seed": seed, "metric": "clean_accuracy", "value": value, "n_test": 597}
    base |= {"seconds": 1.0, "gradients": 1, "step": 80, "source_seed": seed, "architecture": "small-16"}
    return base | {"subset": 0, "texture_amplitude": DOSE, "shape_reliability": 0.85} | more


def framed(rows, preset: str = "glyphs") -> pd.DataFrame:
    """A frame as `experiment.run` gives it."""
    found = pd.DataFrame(rows).reset_index(drop=True)
    found.attrs = {"study": "transfer", "preset": preset, "run": "kit"}
    return found


def made_up(lead: float) -> pd.DataFrame:
    """A frame of five replicates in which the robust source leads by `lead` wherever shape decides."""
    rows = []

    def both(*args, **more):
        rows.extend(row(*args, metric=metric, **more) for metric in ("clean_accuracy", "validation_accuracy"))

    for seed, jitter in enumerate(JITTER):
        for source, plus in (("standard", 0.0), ("robust", lead + jitter)):
            rows.append(row(seed, source, "source", "none", 0.9 - plus / 2, n_train=0))
            known = {"shape_bias": 0.7 if source == "standard" else 0.9, "robust_accuracy": 0.4 + abs(plus)}
            for metric, value in (known | {"self_check_warnings": 0.0, "collapsed": 0.0}).items():
                rows.append(row(seed, source, "source", "none", value, n_train=0, metric=metric))
            for target in SHAPES:
                for n, shrink in ((100, 1.0), (400, 0.6), (900 if target == "digits" else 1600, 0.2)):
                    rows.append(row(seed, source, target, "last_stage", 0.7 + plus * shrink, n_train=n))
                end = {"n_train": 400, "step": 160}
                rows.append(row(seed, source, target, AUTHORS, 0.7 + plus, **end))
                for step, times in ((8, 3.0), (16, 2.0), (32, 1.5), (80, 1.2)):
                    early = end | {"step": step, "metric": "accuracy_at_step"}
                    rows.append(row(seed, source, target, AUTHORS, 0.4 + times * plus, **early))
                for subset, shift in enumerate((-0.01, 0.0, 0.01)):
                    both(seed, source, target, "fixed_feature", 0.6 + plus + shift, subset=subset)
                both(seed, source, target, "fixed_feature", 0.8 + plus / 2, n_train=900 if target == "digits" else 1600)
                both(seed, source, target, "full_network", 0.6 + plus, n_train=400)
            for target, value in ((FINE, 0.9 - plus), (f"{FINE}_8", 0.6 + plus), ("textures", 0.8 - 5 * abs(plus))):
                both(seed, source, target, "fixed_feature", value)
            both(seed, source, "digits_8", "fixed_feature", 0.5 + plus)
            for target in SHAPES:
                for dose in (0, 14):  # two points of the lead with each grey level
                    where = {"texture_amplitude": dose / 255}
                    found = 0.6 + (plus + (dose - labels.HOME_DOSE) * 0.02 * (lead > 0) if source == "robust" else 0.0)
                    both(seed, source, target, "fixed_feature", found, **where)
                for width, less in ((4, 0.2), (8, 0.1)):
                    where = {"architecture": f"small-{width}"}
                    both(seed, source, target, "fixed_feature", 0.6 + plus - less * (1 + (source == "robust")), **where)
                    if target == "digits":
                        rows.append(row(seed, source, "source", "none", 0.9 - plus / 2 - less, n_train=0, **where))
        for target in SHAPES:
            gain = 0.05 if target == "digits" else -0.05
            for recipe, plus in (("", lead), (", authors", 0.0)):
                level = 0.7 + plus + jitter * (recipe == "")
                if recipe:
                    rows.append(row(seed, "robust", target, AUTHORS, level))
                rows.append(row(seed, "robust", target, f"last_block{recipe}", level - gain))
                rows.append(row(seed, "robust", target, f"last_two_stages{recipe}", level - 0.1))
            if target != "greek":
                rows.append(row(seed, "noise", target, "last_stage", 0.72 + jitter))
            for dose in (0, labels.HOME_DOSE, 14):
                rows.append(row(seed, "noise", target, "fixed_feature", 0.61, texture_amplitude=dose / 255))
            if target != "greek":
                rows.append(row(seed, "untrained", target, "fixed_feature", 0.3 + jitter))
    return framed(rows)


def judged(frame: pd.DataFrame) -> Judge:
    return study("01", {"transfer": frame}, preset=frame.attrs["preset"])["judge"]


def value(space: dict, start: str):
    """Execute the cell that starts so in what a notebook's study has defined; the value of its last expression."""
    (source,) = [source for kind, _, source in lesson.cells(lesson.path("01")) if source.startswith(start)]
    tree, said = ast.parse(source), []
    last = tree.body.pop() if isinstance(tree.body[-1], ast.Expr) else None
    with mock.patch.object(plots, "display", lambda figure, text: said.append(text.data)):
        exec(compile(tree, "cell", "exec"), space)
        found = eval(compile(ast.Expression(last.value), "cell", "eval"), space) if last else None
    space["said"] = said
    return found


@pytest.fixture(scope="module")
def grid() -> dict:
    return lesson.execute(lesson.path("01"), {}, lesson.GRID)


def plan(grid: dict, preset: str, targets=()) -> set:
    chosen = presets.get(preset)
    return {cell for seed in (0, 1) for cell in grid["cells"](chosen, seed, targets)}


def test_the_grid(grid):
    glyphs, full = plan(grid, "glyphs"), plan(grid, "glyphs-full")
    assert glyphs <= full  # what the default preset computes, the full one reads
    each = {cell.seed: sum(cell.seed == other.seed for other in glyphs) for cell in glyphs}
    assert set(each.values()) == {CELLS}
    robust = {cell for cell in glyphs if cell.source.kind == "robust" and cell.protocol == "last_stage"}
    marked = {cell for cell in robust if cell.measure_at}
    assert {(cell.n_train, cell.steps, cell.measure_at, cell.recipe) for cell in marked} == {
        ((400,), 160, (8, 16, 32, 80), "authors")
    }
    assert {cell.lr for cell in glyphs if cell.protocol == "full_network"} == {transfer.RATES["full_network"]}
    assert {cell.lr for cell in glyphs if cell.recipe} == {0.1}
    trained = [cell for cell in glyphs if cell.steps]
    assert {cell.steps * cell.batch_size / cell.n_train[0] for cell in trained} == {20}  # epochs
    largest = {cell.target: max(cell.n_train) for cell in sorted(trained, key=lambda cell: cell.n_train)}
    assert (largest["digits"], largest["lower"]) == (900, 1600)
    subsets = {(cell.protocol, cell.n_train[0]) for cell in trained if cell.subset}
    assert subsets == {("fixed_feature", 100)}
    assert {cell.side for cell in glyphs} == {0, 6, 8, 12, 16}
    doses = {round(255 * cell.source.world.texture_amplitude) for cell in glyphs}
    assert doses == {0, labels.HOME_DOSE, 14}


def test_seeds_and_presets_that_do_not_exist(grid):
    with pytest.raises(ValueError, match="no preset is called 'glyph'; there are smoke, glyphs"):
        experiment.run(transfer.rows, grid["cells"], "glyph")
    for wrong in ("[0, 1]", [0.5], [-1], ["0"]):
        with pytest.raises(ValueError, match=r"seeds must be whole numbers .*such as \[0, 1, 2\]"):
            experiment.run(transfer.rows, grid["cells"], "glyphs", wrong)


def test_every_protocol_is_tried_at_the_same_rates_from_either_source(grid):
    tried = list(grid["tried"](presets.get("glyphs"), 100))
    assert len(tried) == (2 * 6 - 1) * 2 * 3  # from scratch there is one source
    for setting, cell in tried:
        assert (cell.study, cell.seed, cell.measure_at) == ("tuning", 100, ())
        assert setting == {"method": cell.protocol, "source": cell.source.kind, "lr": cell.lr}
    assert {cell.n_train for _, cell in tried} == {(100,)}
    assert grid["tried_rows"] is transfer.rows


def test_a_cell_follows_its_recipe_on_its_subset_of_its_copy(root, monkeypatch):
    world = World(DOSE, texture_reliability=transfer.RANDOMISED)
    source = Source.of(presets.get("smoke"), "untrained", 0.0, 0, world)
    cell = transfer.Cell("transfer", source, 3, "digits", "last_stage", (20,), 2, 10, 0.1, (), 0, "authors", 8, 2)
    seen = {}

    def train(net, images, phases, seed, **_):
        seen.update(net=net, images=images, phase=phases[0], seed=seed)
        return History()

    monkeypatch.setattr(transfer, "train", train)
    (row, _) = transfer.rows(cell)
    assert (row["method"], row["target"], row["source"]) == ("last_stage, authors", "digits_8", "randomised")
    assert (row["subset"], row["architecture"], row["seed"], seen["seed"]) == (2, "small-8", 3, 2003)
    assert (seen["phase"].schedule, seen["phase"].lr) == ("step", 0.1)
    assert 0.8 < float(seen["net"].head.weight.detach().std()) < 1.2
    assert not seen["net"].head.bias.any()
    whole = tasks.target("digits", world, 3).subset(20, 2003)
    assert torch.equal(seen["images"].x, targets.lower_resolution(whole.x, 8))


def test_an_interrupted_study_resumes(grid, root, monkeypatch):
    """A study that stops in its third cell has the first two when it runs again."""

    def cells(preset, seed, targets):
        return [cell for cell in grid["cells"](preset, seed, targets) if cell.source.kind == "untrained"]

    computed, original = [], tasks.target

    def flaky(*args):
        if len(computed) == 2:
            raise KeyboardInterrupt
        computed.append(args)
        return original(*args)

    monkeypatch.setattr(tasks, "target", flaky)
    run = {"preset": "smoke", "seeds": [0, 1], "run": "mine"}
    with pytest.raises(KeyboardInterrupt):
        experiment.run(transfer.rows, cells, **run)
    done, before = computed.copy(), computed.clear()
    frame = experiment.run(transfer.rows, cells, **run)
    assert before is None
    assert len(computed) == 2
    assert not set(done) & set(computed)
    computed.clear()
    again = experiment.run(transfer.rows, cells, **run)
    assert not computed
    pd.testing.assert_frame_equal(frame, again)
    columns = "study method source source_eps target n_train seed metric value n_test seconds gradients"
    assert set(frame.columns) >= set(columns.split())
    assert frame.attrs["run"] == "mine"
    assert sum(one["cells"] for one in frame.attrs["made"]) == 4


def test_known_leads_give_known_effects():
    judge = judged(made_up(0.10))
    replicate = judge.main[judge.main.seed == 0]
    several = ("U-C7", "S-C1", "S-C4")  # they need several radii
    sweeps = ("KIT-T1", "KIT-T2", "S-C6", "S-C7")  # these look at other worlds and widths
    found = {name: effect(replicate) for name, effect in judge.effects.items() if name not in (*several, *sweeps)}
    expected = {"U-C1": 8.0, "U-C3": 2.0, "U-C5": 10.0, "S-C2": 10.0}
    assert {name: found[name] for name in expected} == pytest.approx(expected)
    assert found["U-C2"]["points"] == pytest.approx(8.0)
    assert found["U-C2"]["log odds"] == pytest.approx(0.443, abs=0.003)
    early, end = (math.log(p / (1 - p)) - math.log(q / (1 - q)) for p, q in ((0.6, 0.4), (0.8, 0.7)))
    assert found["U-C4"] == pytest.approx(early - end, abs=0.01)
    assert list(found["U-C6"].values()) == pytest.approx([5.0, 5.0, 10.0])
    assert list(found["U-C6@authors"].values()) == pytest.approx([5.0, 5.0, 10.0])
    assert list(found["S-C5"].values()) == pytest.approx([20.0, 10.0])
    assert {judge.verdicts[name].reason for name in several} == {"not_run"}
    parts = {name: [part.effect for part in judge.verdicts[name].parts] for name in sweeps}
    assert parts["KIT-T1"] == pytest.approx([20.0, 20.0], abs=0.1)  # two points with each of ten grey levels
    assert parts["KIT-T2"] == pytest.approx([-2.0, -3.0], abs=0.1)  # 10 - 6 x 2; the noise-trained source has 61 %
    assert parts["S-C6"] == pytest.approx([1.0, 2.0], abs=0.01)
    assert parts["S-C7"] == pytest.approx([40.0, 20.0], abs=0.01)


def test_verdicts_flip_with_the_frame():
    found, flipped = (judged(made_up(lead)).verdicts for lead in (0.10, -0.10))
    for name in ("U-C1", "U-C5", "S-C2"):
        assert (found[name].verdict, flipped[name].verdict) == ("supported", "contradicted"), name
    smoke = judged(framed(made_up(0.10), "smoke")).verdicts
    assert {verdict.reason for verdict in smoke.values()} == {"smoke"}


def test_a_point_behind_is_no_worse():
    frame = made_up(0.10)
    most = (frame.method == "last_stage") & (frame.n_train >= 900) & (frame.source == "robust")
    for behind, word in ((0.005, "supported"), (0.015, "contradicted")):
        jitter = frame.seed.map(dict(enumerate(JITTER))) / 10
        found = judged(framed(frame.assign(value=frame.value.mask(most, 0.7 - behind + jitter))))
        assert found.verdicts["U-C3"].verdict == word
        assert found.verdicts["U-C3"].margin == -1.0


def test_the_best_radius_is_chosen_on_validation_images_only():
    frame = made_up(0.10)
    tempting = frame[(frame.source == "robust") & (frame.method == "fixed_feature")].assign(source_eps=8 / 255)
    better = tempting.metric.map({"clean_accuracy": 0.2, "validation_accuracy": -0.2})
    frame = framed(pd.concat([frame, tempting.assign(value=tempting.value + better)]))
    judge = judged(frame)
    replicate = judge.main[judge.main.seed == 0]
    assert set(judge.main.arm) >= {"standard", "robust", "robust 8", "noise", "untrained"}
    assert judge.effects["S-C1"](replicate) == pytest.approx(5.0)  # with the most pictures
    both = pd.concat([tempting, tempting.assign(source_eps=EPS)])
    fine = pd.concat(both.assign(target=f"{name}_textured", value=0.1) for name in ("lower", "greek"))
    more = fine.assign(source="standard", source_eps=0.0, value=0.9)
    judge = judged(framed(pd.concat([frame, fine, more])))
    replicate = judge.main[judge.main.seed == 0]
    assert judge.effects["S-C4"](replicate) == pytest.approx(4.0 - 0.0)


def test_sizes_that_only_some_sources_have_do_not_disturb():
    frame = made_up(0.10)
    some = frame.method.isin(["fixed_feature", "last_stage"]) & (frame.n_train == 100) & frame.target.isin(SHAPES)
    more = judged(framed(pd.concat([frame, frame[some].assign(n_train=50)])))
    assert set(more.main[more.main.common].n_train) == {100}
    before = judged(frame).verdicts
    for name in ("S-C2", "S-C5", "U-C6"):
        assert more.verdicts[name] == before[name]


def test_failing_controls_stop_the_verdicts_and_what_is_shown_stops_nothing():
    frame = made_up(0.10)
    judge = judged(frame)
    assert all(control.holds for control in judge.controls)
    (shown,) = [control for control in judge.controls if control.expected == "shown"]
    assert shown.interval.effect == pytest.approx(-50.0, abs=0.3)
    blind = frame.assign(value=frame.value.mask((frame.metric == "shape_bias") & (frame.source == "standard"), 0.3))
    assert judged(framed(blind)).verdicts["U-C1"].reason.startswith("invalid_control: shape bias of the standard")
    alone = judged(frame[frame.seed == 0])
    assert not alone.controls
    assert alone.verdicts["U-C1"].reason.startswith("not_run: 1 of 5")


def test_collapsed_replicates_cap_the_verdict():
    frame = made_up(0.10)
    fell = (frame.metric == "collapsed") & (frame.seed == 2) & (frame.source == "robust")
    judge = judged(frame.assign(value=frame.value.where(~fell, 1.0)))
    assert judge.collapsed == [2]
    assert judge.verdicts["U-C1"].verdict == "inconclusive"


def test_what_is_missing_was_not_run_and_a_misspelt_column_is_an_error():
    frame = made_up(0.10)
    judge = judged(frame[frame.metric != "accuracy_at_step"])
    assert judge.verdicts["U-C4"].reason == "not_run"
    with pytest.raises(KeyError, match="methd"):
        judge("U-C5", lambda f: lead(f, methd="fixed_feature"))


def test_the_lead_may_shrink_in_points_and_grow_in_log_odds():
    frame = made_up(0.10)
    shares = {("standard", 100): 0.6, ("robust", 100): 0.8, ("standard", 900): 0.97, ("robust", 900): 0.999}
    ends = (frame.method == "last_stage") & (frame.n_train != 400) & frame.source.isin(["standard", "robust"])
    values = [shares[one.source, min(one.n_train, 900)] for one in frame[ends].itertuples()]
    for near, word, number in ((False, "shrinks", "+8.0"), (True, "shrinks", "+17.1")):
        found = frame.copy()
        if near:
            found.loc[ends, "value"] = values
        found.attrs = frame.attrs
        space = study("01", {"transfer": found})
        space["main"] = space["core"](found)
        value(space, "curve =")
        assert f"The lead in points **{word}** (fewest minus most: {number} [" in space["said"][0]
        odds = "**grows** (fewest minus most: -" if near else "**shrinks** (fewest minus most: +"
        assert f"The lead in log odds {odds}" in space["said"][0]


def test_the_explorer_moves(monkeypatch):
    frame = made_up(0.10)
    space = study("01", {"transfer": frame})
    space |= {"main": space["core"](frame), "depths": tuple(transfer.RATES)[:-1]}
    value(space, "def draw")
    value(space, "def lacking")
    box = value(space, "runs =")
    assert isinstance(box, widgets.ipywidgets.VBox)
    sentence, place = box.children
    target, method, eps, n, reset, training, _ = place.children[0].children
    before = sentence.value
    assert (
        "100 pictures of digits (real), last stage: the robust source is ahead of the standard source: +10.0" in before
    )
    n.value = 900
    assert "900 pictures" in sentence.value
    assert "+2.0 points" in sentence.value
    method.value = "fixed_feature"
    n.value = 300
    assert "No run with 300 pictures of digits (real), fixed features at radius 4/255" in sentence.value
    cells = space["lacking"]("digits", "fixed_feature", EPS, 300)
    assert [(one.source.kind, one.n_train, one.lr) for one in cells] == [
        ("standard", (300,), transfer.RATES["fixed_feature"]),
        ("robust", (300,), transfer.RATES["fixed_feature"]),
    ]
    assert {one.source.world.texture_amplitude for one in cells} == {DOSE}
    assert not space["lacking"]("digits", "last_stage", EPS, 900)  # there already
    assert not training.children[0].disabled
    found = [one.row("clean_accuracy", 0.5 + 0.2 * k, 100, n_train=300) for k, one in enumerate(cells)]
    space["join"](pd.DataFrame(found))
    method.value = "last_stage"
    method.value = "fixed_feature"
    assert "the robust source" in sentence.value
    assert "+20.0 points (one replicate)" in sentence.value
    assert training.children[0].disabled
    reset.click()
    assert sentence.value == before
    assert [control.value for control in (target, method, eps, n)] == ["digits", "last_stage", EPS, 100]


@pytest.fixture
def quick(monkeypatch):
    """Source networks without their training, for pages that are read for what they say of frames."""

    def load(source):
        net = models.create(tasks.classes(source.world), "small-8", source.seed)
        return net.eval(), {"seconds": 0.0, "collapsed": False}

    monkeypatch.setattr(Source, "load", load)


def test_the_page_turns_round_with_the_arms(quick):
    """A frame in which the robust source leads, and one in which it is behind wherever shape decides."""
    guesses = {"own task": 1, "lead": 2, "more pictures": "growing", "no texture": 4}
    said = {lead: read("01", {"transfer": made_up(lead)}, guess=guesses) for lead in (0.10, -0.10)}
    ahead, behind = "is **ahead** of the standard source: +8.0 points", "is **behind** the standard source: -8.0 points"
    assert said[0.10].count(ahead) == 1  # section 4
    assert said[-0.10].count(behind) == 1
    assert ahead not in said[-0.10]
    for claim in ("U-C1", "U-C2", "U-C3", "U-C5", "S-C2", "S-C5"):
        assert re.search(rf"\*\*{claim}\*\* .* \*\*OPPOSITE SEEN IN THIS WORLD", said[-0.10]), claim
        assert re.search(rf"\[{claim}\]\(#{claim}\) .* \*\*opposite seen in this world", said[-0.10]), claim
    assert "he lead in points **grows** (fewest minus most: -8.0 [" in said[-0.10]
    assert "*You said: growing.* It is **growing in points, " in said[-0.10]
    assert "*You said: growing.* It is **shrinking in points, " in said[0.10]
    assert "Not yet: put lead" in said[0.10]


def test_the_warm_up_accepts_like_with_like_alone(capsys):
    """The noise source met two targets at one size; the standard source is better on the third and with more."""
    frame = made_up(0.10)
    better = 0.1 * (frame.target == "greek") + 0.05 * (frame.n_train == 400)
    frame["value"] += better * ((frame.source == "standard") & (frame.method == "last_stage"))
    space = study("01", {"transfer": frame})
    main, two = space["judge"].main, space["TWO"]

    def told(effect) -> str:
        answer = effect if isinstance(effect, list | float) else by_seed(main, effect)
        checks.noise_lead(answer, main)
        return capsys.readouterr().out

    last = {"method": "last_stage"}
    right = {"common": True, "target": two}
    assert told(lambda f: lead(f, "noise", **last, **right)) == "Right.\n"
    assert "put lead" in told(lambda f: 0.0)
    assert "third target" in told(lambda f: lead(f, "noise", **last, common=True))
    assert "common=True" in told(lambda f: lead(f, "noise", **last, target=two))
    assert "like with like" in told(lambda f: lead(f, "noise", **last))
    assert "robust source" in told(lambda f: lead(f, **last, **right))
    assert "standard minus noise" in told(lambda f: lead(f, "standard", "noise", **last, **right))
    assert "in points" in told(lambda f: lead(f, "noise", **last, **right) / 100)
    assert "last_stage" in told(lambda f: lead(f, "noise", method="fixed_feature", **right))
    assert "one number for each replicate" in told(3.0)


def test_what_the_authors_measured_is_judged_by_the_same_effects():
    """Known values, found independently of the kit; none of them is called supported."""
    space = study("01", {"transfer": made_up(0.10)})
    found = space["authors"].verdicts
    known = {
        "U-C1": (9.26, 8.87, 9.65),
        "U-C4": (0.298, 0.256, 0.341),  # in log odds
        "U-C5": (9.47, 9.11, 9.83),
        "U-C7": (2.33, 1.88, 2.78),
    }
    known |= {"S-C1": (3.42, -1.11, 7.95), "S-C2": (0.19, -0.29, 0.66), "S-C1@ResNet-18": (2.75, -1.71, 7.21)}
    for name, numbers in known.items():
        assert found[name].effect == pytest.approx(numbers[0], abs=0.006), name
        assert found[name].low <= numbers[1] + 0.006, name  # the kit's interval is Student's or a wider one
        assert found[name].high >= numbers[2] - 0.006, name
    parts = {part.name: part for part in found["S-C5@ResNet-18"].parts}
    assert parts["change"].effect == pytest.approx(18.3, abs=0.06)
    assert found["S-C7"].parts[1].effect == pytest.approx(2.48, abs=0.006)
    assert "holds for these networks (10 subsets)" in say.word(found["U-C1"])
    assert not any(say.word(one).startswith("supported") for one in found.values())
    assert "| published results | **+9.3 points [+8." in say.card(space["judge"], "U-C1").data
    assert "| published results, ResNet-18 |" in say.card(space["judge"], "S-C5").data


def test_a_page_with_fewer_sizes_and_protocols_reads_to_its_end(quick):
    """What the changed grid leaves out is not run; nothing raises, and every verdict says what was changed."""
    frame = made_up(0.10)
    few = (frame.n_train <= 100) & ~frame.method.str.contains("last_")
    few |= (frame.n_train == 100) & frame.method.str.startswith("last_stage")
    said = read("01", {"transfer": framed(frame[few])}, n_train=[100], trained=["full_network"])
    assert "Not run" in said
