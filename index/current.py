"""The current view of a collection: follows the catalog, and compacts.

The catalog is the truth. A view is brought up to date by reading what was committed since, by
whichever thread or process; there is no other way in, so a search sees every write that was
acknowledged before it began.
"""

import fcntl
import logging
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, replace
from itertools import chain
from pathlib import Path
from typing import IO

import numpy as np
from sqlalchemy import ColumnElement, Connection, delete, func, insert, select

from index import descriptors, generation, planner, tables
from index.database import Database
from index.errors import CollectionError
from index.generation import Generation, Sealed
from index.item import Keys, Vector
from index.space import Space
from index.view import View

logger = logging.getLogger(__name__)

SEED = 1
COLLECTIONS, ITEMS = tables.collections, tables.items
REMOVALS, GENERATIONS = tables.removals, tables.generations


class Current:
    """The one view of a collection that this process searches, and its generations on disk."""

    def __init__(
        self,
        database: Database,
        collection_id: int,
        spaces: Mapping[str, tuple[int, Space]],
        policy: planner.Policy,
        folder: Path,
        discard: Callable[[Path], None],
    ) -> None:
        """`spaces` are numbered as in the catalog; `folder` is for this collection alone.

        `discard` removes a generation that is no longer the current one.
        """
        self._database = database
        self._collection_id = collection_id
        self._spaces = spaces
        self._dims = {name: space.dim for name, (_, space) in spaces.items()}
        self._policy = policy
        self._folder = folder
        self._discard = discard
        self._following = threading.Lock()
        self._seen: tuple[int, View] | None = None
        self._fresh: dict[str, Generation] = {}
        with self._alone() as alone:
            if alone:
                self._sweep()

    def view(self) -> View:
        """Everything that was acknowledged until now.

        Raises CollectionError: `collection-unknown`, when the collection was dropped.
        """
        seen = self._seen
        if seen is not None and seen[0] == self._database.version():
            return seen[1]
        with self._following:
            # The version first: what is committed while we read makes us read again.
            version = self._database.version()
            if self._seen is None or self._seen[0] != version:
                self._seen = version, self._followed()
            return self._seen[1]

    def due(self) -> bool:
        """Whether so much waits outside the generation that compaction pays."""
        view = self.view()
        return self._policy.due(view.sealed_count, len(view.delta), view.tombstones.size)

    def compact(self) -> bool:
        """Seal all that is there into new generations, while searches and writes go on.

        False: there is nothing to do, or another thread or process is at it. Raises OSError when
        the disk is full; the old generations stay then.
        """
        view = self.view()
        if view.generations and not len(view.delta) and not view.tombstones.size:
            return False
        with self._alone() as alone:
            if not alone:
                return False
            self._seal()
            self.view()
            self._fresh = {}
            return True

    def _followed(self) -> View:
        number = -1
        try:
            with self._database.reading() as connection:
                sealed = self._sealed(connection)
                number = _number(sealed)
                return self._newer(connection, self._base(sealed))
        except CollectionError as error:
            if error.code != "generation-untrusted":
                raise
            logger.warning("%s; rebuilding it from the catalog", error)
        self._rebuild(number)
        with self._database.reading() as connection:
            sealed = self._sealed(connection)
            try:
                base = self._base(sealed)
            except CollectionError as error:
                logger.warning("%s; searching the catalog's descriptors in memory", error)
                base = View.of(_number(sealed), {}, self._dims)
            return self._newer(connection, base)

    def _base(self, sealed: Mapping[str, Sealed]) -> View:
        number = _number(sealed)
        if self._seen is not None and self._seen[1].number == number:
            return self._seen[1]
        fresh = self._fresh
        if {name: each.sealed for name, each in fresh.items()} == sealed:
            return View.of(number, fresh, self._dims)
        loaded = {
            name: generation.load(self._folder / each.file, each) for name, each in sealed.items()
        }
        return View.of(number, loaded, self._dims)

    def _newer(self, connection: Connection, view: View) -> View:
        """`view` with what the catalog has beyond it."""
        view = self._with_added(connection, view)
        removed = connection.execute(
            select(REMOVALS.c.seq, REMOVALS.c.key)
            .where(REMOVALS.c.collection_id == self._collection_id, REMOVALS.c.seq > view.removal)
            .order_by(REMOVALS.c.seq)
        ).all()
        if not removed:
            return view
        keys = np.array([row.key for row in removed], dtype=np.int64)
        dead = keys[keys <= view.high_key]
        return replace(
            view,
            delta=view.delta.without(keys),
            tombstones=np.union1d(view.tombstones, dead),
            removal=removed[-1].seq,
        )

    def _with_added(self, connection: Connection, view: View) -> View:
        read: dict[str, Vector] = {}
        keys: Keys = np.empty(0, dtype=np.int64)
        for name, (space_id, space) in self._spaces.items():
            chunks = list(descriptors.after(connection, space_id, space, view.key))
            if not chunks:
                return view
            keys = np.concatenate([keys for keys, _ in chunks])
            read[name] = np.concatenate([vectors for _, vectors in chunks])
        return replace(view, delta=view.delta.extended(keys, read), key=int(keys[-1]))

    def _rebuild(self, broken: int) -> None:
        """Seal anew, unless another process did or does; a full disk leaves things as they are."""
        with self._alone() as alone:
            if not alone:
                return
            with self._database.reading() as connection:
                if _number(self._sealed(connection)) != broken:
                    return
            try:
                self._seal()
            except OSError:
                logger.exception("the generation cannot be rebuilt")

    def _seal(self) -> None:
        with self._database.reading() as connection:
            before = self._sealed(connection)
            number = _number(before) + 1
            high_key, removal_seq = self._reach(connection, before)
            self._fresh = {
                name: self._seal_space(connection, name, number, high_key, removal_seq)
                for name in self._spaces
            }
        rows = [
            {"space_id": self._spaces[name][0], **asdict(made.sealed)}
            for name, made in self._fresh.items()
        ]
        with self._database.writing() as connection:
            self._check_there(connection)
            connection.execute(delete(GENERATIONS).where(self._mine()))
            connection.execute(insert(GENERATIONS), rows)
            connection.execute(
                delete(REMOVALS).where(
                    REMOVALS.c.collection_id == self._collection_id, REMOVALS.c.seq <= removal_seq
                )
            )
        self._sweep()

    def _seal_space(
        self, connection: Connection, name: str, number: int, high_key: int, removal_seq: int
    ) -> Generation:
        space_id, space = self._spaces[name]
        count = descriptors.count(connection, space_id)
        plan = planner.plan(count, space.dtype, self._policy)
        index = generation.build(
            plan,
            space.dim,
            sample=self._sample(connection, name, plan.lists * planner.POINTS_PER_LIST),
            chunks=descriptors.after(connection, space_id, space, 0),
        )
        file = f"{name}-{number}.faiss"
        sha256, size = generation.seal(index, self._folder / file)
        del index  # what is searched from here on is what the disk gives back
        return generation.load(
            self._folder / file,
            Sealed(
                number=number,
                file=file,
                sha256=sha256,
                kind=plan.kind,
                why=plan.why,
                probes=plan.probes,
                count=count,
                bytes=size,
                high_key=high_key,
                removal_seq=removal_seq,
            ),
        )

    def _sample(self, connection: Connection, name: str, size: int) -> Iterator[Vector]:
        """`size` descriptors of a space at random, in chunks."""
        space_id, space = self._spaces[name]
        of_collection = select(ITEMS.c.key).where(ITEMS.c.collection_id == self._collection_id)
        keys = np.fromiter(connection.execute(of_collection).scalars(), dtype=np.int64)
        chosen = np.random.default_rng(SEED).choice(keys, min(size, keys.size), replace=False)
        for part in np.array_split(np.sort(chosen), max(1, chosen.size // 8192)):
            yield descriptors.of_keys(connection, space_id, space, part)[1]

    def _reach(self, connection: Connection, before: Mapping[str, Sealed]) -> tuple[int, int]:
        """The greatest key and removal of this snapshot; neither ever goes back."""
        last = next(iter(before.values()), None)
        greatest = connection.execute(
            select(func.max(ITEMS.c.key)).where(ITEMS.c.collection_id == self._collection_id)
        ).scalar()
        latest = connection.execute(
            select(func.max(REMOVALS.c.seq)).where(REMOVALS.c.collection_id == self._collection_id)
        ).scalar()
        return (
            max(greatest or 0, last.high_key if last else 0),
            max(latest or 0, last.removal_seq if last else 0),
        )

    def _sealed(self, connection: Connection) -> dict[str, Sealed]:
        """The generations that the catalog records, by space."""
        self._check_there(connection)
        names = {space_id: name for name, (space_id, _) in self._spaces.items()}
        rows = connection.execute(select(GENERATIONS).where(self._mine())).mappings()
        return {
            names[row["space_id"]]: Sealed(
                **{column: value for column, value in row.items() if column != "space_id"}
            )
            for row in rows
        }

    def _mine(self) -> ColumnElement[bool]:
        return GENERATIONS.c.space_id.in_([space_id for space_id, _ in self._spaces.values()])

    def _check_there(self, connection: Connection) -> None:
        there = select(COLLECTIONS.c.id).where(COLLECTIONS.c.id == self._collection_id)
        if connection.execute(there).scalar() is None:
            raise CollectionError(
                "collection-unknown", "the collection was dropped: open or make another one"
            )

    def _sweep(self) -> None:
        """Remove the files of the folder that the catalog does not record."""
        with self._database.reading() as connection:
            current = {each.file for each in self._sealed(connection).values()}
        for path in chain(self._folder.glob("*.faiss"), self._folder.glob("*.aside")):
            if path.name not in current:
                self._discard(path)

    @contextmanager
    def _alone(self) -> Iterator[bool]:
        """Whether no other thread or process changes the files of this folder meanwhile."""
        self._folder.mkdir(parents=True, exist_ok=True)
        with (self._folder / "lock").open("w") as lock:
            yield _locked(lock)


def _number(sealed: Mapping[str, Sealed]) -> int:
    return next((each.number for each in sealed.values()), 0)


def _locked(file: IO[str]) -> bool:
    """Whether the file is now locked for us; closing it, or dying, unlocks it."""
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
