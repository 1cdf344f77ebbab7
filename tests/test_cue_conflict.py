"""Cue-conflict stimuli on real networks: decisions by hand, the path from a folder to a page, and what is refused."""

import math
import re

import numpy as np
import pandas as pd
import pytest
import torch
from captum.attr import IntegratedGradients
from lessons import read, study
from PIL import Image
from test_shape_bias import made_up as letters_frame
from torch import nn
from torchvision.models._meta import _IMAGENET_CATEGORIES

from rtkit import cli, experiment, lesson, models, presets, records, shape_bias, store
from rtkit.data.glyphs import World
from rtkit.data.pictures import Pictures
from rtkit.measure import cue_conflict as measure
from rtkit.measure.cue_conflict import ALL, Stimuli
from rtkit.presets import Preset
from rtkit.sources import Source

PRESET = Preset("photos", (0, 1), "small-8", 40, 20, 2, 0.1, world=Pictures("cifar100"))


def photographs(root, classes=("cat", "dog", "deer")) -> None:
    """A tiny CIFAR-10: a level of grey for each class."""
    rng, made = np.random.default_rng(0), {"classes": np.array(classes)}
    for part in ("train", "test"):
        made[f"y_{part}"] = np.arange(90) % len(classes)
        noise = rng.integers(60, size=(90, 32, 32, 3))
        made[f"x_{part}"] = (noise + 60 * made[f"y_{part}"][:, None, None, None]).astype(np.uint8)
    np.savez(root / "cifar10.npz", **made)


def conflicts(root, shade: int = 100) -> None:
    """Three stimuli of a cat and a dog; one of one class alone and one of a class that CIFAR-10 lacks."""
    for shape, stem in (
        ("cat", "cat1-dog2"),
        ("dog", "dog1-cat1"),
        ("dog", "dog2-cat3"),
        ("cat", "cat3-cat1"),
        ("clock", "clock1-cat1"),
    ):
        (root / "cue_conflict" / shape).mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (40, 40), (shade, 10, 30)).save(root / "cue_conflict" / shape / f"{stem}.png")


@pytest.fixture
def quick(monkeypatch):
    """Networks of letters that nobody trained, and no slow pictures of what they look at."""
    load = Source.load

    def chosen(self):
        return (models.create(20, "small-8", 0).eval(), {}) if isinstance(self.world, World) else load(self)

    monkeypatch.setattr(Source, "load", chosen)
    monkeypatch.setattr(shape_bias, "single_feature", lambda net, x, feature, steps: x)
    monkeypatch.setattr(IntegratedGradients, "attribute", lambda self, x, *_, **__: x)


@pytest.fixture
def root(root, monkeypatch, quick):
    """A folder for data, a preset that trains two steps, and no further process."""
    monkeypatch.setitem(presets.PRESETS, "photos", PRESET)
    monkeypatch.setattr(experiment, "workers", lambda: 1)
    measure.stimuli.cache_clear()
    yield root
    measure.stimuli.cache_clear()


def run(preset: str = "photos") -> pd.DataFrame:
    cells = lesson.execute(lesson.path("02"), tags=lesson.GRID)["stimuli_cells"]
    return experiment.run(measure.rows, cells, preset, run="mine")


class Fixed(nn.Module):
    """Logits by the first pixel of an image, a row of a table for each of its values."""

    def __init__(self, table: torch.Tensor):
        super().__init__()
        self.table = table

    def forward(self, x):
        return self.table[(255 * x[:, 0, 0, 0]).round().long()]


def by_hand() -> Stimuli:
    x = torch.arange(4, dtype=torch.uint8).view(4, 1, 1, 1).expand(4, 3, 32, 32).contiguous()
    return Stimuli(x, torch.tensor([0, 0, 1, 2]), torch.tensor([1, 2, 0, 1]), ("cat", "dog", "boat"), (3, 5, 1))


