"""Parameters of an approximate search: the cheapest with which a collection finds its own items.

A few hundred items of the collection ask for their neighbours, and are passed over themselves; so
do strangers, which lie near these items but are none: a graph finds what it holds more easily. What
they should find is known from comparing with all; what is found with given parameters, and in what
time, is measured.
"""

import math
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from statistics import fmean, median
from typing import Any

import faiss as typed_faiss
import numpy as np

from index import exhaustive
from index.exhaustive import NOBODY, Question, recall
from index.gallery import Gallery
from index.generation import Generation, Work
from index.item import Keys, Vector
from index.keyset import KeySet
from index.planner import Kind
from index.probing import TUNED_FOR, VectorsOf

faiss: Any = typed_faiss

ASKING = 200
"""Items that ask; their recall is then within about 0.005 of that of all."""
SEED = 2
CAUTION = 0.25
"""The share of what may be missed that tuning leaves unused, since those who ask are a sample."""
FEWEST_TIMED = 5

EF_SEARCH = (32, 48, 64, 96, 128, 192, 256, 384, 512, 768, 1_024, 1_536, 2_048)
"""From where a million real pictures' descriptors have 0.98 for queries that lie between them: with
16 their own items had it, and the queries 0.974."""
CANDIDATES = (20, 40, 80, 160, 320, 640)

Parameters = Mapping[str, int]


@dataclass(frozen=True)
class Tuned:
    """Parameters, and what was measured with them: recall@10 and the median of single searches."""

    parameters: Parameters
    recall: float
    latency_ms: float

    def of(self, generation: Generation) -> Generation:
        """A generation with these."""
        sealed = replace(
            generation.sealed,
            parameters=self.parameters,
            recall=self.recall,
            latency_ms=self.latency_ms,
        )
        return replace(generation, sealed=sealed)


Measure = Callable[[Parameters], Tuned]


def own_questions(gallery: Gallery, high_key: int, work: Work) -> list[list[Question]]:
    """Items of the gallery, and strangers near them, that ask for their ten nearest.

    They ask among the items up to `high_key`.
    """
    own, queries = _asking(gallery, ASKING)
    ks = [TUNED_FOR] * len(own)
    items = _questions(gallery, queries, ks, own, high_key, work)
    nobody = np.full(len(own), NOBODY)
    return [items, _questions(gallery, _near(items), ks, nobody, high_key, work)]


def _near(items: Sequence[Question]) -> Vector:
    """A query near each item: as far from it, in any direction, as its nearest neighbour is."""
    queries = np.stack([item.query for item in items])
    best = [item.best[0] if item.best.size else 1.0 for item in items]
    nearest = np.array(best, dtype=np.float32)
    away = np.sqrt(np.maximum(2 - 2 * nearest, 0))[:, np.newaxis]
    steps = np.random.default_rng(SEED).standard_normal(queries.shape, dtype=np.float32)
    moved = queries + away * steps / np.linalg.norm(steps, axis=1, keepdims=True)
    unit: Vector = moved / np.linalg.norm(moved, axis=1, keepdims=True)
    return unit


def live_questions(
    gallery: Gallery, asked: Sequence[tuple[Vector, int]], high_key: int, work: Work
) -> list[Question]:
    """Queries that were asked, each for its k neighbours."""
    if not asked:
        return []
    queries = np.stack([query for query, _ in asked])
    nobody = np.full(len(asked), NOBODY)
    return _questions(gallery, queries, [k for _, k in asked], nobody, high_key, work)


def timing_questions(gallery: Gallery) -> list[Question]:
    """A few items that ask an exact index, whose answers need no comparison."""
    own, queries = _asking(gallery, FEWEST_TIMED)
    none = np.empty(0, dtype=np.float32)
    return [
        Question(query, TUNED_FOR, key, none)
        for query, key in zip(queries, own.tolist(), strict=True)
    ]


def _questions(
    gallery: Gallery, queries: Vector, ks: list[int], own: Keys, high_key: int, work: Work
) -> list[Question]:
    among = paced(gallery.chunks(up_to=high_key), work)
    best = exhaustive.best_scores(
        queries, max(ks, default=1), lambda keys: own[:, np.newaxis] == keys, among
    )
    return [
        Question(query, k, key, scores[:k])
        for query, k, key, scores in zip(queries, ks, own.tolist(), best, strict=True)
    ]


