from typing import Any

import pytest

from index import CollectionError
from index.ranking.fusion import weights


def test_weights_are_scaled_to_sum_1() -> None:
    assert weights({"high": 2, "low": 6}) == {"high": 0.25, "low": 0.75}


def test_a_space_of_weight_0_is_left_out() -> None:
    assert weights({"high": 2, "low": 0}) == {"high": 1.0}


@pytest.mark.parametrize(
    "given",
    [
        {},
        {"high": 0},
        {"high": -1},
        {"high": 1, "low": -0.5},
        {"high": float("nan")},
        {"high": float("inf")},
        {"high": 1e308, "low": 1e308},
        {"high": "1"},
        {"high": True},
        {"high": None},
    ],
)
def test_weights_that_give_no_mean_are_refused(given: dict[str, Any]) -> None:
    with pytest.raises(CollectionError) as refused:
        weights(given)
    assert refused.value.code == "space-weights-invalid"
