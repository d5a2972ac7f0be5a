"""Measures against the check values of the protocol's authors, and against plain loops."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from index import CollectionError
from index.evaluation import measures
from index.evaluation.measures import measure, ranks_of
from tests.index.evaluation import plainly

rank_lists = st.sets(st.integers(0, 300), min_size=1, max_size=40).map(sorted)


def test_check_values_of_the_protocol() -> None:
    assert measure("mAP")(np.array([0, 2, 5])) == pytest.approx(0.677778, abs=1e-6)
    positives, junk = np.array([0, 2, 6, 10, 20]), np.array([1, 8, 9, 30])
    assert ranks_of(np.arange(40), positives, junk).tolist() == [0, 1, 5, 7, 17]


def test_perfect_and_worst_rankings() -> None:
    assert measure("mAP")(np.arange(7)) == 1
    assert measure("mAP-steps")(np.arange(7)) == 1
    # One positive at rank r: half of 1/(r+1), and half of the 0 before it.
    assert measure("mAP")(np.array([9])) == pytest.approx(0.05)
    assert measure("UKBench")(np.arange(4)) == 4


@given(rank_lists)
def test_measures_are_those_of_plain_loops(ranks: list[int]) -> None:
    found = np.array(ranks)
    assert measure("mAP")(found) == pytest.approx(plainly.trapezoids(ranks), abs=1e-9)
    assert measure("mAP-steps")(found) == pytest.approx(plainly.steps(ranks), abs=1e-9)
    assert measure("mAP")(found) <= measure("mAP-steps")(found) + 1e-12
    for k in (1, 4, 10, 1000):
        assert measure(f"mP@{k}")(found) == pytest.approx(plainly.precision(ranks, k))
        assert measure(f"recall@{k}")(found) == pytest.approx(plainly.recall(ranks, k))


@given(st.lists(st.lists(st.booleans(), min_size=9, max_size=9), min_size=1, max_size=6))
def test_many_rankings_at_once_are_measured_as_each_alone(relevant: list[list[bool]]) -> None:
    for found, row in zip(measures.average_precisions(np.array(relevant)), relevant, strict=True):
        ranks = [rank for rank, right in enumerate(row) if right]
        expected = plainly.trapezoids(ranks) if ranks else np.nan
        assert found == pytest.approx(expected, nan_ok=True)


@given(st.data(), st.integers(1, 60))
def test_junk_is_removed_as_if_it_had_never_been_there(data: st.DataObject, n: int) -> None:
    ranking = data.draw(st.permutations(range(n)))
    positives = data.draw(st.sets(st.integers(0, n - 1)))
    junk = data.draw(st.sets(st.integers(0, n - 1)))
    ranks = ranks_of(
        np.array(ranking), np.array(sorted(positives), int), np.array(sorted(junk), int)
    )
    assert ranks.tolist() == plainly.lowered(ranking, positives, junk)


@given(rank_lists)
def test_interpolated_precision_is_the_best_at_this_recall_or_higher(ranks: list[int]) -> None:
    curve = measures.interpolated_precision(np.array(ranks))
    for percent in (0, 1, 29, 50, 99, 100):
        best = max(
            (found + 1) / (rank + 1)
            for found, rank in enumerate(ranks)
            if 100 * (found + 1) >= percent * len(ranks)
        )
        assert curve[percent] == pytest.approx(best)


@pytest.mark.parametrize("name", ["map", "mP@0", "mP@", "recall@x", "F1@5", "mAP@5"])
def test_an_unknown_measure_is_refused(name: str) -> None:
    with pytest.raises(CollectionError) as refused:
        measure(name)
    assert refused.value.code == "evaluation-measure-unknown"
