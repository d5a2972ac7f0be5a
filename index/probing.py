"""How an index of each kind is searched, so that k come back where k exist, with exact scores.

A search for few of many items (a selective filter, most of them removed) costs an approximate index
more and finds less, until it is cheaper to score all of the few. Where that point lies is said
beside each kind.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import faiss as typed_faiss
import numpy as np

from index.item import Keys, Vector
from index.keyset import KeySet
from index.planner import Kind

faiss: Any = typed_faiss

TUNED_FOR = 10
"""Neighbours that parameters are tuned for."""
STEPS_PER_NEIGHBOUR = 4
"""Of a graph for each neighbour beyond ten: at 60,000 items and a recall of 0.98, 10 neighbours
need efSearch 56, 50 need 200 and 100 need 350; at 200,000 items 32, 200 and 410."""
LISTS_BY_NEIGHBOURS = 0.75
"""Exponent by which lists and candidates grow with k: at 200,000 items 64 lists and 160 candidates
find 0.984 of 10 neighbours, 256 and 400 find 0.987 of 50, 512 and 400 find 0.986 of 100."""
READ_PER_STEP = 32
"""Items that a step in the graph compares with: half the neighbours on HNSW32's ground floor."""
FETCHED = 4
"""Reading a vector from the catalog costs about as much as estimating this many candidates."""

VectorsOf = Callable[[Keys], tuple[Keys, Vector]]
"""From keys to those that the catalog has, ascending, and their (n, dim) float32 descriptors."""


@dataclass(frozen=True)
class Asked:
    """What one search asks of an index of `count` items; `k` is at most those that are allowed."""

    query: Vector
    k: int
    allowed: KeySet | None
    removed: KeySet
    count: int
    parameters: Mapping[str, int]

    @property
    def selector(self) -> Any:
        """FAISS's, of keys."""
        return self.removed.outside if self.allowed is None else self.allowed.within

    @property
    def eligible(self) -> int:
        """Items that may be found; too few where removed items are in no index any more."""
        if self.allowed is not None:
            return self.allowed.size
        return max(1, self.count - self.removed.size)

    def spread(self, wanted: float) -> int:
        """What finds `wanted` among all, where only a share of what is read is eligible."""
        return math.ceil(wanted * self.count / self.eligible)


def exact(index: Any, asked: Asked, _: VectorsOf) -> tuple[Keys, Vector]:
    """Read all."""
    return _ask(index, asked.query, asked.k, faiss.SearchParameters(sel=asked.selector))


def graph(index: Any, asked: Asked, _: VectorsOf) -> tuple[Keys, Vector]:
    """Walk HNSW's graph, or read what it holds in order where that compares with fewer items."""
    more = STEPS_PER_NEIGHBOUR * max(0, asked.k - TUNED_FOR)
    steps = max(asked.spread(asked.parameters["efSearch"] + more), asked.k)
    if steps * READ_PER_STEP < asked.eligible:
        # Parameters belong to this query alone: setting them on the index would reach all others.
        chosen = asked.selector
        parameters = (
            _among_all(steps)
            if chosen is None
            else faiss.SearchParametersHNSW(sel=chosen, efSearch=steps)
        )
        keys, scores = _ask(index, asked.query, asked.k, parameters)
        if keys.size == asked.k:
            return keys, scores
    # By place rather than by key, as what lies under the graph numbers its items.
    numbered = faiss.rev_swig_ptr(index.id_map.data(), index.ntotal)
    storage = faiss.downcast_index(faiss.downcast_index(index.index).storage)
    places, scores = _ask(
        storage, asked.query, asked.k, faiss.SearchParameters(sel=_places(numbered, asked))
    )
    return numbered[places], scores


def lists(index: Any, asked: Asked, vectors_of: VectorsOf) -> tuple[Keys, Vector]:
    """Estimate what is in the nearest lists, then score the best candidates with their vectors."""
    more = max(1.0, asked.k / TUNED_FOR) ** LISTS_BY_NEIGHBOURS
    wanted = max(math.ceil(more * asked.parameters["candidates"]), asked.k)
    if asked.allowed is not None and asked.allowed.size <= FETCHED * wanted:
        there, vectors = vectors_of(asked.allowed.keys)
        return _best(there, vectors @ asked.query, asked.k)
    most = faiss.extract_index_ivf(index).nlist
    probes = min(asked.spread(more * asked.parameters["nprobe"]), most)
    keys, estimates = _probe(index, asked, probes, wanted)
    if keys.size < asked.k and probes < most:
        keys, estimates = _probe(index, asked, most, wanted)
    return _best(keys, _rescored(asked.query, keys, estimates, vectors_of), asked.k)


PROBES: Mapping[Kind, Callable[[Any, Asked, VectorsOf], tuple[Keys, Vector]]] = {
    "exact": exact,
    "hnsw": graph,
    "ivf-pq": lists,
    "ivf-rabitq": lists,
}


@lru_cache(maxsize=64)
def _among_all(steps: int) -> Any:
    """Parameters of a search that leaves nothing out: what most searches ask, made once."""
    return faiss.SearchParametersHNSW(efSearch=steps)


def _probe(index: Any, asked: Asked, probes: int, wanted: int) -> tuple[Keys, Vector]:
    parameters = faiss.SearchParametersIVF(sel=asked.selector, nprobe=probes)
    if isinstance(index, faiss.IndexPreTransform):
        parameters = faiss.SearchParametersPreTransform(index_params=parameters)
    return _ask(index, asked.query, wanted, parameters)


def _ask(index: Any, query: Vector, k: int, parameters: Any) -> tuple[Keys, Vector]:
    scores, keys = index.search(query[None], k, params=parameters)
    found = keys[0] >= 0
    return keys[0][found], scores[0][found]


def _rescored(query: Vector, keys: Keys, estimates: Vector, vectors_of: VectorsOf) -> Vector:
    order = np.argsort(keys)
    there, vectors = vectors_of(keys[order])
    scores = estimates.copy()
    scores[order[np.searchsorted(keys[order], there)]] = vectors @ query
    return scores


def _best(keys: Keys, scores: Vector, k: int) -> tuple[Keys, Vector]:
    if keys.size <= k:
        return keys, scores
    best = np.argpartition(scores, keys.size - k)[keys.size - k :]
    return keys[best], scores[best]


def _places(numbered: Keys, asked: Asked) -> Any:
    """Of the keys `numbered` by place, those that may be found."""
    if asked.allowed is None:
        return KeySet(np.flatnonzero(asked.removed.has(numbered))).outside
    places = np.searchsorted(numbered, asked.allowed.keys)
    there = numbered[np.minimum(places, numbered.size - 1)] == asked.allowed.keys
    return KeySet(places[there]).within
