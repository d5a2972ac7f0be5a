import numpy as np
import pytest

from index.item import Vector
from index.ranking.augmentation import augmented_scores
from tests.index.making import units


def _plain(query: Vector, gallery: Vector, k: int, alpha: float) -> list[float]:
    """Average the vectors themselves, item by item."""
    scores = []
    for i, item in enumerate(gallery.astype(np.float64)):
        others = sorted(
            (j for j in range(len(gallery)) if j != i), key=lambda j: -gallery[j] @ item
        )
        total = item.copy()
        for j in others[:k]:
            total += max(float(gallery[j] @ item), 0.0) ** alpha * gallery[j]
        scores.append(float(query @ total / np.sqrt((total**2).sum())))
    return scores


@pytest.mark.parametrize("k", [1, 5, 19, 100])
@pytest.mark.parametrize("alpha", [0.0, 1.0, 3.0])
def test_scores_are_cosines_with_the_averaged_vectors(k: int, alpha: float) -> None:
    queries, gallery = units(1, 4), units(2, 20)
    found = augmented_scores(queries @ gallery.T, gallery @ gallery.T, k, alpha)
    assert (found.dtype, found.shape) == (np.float32, (4, 20))
    for query, scores in zip(queries, found, strict=True):
        assert scores == pytest.approx(_plain(query, gallery, k, alpha), abs=1e-5)


def test_an_item_beside_nothing_but_copies_of_itself_keeps_its_cosine() -> None:
    gallery = np.repeat(units(3, 2), 4, axis=0)
    query = units(4, 1)
    found = augmented_scores(query @ gallery.T, gallery @ gallery.T, k=3)
    assert found == pytest.approx(query @ gallery.T, abs=1e-5)


def test_an_item_that_its_opposite_cancels_scores_0() -> None:
    gallery = np.float32([[1, 0], [-1, 0]])
    cosines = gallery @ gallery.T
    found = augmented_scores(cosines, cosines, k=1)
    assert found == pytest.approx(np.zeros((2, 2)))
