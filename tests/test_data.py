"""Real images by name: what is read, what a replicate draws, what is refused and how, and what a download leaves."""

import io
import os
import re
import struct
import sys
import zlib
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
import torch
import torchvision
from PIL import Image

from rtkit import cli, store, tasks
from rtkit.data import downloads, folders, glyphs, named, npz, pictures
from rtkit.data.glyphs import Images, World


class Split(NamedTuple):
    """A data set: images to train on and images to test on, with the same classes."""

    train: Images
    test: Images
    classes: tuple[str, ...]


def load(name: str, size: int = 32) -> Split:
    """All images of a data set, read by the door that targets and sources use."""
    found = named.arrays(name, size)
    train, test = (named.images(found, part, size) for part in ("train", "test"))
    return Split(train, test, train.classes)


SHADES = {"dark": 40, "light": 200}


def arrays(n: int = 12, size: int = 8, channels: int = 3, classes: tuple[str, ...] = ("a", "b")) -> dict:
    rng = np.random.default_rng(0)
    out = {"classes": np.array(classes)}
    for part in ("train", "test"):
        out[f"x_{part}"] = rng.integers(256, size=(n, size, size, channels), dtype=np.uint8)
        out[f"y_{part}"] = np.arange(n) % len(classes)
    return out


def save(path: Path, size: tuple[int, int], shade: int, mode: str = "L") -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("L", size, shade).convert(mode).save(path)


@pytest.fixture
def mixed(root):
    """A folder without a split: two classes of ten even shades, of many sizes, modes and formats."""
    for name, shade in SHADES.items():
        for k in range(10):
            suffix, mode = [("png", "RGB"), ("png", "L"), ("jpg", "RGB"), ("bmp", "L")][k % 4]
            save(root / "mine" / name / f"{k}.{suffix}", (20 + 7 * k, 90 - 6 * k), shade + k, mode)
    (root / "mine" / "notes.txt").write_text("not an image")
    (root / "mine" / ".ipynb_checkpoints").mkdir()
    (root / "mine" / "dark" / ".hidden.png").write_bytes(b"")
    return root / "mine"


def decoded(root: Path) -> list[Path]:
    return sorted((root.parent / "runs" / "data").glob("*.npz"))


def test_an_npz_of_the_size_is_taken_pixel_by_pixel(root):
    made = arrays(size=32, classes=("b", "a"))
    np.savez(root / "x.npz", **made)
    split = load("x")
    assert split.classes == ("b", "a")
    for part in ("train", "test"):
        images = getattr(split, part)
        assert torch.equal(images.x.permute(0, 2, 3, 1), torch.from_numpy(made[f"x_{part}"]))
        assert images.y.dtype == torch.int64
        assert images.y.tolist() == [0, 1] * 6


def test_a_grey_wide_npz_is_cut_square_enlarged_and_made_three_channels(root):
    made = arrays(size=8, channels=1)
    made["x_train"] = np.zeros((12, 8, 20, 1), np.uint8)
    made["x_train"][:, :, 6:14] = 100  # the centre square
    made["y_train"] = made["y_train"].astype(np.uint8)
    np.savez_compressed(root / "grey.npz", **made)
    split = load("grey", size=16)
    assert split.train.x.shape == (12, 3, 16, 16)
    assert (split.train.x == 100).all()
    assert split.test.x.shape == (12, 3, 16, 16)
    assert (split.test.x[:, 0] == split.test.x[:, 1]).all()


def test_a_reduction_is_antialiased(root):
    made = arrays()
    board = (np.indices((64, 64)).sum(0) % 2 * 255).astype(np.uint8)[None, :, :, None].repeat(12, 0)
    np.savez(root / "fine.npz", **(made | {"x_train": board}))
    assert load("fine", size=16).train.x[:, :, 2:-2, 2:-2].float().sub(127.5).abs().max() < 2
    Image.fromarray(board[0, :, :, 0]).save(root / "fine.png")
    assert np.abs(folders.decode(root / "fine.png", 16)[2:-2, 2:-2] - 127.5).max() < 2


def test_a_folder_of_mixed_sizes_is_split_by_its_names(mixed, root):
    split = load("mine")
    assert split.classes == ("dark", "light")
    assert split.train.x.shape == (16, 3, 32, 32)
    assert split.test.x.shape == (4, 3, 32, 32)
    assert split.test.y.tolist() == [0, 0, 1, 1]
    shades = torch.cat([split.train.x, split.test.x]).float().mean((1, 2, 3)).round().tolist()
    assert sorted(shades) == sorted(shade + k for shade in SHADES.values() for k in range(10))
    tests = {file.name for file, _ in folders.scan(mixed)[1]["test"]}
    save(mixed / "third" / "1.png", (9, 9), 3)
    save(mixed / "third" / "2.png", (9, 9), 3)
    assert tests <= {file.name for file, _ in folders.scan(mixed)[1]["test"]}  # another class moves nothing


