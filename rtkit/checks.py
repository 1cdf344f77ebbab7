"""Checks of the notebooks' warm-up exercises: they say whether an answer is right, and if not, what to look at."""

from collections.abc import Callable, Sequence

import torch
from torch.nn.functional import cross_entropy

from rtkit.frames import by_seed, lead
from rtkit.threat import ThreatModel

NOTHING = "the function returns nothing; begin its last line with return."


def _say(right: bool, hint: str) -> bool:
    print("Right." if right else f"Not yet: {hint}")
    return right


def _compare(found, right, wrong: Sequence[tuple], hint: str, same: Callable) -> bool:
    """Compare an answer with the right one, and with wrong ones that tell what went wrong: (wrong answer, hint)."""
    if found is None:
        return _say(False, NOTHING)
    told = next((why for value, why in wrong if same(found, value)), hint)
    return _say(same(found, right), told)


def _near(tolerance: float) -> Callable:
    return lambda found, value: abs(float(found) - value) < tolerance


def at_least_one_false(share: float | None) -> bool:
    """Notebook 07: the share of worlds without effects in which at least one of twenty claims gets a false verdict."""
    if share is None:
        return _say(False, "put a number or a formula in place of None.")
    wrong = [
        (1, "that is the expected number of false verdicts; asked is how often there is one or more."),
        (0.95**20, "that is the share of worlds in which all twenty are right."),
    ]
    hint = "how often are all twenty right, if one is right in 95 cases of 100?"
    return _compare(share, 1 - 0.95**20, wrong, hint, _near(5e-3))


def shape_bias(answer) -> bool:
    """Notebook 02: a function of decisions, shapes and textures, (N,) tensors of classes -> the shape bias."""
    shape, texture = torch.tensor([0, 1, 2, 3, 4, 5, 6, 7]), torch.tensor([1, 2, 3, 4, 5, 6, 7, 0])
    decided = torch.tensor([0, 1, 2, 4, 5, 9, 9, 9])  # three for the shape, two for the texture, three for neither
    wrong = [
        (3 / 8, "decisions for neither cue do not count below the line."),
        (2 / 5, "that is the bias for the texture."),
        (3 / 2, "below the line stand both: decisions for the shape and for the texture."),
        (60, "a share between 0 and 1, please, not percent."),
    ]
    found = answer(decided, shape, texture)
    hint = f"three for the shape, two for the texture make 0.6, not {float(found or 0):.2f}."
    return _compare(found, 3 / 5, wrong, hint, _near(1e-3))


def success_rate(answer) -> bool:
    """Notebook 04: a function of decisions (N,), labels (N,) and attacked decisions (A, N) -> the success rate."""
    decided, y = torch.tensor([0, 1, 2, 9, 4]), torch.tensor([0, 1, 2, 3, 4])
    copies = torch.tensor([[0, 7, 2, 3, 7], [0, 7, 2, 8, 4]])  # right on four; of these the second and the fifth turn
    wrong = [
        (3 / 5, "an image that was wrong before the attack cannot be fooled."),
        (2 / 5, "only images that are right when clean count below the line."),
        (3 / 4, "an image that was wrong before the attack is not fooled by it."),
        (1 / 4, "it is enough if any copy of an image is wrong; not all must be."),
        (3 / 8, "count images, not copies."),
        (50, "a share between 0 and 1, please, not percent."),
    ]
    found = answer(decided, y, copies)
    hint = f"two of the four images that were right are fooled: 0.5, not {float(found or 0):.2f}."
    return _compare(found, 1 / 2, wrong, hint, _near(1e-3))


def removal_step(answer) -> bool:
    """Notebook 03: a function of pull (3,), curvature (3, 3) and own curvature of a point (3, 3) -> the step (3,)."""
    pull = torch.tensor([1.0, -2.0, 0.5], dtype=torch.float64)
    curvature = torch.tensor([[4.0, 1.0, 0.0], [1.0, 3.0, 0.5], [0.0, 0.5, 2.0]], dtype=torch.float64)
    own = 0.3 * torch.outer(pull, pull)
    right, solve = torch.linalg.solve(curvature - own, pull), torch.linalg.solve
    wrong = [
        (solve(curvature, pull), "this is first order: the missing point's own curvature is still there."),
        (solve(curvature + own, pull), "the point is taken away, and its curvature goes with it."),
        (-right, "mind the sign: without its pull the line moves the other way."),
        ((curvature - own) @ pull, "divide by the curvature (`torch.linalg.solve`), do not multiply by it."),
    ]

    def same(found, value) -> bool:
        return found.shape == value.shape and torch.allclose(found, value)

    return _compare(answer(pull, curvature, own), right, wrong, "solve with what is left of the curvature.", same)


