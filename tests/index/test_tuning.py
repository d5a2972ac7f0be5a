"""Which parameters are chosen, from what is measured with them."""

from collections.abc import Mapping

import faiss
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from index import tuning
from index.exhaustive import best_scores, recall
from index.generation import Generation, Sealed
from index.tuning import CANDIDATES, EF_SEARCH, Tuned
from tests.index.making import units

SEALED = Sealed(kind="ivf-pq", why="", count=0, built=0, high_key=0, removal_seq=0)


@given(st.integers(0, 3_000))
def test_a_graph_gets_the_fewest_steps_that_reach_the_recall(enough: int) -> None:
    def measured(parameters: Mapping[str, int]) -> Tuned:
        return Tuned(parameters, 0.99 if parameters["efSearch"] >= enough else 0.5, 1.0)

    chosen = tuning.SEARCHES["hnsw"](Generation(SEALED, None), measured, 0.98)
    reaching = [steps for steps in EF_SEARCH if steps >= enough]
    assert chosen.parameters["efSearch"] == (reaching[0] if reaching else EF_SEARCH[-1])
    assert (chosen.recall >= 0.98) == bool(reaching)


@given(enough=st.integers(1, 500), needed=st.integers(10, 700), dear=st.floats(0.0001, 0.1))
def test_lists_and_candidates_are_the_fastest_pair_that_reaches_the_recall(
    enough: int, needed: int, dear: float
) -> None:
    """As a model has it, in which more candidates let fewer lists do, at a price."""

    def measured(parameters: Mapping[str, int]) -> Tuned:
        nprobe, candidates = parameters["nprobe"], parameters["candidates"]
        reached = candidates >= needed and nprobe >= enough * (1 + needed / candidates)
        return Tuned(parameters, 0.99 if reached else 0.5, nprobe + dear * candidates)

    index = faiss.index_factory(8, "IVF600,Flat", faiss.METRIC_INNER_PRODUCT)
    chosen = tuning.SEARCHES["ivf-pq"](Generation(SEALED, index), measured, 0.98)
    pairs = [
        measured({"nprobe": nprobe, "candidates": candidates})
        for nprobe in tuning._ladder(600)
        for candidates in CANDIDATES
    ]
    reaching = [pair for pair in pairs if pair.recall >= 0.98]
    if reaching:
        assert chosen.recall >= 0.98
        # The first that is no faster ends the search, although another step might have been.
        assert chosen.latency_ms <= 1.5 * min(pair.latency_ms for pair in reaching)
    else:
        assert chosen.recall == 0.5


def test_the_true_answers_are_those_of_comparing_with_all() -> None:
    vectors, queries = units(1, 300, 8), units(2, 5, 8)
    keys = np.arange(100, 400)
    chunks = [(keys[:7], vectors[:7]), (keys[7:], vectors[7:])]
    found = best_scores(queries, 12, lambda some: np.tile(some % 3 == 0, (5, 1)), chunks)
    for query, scores in zip(queries, found, strict=True):
        allowed = [float(query @ vectors[n]) for n in range(300) if keys[n] % 3 != 0]
        assert scores == pytest.approx(sorted(allowed, reverse=True)[:12], abs=1e-6)


def test_where_there_are_fewer_the_answers_are_fewer() -> None:
    nobody = best_scores(units(1, 2, 8), 5, lambda some: np.zeros((2, some.size), bool), [])
    assert [scores.size for scores in nobody] == [0, 0]
    three = best_scores(
        units(1, 2, 8),
        5,
        lambda some: np.zeros((2, some.size), bool),
        [(np.arange(3), units(3, 3, 8))],
    )
    assert [scores.size for scores in three] == [3, 3]


def test_any_of_the_items_with_the_last_score_is_right() -> None:
    best = np.float32([0.9, 0.8, 0.8])
    assert recall(np.float32([0.9, 0.8, 0.8]), best) == 1
    assert recall(np.float32([0.9, 0.8]), best) == pytest.approx(2 / 3)
    assert recall(np.float32([]), best) == 0
    assert recall(np.float32([]), np.float32([])) == 1
