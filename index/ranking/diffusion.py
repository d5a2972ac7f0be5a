"""Diffusion: rank by a random walk from the query's neighbours over the graph of the gallery."""

import numpy as np

from index.item import Vector
from index.ranking.neighbourhood import nearest, nearest_others

CONVERGED = 1e-6
"""Of the norm of the right-hand side."""


def diffused_scores(
    to_gallery: Vector,
    within: Vector,
    k: int = 50,
    seeds: int = 10,
    gamma: float = 3.0,
    alpha: float = 0.99,
    steps: int = 20,
) -> Vector:
    """(n, m) float32 in [0, 1]: how much of each query reaches each item; the best has 1.

    `to_gallery` (n, m) are the cosines of n queries with m items, `within` (m, m) those of the
    items with one another. With affinities a = max(cosine, 0)^gamma between items that are among
    each other's k nearest, S = D^-½ A D^-½, and y the affinities of a query to its `seeds` nearest,

        (I - alpha S) f = y

    is solved by conjugate gradients in at most `steps` steps. Each query is on its own: others do
    not change its scores. An item that no path of the graph joins to a seed has 0.

    Iscen et al., Efficient Diffusion on Region Manifolds, CVPR 2017; on a short list it is their
    truncation. Ten seeds are what the authors use for global descriptors.

    >>> within = np.float32([[1, 0.8, 0], [0.8, 1, 0], [0, 0, 1]])
    >>> scores = diffused_scores(np.float32([[0.9, 0.5, 0.4]]), within, k=1, seeds=1)
    >>> scores.astype(float).round(2).tolist()  # no path leads to the third
    [[1.0, 0.99, 0.0]]
    """
    walk = transitions(within, k, gamma)
    seeded = nearest(to_gallery, seeds)
    start = np.where(seeded, np.maximum(to_gallery, 0) ** np.float32(gamma), np.float32(0))
    system = np.eye(len(walk), dtype=walk.dtype) - np.float32(alpha) * walk
    reached = np.maximum(_solved(system, start, steps), 0)
    greatest = reached.max(axis=1, initial=0, keepdims=True)
    scores: Vector = np.divide(reached, greatest, out=np.zeros_like(reached), where=greatest > 0)
    return scores


def transitions(within: Vector, k: int, gamma: float) -> Vector:
    """S, (m, m): affinities of mutual neighbours, normalised on both sides, eigenvalues in ±1."""
    near = nearest_others(within, k)
    affinity = np.where(near & near.T, np.maximum(within, 0) ** np.float32(gamma), np.float32(0))
    degree = affinity.sum(axis=1)
    scale = np.divide(1, np.sqrt(degree), out=np.zeros_like(degree), where=degree > 0)
    walk: Vector = scale[:, np.newaxis] * affinity * scale
    return walk


def _solved(matrix: Vector, right: Vector, steps: int) -> Vector:
    """x with matrix x = b for every row b of `right`, by conjugate gradients (Hestenes 1952).

    A row that has converged stays as it is, so the others cannot disturb it.
    """
    found = np.zeros_like(right)
    residual = right.copy()
    direction = residual.copy()
    energy = np.sum(residual**2, axis=1, keepdims=True)
    enough = CONVERGED**2 * energy
    for _ in range(steps):
        going = energy > enough
        if not going.any():
            break
        moved = direction @ matrix
        curvature = np.sum(direction * moved, axis=1, keepdims=True)
        length = np.divide(energy, curvature, out=np.zeros_like(energy), where=going)
        found += length * direction
        residual -= length * moved
        before, energy = energy, np.sum(residual**2, axis=1, keepdims=True)
        direction = (
            residual + np.divide(energy, before, out=np.zeros_like(energy), where=going) * direction
        )
    return found
