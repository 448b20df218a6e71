"""The first schema."""

from __future__ import annotations

import uuid

from alembic import op

from mlguard.registry.tables import chain, counters, meta, metadata

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Create every table."""
    metadata.create_all(op.get_bind())
    op.bulk_insert(meta, [{"key": "installation", "value": uuid.uuid4().hex[:12]}])
    op.bulk_insert(counters, [{"name": "query_id", "value": 1}])
    op.bulk_insert(chain, [{"id": 1, "seq": 0, "hash": "0" * 64, "latest_at": 0.0}])