def test_a_folder_with_a_split_keeps_it(root):
    for part, shade in (("train", 10), ("test", 20)):
        for name in ("a", "b"):
            save(root / "own" / part / name / "1.PNG", (5, 9), shade)
    split = load("own", size=8)
    assert [(images.y.tolist(), images.x.unique().tolist()) for images in (split.train, split.test)] == [
        ([0, 1], [10]),
        ([0, 1], [20]),
    ]


def test_the_npz_comes_before_the_folder(mixed, root):
    np.savez(root / "mine.npz", **arrays(classes=("from", "npz")))
    assert load("mine").classes == ("from", "npz")


@pytest.mark.parametrize("size", [10, 32, 50])
def test_a_file_and_an_array_become_the_same_square(root, size):
    made = arrays(n=2)
    made["x_train"] = np.random.default_rng(1).integers(256, size=(2, 32, 47, 3), dtype=np.uint8)
    np.savez(root / "x.npz", **made)
    Image.fromarray(made["x_train"][0]).save(root / "x.png")
    array = load("x", size=size).train.x[0].permute(1, 2, 0).numpy()
    assert np.abs(folders.decode(root / "x.png", size) - array.astype(float)).max() <= 1


def test_centre_orientation_and_transparency(tmp_path):
    image = Image.new("RGB", (60, 20), "black")
    image.paste("white", (20, 0, 40, 20))
    assert (folders.square(image, 10) == 255).all()
    turned = Image.new("L", (10, 10))
    turned.paste(255, (0, 0, 10, 5))  # bright above
    exif = turned.getexif()
    exif[0x0112] = 3  # to be turned by 180 degrees
    turned.save(tmp_path / "turned.png", exif=exif)
    half = folders.decode(tmp_path / "turned.png", 10)
    assert (half[:5] == 0).all()
    assert (half[5:] == 255).all()
    assert (folders.square(Image.new("RGBA", (4, 4), (0, 0, 0, 0)), 4) == 255).all()


def test_a_folder_is_decoded_once_and_again_when_it_changes(mixed, root, monkeypatch):
    opened = []
    original = folders.decode
    monkeypatch.setattr(folders, "decode", lambda file, size: opened.append(file) or original(file, size))
    first = load("mine")
    named._arrays.cache_clear()
    again = load("mine")
    assert len(opened) == 20
    assert torch.equal(first.train.x, again.train.x)
    assert len(decoded(root)) == 1
    assert not list(decoded(root)[0].parent.glob("*.lock"))
    save(mixed / "dark" / "0.png", (50, 50), 99)
    changed = load("mine")
    assert len(opened) == 40
    assert 99 in torch.cat([changed.train.x, changed.test.x]).unique()
    load("mine", size=16)
    assert len(opened) == 60


