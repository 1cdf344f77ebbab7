"""Checkpoints in every published form are read, and nothing that a file says is ever executed."""

import gzip
import os
import pickle
import zipfile
from collections import OrderedDict
from pathlib import Path

import pytest
import safetensors.torch
import torch
from safetensors import safe_open
from torch import nn

from rtkit import checkpoints, cli


@pytest.fixture
def state() -> OrderedDict:
    torch.manual_seed(0)
    net = nn.Sequential(OrderedDict(conv1=nn.Conv2d(3, 4, 3, bias=False), bn1=nn.BatchNorm2d(4), fc=nn.Linear(4, 2)))
    return net.state_dict()


def wrapped(state, prefix: str) -> dict:
    """The weights as the robustness library keeps them: twice, beside its normalisers."""
    out = OrderedDict((f"{prefix}{name}", value) for name, value in state.items())
    out |= {f"module.attacker.model.{name}": value.clone() for name, value in state.items()}
    out |= {
        "module.normalizer.new_mean": torch.zeros(3, 1, 1),
        "module.attacker.normalize.new_std": torch.ones(3, 1, 1),
    }
    return out


def same(one, other) -> bool:
    return list(one) == list(other) and all(torch.equal(one[name], other[name]) for name in one)


class Trap:
    """Pickles into a call that leaves a trace."""

    def __init__(self, trace: Path, how: int = 0):
        self.trace, self.how = trace, how

    def __reduce__(self):
        command = f"touch {self.trace}"
        return [
            (os.system, (command,)),
            (eval, (f"__import__('os').system({command!r})",)),
            (Path.touch, (self.trace,)),
        ][self.how]


@pytest.mark.parametrize("zipped", [True, False], ids=["torch 1.6 and later", "before"])
@pytest.mark.parametrize("prefix", ["module.model.", "module.model.model.", "module.", ""])
@pytest.mark.parametrize("key", ["model", "state_dict", None])
def test_every_published_form(state, tmp_path, zipped, prefix, key):
    weights = wrapped(state, prefix) if prefix.startswith("module.model") else OrderedDict(
        (f"{prefix}{name}", value) for name, value in state.items()
    )  # fmt: skip
    schedule = torch.optim.SGD([torch.zeros(1, requires_grad=True)], 0.1)
    content = (
        weights if key is None else {key: weights, "optimizer": schedule.state_dict(), "epoch": 89, "nat_prec1": 0.6}
    )
    path = tmp_path / "resnet50_l2_eps3.ckpt"
    torch.save(content, path, _use_new_zipfile_serialization=zipped)
    assert same(checkpoints.read(path), state)


@pytest.mark.parametrize("zipped", [True, False])
def test_objects_of_unknown_classes_beside_the_weights_are_left_alone(state, tmp_path, zipped):
    """As dill writes schedules with their functions: they become placeholders."""
    schedule = torch.optim.lr_scheduler.StepLR(torch.optim.SGD([torch.zeros(1, requires_grad=True)], 0.1), 30)
    path = tmp_path / "imagenet_linf_4.pt"
    content = {"model": wrapped(state, "module.model."), "schedule": schedule, "lr": nn.Parameter(torch.ones(1))}
    torch.save(content, path, _use_new_zipfile_serialization=zipped)
    assert same(checkpoints.read(path), state)


def test_dill(state, tmp_path):
    dill = pytest.importorskip("dill", reason="needs dill to write such a file")
    path = tmp_path / "net.ckpt"
    torch.save({"model": wrapped(state, "module.model."), "schedule": lambda epoch: 0.1}, path, pickle_module=dill)
    assert same(checkpoints.read(path), state)


def test_views_parameters_and_other_types(tmp_path):
    base = torch.arange(12.0).view(3, 4)
    content = {"a": base.t(), "b": base[1:], "c": nn.Parameter(base[:, 2]), "d": torch.tensor(7), "e": base.bfloat16()}
    for zipped in (True, False):
        torch.save(content, tmp_path / "x.pt", _use_new_zipfile_serialization=zipped)
        found = checkpoints.read(tmp_path / "x.pt")
        assert all(torch.equal(found[name], value.detach()) for name, value in content.items())