def test_only_the_shared_classes_count():
    logits = torch.tensor([[9.0, 1.0, 9.0, 2.0, 9.0, 0.0]])
    found = measure.chances(logits, (3, 5, 1))
    assert found.sum() == pytest.approx(1)
    assert found[0].tolist() == pytest.approx((torch.tensor([2.0, 0.0, 1.0]).exp() / (math.e**2 + 1 + math.e)).tolist())
    table = torch.full((4, 6), 9.0)  # classes that the stimuli lack are the likeliest everywhere
    table[:, [3, 5, 1]] = torch.tensor([[1.0, 0, 0], [0, 0, 1], [0, 0, 1], [0, 0, 1]])
    assert measure.decisions(Fixed(table), by_hand()).tolist() == [0, 2, 2, 2]


def test_shares_by_hand():
    # For the shape, for the texture, for neither, for the shape.
    found = {
        (metric, name): (value, n) for metric, name, value, n in measure.shares(torch.tensor([0, 2, 2, 2]), by_hand())
    }
    assert found["shape_decisions", ALL] == (0.5, 4)
    assert found["texture_decisions", ALL] == (0.25, 4)
    assert found["other_decisions", ALL] == (0.25, 4)
    assert found["shape_bias", ALL] == (pytest.approx(2 / 3), 3)
    assert found["shape_bias", "cat"] == (0.5, 2)
    assert found["shape_bias", "boat"] == (1.0, 1)
    assert found["other_decisions", "dog"] == (1.0, 1)
    assert ("shape_bias", "dog") not in found


def test_stimuli_of_the_classes_that_a_data_set_has(root):
    photographs(root, ("deer", "dog", "cat"))
    conflicts(root)
    found = measure.stimuli(Pictures("cifar10"))
    assert found.names == ("cat", "dog")
    assert found.columns == (2, 1)
    assert found.x.shape == (3, 3, 32, 32)
    assert found.shape.tolist() == [0, 1, 1]
    assert found.texture.tolist() == [1, 0, 0]


def stimulus(root, name: str, image: Image.Image, **options) -> None:
    path = root / "cue_conflict" / name
    path.parent.mkdir(parents=True, exist_ok=True)
    image.save(path, **options)


def read_stimuli(root, size: int = 8):
    return shape_bias.read_stimuli(root / "cue_conflict", size, ["cat", "dog"])


def test_stimuli_are_read_as_the_images_of_a_folder_are(root):
    wide = Image.new("RGB", (60, 20), "black")
    wide.paste("white", (20, 0, 40, 20))  # the centre is cut out
    turned = Image.new("L", (10, 10))
    turned.paste(255, (0, 0, 10, 5))
    exif = turned.getexif()
    exif[0x0112] = 3
    stimulus(root, "cat/cat1-dog1.png", wide)
    stimulus(root, "cat/cat2-dog1.PNG", turned, exif=exif)
    stimulus(root, "cat/cat3-dog1.webp", Image.new("RGBA", (4, 4), (0, 0, 0, 0)), lossless=True)
    for hidden in ("cat/._cat1-dog2.png", "cat/.DS_Store", ".ipynb_checkpoints/cat1-dog1.png"):
        (root / "cue_conflict" / hidden).parent.mkdir(exist_ok=True)
        (root / "cue_conflict" / hidden).write_bytes(b"?")
    x, shape, _ = read_stimuli(root)
    assert shape.tolist() == [0, 0, 0]
    assert (x[0] == 255).all()
    assert (x[1, :, :3] == 0).all()
    assert (x[1, :, 5:] == 255).all()
    assert (x[2] == 255).all()


def test_square_stimuli_are_resized_whole(root):
    pixels = np.random.default_rng(0).integers(256, size=(50, 50, 3), dtype=np.uint8)
    stimulus(root, "cat/cat1-dog1.png", Image.fromarray(pixels))
    whole = np.asarray(Image.fromarray(pixels).resize((8, 8), Image.Resampling.BILINEAR))
    assert (read_stimuli(root)[0][0].permute(1, 2, 0).numpy() == whole).all()


