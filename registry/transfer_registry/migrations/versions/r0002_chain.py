"""Entries hang together: each one's hash covers its content and the hash of the entry before it.

Entries of before keep no hash; the chain begins with the next one.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Adds `hash`."""
    op.add_column("entries", sa.Column("hash", sa.String(64), nullable=True))


def downgrade() -> None:
    """Refuses: what the ledger has recorded is kept."""
    raise NotImplementedError("a ledger is append-only; it has no earlier form to go back to")
