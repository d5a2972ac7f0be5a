"""Cross-fitting against plain loops, and that nothing leaks through it."""

from collections.abc import Callable

import numpy as np

from index.evaluation import Box, GroundTruth, Judgement, Query, by_labels, leave_one_out
from index.evaluation.crossfitting import FOLDS, cross_fitted, fitted_on, picture_folds


def descriptors(labels: list[int], dim: int, spread: float, seed: int = 1) -> np.ndarray:
    random = np.random.default_rng(seed)
    centres = random.standard_normal((max(labels) + 1, dim))
    rows = centres[labels] + spread * random.standard_normal((len(labels), dim))
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)


def axes(rows: np.ndarray) -> Callable[[np.ndarray], np.ndarray]:
    """A fit of its own: the leading directions, unscaled."""
    mean = rows.mean(axis=0)
    _, _, directions = np.linalg.svd(rows - mean, full_matrices=False)
    return lambda given: ((given - mean) @ directions[:6].T).astype(np.float32)


def test_every_query_is_asked_by_a_fit_without_its_fold() -> None:
    labels = [number // 6 for number in range(24)]
    rows = descriptors(labels, 12, 0.8)
    truth = by_labels("made", [str(n) for n in range(24)], labels)
    found = cross_fitted(rows, rows, truth, axes, [2, 6], "mAP", "all")
    for dim, values in found.items():
        for query in range(24):
            fitted = axes(np.array([row for n, row in enumerate(rows) if n % 5 != query % 5]))
            kept = fitted(rows)[:, :dim]
            kept /= np.linalg.norm(kept, axis=1, keepdims=True)
            alone = leave_one_out(kept, labels).values["mAP"][query]
            assert np.isclose(values[query], alone, atol=1e-6)


def test_a_fit_sees_no_picture_of_the_queries_it_is_asked_by() -> None:
    labels = [number // 5 for number in range(20)]
    rows = descriptors(labels, 8, 0.5)
    seen: list[set[bytes]] = []
    asked: list[set[bytes]] = []

    def fit(fitted: np.ndarray) -> Callable[[np.ndarray], np.ndarray]:
        seen.append({row.tobytes() for row in fitted})

        def apply(given: np.ndarray) -> np.ndarray:
            if len(given) < len(rows):
                asked.append({row.tobytes() for row in given})
            return given

        return apply

    truth = by_labels("made", [str(n) for n in range(20)], labels)
    cross_fitted(rows, rows, truth, fit, [8], "mAP", "all")
    assert len(seen) == len(asked) == FOLDS
    assert all(not one & other for one, other in zip(seen, asked, strict=True))
    assert set().union(*asked) == {row.tobytes() for row in rows}


def test_every_fold_has_pictures_of_every_class() -> None:
    labels = [number // 10 for number in range(40)]
    truth = by_labels("made", [str(n) for n in range(40)], labels)
    gallery, queries = picture_folds(truth)
    np.testing.assert_array_equal(gallery, queries)
    for label in range(4):
        assert set(gallery[np.array(labels) == label]) == set(range(FOLDS))
    assert fitted_on(truth) == 32


def test_a_region_is_in_the_fold_of_its_picture() -> None:
    judged = {"all": Judgement(np.array([1]))}
    asked = [Query("b", judged, Box(0, 0, 0.5, 0.5)), Query("elsewhere", judged)]
    gallery, queries = picture_folds(GroundTruth("made", ["a", "b", "c"], asked))
    assert gallery.tolist() == [0, 1, 2]
    assert queries.tolist() == [1, 3]


def test_a_fit_that_says_nothing_measures_nothing() -> None:
    """Pure noise fitted to fewer directions than pictures stays at chance: nothing leaks."""
    labels = [number % 4 for number in range(100)]
    rows = np.random.default_rng(0).standard_normal((100, 300)).astype(np.float32)
    truth = by_labels("noise", [str(n) for n in range(100)], labels)
    found = cross_fitted(rows, rows, truth, axes, [6], "mAP", "all")
    assert abs(found[6].mean() - 24 / 99) < 0.04
