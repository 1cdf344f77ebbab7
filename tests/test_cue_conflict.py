"""Cue-conflict stimuli on real networks: decisions by hand, the path from a folder to a figure, and what is refused."""

import math

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image
from torch import nn
from torchvision.models._meta import _IMAGENET_CATEGORIES

from rtkit import cli, presets, records, sixteen, store, studies
from rtkit.data.pictures import Pictures
from rtkit.plots import cue_conflict as figures
from rtkit.presets import Preset
from rtkit.prose import cue_conflict as say
from rtkit.studies import cue_conflict as study
from rtkit.studies import cue_conflict_effects as effects
from rtkit.studies.cue_conflict import ALL, Stimuli

PRESET = Preset("cifar-small", (0, 1), "small-8", 40, 20, 2, 0.1, world=Pictures("cifar100"))


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
def root(root, monkeypatch):
    """A folder for data, a preset that trains two steps, and no further process."""
    monkeypatch.setitem(presets.PRESETS, "cifar-small", PRESET)
    monkeypatch.setattr(studies, "workers", lambda: 1)
    return root


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
    found = study.chances(logits, (3, 5, 1))
    assert found.sum() == pytest.approx(1)
    assert found[0].tolist() == pytest.approx((torch.tensor([2.0, 0.0, 1.0]).exp() / (math.e**2 + 1 + math.e)).tolist())
    table = torch.full((4, 6), 9.0)  # classes that the stimuli lack are the likeliest everywhere
    table[:, [3, 5, 1]] = torch.tensor([[1.0, 0, 0], [0, 0, 1], [0, 0, 1], [0, 0, 1]])
    assert study.decisions(Fixed(table), by_hand()).tolist() == [0, 2, 2, 2]


