"""Database-side augmentation: compare with every item as its neighbourhood sees it."""

import numpy as np

from index.item import Vector
from index.ranking.neighbourhood import nearest_others


def augmented_scores(to_gallery: Vector, within: Vector, k: int = 10, alpha: float = 0.0) -> Vector:
    """(n, m) float32: cosines of queries with an augmented gallery, in [-1, 1].

    `to_gallery` (n, m) are the cosines of n queries with m items, `within` (m, m) those of the
    items with one another. Each item becomes the mean of itself and its k nearest others, which
    weigh max(cosine, 0)^alpha, normalised:

        x'_i = (x_i + Σ_j w_ij x_j) / ‖…‖,   q·x'_i = (W s_q)_i / √(W G Wᵀ)_ii

    so that cosines are all that is needed, also where they are sums over several spaces.
    alpha = 0 is Arandjelović & Zisserman, Three things everyone should know, CVPR 2012
    (after Turcot & Lowe 2009); alpha > 0 weighs as α-QE does (Radenović et al., PAMI 2018).

    >>> within = np.float32([[1, 0.6], [0.6, 1]])
    >>> augmented_scores(np.float32([[1, 0.6]]), within, k=1).astype(float).round(3).tolist()
    [[0.894, 0.894]]
    """
    near = nearest_others(within, k)
    weights = np.where(near, np.maximum(within, 0) ** np.float32(alpha), np.float32(0))
    np.fill_diagonal(weights, 1)
    squared = np.einsum("ij,ij->i", weights @ within, weights)
    norms = np.sqrt(np.maximum(squared, np.finfo(np.float32).tiny))
    scores: Vector = np.clip(to_gallery @ weights.T / norms, -1, 1)
    return scores