@pytest.mark.parametrize(
    "damage", [lambda data: data[: len(data) // 2], lambda data: data[:5000] + b"??" + data[5002:]]
)
def test_a_damaged_cache_is_decoded_again(mixed, root, damage):
    first = load("mine")
    (kept,) = decoded(root)
    sound = kept.read_bytes()
    kept.write_bytes(damage(sound))
    named._arrays.cache_clear()
    with pytest.warns(store.DamagedFile):
        again = load("mine")
    assert torch.equal(first.train.x, again.train.x)
    assert kept.read_bytes() == sound


def test_a_target_is_even_disjoint_and_drawn_by_its_seed(root):
    made = arrays(n=600, classes=tuple("abcde"))
    made["x_train"][:, 0, 0, 0], made["x_train"][:, 0, 0, 1] = np.arange(600) // 256, np.arange(600) % 256
    np.savez(root / "x.npz", **made)
    first, same, other = (pictures.target("x", seed, size=8, pool=100, validation=52, test=48) for seed in (0, 0, 1))

    def which(images):
        return (images.x[:, 0, 0, 0].long() * 256 + images.x[:, 1, 0, 0].long()).tolist()

    assert [len(images) for images in (first.pool, first.validation, first.test)] == [100, 52, 48]
    for images, n in ((first.pool, 100), (first.validation, 52), (first.test, 48)):
        counts = images.y.bincount(minlength=5)
        assert counts.max() - counts.min() <= 1
        assert counts.sum() == n
    assert len(set(which(first.pool) + which(first.validation))) == 152
    assert all(k % 5 == label for k, label in zip(which(first.pool), first.pool.y.tolist(), strict=True))
    assert torch.equal(first.pool.x, same.pool.x)
    assert torch.equal(first.test.x, same.test.x)
    assert which(first.pool) != which(other.pool)
    assert not torch.equal(first.test.x, other.test.x)
    assert first.pool.y[:20].unique().numel() > 2  # mixed, not class by class
    assert len(first.subset(20, 0)) == 20


def test_a_small_set_shrinks_the_target(mixed):
    small = pictures.target("mine", 0)
    assert [len(images) for images in (small.pool, small.validation, small.test)] == [12, 4, 4]
    assert small.pool.y.bincount().tolist() == [6, 6]


def test_a_rare_class_gives_what_it_has(root):
    made = arrays(n=400)
    made["y_train"] = (np.arange(400) < 8).astype(int)
    np.savez(root / "rare.npz", **made)
    target = pictures.target("rare", 3, pool=60, validation=20, test=10)
    assert target.pool.y.bincount().tolist() == [54, 6]
    assert target.validation.y.bincount().tolist() == [18, 2]


def test_too_few_images_of_a_class(root):
    for name, n in (("many", 12), ("few", 5)):
        for k in range(n):
            save(root / "scarce" / name / f"{k}.png", (9, 9), 9)
    with pytest.raises(ValueError, match=r"scarce: class 'few' would get 1 test images, it needs two; .* add some"):
        pictures.target("scarce", 0)


@pytest.mark.parametrize(("classes", "each"), [(10, 4), (200, 4), (500, 9)])
def test_many_classes_get_two_images_each_of_every_part(root, classes, each):
    made = arrays(n=classes * each, classes=tuple(f"c{k}" for k in range(classes)))
    np.savez(root / "wide.npz", **made)
    target = pictures.target("wide", 0, validation=15)
    for images in (target.pool, target.validation, target.test):
        assert images.y.bincount(minlength=classes).min() >= 2
    assert len(target.validation) == 2 * classes
    assert tasks.sizes((20, 40), "wide", World(), 0) == (len(target.pool),)


@pytest.mark.parametrize("n", [0, -1, 2.0, 10.5, float("nan"), True, "8", None, torch.tensor(8)])
def test_numbers_of_images_are_whole_and_positive(root, n):
    np.savez(root / "x.npz", **arrays(n=60))
    task, world = pictures.target("x", 0), pictures.Pictures("x", 8)
    for ask in (
        lambda: task.subset(n, 0),
        lambda: pictures.target("x", 0, pool=n),
        lambda: pictures.target("x", 0, validation=n),
        lambda: pictures.target("x", 0, test=n),
        lambda: tasks.sizes((8, n), "x", World(), 0),
        lambda: tasks.sizes((8, n), "digits", World(), 0),
        lambda: tasks.source(world, n, 0),
        lambda: tasks.source(world, n, 0, "held_out"),
        lambda: tasks.source(World(), n, 0),
        lambda: glyphs.cue_conflict(World(), n, 0),
    ):
        with pytest.raises(ValueError, match=rf"must be a whole number in .* got {re.escape(repr(n))}"):
            ask()
    assert len(task.subset(np.int64(8), 0)) == 8


def _without(key):
    return lambda made: made.pop(key)


def _with(**changed):
    return lambda made: made.update(changed)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (_without("y_test"), "lacks the arrays y_test"),
        (_with(x_train=np.zeros((12, 8, 8, 3), np.float32)), r"x_train must be uint8 .* got float32 \(12, 8, 8, 3\)"),
        (_with(x_test=np.zeros((12, 8, 8), np.uint8)), r"x_test must be uint8 of shape .* got uint8 \(12, 8, 8\)"),
        (_with(x_test=np.zeros((12, 3, 8, 8), np.uint8)), "x_test must be .*channels last"),
        (_with(x_test=np.zeros((12, 0, 8, 3), np.uint8)), "x_test must be"),
        (_with(y_train=np.zeros(11, int)), r"y_train must be one whole number for each of 12 images"),
        (_with(y_train=np.linspace(0, 1, 12)), "y_train must be one whole number"),
        (_with(y_test=np.arange(12)), r"y_test\[2\] is 2, but labels must lie between 0 and 1 .* 10 labels"),
        (_with(y_test=np.full(12, -1)), r"y_test\[0\] is -1"),
        (_with(y_train=np.ones(12, int)), "of one class"),
        (_with(x_train=np.zeros((0, 8, 8, 3), np.uint8), y_train=np.zeros(0, int)), "no train images"),
        (_with(classes=np.array(["a", "a"])), "same name"),
        (_with(classes=np.arange(2)), "classes must be a list of names, got int64"),
        (_with(classes=np.array(["a", "b"], object)), "arrays of objects"),
    ],
)
def test_an_unusable_npz_is_refused_by_name(root, change, message):
    made = arrays()
    change(made)
    np.savez(root / "bad.npz", **made)
    with pytest.raises(ValueError, match=message) as caught:
        load("bad")
    assert str(root / "bad.npz") in str(caught.value)
    assert not decoded(root)


