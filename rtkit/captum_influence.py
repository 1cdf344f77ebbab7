"""The same heads in captum.influence, to be compared with `rtkit.influence` on one model and the same data.

Both take features with a column of ones and a linear layer without bias, so that the bias counts as any weight.
"""

import warnings

import torch
from captum.influence import NaiveInfluenceFunction, TracInCPFast
from torch import nn
from torch.utils.data import TensorDataset

from rtkit.influence import Examples, Head


def _model(head: Head) -> nn.Sequential:
    classes, d = head.weights.shape
    model = nn.Sequential(nn.Linear(d, classes, bias=False)).double()
    model.load_state_dict({"0.weight": head.weights})
    return model


def _options(head: Head, train: Examples, reduction: str) -> dict:
    loss = nn.CrossEntropyLoss(reduction=reduction)
    return {"checkpoints_load_func": lambda *_: 1.0, "loss_fn": loss, "batch_size": len(train[1])}


def tracin(head: Head, train: Examples, test: Examples) -> torch.Tensor:
    """`TracInCPFast` with one checkpoint at learning rate 1: products of gradients. Shape: (N_test, N_train)."""
    model = _model(head)
    options = _options(head, train, "sum")
    return TracInCPFast(model, model[0], TensorDataset(*train), ["none"], **options).influence(test)


def naive(head: Head, train: Examples, test: Examples) -> torch.Tensor:
    """`NaiveInfluenceFunction` at full rank, damped by the ridge, in its fast mode. Shape: (N_test, N_train), in nats.

    By default it would keep the 50 largest eigenvalues and damp by 1e-6, as it knows of no weight decay.
    """
    options = _options(head, train, "sum") | {"projection_dim": None, "hessian_reg": head.ridge}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # the fast mode asks for a loss that sums, which this one does
        method = NaiveInfluenceFunction(
            _model(head), TensorDataset(*train), checkpoint="", sample_wise_grads_per_batch=True, **options
        )
        return method.influence(test)
