"""The ledger as Python sees it: one typed method per SQL function, over one transport or another."""

from __future__ import annotations

from ledgerq.errors import ConfigurationError
from ledgerq.ledger.outcome_json import Returned, TaskReport
from ledgerq.ledger.store import LedgerStore
from ledgerq.ledger.transport import Transport
from ledgerq.settings import Settings

__all__ = ["LedgerStore", "Returned", "TaskReport", "Transport", "open_store", "open_transport"]


def open_store(settings: Settings) -> LedgerStore:
    """The ledger that the settings name. Nothing is connected before the first call.

    Raises:
        ConfigurationError: they name none.
    """
    return LedgerStore(open_transport(settings))


def open_transport(settings: Settings) -> Transport:
    """The way to the ledger that the settings name.

    Raises:
        ConfigurationError: they name none, or one that this version cannot use.
    """
    from ledgerq.ledger.postgres import PostgresTransport

    if settings.database_url is None and settings.supabase_url is not None:
        raise ConfigurationError(
            "SUPABASE_URL alone is not enough: set DATABASE_URL to the project's direct connection string"
            " (Project settings > Database > Connection string; the transaction pooler's is fine)"
        )
    return PostgresTransport(settings.database_dsn, pool_size=settings.ledger_pool_size, timeout_s=settings.ledger_timeout_s)