def test_stimuli_that_do_not_fit_are_refused_or_told(root):
    ramp = np.tile(np.linspace(0, 65535, 64).astype(np.uint16), (64, 1))
    stimulus(root, "cat/cat1-dog2.png", Image.fromarray(ramp))
    with pytest.raises(ValueError, match=r"cat1-dog2\.png cannot be used \(pixels of mode 'I;16', of more than 8 bits"):
        read_stimuli(root)
    stimulus(root, "cat/cat1-dog2.png", Image.new("L", (4, 4)))
    (root / "cue_conflict" / "cat" / "cat2-dog1.heic").write_bytes(b"?")
    stimulus(root, "cat3-dog1.png", Image.new("L", (4, 4)))
    words = r"2 files left out \(1 beside the class folders, 1 \.heic\)"
    with pytest.warns(UserWarning, match=words):
        assert len(read_stimuli(root)[0]) == 1
    stimulus(root, "cat/more/cat3-dog1.png", Image.new("L", (4, 4)))
    with pytest.raises(ValueError, match="cat/more is a folder in a class folder"):
        read_stimuli(root)


def test_from_a_folder_to_a_page(root, monkeypatch):
    photographs(root)
    conflicts(root)
    page = read("02", {"shape_bias": letters_frame(0.2)}, preset="photos", run="mine")
    assert "A stimulus of each shape" in page
    assert "robust accuracy, robust minus standard" in page
    record = records.load("cue_conflict", "photos")
    assert record.verdicts == {}
    assert record.computed_by_this
    assert records.load("shape_bias", "glyphs") is None  # read, and not run

    frame = run()
    kept = store.load_frame(records.path("cue_conflict", "photos").with_suffix(".csv.gz"))
    pd.testing.assert_frame_equal(kept[frame.columns], frame, check_dtype=False)
    assert set(frame.source) == {"standard", "noise", "robust"}
    assert set(frame[frame.source != "standard"].source_eps) == {Pictures.eps}
    there = frame[frame.target == "cue_conflict"]
    for key, singly in there[there.metric == "decided_by_shape"].groupby(["source", "seed"]):
        whole = there[(there["shape"] == ALL) & (there.source == key[0]) & (there.seed == key[1])]
        assert whole[whole.metric == "shape_bias"].value.item() == singly.value.mean()
        assert whole[whole.metric == "shape_bias"].n_test.item() == len(singly) == singly.stimulus.nunique()
    cues = [f"{cue}_decisions" for cue in ("shape", "texture", "other")]
    shares = there[there.metric.isin(cues)].groupby(["source", "seed", "shape"])
    assert np.allclose(shares.value.sum(), 1)
    assert (shares.size() == 3).all()
    assert set(there["shape"]) == {ALL, "cat", "dog"}
    assert there[(there.metric == "shape_decisions") & (there["shape"] == ALL)].n_test.eq(3).all()
    own = frame[frame.target == "source"]
    assert {"clean_accuracy", "robust_accuracy", "self_check_warnings", "collapsed"} == set(own.metric)

    # A second run reads; other stimuli ask the networks again, without training them.
    monkeypatch.setattr(measure, "decisions", lambda *_: pytest.fail("computed again"))
    pd.testing.assert_frame_equal(run(), frame)
    conflicts(root, shade=200)
    measure.stimuli.cache_clear()
    networks = sorted((root.parent / "runs" / "networks").iterdir())
    with pytest.raises(pytest.fail.Exception, match="computed again"):
        run()
    assert sorted((root.parent / "runs" / "networks").iterdir()) == networks


