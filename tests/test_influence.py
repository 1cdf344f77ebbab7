"""Last-layer influence against autograd, scikit-learn, captum, work on paper, and the truth: leaving images out."""

import warnings

import numpy as np
import pytest
import scipy.linalg
import torch
from captum.influence import NaiveInfluenceFunction, TracInCPFast
from sklearn.linear_model import LogisticRegression
from torch import nn
from torch.utils.data import TensorDataset

from rtkit import influence
from rtkit.influence import Examples, Head


@pytest.fixture(autouse=True)
def one_thread():
    """Matrices this small gain nothing from a second thread and lose much where it has to wait for a core."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def problem(n: int, d: int, classes: int, n_test: int = 50) -> tuple[Examples, Examples]:
    """Overlapping Gaussian classes with a tenth of the labels drawn anew; d features and a column of ones."""
    rng = np.random.default_rng(0)
    means = 2 * rng.normal(size=(classes, d)) / np.sqrt(d)

    def draw(n: int) -> Examples:
        y = rng.integers(classes, size=n)
        x = np.hstack([rng.normal(size=(n, d)) + means[y], np.ones((n, 1))])
        y = np.where(rng.random(n) < 0.1, rng.integers(classes, size=n), y)
        return torch.from_numpy(x), torch.from_numpy(y)

    return draw(n), draw(n_test)


def fitted(train: Examples, classes: int, ridge: float) -> Head:
    return Head.of(influence.fit(train, classes, ridge), train[0], ridge)


def gradient_products(head: Head, train: Examples, test: Examples) -> torch.Tensor:
    return influence.influence(Head(head.weights, 0, torch.eye(len(head.inverse)).double()), train, test)


def pearson(a: torch.Tensor, b: torch.Tensor) -> float:
    return float(torch.corrcoef(torch.stack([a.flatten(), b.flatten()]))[0, 1])


def relative_error(predicted: torch.Tensor, true: torch.Tensor) -> float:
    return float((predicted - true).norm() / true.norm())


def test_losses_gradients_and_hessian_equal_autograd():
    train, _ = problem(12, 3, 3)
    weights = torch.randn(3, 4, generator=torch.Generator().manual_seed(0)).double()

    def one(flat, x, y):
        return nn.functional.cross_entropy(x @ flat.view(3, 4).T, y, reduction="sum")

    def objective(flat):
        return one(flat, *train) + 0.35 * flat.square().sum()

    per_image = [(weights.flatten(), x[None], y[None]) for x, y in zip(*train, strict=True)]
    torch.testing.assert_close(influence.losses(weights, train), torch.stack([one(*each) for each in per_image]))
    expected = [torch.autograd.functional.jacobian(lambda w, x=x, y=y: one(w, x, y), w) for w, x, y in per_image]
    torch.testing.assert_close(influence.gradients(weights, train), torch.stack(expected))
    expected = torch.autograd.functional.hessian(objective, weights.flatten())
    torch.testing.assert_close(influence.hessian(weights, train[0], 0.7), expected)


@pytest.mark.parametrize("ridge", [0, 0.05, 1.0])
def test_fit_equals_scikit_learn(ridge):
    train, test = problem(150, 5, 3)
    weights = influence.fit(train, 3, ridge)
    # The column of ones is penalised as any other, which to scikit-learn is a model without intercept.
    theirs = LogisticRegression(C=1 / ridge if ridge else np.inf, fit_intercept=False, tol=1e-10, max_iter=5000)
    theirs.fit(train[0].numpy(), train[1].numpy())
    expected = theirs.predict_proba(test[0].numpy())
    np.testing.assert_allclose((test[0] @ weights.T).softmax(1), expected, atol=1e-4)
    gradient = influence.gradients(weights, train).sum(0) + ridge * weights.flatten()
    assert gradient.abs().max() < 1e-8


def test_without_a_ridge_separable_classes_have_no_optimum():
    train, _ = problem(30, 40, 3)  # fewer images than features
    with pytest.raises(ValueError, match="no finite optimum"):
        influence.fit(train, 3, ridge=0)
    assert influence.fit(train, 3, ridge=1e-3).isfinite().all()
    x = torch.tensor([-1.0, -2.0, 1.0, 2.0, 1.0, 2.0])[:, None]  # the first class stands apart, the others overlap
    with pytest.raises(ValueError, match="no finite optimum"):
        influence.fit((x, torch.tensor([0, 0, 1, 2, 2, 1])), 3, ridge=0)


def test_one_feature_on_paper():
    """Zero weights, so p = 1/2; curvature of the difference of logits a = sum x^2 / 4 = 1.5, and 2 a + ridge = 4.

    With the residual r = +-1/2 of class 1, influence is 2 r_test r_i x_test x_i / 4. Without image i the curvature is
    1.25, 0.5, 1.25, so the Newton step is r_i x_i / (3.5, 2, 3.5) on class 1 and its negative on class 0.
    """
    train = torch.tensor([[1.0], [2.0], [-1.0]]), torch.tensor([1, 0, 0])
    test = torch.tensor([[2.0]]), torch.tensor([1])
    head = Head.of(torch.zeros(2, 1), train[0], ridge=1)
    np.testing.assert_allclose(influence.influence(head, train, test), [[0.25, -0.5, 0.25]])
    np.testing.assert_allclose(influence.self_influence(head, train), [0.125, 0.5, 0.125])
    steps = influence.removal_steps(head, train)[:, :, 0]
    np.testing.assert_allclose(steps, [[1 / 7, -1 / 7], [-1 / 2, 1 / 2], [1 / 7, -1 / 7]])
    expected = np.logaddexp(0, [4 / 7, -2, 4 / 7]) - np.log(2)
    np.testing.assert_allclose(influence.newton_influence(head, train, test)[0], expected)


@pytest.mark.parametrize("ridge", [0.05, 1.0])
def test_influence_predicts_leaving_images_out(ridge):
    train, test = problem(500, 16, 4)  # 68 parameters
    head = fitted(train, 4, ridge)
    removed = np.arange(0, 500, 5)
    true = influence.leave_one_out(head, train, test, removed)
    first, newton = (f(head, train, test) for f in (influence.influence, influence.newton_influence))
    products = gradient_products(head, train, test)
    assert pearson(first[:, removed], true) >= 0.99 > 0.95 > pearson(products[:, removed], true)
    assert pearson(newton[:, removed], true) >= 0.99
    assert relative_error(newton[:, removed], true) <= 0.1
    assert relative_error(newton[:, removed], true) < relative_error(first[:, removed], true)

    subsets = influence.draw_subsets(500, 40, seed=0)
    measured = influence.subset_losses(head, train, test, subsets)
    score = influence.lds(first, subsets, measured).mean()
    assert score >= 0.9
    assert score > influence.lds(products, subsets, measured).mean()
    shuffled = first[:, torch.randperm(500, generator=torch.Generator().manual_seed(0))]
    assert abs(influence.lds(shuffled, subsets, measured).mean()) < 0.15


def test_with_more_parameters_than_images_first_order_influence_fails():
    train, test = problem(300, 32, 10)  # 330 parameters
    head = fitted(train, 10, 0.1)
    removed = np.arange(0, 300, 6)
    true = influence.leave_one_out(head, train, test, removed)
    first, newton = (f(head, train, test)[:, removed] for f in (influence.influence, influence.newton_influence))
    assert pearson(first, true) < 0.92 < pearson(newton, true)
    assert relative_error(first, true) > 0.5 > relative_error(newton, true)


def test_leaving_one_out_is_training_without_it():
    train, test = problem(80, 3, 3, n_test=9)
    truth = influence.leave_one_out(fitted(train, 3, 0.5), train, test, [7, 30])
    x, y = (part.numpy() for part in train)

    def test_losses(keep):
        model = LogisticRegression(C=2, fit_intercept=False, tol=1e-10, max_iter=5000).fit(x[keep], y[keep])
        return -model.predict_log_proba(test[0].numpy())[np.arange(9), test[1]]

    everything = np.arange(80)
    expected = [test_losses(everything != i) - test_losses(everything >= 0) for i in (7, 30)]
    np.testing.assert_allclose(truth.T, expected, atol=1e-5)


def test_removal_step_solves_with_the_hessian_without_the_image():
    train, _ = problem(40, 3, 3)
    head = fitted(train, 3, 0.2)
    steps = influence.removal_steps(head, train)
    for i in (0, 25):
        without = torch.arange(40) != i
        hessian = influence.hessian(head.weights, train[0][without], 0.2)
        expected = torch.linalg.solve(hessian, influence.gradients(head.weights, train)[i])
        torch.testing.assert_close(steps[i].flatten(), expected)


def test_pseudo_inverse_and_a_shift_of_all_classes():
    """An interpolating head as given, as Utrera et al. have it: no ridge, fewer images than features."""
    train, test = problem(30, 40, 3)
    weights = torch.randn(3, 41, generator=torch.Generator().manual_seed(0)).double()
    hessian = influence.hessian(weights, train[0], ridge=0)
    with pytest.raises(ValueError, match="singular"):
        influence.inverse(hessian)
    head = Head.of(weights, train[0], 0, rtol=influence.UTRERA_RTOL)
    torch.testing.assert_close(head.inverse, torch.linalg.pinv(hessian, rtol=5e-2))
    scores = influence.influence(head, train, test)
    g_train, g_test = (influence.gradients(weights, each).numpy() for each in (train, test))
    np.testing.assert_allclose(scores, g_test @ scipy.linalg.pinv(hessian.numpy(), rtol=5e-2) @ g_train.T, atol=1e-9)
    shifted = Head.of(weights + torch.linspace(-2, 2, 41).double(), train[0], 0, rtol=influence.UTRERA_RTOL)
    for f in (influence.influence, influence.newton_influence):
        torch.testing.assert_close(f(shifted, train, test), f(head, train, test))


def test_rounding_does_not_hide_that_a_hessian_is_singular():
    train, _ = problem(40, 3, 3)
    for weights in torch.randn(300, 3, 4, generator=torch.Generator().manual_seed(0)):
        with pytest.raises(ValueError, match="singular"):
            Head.of(weights, train[0], ridge=0)


def test_too_many_parameters_are_refused():
    with pytest.raises(ValueError, match=r"20,500 parameters \(10 classes x 2050 features\).*20,490.*PCA"):
        influence.hessian(torch.zeros(10, 2050), torch.zeros(5, 2050), ridge=1)


def test_memory_bound_and_precision_of_the_features_change_no_result(monkeypatch):
    train, test = problem(50, 4, 3)
    train, test = ((x.float(), y) for x, y in (train, test))
    head = fitted(train, 3, 1.0)
    functions = influence.influence, influence.newton_influence
    whole = [f(head, train, test) for f in functions]
    assert {scores.dtype for scores in whole} == {torch.float64}
    monkeypatch.setattr(influence, "CHUNK", 500)
    double = [(x.double(), y) for x, y in (train, test)]
    for f, scores in zip(functions, whole, strict=True):
        torch.testing.assert_close(f(fitted(double[0], 3, 1.0), *double), scores)


def test_self_influence_finds_wrong_labels():
    (x, y), _ = problem(300, 8, 3)
    wrong = torch.arange(300) % 10 == 0
    train = x, torch.where(wrong, (y + 1) % 3, y)
    head = fitted(train, 3, 1.0)
    scores = influence.self_influence(head, train)
    torch.testing.assert_close(scores, influence.influence(head, train, train).diagonal())
    found = wrong[scores.argsort(descending=True)[:90]].sum() / wrong.sum()
    assert found > 0.6  # among the 30 % inspected


def test_lds_of_sums_is_one_whatever_their_scale():
    generator = torch.Generator().manual_seed(0)
    scores = torch.randn(20, 60, generator=generator)
    subsets = influence.draw_subsets(60, 50, seed=0, alpha=0.25)
    assert subsets.shape == (50, 15)
    assert all(len(set(subset)) == 15 for subset in subsets.tolist())
    additive = torch.stack([5 - 3 * scores[:, subset].sum(1) for subset in subsets])
    np.testing.assert_allclose(influence.lds(scores, subsets, additive), np.ones(20))
    np.testing.assert_allclose(influence.lds(-scores, subsets, additive), -np.ones(20))
    unrelated = torch.randn(20, 60, generator=generator)
    assert abs(influence.lds(unrelated, subsets, additive).mean()) < 0.15


def test_label_match_by_hand():
    train_y = torch.tensor([0, 1, 0, 1, 1])
    scores = torch.tensor([[5.0, 4.0, 3.0, 2.0, 1.0], [-1.0, 0.5, -3.0, 0.1, 0.2]])
    match = influence.label_match(scores, train_y, torch.tensor([0, 1]))
    assert match.tolist() == [[True, False, True, False, False], [True, True, True, False, False]]
    assert (match[:, :5].sum(1) >= 3).mean() == 0.5
    assert influence.label_match(scores, train_y, torch.tensor([0, 1]), ranks=2).mean(0).tolist() == [1, 0.5]


def linear(weights: torch.Tensor, *, bias: bool = False) -> nn.Sequential:
    model = nn.Sequential(nn.Linear(weights.shape[1] - bias, len(weights), bias=bias)).double()
    features = model[0].in_features
    model.load_state_dict({"0.weight": weights[:, :features]} | ({"0.bias": weights[:, -1]} if bias else {}))
    return model


def test_captum_tracin_is_the_product_of_gradients():
    """`TracInCPFast` gives, for one checkpoint at learning rate 1, (x . x') (r . r'): positive = helpful, for either
    reduction of the loss. It leaves out the gradient of a bias, which takes a column of ones to be counted."""
    train, test = problem(60, 4, 4)
    head = fitted(train, 4, 1.0)
    products = gradient_products(head, train, test)
    g_train, g_test = (influence.gradients(head.weights, each) for each in (train, test))
    torch.testing.assert_close(products, g_test @ g_train.T)

    def tracin(model, train, test):
        loss = nn.CrossEntropyLoss(reduction="sum")
        options = {"checkpoints": ["none"], "checkpoints_load_func": lambda *_: 1.0, "loss_fn": loss, "batch_size": 16}
        return TracInCPFast(model, model[0], TensorDataset(*train), **options).influence(test)

    torch.testing.assert_close(tracin(linear(head.weights), train, test), products)
    bias = influence.residuals(head.weights, test) @ influence.residuals(head.weights, train).T
    train, test = ((x[:, :-1], y) for x, y in (train, test))
    torch.testing.assert_close(tracin(linear(head.weights, bias=True), train, test), products - bias)


@pytest.mark.parametrize(("ridge", "tolerance"), [(1.0, 1e-10), (0.1, 1e-7)])
def test_captum_naive_influence_agrees_at_full_rank(ridge, tolerance):
    """`NaiveInfluenceFunction` with projection_dim=None (default: the 50 largest eigenvalues) and hessian_reg=ridge
    (default: 1e-6, as it knows of no weight decay) has our scale and sign: its Hessian is a sum over images, and
    positive is helpful. It holds the damping in float32, hence the tolerance where the ridge is no power of two. By
    default, eigenvalues below 1e-5 go, here the shifts of all classes. Halving the rank ruins the scores."""
    train, test = problem(60, 4, 4)
    head = fitted(train, 4, ridge)
    ours = influence.influence(head, train, test)

    def naive(**options):
        options = {"loss_fn": nn.CrossEntropyLoss(reduction="none"), "batch_size": 60, "checkpoint": ""} | options
        options |= {"checkpoints_load_func": lambda *_: 1.0}
        method = NaiveInfluenceFunction(linear(head.weights), TensorDataset(*train), **options)
        return method.influence(test), method.R.shape[1]

    scores, rank = naive(projection_dim=None, hessian_reg=ridge)
    assert rank == 20
    assert relative_error(scores, ours) < tolerance
    with warnings.catch_warnings():  # the fast mode asks for a loss that sums, and gets one, as in notebook 03
        warnings.simplefilter("ignore", UserWarning)
        fast = {"sample_wise_grads_per_batch": True, "loss_fn": nn.CrossEntropyLoss(reduction="sum")}
        scores, rank = naive(projection_dim=None, hessian_reg=ridge, **fast)
    assert rank == 20
    assert relative_error(scores, ours) < tolerance
    scores, rank = naive()
    assert rank == 15
    assert 0.04 < relative_error(scores, ours) < 0.3
    scores, rank = naive(projection_dim=10, hessian_reg=ridge)
    assert relative_error(scores, ours) > 0.5
