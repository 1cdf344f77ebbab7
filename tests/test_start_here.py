"""Notebook 00: one line makes a network robust, five make the record's number, and the page says what it finds."""

import ast
import contextlib
import io
import re
from unittest import mock

import pandas as pd
import pytest
import torch
import torch.nn.functional as F
from IPython.display import Markdown
from lessons import given, study, swapped
from matplotlib.figure import Figure

from rtkit import attacks, checks, compute, lesson, models, plots, records, widgets
from rtkit.attacks import pgd
from rtkit.judge import judge
from rtkit.threat import ThreatModel

PATH = lesson.path("00")


def source(beginning: str) -> str:
    """The one code cell that defines what begins so."""
    (found,) = [text for kind, _, text in lesson.cells(PATH) if kind == "code" and f"\n{beginning}" in f"\n{text}"]
    return found


def loop(text: str):
    """The training loop of the page, or a changed one, as a function."""
    space = {"torch": torch, "F": F, "attacks": attacks, "compute": compute, "ThreatModel": ThreatModel}
    exec(text, space)
    return space["train_network"]


@pytest.fixture(scope="module")
def trained():
    """Networks after three steps, by the loop and the radius."""
    page = source("def train_network")
    (line,) = [line for line in page.splitlines() if "n_fgsm" in line]
    plain = "\n".join(other for other in page.splitlines() if other != line)

    def run(text, eps, images):
        torch.manual_seed(0)
        net = models.create(2, "small-8", 0)
        return loop(text)(net, images, steps=3, eps=eps)

    return page, line, plain, run


def test_the_loop_has_nine_lines_and_one_makes_it_robust(trained):
    page, line, *_ = trained
    (function,) = ast.parse(page).body
    statements = [node for node in ast.walk(function) if isinstance(node, ast.stmt)][1:]
    assert len(statements) == 9
    assert len(page.splitlines()) == 10  # with its first, the name and what it takes
    assert page.splitlines()[5] == line  # "the fifth makes it robust"
    assert not re.search(r"\beps\b", page.replace(line, "").partition("\n")[2])


def test_standard_and_robust_networks_differ_in_that_line(trained, two_classes):
    _, _, plain, run = trained
    page = trained[0]
    standard, without = run(page, 0.0, two_classes), run(plain, 0.0, two_classes)
    robust, without_it = run(page, 8 / 255, two_classes), run(plain, 8 / 255, two_classes)
    for one, other in ((standard, without), (standard, without_it)):
        assert all(torch.equal(a, b) for a, b in zip(one.parameters(), other.parameters(), strict=True))
    assert not all(torch.equal(a, b) for a, b in zip(standard.parameters(), robust.parameters(), strict=True))
    assert not robust.training


def test_the_loop_learns(trained, two_classes):
    torch.manual_seed(0)
    net = loop(trained[0])(models.create(2, "small-8", 0), two_classes, steps=15, eps=4 / 255)
    with torch.no_grad():
        assert (net(compute.to_pixels(two_classes.x)).argmax(1) == two_classes.y).float().mean() > 0.95


def test_pgd_by_hand_is_the_kit_s_to_the_last_bit(small_net, batch):
    """The loop of the page's fourth cell, on another network."""
    text = source("moved, step_size, losses").partition("losses.append(float(attacks")[0]
    x, y = batch[0][:1], batch[1][:1]
    space = {"net": small_net, "image": x, "label": y, "threat": ThreatModel("linf", 8 / 255), "attacks": attacks}
    exec(text, space)
    ours = pgd(small_net, x, y, space["threat"], steps=10, random_start=False, keep_best=False)
    assert torch.equal(ours, space["moved"])
    assert space["losses"][-1] > space["losses"][0]


def test_five_lines_give_the_record_s_number():
    found = study("00")
    kept = records.frame("transfer", "glyphs")
    low, high = found["lead"].mean() - found["half"], found["lead"].mean() + found["half"]
    verdict = found["judge"].verdicts["U-C1"]
    record = records.store.load_record(records.path("transfer", "glyphs", records.store.RESULTS))["verdicts"]["U-C1"]
    assert (verdict.effect, verdict.low, verdict.high) == (record["effect"], record["low"], record["high"])
    assert verdict.effect == pytest.approx(found["lead"].mean(), abs=1e-9)
    assert verdict.low <= low + 1e-9  # where leads are skewed the judge reaches farther
    assert verdict.high >= high - 1e-9
    assert verdict.verdict == record["verdict"]
    assert list(found["lead"].index) == sorted(set(kept.seed))


