"""A collection: items in, neighbours out."""

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from collections.abc import Collection as Several
from contextlib import contextmanager
from datetime import datetime
from functools import partial
from pathlib import Path
from threading import Event
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

import numpy as np
from sqlalchemy import Connection, func, select

from index import descriptors, disk, tables, writing
from index import metadata as json_metadata
from index.columns import Columns
from index.current import Current
from index.discarding import discard
from index.duplicates import DuplicateCheck, Sieve, check_threshold
from index.errors import CollectionError, DiskError
from index.filters import compile_filter, parse
from index.generation import UNHURRIED, Work
from index.grouping import Group, Grouping, Told
from index.item import Item, Neighbour, NewItem, Outcome, Vector
from index.pictures import PictureStore
from index.planner import Policy
from index.ranking.expansion import Expansion
from index.ranking.reranking import Reranking
from index.search import Searching, asked
from index.space import Space, check_same
from index.watching import Watch, Watched

if TYPE_CHECKING:
    from index import importing
    from index.catalog import Catalog
    from index.exporting import Exported
    from index.importing import Imported

logger = logging.getLogger(__name__)

ITEMS = tables.items


class Collection:
    """A named set of items with descriptors in the same spaces. Safe for any number of threads.

    From a `Catalog`, or alone:

        with Collection.open("pictures", spaces=[space]) as collection:
            collection.add(items)
            neighbours = collection.search(descriptor, k=10)
    """

    def __init__(
        self, catalog: "Catalog", row: Any, spaces: Mapping[str, tuple[int, Space]]
    ) -> None:
        self.id: int = row.id
        self.name: str = row.name
        self.settings: dict[str, Any] = row.settings
        self.created_at: datetime = row.created_at
        self.spaces: dict[str, Space] = {name: space for name, (_, space) in spaces.items()}
        discarding = partial(discard, catalog.folder)
        self.pictures = PictureStore(str(catalog.folder / "pictures" / str(row.id)), discarding)
        self._catalog = catalog
        self._database = catalog.database
        self._numbered = spaces
        self._policy = Policy.of(row.settings)
        self._watch = Watch(catalog.database, row.id, spaces, catalog.watched)
        self._folder = catalog.folder / "generations" / str(row.id)
        with disk.reported(self._folder):
            self._current = Current(
                catalog.database, row.id, spaces, self._policy, self._folder, discarding
            )
        self._searching = Searching(
            catalog.database,
            self._current,
            row.id,
            spaces,
            self._watch,
            Columns(row.id, self._current.recorded),
        )

    @classmethod
    def open(
        cls, folder: Path | str, name: str = "default", spaces: Sequence[Space] | None = None
    ) -> "Collection":
        """Open a collection without a catalog at hand, and make it where `spaces` say of what.

        Raises CollectionError: `collection-unknown`, `collection-fingerprint-differs` and those of
        `Catalog.open` and `Catalog.create_collection`.
        """
        from index.catalog import Catalog

        catalog = Catalog.open(Path(folder))
        try:
            if spaces is None or name in catalog.names():
                collection = catalog.collection(name)
                check_same(collection.spaces, spaces or (), name)
                return collection
            return catalog.create_collection(name, spaces, {})
        except BaseException:
            catalog.close()
            raise

    def close(self) -> None:
        """Close the catalog of a collection that was opened alone."""
        self._catalog.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        _type: type[BaseException] | None,
        _error: BaseException | None,
        _at: TracebackType | None,
    ) -> None:
        self.close()

    def add(
        self,
        items: Sequence[NewItem],
        also: Callable[[Connection, list[Outcome]], None] | None = None,
        duplicates: DuplicateCheck | None = None,
    ) -> list[Outcome]:
        """Add items, in one transaction, as if one after another; an outcome for each.

        An id with the same content and metadata is `unchanged` (name, source and stamp follow); the
        same content with other metadata, or other content, is `replaced`. On return all is on disk
        and found by every search. `also` writes into the same transaction; it must not use this
        catalog otherwise. `duplicates` compares new content with all items that are there, also
        with the earlier ones of `items`: a duplicate is `rejected`, or added and flagged.

        Raises CollectionError (`item-id-invalid`, `descriptor-invalid`, `metadata-invalid`,
        `collection-unknown`, `space-unknown`) and DiskError; then nothing is changed.
        """
        # Under any other content no picture can have been put.
        contents = [item.sha256 for item in items if writing.SHA256.fullmatch(item.sha256)]
        try:
            writing.check(items, self.spaces)
            sieve = self._sieve(duplicates, items) if duplicates else None
            with self._writing() as connection:
                there = writing.items_of(connection, self.id, [item.id for item in items])
                found = sieve.sift(connection, self.id, items, there) if sieve else ()
                change = writing.planned(there, items, found, duplicates)
                writing.write(connection, self.id, self._numbered, change)
                if also is not None:
                    also(connection, change.outcomes)
        except BaseException as error:
            self.pictures.arrived(contents)
            # What could not be synced may be found in the log after a crash, and needs its picture.
            if getattr(error, "code", None) != "disk-failed":
                self._settle(contents)
            raise
        self.pictures.arrived(contents)
        self._settle({item.sha256 for item in change.removed} | change.rejected)
        return change.outcomes

    def _sieve(self, check: DuplicateCheck, items: Sequence[NewItem]) -> Sieve:
        view = self._current.view()
        with self._database.reading() as connection:
            return Sieve.of(check, self._numbered, items, view, connection)

    def check(self, item: NewItem) -> None:
        """Raise what `add` would raise for this item, so that it fails alone and not its batch."""
        writing.check([item], self.spaces)

    def abandon(self, contents: Several[str]) -> None:
        """Let go of pictures that were put for items which then were not added.

        A picture is named once for each of its items.
        """
        self.pictures.arrived(contents)
        self._settle(contents)

    def remove(self, ids: Sequence[str]) -> list[bool]:
        """Remove items, and the pictures that no other item uses; whether each was there."""
        with self._writing() as connection:
            there = writing.items_of(connection, self.id, ids)
            writing.remove(connection, self.id, [item.key for item in there.values()])
        self._settle({item.sha256 for item in there.values()})
        return [item_id in there for item_id in ids]

    def patch(self, item_id: str, metadata: Mapping[str, Any]) -> Item:
        """Change an item's metadata by a JSON merge patch (RFC 7396), null removing a member.

        Raises CollectionError: `item-unknown`, `metadata-invalid`.
        """
        with self._writing() as connection:
            item = self._item(connection, item_id)
            patch = json_metadata.checked(metadata)
            merged = json_metadata.checked(json_metadata.merge(item.metadata, patch))
            writing.edit(connection, self.id, item.key, {"metadata": merged})
            return self._item(connection, item_id)

    def get(self, item_id: str) -> Item:
        """Return one item. Raises CollectionError: `item-unknown`."""
        with self._database.reading() as connection:
            return self._item(connection, item_id)

    def items(
        self,
        after: str | None = None,
        limit: int = 100,
        filter: Mapping[str, Any] | None = None,  # noqa: A002 - the field's word
        flagged: bool | None = None,
    ) -> list[Item]:
        """At most `limit` items in the order of their ids, from the first after the id `after`.

        `flagged` chooses those that were, or were not, flagged as duplicates when they were added.
        Raises CollectionError: `filter-invalid`.
        """
        query = select(ITEMS).where(ITEMS.c.collection_id == self.id)
        if after is not None:
            query = query.where(ITEMS.c.id > after)
        if filter is not None:
            query = query.where(compile_filter(filter))
        if flagged is not None:
            mark = ITEMS.c.duplicate_of
            query = query.where(mark.is_not(None) if flagged else mark.is_(None))
        with self._database.reading() as connection:
            rows = connection.execute(query.order_by(ITEMS.c.id).limit(limit))
            return [writing.to_item(row) for row in rows]

    def count(self) -> int:
        """How many items there are."""
        query = select(func.count()).where(ITEMS.c.collection_id == self.id)
        with self._database.reading() as connection:
            return int(connection.execute(query).scalar_one())

    def known(self, ids: Sequence[str]) -> dict[str, tuple[str, str | None]]:
        """Content (SHA-256) and file stamp of those of `ids` that are there."""
        with self._database.reading() as connection:
            found = writing.items_of(connection, self.id, ids)
        return {item_id: (item.sha256, item.stamp) for item_id, item in found.items()}

    def vectors(self, ids: Sequence[str], space: str) -> Vector:
        """The descriptors of items in one space, (n, dim) float32 in the order of `ids`.

        Raises CollectionError: `item-unknown`, `space-unknown`.
        """
        self.check_spaces([space])
        space_id, described = self._numbered[space]
        with self._database.reading() as connection:
            there = writing.items_of(connection, self.id, ids)
            for item_id in ids:
                if item_id not in there:
                    raise self._unknown(item_id)
            keys = np.array([there[item_id].key for item_id in ids], dtype=np.int64)
            found, vectors = descriptors.of_keys(connection, space_id, described, keys)
        return vectors[np.searchsorted(found, keys)]

    def all_vectors(self, space: str) -> Vector:
        """The descriptors of all items in one space, (n, dim) float32, the oldest item first.

        Raises CollectionError: `space-unknown`.
        """
        self.check_spaces([space])
        space_id, described = self._numbered[space]
        with self._database.reading() as connection:
            chunks = descriptors.after(connection, space_id, described, 0)
            none = np.empty((0, described.dim), dtype=np.float32)
            return np.concatenate([none, *(vectors for _, vectors in chunks)])

    def duplicates(
        self,
        threshold: float | None = None,
        space: str | None = None,
        told: Told = lambda *_: None,
    ) -> list[Group]:
        """Groups of two or more items that duplicate each other, the largest group first.

        Items of the same content are duplicates; with `threshold` also those whose cosine in
        `space` is at least that, and so on from one to the next. `told` hears of progress, and ends
        the work by raising. Where searches are approximate a pair may be missed.

        Raises CollectionError: `duplicates-invalid`, `space-unknown`, `space-required`.
        """
        grouping = Grouping.begun(self._database, self.id)
        if threshold is not None:
            check_threshold(threshold)
            if space is None and len(self.spaces) > 1:
                raise CollectionError("space-required", f"name one of {sorted(self.spaces)}")
            space = space or next(iter(self.spaces))
            self.check_spaces([space])
            if self.needs_compaction():
                self._compact_to_compare(lambda: told(0, grouping.keys.size))
            described = self._numbered[space]
            grouping.join_alike(self._current.view(), *described, threshold, told)
        grouping.join_same_content()
        return grouping.groups()

    def _compact_to_compare(self, told: Callable[[], None]) -> None:
        """Comparing many is faster then; where the disk is full, it is done without."""
        try:
            with disk.reported(self._folder):
                self._current.compact(told=told)
        except DiskError as error:
            logger.warning("collection %r is compared as it is: %s", self.name, error)

    def export(self, folder: Path | str, told: Told = lambda *_: None) -> "Exported":
        """Write all items, as of one instant, into a folder that is missing or empty.

        Parquet, and for each space a plain FAISS index: see `index.exporting`. Raises
        CollectionError: `export-not-empty`, `export-failed`.
        """
        from index import exporting

        with self._database.reading() as connection:
            mine = self.id, self.name
            return exporting.export(connection, mine, self._numbered, Path(folder), told)

    def import_rows(
        self,
        rows: "importing.Rows",
        *,
        own: bool = False,
        normalise: bool = False,
        told: Told = lambda *_: None,
    ) -> "Imported":
        """Add descriptors from elsewhere, all checked before the first is added, in batches.

        `rows` are `index.importing.ArrayRows` or `ParquetRows`; `own` says that descriptors of
        which nothing says what made them are those of this collection's spaces. Again: what is
        there is `unchanged`. Raises CollectionError as `index.importing` says.
        """
        from index import importing

        importing.check_spaces(rows, self.spaces, self.name, own=own)
        return importing.add_rows(self.add, rows, normalise=normalise, told=told)

    def check_spaces(self, names: Several[str]) -> None:
        """Raise CollectionError (`space-unknown`) unless all of these are spaces of this one."""
        for name in names:
            if name not in self.spaces:
                raise CollectionError(
                    "space-unknown",
                    f"collection {self.name!r} has no space {name!r}: it has {sorted(self.spaces)}",
                )

    def search(
        self,
        query: Vector | Mapping[str, Vector],
        k: int = 10,
        *,
        space: str | Mapping[str, float] | None = None,
        filter: Mapping[str, Any] | None = None,  # noqa: A002 - the field's word
        offset: int = 0,
        exclude: Several[str] = (),
        expansion: Expansion | Mapping[str, Any] | None = None,
        rerank: Reranking | Mapping[str, Any] | str | None = None,
    ) -> list[Neighbour]:
        """The k nearest items from the `offset`-th on, best first; fewer only where fewer exist.

        `query` is (dim,) float32, of any norm, or one for each space asked. `space` may be left out
        where there is only one, or where `query` names them; {name: weight} asks for the weighted
        sum of cosines (weights scaled to sum 1) over the union of each space's candidates.
        `filter` is explained in `index.filters`; the ids in `exclude` are passed over; `expansion`
        asks again with the mean of the query and its neighbours; `rerank` ("diffusion", or a
        mapping as `Reranking.of` reads it) judges the best `shortlist` anew, by their vectors in
        the catalog. Then their score is the method's own, which is not comparable with the cosines
        of those that follow in their old order; `similarity` stays the cosine.

        Raises CollectionError: `search-invalid`, `space-unknown`, `space-required`,
        `space-weights-invalid`, `descriptor-invalid`, `filter-invalid`, `expansion-invalid`,
        `rerank-invalid`.
        """
        if k < 1 or offset < 0:
            raise CollectionError(
                "search-invalid", f"k = {k} is below 1 or offset = {offset} below 0"
            )
        if isinstance(expansion, Mapping):
            expansion = Expansion.of(expansion)
        if isinstance(rerank, str | Mapping):
            rerank = Reranking.of(rerank)
        chosen = asked(query, space, self.spaces)
        term = None if filter is None else parse(filter)
        return self._searching.search(chosen, k, offset, term, exclude, expansion, rerank)

    def compact(self, stop: Event | None = None) -> bool:
        """Seal the delta into new generations, while searches and writes go on.

        False: there was nothing to do, or another thread or process is at it, or `stop` was set
        meanwhile. Raises DiskError, and then all goes on with the old generations.
        """
        with disk.reported(self._folder):
            return self._current.compact(stop)

    def stop(self) -> None:
        """Stop compactions and what is being loaded; searches and writes go on."""
        self._current.close()

    def needs_compaction(self) -> bool:
        """Whether so much waits outside the generations that compaction pays."""
        return self._current.due()

    def status(self) -> dict[str, Any]:
        """Items, and for each space which index it has, why, and how many items in which part.

        `live_recall` is of the last `live_samples` searches that were answered exactly too.
        """
        view = self._current.view()
        spaces = {}
        for name, watched in self._watch.spaces.items():
            live = {"live_recall": watched.recall, "live_samples": len(watched.recalls)}
            spaces[name] = view.status(name) | live
        return {"items": self.count(), "spaces": spaces}

    @property
    def watched(self) -> Mapping[str, Watched]:
        """The recall of live searches by space, as far as `check_recall` has measured it."""
        return self._watch.spaces

    def check_recall(self, work: Work = UNHURRIED) -> int:
        """Answer exactly the searches that were noted, and tune anew what finds too little.

        How many were answered. For a thread that has time; searches and writes go on. Raises what
        `work.between` raises.
        """
        measured = self._watch.measure(work)
        for name, watched in self._watch.spaces.items():
            if measured and watched.below(self._policy.recall):
                logger.warning(
                    "collection %r, space %r: %d searches had a recall of %.3f, %s is asked for; "
                    "tuning anew", self.name, name, len(watched.recalls), watched.recall,
                    self._policy.recall,
                )  # fmt: skip
                if not self._current.retune(name, list(watched.asked), work):
                    logger.warning("collection %r, space %r: not reached", self.name, name)
                watched.tunings += 1
                watched.recalls.clear()
        return measured

    @contextmanager
    def _writing(self) -> Iterator[Connection]:
        with self._database.writing() as connection:
            there = select(tables.collections.c.id).where(tables.collections.c.id == self.id)
            if connection.execute(there).scalar() is None:
                raise CollectionError(
                    "collection-unknown", f"collection {self.name!r} was dropped: make it again"
                )
            yield connection

    def _item(self, connection: Connection, item_id: str) -> Item:
        found = writing.items_of(connection, self.id, [item_id])
        if not found:
            raise self._unknown(item_id)
        return found[item_id]

    def _unknown(self, item_id: str) -> CollectionError:
        return CollectionError(
            "item-unknown", f"collection {self.name!r} has no item {item_id!r}: list its items"
        )

    def _settle(self, contents: Several[str]) -> None:
        """Let go of the pictures of these contents, unless an item still has them.

        By now the items are committed: a disk that will not remove a picture cannot undo that.
        """

        def used() -> set[str]:
            query = select(ITEMS.c.sha256).where(
                ITEMS.c.collection_id == self.id, ITEMS.c.sha256.in_(tables.listed(contents))
            )
            with self._database.reading() as connection:
                return set(connection.execute(query).scalars())

        try:
            self.pictures.settle(contents, used)
        except CollectionError as error:
            logger.warning("pictures that no item has any more stay: %s", error)
