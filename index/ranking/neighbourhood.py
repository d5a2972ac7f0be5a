"""Who is among whose nearest, as a matrix: where every re-ranking method begins."""

import numpy as np
import numpy.typing as npt

from index.item import Vector

Mask = npt.NDArray[np.bool_]


def nearest(similarities: Vector, k: int) -> Mask:
    """(n, m) bool: which of the m columns are among the k greatest of their row (n, m) float32.

    All that tie for place k belong to them, so that nothing depends on the order of the columns;
    what is -inf never does.

    >>> nearest(np.float32([[0.9, 0.2, 0.5], [0.1, 0.8, 0.1]]), 2).tolist()
    [[True, False, True], [True, True, True]]
    """
    there = np.isfinite(similarities)
    if k < 1:
        return np.zeros_like(there)
    if k >= similarities.shape[1]:
        return there
    kth = np.partition(similarities, -k, axis=1)[:, -k, np.newaxis]
    return there & (similarities >= kth)


def nearest_others(similarities: Vector, k: int) -> Mask:
    """The same of n items among themselves (n, n): none is its own neighbour."""
    others = similarities.copy()
    np.fill_diagonal(others, -np.inf)
    return nearest(others, k)
