"""Requests as the ledger takes them: checked before anything is written, and completed with the defaults of their type."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, TypeVar, cast
from uuid import UUID

from pydantic import BaseModel, ValidationError

from ledgerq.durations import Duration, seconds
from ledgerq.errors import InvalidInput, TooLarge, UnknownType
from ledgerq.handlers import EXTERNAL_TYPES, Handlers
from ledgerq.models import JobRequest, JobType, Json, TaskRequest

PAYLOAD_BYTES: Final = 64 * 1024
"""The ledger's cap for a payload, and ours for a job's details, as JSON."""

LAST_YEAR: Final = 9_000
"""Of a job's start. Its deadline is later still, and Python knows no year after 9999: such a job could not be read again."""

ONE_TASK: Final = "main"
"""The key of the task of a job that has just one."""

M = TypeVar("M", bound=BaseModel)
Id = UUID | str


@dataclass(frozen=True, slots=True)
class Rules:
    """What this process knows about job types. Without a registry every well-formed type is let through."""

    handlers: Handlers | None = None
    task_timeout_s: float | None = None
    """System-wide timeout of a task, where neither its job nor its handler has one."""

    def complete(self, request: JobRequest) -> JobRequest:
        """The request with what its handler and the settings leave to be filled in.

        Raises:
            UnknownType: a registry is known and has neither a handler nor an external type of that name.
            InvalidInput, TooLarge: a time without a zone, or something that JSON or the ledger cannot hold.
        """
        external = request.external or self.is_external(request.type)
        self._check_type(request.type, external=external)
        _check_request(request)
        handler = None if self.handlers is None else self.handlers.find(request.type)
        filled: dict[str, Any] = {"external": external}
        if handler is not None and request.max_attempts is None:
            filled["max_attempts"] = handler.max_attempts
        if not external and request.timeout_s is None:
            filled["timeout_s"] = (handler.timeout_s if handler else None) or self.task_timeout_s
        return request.model_copy(update=filled)

    def is_external(self, type: str) -> bool:  # noqa: A002 - the word of the domain
        """Whether jobs of that type are worked on outside."""
        return type in EXTERNAL_TYPES if self.handlers is None else self.handlers.is_external(type)

    def _check_type(self, type: str, *, external: bool) -> None:  # noqa: A002
        if self.handlers is None or external or type == JobType.PROCESS or self.handlers.find(type) is not None:
            return
        known = sorted({*self.handlers.types, JobType.PROCESS.value})
        raise UnknownType(f"no handler for jobs of type {type!r}; known types: {', '.join(known)}")


def task_requests(payload: Json, tasks: Iterable[TaskRequest | Mapping[str, Any]] | None) -> tuple[TaskRequest, ...]:
    """The tasks of a job: those given, or one that carries the payload. Equal keys are one task, the first.

    Raises:
        InvalidInput: both are given, or one cannot be read.
    """
    if tasks is None:
        return (built(TaskRequest, {"key": ONE_TASK, "payload": payload}),)
    if payload is not None:
        raise InvalidInput("payload and tasks: give one of them; each task carries a payload of its own")
    if isinstance(tasks, str | Mapping | TaskRequest) or not isinstance(tasks, Iterable):  # pyright: ignore[reportUnnecessaryIsInstance]
        raise InvalidInput(f"tasks: {_written(tasks)} is no list of tasks")
    wanted = (
        task if isinstance(task, TaskRequest) else built(TaskRequest, as_mapping(task, f"tasks[{number}]"))
        for number, task in enumerate(tasks)
    )
    by_key: dict[str, TaskRequest] = {}
    for task in wanted:
        by_key.setdefault(task.key, task)
    return tuple(by_key.values())


def built(model: type[M], fields: Mapping[str, Any]) -> M:
    """An instance of a request model.

    Raises:
        InvalidInput: names the field and the value.
    """
    try:
        return model(**fields)
    except ValidationError as error:
        raise InvalidInput(first_fault(error)) from error


def as_mapping(value: object, name: str) -> dict[str, Any]:
    """A plain dictionary of what is a mapping with text keys.

    Raises:
        InvalidInput: it is none.
    """
    if not isinstance(value, Mapping) or not all(isinstance(key, str) for key in cast("Mapping[object, object]", value)):
        raise InvalidInput(f"{name}: {_written(value)} is no object with text keys")
    return dict(cast("Mapping[str, Any]", value))


def queue_name(value: str | None, default: str) -> str:
    """The queue that is meant. An empty text is not the default one: a variable that is not set must not pause production.

    Raises:
        InvalidInput: it is no name.
    """
    if value is None:
        return default
    if not isinstance(value, str) or not value:  # pyright: ignore[reportUnnecessaryIsInstance] - callers err
        raise InvalidInput(f"queue: {value!r} is no name of a queue")
    return value


