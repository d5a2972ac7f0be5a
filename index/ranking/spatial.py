"""Spatial verification: do the parts that two pictures share stand to one another alike?

Mutual nearest neighbours among local descriptors, then RANSAC (Fischler & Bolles 1981) for the
similarity (turn, scale, shift) that carries most matches of one picture onto the other, as in
Philbin et al., Object Retrieval with Large Vocabularies and Fast Spatial Matching, CVPR 2007.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt

Vectors = npt.NDArray[np.float32]
Positions = npt.NDArray[np.float32]

MOST_VERIFIED = 200
"""Pictures of a short list: each costs a forward pass where no grid is kept."""

TOLERANCE = 0.03
"""How far an inlier may lie off, in units of the longer side: about one cell of a middle layer."""

LARGEST_SCALE = 5.0
"""A map that shrinks or enlarges more gathers unrelated matches in one spot."""

ITERATIONS = 1_000
CONFIDENCE = 0.999
FEWEST_MATCHES = 4


@dataclass(frozen=True)
class Verification:
    """The first `n` neighbours are verified; fewer than `inliers` are what chance brings.

    `layer` is for whoever makes the local descriptors; it is not read here.
    """

    n: int = 25
    inliers: int = 15
    layer: str | None = None


@dataclass(frozen=True, eq=False)
class Verified:
    """Inliers of the best map, and the map itself: (x, y, 1) of the query to (x, y), 2×3."""

    inliers: int
    map: npt.NDArray[np.float64] | None


def mutual_matches(query: Vectors, other: Vectors) -> npt.NDArray[np.int64]:
    """Pairs (i, j) that are each other's nearest by cosine, m×2; vectors are n×D of norm 1.

    >>> mutual_matches(np.eye(2, 3, dtype=np.float32), np.eye(3, dtype=np.float32)[::-1]).tolist()
    [[0, 2], [1, 1]]
    """
    if not len(query) or not len(other):
        return np.empty((0, 2), np.int64)
    similarity = query @ other.T
    there, back = similarity.argmax(axis=1), similarity.argmax(axis=0)
    mutual = np.flatnonzero(back[there] == np.arange(len(query)))
    return np.stack([mutual, there[mutual]], axis=1)


def verify(
    query: tuple[Vectors, Positions],
    other: tuple[Vectors, Positions],
    tolerance: float = TOLERANCE,
) -> Verified:
    """The map that carries most matches of the query onto the other picture, by RANSAC.

    Each side is its local descriptors n×D of norm 1 and their positions n×2, in units of the
    picture's longer side. The same input gives the same answer.
    """
    matches = mutual_matches(query[0], other[0])
    if len(matches) < FEWEST_MATCHES:
        return Verified(0, None)
    matrix, inliers = cv2.estimateAffinePartial2D(
        np.ascontiguousarray(query[1][matches[:, 0]]),
        np.ascontiguousarray(other[1][matches[:, 1]]),
        method=cv2.RANSAC,
        ransacReprojThreshold=tolerance,
        maxIters=ITERATIONS,
        confidence=CONFIDENCE,
    )
    if matrix is None:
        return Verified(0, None)
    found = np.asarray(matrix, np.float64)
    return Verified(int(inliers.sum()), found) if _plausible(found) else Verified(0, None)


def reranked(inliers: Sequence[int], fewest: int) -> list[int]:
    """The order of a short list: by inliers from `fewest` on, then as it was; places from 0.

    Below `fewest` nothing is shown to be the same place, and nothing to be another one: such
    neighbours keep their order, whatever gave it, behind those that are verified.

    >>> reranked([3, 40, 9, 60], fewest=20)
    [3, 1, 0, 2]
    """
    counted = [count if count >= fewest else 0 for count in inliers]
    return sorted(range(len(counted)), key=lambda at: (-counted[at], at))


def _plausible(matrix: npt.NDArray[np.float64]) -> bool:
    """Whether a similarity enlarges or shrinks by no more than `LARGEST_SCALE`."""
    scale = float(np.hypot(*matrix[:, 0]))
    return 1 / LARGEST_SCALE <= scale <= LARGEST_SCALE