def verdict_section(frame) -> tuple[str, dict]:
    """What section 9 says on a frame in place of the kit's: the cells from its heading to the exercises."""
    said = []

    def show(*shown, **_):
        said.extend(one.data if isinstance(one, Markdown) else repr(one) for one in shown)

    cells = lesson.cells(PATH)
    first = next(k for k, cell in enumerate(cells) if cell[2].startswith("## 9."))
    last = next(k for k, cell in enumerate(cells) if "## 11. Exercises" in cell[2])
    opening = next(k for k, cell in enumerate(cells) if cell[2].startswith("def summary"))
    with given({"transfer": frame}), mock.patch.object(plots, "display", show):
        space = lesson.execute(PATH, tags=("parameters", "plumbing"))
        for kind, _, text in (cells[opening], *cells[first:last]):
            if kind != "code":
                continue
            tree, out = ast.parse(text), io.StringIO()
            value = tree.body.pop() if isinstance(tree.body[-1], ast.Expr) else None
            with contextlib.redirect_stdout(out):
                exec(compile(tree, "00", "exec"), space)
                if value:
                    show(eval(compile(ast.Expression(value.value), "00", "eval"), space))
            said.append(out.getvalue())
    return "\n".join(said), space


@pytest.fixture(scope="module")
def kit():
    return records.frame("transfer", "glyphs")


@pytest.fixture(scope="module")
def known(kit):
    """Ten replicates in which the robust source is ahead by 3, 5, ... 21 points, but on textures alone, behind."""
    one, found = kit[(kit.seed == kit.seed.min()) & kit.source_eps.isin([0, 4 / 255])], []
    for k, seed in enumerate(range(200, 210)):
        ahead = (0.03 + 0.02 * k) * (one.target != "textures") - 0.2 * (one.target == "textures")
        found.append(one.assign(seed=seed, value=0.5 + (one.source == "robust") * ahead))
    found = pd.concat(found, ignore_index=True)
    found.attrs = kit.attrs
    return found


def test_the_section_on_verdicts_reads_true_when_the_result_flips(known):
    said, space = verdict_section(known)
    assert "mean +12.0 [+7.7, +16.3]" in said
    assert "is **ahead** of the standard source" in said
    assert "is the **better** start" in said
    assert "SEEN IN THIS WORLD" in said
    assert "**pass**: textures only" in said
    flipped, space = verdict_section(swapped(known, "source", "standard", "robust", "source_eps"))
    assert "mean -12.0 [-16.3, -7.7]" in flipped
    assert "is **behind** the standard source" in flipped
    assert "is the **worse** start" in flipped
    assert "**FAIL**: textures only" in flipped
    assert "ahead" not in flipped
    assert "SEEN IN THIS WORLD" not in flipped
    assert "invalid control" in space["judge"].verdicts["U-C1"].reason.replace("_", " ")


def test_a_known_lead_is_found(known):
    _, space = verdict_section(known)
    assert space["lead"].tolist() == pytest.approx(range(3, 22, 2))
    assert space["half"] == pytest.approx(2.262157 * (110 / 3) ** 0.5 / 10**0.5)
    assert space["judge"].interval("U-C1").effect == pytest.approx(12)


def test_a_misspelt_column_is_an_error_and_missing_rows_are_not(kit):
    with pytest.raises(KeyError):
        study("00", {"transfer": with_attrs(kit.rename(columns={"value": "valeu"}), kit)})
    found = study("00")
    claim = found["judge"].verdicts["U-C1"]
    assert claim.replicates == len(set(kit.seed))
    options = {"preset": "glyphs", "scope": "mechanism"}
    without = found["rows"][found["rows"].source != "robust"]
    from rtkit import claims

    verdict = judge(claims.get("U-C1"), found["judge"].effects["U-C1"], without, **options)
    assert (verdict.verdict, verdict.reason) == ("not_judged", "not_run")


def with_attrs(frame, like):
    frame.attrs = like.attrs
    return frame


def lengths(delta):
    return delta.flatten(1).norm(dim=1).view(-1, 1, 1, 1)


RIGHT = {
    "factor": lambda delta, eps: delta * (eps / lengths(delta)).clamp(max=1),
    "safe": lambda delta, eps: delta * (eps / lengths(delta).clamp_min(1e-12)).clamp(max=1),
    "where": lambda delta, eps: torch.where(lengths(delta) > eps, delta * eps / lengths(delta), delta),
    "kit": lambda delta, eps: ThreatModel("l2", eps).project(delta),
}
WRONG = {
    "nothing": (lambda delta, eps: delta, "nothing is shortened"),
    "l-infinity": (lambda delta, eps: delta.clamp(-eps, eps), "l∞"),
    "all to the sphere": (lambda delta, eps: delta * eps / lengths(delta).clamp_min(1e-9), "short enough"),
    "zero by zero": (lambda delta, eps: delta * eps / lengths(delta), "0 / 0"),
    "one length for all": (lambda delta, eps: delta * min(1, eps / float(delta.norm())), "a length of its own"),
    "shape of lengths": (lambda delta, eps: delta * (eps / delta.flatten(1).norm(dim=1)).clamp(max=1), "(N, 1, 1, 1)"),
    "by channel": (lambda delta, eps: delta * (eps / delta.norm(dim=1, keepdim=True)).clamp(max=1), "length"),
    "no return": (lambda delta, eps: None, "return"),
    "another direction": (lambda delta, eps: -RIGHT["safe"](delta, eps), "direction"),
}


@pytest.mark.parametrize("name", RIGHT)
def test_the_warm_up_accepts_what_is_right(name, capsys):
    assert checks.l2_ball(RIGHT[name])
    assert "Right." in capsys.readouterr().out


