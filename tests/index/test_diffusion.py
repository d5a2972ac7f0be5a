import numpy as np
import pytest

from index.item import Vector
from index.ranking.diffusion import diffused_scores, transitions
from tests.index.making import units

K, SEEDS, GAMMA, ALPHA = 6, 3, 3.0, 0.9


def _clusters(seed: int, count: int = 4, each: int = 8, spread: float = 0.5) -> Vector:
    """Unit vectors about a few centres, (count·each, 16)."""
    noise = np.random.default_rng(seed + 100).standard_normal((count * each, 16)) * spread / 4
    rows = np.repeat(units(seed, count), each, axis=0) + noise
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)


def _graph(gallery: Vector, k: int, gamma: float) -> np.ndarray:
    """S by the definition, edge by edge."""
    count = len(gallery)
    cosines = gallery.astype(np.float64) @ gallery.T.astype(np.float64)
    near = [
        set(sorted((j for j in range(count) if j != i), key=lambda j: -cosines[i, j])[:k])
        for i in range(count)
    ]
    affinity = np.zeros((count, count))
    for i in range(count):
        for j in range(count):
            if j in near[i] and i in near[j]:
                affinity[i, j] = max(cosines[i, j], 0) ** gamma
    degree = affinity.sum(axis=1)
    for i in range(count):
        for j in range(count):
            if affinity[i, j]:
                affinity[i, j] /= np.sqrt(degree[i] * degree[j])
    return affinity


def _plain(query: Vector, gallery: Vector, alpha: float) -> np.ndarray:
    """Solve the whole system at once."""
    cosines = gallery @ query
    start = np.zeros(len(gallery))
    for i in np.argsort(-cosines)[:SEEDS]:
        start[i] = max(cosines[i], 0) ** GAMMA
    found = np.linalg.solve(np.eye(len(gallery)) - alpha * _graph(gallery, K, GAMMA), start)
    return found / found.max()


def test_transitions_are_those_of_the_definition() -> None:
    gallery = _clusters(1)
    walk = transitions(gallery @ gallery.T, K, GAMMA)
    assert walk == pytest.approx(_graph(gallery, K, GAMMA), abs=1e-5)
    assert np.abs(np.linalg.eigvalsh(walk)).max() <= 1 + 1e-5


@pytest.mark.parametrize("alpha", [0.0, 0.5, 0.9, 0.99])
def test_scores_solve_the_linear_system(alpha: float) -> None:
    gallery, queries = _clusters(1), _clusters(1, spread=0.9)[::5]
    found = diffused_scores(
        queries @ gallery.T, gallery @ gallery.T, K, SEEDS, GAMMA, alpha, steps=200
    )
    for query, scores in zip(queries, found, strict=True):
        assert scores == pytest.approx(_plain(query, gallery, alpha), abs=2e-4)


def test_20_steps_come_within_a_hundredth_of_the_solution() -> None:
    gallery, queries = _clusters(2), _clusters(2, spread=0.9)[::5]
    found = diffused_scores(queries @ gallery.T, gallery @ gallery.T, K, SEEDS, GAMMA, 0.99)
    for query, scores in zip(queries, found, strict=True):
        assert scores == pytest.approx(_plain(query, gallery, 0.99), abs=0.01)


def test_each_query_is_scored_as_if_it_were_alone() -> None:
    gallery, queries = _clusters(3), units(9, 5)
    within = gallery @ gallery.T
    together = diffused_scores(queries @ gallery.T, within, K)
    for query, scores in zip(queries, together, strict=True):
        assert scores == pytest.approx(
            diffused_scores(query[None] @ gallery.T, within, K)[0], abs=1e-5
        )


def test_what_lies_along_the_manifold_precedes_what_is_only_near() -> None:
    angles = np.radians(
        [0, 8, 16, 24, 32, 40, -39, -47]
    )  # an arc from the query on, and two others
    gallery = np.stack([np.cos(angles), np.sin(angles)], axis=1).astype(np.float32)
    cosines = gallery[:1] @ gallery.T
    assert cosines[0, 6] > cosines[0, 5]
    scores = diffused_scores(cosines, gallery @ gallery.T, k=2, seeds=1)[0]
    assert scores[5] > scores[6] == 0


def test_a_query_like_nothing_reaches_nothing() -> None:
    gallery = np.float32([[1, 0], [0.8, 0.6]])
    scores = diffused_scores(np.float32([[-0.5, 0]]), gallery @ gallery.T)
    assert scores.tolist() == [[0, 0]]
