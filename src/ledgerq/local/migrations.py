"""The ledger's migrations, applied at each start of the stack."""

from __future__ import annotations


def migrate(dsn: str) -> object:
    """Idempotent; what it raises is the ledger's."""
    from ledgerq.ledger.migrate import migrate as apply

    return apply(dsn)