@pytest.mark.parametrize("zipped", [True, False])
@pytest.mark.parametrize("how", range(3))
@pytest.mark.parametrize("field", ["epoch", "optimizer", "nested", "model", "weights", "key", "top"])
def test_nothing_runs(state, tmp_path, zipped, how, field):
    trace, path = tmp_path / "executed", tmp_path / "evil.ckpt"
    trap = Trap(trace, how)
    content = {"model": OrderedDict(state), "optimizer": {}, "epoch": 1}
    if field in ("epoch", "optimizer", "model"):
        content[field] = trap
    elif field == "nested":
        content["optimizer"] = {"state": [{"deep": (trap, {"deeper": [trap]})}]}
    elif field == "weights":
        content["model"]["conv1.weight"] = trap
    elif field == "key":
        content[trap] = 1
    else:
        content = trap
    torch.save(content, path, _use_new_zipfile_serialization=zipped)
    try:
        assert same(checkpoints.read(path), state)
        assert field in ("epoch", "optimizer", "nested", "key")
    except ValueError as error:
        assert field in ("model", "weights", "top")
        assert str(path) in str(error)  # noqa: PT017 - either outcome is fine, running the trap is not
    assert not trace.exists()


def test_a_bare_pickle_and_a_damaged_file_are_refused_by_name(state, tmp_path):
    trace, path = tmp_path / "executed", tmp_path / "net.pt"
    path.write_bytes(pickle.dumps(Trap(trace)))
    with pytest.raises(ValueError, match=r"net\.pt is no checkpoint that can be read safely"):
        checkpoints.read(path)
    assert not trace.exists()
    for zipped in (True, False):
        torch.save({"model": state}, path, _use_new_zipfile_serialization=zipped)
        path.write_bytes(path.read_bytes()[:-200])
        with pytest.raises(ValueError, match=r"net\.pt is no checkpoint"):
            checkpoints.read(path)
    torch.save({"model": OrderedDict(state) | {"conv1.weight": "text"}}, path)
    with pytest.raises(ValueError, match=r"its entry .conv1\.weight. is no tensor"):
        checkpoints.read(path)
    with pytest.raises(ValueError, match="cannot read"):
        checkpoints.read(tmp_path / "absent.pt")


def test_what_a_file_says_of_its_tensors_is_checked(tmp_path):
    path = tmp_path / "net.pt"
    weight = torch.arange(24.0).reshape(1, 2, 3, 4).to(memory_format=torch.channels_last)
    torch.save({"model": {"conv1.weight": weight, "none": torch.empty(0, 3)}}, path)
    found = checkpoints.read(path)
    assert torch.equal(found["conv1.weight"], weight)
    assert found["conv1.weight"].is_contiguous()  # safetensors takes no other
    assert found["none"].shape == (0, 3)
    assert checkpoints.convert(path, tmp_path).exists()
    torch.save({"model": {"w": torch.zeros(1).expand(10**6, 10**6)}}, path)  # a terabyte, on paper
    with pytest.raises(ValueError, match="more elements than its storage"):
        checkpoints.read(path)


def test_the_command_writes_safetensors_with_the_digest(state, tmp_path, capsys):
    import hashlib

    path = tmp_path / "resnet18_linf_eps4.0.ckpt"
    torch.save({"model": wrapped(state, "module.model.")}, path)
    assert cli.main(["import-checkpoint", str(path), "--to", str(tmp_path / "out")]) == 0
    written = tmp_path / "out" / "resnet18_linf_eps4.0.safetensors"
    assert str(written) in capsys.readouterr().out
    with safe_open(written, "pt") as file:
        assert file.metadata() == {"original": path.name, "sha256": hashlib.sha256(path.read_bytes()).hexdigest()}
        assert same({name: file.get_tensor(name) for name in state}, state)
    with pytest.raises(SystemExit) as stopped:
        cli.main(["import-checkpoint", str(tmp_path / "absent.ckpt")])
    assert stopped.value.code == 2


FORMS = {
    "nothing": (b"", "empty: download it again"),
    "LFS": (b"version https://git-lfs.github.com/spec/v1\noid sha256:ab\nsize 5\n", "Git LFS pointer.*git lfs pull"),
    "page": (b"\n<!DOCTYPE html><html><body>Log in</body></html>", "web page: download the file by hand"),
    "page with a mark": (b"\xef\xbb\xbf<html>", "web page"),
    "safetensors": (safetensors.torch.save({"a": torch.ones(2)}), "safetensors file: import the checkpoint"),
    "ONNX": (b"\x08\x08\x12\x07pytorch\x1a\x05" + bytes(50), "ONNX program"),
    "HDF5": (b"\x89HDF\r\n\x1a\n" + bytes(50), "HDF5"),
    "gzip": (gzip.compress(b"weights"), "packed file: unpack it"),
    "text": (b"404: not found, try again", "made by torch: download it again"),
}


