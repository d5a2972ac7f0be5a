"""What one search sees: generations and delta, less tombstones. A view never changes."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from index import keyset
from index.delta import Delta
from index.generation import Generation
from index.item import Keys, Vector
from index.keyset import KeySet
from index.space import Space

SHOWN = ("kind", "why", "number", "count", "bytes", "probes")


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

    def status(self, space: str) -> dict[str, Any]:
        """Which index a space has, why, and how many items are in which part."""
        parts = {"delta": len(self.delta), "tombstones": self.tombstones.size}
        if space not in self.generations:
            why = "no generation yet: all is in the delta, which is searched exactly"
            none = {"kind": "exact", "why": why, "number": self.number}
            return none | {"count": 0, "bytes": 0, "probes": 0} | parts
        sealed = asdict(self.generations[space].sealed)
        return {name: sealed[name] for name in SHOWN} | parts

    def search(
        self, space: str, query: Vector, k: int, allowed: KeySet | None
    ) -> tuple[Keys, Vector]:
        """The k nearest of one space: (n,) keys and (n,) cosines, best first.

        `query` is (dim,) float32 of norm 1; `allowed` are the keys to choose from, None for all. Fewer than k come back only where fewer exist. Equal scores: the older item first.
        """
        parts = [self.delta.search(space, query, k, allowed)] if len(self.delta) else []
        if space in self.generations:
            parts.append(self.generations[space].search(query, k, allowed, self.tombstones))
        if not parts:
            return keyset.NONE.keys, np.empty(0, dtype=np.float32)
        keys, scores = parts[0]
        if len(parts) > 1:
            keys, scores = (
                np.concatenate([keys, parts[1][0]]),
                np.concatenate([scores, parts[1][1]]),
            )
        # Rounding to float16 can carry a cosine of 1 a little beyond it.
        scores = np.minimum(np.maximum(scores, -1), 1)
        best = np.lexsort((keys, -scores))[:k]
        return keys[best], scores[best]
