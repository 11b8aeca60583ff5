"""What a check found."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from enum import StrEnum
from typing import TypeAlias

from ledgerq.cli.session import Session
from ledgerq.errors import LedgerqError


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


def fail(part: str, message: str, advice: str | None = None) -> Finding:
    return Finding(part=part, level=Level.FAIL, message=message, advice=advice)


def findings_of(part: str, check: Check, session: Session) -> Iterator[Finding]:
    """What the check finds. A part that is missing or broken is a finding as well; it keeps no other check from being made."""
    try:
        yield from check(session)
    except LedgerqError as error:
        yield fail(part, str(error))
    except Exception as error:  # noqa: BLE001 - a doctor that dies of what it looks at is of no use
        yield fail(part, f"{type(error).__name__}: {error}", "this is a defect of ledgerq; `--debug` shows more")
