"""Full rankings as a search gives them that expands its query, re-ranks, or does both."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from index.evaluation.measures import Indexes
from index.evaluation.ranking import scored
from index.item import Vector
from index.ranking.expansion import Expansion, expand
from index.ranking.reranking import Reranking


@dataclass(frozen=True)
class Refinement:
    """What a search does beyond comparing the query with each picture: first expand, then rerank.

    >>> Refinement(Expansion(n=3), Reranking.of("dba")).name
    'α-QE + dba'
    """

    expansion: Expansion | None = None
    rerank: Reranking | None = None

    @property
    def name(self) -> str:
        """What it is called in a report; empty where nothing is done."""
        expanded = [] if self.expansion is None else ["α-QE" if self.expansion.alpha else "AQE"]
        return " + ".join(expanded + ([self.rerank.method] if self.rerank else []))

    def rankings(self, queries: Vector, gallery: Vector, own: Indexes) -> Iterator[Indexes]:
        """For each of q queries the whole gallery, (n,) int64 indexes, best first.

        `queries` is (q, dim) and `gallery` (n, dim), float32 of norm 1. `own` (q,) is where the
        gallery has the query's own picture, -1 where it has not: as in a search by item it is no
        neighbour, takes no part in the expansion nor in the short list, and comes last. What lies
        beyond the short list follows by cosine; equal scores stand in the order of before.

        Raises EvaluationError: `evaluation-descriptors-invalid`.

        >>> gallery = np.float32([[1, 0], [0.8, 0.6], [0, 1]])
        >>> refinement = Refinement(rerank=Reranking.of({"method": "dba", "k": 1}))
        >>> [order.tolist() for order in refinement.rankings(gallery[:1], gallery, np.array([0]))]
        [[1, 2, 0]]
        """
        for query, cosines, at in zip(queries, scored(queries, gallery), own, strict=True):
            yield self._ranking(query, cosines, gallery, int(at))

    def _ranking(self, query: Vector, cosines: Vector, gallery: Vector, own: int) -> Indexes:
        order = _without(own, cosines)
        if self.expansion:
            best = order[: self.expansion.n]
            cosines = gallery @ expand(query, gallery[best], cosines[best], self.expansion.alpha)
            order = _without(own, cosines)
        if self.rerank:
            short = order[: self.rerank.shortlist]
            rows = gallery[short]
            scores = self.rerank.scores(cosines[np.newaxis, short], rows @ rows.T)[0]
            order[: short.size] = short[np.argsort(-scores, kind="stable")]
        return order if own < 0 else np.append(order, own)


def _without(own: int, cosines: Vector) -> Indexes:
    order = np.argsort(-cosines, kind="stable")
    left: Indexes = order[order != own]
    return left
