"""Steps of a rollout: what a deployment goes through, and where it is."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add three columns that may be empty; a deployment in progress has no steps."""
    op.add_column("operations", sa.Column("steps", sa.Text(), nullable=True))
    op.add_column("operations", sa.Column("step", sa.Integer(), nullable=True))
    op.add_column("operations", sa.Column("step_at", sa.Double(), nullable=True))