def test_shares_by_hand():
    # For the shape, for the texture, for neither, for the shape.
    found = {
        (metric, name): (value, n) for metric, name, value, n in study.shares(torch.tensor([0, 2, 2, 2]), by_hand())
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
    found = study.stimuli(Pictures("cifar10"))
    assert found.names == ("cat", "dog")
    assert found.columns == (2, 1)
    assert found.x.shape == (3, 3, 32, 32)
    assert found.shape.tolist() == [0, 1, 1]
    assert found.texture.tolist() == [1, 0, 0]


def test_from_a_folder_to_a_figure(root, monkeypatch):
    photographs(root)
    conflicts(root)
    frame = study.run("cifar-small")
    assert set(frame.source) == {"standard", "noise", "robust"}
    assert set(frame[frame.source != "standard"].source_eps) == {Pictures.eps}
    there = frame[frame.target == "cue_conflict"]
    cues = [f"{cue}_decisions" for cue in ("shape", "texture", "other")]
    shares = there[there.metric.isin(cues)].groupby(["source", "seed", "shape"])
    assert np.allclose(shares.value.sum(), 1)
    assert (shares.size() == 3).all()
    assert set(there["shape"]) == {ALL, "cat", "dog"}
    assert there[(there.metric == "shape_decisions") & (there["shape"] == ALL)].n_test.eq(3).all()
    own = frame[frame.target == "source"]
    assert {"clean_accuracy", "robust_accuracy", "self_check_warnings", "collapsed"} == set(own.metric)

    effects.publish(frame, "cifar-small")
    record = records.load("cue_conflict", "cifar-small")
    assert record.verdicts == {}
    assert record.same_code
    kept = store.load_frame(records.path("cue_conflict", "cifar-small").with_suffix(".csv.gz"))
    assert say.tell(kept) == say.tell(frame)
    assert "3 stimuli of 2 classes (cat, dog)" in say.tell(frame)

    ax = figures.by_class(kept)
    assert [label.get_text() for label in ax.get_yticklabels()] == ["dog", "cat", ALL]
    assert len(ax.get_legend().get_texts()) == 3
    found = study.stimuli(Pictures("cifar10"))
    ax = figures.strip(found, {"mine": torch.tensor([1, 1, 0])})
    assert [text.get_text() for text in ax.texts] == ["cat\ndog\ndog", "dog\ncat\ndog", "shape\ntexture\nmine"]
    plt.close("all")

    # A second run reads; other stimuli ask the networks again, without training them.
    monkeypatch.setattr(study, "decisions", lambda *_: pytest.fail("computed again"))
    pd.testing.assert_frame_equal(study.run("cifar-small"), frame)
    conflicts(root, shade=200)
    networks = sorted((root.parent / "runs" / "networks").iterdir())
    with pytest.raises(pytest.fail.Exception, match="computed again"):
        study.run("cifar-small")
    assert sorted((root.parent / "runs" / "networks").iterdir()) == networks


def test_what_is_missing_is_named(root):
    with pytest.raises(ValueError, match="no data set is called 'cifar10': `rtkit data get cifar10`"):
        study.plan("cifar-small")
    photographs(root)
    with pytest.raises(ValueError, match=r"cue_conflict is missing; put images laid out as .*data/README\.md"):
        study.plan("cifar-small")
    (root / "cue_conflict").mkdir()
    with pytest.raises(ValueError, match="holds no cue-conflict stimulus of two of the classes cat, dog"):
        study.plan("cifar-small")
    photographs(root, ("deer", "dog"))
    with pytest.raises(ValueError, match=r"shares fewer than two classes .* airplane, .*, it has deer, dog"):
        study.plan("cifar-small")
    with pytest.raises(
        ValueError, match="cue_conflict does not run at the preset 'glyphs', only at cifar-small, cifar"
    ):
        study.run("glyphs")


def test_the_command_line_refuses_in_a_line(root, capsys):
    for name, preset, words in (
        ("cue_conflict", "glyphs", "only at cifar-small"),
        ("cue_conflict", "cifar-small", "`rtkit data get cifar10`"),
        ("02", "cifar-small", "`rtkit data get cifar10`"),  # by number: the study of this notebook that runs there
        ("02", "imagenet", "the study shape_bias does not run"),
    ):
        with pytest.raises(SystemExit) as stopped:
            cli.main(["study", name, "--preset", preset])
        assert stopped.value.code == 2
        assert words in capsys.readouterr().err
    with pytest.raises(SystemExit):
        cli.main(["study", "cue_conflict", "--tune", "--preset", "cifar-small"])
    assert "cue_conflict has nothing to tune" in capsys.readouterr().err


def made_up(lead: float) -> pd.DataFrame:
    """A frame of two classes in which the robust networks decide by the shape more often, by `lead`."""
    rows = []
    for seed, jitter in enumerate((-0.01, 0.0, 0.01)):
        for source, plus in (("standard", 0.0), ("noise", jitter), ("robust", lead + jitter)):
            facts = {"source": source, "source_eps": 0.0, "seed": seed, "n_test": 60, "source_seed": seed}

            def add(metric, value, target="cue_conflict", shape=ALL, facts=facts):
                rows.append(facts | {"metric": metric, "value": value, "target": target, "shape": shape})

            for shape in (ALL, "cat", "dog"):
                by_shape = 0.4 + plus
                add("shape_decisions", by_shape, shape=shape)
                add("texture_decisions", 0.8 - by_shape, shape=shape)
                add("other_decisions", 0.2, shape=shape)
                add("shape_bias", by_shape / 0.8, shape=shape)
            add("clean_accuracy", 0.7, "source")
            add("robust_accuracy", 0.5 if source == "robust" else 0.1 + jitter, "source")
            add("self_check_warnings", 0.0, "source")
            add("collapsed", 0.0, "source")
    return pd.DataFrame(rows)


@pytest.mark.parametrize(
    ("lead", "word", "counts"),
    [(0.2, "**ahead**", (2, 0)), (-0.2, "**behind**", (0, 2)), (0.0, "**not told apart**", (0, 0))],
)
def test_sentences_flip_with_the_frame(lead, word, counts):
    frame = made_up(lead)
    assert effects.lead(frame).effect == pytest.approx(125 * lead)
    told = say.tell(frame)
    (robust,) = [line for line in told.splitlines() if "In shape bias" in line and "the robust source" in line]
    assert word in robust
    (noise,) = [line for line in told.splitlines() if "In shape bias" in line and "the noise source" in line]
    assert "**not told apart**" in noise
    assert f"above the standard ones in {counts[0]}, clearly below in {counts[1]}" in told
    assert f"robust: by the shape {40 + 100 * lead:.1f} %, by the texture {40 - 100 * lead:.1f} %" in told
    assert "decides **less often** in the standard networks than in guesses: -10.0 points" in told
    frame.loc[frame.metric == "texture_decisions", "value"] += 0.2
    assert "decides **more often** in the standard networks than in guesses: +10.0 points" in say.tell(frame)
    assert all(control.holds for control in effects.controls(frame))
    assert effects.verdicts(frame, "cifar-small") == {}


def test_one_replicate_and_none():
    frame = made_up(0.2)
    told = say.tell(frame[frame.seed == 0])
    assert "in a single replicate" in told
    assert "above the standard ones in 0, clearly below in 0" in told
    assert effects.controls(frame[frame.seed == 0]) == []
    assert "data/cue_conflict" in say.tell(None)


def test_a_control_that_fails_is_told():
    frame = made_up(0.2)
    frame.loc[(frame.source == "robust") & (frame.metric == "robust_accuracy"), "value"] = 0.05
    assert [control.holds for control in effects.controls(frame)] == [False, True]


def test_the_sixteen_classes_are_those_of_imagenet():
    names = {name: [_IMAGENET_CATEGORIES[k] for k in places] for name, places in sixteen.CLASSES.items()}
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


def test_the_sixteen_take_the_mean_of_their_classes():
    logits = torch.full((2, 1000), -30.0)
    logits[0, 404], logits[0, list(sixteen.CLASSES["dog"])] = 1.0, 0.0  # each dog below the airliner, their sum above
    logits[1, 385] = 5.0
    found = sixteen.chances(logits)
    names = list(sixteen.CLASSES)
    assert [names[k] for k in found.argmax(1)] == ["airplane", "elephant"]
    assert found[1, names.index("elephant")] == pytest.approx(0.5, abs=1e-3)
    assert found[0, names.index("dog")] == pytest.approx(1 / (109 + math.e), rel=1e-3)
    with pytest.raises(ValueError, match="got 10 logits"):
        sixteen.chances(torch.zeros(1, 10))
