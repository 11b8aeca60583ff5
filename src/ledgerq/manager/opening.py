"""What a manager is opened with: settings, and whatever has the ledger."""

from __future__ import annotations

from typing import Protocol

from pydantic import ValidationError

from ledgerq.errors import ConfigurationError, InvalidInput
from ledgerq.ledger.store import LedgerStore
from ledgerq.manager.requests import first_fault
from ledgerq.settings import Settings


class HasLedger(Protocol):
    """What has the ledger: `ledgerq.DataService`, or a data service of your own with that property."""

    @property
    def store(self) -> LedgerStore: ...


def ledger_of(data_service: object) -> LedgerStore:
    """The ledger of a data service; a ledger itself is its own.

    Raises:
        InvalidInput: it has none; says what to give instead.
    """
    store: object = data_service if isinstance(data_service, LedgerStore) else getattr(data_service, "store", None)
    if not isinstance(store, LedgerStore):
        raise InvalidInput(
            f"data_service: {type(data_service).__name__} has no ledger; give ledgerq.DataService.from_env(),"
            " or an object of your own whose `store` is that one's"
        )
    return store


def settings_from_env() -> Settings:
    """The settings that environment variables make.

    Raises:
        ConfigurationError: one cannot be read; names it.
    """
    try:
        return Settings()
    except ValidationError as error:
        raise ConfigurationError(f"a setting cannot be read: {first_fault(error)}") from None
