"""What one search sees: generations and delta, less tombstones. A view never changes."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from index import keyset
from index.delta import Delta
from index.generation import Generation, Sealed
from index.item import Keys, Vector
from index.keyset import KeySet
from index.probing import VectorsOf
from index.space import Space

NOTHING: Mapping[str, Any] = {
    "count": 0,
    "bytes": 0,
    "bytes_per_item": 0.0,
    "parameters": {},
    "recall": None,
    "latency_ms": None,
}


@dataclass(frozen=True)
class View:
    """A collection as of one state of the catalog.

    `number` is the generations' number in the catalog (0: none yet); `key` and `removal` say up to
    where items and removals have been read.
    """

    number: int
    generations: Mapping[str, Generation]
    delta: Delta
    tombstones: KeySet
    key: int
    removal: int

    @classmethod
    def of(
        cls, number: int, generations: Mapping[str, Generation], spaces: Mapping[str, Space]
    ) -> "View":
        """As the generations were sealed, or of nothing."""
        sealed = [generation.sealed for generation in generations.values()]
        return cls(
            number=number,
            generations=generations,
            delta=Delta.empty(spaces),
            tombstones=keyset.NONE,
            key=sealed[0].high_key if sealed else 0,
            removal=sealed[0].removal_seq if sealed else 0,
        )

    @property
    def high_key(self) -> int:
        """Items up to here are in the generations, the others in the delta."""
        return next((each.sealed.high_key for each in self.generations.values()), 0)

    @property
    def sealed_count(self) -> int:
        """Items in a generation, removed ones among them."""
        return next((each.sealed.count for each in self.generations.values()), 0)

    def approximates(self, space: str) -> bool:
        """Whether a search of a space may miss a neighbour."""
        return space in self.generations and self.generations[space].sealed.kind != "exact"

    def retuned(self, sealed: Mapping[str, Sealed]) -> "View":
        """This view, where its generations are searched as the catalog now records them."""
        if all(sealed[name] == each.sealed for name, each in self.generations.items()):
            return self
        generations = {
            name: replace(each, sealed=sealed[name]) for name, each in self.generations.items()
        }
        return replace(self, generations=generations)

    def status(self, space: str) -> dict[str, Any]:
        """Which index a space has and why, what it costs, and how many items are in which part.

        `bytes_per_item` are of the file, which is what is held in memory; `recall` (of the ten
        nearest) and `latency_ms` (median of single searches) were measured when it was sealed or
        last tuned, None where there is no generation.
        """
        parts = {"delta": len(self.delta), "tombstones": self.tombstones.size}
        if space not in self.generations:
            why = "no generation yet: all is in the delta, which is searched exactly"
            return {"kind": "exact", "why": why, "number": self.number, **NOTHING, **parts}
        sealed = self.generations[space].sealed
        return {
            "kind": sealed.kind,
            "why": sealed.why,
            "number": sealed.number,
            "count": sealed.count,
            "bytes": sealed.bytes,
            "bytes_per_item": round(sealed.bytes / max(1, sealed.count), 1),
            "parameters": dict(sealed.parameters),
            "recall": round(sealed.recall, 4),
            "latency_ms": round(sealed.latency_ms, 3),
            **parts,
        }

    def search(
        self, space: str, query: Vector, k: int, allowed: KeySet | None, vectors_of: VectorsOf
    ) -> tuple[Keys, Vector]:
        """The k nearest of one space: (n,) keys and (n,) cosines, best first.

        `query` is (dim,) float32 of norm 1; `allowed` are the keys to choose from, None
        for all; `vectors_of` gives the space's descriptors by key. Fewer than k come back only
        where fewer exist. Equal scores: the older item first.
        """
        nearly = self.approximates(space)
        found = self.delta.search(space, query, k, allowed, nearly=nearly)
        parts = [found] if found[0].size else []
        if space in self.generations:
            generation = self.generations[space]
            parts.append(generation.search(query, k, allowed, self.tombstones, vectors_of))
        if not parts:
            return keyset.NONE.keys, np.empty(0, dtype=np.float32)
        keys, scores = parts[0]
        if len(parts) > 1:
            keys = np.concatenate([keys, parts[1][0]])
            scores = np.concatenate([scores, parts[1][1]])
        scores = bounded(scores)
        best = np.lexsort((keys, -scores))[:k]
        return keys[best], scores[best]


def bounded(scores: Vector) -> Vector:
    """Cosines within [-1, 1]: rounding to float16 can carry one of 1 a little beyond it."""
    return np.minimum(np.maximum(scores, -1), 1)