def given(fields: Mapping[str, Any]) -> dict[str, Any]:
    """Without what is None: so that a model's own default applies."""
    return {key: value for key, value in fields.items() if value is not None}


def above_zero(value: Duration | None, name: str) -> float | None:
    """A duration in seconds, or None.

    Raises:
        InvalidInput: it is zero, negative or unreadable; the message names it.
    """
    if value is None:
        return None
    result = seconds(value, name=name)
    if result == 0:
        raise InvalidInput(f"{name}: {value!r} must be above zero")
    return result


def as_uuid(value: Id, name: str) -> UUID:
    """The id, however it is written.

    Raises:
        InvalidInput: it is no UUID.
    """
    if isinstance(value, UUID):
        return value
    try:
        return UUID(value)
    except (ValueError, AttributeError, TypeError) as error:
        raise InvalidInput(f"{name}: {value!r} is no UUID") from error


def as_uuids(values: Iterable[Id], name: str) -> list[UUID]:
    """The ids in order, each once.

    Raises:
        InvalidInput: one of them is no UUID, or there is nothing to go through.
    """
    if isinstance(values, str | UUID) or not isinstance(values, Iterable):  # pyright: ignore[reportUnnecessaryIsInstance] - callers err
        raise InvalidInput(f"{name}: {values!r} is no list of UUIDs")
    return list(dict.fromkeys(as_uuid(value, name) for value in values))


def json_bytes(value: object, name: str) -> int:
    """How many bytes the value has as JSON, as Postgres prints and counts it: with a space after each comma and colon.

    Raises:
        InvalidInput: JSON or Postgres cannot hold it (NaN, infinity, NUL, a lone surrogate, an object of another kind).
        TooLarge: it is over 64 KiB.
    """
    try:
        text = json.dumps(value, allow_nan=False, ensure_ascii=False)
        size = len(text.encode())
    except (TypeError, ValueError, RecursionError) as error:
        raise InvalidInput(f"{name}: not JSON: {error}") from error
    if "\\u0000" in text and _has_nul(value):
        raise InvalidInput(f"{name}: holds a NUL character, which Postgres cannot store")
    if size > PAYLOAD_BYTES:
        raise TooLarge(f"{name}: {size} bytes as JSON, over the cap of {PAYLOAD_BYTES}; put it where the handler can fetch it")
    return size


def check_tasks(tasks: Iterable[TaskRequest]) -> None:
    """Raise when a key or a payload is something that the ledger cannot hold.

    Raises:
        InvalidInput, TooLarge: names the task.
    """
    for task in tasks:
        _check_text("key of a task", task.key)
        if task.payload is not None:
            json_bytes(task.payload, f"payload of task {task.key!r}")


def _check_request(request: JobRequest) -> None:
    if request.due_at is not None and request.due_at.tzinfo is None:
        raise InvalidInput(f"due_at: {request.due_at.isoformat()} has no time zone; write it as UTC, for example")
    if request.due_at is not None and request.due_at.year > LAST_YEAR:
        raise InvalidInput(f"due_at: {request.due_at.isoformat()} is after the year {LAST_YEAR}")
    if request.due_at is not None and request.delay_s is not None:
        raise InvalidInput(f"due_at: {request.due_at.isoformat()} and a delay of {request.delay_s:g} s: give one of them")
    _check_text("tenant", request.tenant)
    _check_text("project", request.project)
    _check_text("dedupe_key", request.dedupe_key)
    json_bytes(request.details, "details")
    check_tasks(request.tasks)


def _check_text(name: str, text: str | None) -> None:
    if text is not None and not _storable(text):
        raise InvalidInput(f"{name}: {text!r} holds a character that Postgres cannot store (NUL or a lone surrogate)")


def _storable(text: str) -> bool:
    return "\x00" not in text and (text.isascii() or not any("\ud800" <= character <= "\udfff" for character in text))


def _has_nul(value: object) -> bool:
    """Whether a text in it really holds NUL: an escaped backslash before `u0000` looks the same in JSON."""
    if isinstance(value, str):
        return "\x00" in value
    if isinstance(value, Mapping):
        pairs = cast("Mapping[object, object]", value).items()
        return any(_has_nul(key) or _has_nul(item) for key, item in pairs)
    return isinstance(value, Sequence) and any(_has_nul(item) for item in cast("Sequence[object]", value))


def first_fault(error: ValidationError) -> str:
    """The first thing that pydantic found wrong, in one line: where, what, why."""
    details = error.errors(include_url=False)[0]
    where = ".".join(str(part) for part in details["loc"]) or "request"
    value = _written(details["input"])
    more = f" (and {error.error_count() - 1} more)" if error.error_count() > 1 else ""
    return f"{where}: {value}: {details['msg']}{more}"


def _written(value: Any) -> str:
    try:
        text = repr(value)
    except RecursionError:
        return f"a {type(value).__name__} that is nested too deeply"
    return text if len(text) <= 200 else f"{text[:200]}…"
