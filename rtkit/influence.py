"""Exact influence functions of the last layer: what a test image's loss owes to each training image.

The head is softmax regression on frozen features, so everything has a closed form. It minimises

    L(W) = sum_i CE(W x_i, y_i) + ridge / 2 |W|^2.

Features x (N, D) end in a column of ones (as from `probe.standardise`); weights W are (K, D), as in `nn.Linear`, and
parameters are ordered class by class, k * D + d. Unlike in `probe` the ridge holds the bias too: only so does it make
the Hessian invertible. L is a sum: multiply the ridge of a mean loss by N. All arithmetic is in float64.

One sign throughout: the change of a test loss, in nats, when a training image is removed; positive = helpful.
"""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from scipy.stats import spearmanr

from rtkit.limits import must_lie

MAX_PARAMETERS = 20_490  # Utrera et al.: ten classes on the 2,049 columns of a ResNet-50; a Hessian of 3.4 GB
UTRERA_RTOL = 5e-2  # the relative cutoff of their pseudo-inverse
TOLERANCE = 1e-8  # largest entry of the gradient at which a fit counts as the optimum
CHUNK = 2**22  # float64 numbers held at a time (32 MiB); bounds memory, changes no result

Examples = tuple[torch.Tensor, torch.Tensor]  # features (N, D) with a last column of ones, labels (N,)


def losses(weights: torch.Tensor, examples: Examples) -> torch.Tensor:
    """Cross-entropy of each image, in nats. Shape: weights (..., K, D), N examples -> (..., N)."""
    log_p = (weights.double() @ examples[0].double().T).log_softmax(-2)  # (..., K, N)
    return -log_p.gather(-2, examples[1].expand(*log_p.shape[:-2], 1, -1)).squeeze(-2)


def residuals(weights: torch.Tensor, examples: Examples) -> torch.Tensor:
    """Softmax minus one-hot label: the gradient of each image's loss with respect to its logits. Shape: (N, K)."""
    return (examples[0].double() @ weights.double().T).softmax(1) - F.one_hot(examples[1], len(weights))


def gradients(weights: torch.Tensor, examples: Examples) -> torch.Tensor:
    """Gradient of each image's loss (without the ridge) with respect to the parameters. Shape: (N, K * D)."""
    return (residuals(weights, examples)[:, :, None] * examples[0].double()[:, None]).flatten(1)


def hessian(weights: torch.Tensor, x: torch.Tensor, ridge: float) -> torch.Tensor:
    """Second derivative of L: the sum of S_i (x) x_i x_i^T, where S_i = diag(p_i) - p_i p_i^T, plus ridge I.

    Shape: weights (K, D), x (N, D) -> (K * D, K * D). Raises: ValueError above `MAX_PARAMETERS` parameters.
    """
    must_lie("[0, inf)", ridge=ridge)
    (classes, d), n = weights.shape, weights.numel()
    if n > MAX_PARAMETERS:
        known = f"{n:,} parameters ({classes} classes x {d} features), above {MAX_PARAMETERS:,}"
        raise ValueError(f"{known}: leave classes out, or reduce the features by PCA")
    x = x.double()
    p = (x @ weights.double().T).softmax(1)  # (N, K)
    out = x.new_empty(n, n)
    blocks = out.view(classes, d, classes, d)
    for k in range(classes):
        for j in range(k + 1):
            s = p[:, k] * (float(j == k) - p[:, j])  # (N,)
            blocks[k, :, j] = blocks[j, :, k] = (x * s[:, None]).T @ x
    out.diagonal().add_(ridge)
    return out


def inverse(hessian: torch.Tensor, rtol: float | None = None) -> torch.Tensor:
    """Inverse by Cholesky or, given `rtol`, the pseudo-inverse that drops eigenvalues up to rtol times the largest.

    Raises: ValueError where the Hessian is singular and `rtol` not given. Without a ridge it always is: a vector added
    to the weights of every class changes no softmax.
    """
    if rtol is not None:
        must_lie("[0, 1)", rtol=rtol)
        return torch.linalg.pinv(hessian, rtol=rtol, hermitian=True)
    factor, failed = torch.linalg.cholesky_ex(hessian)
    pivots = factor.diagonal() ** 2
    # Rounding can carry Cholesky through a singular matrix; its smallest pivot still tells.
    if failed or pivots.min() < 1e-13 * pivots.max():
        raise ValueError(f"the Hessian is singular: fit with a ridge above 0, or pass rtol (Utrera: {UTRERA_RTOL})")
    return torch.cholesky_inverse(factor)


