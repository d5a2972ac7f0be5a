"""The catalog's SQLite file: durable transactions, one writer at a time, readers never wait."""

import json
import logging
import sqlite3
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from weakref import WeakSet

from alembic.config import Config
from alembic.runtime.environment import EnvironmentContext
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, Engine, create_engine, event

from index import disk
from index.errors import CollectionError

logger = logging.getLogger(__name__)

BUSY_S = 60
"""How long a writer waits for a writer of another process."""

PRAGMAS = (
    "PRAGMA journal_mode = WAL",
    "PRAGMA synchronous = FULL",
    "PRAGMA foreign_keys = ON",
    "PRAGMA cache_size = -16384",
    # What a long reader made the log grow to is given back after it.
    f"PRAGMA journal_size_limit = {64 * 2**20}",
)


READER_CACHE = "PRAGMA cache_size = -2048"
"""Every thread that searches keeps a connection; the operating system caches for all of them."""


class Database:
    """One SQLite file, opened by any number of threads and processes."""

    def __init__(self, path: Path) -> None:
        """Open or create `path` and bring its schema up to date.

        Raises CollectionError: `catalog-newer`, `catalog-unreadable`, `catalog-busy`; DiskError.
        """
        self.path = path
        self.reported = disk.ReportedBySqlite(path)
        self._engine = _engine(path)
        self._writer = threading.Lock()
        self._watching = threading.Lock()
        self._here = threading.local()
        self._kept: WeakSet[Connection] = WeakSet()
        try:
            with self.writing() as connection:
                _migrate(connection, path)
            with self.reported:
                self._watch = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
        except BaseException:
            self._engine.dispose()
            raise

    @contextmanager
    def reading(self) -> Iterator[Connection]:
        """One consistent snapshot, which does not wait for writers nor hold them up."""
        with self.looking() as connection, connection.begin():
            yield connection

    def looking(self) -> "Looking":
        """For `Prepared` statements alone, each of which sees what is committed when it runs."""
        return Looking(self)

    @contextmanager
    def writing(self) -> Iterator[Connection]:
        """One transaction that is on the disk when this ends, or wholly undone.

        Not to be nested: a writer inside a writer would wait for itself. Raises DiskError, and then
        all is undone, unless the disk fails again so that nobody can tell; never half.
        """
        with (
            self._writer,
            self.reported,
            self._engine.connect() as connection,
        ):
            writer = connection.execution_options(pool5_writes=True)
            with writer.begin():
                yield writer

    def taken(self) -> Connection:
        """The connection that this thread keeps; another one within a use of it."""
        connection: Connection | None = getattr(self._here, "idle", None)
        if connection is None:
            connection = self._engine.connect()
            connection.connection.cursor().execute(READER_CACHE)
            self._kept.add(connection)
        self._here.idle = None
        return connection

    def given_back(self, connection: Connection) -> None:
        """The end of a use."""
        outer: Connection | None = getattr(self._here, "idle", None)
        if outer is not None:
            outer.close()
        self._here.idle = connection

    def version(self) -> int:
        """Another number after every commit, of whichever thread or process."""
        with self._watching, self.reported:
            version: int = self._watch.execute("PRAGMA data_version").fetchone()[0]
        return version

    def close(self) -> None:
        """Close every connection."""
        with self._watching:
            self._watch.close()
        for connection in list(self._kept):
            connection.close()
        self._engine.dispose()


class Looking:
    """A use of the connection that a thread keeps; a generator would take every search longer."""

    __slots__ = ("_connection", "_database")

    def __init__(self, database: Database) -> None:
        self._database = database

    def __enter__(self) -> Connection:
        with self._database.reported:
            self._connection = self._database.taken()
        return self._connection

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        self._database.given_back(self._connection)
        if error is not None:
            self._database.reported.__exit__(kind, error, trace)


def _engine(path: Path) -> Engine:
    engine = create_engine(
        f"sqlite:///{path}",
        pool_size=8,
        max_overflow=-1,
        connect_args={"timeout": BUSY_S, "check_same_thread": False},
        json_serializer=partial(json.dumps, ensure_ascii=False, allow_nan=False),
    )

    @event.listens_for(engine, "connect")
    def _prepare(connection: sqlite3.Connection, _record: object) -> None:
        connection.isolation_level = None  # transactions begin below, where their kind is known
        for pragma in PRAGMAS:
            connection.execute(pragma)

    @event.listens_for(engine, "begin")
    def _begin(connection: Connection) -> None:
        # A transaction that reads first and writes then cannot be upgraded under another writer.
        writes = connection.get_execution_options().get("pool5_writes", False)
        connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")

    return engine


def _migrate(connection: Connection, path: Path) -> None:
    config = Config()
    config.set_main_option("script_location", str(Path(__file__).with_name("migrations")))
    scripts = ScriptDirectory.from_config(config)
    there = MigrationContext.configure(connection).get_current_revision()
    if there is not None and there not in {known.revision for known in scripts.walk_revisions()}:
        raise CollectionError(
            "catalog-newer",
            f"{path} has schema {there}, which this version of pool5 does not know: "
            "use the version that wrote it, or a newer one",
        )
    if there == scripts.get_current_head():
        return
    logger.info("migrating %s from schema %s", path, there)
    # What alembic's `upgrade` does, over our connection and in our transaction.
    steps = partial(scripts._upgrade_revs, "head")
    with EnvironmentContext(config, scripts, fn=lambda revision, _: steps(revision)) as environment:
        environment.configure(connection=connection)
        environment.run_migrations()
