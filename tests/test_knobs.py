"""The knobs of notebooks: empty for the preset's own, a single value for a list of one, wrong ones refused by name."""

import numpy as np
import pytest

from rtkit.knobs import LIMITS
from rtkit.knobs import Knobs as knobs
from rtkit.measure import transfer


@pytest.mark.parametrize("empty", [None, [], ()])
def test_an_empty_knob_is_the_preset_s_own(empty):
    found = knobs(n_train=empty)
    assert found.changed == {}
    assert found.all("n_train", (100, 400)) == (100, 400)
    assert found.one("n_train", 100) == 100


@pytest.mark.parametrize("given", [50, [50], (50,), np.int64(50), np.array([50, 50])])
def test_a_value_means_a_list_of_one(given):
    found = knobs(n_train=given)
    assert found.changed == {"n_train": (50,)}
    assert type(found.one("n_train", 100)) is int
    assert knobs(trained="last_stage").all("trained", ()) == ("last_stage",)
    assert knobs(lr=1).one("lr", 0.1) == 1.0


@pytest.mark.parametrize(
    ("name", "value", "valid"),
    [
        ("n_train", 1, "whole numbers from 2 to 3600, or \\[\\] .*got 1"),
        ("n_train", [100, -5], "whole numbers from 2 to 3600"),
        ("n_train", 50.5, "whole numbers"),
        ("n_train", True, "whole numbers"),
        ("n_train", "50", "whole numbers.*'50'"),
        ("n_train", {"a": 1}, "whole numbers"),
        ("lr", float("nan"), "numbers from 0.0001 to 10"),
        ("lr", -0.1, "numbers from 0.0001 to 10"),
        ("trained", "heads", "some of fixed_feature, last_block.*'heads'"),
        ("trained", [3], "some of fixed_feature"),
    ],
)
def test_what_is_not_allowed_is_refused_with_what_would_do(name, value, valid):
    with pytest.raises(ValueError, match=f"{name} must be {valid}"):
        knobs(**{name: value})


def test_a_knob_of_one_value_refuses_several():
    with pytest.raises(ValueError, match="lr takes one value"):
        knobs(lr=[0.1, 0.3]).one("lr", 0.1)


def test_what_can_be_trained_is_what_notebook_01_has_rates_for():
    assert set(LIMITS["trained"]) == {*transfer.RATES, "probe"}