@pytest.mark.parametrize("form", FORMS)
def test_what_is_no_checkpoint_is_named_with_what_to_do(tmp_path, form):
    path, (raw, message) = tmp_path / "net.ckpt", FORMS[form]
    path.write_bytes(raw)
    with pytest.raises(ValueError, match=rf"net\.ckpt is no checkpoint .*{message}"):
        checkpoints.read(path)


@pytest.mark.parametrize("zipped", [True, False], ids=["torch 1.6 and later", "before"])
@pytest.mark.parametrize("share", [0.05, 0.3, 0.6, 0.99])
def test_a_cut_file_is_called_so(state, tmp_path, zipped, share):
    path = tmp_path / "net.ckpt"
    torch.save({"model": state}, path, _use_new_zipfile_serialization=zipped)
    path.write_bytes(path.read_bytes()[: int(share * path.stat().st_size)])
    with pytest.raises(ValueError, match=r"cut short.*: download it again"):
        checkpoints.read(path)


def test_other_archives_and_whole_networks_are_named(tmp_path):
    path = tmp_path / "net.ckpt"
    with zipfile.ZipFile(path, "w") as file:
        file.writestr("resnet18_l2_eps3.ckpt", b"weights")
    with pytest.raises(ValueError, match="archive, and not one of torch's: unpack it"):
        checkpoints.read(path)
    torch.save(nn.Linear(2, 2), path)
    with pytest.raises(ValueError, match=r"no dictionary of weights; of a whole network save its state_dict\(\)"):
        checkpoints.read(path)


@pytest.mark.parametrize("zipped", [True, False], ids=["torch 1.6 and later", "before"])
@pytest.mark.parametrize("pair", [("module.a", "model.a"), ("a", "module.model.a"), ("model.a", "a")])
def test_two_entries_of_one_name_are_refused(tmp_path, zipped, pair):
    path, (one, other) = tmp_path / "net.pt", pair
    torch.save({one: torch.ones(1), "b": torch.ones(1), other: 2 * torch.ones(1)}, path,
               _use_new_zipfile_serialization=zipped)  # fmt: skip
    with pytest.raises(ValueError, match=rf"entries '{one}' and '{other}' are both 'a'; keep one"):
        checkpoints.read(path)


@pytest.mark.parametrize("key", ["state_dict_ema", "model_ema", "ema", "net", "params_ema"])
def test_one_set_of_weights_is_taken_and_two_are_refused(state, tmp_path, key):
    path, schedule = tmp_path / "net.pt", torch.optim.SGD([torch.zeros(1, requires_grad=True)], 0.1).state_dict()
    torch.save({key: state, "optimizer_state_dict": schedule, "epoch": 3}, path)
    assert same(checkpoints.read(path), state)
    torch.save({"state_dict": state, key: state}, path)
    with pytest.raises(ValueError, match=rf"holds weights under 'state_dict', '{key}'; save one"):
        checkpoints.read(path)


@pytest.mark.parametrize("zipped", [True, False], ids=["torch 1.6 and later", "before"])
def test_a_sign_that_torch_only_noted_is_carried_out(tmp_path, zipped):
    path, weight = tmp_path / "net.pt", torch.arange(6.0).reshape(2, 3)
    torch.save({"a": torch._neg_view(weight), "b": weight}, path, _use_new_zipfile_serialization=zipped)
    found = checkpoints.read(path)
    assert torch.equal(found["a"], -weight)
    assert torch.equal(found["b"], weight)


def test_a_radius_is_no_suffix(state, tmp_path):
    for name, made in {
        "resnet18_l2_eps0.5": "eps0.5",
        "resnet18_l2_eps0.5.ckpt": "eps0.5",
        "net.pt.best": "net.pt",
    }.items():
        torch.save(state, tmp_path / name)
        assert checkpoints.convert(tmp_path / name, tmp_path).name.endswith(f"{made}.safetensors")
