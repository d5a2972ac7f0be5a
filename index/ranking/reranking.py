"""Re-ranking: a second look at the best candidates, which judges each by its neighbours too."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from index.errors import CollectionError
from index.item import Keys, Vector
from index.ranking.augmentation import augmented_scores
from index.ranking.diffusion import diffused_scores
from index.ranking.reciprocal import reciprocal_scores


@dataclass(frozen=True)
class Parameter:
    """A number in `lowest`…`highest`; whole where its default is."""

    default: int | float
    lowest: float
    highest: float
    meaning: str

    @property
    def whole(self) -> bool:
        """Whether it counts something."""
        return isinstance(self.default, int)


@dataclass(frozen=True)
class Method:
    """`scores` takes cosines (n, m) to the gallery, (m, m) within it, and the parameters by name.

    `meaning` says what the scores are, `source` who found it.
    """

    scores: Callable[..., Vector]
    parameters: Mapping[str, Parameter]
    meaning: str
    source: str


SHORTLIST = Parameter(200, 2, 1_000, "the best candidates, which are ranked anew")

METHODS: Mapping[str, Method] = {
    "dba": Method(
        augmented_scores,
        {
            "k": Parameter(10, 1, 100, "neighbours that each item is averaged with"),
            "alpha": Parameter(0.0, 0, 100, "they weigh cosine^alpha; 0: all the same"),
        },
        "the cosine with the item's mean with its neighbours, -1…1",
        "Arandjelović & Zisserman, CVPR 2012; weights: Radenović et al., PAMI 2018",
    ),
    "diffusion": Method(
        diffused_scores,
        {
            "k": Parameter(50, 1, 200, "neighbours of an item in the graph, if mutual"),
            "seeds": Parameter(10, 1, 200, "neighbours of the query, where the walk begins"),
            "gamma": Parameter(3.0, 0, 20, "affinity is cosine^gamma"),
            "alpha": Parameter(0.99, 0, 0.999, "probability of going on walking"),
        },
        "how much of the walk reaches the item, as a share of the most, 0…1",
        "Iscen et al., CVPR 2017",
    ),
    "k-reciprocal": Method(
        reciprocal_scores,
        {
            "k1": Parameter(20, 1, 200, "neighbours of which the mutual ones are compared"),
            "k2": Parameter(6, 1, 100, "items of the local query expansion, 1: none"),
            "weight": Parameter(0.3, 0, 1, "of the cosine beside the Jaccard similarity"),
        },
        "1 less the weighted sum of Jaccard and cosine distance, -1…1",
        "Zhong et al., CVPR 2017",
    ),
}


@dataclass(frozen=True)
class Reranking:
    """A method, its parameters, and how many candidates it ranks anew."""

    method: str
    parameters: Mapping[str, int | float]
    shortlist: int = int(SHORTLIST.default)

    @classmethod
    def of(cls, given: "str | Mapping[str, Any]") -> "Reranking":
        """Read "diffusion" or {"method": "diffusion", "shortlist": 200, "k": 20}.

        What is left out has the defaults of `METHODS`. Raises CollectionError: `rerank-invalid`.
        """
        asked: dict[str, Any] = {"method": given} if isinstance(given, str) else dict(given)
        name = asked.pop("method", None)
        method = METHODS.get(name) if isinstance(name, str) else None
        if method is None:
            raise CollectionError(
                "rerank-invalid", f"rerank.method = {name!r} is none of {sorted(METHODS)}"
            )
        known = {"shortlist": SHORTLIST, **method.parameters}
        for key, value in asked.items():
            if key not in known:
                raise CollectionError(
                    "rerank-invalid", f"rerank by {name} has {sorted(known)}, not {key!r}"
                )
            _check(f"rerank.{key}", value, known[key])
        chosen = {key: asked.get(key, parameter.default) for key, parameter in known.items()}
        return cls(str(name), shortlist=chosen.pop("shortlist"), parameters=chosen)

    def scores(self, to_gallery: Vector, within: Vector) -> Vector:
        """(n, m) float32 from cosines of n queries with m items, and of the items, (m, m)."""
        return METHODS[self.method].scores(to_gallery, within, **self.parameters)

    def rank(self, queries: Vector, gallery: Vector) -> Keys:
        """(n, m) int64: rows of `gallery` (m, dim) in the order that a search by each query gives.

        The short list of each query (n, dim) is ranked anew, the others follow as they were; equal
        scores keep the order of their cosines. Rows are float32 of norm 1. With `scores` on the
        whole of both, diffusion and DBA share one graph among all queries.

        >>> gallery = np.float32([[1, 0], [0.8, 0.6], [0, 1]])
        >>> Reranking.of({"method": "dba", "k": 1}).rank(gallery[:1], gallery).tolist()
        [[0, 1, 2]]
        """
        cosines = queries @ gallery.T
        order = np.argsort(-cosines, axis=1, kind="stable")
        for row, ranked in zip(cosines, order, strict=True):
            short = ranked[: self.shortlist].copy()
            scores = self.scores(row[np.newaxis, short], gallery[short] @ gallery[short].T)[0]
            ranked[: self.shortlist] = short[np.argsort(-scores, kind="stable")]
        return order


def _check(where: str, value: Any, parameter: Parameter) -> None:
    kind = int if parameter.whole else int | float
    fits = isinstance(value, kind) and not isinstance(value, bool)
    if not fits or not parameter.lowest <= value <= parameter.highest:
        number = "whole number" if parameter.whole else "number"
        raise CollectionError(
            "rerank-invalid",
            f"{where} = {value!r} is no {number} in {parameter.lowest:g}…{parameter.highest:g}",
        )
