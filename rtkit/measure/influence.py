"""Whom does a network learn from? The study behind notebook 03 (Utrera et al. 2021, section 6; Koh & Liang 2017)."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
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
RANKS = (1, 2, 5, 10, 20, 50, 100)  # of the curve by rank
CHECKPOINTS = 5  # of TracIn


@dataclass(frozen=True)
class Plan:
    """How much of the study a preset runs.

    Args:
        n_train: the claim's size, then sizes at which the standard source may reach the robust one's accuracy. 100
            images go with 650 parameters as 3,200 with 20,490 in the paper.
        steps: of fine-tuning, until the head interpolates; draws: subsets of the claim's size for each source.
        scales: what the logits of a head of the claim's size are multiplied by.
        n_proof, dims: images and principal components of the proof, n_proof >= 3 * 10 * (dims + 1); n_few: images of
            the head with more parameters than images, and of the search for wrong labels.
        removed: images left out one by one of the proof's heads; subsets: retrainings for LDS, each with a share of
            the images of `shares` percent; queries: test images of both; k: images removed together.
        retrained: images left out one by one of a fine-tuned network; descent: steps of gradient descent of its head.
        targets: see `tasks.target`; the proof is made on the first.
    """

    n_train: tuple[int, ...] = (100, 400, 900)
    steps: int = 160
    draws: int = 2
    scales: tuple[float, ...] = (0.5, 1, 2, 3, 4, 6)
    n_proof: int = 900
    dims: int = 24
    n_few: int = 400
    removed: int = 40
    subsets: int = 40
    shares: tuple[int, ...] = (10, 50, 90)
    queries: int = 60
    retrained: int = 5
    descent: int = 1000
    k: int = 20
    targets: tuple[str, ...] = TARGETS


@dataclass(frozen=True)
class Cell:
    """One source network on one target.

    Its `part` is "last_stage" (fine-tuned heads), "left_out" (what leaving images out does to such a head) or "proof"
    (exact heads on frozen features; `ridge` is of that with few parameters). Of `scales`, see `Plan`, there are none
    where confidence is left as it is.
    """

    source: Source
    seed: int
    target: str
    part: str
    n_train: int
    plan: Plan
    draw: int = 0
    scales: tuple[float, ...] = ()
    batch_size: int = 50
    lr: float = transfer.RATES["last_stage"]
    ridge: float = RIDGE

    def row(self, metric: str, value: float, n_test: int, score: str = "", rank: int = 0, **more) -> dict:
        """One observation: the transfer frame's columns, `score` (what ranks the images), `rank` and `draw`."""
        method = "fixed_feature" if self.part == "proof" else "last_stage"
        base = transfer.Cell(STUDY, self.source, self.seed, self.target, method).row(metric, value, n_test)
        return base | {"n_train": self.n_train, "score": score, "rank": rank, "draw": self.draw, "scale": 1.0} | more

    @property
    def config(self) -> dict:
        """All that decides its rows beside the code."""
        return {"cell": self, "compute": compute.kind()} | tasks.fingerprints(self.source.world, self.target)


def fine_tuned(cell: Cell, gone: tuple[int, ...] = (), order: int = 0) -> tuple[Head, Examples, Examples, Examples]:
    """Fine-tune the last stage; return the paper's head (no ridge, pseudo-inverse), then train, validation, test.

    Images of the subset that are `gone` it never sees; `order` is another one of the batches, 0 the cell's own.
    """
    task = tasks.target(cell.target, cell.source.world, cell.seed)
    net = models.with_new_head(cell.source.load()[0], len(task.classes), cell.seed)
    budget = {"steps": cell.plan.steps, "lr": cell.lr, "batch_size": cell.batch_size}
    method = methods.transfer("last_stage", blocks=models.blocks(cell.source.architecture), **budget)
    subset = task.subset(cell.n_train, cell.seed + 10_000 * cell.draw)
    train(net, subset[np.delete(np.arange(cell.n_train), gone)], method.phases, cell.seed + 10_000 * order)
    weights = torch.cat([net.head.weight, net.head.bias[:, None]], 1).detach().cpu().double()  # (K, D + 1)
    parts = [(with_ones(evaluation.features(net, one)), one.y) for one in (subset, task.validation, task.test)]
    return Head.of(weights, parts[0][0], 0.0, rtol=UTRERA_RTOL), *parts


def train_loss(weights: torch.Tensor, examples: Examples) -> float:
    """Mean loss of a head that may be surer than 1 - 1e-16, at which `influence.losses` is 0."""
    z = examples[0] @ weights.T
    others = (z - z.gather(1, examples[1][:, None])).scatter(1, examples[1][:, None], -torch.inf)
    return float(F.softplus(others.logsumexp(1)).mean())


def kept(head: Head) -> int:
    """How many directions a pseudo-inverse keeps: those in which it is not 0, at least a twentieth of its largest."""
    return int(torch.linalg.matrix_rank(head.inverse, rtol=UTRERA_RTOL / 2, hermitian=True))