@pytest.mark.parametrize("share", [0, 0.01, 0.5, 0.99])
@pytest.mark.parametrize("write", [np.savez, np.savez_compressed])
def test_a_download_cut_short_is_refused_by_name(root, write, share, capsys):
    write(root / "cut.npz", **arrays())
    data = (root / "cut.npz").read_bytes()
    (root / "cut.npz").write_bytes(data[: int(share * len(data))])
    with pytest.raises(ValueError, match=r"cut\.npz cannot be read .*fetch or write it again"):
        load("cut")
    assert cli.main(["data", "list"]) == 0
    assert "cut              unusable" in capsys.readouterr().out


def test_other_files_under_the_name_of_an_npz(root):
    (root / "text.npz").write_text("hello")
    np.save(root / "one.npy", np.zeros(3))
    (root / "one.npy").rename(root / "one.npz")
    for name in ("text", "one"):
        with pytest.raises(ValueError, match=rf"{name}\.npz cannot be read"):
            load(name)
    flipped = bytearray(npz.to_bytes(arrays()))
    flipped[len(flipped) // 3] ^= 255
    (root / "flipped.npz").write_bytes(flipped)
    with pytest.raises(ValueError, match=r"flipped\.npz cannot be read \(Bad CRC"):
        load("flipped")


def test_a_missing_set_says_what_is_there_and_how_to_get_it(root):
    with pytest.raises(ValueError, match=r"no data set is called 'x': put x\.npz or a folder x/ .* there is none yet"):
        load("x")
    np.savez(root / "there.npz", **arrays())
    for name in named.RESERVED:
        (root / name).mkdir()
    for name, message in {
        "cifar10": "'cifar10': `rtkit data get cifar10` downloads it, or put .* there are: there$",
        "../data/there": "there are: there$",
        "torchvision": "there are: there$",
        "": "there are: there$",
    }.items():
        with pytest.raises(ValueError, match=message):
            load(name)


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda mine: (mine / "dark" / "7.bmp").write_bytes(b"BM nothing"), r"dark/7\.bmp cannot be used .*remove it"),
        (lambda mine: (mine / "dark" / "1.png").write_bytes(b""), r"dark/1\.png cannot be used"),
        (
            lambda mine: os.truncate(mine / "light" / "2.jpg", (mine / "light" / "2.jpg").stat().st_size - 40),
            r"light/2\.jpg cannot be used \(.*truncated",
        ),
        (
            lambda mine: Image.fromarray(np.full((9, 9), 40000, np.uint16)).save(mine / "dark" / "0.png"),
            r"dark/0\.png cannot be used \(pixels of mode 'I;16', of more than 8 bits; save it with 8 bits",
        ),
        (lambda mine: (mine / "empty").mkdir(), "empty holds no images"),
        (lambda mine: save(mine / "lone" / "1.png", (5, 5), 0), "lone holds one image"),
        (lambda mine: (mine / "light").rename(mine.parent / "elsewhere"), r"mine needs .* it has \['dark'\]"),
        (lambda mine: [(mine / name).rename(mine.parent / name) for name in SHADES], "mine needs .* it has none"),
        (lambda mine: (mine / "dark" / "gone.png").symlink_to("nowhere"), r"gone\.png cannot be used \(No such file"),
        (lambda mine: (mine / "dark" / "inner").mkdir(), r"dark/inner is a folder in a class folder"),
        (lambda mine: (mine / "__MACOSX").mkdir(), r"__MACOSX holds no images"),
    ],
)
def test_an_unusable_folder_is_refused_by_name(mixed, root, spoil, message):
    spoil(mixed)
    with pytest.raises(ValueError, match=message) as caught:
        load("mine")
    assert str(mixed) in str(caught.value)
    assert not decoded(root)


