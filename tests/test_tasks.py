"""Tasks by name: what a key holds of real images, and what source networks and targets get of a data set."""

from typing import NamedTuple

import numpy as np
import pytest
import torch

from rtkit import lesson, presets, store, tasks
from rtkit.data import pictures
from rtkit.data.glyphs import World
from rtkit.data.pictures import Pictures
from rtkit.data.targets import NAMES
from rtkit.sources import Source

CLASSES, EACH = 5, 12
WORLD = Pictures("learned", 16, pool=20, validation=10, test=10)


def marked(n: int, classes: int = CLASSES) -> dict:
    """A data set whose image k is of grey level k, and of class k modulo the number of classes."""
    out = {"classes": np.array([f"class {k}" for k in range(classes)])}
    for part, count in (("train", n), ("test", n // 2)):
        out[f"x_{part}"] = np.broadcast_to(
            np.arange(count, dtype=np.uint8)[:, None, None, None], (count, 16, 16, 3)
        ).copy()
        out[f"y_{part}"] = np.arange(count) % classes
    return out


@pytest.fixture
def root(tmp_path, monkeypatch):
    """A folder with two data sets: one that sources learn, one to carry them to."""
    monkeypatch.setattr(store, "RUNS", tmp_path / "runs")
    monkeypatch.setenv("RTKIT_DATA", str(tmp_path / "data"))
    (tmp_path / "data").mkdir()
    np.savez(tmp_path / "data" / "learned.npz", **marked(CLASSES * EACH))
    np.savez(tmp_path / "data" / "carried.npz", **marked(60, 2))
    return tmp_path / "data"


def which(images) -> list[int]:
    """The numbers of the images, in their order."""
    return images.x[:, 0, 0, 0].tolist()


def test_a_source_learns_even_nested_subsets(root):
    whole = pictures.source(WORLD, CLASSES * EACH, 0)
    assert sorted(which(whole)) == list(range(CLASSES * EACH))
    assert whole.classes == tuple(f"class {k}" for k in range(CLASSES))
    for n in (1, 5, 13, 40):
        some = pictures.source(WORLD, n, 0)
        assert which(some) == which(whole)[:n]
        assert [k % CLASSES for k in which(some)] == some.y.tolist()
        counts = torch.bincount(some.y, minlength=CLASSES)
        assert counts.max() - counts.min() <= 1


def test_held_out_images_are_others_where_there_is_room(root):
    for n, held in ((40, 20), (10, 50), (59, 1)):
        train, other = pictures.source(WORLD, n, 3), pictures.source(WORLD, held, 3, "held_out")
        assert not set(which(train)) & set(which(other))
        counts = torch.bincount(other.y, minlength=CLASSES)
        assert counts.max() - counts.min() <= 1
    test = pictures.source(WORLD, 10, 3, "test")
    assert len(test) == 10
    assert max(which(test)) < CLASSES * EACH // 2


def test_each_seed_draws_its_own_source_images(root):
    drawn = [which(pictures.source(WORLD, 20, seed)) for seed in range(4)]
    assert len({tuple(sorted(one)) for one in drawn}) == 4
    assert drawn[2] == which(pictures.source(WORLD, 20, 2))


@pytest.mark.parametrize(("split", "n"), [("train", 61), ("held_out", 61), ("test", 31)])
def test_more_images_than_there_are_is_refused(root, split, n):
    part = "test" if split == "test" else "train"
    with pytest.raises(ValueError, match=rf"learned\.npz has {n - 1} {part} images, {n} were asked for; ask for fewer"):
        pictures.source(WORLD, n, 0, split)


def test_a_source_network_takes_its_images_and_classes_from_its_world(root):
    source = Source("standard", 0.0, 1, WORLD, "small-8", 20, 2, 0.1)
    assert which(source.images()) == which(pictures.source(WORLD, 20, 1))
    assert which(source.images("held_out", 4)) == which(pictures.source(WORLD, 4, 1, "held_out"))
    assert source.create().head.out_features == tasks.classes(WORLD) == CLASSES
    assert tasks.classes(World()) == 20


def test_keys_of_the_glyph_world_hold_nothing_of_real_images(root):
    assert tasks.fingerprints(World()) == {}
    for name in NAMES:
        assert tasks.fingerprints(World(), name) == {}


def test_keys_change_with_the_images_they_depend_on(root):
    def keys() -> list[dict]:
        return [
            tasks.fingerprints(WORLD),
            tasks.fingerprints(WORLD, "carried"),
            tasks.fingerprints(World(), "carried"),
            tasks.fingerprints(Pictures("", 16), "carried"),
        ]

    before = keys()
    assert [set(one["images"]) for one in before] == [{"learned"}, {"learned", "carried"}, {"carried"}, {"carried"}]
    assert keys() == before
    assert tasks.fingerprints(Pictures("", 16)) == {}  # networks that come trained depend on no images here
    changed = marked(60, 2)
    changed["x_test"][-1, -1, -1, -1] += 1
    np.savez(root / "carried.npz", **changed)
    after = keys()
    assert after[0] == before[0]
    assert all(one != other for one, other in zip(after[1:], before[1:], strict=True))
    changed = marked(CLASSES * EACH)
    changed["y_train"] = changed["y_train"][::-1].copy()
    np.savez(root / "learned.npz", **changed)
    assert [one != other for one, other in zip(keys(), after, strict=True)] == [True, True, False, False]


def test_the_size_of_the_images_is_in_the_key(root):
    assert tasks.fingerprints(WORLD, "carried") != tasks.fingerprints(Pictures("learned", 8), "carried")


def test_targets_of_either_world(root):
    real = tasks.target("carried", WORLD, 0)
    assert [len(part) for part in (real.pool, real.validation, real.test)] == [20, 10, 10]
    assert real.pool.x.shape[2:] == (16, 16)
    assert not set(which(real.pool)) & set(which(real.validation))
    beside = tasks.target("carried", World(), 0)  # in the glyph world, of its size
    assert beside.pool.x.shape[2:] == (32, 32)
    assert len(tasks.target("digits", World(), 0).classes) == 10
    with pytest.raises(ValueError, match="'digits' is a target of the glyph world"):
        tasks.target("digits", WORLD, 0)


class Anyway(NamedTuple):
    """A cell that a study has without any data set of a reader's."""

    target: str


STUDY = [Anyway("source"), Anyway("digits"), Anyway("carried"), Anyway("digits:plain")]


@pytest.mark.parametrize(
    ("asked", "names"),
    [
        ((), ()),
        ([], ()),
        (None, ()),
        ("learned", ("learned",)),
        (["learned"], ("learned",)),
        (("learned", "learned"), ("learned",)),
        (np.array(["learned", "digits"]), ("learned",)),
        (["digits", "carried", "digits"], ()),  # the study's own: nothing changes
    ],
)
def test_a_readers_own_targets_are_names_that_the_study_has_not(root, asked, names):
    found = tasks.own(asked, iter(STUDY))
    assert found == names
    assert all(type(name) is str for name in found)


@pytest.mark.parametrize(
    ("asked", "words"),
    [
        (0, r"targets must be names of data sets such as \[\"mydata\"\], got 0"),
        (-1, "got -1"),
        ([1], r"got \[1\]"),
        (np.arange(2), r"got array\(\[0, 1\]\)"),
        (["learned", None], "got "),
        ("", "no data set is called ''"),
        (["absent"], "no data set is called 'absent'"),
        (["source"], "'source' is the kit's word for what a source network learned"),
        (["greek"], "'greek' is a target of the glyph world"),  # a study's that is not this one
        (["cue_conflict"], "no data set is called 'cue_conflict'"),
    ],
)
def test_what_is_no_readers_own_target_is_refused(root, asked, words):
    with pytest.raises(ValueError, match=words):
        tasks.own(asked, STUDY)


def test_a_study_that_lacks_its_data_leaves_that_to_its_cells(root):
    def cells():
        yield Anyway("digits")
        raise ValueError("a data set is missing")

    assert tasks.own(["carried"], cells()) == ("carried",)


@pytest.mark.parametrize("name", [*NAMES, "source"])
def test_no_door_takes_a_data_set_for_a_thing_of_the_kits(root, name):
    np.savez(root / f"{name}.npz", **marked(60, 3))
    doors = [lambda world: tasks.target(name, world, 0), lambda world: tasks.sizes((20,), name, world, 0)]
    doors += [lambda _: tasks.own([name], [Anyway(name)])]
    if name != "source":  # which is what a cell of the source network itself says
        doors += [lambda world: tasks.fingerprints(world, name)]
    for world in (World(), WORLD):
        for door in doors:
            with pytest.raises(ValueError, match=rf"{name}: '{name}' is .*; give the data set another name"):
                door(world)


@pytest.mark.parametrize("number", ["01", "03", "04", "05"])
def test_the_grids_refuse_a_data_set_called_like_a_thing_of_the_kits(root, number):
    cells = lesson.execute(lesson.path(number), {}, lesson.GRID)["cells"]
    for name in ("digits", "source"):
        np.savez(root / f"{name}.npz", **marked(60, 3))
        with pytest.raises(ValueError, match="give the data set another name"):
            list(cells(presets.get("smoke"), 0, [name]))
        (root / f"{name}.npz").unlink()


def test_sizes_that_fit(root):
    classes = len(tasks.target("carried", WORLD, 0).classes)
    found = tasks.sizes((classes - 1, classes, 20, 21, 900), "carried", WORLD, 0)
    assert found == (classes, 20)
    assert tasks.sizes((2 * classes - 1, 20), "carried", WORLD, 0, parts=2) == (20,)
    assert tasks.sizes((100, 400), "carried", WORLD, 0) == (20,)
    assert tasks.sizes((100, 400, 10**6), "digits", World(), 0) == (100, 400, 10**6)


def test_presets_of_real_images_say_what_they_need():
    worlds = {name: preset.world for name, preset in presets.PRESETS.items()}
    assert {name for name, world in worlds.items() if isinstance(world, Pictures)} == {
        "photos",
        "tiny-imagenet",
        "cifar",
        "imagenet",
    }
    assert worlds["cifar"].name == "cifar100"
    assert (worlds["imagenet"].name, worlds["imagenet"].size) == ("", 224)
