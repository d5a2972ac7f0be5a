import sqlite3
import threading
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import insert, select, text

from index import CollectionError, tables
from index.database import Database


@pytest.fixture
def database(tmp_path: Path) -> Iterator[Database]:
    opened = Database(tmp_path / "catalog.db")
    yield opened
    opened.close()


def _insert(database: Database, name: str) -> None:
    with database.writing() as connection:
        connection.execute(insert(tables.collections).values(_row(name)))


def _row(name: str) -> dict:
    return {"name": name, "settings": {}, "created_at": datetime.now(UTC)}


def _names(database: Database) -> list[str]:
    with database.reading() as connection:
        return list(connection.execute(select(tables.collections.c.name)).scalars())


def test_the_migrations_make_exactly_the_tables_that_the_code_uses(database: Database) -> None:
    with database.reading() as connection:
        context = MigrationContext.configure(connection)
        assert compare_metadata(context, tables.metadata) == []


def test_what_is_written_is_durable_before_it_is_acknowledged(database: Database) -> None:
    with database.writing() as connection:
        assert connection.scalar(text("PRAGMA journal_mode")) == "wal"
        assert connection.scalar(text("PRAGMA synchronous")) == 2  # FULL
        assert connection.scalar(text("PRAGMA foreign_keys")) == 1


def test_a_transaction_that_fails_leaves_nothing(database: Database) -> None:
    def fail() -> None:
        with database.writing() as connection:
            connection.execute(insert(tables.collections).values(_row("shoes")))
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail()
    assert _names(database) == []


def test_readers_go_on_while_a_writer_writes_and_see_nothing_of_it(database: Database) -> None:
    with database.writing() as connection:
        connection.execute(insert(tables.collections).values(_row("shoes")))
        assert _names(database) == []
    assert _names(database) == ["shoes"]


def test_writers_take_turns(database: Database) -> None:
    threads = [threading.Thread(target=_insert, args=(database, f"c{n}")) for n in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(_names(database)) == sorted(f"c{n}" for n in range(16))


def test_the_version_changes_with_every_commit_and_only_then(database: Database) -> None:
    before = database.version()
    _names(database)
    assert database.version() == before
    _insert(database, "shoes")
    after = database.version()
    assert after != before
    other = Database(database.path)
    _insert(other, "hats")
    other.close()
    assert database.version() != after


def test_what_was_written_is_there_after_reopening(tmp_path: Path) -> None:
    for name in ("a", "b"):
        database = Database(tmp_path / "catalog.db")
        _insert(database, name)
        database.close()
    database = Database(tmp_path / "catalog.db")
    assert _names(database) == ["a", "b"]
    database.close()


def test_a_newer_schema_is_refused_and_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "catalog.db"
    Database(path).close()
    with sqlite3.connect(path) as connection:
        connection.execute("UPDATE alembic_version SET version_num = '9999'")
    connection.close()
    before = path.read_bytes()
    with pytest.raises(CollectionError) as refused:
        Database(path)
    assert refused.value.code == "catalog-newer"
    assert "9999" in str(refused.value)
    assert path.read_bytes() == before


def test_a_file_that_is_no_catalog_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "catalog.db"
    path.write_bytes(b"this is not a database" * 100)
    with pytest.raises(CollectionError) as refused:
        Database(path)
    assert refused.value.code == "catalog-unreadable"


def test_the_log_that_a_long_reader_made_grow_is_cut_back_after_it(
    database: Database,
) -> None:
    with database.reading() as connection:
        limit = connection.exec_driver_sql("PRAGMA journal_size_limit").scalar_one()
    assert limit == 64 * 2**20