@dataclass(frozen=True)
class Head:
    """Weights (K, D), the ridge they go with, and the inverse (K * D, K * D) of their Hessian over all training images.

    With the identity as inverse, `influence` is the plain product of gradients (TracIn, Pruthi et al. 2020, section 3).
    """

    weights: torch.Tensor
    ridge: float
    inverse: torch.Tensor

    @classmethod
    def of(cls, weights: torch.Tensor, x: torch.Tensor, ridge: float, rtol: float | None = None) -> "Head":
        """At the optimum that `fit` finds or, with `rtol`, at any weights, as of a network that interpolates."""
        return cls(weights.double(), ridge, inverse(hessian(weights, x, ridge), rtol))


def fit(train: Examples, classes: int, ridge: float, *, start: Head | None = None) -> torch.Tensor:
    """Minimise L by Newton's method with backtracking until no entry of its gradient reaches `TOLERANCE`.

    Args:
        ridge: may be 0 as long as the classes overlap.
        start: where to begin, its inverse included; it changes the time, not the result.
    Shape: N examples -> weights (K, D).
    Raises: ValueError without a finite optimum (ridge 0, separable classes), RuntimeError above the tolerance.
    """
    must_lie("[0, inf)", ridge=ridge)
    x, before = train[0].double(), torch.inf
    weights, inv = (start.weights, start.inverse) if start else (x.new_zeros(classes, x.shape[1]), None)

    def objective(weights):
        return losses(weights, train).sum() + 0.5 * ridge * (weights**2).sum()

    for _ in range(300):
        gradient = residuals(weights, train).T @ x + ridge * weights  # (K, D)
        largest = float(gradient.abs().max())
        # A gradient costs far less than a Hessian: keep the inverse as long as its steps halve the gradient.
        if inv is None or largest > before / 2 or (largest < TOLERANCE and ridge == 0):
            # What the pseudo-inverse drops here changes no difference of logits, so it has no gradient either.
            inv = inverse(hessian(weights, x, ridge), None if ridge else 1e-12)
        step = (inv @ gradient.flatten()).view_as(weights)
        if largest < TOLERANCE:
            if ridge == 0 and step.abs().max() > 1e-3:  # the loss still falls, towards infinite weights
                raise ValueError("a linear head separates classes: without a ridge there is no finite optimum")
            return weights
        value, slope, size, before = objective(weights), (gradient * step).sum(), 1.0, largest
        # Close to the optimum the decrease drowns in rounding, and there the full step is right.
        while objective(weights - size * step) > value - 1e-4 * size * slope + 1e-13 * value and size > 1e-6:
            size /= 2
        weights = weights - size * step
    raise RuntimeError(f"Newton's method stopped at a gradient of {largest:.1e}: raise the ridge ({ridge})")


def influence(head: Head, train: Examples, test: Examples) -> torch.Tensor:
    """First-order influence of each training image, some or all of them, on each test loss: positive = helpful.

    Shape: (N_test, N_train), in nats. Reference: Koh & Liang 2017, section 2.1 (who upweight: the opposite sign).
    """
    x, residual = train[0].double(), residuals(head.weights, train)  # (N, D), (N, K)
    rows = []
    for part in _split(test, max(len(head.inverse), len(x))):
        solved = (gradients(head.weights, part) @ head.inverse).view(-1, *head.weights.shape)  # (T, K, D)
        rows.append(sum((solved[:, k] @ x.T) * residual[:, k] for k in range(len(head.weights))))  # (T, N)
    return torch.cat(rows)


def self_influence(head: Head, train: Examples) -> torch.Tensor:
    """First-order change of each training image's own loss when it is removed: high where a label stands alone.

    Shape: N examples -> (N,), in nats, never negative. Reference: Koh & Liang 2017, section 5.4 (mislabelled images).
    """
    residual = residuals(head.weights, train)
    return torch.einsum("nk,nkj,nj->n", residual, _leverage(head, train[0].double()), residual)


def removal_steps(head: Head, removed: Examples) -> torch.Tensor:
    """One Newton step of the weights towards the optimum without one image, for each of the training images given.

    The step is (H - S_i (x) x_i x_i^T)^-1 g_i, by Woodbury H^-1 (c_i (x) x_i) with c_i = (I - S_i M_i)^-1 r_i: the
    residual r_i corrected for the image's leverage M_i. First-order influence leaves out the correction. A
    pseudo-inverse confines the step to the directions that it keeps. Pregibon 1981 (two classes).
    Shape: n examples -> (n, K, D).
    """
    x, residual = removed[0].double(), residuals(head.weights, removed)
    p = (x @ head.weights.T).softmax(1)
    s = p.diag_embed() - p[:, :, None] * p[:, None]  # (n, K, K)
    corrected = torch.linalg.solve(torch.eye(s.shape[1]).to(s) - s @ _leverage(head, x), residual)  # (n, K)
    return ((corrected[:, :, None] * x[:, None]).flatten(1) @ head.inverse).view(-1, *head.weights.shape)


