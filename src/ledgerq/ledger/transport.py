"""The one method that a way to the database has."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

from ledgerq.models import Json


class Transport(Protocol):
    """A way to call the ledger's functions. Safe to share between threads, and to use again after a fork."""

    def call(self, function: str, arguments: Mapping[str, Json]) -> Json:
        """Call `ledgerq.<function>` with one JSON object, in a transaction of its own, and return its one JSON document.

        A call whose reply is lost, or that the database asks to repeat, is made again for a bounded time: every
        function of the ledger may be repeated.

        Raises:
            InvalidInput, NotFound, WrongState: as the function says (see `errors_table`).
            ConfigurationError: the database is the wrong one, has no ledger, or does not let us in.
            LedgerUnavailable: no usable answer in that time; whether the call took effect is unknown.
        """
        ...

    def close(self) -> None:
        """Close what is open in this process. A closed transport makes no more calls."""
        ...
