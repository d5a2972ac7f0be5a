"""The catalog's tables, and the two types that SQLite lacks.

`migrations/` holds the same tables as history; a test compares the two.
"""

import json
from collections.abc import Iterable
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import (
    JSON,
    BindParameter,
    Boolean,
    Column,
    Float,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    PrimaryKeyConstraint,
    Select,
    Table,
    Text,
    TypeDecorator,
    UniqueConstraint,
    bindparam,
    column,
    func,
    select,
)
from sqlalchemy.engine import Dialect

metadata = MetaData()


class Moment(TypeDecorator[datetime]):
    """A datetime in UTC, stored as seconds since 1970."""

    impl = Float
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> float | None:  # noqa: ARG002, D102
        return None if value is None else value.timestamp()

    def process_result_value(self, value: float | None, dialect: Dialect) -> datetime | None:  # noqa: ARG002, D102
        return None if value is None else datetime.fromtimestamp(value, UTC)


def _numbered(name: str, *columns: Any) -> Table:
    """A table whose first column is a number that is never given twice."""
    return Table(name, metadata, *columns, sqlite_autoincrement=True)


collections = _numbered(
    "collections",
    Column("id", Integer, primary_key=True),
    Column("name", Text, nullable=False, unique=True),
    Column("settings", JSON, nullable=False),
    Column("created_at", Moment, nullable=False),
)

spaces = _numbered(
    "spaces",
    Column("id", Integer, primary_key=True),
    Column("collection_id", ForeignKey("collections.id", ondelete="CASCADE"), nullable=False),
    Column("name", Text, nullable=False),
    Column("spec", Text, nullable=False),
    Column("fingerprint", Text, nullable=False),
    Column("dim", Integer, nullable=False),
    Column("dtype", Text, nullable=False),
    Column("origin", JSON, nullable=False),
    UniqueConstraint("collection_id", "name"),
)

items = _numbered(
    "items",
    Column("key", Integer, primary_key=True),
    Column("collection_id", ForeignKey("collections.id", ondelete="CASCADE"), nullable=False),
    Column("id", Text, nullable=False),
    Column("sha256", Text, nullable=False),
    Column("name", Text, nullable=False),
    Column("source", Text, nullable=False),
    Column("stamp", Text),
    Column("metadata", JSON, nullable=False),
    Column("width", Integer, nullable=False),
    Column("height", Integer, nullable=False),
    Column("added_at", Moment, nullable=False),
    Column("duplicate_of", JSON(none_as_null=True)),
    UniqueConstraint("collection_id", "id"),
    Index("items_by_key", "collection_id", "key"),
    Index("items_by_content", "collection_id", "sha256"),
)

descriptors = Table(
    "descriptors",
    metadata,
    Column("space_id", ForeignKey("spaces.id", ondelete="CASCADE"), nullable=False),
    Column("item_key", ForeignKey("items.key", ondelete="CASCADE"), nullable=False),
    Column("vector", LargeBinary, nullable=False),
    PrimaryKeyConstraint("space_id", "item_key"),
    Index("descriptors_by_item", "item_key"),
)

# Keys that were removed since the current generation was sealed.
removals = _numbered(
    "removals",
    Column("seq", Integer, primary_key=True),
    Column("collection_id", ForeignKey("collections.id", ondelete="CASCADE"), nullable=False),
    Column("key", Integer, nullable=False),
    Index("removals_by_collection", "collection_id", "seq"),
)

# Items that were changed in place, each in the order of its last change.
edits = _numbered(
    "edits",
    Column("seq", Integer, primary_key=True),
    Column("collection_id", ForeignKey("collections.id", ondelete="CASCADE"), nullable=False),
    Column("item_key", ForeignKey("items.key", ondelete="CASCADE"), nullable=False, unique=True),
    Index("edits_by_collection", "collection_id", "seq"),
)

# The newest generation of each space, and the one before it.
generations = Table(
    "generations",
    metadata,
    Column("space_id", ForeignKey("spaces.id", ondelete="CASCADE"), nullable=False),
    Column("number", Integer, nullable=False),
    Column("file", Text, nullable=False),
    Column("sha256", Text, nullable=False),
    Column("kind", Text, nullable=False),
    Column("why", Text, nullable=False),
    Column("parameters", JSON, nullable=False),
    Column("recall", Float, nullable=False),
    Column("latency_ms", Float, nullable=False),
    Column("built", Integer, nullable=False),
    Column("count", Integer, nullable=False),
    Column("bytes", Integer, nullable=False),
    Column("high_key", Integer, nullable=False),
    Column("removal_seq", Integer, nullable=False),
    PrimaryKeyConstraint("space_id", "number"),
)

jobs = _numbered(
    "jobs",
    Column("seq", Integer, primary_key=True),
    Column("id", Text, nullable=False, unique=True),
    Column("collection", Text, nullable=False),
    Column("source", JSON, nullable=False),
    Column("state", Text, nullable=False),
    Column("total", Integer),
    Column("done", Integer, nullable=False, server_default="0"),
    Column("failed", Integer, nullable=False, server_default="0"),
    Column("unchanged", Integer, nullable=False, server_default="0"),
    Column("created_at", Moment, nullable=False),
    Column("started_at", Moment),
    Column("finished_at", Moment),
    Column("problem", JSON(none_as_null=True)),
    Column("cancel_requested", Boolean, nullable=False, server_default="0"),
    Column("owner", Text),
    Column("leased_until", Moment),
    Column("complete", Boolean, nullable=False, server_default="0"),
    Column("retries", Integer, nullable=False, server_default="0"),
    Index("jobs_by_state", "state", "seq"),
)

file_outcomes = _numbered(
    "file_outcomes",
    Column("seq", Integer, primary_key=True),
    Column("job_seq", ForeignKey("jobs.seq", ondelete="CASCADE"), nullable=False),
    Column("reference", Text, nullable=False),
    Column("item_id", Text),
    Column("status", Text, nullable=False),
    Column("code", Text),
    Column("detail", Text),
    UniqueConstraint("job_seq", "reference"),
    Index("file_outcomes_by_status", "job_seq", "status", "seq"),
)

# Whoever may call the service; a key that ended stays, as the record of who it was.
api_keys = _numbered(
    "api_keys",
    Column("seq", Integer, primary_key=True),
    Column("id", Text, nullable=False, unique=True),
    Column("name", Text, nullable=False),
    Column("sha256", Text, nullable=False),
    Column("scope", Text, nullable=False),
    Column("collections", JSON(none_as_null=True)),
    Column("created_at", Moment, nullable=False),
    Column("expires_at", Moment),
    Column("revoked_at", Moment),
)

# What a job over a whole collection found; `members` are a list of {"id", "score"}.
duplicate_groups = _numbered(
    "duplicate_groups",
    Column("seq", Integer, primary_key=True),
    Column("job_seq", ForeignKey("jobs.seq", ondelete="CASCADE"), nullable=False),
    Column("members", JSON, nullable=False),
    Index("duplicate_groups_by_job", "job_seq", "seq"),
)


def listed(values: Iterable[str] | Iterable[int] | Iterable[float]) -> Select[Any]:
    """Any number of values as a subquery for `in_`, bound as one parameter."""
    return listing(bindparam(None, packed(values), Text))


def listing(parameter: BindParameter[Any]) -> Select[Any]:
    """`listed` for a statement that is made once; what is bound to it are `packed` values."""
    return select(func.json_each(parameter).table_valued(column("value")).c.value)


def packed(values: Iterable[str] | Iterable[int] | Iterable[float]) -> str:
    """Values as a JSON list, which SQLite reads as a table."""
    return json.dumps(list(values))
