"""k-reciprocal encoding: alike is what has the same mutual neighbours."""

import numpy as np

from index.item import Vector
from index.ranking.neighbourhood import Mask, nearest_others


def reciprocal_scores(
    to_gallery: Vector, within: Vector, k1: int = 20, k2: int = 6, weight: float = 0.3
) -> Vector:
    """(n, m) float32: 1 - ((1 - weight)·d_Jaccard + weight·(1 - cosine)), at most 1.

    `to_gallery` (n, m) are the cosines of n queries with m items, `within` (m, m) those of the
    items with one another. A query joins the gallery alone, so others do not change its scores
    (Zhong et al. join all of them): every item and the query get an encoding over their expanded
    k1-reciprocal neighbours, and Jaccard compares encodings. `weight` is the paper's λ.

    Zhong et al., Re-ranking Person Re-identification with k-reciprocal Encoding, CVPR 2017,
    with d = 1 - cosine, half the squared Euclidean distance, as the original distance.

    >>> within = np.float32([[1, 0.9, 0], [0.9, 1, 0], [0, 0, 1]])
    >>> scores = reciprocal_scores(np.float32([[0.9, 0.8, 0.2]]), within, k1=2, k2=1)
    >>> scores.astype(float).round(2).tolist()
    [[0.91, 0.85, 0.06]]
    """
    scores = [_jaccard(encodings(_joined(row, within), k1, k2)) for row in to_gallery]
    jaccard = np.array(scores, dtype=np.float32).reshape(to_gallery.shape)
    return (1 - weight) * jaccard + np.float32(weight) * to_gallery


def encodings(similarities: Vector, k1: int, k2: int) -> Vector:
    """(n, n): each row an item's encoding, its weights on all items, of sum 1.

    exp(-d) on the expanded k1-reciprocal neighbours (rows normalised, as the authors'
    code does), then the mean over an item and its k2 - 1 nearest (local query expansion).
    """
    members = expanded(reciprocal(similarities, k1), reciprocal(similarities, round(k1 / 2)))
    weights = np.where(members, np.exp(similarities - 1), np.float32(0))
    weights /= weights.sum(axis=1, keepdims=True)
    near = _with_self(nearest_others(similarities, k2 - 1)).astype(np.float32)
    encoded: Vector = near @ weights / near.sum(axis=1, keepdims=True)
    return encoded


def reciprocal(similarities: Vector, k: int) -> Mask:
    """R(p, k), (n, n): items that are among each other's k nearest, and each item itself."""
    near = _with_self(nearest_others(similarities, k))
    return near & near.T


def expanded(wide: Mask, narrow: Mask) -> Mask:
    """R*(p), (n, n): R(p, k1) and every R(q, k1/2) of its q that lies in it by two thirds.

    |R(p, k1) ∩ R(q, k1/2)| ≥ ⅔ |R(q, k1/2)|, counted as the paper does.
    """
    counted = narrow.astype(np.float32)
    overlap = wide.astype(np.float32) @ counted.T
    joining = wide & (3 * overlap >= 2 * counted.sum(axis=1))
    members: Mask = wide | (joining.astype(np.float32) @ counted > 0)
    return members


def _joined(query: Vector, within: Vector) -> Vector:
    """Cosines (m + 1, m + 1) of a query, first, and the gallery; each is at 1 from itself."""
    joined = np.empty((len(within) + 1, len(within) + 1), dtype=within.dtype)
    joined[0, 1:] = joined[1:, 0] = query
    joined[1:, 1:] = within
    np.fill_diagonal(joined, 1)
    return joined


def _jaccard(encoded: Vector) -> Vector:
    """(m,): Σ min / Σ max of the first encoding with each of the others."""
    shared = np.flatnonzero(encoded[0])
    smaller = np.minimum(encoded[1:, shared], encoded[0, shared]).sum(axis=1)
    larger = encoded[1:].sum(axis=1) + encoded[0].sum() - smaller
    similarity: Vector = smaller / larger
    return similarity


def _with_self(near: Mask) -> Mask:
    np.fill_diagonal(near, True)
    return near
