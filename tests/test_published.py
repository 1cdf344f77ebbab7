"""Published networks in the place of source networks: from a published file and a folder of images to a frame."""

import dataclasses
from collections import OrderedDict
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file
from test_transfer import framed, judged
from torchvision.models import resnet
from torchvision.transforms.functional import normalize

from rtkit import cli, experiment, lesson, presets, published, store
from rtkit.data import downloads
from rtkit.data.pictures import Pictures
from rtkit.measure import transfer

WORLD = Pictures("", 64)
PAIR = ("resnet18_l2_eps0", "resnet18_l2_eps3")


def network(seed: int, classes: int = 7) -> resnet.ResNet:
    """torchvision's ResNet-18 with random weights and lively BatchNorm statistics, in eval mode."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        net = resnet.resnet18(num_classes=classes)
        for module in net.modules():
            if isinstance(module, torch.nn.BatchNorm2d):
                module.running_mean.normal_(0, 0.1)
                module.running_var.uniform_(0.5, 1.5)
    return net.eval()


def publish(folder: Path, name: str, seed: int) -> Path:
    """Write a network as the robustness library does: twice, beside its normalisers."""
    state = network(seed).state_dict()
    weights = OrderedDict((f"module.model.{key}", value) for key, value in state.items())
    weights |= {f"module.attacker.model.{key}": value for key, value in state.items()}
    weights["module.normalizer.new_mean"] = torch.zeros(3, 1, 1)
    folder.mkdir(exist_ok=True)
    torch.save({"model": weights, "epoch": 89}, folder / f"{name}.ckpt")
    return folder / f"{name}.ckpt"


@pytest.fixture(scope="module")
def imported(tmp_path_factory) -> Path:
    """A standard and a robust network, imported by the command."""
    folder = tmp_path_factory.mktemp("networks")
    for seed, name in enumerate(PAIR):
        path = publish(folder / "published", name, seed)
        assert cli.main(["import-checkpoint", str(path), "--to", str(folder / "imported")]) == 0
    return folder / "imported"


@pytest.fixture
def pair(root, imported) -> Path:
    """Both where the kit looks for them."""
    (root / "checkpoints").mkdir()
    for name in PAIR:
        (root / "checkpoints" / f"{name}.safetensors").hardlink_to(imported / f"{name}.safetensors")
    return root / "checkpoints"


def stand_in(folder: Path, name: str, sha256: str | None = "0", **weights: torch.Tensor) -> None:
    """A file under the name of a network, in place of any that is there."""
    folder.mkdir(exist_ok=True)
    (folder / f"{name}.safetensors").unlink(missing_ok=True)
    save_file(weights or {"a": torch.ones(1)}, folder / f"{name}.safetensors", sha256 and {"sha256": sha256})


@pytest.fixture
def mine(root):
    """A data set of two classes, each with 8 images to train and 4 to test on, of mixed sizes."""
    rng = np.random.default_rng(0)
    for part, n in (("train", 8), ("test", 4)):
        for label, low in (("dark", 0), ("light", 128)):
            (root / "mine" / part / label).mkdir(parents=True)
            for k in range(n):
                pixels = rng.integers(low, low + 128, (40 + 9 * k, 90 - 5 * k, 3), dtype=np.uint8)
                Image.fromarray(pixels).save(root / "mine" / part / label / f"{k}.png")
    return root


def tiny(**changed) -> presets.Preset:
    return dataclasses.replace(presets.get("imagenet"), world=WORLD, steps=2, batch_size=4, **changed)


def test_logits_are_torchvisions_own(pair):
    standard, robust = published.networks(WORLD, "resnet18")
    x = torch.rand(3, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    normalised = normalize(x, (0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
    for seed, source in enumerate((standard, robust)):
        net, facts = source.load()
        assert not net.training
        assert facts == {"seconds": 0.0, "gradients": 0, "watch": [], "collapsed": False}
        with torch.no_grad():
            torch.testing.assert_close(net.cpu()(x), network(seed)(normalised), rtol=0, atol=1e-5)


def test_the_standard_network_comes_first_and_radii_are_in_their_own_norm(root):
    names = ("resnet18_l2_eps0.05", "resnet18_linf_eps4.0", "resnet50_l2_eps3", "densenet_l2_eps0", "densenet_l2_eps3")
    for name in (*PAIR, *names, "my_own"):
        stand_in(root / "checkpoints", name)
    found = published.networks(WORLD, "resnet50")  # which has no standard one: another architecture's pair serves
    assert [(one.kind, one.norm, one.source_eps) for one in found] == [
        ("standard", "l2", 0.0),
        ("robust", "l2", 0.05),
        ("robust", "l2", 3.0),
        ("robust", "linf", 4 / 255),
    ]
    assert {(one.architecture, one.seed, one.world) for one in found} == {("resnet18", 0, WORLD)}
    stand_in(root / "checkpoints", "resnet50_l2_eps0")
    assert {one.architecture for one in published.networks(WORLD, "resnet50")} == {"resnet50"}
    assert {one.architecture for one in published.networks(WORLD, "resnet18")} == {"resnet18"}


def test_the_command_writes_where_networks_are_looked_for(root, tmp_path, capsys):
    for name in PAIR:
        torch.save({"model": {"a": torch.ones(1)}}, tmp_path / f"{name}.ckpt")
        assert cli.main(["import-checkpoint", str(tmp_path / f"{name}.ckpt")]) == 0
        assert str(root / "checkpoints" / f"{name}.safetensors") in capsys.readouterr().out
    assert [one.file for one in published.networks(WORLD, "resnet18")] == [f"{name}.safetensors" for name in PAIR]


def test_without_a_pair_the_message_says_how_to_get_one(root):
    with pytest.raises(
        ValueError, match=r"checkpoints; there is none yet\. Download for example resnet18_l2_eps0\.ckpt"
    ):
        published.networks(WORLD, "resnet18")
    for name in ("resnet18_l2_eps3", "resnet50_l2_eps0"):
        stand_in(root / "checkpoints", name)
    with pytest.raises(ValueError, match=r"there are resnet18_l2_eps3, resnet50_l2_eps0\. .* `rtkit import-checkpoint"):
        published.networks(WORLD, "resnet18")


def test_files_that_do_not_fit_are_refused_by_name(pair):
    standard, robust = published.networks(WORLD, "resnet18")
    stand_in(pair, PAIR[1])
    with pytest.raises(ValueError, match="made from another published file since the run began"):
        robust.load()
    stand_in(pair, PAIR[0], standard.sha256, **{"fc.bias": torch.ones(2), "conv1.weight": torch.ones(1)})
    with pytest.raises(ValueError, match=r"eps0\.safetensors holds no resnet18: (.|\n)*under its own name"):
        standard.load()
    stand_in(pair, PAIR[0], standard.sha256)
    with pytest.raises(ValueError, match=r"head.bias"):
        standard.load()
    stand_in(pair, PAIR[0], None)
    with pytest.raises(ValueError, match="does not say which published file it was made from"):
        standard.load()
    (pair / standard.file).write_bytes(b"cut short")
    with pytest.raises(ValueError, match=r"cannot read .*eps0\.safetensors.*import-checkpoint resnet18_l2_eps0\.ckpt"):
        standard.load()
    (pair / standard.file).unlink()
    with pytest.raises(ValueError, match=r"cannot read .*eps0\.safetensors"):
        standard.load()


@pytest.fixture(scope="module")
def cells():
    """The grid of notebook 01, as a list."""
    grid = lesson.execute(lesson.path("01"), {}, lesson.GRID)
    return lambda preset, seed, targets=(): list(grid["cells"](preset, seed, targets))


def test_from_published_files_and_folders_to_a_frame(cells, pair, mine):
    frame = experiment.compute_cells(transfer.rows, cells(tiny(), 1, ["mine"]), alone=True)
    assert (set(frame.study), set(frame.seed)) == ({"transfer"}, {1})
    sources = set(zip(frame.source, frame.source_eps, frame.source_seed, strict=True))
    assert sources == {("standard", 0.0, 0), ("robust", 3.0, 0), ("untrained", 0.0, 1)}
    assert frame[["texture_amplitude", "shape_reliability"]].isna().all(axis=None)
    # 100 images do not fit, so all of a pool: 8 of each class less the two that validate.
    assert set(frame.n_train) == {12}
    each = frame.groupby(["method", "source", "metric"]).size()
    assert (each == 1).all()
    assert len(each) == (3 * 2 + 1) * 2
    assert set(frame[frame.source == "untrained"].method) == {"fixed_feature"}
    assert set(frame.method) == {"fixed_feature", "last_stage", "full_network"}
    assert set(frame.metric) == {"clean_accuracy", "validation_accuracy"}
    assert frame.value.between(0, 1).all()
    assert (frame[frame.metric == "clean_accuracy"].n_test == 8).all()
    assert (frame.gradients == 2 * 4).all()
    judge = judged(framed(pd.concat([frame, frame.assign(seed=0)]), "imagenet"))
    assert [control.name for control in judge.controls] == ["standard minus untrained source"]
    assert judge.verdicts["U-C1"].scope == "published networks"
    assert judge.main.judged.all()  # a data set of one's own, for there is no other


def test_untrained_networks_differ_by_replicate_alone():
    first, again, other = (
        published.Published("untrained", 0.0, "l2", WORLD, "resnet18", "", "", seed).load()[0] for seed in (0, 0, 1)
    )
    weights = [next(net.parameters()) for net in (first, again, other)]
    assert torch.equal(*weights[:2])
    assert not torch.equal(weights[0], weights[2])


def test_a_cell_is_another_one_when_the_network_or_an_image_changes(cells, pair, mine):
    def paths() -> list[Path]:
        return [store.cell_path("transfer", cell.config, "") for cell in cells(tiny(), 0, ["mine"])]

    before = paths()
    assert len(set(before)) == 7
    assert paths() == before
    stand_in(pair, PAIR[1])
    after = paths()
    same = [cell.source.kind != "robust" for cell in cells(tiny(), 0, ["mine"])]
    assert sum(same) == 4
    assert [one == other for one, other in zip(before, after, strict=True)] == same
    Image.new("RGB", (70, 70)).save(mine / "mine" / "train" / "dark" / "0.png")
    assert not set(paths()) & set(after)


def test_sizes_hold_every_class(cells, pair, root):
    x = np.zeros((480, 8, 8, 3), np.uint8)
    y = np.arange(480) % 120
    classes = np.array([f"{k:03}" for k in range(120)])
    np.savez(root / "many.npz", x_train=x, y_train=y, x_test=x, y_test=y, classes=classes)
    assert {cell.n_train for cell in cells(tiny(), 0, ["many"])} == {(240,)}


def test_rates_and_protocols(cells, pair, root):
    x, y = np.zeros((4000, 8, 8, 3), np.uint8), np.arange(4000) % 2
    np.savez(root / "large.npz", x_train=x, y_train=y, x_test=x[:8], y_test=y[:8], classes=np.array(["a", "b"]))
    made = cells(tiny(), 0, ["large"])
    assert {cell.n_train for cell in made} == {(100,), (400,), (1600,)}
    assert {(cell.protocol, cell.lr) for cell in made} == {
        ("fixed_feature", 0.3), ("last_stage", 0.1), ("full_network", 0.1)
    }  # fmt: skip
    assert {cell.measure_at for cell in made} == {()}


def test_bad_requests_say_what_to_do(cells, pair, mine):
    with pytest.raises(ValueError, match=r"imagenet has no targets of its own: name data sets.*data/README\.md"):
        cells(tiny(), 0)
    with pytest.raises(ValueError, match="no data set is called 'yours'"):
        cells(tiny(), 0, ["yours"])
    with pytest.raises(ValueError, match="seeds must be whole numbers"):
        experiment.run(transfer.rows, cells, "imagenet", [0.5], ["mine"])
    assert "checkpoints" not in [name for name, _, _ in downloads.listing()]


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("resnet18_l2_eps3", ""),
        ("resnet50_linf_eps0.5", ""),
        ("wide_resnet50_2_l2_eps0.01", ""),
        ("resnet18_l2_eps3 (1)", "call the file resnet18_l2_eps3.ckpt"),
        ("resnet18_l2_eps0.5(2)", "call the file resnet18_l2_eps0.5.ckpt"),
        ("ResNet18_L2_eps3", "call the file resnet18_l2_eps3.ckpt"),
        ("resnet18-l2-eps3", "call the file resnet18_l2_eps3.ckpt"),
        ("resnet18_l2_eps3_best", "call the file resnet18_l2_eps3.ckpt"),
        ("resnet18_l2_eps3.pt", "call the file resnet18_l2_eps3.ckpt"),
        ("wide_resnet50_4_linf_eps8.0 - Copy", "call the file wide_resnet50_4_linf_eps8.0.ckpt"),
        (
            "checkpoint.pt",
            "`imagenet` takes ARCHITECTURE_NORM_epsRADIUS, such as resnet18_l2_eps3, of resnet18, resnet50",
        ),
        ("densenet_l2_eps3", "of resnet18, resnet50"),
        ("resnet18_l1_eps3", "in l2 or linf"),
    ],
)
def test_a_name_that_is_never_looked_for_is_told(name, said):
    found = published.hint(name)
    assert said in found
    assert not found or found.startswith(f"no preset looks for {name!r}")
    assert bool(found) == bool(said)


def test_the_command_says_that_a_name_is_never_looked_for(root, tmp_path, capsys):
    torch.save({"model": {"a": torch.ones(1)}}, tmp_path / "resnet18_l2_eps3 (1).ckpt")
    assert cli.main(["import-checkpoint", str(tmp_path / "resnet18_l2_eps3 (1).ckpt")]) == 0
    told = "if it is resnet18_l2_eps3, call the file resnet18_l2_eps3.ckpt and import it"
    assert told in capsys.readouterr().out
    with pytest.raises(ValueError, match=rf"there is none yet; no preset looks for .*{told}\. Download"):
        published.networks(WORLD, "resnet18")


@pytest.mark.parametrize(
    "twin", [("resnet18_l2_eps3", "resnet18_l2_eps3.0"), ("resnet18_l2_eps0", "resnet18_linf_eps0")]
)
def test_two_files_of_one_radius_are_refused(root, twin):
    for name in twin:
        stand_in(root / "checkpoints", name)
    with pytest.raises(ValueError, match="are of one radius; keep one of them"):
        published.networks(WORLD, "resnet18")
