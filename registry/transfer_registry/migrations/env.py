"""Alembic environment: runs the migrations within the ledger's transaction."""

from __future__ import annotations

from alembic import context

from transfer_registry.migrations import VERSION_TABLE

context.configure(connection=context.config.attributes["connection"], version_table=VERSION_TABLE)
context.run_migrations()
