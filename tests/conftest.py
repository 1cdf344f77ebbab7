"""Shared fixtures: every test computes in a folder of its own and leaves the checkout untouched."""

import os
import tempfile
from pathlib import Path

os.environ["RTKIT_RUNS"] = tempfile.mkdtemp(prefix="rtkit-tests-")  # before rtkit is imported anywhere
if "PYTEST_XDIST_WORKER" in os.environ:  # one thread each: there are as many processes as cores
    os.environ["OMP_NUM_THREADS"] = "1"

import pytest
import torch
from torch import nn


class Linear(nn.Module):
    """Logits [w . x + b, 0] for images of three pixels: every attack on it can be done on paper."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.tensor([2.0, -1.0, 0.0]))

    def forward(self, x):
        score = x.flatten(1) @ self.weight
        return torch.stack([score, torch.zeros_like(score)], 1)


@pytest.fixture
def root(tmp_path, monkeypatch) -> Path:
    """An empty folder for data sets, with caches beside it."""
    from rtkit import store

    monkeypatch.setattr(store, "RUNS", tmp_path / "runs")
    monkeypatch.setenv("RTKIT_DATA", str(tmp_path / "data"))
    (tmp_path / "data").mkdir()
    return tmp_path / "data"


@pytest.fixture
def linear() -> Linear:
    return Linear().eval()


@pytest.fixture
def small_net():
    """A narrow network with lively BatchNorm statistics, in eval mode."""
    from rtkit import models

    net = models.create(4, "small-8", seed=0)
    net.train()
    with torch.no_grad():
        for seed in range(3):
            net(torch.rand(32, 3, 32, 32, generator=torch.Generator().manual_seed(seed)))
    return net.eval()


@pytest.fixture
def batch() -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    return torch.rand(16, 3, 32, 32, generator=generator), torch.randint(4, (16,), generator=generator)


@pytest.fixture
def two_classes():
    """Two classes that a pixel tells apart, in images of noise."""
    from rtkit.data.glyphs import Images

    generator = torch.Generator().manual_seed(0)
    y = torch.arange(64) % 2
    x = torch.randint(0, 256, (64, 3, 32, 32), generator=generator, dtype=torch.uint8)
    x[:, :, 8:24, 8:24] = (y * 255).to(torch.uint8)[:, None, None, None]
    return Images(x, y, ("dark", "bright"))