@pytest.mark.parametrize("name", WRONG)
def test_the_warm_up_says_what_is_wrong(name, capsys):
    answer, hint = WRONG[name]
    assert not checks.l2_ball(answer)
    assert hint in capsys.readouterr().out


def test_the_network_is_drawn_as_it_is():
    """The file that 00 and 01 show names the five cuts, and its sizes are those of the small network."""
    import xml.etree.ElementTree as ET

    root = ET.parse(records.store.ROOT / "docs" / "network.svg").getroot()
    space = "{http://www.w3.org/2000/svg}"
    assert root.find(f"{space}title").text
    assert len(root.find(f"{space}desc").text.split()) > 50
    words = [text.text for text in root.iter(f"{space}text")]
    for cut in ("last block", "last stage", "last two stages", "full network"):
        assert cut in words
    assert any(word.startswith("head (") for word in words)
    net = models.create(20, "small-16", 0).eval()
    with torch.no_grad():
        found = net.activations(torch.zeros(1, 3, 32, 32))
        stem = net.stem(torch.zeros(1, 3, 32, 32))
    for maps in (stem, *found.stages):
        assert " × ".join(map(str, maps.shape[1:])) in words
    assert str(found.features.shape[1]) in words
    assert words.count("block") == len(net.parts()) - 1


def test_the_glossary_defines_what_the_notebooks_link_to():
    (text,) = [text for kind, _, text in lesson.cells(PATH) if kind == "markdown" and "## Glossary" in text]
    glossary = text.partition("## Glossary")[2].partition("## References")[0]
    for word in ("source", "target", "replicate", "frame", "arm", "cell", "effect", "interval", "margin", "control"):
        assert word in glossary.split("**References")[0]
    for word in (
        "scope",
        "stage",
        "block",
        "head",
        "penultimate",
        "maps",
        "fixed features",
        "BatchNorm",
        "threat model",
    ):
        assert word in glossary
    for word in ("norm", "eps", "PGD", "robust accuracy", "shape bias", "log odds", "preset", "student"):
        assert word in glossary
    assert len([line for line in glossary.splitlines() if line.startswith("* **")]) >= 15


def test_every_notebook_is_listed_with_a_link():
    head = lesson.cells(PATH)[0][2]
    for path in lesson.paths()[1:]:
        assert f"]({path.name})" in head


@pytest.fixture(scope="module")
def explored():
    """The explorers of the page that are played, as `widgets.explorer` got them, on the page's own networks."""
    space, found = lesson.execute(PATH, {"preset": "smoke"}, ("parameters", "plumbing")), []
    wanted = ("PAIR =", "def train_network", "def learner", "live =", "def right", "net, threat =", "moved, step_size")
    wanted += ("@cache", "stages = {", "plays=step")
    cells = [text for kind, _, text in lesson.cells(PATH) if kind == "code"]
    explorer = mock.patch.object(widgets, "explorer", lambda *given, **named: found.append((*given, named["plays"])))
    with explorer, mock.patch.object(plots, "display"):
        for text in cells:
            if any(word in text for word in wanted):
                for long, short in (("=60", "=6"), ("61, 5", "11, 5"), ("(5000", "(400"), ("(1500", "(300")):
                    text = text.replace(long, short)
                exec(text, space)
    return space, found


def test_pgd_is_played_step_by_step(explored):
    space, ((controls, draw, *_, step), _) = explored
    assert step is controls[-1]
    assert list(step.options) == list(range(11))
    k, x, y = 3, space["x"][3:4], space["y"][3:4]
    frames = space["path"]("robust", k)
    assert frames.shape == (11, 3, 32, 32)
    assert torch.equal(frames[:1], x)
    ours = pgd(space["live"]["robust"], x, y, space["threat"], steps=10, random_start=False, keep_best=False)
    assert torch.equal(frames[10:], ours)  # the last step played is the kit's attack
    figure = Figure()
    said = draw(figure, k, "robust", 10)
    chance = space["live"]["robust"](ours).softmax(1)[0].detach()
    assert f"it says {'LU'[chance.argmax()]} ({100 * float(chance.max()):.0f} %); the label is {'LU'[y]}" in said
    assert said.startswith("Step 10 of the attack on the robust network")
    assert len(figure.axes) == 2  # the pictures, and the decision
    assert figure.axes[0].images[0].get_array().shape == (32, 96, 3)


def test_a_network_in_training_is_played(explored):
    space, (_, (controls, draw, *_, step)) = explored
    assert step is controls[-1]
    assert list(step.options) == list(space["stages"]) == [0, 5, 10]
    before, after = (space["stages"][n].head.weight for n in (0, 10))
    assert not torch.equal(before, after)
    assert not any(net.training for net in space["stages"].values())
    figure = Figure()
    said = draw(figure, 0, 10)
    clean = space["right"](space["stages"][10], space["x"], space["y"])
    assert said.startswith("After 10 steps of training, attacked, it says")
    assert f"Clean, {clean:.0f} % of the letters are right." in said
    assert figure.axes[0].images[0].get_array().shape == (32, 128, 3)  # with the gradient