def _last_stage_rows(cell: Cell) -> Iterator[dict]:
    with compute.stopwatch() as seconds:
        head, fitted, validation, test = fine_tuned(cell)
    spent, n = seconds(), len(test[1])
    said = (test[0] @ head.weights.T).argmax(1)
    right = said == test[1]
    for name, part in (("train_accuracy", fitted), ("validation_accuracy", validation), ("clean_accuracy", test)):
        share = float(((part[0] @ head.weights.T).argmax(1) == part[1]).double().mean())
        yield cell.row(name, share, len(part[1]), seconds=spent, gradients=cell.plan.steps * cell.batch_size)
    yield cell.row("train_loss", train_loss(head.weights, fitted), len(fitted[1]))
    for name, scores in rankings(head, fitted, test).items():
        match = influence.label_match(scores, fitted[1], test[1], max(RANKS))  # (N_test, ranks)
        yield cell.row("top1_match", match[:, 0].mean(), n, name)
        if not right.all():
            yield cell.row("top1_match_misclassified", match[~right.numpy(), 0].mean(), int((~right).sum()), name)
        if name == "influence":
            for rank in (rank for rank in RANKS if rank <= match.shape[1]):
                yield cell.row("match_at_rank", match[:, rank - 1].mean(), n, name, rank)
    for scale in cell.scales:  # the same head, more or less sure of what it says
        head_at = Head.of(scale * head.weights, fitted[0], 0.0, rtol=UTRERA_RTOL)
        yield cell.row("scaled_loss", train_loss(head_at.weights, fitted), len(fitted[1]), scale=scale)
        yield cell.row("scaled_kept", kept(head_at), len(fitted[1]), scale=scale)
        for name, labels in (("influence", test[1]), ("predicted", said)):
            scores = influence.influence(head_at, fitted, (test[0], labels))
            match = influence.label_match(scores, fitted[1], test[1], 1)
            yield cell.row("scaled_match", match.mean(), n, name, scale=scale)


def descended(examples: Examples, classes: int, steps: int, gone: np.ndarray) -> torch.Tensor:
    """Heads by plain descent of all images, and of all but one of `gone`: (CHECKPOINTS, 1 + gone, K, D)."""
    x, seen = examples[0].double(), torch.ones(1 + len(gone), 1, len(examples[1])).double()
    seen[range(1, 1 + len(gone)), 0, gone] = 0
    weights, path = x.new_zeros(len(seen), classes, x.shape[1]), []
    rate = 2 / torch.linalg.matrix_norm(x, 2) ** 2  # the curvature is at most half of the squared norm
    for step in range(1, steps + 1):
        residual = (weights @ x.T).softmax(1) - F.one_hot(examples[1], classes).T  # (1 + gone, K, N)
        weights = weights - rate * (residual * seen) @ x
        if step % (steps // CHECKPOINTS) == 0:
            path.append(weights)
    return torch.stack(path)


def _left_out_rows(cell: Cell) -> Iterator[dict]:
    plan, rng = cell.plan, np.random.default_rng([cell.seed, 32])
    head, fitted, _, test = fine_tuned(cell)
    test = tuple(part[: plan.queries] for part in test)
    before = influence.losses(head.weights, test)
    gone = rng.permutation(cell.n_train)[: plan.removed]

    def change(*other) -> torch.Tensor:
        there, _, _, seen = fine_tuned(cell, *other)
        return influence.losses(there.weights, (seen[0][: plan.queries], test[1])) - before

    def traced(path: torch.Tensor) -> torch.Tensor:  # TracIn, of one checkpoint or several
        return sum(influence.gradients(one, test) @ influence.gradients(one, fitted).T for one in path)

    path = descended(fitted, len(head.weights), plan.descent, gone)
    losses, last = influence.losses(path[-1], test), Head.of(path[-1, 0], fitted[0], 0.0, rtol=UTRERA_RTOL)
    truth = {"last_stage": torch.stack([change((i,)) for i in gone[: plan.retrained].tolist()], 1)}
    truth["head"] = (losses[1:] - losses[0]).T
    ways = {("last_stage", "influence"): influence.influence(head, fitted, test),
            ("last_stage", "products"): traced(head.weights[None]),
            ("head", "influence"): influence.influence(last, fitted, test),
            ("head", "products"): traced(path[-1:, 0]), ("head", "tracin"): traced(path[:, 0])}  # fmt: skip
    for (method, name), scores in ways.items():
        found = agreement(scores[:, gone[: truth[method].shape[1]]], truth[method])[0]
        yield cell.row("loo_pearson", found, plan.queries, name, method=method)
    yield cell.row("loo_noise", float(change((), 1).square().mean() / truth["last_stage"].square().mean()) ** 0.5, 1)
    yield cell.row("train_loss", train_loss(last.weights, fitted), cell.n_train, method="head")


def _proof_rows(cell: Cell) -> Iterator[dict]:
    plan = cell.plan
    rng = np.random.default_rng([cell.seed, 31])
    for n, dims, ridge in ((plan.n_proof, plan.dims, cell.ridge), (plan.n_few, None, FEW_RIDGE)):
        proof = frozen(cell.source, cell.target, n, dims, ridge)
        head, fitted, test = proof.head, proof.train, tuple(part[: plan.queries] for part in proof.test)
        removed = rng.permutation(n)[: plan.removed]
        true = influence.leave_one_out(head, fitted, test, removed)
        scores = rankings(head, fitted, test) | {"newton": influence.newton_influence(head, fitted, test)}
        drawn = {at: influence.draw_subsets(n, plan.subsets, cell.seed, at / 100)
                 for at in (plan.shares if dims else ())}  # fmt: skip
        measured = {at: influence.subset_losses(head, fitted, test, subsets) for at, subsets in drawn.items()}
        for name in ("influence", "newton", "products"):
            pearson, error = agreement(scores[name][:, removed], true)
            yield cell.row("loo_pearson", pearson, plan.queries, name, n_train=n)
            yield cell.row("loo_error", error, plan.queries, name, n_train=n)
            for at, subsets in drawn.items():
                lds = float(np.nanmean(influence.lds(scores[name], subsets, measured[at])))
                yield cell.row("lds", lds, plan.queries, name, at, n_train=n)
        if dims:
            yield from _removal_rows(cell, proof, scores["influence"], rng)
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
        yield from {"last_stage": _last_stage_rows, "left_out": _left_out_rows, "proof": _proof_rows}[cell.part](cell)
