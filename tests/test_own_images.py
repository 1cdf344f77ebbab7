"""A reader's own images in notebooks 03 to 05: drawn, told, kept out of the verdicts, and refused where unusable."""

import math
import subprocess
import sys
from importlib import import_module

import numpy as np
import pandas as pd
import papermill
import pytest
from PIL import Image

from rtkit import records, store
from rtkit.plots import attack_success as attack_figures
from rtkit.plots import influence as influence_figures
from rtkit.plots import retention as retention_figures
from rtkit.prose import influence as influence_prose
from rtkit.prose import real
from rtkit.runner import NOTEBOOKS
from rtkit.studies import attack_students, influence_effects
from rtkit.studies import attack_success_effects as attack_effects

BETWEEN = {"03": "label match of the most helpful image", "04": "Success of the attack", "05": "against the head alone"}


def folder(path, classes=("left", "right"), count: int = 14) -> None:
    """A folder of images, of mixed sizes and two kinds, in which the lit side tells the class; classes are uneven."""
    rng = np.random.default_rng(0)
    for k, name in enumerate(classes):
        (path / name).mkdir(parents=True)
        for at in range(count * (1 + k)):
            x = rng.integers(120, size=(30 + at, 48 - at // 2, 3), dtype=np.uint8)
            half = x.shape[1] // 2
            x[:, :half] += np.uint8(100 * (k == 0))
            x[:, half:] += np.uint8(100 * (k == 1))
            Image.fromarray(x).save(path / name / f"{at}.{'png' if at % 2 else 'jpg'}")


def execute(number: str, tmp_path, monkeypatch, names: list[str]):
    monkeypatch.setenv("RTKIT_RUNS", str(tmp_path / "runs"))
    monkeypatch.setenv("RTKIT_DATA", str(tmp_path / "data"))
    (path,) = NOTEBOOKS.glob(f"{number}_*.ipynb")
    values = {"preset": "smoke", "targets": names}
    return papermill.execute_notebook(path, tmp_path / path.name, values, cwd=path.parent, progress_bar=False)


@pytest.mark.notebook
@pytest.mark.parametrize("number", BETWEEN)
def test_a_folder_of_ones_own_in_a_notebook(number, tmp_path, monkeypatch):
    folder(tmp_path / "data" / "mine")
    done = execute(number, tmp_path, monkeypatch, ["mine"])
    told = [
        str(output.data["text/markdown"])
        for cell in done.cells
        if cell.cell_type == "code"
        for output in cell.outputs
        if "text/markdown" in output.get("data", {})
    ]
    (own,) = [text for text in told if "Your run" in text]
    assert "**mine**" in own
    assert BETWEEN[number] in own
    assert "no data set of yours" not in own


@pytest.mark.notebook
def test_a_missing_data_set_is_named_where_the_notebook_stops(tmp_path, monkeypatch):
    (tmp_path / "data").mkdir()
    with pytest.raises(papermill.PapermillExecutionError, match=r"no data set is called 'absent'.*data/README\.md"):
        execute("03", tmp_path, monkeypatch, ["absent"])


@pytest.mark.parametrize("study", ["influence", "attack_success", "retention"])
def test_what_cannot_be_a_target_is_refused_before_anything_is_computed(study, tmp_path, monkeypatch):
    monkeypatch.setenv("RTKIT_DATA", str(tmp_path))
    monkeypatch.setattr(store, "RUNS", tmp_path / "runs")
    folder(tmp_path / "few", count=3)
    folder(tmp_path / "alone", ("left",))
    plan = import_module(f"rtkit.studies.{study}").plan
    for name, words in (
        ("few", r"few: class 'left' would get .* it needs two; .* add some, or leave the class out"),
        ("alone", "alone"),
        ("absent", "no data set is called 'absent'.*there are: alone, few"),
    ):
        with pytest.raises(ValueError, match=words):
            plan("smoke", targets=[name])


def test_the_command_line_says_in_a_line_which_data_set_is_missing(tmp_path):
    command = [sys.executable, "-c", "import sys; from rtkit.cli import main; sys.exit(main(sys.argv[1:]))", "study"]
    environment = {"RTKIT_DATA": str(tmp_path), "RTKIT_RUNS": str(tmp_path / "runs"), "PYTHONPATH": str(store.ROOT)}
    command += ["influence", "--preset", "cifar-small"]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, cwd=tmp_path)
    assert done.returncode == 2
    assert done.stderr.strip().startswith("rtkit: no data set is called 'mnist'")
    assert len(done.stderr.strip().splitlines()) == 1


def with_a_readers_own(study: str, frame: pd.DataFrame) -> pd.DataFrame:
    """A frame with rows of another target, on fewer images, on more test images, and worse than any in it."""
    source = {"influence": "digits", "attack_success": "greek", "retention": "digits_cued"}[study]
    more = frame[frame.target == source].assign(target="mine", n_test=9999)
    if study == "influence":
        more = more[more.method == "last_stage"]
    worst = more.metric == "self_check_warnings"
    more = more.assign(value=worst.astype(float), n_train=(more.n_train // 2).where(more.method != "source", 0))
    return pd.concat([frame, more], ignore_index=True)


@pytest.mark.parametrize("study", ["influence", "attack_success", "retention"])
def test_a_readers_own_data_set_enters_no_verdict_and_no_control(study):
    effects = import_module(f"rtkit.studies.{study}_effects")
    frame = records.frame(study, "glyphs")
    extended = with_a_readers_own(study, frame)
    assert real.names(frame) == []
    assert real.names(extended) == ["mine"]
    assert effects.verdicts(extended, "glyphs") == effects.verdicts(frame, "glyphs")
    assert effects.controls(extended) == effects.controls(frame)


def test_the_story_can_be_told_from_the_kits_record():
    """A file gives empty names back as missing values; at a preset of real images notebook 03 reads one."""
    main = influence_effects.core(records.frame("influence", "glyphs"))
    assert "Accuracy left between them" in influence_prose.matched(main)
    assert "at equal accuracy" in influence_prose.matched(main)


JITTER = (0.0, 0.004, -0.003)


def photographs(lead: float) -> pd.DataFrame:
    """Three replicates of notebook 03 on real images: the robust source, within 2/255, leads by `lead` everywhere."""
    rows = []

    def add(seed, source, target, n, metric, value, **more):
        row = {"method": "last_stage", "source": source, "target": target, "n_train": n, "metric": metric}
        row |= {"source_eps": 2 / 255 if source == "robust" else 0.0, "seed": seed, "source_seed": seed}
        row |= {"value": value, "n_test": 2000, "score": "", "rank": 0, "texture_amplitude": math.nan}
        rows.append(row | {"shape_reliability": math.nan} | more)

    for seed, jitter in enumerate(JITTER):
        for target, level in (("mnist", 0.6), ("cifar10", 0.3), ("mine", 0.1)):
            for source, plus in (("standard", 0.0), ("robust", lead + jitter)):
                for n in (40, 80) if target == "mine" else (100, 400):
                    for name, base in (("influence", level), ("neighbours", level / 2)):
                        add(seed, source, target, n, "top1_match", base + plus, score=name)
                    add(seed, source, target, n, "clean_accuracy", level)
                    add(seed, source, target, n, "validation_accuracy", level + plus)
                    add(seed, source, target, n, "train_accuracy", 1.0 if target != "mine" else 0.5)
            second = {"score": "influence", "source_seed": seed + 1000}
            add(seed, "standard", target, 40 if target == "mine" else 100, "top1_match", level + jitter, **second)
        for source in ("standard", "robust"):
            proof = {"method": "fixed_feature", "score": "newton"}
            add(seed, source, "mnist", 900, "loo_pearson", 0.999, **proof)
            add(seed, source, "mnist", 900, "lds", 0.9, **proof)
    return pd.DataFrame(rows)


def test_influence_is_judged_on_real_images_by_the_targets_of_its_plan():
    """The smallest size, the level of the controls and the targets are the plan's, not those of a reader's set."""
    frame = photographs(0.10)
    assert set(influence_effects.core(frame).target) == {"mnist", "cifar10"}
    assert influence_effects.few(influence_effects.core(frame)) == 100
    assert [control.name for control in influence_effects.controls(frame) if not control.holds] == []
    found, flipped = (influence_effects.verdicts(photographs(x), "cifar-small")["U-C8"] for x in (0.10, -0.10))
    assert (found.verdict, found.scope, flipped.verdict) == ("supported", "small-scale", "contradicted")
    assert found.effect == pytest.approx(100 * (0.10 + sum(JITTER) / 3))
    one = frame[(frame.seed == 0) & (frame.source_seed == 0)]
    assert set(influence_effects.matched_sizes(influence_effects.core(one))) == {"mnist", "cifar10"}


def test_the_influence_of_real_images_is_told_as_it_is():
    frame = photographs(0.10)
    text = real.tell("influence", "03", frame)
    assert [line.partition("**,")[0] for line in text.splitlines() if line.startswith("*")] == [
        "* **mnist", "* **cifar10", "* **mine"
    ]  # fmt: skip
    assert "**mine**, 40 training and 2000 test images" in text
    assert text.count("the robust source is **ahead** of the standard source: +10.0 points") == 6
    flipped = real.tell("influence", "03", photographs(-0.10))
    assert flipped.count("the robust source is **behind** the standard source") == 6
    assert influence_figures.match_by_target(frame, real.names(frame)).axes[2].get_title() == "mine, 40 images"


def attacked(sign: float, lead: float = 0.2, own: float = 0.95) -> pd.DataFrame:
    """Three replicates of notebook 04: NFD is fooled less often than fine-tuning (sign 1) or more often (-1).

    Args:
        own: share of the source's own decisions that the attack flips.
    """
    rows = []
    for seed, jitter in enumerate(JITTER):
        for k, name in enumerate(attack_figures.STUDENTS):
            base = {"method": name, "target": "mnist", "n_train": 400, "seed": seed, "n_test": 2000}
            base |= {"weight": attack_students.WEIGHT, "dropout": attack_students.DROPOUT}
            base |= {"lr": attack_students.LEARNING_RATES[name], "architecture": "small-16"}
            clean = 0.7 if name != "scratch" else 0.7 - lead
            rate = 0.5 - 0.3 * sign * (name == "nfd") + 0.01 * k + jitter
            for metric, form, value in (
                ("clean_accuracy", "", clean),
                ("attack_success_rate", "any", rate),
                ("attack_success_rate", "noise", 0.05),
            ):
                rows.append(base | {"metric": metric, "form": form, "value": value})
        source = {"method": "source", "n_train": 0, "metric": "attack_success_rate", "form": "any", "value": own}
        rows.append(base | source)
    return pd.DataFrame(rows)


def test_the_attack_on_real_images_is_told_as_it_is():
    text = real.tell("attack_success", "04", attacked(1))
    assert "**mnist**, 400 training and 2000 test images. Clean accuracy: fine-tuning 70.0 %" in text
    assert "from scratch 50.0 %" in text
    assert "at least 5 points, so there is something to gain" in text
    assert "NFD is fooled **less often** than fine-tuning" in text
    assert "Not valid" not in text
    weak = real.tell("attack_success", "04", attacked(1, own=0.74))
    assert "**Not valid here**: on average the attack flips 74.0 % of the source's own decisions" in weak
    flipped = real.tell("attack_success", "04", attacked(-1, lead=0.01))
    assert "NFD is fooled **more often** than fine-tuning" in flipped
    assert "less than 5 points, so nobody needs the source" in flipped
    # A reader's set beside the study's own keeps the size of its own.
    both = pd.concat([attacked(1), attacked(1).assign(target="mine", n_train=15)], ignore_index=True)
    assert set(attack_effects.core(both).n_train) == {0, 400}  # 0: the source itself
    assert "**mine**, 15 training" in real.tell("attack_success", "04", both)
    parts = {name: attack_effects.core(both[both.target == name]) for name in real.names(both)}
    assert [ax.get_title() for ax in attack_figures.trades(parts).axes] == ["mnist", "mine"]


def kept(full: float) -> pd.DataFrame:
    """Three replicates of notebook 05 on a reader's set: head 50 %, all layers `full`, LwF 60 % under attack."""
    rows = []
    for seed, jitter in enumerate(JITTER):
        for method, robust in (("head", 0.5), ("full_network", full), ("lwf", 0.6)):
            for source in ("robust", "standard"):
                base = {"method": method, "source": source, "target": "mine", "n_train": 40, "seed": seed}
                base |= {"weight": 0.15 if method == "lwf" else 0.0}
                values = {
                    "clean_accuracy": 0.8 + jitter,
                    "robust_accuracy": robust + jitter if method != "head" else 0.5,
                }
                for metric, value in values.items():
                    rows.append(base | {"metric": metric, "value": value * (source == "robust" or metric[0] == "c")})
    return pd.DataFrame(rows)


def test_robustness_on_real_images_is_told_as_it_is():
    text = real.tell("retention", "05", kept(0.2))
    assert "from the robust source head alone 80.0 % and 50.0 %, all layers 80.0 % and 20.0 %, all layers, LwF" in text
    assert "from the standard source head alone 80.0 % and 0.0 %" in text
    assert "training all layers **loses** robust accuracy (-30.0 points" in text
    assert "learning without forgetting **gains** robust accuracy (+10.0 points" in text
    assert "the robust source is **ahead** of the standard source: +50.0 points" in text
    assert "training all layers **gains** robust accuracy (+20.0" in real.tell("retention", "05", kept(0.7))
    assert len(retention_figures.by_target(kept(0.2), ["mine"]).axes) == 1


def test_who_named_none_is_told_how():
    text = real.tell("influence", "03", records.frame("influence", "glyphs"))
    assert "rtkit run 03 -p targets mydata" in text
    assert "The kit's run" not in text
    both = real.tell("influence", "03", records.frame("influence", "glyphs"), photographs(0.10))
    assert both.startswith("The kit's run at `cifar-small`:")
    assert "rtkit run 03 -p targets mydata" in both
