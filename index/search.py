"""One search: from query vectors to neighbours with their metadata."""

import json
import math
import time
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
from sqlalchemy import Connection, Text, bindparam, select

from index import descriptors, tables
from index.columns import Columns
from index.current import Current
from index.database import Database
from index.errors import CollectionError
from index.filters import Clause, Term, clause
from index.item import Keys, Neighbour, Vector
from index.keyset import KeySet
from index.prepared import Prepared
from index.ranking import fusion
from index.ranking.expansion import Expansion, expand
from index.ranking.neighbourhood import Mask
from index.ranking.reranking import Reranking
from index.space import Space
from index.view import View
from index.watching import Note, Watch

decode: Callable[[str], tuple[Any, int]] = json.JSONDecoder().raw_decode
"""What the catalog stores as JSON begins with no blanks, which `json.loads` looks for."""

CANDIDATES = 4
"""Candidates of each space for one neighbour of several spaces."""
FEWEST_CANDIDATES = 200
ATTEMPTS = 8

ITEMS = tables.items
WANTED = tables.listing(bindparam("keys", type_=Text)).subquery()
SHOWN = Prepared(
    select(
        ITEMS.c.key, ITEMS.c.id, ITEMS.c.name, ITEMS.c.metadata, ITEMS.c.width, ITEMS.c.height
    ).join_from(WANTED, ITEMS, ITEMS.c.key == WANTED.c.value)
)


@dataclass(frozen=True)
class Asked:
    """One space of a query: its share of the score, and a vector (dim,) float32 of norm 1."""

    space: str
    weight: float
    query: Vector


@dataclass(frozen=True)
class Ranking:
    """Keys, best first, with scores and cosines, which differ only where it was re-ranked.

    `whole` unless the catalog has moved on meanwhile.
    """

    keys: Keys
    scores: Vector
    cosines: Vector
    whole: bool = True

    @classmethod
    def of(cls, keys: Keys, cosines: Vector) -> "Ranking":
        """As the index gives it."""
        return cls(keys, cosines, cosines)

    def __getitem__(self, chosen: slice | Keys | Mask) -> "Ranking":
        return replace(
            self,
            keys=self.keys[chosen],
            scores=self.scores[chosen],
            cosines=self.cosines[chosen],
        )

    def then(self, rest: "Ranking") -> "Ranking":
        """This one, and after it what else `rest` has."""
        rest = rest[~np.isin(rest.keys, self.keys)]
        return Ranking(
            np.concatenate([self.keys, rest.keys]),
            np.concatenate([self.scores, rest.scores]),
            np.concatenate([self.cosines, rest.cosines]),
            self.whole and rest.whole,
        )


def asked(
    query: Vector | Mapping[str, Vector],
    space: str | Mapping[str, float] | None,
    spaces: Mapping[str, Space],
) -> list[Asked]:
    """What is asked of which space. Raises CollectionError as `Collection.search` says."""
    if space is None and len(spaces) == 1 and not isinstance(query, Mapping):
        ((name, only),) = spaces.items()
        return [Asked(name, 1.0, _unit(query, only))]
    weights = fusion.weights(_weights(query, space, spaces))
    vectors = query if isinstance(query, Mapping) else dict.fromkeys(weights, query)
    if not isinstance(query, Mapping) and len(weights) > 1:
        raise CollectionError("space-required", f"give a vector for each of {sorted(weights)}")
    chosen = []
    for name, weight in weights.items():
        if name not in spaces:
            raise CollectionError(
                "space-unknown", f"there is no space {name!r}: there are {sorted(spaces)}"
            )
        if name not in vectors:
            raise CollectionError("space-required", f"the query has no vector for space {name!r}")
        chosen.append(Asked(name, weight, _unit(vectors[name], spaces[name])))
    return chosen


@dataclass(frozen=True)
class Searching:
    """Searches of one collection."""

    database: Database
    current: Current
    collection_id: int
    spaces: Mapping[str, tuple[int, Space]]
    watch: Watch
    columns: Columns

    def search(
        self,
        chosen: list[Asked],
        k: int,
        offset: int,
        term: Term | None,
        exclude: Collection[str],
        expansion: Expansion | None,
        rerank: Reranking | None,
    ) -> list[Neighbour]:
        """The neighbours in places `offset` to `offset` + k.

        An item that is replaced between our look at the index and our look at the catalog would be
        missing from both; then we look again.
        """
        found: list[Neighbour] = []
        # Alone, an item's vector and metadata need no snapshot: its key never means another item.
        simple = term is None and not exclude and expansion is None and rerank is None
        snapshot = self.database.looking if simple else self.database.reading
        for _ in range(ATTEMPTS):
            view = self.current.view()
            with snapshot() as connection:
                one = _One(connection, view, self)
                ranking = one.ranking(chosen, k + offset, term, exclude, expansion, rerank)
                found, whole = one.neighbours(ranking, offset, k)
            if whole:
                break
        self.current.searched = time.monotonic()
        return found


