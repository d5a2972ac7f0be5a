import math

import numpy as np
import pytest

from index.item import Vector
from index.ranking.reciprocal import reciprocal_scores
from tests.index.making import units
from tests.index.test_diffusion import _clusters


def _plain(query: Vector, gallery: Vector, k1: int, k2: int, weight: float) -> list[float]:
    """The paper with sets and loops: the query is item 0."""
    rows = np.concatenate([query[None], gallery]).astype(np.float64)
    everyone = range(len(rows))
    distance = [
        [0.0 if i == j else 1 - float(rows[i] @ rows[j]) for j in everyone] for i in everyone
    ]

    def near(p: int, k: int) -> set[int]:
        """The k nearest of p, and p, which is nearest to itself."""
        return set(sorted(everyone, key=lambda g: (g != p, distance[p][g]))[: k + 1])

    def reciprocal(p: int, k: int) -> set[int]:
        return {g for g in near(p, k) if p in near(g, k)}

    def expanded(p: int) -> set[int]:
        members = reciprocal(p, k1)
        for q in reciprocal(p, k1):
            small = reciprocal(q, round(k1 / 2))
            if len(reciprocal(p, k1) & small) >= len(small) * 2 / 3:
                members = members | small
        return members

    def encoded(p: int) -> dict[int, float]:
        weights = {g: math.exp(-distance[p][g]) for g in expanded(p)}
        return {g: value / sum(weights.values()) for g, value in weights.items()}

    alone = [encoded(p) for p in everyone]

    def smoothed(p: int) -> dict[int, float]:
        around = near(p, k2 - 1)
        return {g: sum(alone[q].get(g, 0) for q in around) / len(around) for g in everyone}

    encodings = [smoothed(p) for p in everyone]
    scores = []
    for g in everyone[1:]:
        smaller = sum(min(encodings[0][j], encodings[g][j]) for j in everyone)
        larger = sum(max(encodings[0][j], encodings[g][j]) for j in everyone)
        scores.append(1 - ((1 - weight) * (1 - smaller / larger) + weight * distance[0][g]))
    return scores


@pytest.mark.parametrize(
    ("k1", "k2", "weight"), [(1, 1, 0.3), (4, 1, 0.0), (6, 3, 0.3), (9, 6, 0.3), (20, 6, 0.3)]
)
def test_scores_are_those_of_sets_and_loops(k1: int, k2: int, weight: float) -> None:
    gallery, queries = _clusters(1, count=3, spread=0.8), _clusters(1, count=3, spread=1.2)[::6]
    found = reciprocal_scores(queries @ gallery.T, gallery @ gallery.T, k1, k2, weight)
    assert (found.dtype, found.shape) == (np.float32, (4, 24))
    for query, scores in zip(queries, found, strict=True):
        assert scores == pytest.approx(_plain(query, gallery, k1, k2, weight), abs=1e-5)


def test_weight_1_leaves_the_cosine() -> None:
    gallery, queries = units(1, 12), units(2, 3)
    cosines = queries @ gallery.T
    assert reciprocal_scores(cosines, gallery @ gallery.T, weight=1.0) == pytest.approx(cosines)


def test_a_hub_that_is_near_to_all_falls_behind_a_mutual_neighbour() -> None:
    """The query's nearest has three others that are nearer to it; the second has only the query."""
    angles = np.radians([10, 15, 16, 17, -12])
    gallery = np.stack([np.cos(angles), np.sin(angles)], axis=1).astype(np.float32)
    query = np.float32([[1, 0]])
    cosines = query @ gallery.T
    scores = reciprocal_scores(cosines, gallery @ gallery.T, k1=3, k2=1)[0]
    assert cosines[0].argmax() == 0
    assert scores.argmax() == 4
