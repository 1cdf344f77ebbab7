"""The heads of the influence study: exact ones on frozen features, and all the ways to rank training images."""

from dataclasses import dataclass

import numpy as np
import torch

from rtkit import evaluation, influence, probe, tasks
from rtkit.data.glyphs import Images
from rtkit.influence import UTRERA_RTOL, Examples, Head
from rtkit.sources import Source

RIDGE = 3.0  # of the heads on frozen features; at 1 single images have so much leverage that first order misses them


def with_ones(features: torch.Tensor) -> torch.Tensor:
    """Append the column of ones that stands for the bias. Shape: (N, D) -> (N, D + 1) float64."""
    return torch.cat([features.double(), torch.ones(len(features), 1, dtype=torch.float64)], 1)


def kernel(train: Examples, test: Examples) -> torch.Tensor:
    """Likeness without any label: x_test (X^T X)^+ x_train, with the paper's cutoff. Shape: (N_test, N_train)."""
    x = train[0].double()
    return test[0].double() @ influence.inverse(x.T @ x, UTRERA_RTOL) @ x.T


def rankings(head: Head, train: Examples, test: Examples) -> dict[str, torch.Tensor]:
    """Every way to say which training images matter to a test image. Shape of each: (N_test, N_train), highest first.

    "predicted" is influence on the loss of the label that the head predicts: it never sees the test image's own label.
    """
    scores = influence.influence(head, train, test)
    said = (test[0].double() @ head.weights.T).argmax(1)
    identity = Head(head.weights, 0.0, torch.eye(len(head.inverse), dtype=torch.float64))
    return {
        "influence": scores,
        "absolute": scores.abs(),
        "products": influence.influence(identity, train, test),
        "predicted": influence.influence(head, train, (test[0], said)),
        "kernel": kernel(train, test),
        "neighbours": -torch.cdist(test[0].double(), train[0].double()),
    }


@dataclass(frozen=True)
class Frozen:
    """A head with a ridge on a source's frozen features: exact optimum, its training and test examples and images."""

    head: Head
    train: Examples
    test: Examples
    train_images: Images
    test_images: Images


def frozen(source: Source, target: str, n: int, dims: int | None = None, ridge=RIDGE, flip: float = 0) -> Frozen:
    """Fit the head on n images of a target, on standardised features or on their first `dims` principal components.

    Args:
        flip: share of training labels that are replaced by wrong ones (the images keep the true ones).
    """
    task, (net, facts) = tasks.target(target, source.world, source.seed), source.load()
    images, mean, std = task.subset(n, source.seed), torch.tensor(facts["mean"]), torch.tensor(facts["std"])
    x, x_test = (probe.standardise(evaluation.features(net, one), mean, std)[:, :-1] for one in (images, task.test))
    if dims is not None:
        axes = torch.linalg.svd(x - x.mean(0), full_matrices=False)[2][:dims].T  # (D, dims)
        x, x_test = (x - x.mean(0)) @ axes, (x_test - x.mean(0)) @ axes
    rng = np.random.default_rng([source.seed, 30])
    wrong = torch.from_numpy(rng.permutation(n)[: round(flip * n)])
    y = images.y.clone()
    y[wrong] = (y[wrong] + torch.from_numpy(rng.integers(1, len(task.classes), len(wrong)))) % len(task.classes)
    train, test = (with_ones(x), y), (with_ones(x_test), task.test.y)
    head = Head.of(influence.fit(train, len(task.classes), ridge), train[0], ridge)
    return Frozen(head, train, test, images, task.test)


def agreement(predicted: torch.Tensor, true: torch.Tensor) -> tuple[float, float]:
    """Pearson correlation with the truth, and the error relative to it (a ratio of norms)."""
    pearson = float(torch.corrcoef(torch.stack([predicted.flatten(), true.flatten()]))[0, 1])
    return pearson, float((predicted - true).norm() / true.norm())