class Fake:
    """Stands in for a torchvision class: 40 x 50 pictures, written to its folder when it downloads."""

    def __init__(self, root, split="train", download=False):
        self.classes = [f"class {k}" for k in range(10)]
        self.file = Path(root) / "pictures" / f"{split}.png"
        if not self.file.exists():
            assert download
            save(self.file, (40, 50), {"train": 30, "test": 60}[split], "RGB")

    def __len__(self):
        return 20

    def __getitem__(self, k):
        with Image.open(self.file) as image:
            return image.copy(), k % 10


class CutShort(Fake):
    """Fails in the second of two downloads."""

    def __init__(self, root, split="train", download=False):
        super().__init__(root, split, download)
        if split == "test":
            raise RuntimeError("File not found or corrupted.")


class FewerClasses(Fake):
    """Is not what the table says."""

    def __init__(self, *args, **named):
        super().__init__(*args, **named)
        self.classes = self.classes[:9]


def test_get_writes_an_npz_that_can_be_loaded(root, monkeypatch, capsys):
    monkeypatch.setattr(torchvision.datasets, "STL10", Fake)
    assert cli.main(["data", "get", "stl10"]) == 0
    assert f"written: {root / 'stl10.npz'}" in capsys.readouterr().out
    split = load("stl10")
    assert (split.train.x == 30).all()
    assert (split.test.x == 60).all()
    assert split.test.x.shape == (20, 3, 32, 32)
    assert np.load(root / "stl10.npz")["x_train"].shape == (20, 32, 32, 1)  # grey all over
    assert [path.name for path in (root / "torchvision").iterdir()] == ["stl10"]
    before = (root / "stl10.npz").stat().st_mtime_ns
    assert cli.main(["data", "get", "stl10"]) == 0
    assert "present" in capsys.readouterr().out
    assert (root / "stl10.npz").stat().st_mtime_ns == before
    (root / "stl10.npz").unlink()  # what was downloaded serves again
    assert (named.folder() / "torchvision" / "stl10" / "pictures" / "train.png").exists()
    assert downloads.get("stl10") == root / "stl10.npz"


@pytest.mark.parametrize(("fake", "kept"), [(CutShort, []), (FewerClasses, ["stl10"])])
def test_a_failed_download_leaves_nothing_half_written(root, monkeypatch, capsys, fake, kept):
    monkeypatch.setattr(torchvision.datasets, "STL10", fake)
    assert cli.main(["data", "get", "stl10"]) == 1
    message = capsys.readouterr().err
    assert f"{root / 'stl10.npz'} was not written" in message
    assert "Traceback" not in message
    assert not (root / "stl10.npz").exists()
    assert [path.name for path in (root / "torchvision").iterdir()] == kept


def test_a_set_without_a_split_gets_one_that_is_even(root, monkeypatch):
    class Whole(Fake):
        def __init__(self, root, download=False):
            super().__init__(root, "train", download)
            self.categories, self.classes = [f"class {k}" for k in range(101)], None

        def __len__(self):
            return 1010

        def __getitem__(self, k):
            return super().__getitem__(k)[0], k % 101

    monkeypatch.setattr(torchvision.datasets, "Caltech101", Whole)
    downloads.get("caltech101")
    split = load("caltech101")
    assert split.train.y.bincount().tolist() == [8] * 101
    assert split.test.y.bincount().tolist() == [2] * 101


def test_the_table_names_classes_that_torchvision_has():
    for name, (kind, classes) in named.TORCHVISION.items():
        assert issubclass(getattr(torchvision.datasets, kind), torch.utils.data.Dataset), name
        known = getattr(getattr(torchvision.datasets, kind), "classes", None)
        assert known is None or len(known) == classes


def test_the_command_lists_and_refuses(mixed, root, capsys):
    np.savez(root / "x.npz", **arrays(size=9))
    np.savez(root / "y.npz", x_train=np.zeros(3))
    np.savez(root / "z.npz", **(arrays() | {"x_train": np.zeros(3)}))
    assert cli.main(["data", "list"]) == 0
    out = capsys.readouterr().out
    assert "mine             present   16 train and 4 test images, 2 classes, as the files are" in out
    assert "x                present   12 train and 12 test images, 2 classes, 9 x 9 pixels" in out
    assert "cifar10          absent    10 classes; get it with: rtkit data get cifar10" in out
    assert "y.npz cannot be read (it lacks y_train, x_test, y_test, classes)" in out
    assert "z.npz cannot be read (x_train is not (N, H, W, C))" in out
    assert str(root) in out
    with pytest.raises(SystemExit) as stopped:
        cli.main(["data", "get", "cifar11"])
    assert stopped.value.code == 2
    assert "no data set is called 'cifar11'; did you mean cifar10" in capsys.readouterr().err
    assert cli.main(["data", "get", "mine"]) == 0
    assert f"present: {mixed}" in capsys.readouterr().out


