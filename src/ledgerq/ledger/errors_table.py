"""What the database's refusals mean to a caller. Shared by all transports: they differ only in how a refusal arrives.

| SQLSTATE | exception |
|---|---|
| LQ001 | `InvalidInput` |
| LQ002 | `TooLarge` |
| LQ003 | `UnknownQueue` |
| LQ004, LQ009 | `WrongState`: a step from the future; a transition that the guard refuses |
| LQ005 | `NotFound` |
| class 22, 23, 54 | `InvalidInput`: Postgres cannot hold that value |
| 42883, 42P01, 3F000 | `SchemaMismatch` |
| 42501, 28000, 28P01, 3D000 | `ConfigurationError` |
| anything else | `LedgerUnavailable` |
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from ledgerq.errors import (
    ConfigurationError,
    InvalidInput,
    LedgerqError,
    LedgerUnavailable,
    NotFound,
    SchemaMismatch,
    TooLarge,
    UnknownQueue,
    WrongState,
)
from ledgerq.ledger import json_text
from ledgerq.models import Json


@dataclass(slots=True, eq=False)
class ServerFault(Exception):
    """The database answered a call with an error."""

    sqlstate: str
    message: str
    hint: str = ""
    retry_after: float | None = None
    """Seconds that it asks to wait."""

    def __str__(self) -> str:
        return f"{self.message} (SQLSTATE {self.sqlstate or 'none'})"

    @property
    def is_repeatable(self) -> bool:
        """Whether the same call may succeed in a moment."""
        return is_repeatable(self.sqlstate)

    def as_error(self, doing: str) -> LedgerqError:
        """What a caller is told. `doing` names the call, or where we connect to; it must hold no secret."""
        return error_for(doing, self)


RAISED_BY_THE_LEDGER: Final[dict[str, type[LedgerqError]]] = {
    "LQ001": InvalidInput,
    "LQ002": TooLarge,
    "LQ003": UnknownQueue,
    "LQ004": WrongState,
    "LQ005": NotFound,
    "LQ009": WrongState,
}
"""The codes that our SQL raises on purpose; its messages are written for callers and are passed on as they are."""

_ADVICE: Final[dict[str, tuple[type[LedgerqError], str]]] = {
    "42883": (SchemaMismatch, "this database has no ledger, or one of another version; run `ledgerq migrate`"),
    "42P01": (SchemaMismatch, "this database has no ledger, or one of another version; run `ledgerq migrate`"),
    "3F000": (SchemaMismatch, "this database has no ledger; run `ledgerq migrate`"),
    "42501": (ConfigurationError, "the login role may not use the ledger; connect as a member of `service_role`"),
    "28000": (ConfigurationError, "the database does not let this user in; check DATABASE_URL"),
    "28P01": (ConfigurationError, "the password is wrong; check DATABASE_URL"),
    "3D000": (ConfigurationError, "there is no such database or role; check DATABASE_URL"),
}

_UNSTORABLE_CLASSES: Final = frozenset({"22", "23", "54"})
"""Data exceptions, constraints, and Postgres's own limits: repeating the same values cannot help."""

_REPEATABLE: Final = frozenset({"40001", "40P01", "55P03", "57014", "57P01", "57P02", "57P03", "53300", "25006"})
"""Serialisation, deadlock, lock and statement timeouts, shutdown and start, too many connections, and a primary that is being replaced."""

_REFUSED_AT_THE_DOOR: Final[tuple[tuple[str, str], ...]] = (
    ("password authentication failed", "28P01"),
    ("no password supplied", "28P01"),
    ("SCRAM authentication", "28P01"),
    ("no pg_hba.conf entry", "28000"),
    ("is not permitted to log in", "28000"),
    ("permission denied for database", "42501"),
    ("Tenant or user not found", "28000"),
    ("(ENOTFOUND)", "28000"),
    ("(ETENANTNOTFOUND)", "28000"),
    ("(ENOIDENTIFIER)", "28000"),
    ("(EINVALIDUSERINFO)", "28000"),
    ("(ESSLREQUIRED)", "28000"),
    ("does not exist", "3D000"),
)
"""Refusals of a connection: the client library hands on the server's text (of roles and databases), but not its SQLSTATE.
The codes in parentheses, and the text before them in older versions, are those of Supavisor, the pooler of a Supabase project."""


def is_repeatable(sqlstate: str) -> bool:
    """Whether the same call may succeed in a moment. True of every loss of the connection (class 08) too."""
    return sqlstate in _REPEATABLE or sqlstate.startswith("08")


def refusal_of(message: str) -> str:
    """The SQLSTATE behind a refused connection, or 08001 where the text tells of nothing that a caller could mend."""
    return next((sqlstate for text, sqlstate in _REFUSED_AT_THE_DOOR if text in message), "08001")


def refused(doing: str, fault: ServerFault, arguments: Mapping[str, Json]) -> LedgerqError:
    """The exception for a call that failed for good; it names the value where the database only says that one cannot be stored."""
    found = json_text.find_unstorable(arguments) if fault.sqlstate.startswith("22") else None
    return (ServerFault(fault.sqlstate, found, fault.hint) if found else fault).as_error(doing)


def error_for(doing: str, fault: ServerFault) -> LedgerqError:
    """The exception for a fault. `doing` names the call, or where we connect to; it must hold no secret."""
    raised = RAISED_BY_THE_LEDGER.get(fault.sqlstate)
    if raised is not None:
        return raised(f"{fault.message}; {fault.hint}" if fault.hint else fault.message)
    kind, advice = _ADVICE.get(fault.sqlstate, (None, ""))
    if kind is not None:
        return kind(f"{doing}: {advice} ({fault})")
    if fault.sqlstate[:2] in _UNSTORABLE_CLASSES:
        return InvalidInput(f"{doing}: the ledger cannot store a value of this request: {fault}")
    return LedgerUnavailable(f"{doing}: {fault}")
