"""Groups of duplicates in a whole collection, by union-find over the neighbours of every item.

An item and each neighbour above the threshold are joined; what is joined through others is one
group (the connected components). Nothing is kept of a pair, so memory is that of some numbers for
each item, and the work is a search for each.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from sqlalchemy import func, select

from index import descriptors, tables
from index.database import Database
from index.item import Keys, Vector
from index.probing import VectorsOf
from index.space import Space
from index.view import View

ITEMS = tables.items

NEIGHBOURS = 16
"""First asked for; four times as many wherever all of them are above the threshold."""
MOST_NEIGHBOURS = 4096
"""An item with more duplicates than this is joined with so many of them: the others find it."""
STEP = 256
"""Items between two reports of progress."""

Told = Callable[[int, int], None]
"""Told how many of how many items are compared; what it raises ends the work."""


@dataclass(frozen=True)
class Member:
    """An item of a group; `score` is its greatest cosine to another one, 1 for the same content."""

    id: str
    score: float


Group = list[Member]
"""Two or more items, the oldest first."""


class Sets:
    """Disjoint sets of 0…n-1 (Tarjan 1975, with path halving).

    >>> sets = Sets(4)
    >>> sets.join(0, 3); sets.join(3, 1)
    >>> [sets.root(each) == sets.root(0) for each in range(4)]
    [True, True, False, True]
    """

    def __init__(self, n: int) -> None:
        self._parent = list(range(n))

    def root(self, element: int) -> int:
        """The element that stands for the set: its least."""
        parent = self._parent
        while parent[element] != element:
            parent[element] = parent[parent[element]]
            element = parent[element]
        return element

    def join(self, one: int, other: int) -> None:
        """Make one set of two."""
        low, high = sorted((self.root(one), self.root(other)))
        self._parent[high] = low


@dataclass
class Grouping:
    """Duplicates among the items of one collection, as of the moment when it was begun."""

    database: Database
    collection_id: int
    keys: Keys
    sets: Sets
    best: Vector

    @classmethod
    def begun(cls, database: Database, collection_id: int) -> "Grouping":
        """Over all items that there are now."""
        query = select(ITEMS.c.key).where(ITEMS.c.collection_id == collection_id)
        with database.reading() as connection:
            rows = connection.execute(query.order_by(ITEMS.c.key)).scalars()
            keys = np.fromiter(rows, dtype=np.int64)
        return cls(database, collection_id, keys, Sets(keys.size), np.zeros(keys.size, np.float32))

    def join_same_content(self) -> None:
        """Join items of one SHA-256."""
        mine = ITEMS.c.collection_id == self.collection_id
        several = (
            select(ITEMS.c.sha256).where(mine).group_by(ITEMS.c.sha256).having(func.count() > 1)
        )
        query = select(ITEMS.c.sha256, ITEMS.c.key).where(mine, ITEMS.c.sha256.in_(several))
        before: tuple[str, int] = ("", 0)
        with self.database.reading() as connection:
            for sha256, key in connection.execute(query.order_by(ITEMS.c.sha256, ITEMS.c.key)):
                if sha256 == before[0]:
                    self._join(key, np.array([before[1]]), np.ones(1, dtype=np.float32))
                before = sha256, key

    def join_alike(
        self, view: View, space_id: int, space: Space, threshold: float, told: Told
    ) -> None:
        """Join items whose cosine in a space is at least `threshold`."""
        done = 0

        def vectors_of(keys: Keys) -> tuple[Keys, Vector]:
            with self.database.reading() as connection:
                return descriptors.of_keys(connection, space_id, space, keys)

        for keys, vectors in self._chunks(space_id, space):
            for first in range(0, keys.size, STEP):
                part = slice(first, first + STEP)
                for key, vector in zip(keys[part].tolist(), vectors[part], strict=True):
                    self._join(key, *_above(view, space.name, vector, threshold, vectors_of))
                done += keys[part].size
                told(min(done, self.keys.size), self.keys.size)

    def groups(self) -> list[Group]:
        """All groups, the largest first, of the items that are there by now."""
        roots = np.array([self.sets.root(at) for at in range(self.keys.size)], dtype=np.int64)
        _, which, sizes = np.unique(roots, return_inverse=True, return_counts=True)
        members = np.flatnonzero(sizes[which] > 1) if roots.size else np.empty(0, dtype=np.int64)
        ids = self._ids(members)
        groups: dict[int, Group] = {}
        for at in members.tolist():
            if at in ids:
                member = Member(ids[at], round(float(self.best[at]), 6))
                groups.setdefault(int(roots[at]), []).append(member)
        whole = [group for group in groups.values() if len(group) > 1]
        return sorted(whole, key=len, reverse=True)

    def _join(self, key: int, others: Keys, scores: Vector) -> None:
        """Join an item with others, of which it may be one, and some of which may be newer."""
        at = self._places(np.array([key]))
        places = self._places(others)
        real = (places >= 0) & (others != key)
        if at[0] < 0 or not real.any():
            return
        places, scores = places[real], np.minimum(scores[real], 1)
        self.best[at[0]] = max(self.best[at[0]], scores.max())
        np.maximum.at(self.best, places, scores)
        for place in places.tolist():
            self.sets.join(int(at[0]), place)

    def _places(self, keys: Keys) -> npt.NDArray[np.int64]:
        """Where keys are among ours; -1: nowhere."""
        if not self.keys.size:
            return np.full(keys.size, -1)
        places = np.minimum(np.searchsorted(self.keys, keys), self.keys.size - 1)
        return np.where(self.keys[places] == keys, places, -1)

    def _chunks(self, space_id: int, space: Space) -> Iterator[tuple[Keys, Vector]]:
        """All descriptors, each chunk in a short transaction, so that the log does not grow."""
        key = 0
        while True:
            with self.database.reading() as connection:
                chunk = next(descriptors.after(connection, space_id, space, key), None)
            if chunk is None:
                return
            yield chunk
            key = int(chunk[0][-1])

    def _ids(self, members: npt.NDArray[np.int64]) -> dict[int, str]:
        found: dict[int, str] = {}
        with self.database.reading() as connection:
            for first in range(0, members.size, 8192):
                some = members[first : first + 8192]
                query = select(ITEMS.c.key, ITEMS.c.id).where(
                    ITEMS.c.key.in_(tables.listed(self.keys[some].tolist()))
                )
                ids = {row.key: row.id for row in connection.execute(query)}
                found |= {
                    at: ids[key]
                    for at, key in zip(some.tolist(), self.keys[some].tolist(), strict=True)
                    if key in ids
                }
        return found


def _above(
    view: View, space: str, vector: Vector, threshold: float, vectors_of: VectorsOf
) -> tuple[Keys, Vector]:
    """All neighbours of a vector from a cosine on: keys and cosines."""
    unit: Vector = vector / np.linalg.norm(vector)
    k = NEIGHBOURS
    while True:
        keys, scores = view.search(space, unit, k, None, vectors_of)
        if keys.size < k or scores[-1] < threshold or k >= MOST_NEIGHBOURS:
            return keys[scores >= threshold], scores[scores >= threshold]
        k *= 4
