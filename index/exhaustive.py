"""The truth that approximate answers are held against: comparing with every descriptor."""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from index.item import Keys, Vector

SAME_WITHIN = 1e-5
"""Cosines nearer than this are one: FAISS and numpy add up a product in different order."""
NOBODY = -1
"""As a key: no item is to be passed over."""


@dataclass(frozen=True)
class Questions:
    """Queries (n, dim) float32 of norm 1, how many neighbours each wants, and the true answers.

    `own` (n,) are the keys of the items that ask, which are passed over, or NOBODY. `best` are the
    scores of the true neighbours of each, best first: k, or fewer where there are fewer.
    """

    queries: Vector
    k: int
    own: Keys
    best: list[Vector]

    def __len__(self) -> int:
        return len(self.queries)


def answered(
    queries: Vector, k: int, own: Keys, chunks: Iterable[tuple[Keys, Vector]]
) -> Questions:
    """`queries` with their answers among all of `chunks` of keys (m,) and vectors (m, dim)."""
    kept = np.full((len(queries), k), -np.inf, dtype=np.float32)
    for keys, vectors in chunks:
        scores = queries @ vectors.T  # n x m
        scores[own[:, np.newaxis] == keys] = -np.inf
        both = np.concatenate([kept, scores], axis=1)
        kept = np.partition(both, both.shape[1] - k, axis=1)[:, both.shape[1] - k :]
    ranked = -np.sort(-kept, axis=1)
    return Questions(queries, k, own, [row[np.isfinite(row)] for row in ranked])


def recall(found: Vector, best: Vector) -> float:
    """The share of the true neighbours, of scores `best` from best to least, that was found.

    By scores, so that of several items with the score of the last one any is right.

    >>> recall(np.float32([0.9, 0.8, 0.4]), np.float32([0.9, 0.8, 0.7]))
    0.6666666666666666
    """
    if not best.size:
        return 1.0
    right: npt.NDArray[np.bool_] = found >= best[-1] - SAME_WITHIN
    return min(1.0, int(right.sum()) / best.size)
