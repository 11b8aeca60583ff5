"""Where the database is, and connections to it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final

import psycopg
from psycopg.conninfo import conninfo_to_dict
from psycopg.pq import ConnStatus, TransactionStatus

from ledgerq.errors import ConfigurationError, LedgerqError
from ledgerq.ledger.errors_table import ServerFault, error_for, refusal_of
from ledgerq.ledger.places import Condition

Connection = psycopg.Connection[tuple[object, ...]]

LONGEST_IDLE_S: Final = 240.0
"""NAT gateways and load balancers forget connections silently after 5 minutes or so."""


def condition(connection: Connection) -> Condition:
    """What it is after a call."""
    wire = connection.pgconn
    if wire.status != ConnStatus.OK:
        return Condition.LOST
    return Condition.GOOD if wire.transaction_status == TransactionStatus.IDLE else Condition.SPOILED


@dataclass(frozen=True, slots=True)
class Address:
    """Where to connect, checked and with our defaults filled in. What the connection string itself says wins."""

    parameters: dict[str, str | int] = field(repr=False)

    @classmethod
    def parse(cls, dsn: str, *, timeout_s: float) -> Address:
        """Read a connection string, `postgresql://…` or `key=value …`.

        Raises:
            ConfigurationError: it is neither. The text itself is not repeated: it holds a password.
        """
        given = _parsed(dsn)
        if given is None:
            raise ConfigurationError(
                "DATABASE_URL is no Postgres connection string; it looks like postgresql://user:password@host:5432/database"
            )
        return cls(_defaults(timeout_s) | given)

    @property
    def place(self) -> str:
        """For messages: host, port and database, nothing secret."""
        get = self.parameters.get
        return f"the ledger at {get('host') or get('hostaddr') or 'the local socket'}:{get('port') or 5432}/{get('dbname') or ''}"

    def open(self) -> Connection:
        """Connect.

        Raises:
            ServerFault: the address is right as far as one can tell, and it may be worth trying again.
            ConfigurationError: user, password or database are wrong.
        """
        try:
            return psycopg.connect(autocommit=True, prepare_threshold=None, **self.parameters)  # pyright: ignore[reportArgumentType] - libpq's own parameters, as parsed by libpq
        except psycopg.OperationalError as error:
            fault = ServerFault(refusal_of(str(error)), str(error).strip())
            if fault.sqlstate == "08001":
                raise fault from error
            raise error_for(self.place, fault) from error
        except psycopg.Error as error:
            raise _unusable(error) from None


def _parsed(dsn: str) -> dict[str, str | int] | None:
    """None instead of an exception, whose message or context would carry the password on."""
    try:
        return {key: value for key, value in conninfo_to_dict(dsn).items() if value is not None}
    except psycopg.Error:
        return None


def _defaults(timeout_s: float) -> dict[str, str | int]:
    return {
        "application_name": "ledgerq",
        "connect_timeout": max(2, min(5, int(timeout_s))),
        "keepalives_idle": 15,
        "keepalives_interval": 5,
        "keepalives_count": 3,
        "tcp_user_timeout": int(timeout_s * 1_000),
    }


def _unusable(error: psycopg.Error) -> LedgerqError:
    return ConfigurationError(f"DATABASE_URL holds a parameter that libpq does not accept ({type(error).__name__})")
