"""The descriptors of one space in one snapshot of the catalog, as building an index reads them."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from sqlalchemy import Connection, func, select

from index import descriptors, tables
from index.item import Keys, Vector
from index.space import Space

AT_ONCE = 8_192

ITEMS = tables.items


@dataclass(frozen=True)
class Gallery:
    """One space of a collection; `connection` is within a transaction."""

    connection: Connection
    collection_id: int
    space_id: int
    space: Space

    def count(self) -> int:
        """How many descriptors there are."""
        return descriptors.count(self.connection, self.space_id)

    def high_key(self) -> int:
        """The greatest key of an item, 0 where there is none."""
        query = select(func.max(ITEMS.c.key)).where(ITEMS.c.collection_id == self.collection_id)
        return int(self.connection.execute(query).scalar() or 0)

    def chunks(self, after: int = 0, up_to: int | None = None) -> Iterator[tuple[Keys, Vector]]:
        """All descriptors with a key above `after`, in the order of keys: (n,) and (n, dim)."""
        for keys, vectors in descriptors.after(self.connection, self.space_id, self.space, after):
            if up_to is not None and keys[-1] > up_to:
                inside = keys <= up_to
                yield keys[inside], vectors[inside]
                return
            yield keys, vectors

    def vectors(self, keys: Keys) -> tuple[Keys, Vector]:
        """Those of `keys` that are there, ascending, with their descriptors (n, dim) float32."""
        return descriptors.of_keys(self.connection, self.space_id, self.space, keys)

    def sample(self, size: int, seed: int) -> Iterator[tuple[Keys, Vector]]:
        """At most `size` of the descriptors at random, in chunks."""
        query = select(ITEMS.c.key).where(ITEMS.c.collection_id == self.collection_id)
        keys = np.fromiter(self.connection.execute(query).scalars(), dtype=np.int64)
        chosen = np.random.default_rng(seed).choice(keys, min(size, keys.size), replace=False)
        for part in np.array_split(np.sort(chosen), max(1, chosen.size // AT_ONCE)):
            yield self.vectors(part)