def test_what_is_missing_is_named(root):
    with pytest.raises(ValueError, match="no data set is called 'cifar10': `rtkit data get cifar10`"):
        run()
    photographs(root)
    with pytest.raises(ValueError, match=r"cue_conflict is missing; put images laid out as .*data/README\.md"):
        run()
    (root / "cue_conflict").mkdir()
    with pytest.raises(ValueError, match="holds no cue-conflict stimulus of two of the classes cat, dog"):
        run()
    photographs(root, ("deer", "dog"))
    with pytest.raises(ValueError, match=r"shares fewer than two classes .* airplane, .*, it has deer, dog"):
        run()


def test_the_command_line_refuses_in_a_line(root, capsys):
    for name, preset, words in (
        ("cue_conflict", "glyphs", "cue_conflict does not run at the preset 'glyphs', only at photos, cifar"),
        ("cue_conflict", "photos", "`rtkit data get cifar10`"),
        ("02", "photos", "`rtkit data get cifar10`"),  # by number: the study of this notebook that runs there
        ("02", "imagenet", "02 does not run at the preset 'imagenet'"),
    ):
        with pytest.raises(SystemExit) as stopped:
            cli.main(["study", name, "--preset", preset])
        assert stopped.value.code == 2
        assert words in capsys.readouterr().err
    with pytest.raises(SystemExit):
        cli.main(["study", "cue_conflict", "--tune", "--preset", "photos"])
    assert "cue_conflict has nothing to tune" in capsys.readouterr().err


def made_up(lead: float) -> pd.DataFrame:
    """A frame of two classes in which the robust networks decide by the shape more often, by `lead`."""
    rows = []
    for seed, jitter in enumerate((-0.01, 0.0, 0.01)):
        for source, plus in (("standard", 0.0), ("noise", jitter), ("robust", lead + jitter)):
            facts = {"source": source, "source_eps": 0.0, "seed": seed, "n_test": 60, "source_seed": seed}

            def add(metric, value, target="cue_conflict", shape=ALL, facts=facts, stimulus=-1):
                row = {"metric": metric, "value": value, "target": target, "shape": shape, "stimulus": stimulus}
                rows.append(facts | row)

            for shape in (ALL, "cat", "dog"):
                by_shape = 0.4 + plus
                add("shape_decisions", by_shape, shape=shape)
                add("texture_decisions", 0.8 - by_shape, shape=shape)
                add("other_decisions", 0.2, shape=shape)
                add("shape_bias", by_shape / 0.8, shape=shape)
            for k in range(400):  # of 500
                add("decided_by_shape", float(k < 500 * by_shape - 0.5), shape="cat", stimulus=k)
            add("clean_accuracy", 0.7, "source")
            add("robust_accuracy", 0.5 if source == "robust" else 0.1 + jitter, "source")
            add("self_check_warnings", 0.0, "source")
            add("collapsed", 0.0, "source")
    frame = pd.DataFrame(rows)
    frame.attrs = {"study": "cue_conflict", "preset": "photos", "run": "kit"}
    return frame


@pytest.mark.parametrize(("lead", "word"), [(-0.2, "**to the texture**"), (0.008, "**not clearly**")])
def test_the_page_flips_with_the_frame(lead, word, quick):
    page = read("02", {"cue_conflict": made_up(lead), "shape_bias": letters_frame(0.2)}, preset="photos")
    (told,) = [line for line in page.splitlines() if line.startswith("Adversarial training")]
    assert word in told
    assert f"{125 * lead:+.1f} points [" in told
    assert "the interval is over networks and stimuli." in told
    most = "the texture" if lead < 0 else "the shape"
    assert f"in standard networks, {most} ({40 + 100 * abs(lead):.0f} % of the stimuli) in robust ones" in page
    # The story of the letters stands beside it, from the kit.
    assert "S-C9: **" in page


