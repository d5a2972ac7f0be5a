"""Refined rankings against plain loops over one search at a time."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from index import Expansion, Reranking
from index.evaluation import GroundTruth, Judgement, Query, Refinement, by_labels, rankings
from index.evaluation.readers.naming import ukbench
from index.item import Vector
from index.ranking.reranking import METHODS
from tests.index.making import unit, units

RERANKS = st.none() | st.sampled_from(sorted(METHODS))


def plainly_searched(
    query: Vector, gallery: Vector, own: int, refinement: Refinement
) -> tuple[dict[int, float], list[int]]:
    """The scores that order the short list, and what follows it; the own picture comes last."""
    left = [at for at in range(len(gallery)) if at != own]
    if refinement.expansion:
        n, alpha = refinement.expansion.n, refinement.expansion.alpha
        total = query.astype(np.float64)
        for at in sorted(left, key=lambda at: -float(query @ gallery[at]))[:n]:
            total += max(float(query @ gallery[at]), 0) ** alpha * gallery[at]
        query = (total / np.linalg.norm(total)).astype(np.float32)
    left.sort(key=lambda at: -float(query @ gallery[at]))
    last = [own] if own >= 0 else []
    if not refinement.rerank:
        return {}, left + last
    short, rest = left[: refinement.rerank.shortlist], left[refinement.rerank.shortlist :]
    to = np.array([[query @ gallery[at] for at in short]], dtype=np.float32)
    within = np.array([[gallery[a] @ gallery[b] for b in short] for a in short], dtype=np.float32)
    scores = refinement.rerank.scores(to, within)[0]
    return {at: float(score) for at, score in zip(short, scores, strict=True)}, rest + last


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 10_000), RERANKS, st.none() | st.integers(1, 5), st.integers(3, 20))
def test_a_refined_ranking_is_the_plain_loop(
    seed: int, method: str | None, n: int | None, shortlist: int
) -> None:
    gallery = units(seed, 14)
    queries = np.concatenate([gallery[:3], units(seed + 1, 2)])
    given: dict[str, Any] = {"method": method, "shortlist": shortlist}
    given |= {"k1": 3, "k2": 2} if method == "k-reciprocal" else {"k": 3, "alpha": 0.5}
    refinement = Refinement(
        Expansion(n, alpha=2.0) if n else None, Reranking.of(given) if method else None
    )
    own = np.array([0, 1, 2, -1, -1])
    for at, order in enumerate(refinement.rankings(queries, gallery, own)):
        scores, rest = plainly_searched(queries[at], gallery, int(own[at]), refinement)
        assert order[len(scores) :].tolist() == rest
        assert set(order[: len(scores)].tolist()) == set(scores)
        # Equal scores, such as those of items with the same neighbours, may be apart by rounding.
        ordered = np.array([scores[int(index)] for index in order[: len(scores)]])
        assert (np.diff(ordered) <= 1e-5).all()


def test_nothing_to_do_is_the_plain_ranking() -> None:
    queries, gallery = units(1, 3), units(2, 9)
    found = Refinement().rankings(queries, gallery, np.full(3, -1))
    assert [f.tolist() for f in found] == [r.tolist() for r in rankings(queries, gallery)]


@pytest.mark.parametrize("method", sorted(METHODS))
def test_the_own_picture_does_not_pull_others_up(method: str) -> None:
    """Whatever the gallery has in its place, the ranking of the others is the same."""
    gallery, refinement = units(5, 12), Refinement(Expansion(n=2), Reranking.of(method))
    other = gallery.copy()
    other[0] = unit(99)
    query, own = gallery[:1], np.array([0])
    (order,), (again,) = (refinement.rankings(query, rows, own) for rows in (gallery, other))
    assert order.tolist() == again.tolist()
    assert order[-1] == 0


def test_own_pictures_are_those_that_are_junk() -> None:
    assert by_labels("pets", ["a", "b", "c"], ["x", None, "x"]).own.tolist() == [0, 2]
    assert ukbench([f"ukbench0000{n}.jpg" for n in range(4)]).own.tolist() == [-1] * 4
    one, none = np.array([1]), np.array([], dtype=np.int64)
    queries = [
        Query("b", {"easy": Judgement(np.array([0]), one), "hard": Judgement(none, one)}),
        Query("b", {"easy": Judgement(one), "hard": Judgement(none, one)}),
        Query("z", {"easy": Judgement(one), "hard": Judgement(one)}),
    ]
    assert GroundTruth("variants", ["a", "b"], queries).own.tolist() == [1, -1, -1]
