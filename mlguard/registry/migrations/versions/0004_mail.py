"""Mail that is paced: which message a row was told in, and holds that keep mail back."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add two columns; mail that was sent before counts as told by itself."""
    op.add_column("outbox", sa.Column("told_in", sa.Text(), nullable=True))
    op.execute("UPDATE outbox SET told_in = message_id WHERE state IN ('SENT', 'SENDING')")
    op.add_column(
        "holds", sa.Column("mute", sa.Boolean(), nullable=False, server_default=sa.false())
    )
