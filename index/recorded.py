"""The generations that the catalog records for a collection, and their files."""

import fcntl
import logging
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict
from itertools import chain
from pathlib import Path
from typing import IO, Any

from sqlalchemy import Connection, bindparam, delete, func, insert, select

from index import tables
from index.database import Database
from index.errors import CollectionError
from index.generation import Sealed
from index.prepared import Prepared
from index.space import Space

logger = logging.getLogger(__name__)

COLLECTIONS, SPACES = tables.collections, tables.spaces
GENERATIONS, REMOVALS = tables.generations, tables.removals

OF_COLLECTION = (
    select(GENERATIONS)
    .join(SPACES, SPACES.c.id == GENERATIONS.c.space_id)
    .where(SPACES.c.collection_id == bindparam("collection_id"))
    .order_by(GENERATIONS.c.number.desc(), GENERATIONS.c.space_id)
)
AS_STORED = Prepared(OF_COLLECTION)
THERE = Prepared(select(COLLECTIONS.c.id).where(COLLECTIONS.c.id == bindparam("collection_id")))

Numbered = Mapping[int, Mapping[str, Sealed]]
"""The generations of all spaces, by number, the newest first."""


class Recorded:
    """What the catalog has of one collection's generations; `folder` is for that one alone."""

    def __init__(
        self,
        database: Database,
        collection_id: int,
        spaces: Mapping[str, tuple[int, Space]],
        folder: Path,
        discard: Callable[[Path], None],
    ) -> None:
        """`discard` removes a file that is not recorded, or hands it to whoever still wants it."""
        self.folder = folder
        self._discard = discard
        self._database = database
        self._mine = {"collection_id": collection_id}
        self._ids = {name: space_id for name, (space_id, _) in spaces.items()}
        self._names = {space_id: name for name, space_id in self._ids.items()}
        self._read: tuple[list[tuple[Any, ...]], Numbered] = [], {}

    def read(self, connection: Connection) -> Numbered:
        """The newest generations, and the ones before them, as far as they are there.

        Raises CollectionError: `collection-unknown`, when the collection was dropped.
        """
        self.check_there(connection)
        stored = AS_STORED.rows(connection, self._mine)
        known, numbered = self._read
        if stored == known:
            return numbered
        parsed: dict[int, dict[str, Sealed]] = {}
        for row in connection.execute(OF_COLLECTION, self._mine).mappings():
            columns = dict(row)
            name = self._names[columns.pop("space_id")]
            parsed.setdefault(row["number"], {})[name] = Sealed(**columns)
        self._read = stored, parsed
        return parsed

    def pruned(self, connection: Connection) -> int:
        """Removals after this one are all there; some up to it may have been let go of."""
        numbered = self.read(connection)
        if numbered.keys() <= {1}:
            return 0
        return min(each.removal_seq for sealed in numbered.values() for each in sealed.values())

    def check_there(self, connection: Connection) -> None:
        """Raise CollectionError (`collection-unknown`) when the collection was dropped."""
        if not THERE.rows(connection, self._mine):
            raise CollectionError(
                "collection-unknown", "the collection was dropped: open or make another one"
            )

    def record(self, made: Mapping[str, Sealed], kept: int) -> None:
        """Record new generations; of the older ones only number `kept` stays, to fall back to.

        Removals stay as far back as that one needs them, and all of them after the first: until it
        is loaded, others go on without any.
        """
        made_number = next(each.number for each in made.values())
        rows = [{"space_id": self._ids[name], **asdict(each)} for name, each in made.items()]
        with self._database.writing() as connection:
            self.check_there(connection)
            others = (GENERATIONS.c.space_id.in_(self._names), GENERATIONS.c.number != kept)
            connection.execute(delete(GENERATIONS).where(*others))
            connection.execute(insert(GENERATIONS), rows)
            if made_number > 1:
                oldest = select(func.min(GENERATIONS.c.removal_seq)).where(
                    GENERATIONS.c.space_id.in_(self._names)
                )
                connection.execute(
                    delete(REMOVALS).where(
                        REMOVALS.c.collection_id == self._mine["collection_id"],
                        REMOVALS.c.seq <= oldest.scalar_subquery(),
                    )
                )

    def sweep(self) -> None:
        """Remove the files of the folder that the catalog does not record."""
        with self._database.reading() as connection:
            numbered = self.read(connection)
        files = {each.file for sealed in numbered.values() for each in sealed.values()}
        for path in chain(self.folder.glob("*.faiss"), self.folder.glob("*.aside")):
            if path.name not in files:
                self._remove(path)

    def forget(self, number: int) -> None:
        """Remove the files of generations that were made under `number` and never recorded."""
        for path in self.folder.glob(f"*-{number}.faiss"):
            self._remove(path)

    def _remove(self, path: Path) -> None:
        try:
            self._discard(path)
        except OSError:
            logger.warning("%s cannot be removed, and is not needed", path, exc_info=True)

    @contextmanager
    def alone(self) -> Iterator[bool]:
        """Whether no other thread or process changes the files of this folder meanwhile."""
        self.folder.mkdir(parents=True, exist_ok=True)
        with (self.folder / "lock").open("w") as lock:
            yield _locked(lock)


def _locked(file: IO[str]) -> bool:
    """Whether the file is now locked for us; closing it, or dying, unlocks it."""
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
