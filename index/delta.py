"""The delta: what is newer than the generation, searched exactly.

A `Delta` never changes. `extended` gives another one that shares the buffer, into which it writes
only beyond what the older one sees; so readers go on with theirs and wait for nobody.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import numpy as np
import numpy.typing as npt

from index.item import Keys, Vector
from index.keyset import KeySet


@dataclass
class _Buffer:
    """Arrays with room to grow; the first `filled` rows are final."""

    keys: Keys
    vectors: dict[str, Vector]
    filled: int = 0


@dataclass(frozen=True)
class Delta:
    """Keys, ascending, with their descriptors in every space; `alive` is (n,) bool."""

    _buffer: _Buffer
    alive: npt.NDArray[np.bool_] = field(default_factory=lambda: np.zeros(0, dtype=np.bool_))

    @classmethod
    def empty(cls, dims: Mapping[str, int]) -> "Delta":
        """Of no items, in spaces of these dims."""
        return cls(_with_room(dims, 0))

    def __len__(self) -> int:
        return self.alive.size

    @property
    def keys(self) -> Keys:
        """(n,) int64, removed ones among them."""
        return self._buffer.keys[: len(self)]

    def vectors(self, space: str) -> Vector:
        """(n, dim) float32, removed ones among them."""
        return self._buffer.vectors[space][: len(self)]

    def extended(self, keys: Keys, vectors: Mapping[str, Vector]) -> "Delta":
        """This delta with newer items: keys above all of its own, (m, dim) for every space."""
        before, after = len(self), len(self) + keys.size
        buffer = self._buffer
        if buffer.filled != before or after > buffer.keys.size:
            buffer = self._copied(max(2 * before, after))
        buffer.keys[before:after] = keys
        for space, new in vectors.items():
            buffer.vectors[space][before:after] = new
        buffer.filled = after
        return Delta(buffer, np.append(self.alive, np.ones(keys.size, dtype=np.bool_)))

    def without(self, keys: Keys) -> "Delta":
        """This delta with some items removed; keys that are not here are ignored."""
        return replace(self, alive=self.alive & ~np.isin(self.keys, keys))

    def search(
        self, space: str, query: Vector, k: int, allowed: KeySet | None
    ) -> tuple[Keys, Vector]:
        """At most k best by inner product: keys and scores, in no order."""
        eligible = self.alive if allowed is None else self.alive & allowed.has(self.keys)
        scores = self.vectors(space) @ query
        places = np.flatnonzero(eligible)
        if places.size > k:
            best = np.argpartition(scores[places], places.size - k)[places.size - k :]
            places = places[best]
        return self.keys[places], scores[places]

    def _copied(self, room: int) -> _Buffer:
        dims = {space: held.shape[1] for space, held in self._buffer.vectors.items()}
        buffer = _with_room(dims, room)
        buffer.keys[: len(self)] = self.keys
        for space in dims:
            buffer.vectors[space][: len(self)] = self.vectors(space)
        return buffer


def _with_room(dims: Mapping[str, int], room: int) -> _Buffer:
    vectors = {space: np.empty((room, dim), dtype=np.float32) for space, dim in dims.items()}
    return _Buffer(np.empty(room, dtype=np.int64), vectors)
