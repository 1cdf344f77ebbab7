"""Whom does a network learn from? The study behind notebook 03 (Utrera et al. 2021, section 6; Koh & Liang 2017)."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
from sklearn.metrics import roc_auc_score

from rtkit import compute, evaluation, influence, methods, models, tasks
from rtkit.influence import UTRERA_RTOL, Examples, Head
from rtkit.measure import transfer
from rtkit.measure.heads import RIDGE, Frozen, agreement, frozen, rankings, with_ones
from rtkit.sources import Source
from rtkit.training import train

STUDY = "influence"
TARGETS = ("digits", "lower")  # of the glyph world
FEW_RIDGE = 0.1  # of the head with more parameters than images, where first-order influence fails
FLIPPED = 0.1  # share of training labels drawn anew among the wrong ones
INSPECTED = tuple(range(2, 101, 2))  # percent of the training images looked at, most suspicious first
RANKS = 100


@dataclass(frozen=True)
class Plan:
    """How much of the study a preset runs.

    Args:
        n_train: the claim's size, then sizes at which the standard source may reach the robust one's accuracy. At
            `glyphs` 100 images go with 650 parameters as 3,200 with 20,490 in the paper.
        steps: of fine-tuning, until the head interpolates: 20 epochs of 400 images, or 80 of 100.
        n_proof, dims: images and principal components of the proof, n_proof >= 3 * 10 * (dims + 1).
        n_few: images of the head with more parameters than images, and of the search for wrong labels.
        removed: images left out one by one; subsets: retrainings for LDS; queries: test images of both.
        k: images removed together.
        targets: see `tasks.target`; the proof is made on the first.
    """

    n_train: tuple[int, ...] = (100, 400, 900)
    steps: int = 160
    n_proof: int = 900
    dims: int = 24
    n_few: int = 400
    removed: int = 40
    subsets: int = 40
    queries: int = 60
    k: int = 20
    targets: tuple[str, ...] = TARGETS


@dataclass(frozen=True)
class Cell:
    """One source network on one target: `part` is "last_stage" (fine-tuned) or "proof" (frozen features)."""

    source: Source
    seed: int
    target: str
    part: str
    n_train: int
    plan: Plan
    batch_size: int = 50
    lr: float = transfer.RATES["last_stage"]
    ridge: ClassVar[float] = RIDGE  # of a proof's head with few parameters, and of the search for wrong labels

    def row(self, metric: str, value: float, n_test: int, score: str = "", rank: int = 0, **more) -> dict:
        """One observation: the transfer frame's columns, and `score` (what ranks the images) and `rank`."""
        method = self.part if self.part == "last_stage" else "fixed_feature"
        base = transfer.Cell(STUDY, self.source, self.seed, self.target, method).row(metric, value, n_test)
        return base | {"n_train": self.n_train, "score": score, "rank": rank} | more

    @property
    def config(self) -> dict:
        """All that decides its rows beside the code."""
        return {"cell": self, "compute": compute.kind()} | tasks.fingerprints(self.source.world, self.target)


@dataclass(frozen=True)
class Ridged(Cell):
    """A cell with another ridge; one of its own, so that the others are called as they were."""

    ridge: float = RIDGE


def fine_tuned(cell: Cell) -> tuple[Head, Examples, Examples, Examples]:
    """Fine-tune the last stage; return the paper's head (no ridge, pseudo-inverse), then train, validation, test."""
    task = tasks.target(cell.target, cell.source.world, cell.seed)
    net = models.with_new_head(cell.source.load()[0], len(task.classes), cell.seed)
    budget = {"steps": cell.plan.steps, "lr": cell.lr, "batch_size": cell.batch_size}
    method = methods.transfer("last_stage", blocks=models.blocks(cell.source.architecture), **budget)
    subset = task.subset(cell.n_train, cell.seed)
    train(net, subset, method.phases, cell.seed)
    weights = torch.cat([net.head.weight, net.head.bias[:, None]], 1).detach().cpu().double()  # (K, D + 1)
    parts = [(with_ones(evaluation.features(net, one)), one.y) for one in (subset, task.validation, task.test)]
    return Head.of(weights, parts[0][0], 0.0, rtol=UTRERA_RTOL), *parts