@dataclass(frozen=True)
class _One:
    """One attempt, on one view and one snapshot of the catalog."""

    connection: Connection
    view: View
    searching: Searching

    def ranking(
        self,
        chosen: list[Asked],
        k: int,
        term: Term | None,
        exclude: Collection[str],
        expansion: Expansion | None,
        rerank: Reranking | None,
    ) -> Ranking:
        """The k best that are allowed."""
        excluded = self._keys(ITEMS.c.id.in_(tables.listed(exclude))) if exclude else None
        allowed = None if term is None else self._allowed(term)
        if expansion is not None:
            chosen = [self._expanded(one, expansion, allowed, excluded) for one in chosen]
        if rerank is None:
            ranking = self._ranked(chosen, k, allowed, excluded)
        else:
            ranking = self._reranked(chosen, k, allowed, excluded, rerank)
        if allowed is not None and allowed.size and allowed.keys[-1] > self.view.key:
            return replace(ranking, whole=False)
        return ranking

    def neighbours(self, ranking: Ranking, offset: int, k: int) -> tuple[list[Neighbour], bool]:
        """Places `offset` to `offset` + k with names and metadata; whether none is missing."""
        shown = ranking if not offset and ranking.keys.size <= k else ranking[offset : offset + k]
        keys = shown.keys.tolist()
        wanted = {"keys": tables.packed(keys)}
        rows = {row[0]: row for row in SHOWN.rows(self.connection, wanted)}
        found = []
        for key, score, cosine in zip(
            keys, shown.scores.tolist(), shown.cosines.tolist(), strict=True
        ):
            if key in rows:
                _, item_id, name, metadata, width, height = rows[key]
                read, _ = decode(metadata)
                found.append(Neighbour(key, item_id, score, cosine, name, read, width, height))
        return found, shown.whole and len(found) == shown.keys.size

    def _ranked(
        self, chosen: list[Asked], k: int, allowed: KeySet | None, excluded: Keys | None
    ) -> Ranking:
        if len(chosen) == 1:
            return Ranking.of(*self._nearest(chosen[0], k, allowed, excluded))
        each = max(FEWEST_CANDIDATES, CANDIDATES * k)
        candidates = [self._nearest(one, each, allowed, excluded)[0] for one in chosen]
        union = np.unique(np.concatenate(candidates))
        there, total = union, np.zeros(union.size, dtype=np.float32)
        for one in chosen:
            there, vectors = self._vectors(one.space, union)
            if there.size < union.size:
                return replace(Ranking.of(there[:0], total[:0]), whole=False)
            total += np.float32(one.weight) * np.clip(vectors @ one.query, -1, 1)
        best = np.lexsort((there, -total))[:k]
        return Ranking.of(there[best], total[best])

    def _reranked(
        self,
        chosen: list[Asked],
        k: int,
        allowed: KeySet | None,
        excluded: Keys | None,
        rerank: Reranking,
    ) -> Ranking:
        """A short list that is the same for every k, so that pages make up the whole; the rest."""
        short = self._ranked(chosen, rerank.shortlist, allowed, excluded)
        within = np.zeros((short.keys.size, short.keys.size), dtype=np.float32)
        for one in chosen:
            there, vectors = self._vectors(one.space, short.keys)
            if there.size < short.keys.size:
                return replace(short, whole=False)
            rows = vectors[np.searchsorted(there, short.keys)]
            within += np.float32(one.weight) * (rows @ rows.T)
        scores = rerank.scores(short.cosines[np.newaxis], within)[0]
        again = replace(short, scores=scores)[np.argsort(-scores, kind="stable")]
        if k <= rerank.shortlist:
            return again
        return again.then(self._ranked(chosen, k, allowed, excluded))

    def _nearest(
        self, one: Asked, k: int, allowed: KeySet | None, excluded: Keys | None
    ) -> tuple[Keys, Vector]:
        more = k if excluded is None else k + excluded.size
        vectors_of = partial(self._vectors, one.space)
        keys, scores = self.view.search(one.space, one.query, more, allowed, vectors_of)
        watch = self.searching.watch
        if watch.chosen(one.space):
            watch.add(Note(one.space, one.query, more, allowed, self.view.key, keys, scores))
        if excluded is None:
            return keys, scores
        kept = np.flatnonzero(~np.isin(keys, excluded))[:k]
        return keys[kept], scores[kept]

    def _expanded(
        self, one: Asked, expansion: Expansion, allowed: KeySet | None, excluded: Keys | None
    ) -> Asked:
        keys, scores = self._nearest(one, expansion.n, allowed, excluded)
        there, vectors = self._vectors(one.space, keys)
        known = np.isin(keys, there)
        order = np.searchsorted(there, keys[known])
        return replace(one, query=expand(one.query, vectors[order], scores[known], expansion.alpha))

    def _vectors(self, space: str, keys: Keys) -> tuple[Keys, Vector]:
        space_id, described = self.searching.spaces[space]
        return descriptors.of_keys(self.connection, space_id, described, keys)

    def _allowed(self, term: Term) -> KeySet:
        found = self.searching.columns.keys(self.connection, term)
        return KeySet(self._keys(clause(term))) if found is None else found

    def _keys(self, clause: Clause) -> Keys:
        """Ascending keys of the items for which `clause` holds."""
        query = select(ITEMS.c.key).where(
            ITEMS.c.collection_id == self.searching.collection_id, clause
        )
        rows = self.connection.execute(query.order_by(ITEMS.c.key)).scalars().all()
        return np.array(rows, dtype=np.int64)


def _weights(
    query: Vector | Mapping[str, Vector],
    space: str | Mapping[str, float] | None,
    spaces: Mapping[str, Space],
) -> Mapping[str, float]:
    if isinstance(space, str):
        return {space: 1.0}
    if space is not None:
        return space
    if isinstance(query, Mapping):
        return dict.fromkeys(query, 1.0)
    if len(spaces) > 1:
        raise CollectionError("space-required", f"name one of the spaces {sorted(spaces)}")
    return dict.fromkeys(spaces, 1.0)


def _unit(vector: Vector, space: Space) -> Vector:
    plain = np.asarray(vector, dtype=np.float32)
    norm = math.sqrt(plain @ plain) if plain.shape == (space.dim,) else 0.0
    if not 0 < norm < math.inf:  # something is wrong, or the sum of squares is out of range
        where = f"query, space {space.name!r}"
        norm = descriptors.norm_of(where, descriptors.check_vector(where, plain, space))
    unit: Vector = plain / np.float32(norm)
    return unit
