"""Whom does a network learn from? The study behind notebook 03 (Utrera et al. 2021, section 6; Koh & Liang 2017)."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
import torch
from sklearn.metrics import roc_auc_score

from rtkit import compute, evaluation, influence, methods, models, presets, store, studies, tasks
from rtkit.influence import UTRERA_RTOL, Examples, Head
from rtkit.presets import Preset
from rtkit.sources import Source
from rtkit.studies import cells, transfer
from rtkit.studies.influence_heads import RIDGE, Frozen, agreement, frozen, one_thread, rankings, with_ones
from rtkit.studies.influence_plans import PLANS, Plan
from rtkit.training import train

STUDY = "influence"
MODULES = (*store.CELL_MODULES, "influence", "studies/influence_heads", "studies/influence")
FEW_RIDGE = 0.1  # of the head with more parameters than images, where first-order influence fails
FLIPPED = 0.1  # share of training labels drawn anew among the wrong ones
INSPECTED = tuple(range(2, 101, 2))  # percent of the training images looked at, most suspicious first
RANKS = 100


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
    lr: float = transfer.LEARNING_RATES["last_stage"]

    def row(self, metric: str, value: float, n_test: int, score: str = "", rank: int = 0, **more) -> dict:
        """One observation: the transfer frame's columns, and `score` (what ranks the images) and `rank`."""
        method = self.part if self.part == "last_stage" else "fixed_feature"
        base = cells.Cell(STUDY, self.source, self.seed, self.target, method).row(metric, value, n_test)
        return base | {"n_train": self.n_train, "score": score, "rank": rank} | more


def fine_tuned(cell: Cell) -> tuple[Head, Examples, Examples, Examples]:
    """Fine-tune the last stage; return the paper's head (no ridge, pseudo-inverse), then train, validation, test."""
    task = tasks.target(cell.target, cell.source.world, cell.seed)
    net = models.with_new_head(cell.source.load()[0], len(task.classes), cell.seed)
    budget = {"steps": cell.plan.steps, "lr": cell.lr, "batch_size": cell.batch_size}
    method = methods.transfer("last_stage", blocks=models.blocks(cell.source.architecture), **budget)
    subset = task.subset(cell.n_train, cell.seed)
    train(net, subset, method.phases, cell.seed)
    weights = with_ones(net.head.weight.detach().cpu())[:, :-1]
    weights = torch.cat([weights, net.head.bias.detach().cpu().double()[:, None]], 1)  # (K, D + 1)
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
    for n, dims, ridge in ((plan.n_proof, plan.dims, RIDGE), (plan.n_few, None, FEW_RIDGE)):
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
    found = frozen(cell.source, cell.target, n, flip=FLIPPED)
    wrong = (found.train[1] != found.train_images.y).numpy()
    suspects = {"self_influence": influence.self_influence(found.head, found.train)}
    suspects["loss"] = influence.losses(found.head.weights, found.train)
    for name, scores in suspects.items():
        yield cell.row("mislabelled_auc", roc_auc_score(wrong, scores.numpy()), n, name, n_train=n)
        order = wrong[scores.argsort(descending=True).numpy()]
        for percent in INSPECTED:
            share = order[: round(percent * n / 100)].sum() / wrong.sum()
            yield cell.row("mislabelled_found", share, n, name, percent, n_train=n)


def _key(cell: Cell) -> dict:
    return {"cell": cell, "compute": compute.kind()} | tasks.fingerprints(cell.source.world, cell.target)


def rows(cell: Cell) -> list[dict]:
    """The rows of one cell, from the cache or computed."""
    make = _last_stage_rows if cell.part == "last_stage" else _proof_rows
    with one_thread():
        return store.cell(STUDY, _key(cell), MODULES, lambda: list(make(cell)))


def _is_cached(cell: Cell) -> bool:
    return store.cell_path(STUDY, _key(cell), MODULES).exists()


def sources(preset: Preset, seed: int) -> dict[str, Source]:
    """The standard and the robust source network of a replicate."""
    return {name: Source.of(preset, name, eps, seed) for name, eps in (("standard", 0.0), ("robust", preset.main_eps))}


def plan(preset: str, seeds: Sequence[int] | None = None, targets: Sequence[str] = ()) -> list[Cell]:
    """All cells of the study at a preset, without computing any.

    Args:
        targets: data sets by name, fine-tuned on beside the study's own targets.
    """
    chosen, size, made = presets.get(preset), studies.size(STUDY, PLANS, preset), []
    for seed in presets.replicates(chosen, seeds):
        both = sources(chosen, seed)
        other = Source.of(chosen, "standard", 0.0, seed + 1000)  # two sources of a kind: no difference to be found
        for target in (*size.targets, *targets):
            sizes = studies.sizes(size.n_train, target, chosen.world, seed)
            wanted = [(both["standard"], n) for n in sizes] + [(both["robust"], n) for n in sizes[:2]]
            made += [Cell(one, seed, target, "last_stage", n, size) for one, n in [*wanted, (other, sizes[0])]]
        made += [Cell(one, seed, size.targets[0], "proof", size.n_proof, size) for one in both.values()]
    return made


def run(preset: str = "glyphs", seeds: Sequence[int] | None = None, targets: Sequence[str] = ()) -> pd.DataFrame:
    """Make the frame of the study, cell by cell; cells and networks in the cache are read.

    Args:
        targets: data sets by name, fine-tuned on beside the study's own targets.

    Returns:
        The columns of `transfer.run`, and `score` (what ranks the training images) and `rank` (the image's, the
        percentage inspected, or the number removed). Matches, shares and accuracies are fractions, losses nats.

    Raises:
        ValueError: as `transfer.run`.
    """
    return studies.frame(preset, plan(preset, seeds, targets), rows, _is_cached)
