"""Collections, spaces, items, descriptors, removals, generations, jobs."""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None


def upgrade() -> None:
    _collections()
    _items()
    _index()
    _jobs()


def _of(table: str, column: str) -> sa.ForeignKey:
    return sa.ForeignKey(f"{table}.{column}", ondelete="CASCADE")


def _collections() -> None:
    op.create_table(
        "collections",
        sa.Column("id", sa.Integer, primary_key=True),
        sa.Column("name", sa.Text, nullable=False, unique=True),
        sa.Column("settings", sa.JSON, nullable=False),
        sa.Column("created_at", sa.Float, nullable=False),
        sqlite_autoincrement=True,
    )
    op.create_table(
        "spaces",
        sa.Column("id", sa.Integer, primary_key=True),
        sa.Column("collection_id", sa.Integer, _of("collections", "id"), nullable=False),
        sa.Column("name", sa.Text, nullable=False),
        sa.Column("spec", sa.Text, nullable=False),
        sa.Column("fingerprint", sa.Text, nullable=False),
        sa.Column("dim", sa.Integer, nullable=False),
        sa.Column("dtype", sa.Text, nullable=False),
        sa.Column("origin", sa.JSON, nullable=False),
        sa.UniqueConstraint("collection_id", "name"),
        sqlite_autoincrement=True,
    )


def _items() -> None:
    op.create_table(
        "items",
        sa.Column("key", sa.Integer, primary_key=True),
        sa.Column("collection_id", sa.Integer, _of("collections", "id"), nullable=False),
        sa.Column("id", sa.Text, nullable=False),
        sa.Column("sha256", sa.Text, nullable=False),
        sa.Column("name", sa.Text, nullable=False),
        sa.Column("source", sa.Text, nullable=False),
        sa.Column("stamp", sa.Text),
        sa.Column("metadata", sa.JSON, nullable=False),
        sa.Column("width", sa.Integer, nullable=False),
        sa.Column("height", sa.Integer, nullable=False),
        sa.Column("added_at", sa.Float, nullable=False),
        sa.UniqueConstraint("collection_id", "id"),
        sqlite_autoincrement=True,
    )
    op.create_index("items_by_key", "items", ["collection_id", "key"])
    op.create_index("items_by_content", "items", ["collection_id", "sha256"])
    op.create_table(
        "descriptors",
        sa.Column("space_id", sa.Integer, _of("spaces", "id"), nullable=False),
        sa.Column("item_key", sa.Integer, _of("items", "key"), nullable=False),
        sa.Column("vector", sa.LargeBinary, nullable=False),
        sa.PrimaryKeyConstraint("space_id", "item_key"),
    )
    op.create_index("descriptors_by_item", "descriptors", ["item_key"])


def _index() -> None:
    op.create_table(
        "removals",
        sa.Column("seq", sa.Integer, primary_key=True),
        sa.Column("collection_id", sa.Integer, _of("collections", "id"), nullable=False),
        sa.Column("key", sa.Integer, nullable=False),
        sqlite_autoincrement=True,
    )
    op.create_index("removals_by_collection", "removals", ["collection_id", "seq"])
    op.create_table(
        "generations",
        sa.Column("space_id", sa.Integer, _of("spaces", "id"), primary_key=True),
        sa.Column("number", sa.Integer, nullable=False),
        sa.Column("file", sa.Text, nullable=False),
        sa.Column("sha256", sa.Text, nullable=False),
        sa.Column("kind", sa.Text, nullable=False),
        sa.Column("why", sa.Text, nullable=False),
        sa.Column("probes", sa.Integer, nullable=False),
        sa.Column("count", sa.Integer, nullable=False),
        sa.Column("bytes", sa.Integer, nullable=False),
        sa.Column("high_key", sa.Integer, nullable=False),
        sa.Column("removal_seq", sa.Integer, nullable=False),
    )


def _jobs() -> None:
    op.create_table(
        "jobs",
        sa.Column("seq", sa.Integer, primary_key=True),
        sa.Column("id", sa.Text, nullable=False, unique=True),
        sa.Column("collection", sa.Text, nullable=False),
        sa.Column("source", sa.JSON, nullable=False),
        sa.Column("state", sa.Text, nullable=False),
        sa.Column("total", sa.Integer),
        sa.Column("done", sa.Integer, nullable=False, server_default="0"),
        sa.Column("failed", sa.Integer, nullable=False, server_default="0"),
        sa.Column("unchanged", sa.Integer, nullable=False, server_default="0"),
        sa.Column("created_at", sa.Float, nullable=False),
        sa.Column("started_at", sa.Float),
        sa.Column("finished_at", sa.Float),
        sa.Column("problem", sa.JSON),
        sa.Column("cancel_requested", sa.Boolean, nullable=False, server_default="0"),
        sa.Column("owner", sa.Text),
        sa.Column("leased_until", sa.Float),
        sqlite_autoincrement=True,
    )
    op.create_index("jobs_by_state", "jobs", ["state", "seq"])
    op.create_table(
        "file_outcomes",
        sa.Column("seq", sa.Integer, primary_key=True),
        sa.Column("job_seq", sa.Integer, _of("jobs", "seq"), nullable=False),
        sa.Column("reference", sa.Text, nullable=False),
        sa.Column("item_id", sa.Text),
        sa.Column("status", sa.Text, nullable=False),
        sa.Column("code", sa.Text),
        sa.Column("detail", sa.Text),
        sa.UniqueConstraint("job_seq", "reference"),
        sqlite_autoincrement=True,
    )
    op.create_index("file_outcomes_by_status", "file_outcomes", ["job_seq", "status", "seq"])
