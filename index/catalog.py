"""The catalog: one folder that holds collections and jobs."""

import shutil
import threading
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from sqlalchemy import Connection, bindparam, delete, insert, select, text

from index import disk, jobs, keys, restoring, snapshot, tables
from index.collection import Collection
from index.database import Database
from index.discarding import under_way
from index.errors import CollectionError
from index.metadata import checked
from index.planner import Policy
from index.prepared import Prepared
from index.snapshot import Snapshot
from index.space import Space, check_name, check_spaces

COLLECTIONS, SPACES = tables.collections, tables.spaces

NAMED = Prepared(select(COLLECTIONS.c.id).where(COLLECTIONS.c.name == bindparam("name")))


class Catalog:
    """A folder of collections and jobs, shared by any number of threads and processes.

    `catalog.db` is the record of truth; `generations/` is a cache of it, `pictures/` what is kept
    of the pictures.
    """

    def __init__(self, folder: Path, database: Database, watched: float = 0.0) -> None:
        self.folder = folder
        self.watched = watched
        self.database = database
        self.jobs = jobs.Jobs(database)
        self.keys = keys.Keys(database)
        self._opening = threading.Lock()
        self._open: dict[int, Collection] = {}

    @classmethod
    def open(cls, folder: Path | str, watched: float = 0.0) -> "Catalog":
        """Open a folder, making it where it is missing, and bring its schema up to date.

        Of its collections' searches the share `watched` is noted, for `Collection.check_recall`.
        Raises CollectionError: `catalog-newer`, `catalog-unreadable`, `catalog-busy`,
        `restore-unfinished`; and DiskError.
        """
        folder = Path(folder)
        with disk.reported(folder):
            folder.mkdir(parents=True, exist_ok=True)
            restoring.check(folder)
            snapshot.sweep(folder)
        catalog = cls(folder, Database(folder / "catalog.db"), watched)
        catalog._sweep()
        return catalog

    def close(self) -> None:
        """Close all connections. What was acknowledged is on disk already."""
        for collection in list(self._open.values()):
            collection.stop()
        self.database.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        _type: type[BaseException] | None,
        _error: BaseException | None,
        _at: TracebackType | None,
    ) -> None:
        self.close()

    def create_collection(
        self, name: str, spaces: Sequence[Space], settings: Mapping[str, Any]
    ) -> Collection:
        """Make a collection; `settings` is JSON of the caller's, of which `index` is read here.

        Raises CollectionError: `collection-exists`, `collection-name-invalid`,
        `space-name-invalid`, `space-invalid`, `settings-invalid`.
        """
        check_name(name, "collection")
        check_spaces(spaces)
        Policy.of(settings)
        with self.database.writing() as connection:
            if connection.execute(
                select(COLLECTIONS.c.id).where(COLLECTIONS.c.name == name)
            ).first():
                raise CollectionError(
                    "collection-exists", f"there is a collection {name!r}: drop it or use it"
                )
            row = {"name": name, "settings": dict(settings), "created_at": datetime.now(UTC)}
            made = connection.execute(insert(COLLECTIONS).values(row).returning(COLLECTIONS.c.id))
            collection_id = made.scalar_one()
            rows = [_row(space, collection_id) for space in spaces]
            connection.execute(insert(SPACES), rows)
        return self.collection(name)

    def collection(self, name: str) -> Collection:
        """The collection of that name, always the same object.

        Raises CollectionError: `collection-unknown`.
        """
        with self.database.looking() as connection:
            named = NAMED.rows(connection, {"name": name})
        if named and (opened := self._open.get(named[0][0])):
            return opened
        with self.database.reading() as connection:
            row = connection.execute(select(COLLECTIONS).where(COLLECTIONS.c.name == name)).first()
            if row is None:
                raise _unknown(name)
            with self._opening:
                if row.id not in self._open:
                    self._open[row.id] = Collection(self, row, _spaces(connection, row.id))
                return self._open[row.id]

    def collections(self) -> list[Collection]:
        """All collections, by name."""
        return [self.collection(name) for name in self.names()]

    def opened(self) -> list[Collection]:
        """The collections that have been used since the catalog was opened."""
        with self._opening:
            return list(self._open.values())

    def names(self) -> list[str]:
        """The names of all collections, in their order."""
        with self.database.reading() as connection:
            query = select(COLLECTIONS.c.name).order_by(COLLECTIONS.c.name)
            return list(connection.execute(query).scalars())

    def drop_collection(self, name: str) -> None:
        """Remove a collection with its items, pictures and generations, and cancel its jobs.

        Raises CollectionError: `collection-unknown`.
        """
        collection = self.collection(name)
        with self.database.writing() as connection:
            dropped = connection.execute(
                delete(COLLECTIONS).where(COLLECTIONS.c.id == collection.id)
            )
            if not dropped.rowcount:
                raise _unknown(name)
            jobs.cancel_all(connection, name)
        with self._opening:
            self._open.pop(collection.id, None)
        collection.stop()
        self._sweep()

    def take_snapshot(
        self,
        collection: str | None = None,
        beside: Sequence[str] = (),
        told: snapshot.Told = lambda _: None,
    ) -> Snapshot:
        """Copy one collection, or all, as of one instant into `snapshots/`, while it is in use.

        `beside` are further folders of this one to take in, of files that never change. See
        `index.snapshot`; `index.restoring.restore` brings one back. Raises CollectionError:
        `collection-unknown`, `snapshot-under-way`, `snapshot-failed`.
        """
        taken = snapshot.take(self.folder, collection, beside, told)
        self._sweep()
        return taken

    def snapshots(self) -> list[Snapshot]:
        """All snapshots, the latest first."""
        return snapshot.listed(self.folder)

    def drop_snapshot(self, name: str) -> None:
        """Remove a snapshot. Raises CollectionError: `snapshot-unknown`, `snapshot-under-way`."""
        snapshot.drop(self.folder, name)

    def _sweep(self) -> None:
        """Remove the files of collections that were dropped; ids are never given twice.

        A snapshot under way may still want them: then it sweeps when it is done.
        """
        given = text("SELECT seq FROM sqlite_sequence WHERE name = 'collections'")
        with self.database.reading() as connection:
            there = set(connection.execute(select(COLLECTIONS.c.id)).scalars())
            last = connection.execute(given).scalar() or 0
        if any(under_way(self.folder)):
            return
        dropped = {str(number) for number in range(1, last + 1) if number not in there}
        for kind in ("generations", "pictures"):
            for folder in (self.folder / kind).glob("*"):
                if folder.name in dropped:
                    shutil.rmtree(folder, ignore_errors=True)


def _row(space: Space, collection_id: int) -> dict[str, Any]:
    return {
        "collection_id": collection_id,
        "name": space.name,
        "spec": space.spec,
        "fingerprint": space.fingerprint,
        "dim": space.dim,
        "dtype": space.dtype,
        "origin": checked(space.origin),
    }


def _spaces(connection: Connection, collection_id: int) -> dict[str, tuple[int, Space]]:
    query = select(SPACES).where(SPACES.c.collection_id == collection_id).order_by(SPACES.c.id)
    return {
        row.name: (
            row.id,
            Space(row.name, row.spec, row.fingerprint, row.dim, row.dtype, row.origin),
        )
        for row in connection.execute(query)
    }


def _unknown(name: str) -> CollectionError:
    return CollectionError(
        "collection-unknown", f"there is no collection {name!r}: list them, or make it first"
    )
