"""Table of ledger entries."""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Creates the `entries` table."""
    op.create_table(
        "entries",
        sa.Column("id", sa.Integer(), primary_key=True, autoincrement=True),
        sa.Column("at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("actor", sa.String(), nullable=False),
        sa.Column("kind", sa.String(32), nullable=False),
        sa.Column("model", sa.String(), nullable=False),
        sa.Column("version", sa.Integer(), nullable=False),
        sa.Column("previous_version", sa.Integer(), nullable=True),
        sa.Column("run_id", sa.String(), nullable=True),
        sa.Column("recipe_fingerprint", sa.String(), nullable=True),
        sa.Column("train_fingerprint", sa.String(), nullable=True),
        sa.Column("test_fingerprint", sa.String(), nullable=True),
        sa.Column("passed", sa.Boolean(), nullable=True),
        sa.Column("verdict", sa.Text(), nullable=True),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.Column("hash", sa.String(64), nullable=False),
        sa.CheckConstraint("kind IN ('verdict', 'promotion', 'rollback')", name="entries_kind"),
        sqlite_autoincrement=True,
    )
    op.create_index("entries_model_version", "entries", ["model", "version"])


def downgrade() -> None:
    """Raises NotImplementedError: the ledger is append-only."""
    raise NotImplementedError("the ledger is append-only; there is no earlier revision")
