"""The convex probe: softmax regression on cached features, its penalty chosen by cross-validation."""

import torch
import torch.nn.functional as F

PENALTIES = (1e-3, 1e-2, 1e-1, 1.0, 10.0)
FOLDS = 5


def _fit(x: torch.Tensor, y: torch.Tensor, classes: int, penalties: torch.Tensor, keep: torch.Tensor) -> torch.Tensor:
    """Fit one softmax regression per problem, all at once, by L-BFGS to a gradient below 1e-4.

    The problem p is: min over W of sum_i keep[p, i] CE_i(W) + penalties[p] / 2 |W|^2 (the bias goes free).

    Shape:
        x (N, D) with a last column of ones, y (N,), penalties (P,), keep (P, N) of 0 and 1 -> W (P, D, K).
    """
    weights = torch.zeros(len(penalties), x.shape[1], classes, dtype=x.dtype, requires_grad=True, device=x.device)
    options = {"max_iter": 300, "history_size": 10, "tolerance_grad": 1e-4, "line_search_fn": "strong_wolfe"}
    optimiser = torch.optim.LBFGS([weights], **options)
    targets = y.expand(len(penalties), -1)  # (P, N)

    def closure():
        optimiser.zero_grad()
        logits = torch.einsum("nd,pdk->pkn", x, weights)
        loss = (keep * F.cross_entropy(logits, targets, reduction="none")).sum()
        loss = loss + (0.5 * penalties[:, None, None] * weights[:, :-1] ** 2).sum()
        loss.backward()
        return loss

    optimiser.step(closure)
    return weights.detach()


def standardise(features: torch.Tensor, mean: torch.Tensor, std: torch.Tensor) -> torch.Tensor:
    """Centre and scale features by the statistics of the source's training images; append a one for the bias.

    Shape:
        features (N, D), mean (D,), std (D,) -> (N, D + 1) float64. A feature that never fired on the source stays at 0.
    """
    scaled = torch.where(std > 1e-6, (features - mean) / std.clamp_min(1e-6), 0.0)
    return torch.cat([scaled, torch.ones(len(features), 1, device=features.device)], 1).double()


def probe(x: torch.Tensor, y: torch.Tensor, classes: int, seed: int) -> torch.Tensor:
    """Fit softmax regression on standardised features; choose its L2 penalty by 5-fold cross-validation inside them.

    Shape:
        x (N, D + 1) from `standardise`, y (N,) -> weights (D + 1, classes).
    """
    generator = torch.Generator().manual_seed(seed)
    fold = (torch.randperm(len(y), generator=generator) % FOLDS).to(x.device)  # (N,)
    grid = torch.tensor(PENALTIES, dtype=x.dtype, device=x.device)
    penalties = grid.repeat_interleave(FOLDS)  # (P * F,)
    keep = (fold != torch.arange(FOLDS, device=x.device)[:, None]).repeat(len(grid), 1).to(x.dtype)  # (P * F, N)
    weights = _fit(x, y, classes, penalties, keep)
    logits = torch.einsum("nd,pdk->pkn", x, weights)
    log_likelihood = -F.cross_entropy(logits, y.expand(len(penalties), -1), reduction="none")
    held_out = ((1 - keep) * log_likelihood).sum(1).view(len(grid), FOLDS).sum(1)  # (P,)
    best = grid[held_out.argmax()][None]
    return _fit(x, y, classes, best, torch.ones(1, len(y), dtype=x.dtype, device=x.device))[0]
