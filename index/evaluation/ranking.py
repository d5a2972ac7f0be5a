"""Descriptors -> full rankings, by exact scores, a few queries at a time."""

from collections.abc import Iterator

import numpy as np

from index.errors import EvaluationError
from index.evaluation.measures import Indexes
from index.item import Vector

BYTES_AT_ONCE = 64 * 2**20


def rankings(queries: Vector, gallery: Vector) -> Iterator[Indexes]:
    """For each of q queries the whole gallery, (n,) int64 indexes, best first.

    `queries` is (q, dim) and `gallery` (n, dim), float32; the score is their inner product, the
    cosine where both are unit vectors. Equal scores stand in the order of the gallery. About
    BYTES_AT_ONCE are held besides the descriptors.

    Raises EvaluationError: `evaluation-descriptors-invalid`.

    >>> gallery = np.float32([[1, 0], [0, 1], [0.8, 0.6], [0, 1]])
    >>> [order.tolist() for order in rankings(np.float32([[0, 1]]), gallery)]
    [[1, 3, 2, 0]]
    """
    for scores in scored(queries, gallery):
        yield np.argsort(-scores, kind="stable")


def scored(queries: Vector, gallery: Vector) -> Iterator[Vector]:
    """The scores of each query with the whole gallery, (n,) float32, as `rankings` orders them."""
    check_descriptors(queries, gallery)
    rows = max(1, BYTES_AT_ONCE // (4 * max(1, len(gallery))))
    for start in range(0, len(queries), rows):
        yield from queries[start : start + rows] @ gallery.T


def check_descriptors(queries: Vector, gallery: Vector) -> None:
    """Refuse what cannot be ranked. Raises EvaluationError: `evaluation-descriptors-invalid`."""
    if queries.ndim != 2 or gallery.ndim != 2 or queries.shape[1] != gallery.shape[1]:
        raise EvaluationError(
            "evaluation-descriptors-invalid",
            f"descriptors of queries are {queries.shape} and of the gallery {gallery.shape}: "
            "give q × dim and n × dim",
        )
    for of, descriptors in (("queries", queries), ("gallery", gallery)):
        finite = np.isfinite(descriptors).all(axis=1)
        if not finite.all():
            raise EvaluationError(
                "evaluation-descriptors-invalid",
                f"the descriptor of {of}[{int(np.flatnonzero(~finite)[0])}] is not finite",
            )
