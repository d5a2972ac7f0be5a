"""Which item another one is a duplicate of; the groups that a job finds."""

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("items", sa.Column("duplicate_of", sa.JSON))
    job = sa.ForeignKey("jobs.seq", ondelete="CASCADE")
    op.create_table(
        "duplicate_groups",
        sa.Column("seq", sa.Integer, primary_key=True),
        sa.Column("job_seq", sa.Integer, job, nullable=False),
        sa.Column("members", sa.JSON, nullable=False),
        sqlite_autoincrement=True,
    )
    op.create_index("duplicate_groups_by_job", "duplicate_groups", ["job_seq", "seq"])
