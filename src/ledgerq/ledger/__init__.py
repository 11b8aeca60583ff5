"""The ledger as Python sees it: one typed method per SQL function, over one transport or another."""

from __future__ import annotations

from typing import Final

from ledgerq.ledger.outcome_json import Returned, TaskReport
from ledgerq.ledger.store import LedgerStore
from ledgerq.ledger.transport import Transport
from ledgerq.settings import Settings

__all__ = ["LedgerStore", "Returned", "TaskReport", "Transport", "open_store", "open_transport", "transport_module"]

_DIRECT: Final = "ledgerq.ledger.postgres"
_OVER_HTTP: Final = "ledgerq.ledger.supabase"


def open_store(settings: Settings) -> LedgerStore:
    """The ledger that the settings name. Nothing is connected before the first call.

    Raises:
        ConfigurationError: they name none.
    """
    return LedgerStore(open_transport(settings))


def open_transport(settings: Settings) -> Transport:
    """The way to the ledger that the settings name: a direct connection where there is one, which answers sooner, or a project's API.

    Raises:
        ConfigurationError: they name none, or one that cannot be right.
    """
    if transport_module(settings) == _OVER_HTTP:
        from ledgerq.ledger.supabase import SupabaseTransport

        url, key = settings.supabase_project
        return SupabaseTransport(url, key, pool_size=settings.ledger_pool_size, timeout_s=settings.ledger_timeout_s)
    from ledgerq.ledger.postgres import PostgresTransport

    return PostgresTransport(settings.database_dsn, pool_size=settings.ledger_pool_size, timeout_s=settings.ledger_timeout_s)


def transport_module(settings: Settings) -> str:
    """The module behind `open_transport`, for whoever wants it imported before a fork."""
    return _OVER_HTTP if settings.database_url is None and settings.supabase_url is not None else _DIRECT