def newton_influence(head: Head, train: Examples, test: Examples) -> torch.Tensor:
    """As `influence`, but the test losses are evaluated after the Newton step of `removal_steps`. Shape: (T, N)."""
    parts = _split(train, max(len(head.inverse), len(head.weights) * len(test[1])))
    moved = [losses(head.weights + removal_steps(head, part), test) for part in parts]
    return (torch.cat(moved) - losses(head.weights, test)).T


def subset_losses(head: Head, train: Examples, test: Examples, subsets: Iterable[np.ndarray]) -> torch.Tensor:
    """Test losses after training again on each subset of the training images. Shape: (M, N_test), in nats."""
    fits = (fit((train[0][s], train[1][s]), len(head.weights), head.ridge, start=head) for s in subsets)
    return torch.stack([losses(weights, test) for weights in fits])


def leave_one_out(head: Head, train: Examples, test: Examples, indices: Iterable[int]) -> torch.Tensor:
    """The truth that influence predicts: train again without each image named. Shape: (N_test, n), in nats."""
    without = (np.delete(np.arange(len(train[1])), i) for i in indices)
    return (subset_losses(head, train, test, without) - losses(head.weights, test)).T


def draw_subsets(n: int, count: int, seed: int, alpha: float = 0.5) -> np.ndarray:
    """Random subsets of a share alpha of n images, for `subset_losses` and `lds`. Shape: (M, alpha * n) of indices."""
    must_lie("[1, inf)", whole=True, n=n, count=count)
    must_lie("(0, 1]", alpha=alpha)
    return np.random.default_rng(seed).permuted(np.tile(np.arange(n), (count, 1)), axis=1)[:, : round(alpha * n)]


def lds(scores: torch.Tensor, subsets: np.ndarray, measured: torch.Tensor) -> np.ndarray:
    """Linear datamodelling score of each test image: do summed influences rank the subsets as retraining does?

    It is Spearman's correlation, over subsets, of the loss after training on a subset with minus the summed influence
    of its images; report the mean. For an interval resample entries, and rows of `subsets` and `measured` together.
    A retrained head is a unique optimum, without noise of seeds: no ceiling below 1. Park et al. 2023, section 2.
    Shape: scores (T, N), subsets (M, n), measured (M, T) from `subset_losses` -> (T,).
    """
    predicted = -torch.stack([scores[:, subset].sum(1) for subset in subsets])  # (M, T)
    pairs = zip(predicted.T.cpu().numpy(), measured.T.cpu().numpy(), strict=True)
    return np.array([spearmanr(a, b).statistic for a, b in pairs])


def label_match(scores: torch.Tensor, train_y: torch.Tensor, test_y: torch.Tensor, ranks: int = 100) -> np.ndarray:
    """Whether the k-th most helpful training image carries the test image's label, k = 1 first (Utrera et al. 2021).

    Of the result m: `m[:, 0].mean()` is the top-1 match, `(m[:, :5].sum(1) >= 3).mean()` the share with at least three
    of five, `m.mean(0)` the curve by rank. Rows are test images, to be resampled for an interval.
    Shape: scores (N_test, N_train), labels (N_train,) and (N_test,) -> (N_test, ranks) of bool.
    """
    order = scores.argsort(dim=1, descending=True, stable=True)[:, :ranks]
    return (train_y[order] == test_y[:, None]).cpu().numpy()


def _leverage(head: Head, x: torch.Tensor) -> torch.Tensor:
    """M_i = (I (x) x_i)^T H^-1 (I (x) x_i): how far each image moves its own logits. Shape: (N, D) -> (N, K, K)."""
    blocks = head.inverse.view(*head.weights.shape, *head.weights.shape)
    rows = [[((x @ blocks[k, :, j]) * x).sum(1) for j in range(len(blocks))] for k in range(len(blocks))]
    return torch.stack([torch.stack(row, 1) for row in rows], 1)


def _split(examples: Examples, numbers: int) -> Iterable[Examples]:
    """Cut examples into parts so that, at so many numbers an example, a part stays within `CHUNK`."""
    return zip(*(part.split(max(1, CHUNK // numbers)) for part in examples), strict=True)
