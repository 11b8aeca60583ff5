"""What a handler says about one task. Outcomes are values; the runner records them.

A handler returns one (or nothing, which means `Completed()`), or raises: `classify` then decides by a table of
exception types whether trying again can help.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TypeAlias, TypeVar
from uuid import UUID

from ledgerq.models import Json, JsonObject


@dataclass(frozen=True, slots=True, kw_only=True)
class Usage:
    """One billed call to a provider. The id is made by the client, so that it counts once."""

    id: UUID
    provider: str
    model: str
    tokens: int
    cost: float = 0.0
    """In US dollars."""
    saved_tokens: int = 0
    """Tokens that a cache or an earlier attempt made unnecessary."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DocumentEffect:
    """Makes a generation of a document's points the live one, in the transaction that acknowledges the task."""

    document: UUID
    revision: int
    generation: int
    points: int
    digest: str
    """SHA-256 over the sorted point ids, in hexadecimal."""
    chunks: int = 0
    usage: tuple[Usage, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskError:
    """Why a task failed: the exception's type and message, and a digest that groups equal failures."""

    type: str
    message: str
    digest: str = ""
    traceback: str = ""
    data: JsonObject = field(default_factory=dict[str, Json])


@dataclass(frozen=True, slots=True)
class Completed:
    """The task is done."""

    result: Json = None
    effects: tuple[DocumentEffect, ...] = ()
    task: int | None = None


@dataclass(frozen=True, slots=True)
class Retry:
    """Not this time: the task goes back and counts an attempt, unless `throttled` says that somebody asked us to wait."""

    reason: str = ""
    after_s: float | None = None
    """Seconds to wait; without it the retry policy decides."""
    throttled: bool = False
    """Waiting was asked for (a rate limit, a service that is away): costs no attempt, ends at the job's deadline."""
    error: TaskError | None = None
    task: int | None = None


@dataclass(frozen=True, slots=True)
class Failed:
    """Trying again cannot help."""

    error: TaskError | str
    task: int | None = None


@dataclass(frozen=True, slots=True)
class Cancelled:
    """The handler stopped because the job was cancelled."""

    task: int | None = None


Outcome: TypeAlias = Completed | Retry | Failed | Cancelled

AnyOutcome = TypeVar("AnyOutcome", Completed, Retry, Failed, Cancelled)


def of(task: int, outcome: AnyOutcome) -> AnyOutcome:
    """Name the task that an outcome belongs to.

    A window handler needs it only where it answers out of order: an outcome without a task answers the oldest task
    that was taken and not yet answered.
    """
    return replace(outcome, task=task)
