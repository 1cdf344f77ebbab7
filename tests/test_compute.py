"""Where and how numbers are computed: the gate to bfloat16, and pixels."""

import json

import pytest
import torch

from rtkit import compute


@pytest.fixture
def gate(tmp_path, monkeypatch):
    """A processor with bfloat16 units whose timed probe can be set."""
    monkeypatch.setattr(compute, "RUNS", tmp_path)
    monkeypatch.setattr(compute, "_has_bf16_units", lambda: True)
    monkeypatch.setattr(compute, "device", lambda: torch.device("cpu"))
    compute.bf16.cache_clear()
    yield tmp_path / "bf16.json"
    compute.bf16.cache_clear()


@pytest.mark.parametrize(("reduced", "faster"), [(0.5, True), (0.95, False), (40.0, False)])
def test_a_timed_probe_decides_and_is_remembered(gate, monkeypatch, reduced, faster):
    monkeypatch.setattr(compute, "_seconds", lambda dtype: reduced if dtype else 1.0)
    assert compute.bf16() is faster
    assert json.loads(gate.read_text())["faster"] is faster
    compute.bf16.cache_clear()
    monkeypatch.setattr(compute, "_seconds", lambda dtype: pytest.fail("probed again"))
    assert compute.bf16() is faster
    assert compute.kind() == ("cpu-bf16" if faster else "cpu-fp32")


def test_another_torch_or_a_damaged_verdict_means_another_probe(gate, monkeypatch):
    probes = []
    monkeypatch.setattr(compute, "_seconds", lambda dtype: probes.append(1) or (0.5 if dtype else 1.0))
    for text in ("{", json.dumps({"torch": "0.1", "capability": "AVX", "faster": False})):
        gate.write_text(text)
        compute.bf16.cache_clear()
        assert compute.bf16()
    assert len(probes) == 12


def test_no_units_no_probe(gate, monkeypatch):
    monkeypatch.setattr(compute, "_has_bf16_units", lambda: False)
    monkeypatch.setattr(compute, "_seconds", lambda dtype: pytest.fail("probed"))
    assert not compute.bf16()


def test_the_probe_measures_something():
    assert 0 < compute._seconds(None) < 10


def test_pixels():
    x = torch.tensor([0, 51, 255], dtype=torch.uint8).view(1, 3, 1, 1)
    found = compute.to_pixels(x)
    assert found.dtype == torch.float32
    torch.testing.assert_close(found.cpu().flatten(), torch.tensor([0.0, 0.2, 1.0]))


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_a_gpu_is_used_where_there_is_one():
    assert compute.device().type == "cuda"
