"""Checkpoints in every published form are read, and nothing that a file says is ever executed."""

import os
import pickle
from collections import OrderedDict
from pathlib import Path

import pytest
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
