"""Jobs know whether their source was read to its end, and how often a retry was asked for."""

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("jobs", sa.Column("complete", sa.Boolean, nullable=False, server_default="0"))
    op.add_column("jobs", sa.Column("retries", sa.Integer, nullable=False, server_default="0"))
    op.execute("UPDATE jobs SET complete = 1 WHERE state = 'done'")