def _last_stage_rows(cell: Cell) -> Iterator[dict]:
    with compute.stopwatch() as seconds:
        head, fitted, validation, test = fine_tuned(cell)
    spent, n = seconds(), len(test[1])
    right = (test[0] @ head.weights.T).argmax(1) == test[1]
    for name, part in (("train_accuracy", fitted), ("validation_accuracy", validation), ("clean_accuracy", test)):
        share = float(((part[0] @ head.weights.T).argmax(1) == part[1]).double().mean())
        yield cell.row(name, share, len(part[1]), seconds=spent, gradients=cell.plan.steps * cell.batch_size)
    yield cell.row("train_loss", float(influence.losses(head.weights, fitted).mean()), len(fitted[1]))
    for name, scores in rankings(head, fitted, test).items():
        match = influence.label_match(scores, fitted[1], test[1], RANKS)  # (N_test, ranks)
        yield cell.row("top1_match", match[:, 0].mean(), n, name)
        yield cell.row("top5_match", (match[:, :5].sum(1) >= 3).mean(), n, name)
        if not right.all():
            yield cell.row("top1_match_misclassified", match[~right.numpy(), 0].mean(), int((~right).sum()), name)
        for rank, share in enumerate(match.mean(0), 1):
            yield cell.row("match_at_rank", share, n, name, rank)


def _proof_rows(cell: Cell) -> Iterator[dict]:
    plan = cell.plan
    rng = np.random.default_rng([cell.seed, 31])
    for n, dims, ridge in ((plan.n_proof, plan.dims, cell.ridge), (plan.n_few, None, FEW_RIDGE)):
        found = frozen(cell.source, cell.target, n, dims, ridge)
        head, fitted, test = found.head, found.train, tuple(part[: plan.queries] for part in found.test)
        removed = rng.permutation(n)[: plan.removed]
        true = influence.leave_one_out(head, fitted, test, removed)
        scores = rankings(head, fitted, test) | {"newton": influence.newton_influence(head, fitted, test)}
        subsets = influence.draw_subsets(n, plan.subsets, cell.seed)
        measured = influence.subset_losses(head, fitted, test, subsets) if dims else None
        for name in ("influence", "newton", "products"):
            pearson, error = agreement(scores[name][:, removed], true)
            yield cell.row("loo_pearson", pearson, plan.queries, name, n_train=n)
            yield cell.row("loo_error", error, plan.queries, name, n_train=n)
            if dims:
                lds = float(np.nanmean(influence.lds(scores[name], subsets, measured)))
                yield cell.row("lds", lds, plan.queries, name, n_train=n)
        if dims:
            yield from _removal_rows(cell, found, scores["influence"], rng)
    yield from _mislabelled_rows(cell)


def _removal_rows(cell: Cell, found: Frozen, scores: torch.Tensor, rng: np.random.Generator) -> Iterator[dict]:
    """Remove the k most helpful images of a test image, or k random ones: its loss's change, predicted and measured."""
    n, count, sums = len(found.train[1]), min(20, len(scores)), {"helpful": [], "random": []}
    for t in range(count):
        query = tuple(part[t : t + 1] for part in found.test)
        chosen = {"helpful": scores[t].topk(cell.plan.k).indices.numpy(), "random": rng.permutation(n)[: cell.plan.k]}
        for name, gone in chosen.items():
            after = influence.subset_losses(found.head, found.train, query, [np.delete(np.arange(n), gone)])
            change = float(after - influence.losses(found.head.weights, query))
            sums[name].append((float(scores[t, gone].sum()), change))
    for name, pairs in sums.items():
        for metric, values in zip(("removal_predicted", "removal_measured"), zip(*pairs, strict=True), strict=True):
            yield cell.row(metric, float(np.mean(values)), count, name, cell.plan.k, n_train=n)


def _mislabelled_rows(cell: Cell) -> Iterator[dict]:
    """How soon wrong labels are found by self-influence and by the loss of a training image itself."""
    n = cell.plan.n_few
    found = frozen(cell.source, cell.target, n, ridge=cell.ridge, flip=FLIPPED)
    wrong = (found.train[1] != found.train_images.y).numpy()
    suspects = {"self_influence": influence.self_influence(found.head, found.train)}
    suspects["loss"] = influence.losses(found.head.weights, found.train)
    for name, scores in suspects.items():
        yield cell.row("mislabelled_auc", roc_auc_score(wrong, scores.numpy()), n, name, n_train=n)
        order = wrong[scores.argsort(descending=True).numpy()]
        for percent in INSPECTED:
            share = order[: round(percent * n / 100)].sum() / wrong.sum()
            yield cell.row("mislabelled_found", share, n, name, percent, n_train=n)


def rows(cell: Cell) -> Iterator[dict]:
    """Compute the rows of one cell, on one thread."""
    with compute.one_thread():
        yield from (_last_stage_rows if cell.part == "last_stage" else _proof_rows)(cell)
