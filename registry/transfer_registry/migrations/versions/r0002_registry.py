"""Table that records the registry to which the ledger belongs."""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Creates the `registry` table, which has at most one row."""
    op.create_table(
        "registry",
        sa.Column("id", sa.Integer(), primary_key=True, autoincrement=False),
        sa.Column("identity", sa.String(64), nullable=False),
        sa.CheckConstraint("id = 1", name="registry_one_row"),
    )


def downgrade() -> None:
    """Drops the `registry` table."""
    op.drop_table("registry")