def held_loss(answer) -> bool:
    """Notebook 05: a function (logits, y, features of the student, of the source, weight) -> the loss of LwF."""
    rng = torch.Generator().manual_seed(0)
    logits, ours, theirs = (torch.randn(4, size, generator=rng) for size in (10, 6, 6))
    y, hold, apart = torch.arange(4), 0.5, ours - theirs
    found = answer(logits, y, ours, theirs, hold)
    if not isinstance(found, torch.Tensor) or found.numel() != 1:
        return _say(False, "the function must return one number, a tensor that `backward` can start from.")
    added, right = float(found - cross_entropy(logits, y)), float(hold * apart.abs().sum(1).mean())
    wrong = [
        (0, "the term that holds the features is missing."),
        (right / hold, "multiply the distance by `hold`."),
        (-right, "a distance that should become small is added, not subtracted."),
        (right / 6, "sum over the features of a picture; only over pictures take the mean."),
        (4 * right, "take the mean over pictures, not the sum, so that the batch size does not matter."),
        (hold * float(apart.sum(1).mean()), "differences of either sign cancel: take absolute values."),
        (hold * float(apart.square().sum(1).mean()), "absolute values, not squares."),
        (hold * float(apart.norm(dim=1).mean()), "absolute values, not the Euclidean length."),
    ]
    hint = f"beside the cross-entropy it must add {right:.3f}, and adds {added:.3f}."
    return _compare(added, right, wrong, hint, _near(1e-4))


def coin(answer) -> bool:
    """Notebook 06: a function of two networks' (clean, robust) accuracies and the first one's share -> the coin's."""
    try:
        clean, robust = (float(value) for value in answer((96.0, 4.0), (84.0, 80.0), 0.25))
    except TypeError:
        return _say(False, "the function must return two numbers, clean and robust accuracy, in place of the dots.")
    wrong = [
        ((93, 23), "`share` belongs to the first network; the second gets the other throws."),
        ((90, 42), "that is a fair coin; use `share`."),
        ((96, 80), "one throw asks one network: nobody gets the better of both."),
        ((87, 23), "both axes take the same share."),
        ((84, 80), "the first network is asked as well."),
    ]
    hint = f"of (96, 4) and (84, 80) a quarter and three quarters make (87, 61), not ({clean:g}, {robust:g})."
    return _compare((clean, robust), (87, 61), wrong, hint, _alike)


def _alike(found: Sequence[float], values: Sequence[float]) -> bool:
    return max(abs(one - other) for one, other in zip(found, values, strict=True)) < 1e-6


def noise_lead(answer, main) -> bool:
    """Notebook 01: the lead of the noise source over the standard one, in points by replicate, from the judged rows."""

    def found(first: str, **where):
        return by_seed(main, lambda f: lead(f, first, method="last_stage", **where)).tolist()

    at, two = {"common": True}, {"target": ("digits", "lower")}
    right, answer = found("noise", **at, **two), list(answer) if hasattr(answer, "__len__") else []
    if len(answer) != len(right):
        return _say(False, "one number for each replicate, please: keep by_seed(main, ...).")
    wrong = [
        ([0.0] * len(right), 'put lead(f, "noise", ...) in place of 0.0.'),
        (found("noise", **at), "the standard source met a third target that the noise source did not: target=TWO."),
        (found("noise", **two), "the standard source was given other numbers of pictures as well: common=True."),
        (found("noise"), "compare like with like: target=TWO and common=True."),
        (found("robust", **at, **two), "that is the robust source."),
        ([-value for value in right], "that is standard minus noise."),
        ([value / 100 for value in right], "in points, please, not as shares."),
    ]
    return _compare(answer, right, wrong, 'the last stage is trained: method="last_stage".', _alike)


def l2_ball(answer) -> bool:
    """Notebook 00: a function of changes (N, 3, H, W) and a radius -> the nearest changes within the l2 ball."""
    # Two changes are too long, one by far; one is short enough, one is none.
    directions = torch.randn(4, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    delta = torch.tensor([9.0, 2.0, 0.5, 0.0]).view(-1, 1, 1, 1) * directions / directions.flatten(1).norm(dim=1)[0]
    try:
        found, right = answer(delta.clone(), 1.0), ThreatModel("l2", 1.0).project(delta)
    except RuntimeError as error:
        return _say(False, f"torch says: {error}. Lengths of shape (N, 1, 1, 1) fit changes of shape (N, 3, H, W).")
    if found is not None and found.shape != delta.shape:
        return _say(False, f"the shape must stay {tuple(delta.shape)}, got {tuple(found.shape)}; `view` the lengths.")
    if found is not None and not found.isfinite().all():
        return _say(False, "the last change is zero, and 0 / 0 is no number: `clamp` the factor or the length.")
    wrong = [
        (delta, "nothing is shortened yet."),
        (delta.clamp(-1, 1), "that is the l∞ ball: it limits each pixel, not the length of the whole change."),
        (delta / delta.norm(), "each image has a length of its own: `flatten(1)`, then `norm(dim=1)`."),
        (delta * min(1.0, 1 / float(delta.norm())), "each image has a length of its own, not the batch."),
    ]
    lengths = torch.zeros(4) if found is None else found.flatten(1).norm(dim=1)
    hint = "shorten a change, but keep its direction."
    if lengths[2] > delta[2].norm() + 1e-4:
        hint = "a change that is short enough must stay as it is: `clamp` the factor at 1."
    elif lengths.max() > 1 + 1e-4:
        hint = f"one change still has the length {float(lengths.max()):.2f}, and the radius is 1."
    return _compare(found, right, wrong, hint, lambda one, other: torch.allclose(one, other, atol=1e-5))
