"""What a check found."""

from __future__ import annotations

import sys
import traceback
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from enum import StrEnum
from typing import Final, TypeAlias

from ledgerq.cli.session import Session
from ledgerq.errors import LedgerqError, SchemaMismatch, ServiceUnavailable

VARIABLES: Final = {
    "code": "LEDGERQ_APP",
    "ledger": "DATABASE_URL, or SUPABASE_URL with SUPABASE_SERVICE_ROLE_KEY",
    "queue": "REDIS_URL",
    "embedder": "LEDGERQ_EMBEDDER and OPENAI_API_KEY",
    "vectors": "QDRANT_URL and QDRANT_API_KEY",
    "files": "DATABASE_URL, or SUPABASE_URL with SUPABASE_SERVICE_ROLE_KEY",
}
"""What leads to each part."""


class Level(StrEnum):
    """How bad it is."""

    OK = "ok"
    WARN = "warn"
    """It works, and somebody should look at it."""
    FAIL = "fail"
    """Work cannot be done until it is mended."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One line of the doctor's report."""

    part: str
    level: Level
    message: str
    advice: str | None = None
    """What to do; nothing where all is well."""


Check: TypeAlias = Callable[[Session], Iterator[Finding]]


def ok(part: str, message: str) -> Finding:
    return Finding(part=part, level=Level.OK, message=message)


def warn(part: str, message: str, advice: str) -> Finding:
    return Finding(part=part, level=Level.WARN, message=message, advice=advice)


def fail(part: str, message: str, advice: str) -> Finding:
    return Finding(part=part, level=Level.FAIL, message=message, advice=advice)


def _advice(part: str, error: LedgerqError, where: str) -> str:
    """Which variable to look at, and what to do with it."""
    if isinstance(error, SchemaMismatch):
        return f"run `ledgerq migrate{where}`, as the owner of the schema"
    variables = VARIABLES.get(part, "the settings")
    if isinstance(error, ServiceUnavailable):
        return f"check {variables}; see that it runs and can be reached from this machine, then run `ledgerq doctor{where}` again"
    return f"check {variables}: docs/configuration.md says what each may hold"


def _trace(error: Exception, session: Session) -> None:
    if session.debug:
        traceback.print_exception(error, file=sys.stderr)


def findings_of(part: str, check: Check, session: Session) -> Iterator[Finding]:
    """What the check finds. A part that is missing or broken is a finding as well; it keeps no other check from being made."""
    try:
        yield from check(session)
    except LedgerqError as error:
        _trace(error, session)
        yield fail(part, " ".join(str(error).split()), _advice(part, error, session.where))
    except Exception as error:  # noqa: BLE001 - a doctor that dies of what it looks at is of no use
        _trace(error, session)
        yield fail(part, f"{type(error).__name__}: {error}", "this is a defect of ledgerq; `--debug` shows more")