def test_a_target_trains_a_network(mixed):
    """What is drawn fits the training loop: two shades are told apart."""
    from rtkit import models, training

    target = pictures.target("mine", 0)
    net = models.create(2, "small-8", seed=0)
    training.train(net, target.pool, (training.Phase(steps=20, lr=0.05, batch_size=8),), seed=0)
    with torch.no_grad():
        guess = net.eval()(target.test.x.float() / 255).argmax(1)
    assert guess.tolist() == target.test.y.tolist()
    assert target.classes == ("dark", "light")


CLASSES = ("cat/1", "cat/2", "dog/1", "dog/2")
LAYOUTS = {  # images of a data set (without ".png"), and what the refusal says
    "split in capitals": ([f"{p}/{f}" for p in ("Train", "Test") for f in CLASSES], "'Test', 'Train' tell parts"),
    "sets": ([f"{p}/{f}" for p in ("training_set", "test_set") for f in CLASSES], "'test_set', 'training_set' tell"),
    "words": ([f"{p}/{f}" for p in ("training", "validation") for f in CLASSES], "merge a validation part into train/"),
    "numbered": (["train2017/1", "train2017/2", "val2017/1", "val2017/2"], "'train2017', 'val2017' tell parts"),
    "two domains": ([f"{p}{s}/{k}" for p in ("train", "test") for s in "AB" for k in (1, 2)], "'testA', 'testB'"),
    "one of them": (["DEV-data/1", "DEV-data/2", "cat/1", "cat/2"], "'DEV-data' tell"),
    "folds": (["fold_1/1", "fold_1/2", "fold_2/1", "fold_2/2"], "'fold_1', 'fold_2' tell"),
    "flat split": (["train/1", "train/2", "test/1", "test/2"], r"mine needs a folder for each of two classes .* none"),
    "half a split": ([f"train/{f}" for f in CLASSES], "'train' tell parts"),
    "three parts": ([f"{p}/{f}" for p in ("train", "valid", "test") for f in CLASSES], "'test', 'train', 'valid' tell"),
    "a split and classes": ([*(f"{p}/{f}" for p in ("train", "test") for f in CLASSES), *CLASSES], "no other folder"),
    "split in the classes": (
        [f"{c}/{p}/{k}" for c in ("cat", "dog") for p in ("train", "test") for k in "12"],
        "cat/te",
    ),
    "split in a split": ([f"{p}/{q}/1" for p in ("train", "test") for q in ("train", "test")], "'test', 'train' tell"),
    "a wrapping folder": ([f"animals/{f}" for f in CLASSES], "animals/cat is a folder in a class folder"),
    "deeper classes": ([*(f"animals/{f}" for f in CLASSES), "car/1", "car/2"], "animals/cat is a folder in a class"),
    "masks beside": (["images/1", "images/2", "masks/1", "masks/2"], "'images', 'masks' tell parts"),
    "annotations": (["JPEGImages/1", "JPEGImages/2", "Annotations/1", "Annotations/2"], "'Annotations', 'JPEGImages'"),
    "masks in the classes": ([f"{c}/{p}/1" for c in ("cat", "dog") for p in ("img", "gt")], "cat/gt is a folder"),
    "masks of a split": (
        [f"{p}/{q}/1" for p in ("train", "test") for q in ("images", "ground_truth")],
        "'ground_truth'",
    ),
    "other classes": ([*(f"train/{f}" for f in CLASSES), "test/cat/1", "test/cow/1"], "only one of them has 'cow'"),
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_layout_that_is_not_documented_is_refused(root, layout):
    files, words = LAYOUTS[layout]
    for file in files:
        save(root / "mine" / f"{file}.png", (3, 3), 9)
    (root / "mine" / "labels.csv").write_text("file,label")
    with pytest.raises(ValueError, match=words) as caught:
        load("mine")
    assert str(root / "mine") in str(caught.value)


def test_class_names_that_only_look_like_parts(root):
    for name in ("trains", "no_mask", "validator", "contest", "1"):
        for k in range(2):
            save(root / "mine" / name / f"{k}.png", (3, 3), 9)
    assert load("mine").classes == ("1", "contest", "no_mask", "trains", "validator")


def test_files_that_are_left_out_are_told(mixed, root, capsys):
    for name in ("a.heic", "b.HEIC", "c.jfif", "without"):
        (mixed / "dark" / name).write_bytes(b"?")
    save(mixed / "preview.png", (3, 3), 9)
    for clutter in ("Thumbs.db", ".DS_Store", "desktop.ini"):
        (mixed / "dark" / clutter).write_bytes(b"?")
    words = r"5 files left out \(2 \.heic, 1 beside the class folders, 1 \.jfif, 1 without a suffix\)"
    with pytest.warns(UserWarning, match=rf"{mixed}: {words}; images must .*README\.md") as told:
        load("mine")
    assert len(told) == 1
    load("mine")  # said once
    assert cli.main(["data", "list"]) == 0
    assert re.search(rf"mine +present .*as the files are, {words}", capsys.readouterr().out)


def png16(colour: int, channels: int) -> bytes:
    """A PNG of 4 x 4 pixels of 16 bits: of grey, RGB, grey with alpha or RGBA."""
    rows = b"".join(b"\0" + np.full(4 * channels, 40000, ">u2").tobytes() for _ in range(4))

    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    head = struct.pack(">IIBBBBB", 4, 4, 16, colour, 0, 0, 0)
    body = chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + body


def tiff16() -> bytes:
    """A TIFF of 2 x 2 RGB pixels of 16 bits."""
    tags = [(256, 2), (257, 2), (258, 122), (259, 1), (262, 2), (273, 128), (277, 3), (278, 2), (279, 24)]
    entries = b"".join(struct.pack("<HHII", tag, 3, 3 if tag == 258 else 1, value) for tag, value in tags)
    return b"II*\0" + struct.pack("<IH", 8, len(tags)) + entries + bytes(4) + struct.pack("<3H", 16, 16, 16) + bytes(24)


DEEP = {f"{colour}.png": png16(colour, channels) for colour, channels in ((0, 1), (2, 3), (4, 2), (6, 4))}
DEEP |= {"rgb.tif": tiff16(), "rgb.ppm": b"P6 2 2 65535\n" + bytes(24), "grey.pgm": b"P5 2 2 1023\n" + bytes(8)}
DEEP |= {"text.ppm": b"P3 1 1 4095\n1 2 3\n"}


@pytest.mark.parametrize("name", DEEP)
def test_more_than_8_bits_a_channel_are_refused(tmp_path, name):
    (tmp_path / name).write_bytes(DEEP[name])
    with pytest.raises(ValueError, match=rf"{name} cannot be used \(pixels of .*of more than 8 bits; save it with 8"):
        folders.decode(tmp_path / name, 8)


def test_fewer_than_8_bits_are_taken(tmp_path):
    (tmp_path / "a.pgm").write_bytes(b"P5 2 2 3\n\x03\x03\x03\x03")
    (tmp_path / "a.ppm").write_bytes(b"P3 1 1 255\n255 255 255\n")
    bits = struct.pack("<2sIHHIIiiHHIIiiII", b"BM", 58, 0, 0, 54, 40, 1, 1, 1, 16, 0, 4, 0, 0, 0, 0)
    (tmp_path / "a.bmp").write_bytes(bits + b"\xff\x7f\0\0")  # 16 bits a pixel, 5 a channel
    for name in ("a.pgm", "a.ppm", "a.bmp"):
        assert (folders.decode(tmp_path / name, 4) == 255).all()


def bitmaps(where: Path) -> Path:
    """Two classes of ten bmp files: all of one size and one time."""
    for c, name in enumerate(("cat", "dog")):
        for k in range(10):
            save(where / name / f"{k}.bmp", (20, 20), 100 * c + k)
            os.utime(where / name / f"{k}.bmp", (1.6e9, 1.6e9))
    return where


def swapped(mine: Path) -> None:
    cat, dog, spare = mine / "cat" / "0.bmp", mine / "dog" / "0.bmp", mine.parent / "spare"
    cat.rename(spare), dog.rename(cat), spare.rename(dog)


def edited(mine: Path) -> None:
    with (mine / "cat" / "0.bmp").open("r+b") as file:
        file.seek(-400, os.SEEK_END)
        file.write(bytes([77]) * 100)
    os.utime(mine / "cat" / "0.bmp", (1.6e9, 1.6e9))


def replaced(mine: Path) -> None:
    save(mine.parent / "new.bmp", (20, 20), 77)
    os.utime(mine.parent / "new.bmp", (1.6e9, 1.6e9))
    (mine.parent / "new.bmp").rename(mine / "cat" / "0.bmp")


def classes_swapped(mine: Path) -> None:
    (mine / "cat").rename(mine.parent / "spare"), (mine / "dog").rename(mine / "cat")
    (mine.parent / "spare").rename(mine / "dog")


def linked(mine: Path) -> None:
    mine.rename(mine.parent / "before")
    other = bitmaps(mine.parent / "other")
    swapped(other)
    mine.symlink_to(other)


@pytest.mark.parametrize("change", [swapped, edited, replaced, classes_swapped, linked])
def test_a_change_that_keeps_names_sizes_and_times_is_seen(root, change):
    mine = bitmaps(root / "mine")
    before, known = load("mine"), named.fingerprint("mine")
    change(mine)
    after, now = load("mine"), named.fingerprint("mine")
    assert known != now
    assert sorted(before.train.x.mean((1, 2, 3), dtype=float)) != after.train.x.mean((1, 2, 3), dtype=float).tolist()


def test_another_folder_of_data_is_another_set_and_equal_content_is_equal(root, monkeypatch):
    bitmaps(root / "mine")
    before, known = load("mine"), named.fingerprint("mine")
    other = bitmaps(root.parent / "elsewhere" / "mine")
    monkeypatch.setenv("RTKIT_DATA", str(other.parent))
    assert named.fingerprint("mine") == known
    swapped(other)
    assert named.fingerprint("mine") != known
    assert not torch.equal(load("mine").train.x, before.train.x)


@pytest.mark.skipif(sys.platform == "darwin", reason="all names are UTF-8 there")
def test_names_that_are_not_utf8_are_refused_in_words(root, monkeypatch):
    odd = os.fsdecode(b"caf\xe9")
    save(root / "mine" / odd / "1.png", (3, 3), 9)
    save(root / "ours" / "cat" / f"{odd}.png", (3, 3), 9)
    save(root / odd / "cat" / "1.png", (3, 3), 9)
    np.savez(root / "sound.npz", **arrays())
    for name, words in (
        ("mine", r"mine/caf\\udce9' is not UTF-8; rename it"),
        ("ours", r"ours/cat/caf\\udce9.png' is not UTF-8"),
        ("caf\\udce9", "is not UTF-8; rename the data set"),
        (odd, "is not UTF-8; rename the data set"),
        ("x", r"there are: caf\\udce9, mine, ours, sound$"),
    ):
        with pytest.raises(ValueError, match=words) as caught:
            load(name)
        str(caught.value).encode()
    strict = io.TextIOWrapper(io.BytesIO(), "utf-8")
    monkeypatch.setattr(sys, "stdout", strict)
    assert cli.main(["data", "list"]) == 0
    strict.seek(0)
    assert len(re.findall("unusable .*is not UTF-8; rename", strict.read())) == 3


def test_a_name_of_the_kits_own_is_no_data_set(root, capsys):
    for name in named.TAKEN:
        np.savez(root / f"{name}.npz", **arrays())
        with pytest.raises(ValueError, match=rf"{name}.*give the data set another name"):
            load(name)
    assert cli.main(["data", "list"]) == 0
    out = capsys.readouterr().out
    assert len(re.findall("unusable .*give the data set another name", out)) == len(named.TAKEN)


STAGED = os.environ.get("RTKIT_TEST_DATA")


@pytest.mark.skipif(not STAGED, reason="needs real data sets: set RTKIT_TEST_DATA to a folder that holds some")
def test_real_sets_make_targets(monkeypatch, tmp_path):
    monkeypatch.setattr(store, "RUNS", tmp_path)
    monkeypatch.setenv("RTKIT_DATA", STAGED)
    for name in named.names():
        split = load(name)
        target = pictures.target(name, 0)
        classes = len(split.classes)
        assert split.train.x.shape[1:] == (3, 32, 32)
        assert split.train.y.unique().numel() == classes == named.TORCHVISION.get(name, (None, classes))[1]
        assert split.train.x.float().std() > 20  # pictures, neither empty nor overflown
        assert target.pool.y.bincount(minlength=classes).min() >= 2
        assert len(target.pool) + len(target.validation) <= 1200
        assert not torch.equal(target.pool.x, pictures.target(name, 1).pool.x)