def tuned(
    generation: Generation,
    questions: Sequence[Sequence[Question]],
    target: float,
    removed: KeySet,
    vectors_of: VectorsOf,
    work: Work,
) -> Tuned:
    """The fastest parameters with which each kind of questions is answered at `target` or better.

    Where there are none, those with the best recall: the caller compares.
    """

    def measured(parameters: Parameters) -> Tuned:
        work.between()
        with work.limited():
            return _measured(generation.with_parameters(parameters), questions, removed, vectors_of)

    return SEARCHES[generation.sealed.kind](generation, measured, target)


def aim(target: float) -> float:
    """What to tune for, so that others than the sampled reach `target` too.

    >>> round(aim(0.98), 4)
    0.985
    """
    return 1 - (1 - target) * (1 - CAUTION)


def _exact(_: Generation, measured: Measure, __: float) -> Tuned:
    return measured({})


def _graph(_: Generation, measured: Measure, target: float) -> Tuned:
    steps = [{"efSearch": steps} for steps in EF_SEARCH]
    return _least(steps, measured, target)[1]


def _lists(generation: Generation, measured: Measure, target: float) -> Tuned:
    """Of the pairs that just reach the target, the fastest: many candidates, or many lists.

    With fewer candidates more lists are needed, until they cost more than they save, or do not do.
    """
    probes = _ladder(faiss.extract_index_ivf(generation.index).nlist)
    best: Tuned | None = None
    for candidates in reversed(CANDIDATES):
        pairs = [{"nprobe": nprobe, "candidates": candidates} for nprobe in probes]
        place, tried = _least(pairs, measured, target)
        if best and (tried.recall < target or tried.latency_ms >= best.latency_ms):
            return best
        best = tried
        probes = probes[place:]
    assert best is not None  # noqa: S101 - there are candidates to try
    return best


SEARCHES: Mapping[Kind, Callable[[Generation, Measure, float], Tuned]] = {
    "exact": _exact,
    "hnsw": _graph,
    "ivf-pq": _lists,
    "ivf-rabitq": _lists,
}


def _least(ladder: Sequence[Parameters], measured: Measure, target: float) -> tuple[int, Tuned]:
    """The first step of a ladder that reaches the target, or its last, with its place."""
    low, high = 0, len(ladder) - 1
    reached: dict[int, Tuned] = {}
    while low < high:
        middle = (low + high) // 2
        tried = measured(ladder[middle])
        if tried.recall >= target:
            high, reached[middle] = middle, tried
        else:
            low = middle + 1
    return low, reached.get(low) or measured(ladder[low])


def _ladder(most: int) -> list[int]:
    """Numbers up to `most` that grow by about √2.

    >>> _ladder(20)
    [1, 2, 3, 4, 6, 8, 11, 16, 20]
    """
    steps = range(math.ceil(2 * math.log2(most)) + 1) if most > 1 else range(1)
    return sorted({min(most, round(2 ** (step / 2))) for step in steps} | {most})


def _measured(
    generation: Generation,
    questions: Sequence[Sequence[Question]],
    removed: KeySet,
    vectors_of: VectorsOf,
) -> Tuned:
    recalls, seconds = [], []
    for some in questions:
        found = []
        for asked in some:
            started = time.perf_counter()
            # One more than wanted where the item itself is there too.
            wanted = asked.k + (asked.own != NOBODY)
            keys, scores = generation.search(asked.query, wanted, None, removed, vectors_of)
            seconds.append(time.perf_counter() - started)
            others = np.sort(scores[keys != asked.own])[::-1]
            found.append(recall(others[: asked.k], asked.best))
        recalls.append(fmean(found) if found else 1.0)
    latency = 1000 * median(seconds) if seconds else 0.0
    return Tuned(generation.sealed.parameters, min(recalls), latency)


def _asking(gallery: Gallery, most: int) -> tuple[Keys, Vector]:
    parts = list(gallery.sample(most, SEED))
    return (
        np.concatenate([keys for keys, _ in parts]),
        np.concatenate([vectors for _, vectors in parts]),
    )


def paced(chunks: Iterable[tuple[Keys, Vector]], work: Work) -> Iterator[tuple[Keys, Vector]]:
    """The same chunks, asking before each whether to go on."""
    for chunk in chunks:
        work.between()
        yield chunk
