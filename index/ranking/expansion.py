"""Query expansion: ask again with the mean of the query and what it found."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from index.errors import CollectionError
from index.item import Vector

MOST_NEIGHBOURS = 1_000


@dataclass(frozen=True)
class Expansion:
    """`n` neighbours are averaged in, each weighted by its similarity to the power `alpha`."""

    n: int = 50
    alpha: float = 3.0

    @classmethod
    def of(cls, given: Mapping[str, Any]) -> "Expansion":
        """Read {"n": 10, "alpha": 3.0}. Raises CollectionError: `expansion-invalid`."""
        unknown = given.keys() - cls.__annotations__.keys()
        if unknown:
            raise CollectionError(
                "expansion-invalid", f"expansion has n and alpha, not {sorted(unknown)}"
            )
        asked = cls(**given)
        whole = isinstance(asked.n, int) and not isinstance(asked.n, bool)
        if not whole or not 1 <= asked.n <= MOST_NEIGHBOURS:
            raise CollectionError(
                "expansion-invalid", f"expansion.n = {asked.n!r} is not in 1…{MOST_NEIGHBOURS}"
            )
        number = isinstance(asked.alpha, int | float) and not isinstance(asked.alpha, bool)
        if not number or not 0 <= asked.alpha < math.inf:
            raise CollectionError(
                "expansion-invalid", f"expansion.alpha = {asked.alpha!r} is not a number from 0"
            )
        return asked


def expand(query: Vector, neighbours: Vector, scores: Vector, alpha: float) -> Vector:
    """The expanded query, (dim,) float32 of norm 1.

    q' = q + Σ_i s_i^α x_i over `neighbours` (n, dim) with cosines `scores` (n,), normalised. With
    α = 0 this is average query expansion (Chum et al., Total Recall, ICCV 2007, section 4), with
    α > 0 α-QE (Radenović et al., Fine-tuning CNN Image Retrieval, PAMI 2018, section 3.2).
    Cosines below 0 count as 0.

    >>> query, neighbours, scores = np.float32([1, 0]), np.float32([[0, 1]]), np.float32([0.5])
    >>> [round(float(x), 3) for x in expand(query, neighbours, scores, alpha=1)]
    [0.894, 0.447]
    """
    weights = np.maximum(scores, 0) ** alpha
    expanded = query + weights @ neighbours
    unit: Vector = (expanded / np.linalg.norm(expanded)).astype(np.float32)
    return unit
