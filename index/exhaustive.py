"""The truth that approximate answers are held against: comparing with every descriptor."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from index.item import Keys, Vector

SAME_WITHIN = 1e-5
"""Cosines nearer than this are one: FAISS and numpy add up a product in different order."""
NOBODY = -1
"""As a key: no item is to be passed over."""

Barred = Callable[[Keys], npt.NDArray[np.bool_]]
"""Which of m keys are not to be found by which of n queries, n x m."""


@dataclass(frozen=True)
class Question:
    """A query (dim,) float32 of norm 1 for k neighbours, with the scores of the true ones.

    `own` is the key of the item that asks, which is passed over, or NOBODY. `best` (k,) are scores,
    best first; fewer where fewer exist.
    """

    query: Vector
    k: int
    own: int
    best: Vector


def best_scores(
    queries: Vector, k: int, barred: Barred, chunks: Iterable[tuple[Keys, Vector]]
) -> list[Vector]:
    """The k best scores of each of `queries` (n, dim) among `chunks` of keys (m,) and vectors."""
    kept = np.full((len(queries), k), -np.inf, dtype=np.float32)
    for keys, vectors in chunks:
        scores = queries @ vectors.T  # n x m
        scores[barred(keys)] = -np.inf
        both = np.concatenate([kept, scores], axis=1)
        kept = np.partition(both, both.shape[1] - k, axis=1)[:, both.shape[1] - k :]
    ranked = -np.sort(-kept, axis=1)
    return [row[np.isfinite(row)] for row in ranked]


def recall(found: Vector, best: Vector) -> float:
    """The share of the true neighbours, of scores `best` from best to least, that was found.

    By scores, so that of several items with the score of the last one any is right.

    >>> round(recall(np.float32([0.9, 0.8, 0.4]), np.float32([0.9, 0.8, 0.7])), 3)
    0.667
    """
    if not best.size:
        return 1.0
    right = int((found >= best[-1] - SAME_WITHIN).sum())
    return min(1.0, right / best.size)