def test_an_interval_over_networks_and_stimuli():
    """Of networks that all say the same it is over the stimuli; where all stimuli are alike, over the networks."""
    rng, crossed = np.random.default_rng(0), checked(made_up(0.2))["crossed"]

    def interval(said):
        arms, seeds, stimuli = np.meshgrid(["robust", "standard"], range(3), range(len(said[0, 0])), indexing="ij")
        rows = {"arm": arms.ravel(), "seed": seeds.ravel(), "stimulus": stimuli.ravel(), "value": said.ravel()}
        return crossed(pd.DataFrame(rows).assign(metric="decided_by_shape"))

    same = (rng.random((2, 1, 200)) < [[[0.8]], [[0.5]]]).astype(float).repeat(3, axis=1)
    apart, found = same[0, 0] - same[1, 0], interval(same)
    assert found.effect == pytest.approx(100 * apart.mean())
    half = 4.303 * 100 * apart.std() / 200**0.5
    assert found.high - found.effect == pytest.approx(half, rel=0.1)
    alike = np.stack([np.full((3, 200), 1.0), np.array([0.0, 0.0, 1.0])[:, None].repeat(200, 1)])
    found = interval(alike)
    assert found.effect == pytest.approx(200 / 3)
    assert found.high - found.effect == pytest.approx(4.303 * 100 * (2 / 9 / 3) ** 0.5, rel=0.1)
    assert found.replicates == 3


def checked(frame: pd.DataFrame) -> dict:
    return study("02", {"cue_conflict": frame, "shape_bias": letters_frame(0.2)}, preset="photos")


def test_checks_and_no_verdict():
    judge = checked(made_up(0.2))["photo_judge"]
    assert [one.holds for one in judge.controls] == [True, True]
    assert (judge.verdicts, judge.collapsed) == ({}, [])
    frame = made_up(0.2)
    frame.loc[(frame.source == "robust") & (frame.metric == "robust_accuracy"), "value"] = 0.05
    assert [one.holds for one in checked(frame)["photo_judge"].controls] == [False, True]


def test_of_one_replicate_nothing_is_checked():
    frame = made_up(0.2)
    alone = frame[frame.seed == 0]
    alone.attrs = frame.attrs
    assert checked(alone)["photo_judge"].controls == []


@pytest.fixture(scope="module")
def sixteen() -> dict:
    """What the solution of the last exercise defines."""
    prose = "\n".join(source for kind, _, source in lesson.cells(lesson.path("02")) if kind == "markdown")
    space = {"torch": torch}
    exec(re.search(r"```python\n(PLACES.+?)```", prose, re.DOTALL)[1], space)
    return space


def test_the_sixteen_classes_are_those_of_imagenet(sixteen):
    spelled = sixteen["spelled"]
    names = {name: [_IMAGENET_CATEGORIES[k] for k in spelled(at)] for name, at in sixteen["PLACES"].items()}
    assert list(names) == sorted(names)
    assert len(names) == 16
    assert names["bear"] == ["brown bear", "American black bear", "ice bear", "sloth bear"]
    assert names["elephant"] == ["Indian elephant", "African elephant"]
    assert names["clock"] == ["analog clock", "digital clock", "wall clock"]
    assert names["oven"] == ["rotisserie"]
    assert {name: len(found) for name, found in names.items()}["dog"] == 109
    assert len(names["bird"]) == 49
    assert {"goldfinch", "king penguin"} <= set(names["bird"])
    assert not {"cock", "ostrich", "kite"} & set(names["bird"])
    everything = [name for found in names.values() for name in found]
    assert len(everything) == len(set(everything)) == 207


def test_the_sixteen_take_the_mean_of_their_classes(sixteen):
    logits, names = torch.full((2, 1000), -30.0), list(sixteen["PLACES"])
    logits[0, 404], logits[0, sixteen["spelled"](sixteen["PLACES"]["dog"])] = 1.0, 0.0  # their sum above the airliner
    logits[1, 385] = 5.0
    found = sixteen["chances"](logits)
    assert [names[k] for k in found.argmax(1)] == ["airplane", "elephant"]
    assert found[1, names.index("elephant")] == pytest.approx(0.5, abs=1e-3)
    assert found[0, names.index("dog")] == pytest.approx(1 / (109 + math.e), rel=1e-3)
