"""Generations say how they are searched, and what was measured; two at a time; edits are logged.

Generations are a cache: whatever was sealed before is sealed again.
"""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def _of(table: str, column: str) -> sa.ForeignKey:
    return sa.ForeignKey(f"{table}.{column}", ondelete="CASCADE")


def upgrade() -> None:
    op.drop_table("generations")
    op.create_table(
        "generations",
        sa.Column(
            "space_id",
            sa.Integer,
            _of("spaces", "id"),
            nullable=False,
        ),
        sa.Column("number", sa.Integer, nullable=False),
        sa.Column("file", sa.Text, nullable=False),
        sa.Column("sha256", sa.Text, nullable=False),
        sa.Column("kind", sa.Text, nullable=False),
        sa.Column("why", sa.Text, nullable=False),
        sa.Column("parameters", sa.JSON, nullable=False),
        sa.Column("recall", sa.Float, nullable=False),
        sa.Column("latency_ms", sa.Float, nullable=False),
        sa.Column("built", sa.Integer, nullable=False),
        sa.Column("count", sa.Integer, nullable=False),
        sa.Column("bytes", sa.Integer, nullable=False),
        sa.Column("high_key", sa.Integer, nullable=False),
        sa.Column("removal_seq", sa.Integer, nullable=False),
        sa.PrimaryKeyConstraint("space_id", "number"),
    )
    op.create_table(
        "edits",
        sa.Column("seq", sa.Integer, primary_key=True),
        sa.Column("collection_id", sa.Integer, _of("collections", "id"), nullable=False),
        sa.Column("item_key", sa.Integer, _of("items", "key"), nullable=False, unique=True),
        sqlite_autoincrement=True,
    )
    op.create_index("edits_by_collection", "edits", ["collection_id", "seq"])
