"""What RQ believes of runs: evidence for the status sync, read in one round trip and without touching anything.

RQ's own registries run their cleanup when they are counted or listed, which executes callbacks and requeues jobs in the
process that only looked. So the keys are read directly.
"""

from __future__ import annotations

import zlib
from base64 import b64decode
from binascii import Error as Base64Error
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum
from typing import Any, Final, Protocol, cast
from uuid import UUID

from redis import Redis
from rq.defaults import RQ_KEY_PREFIX

from ledgerq.dispatch.connection import open_pipeline

LONGEST_LIST: Final = 10_000
"""Entries of a queue's list that are read. Ours are few (the depth); behind more of somebody else's, we cannot say."""
LONGEST_MESSAGE: Final = 2_000
WRONG_SERIALIZER: Final = "DeserializationError"
"""What a worker that was started without `-S json` makes of a run: RQ's name for an argument it cannot read."""

_STOPPED: Final = b"3"
_FAILED: Final = b"2"


class RqStatus(StrEnum):
    """RQ's statuses of a job (rq 3.0, `rq.job.JobStatus`). One that we do not know reads as `created`: not to be relied on."""

    CREATED = "created"
    QUEUED = "queued"
    STARTED = "started"
    FINISHED = "finished"
    FAILED = "failed"
    STOPPED = "stopped"
    CANCELED = "canceled"
    DEFERRED = "deferred"
    SCHEDULED = "scheduled"
    RATE_LIMITED = "rate_limited"
    READY_TO_ENQUEUE = "ready_to_enqueue"


class Sought(Protocol):
    """A run to look for: `RunTicket` and `LiveRun` are such."""

    @property
    def run(self) -> UUID: ...
    @property
    def queue(self) -> str: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Observation:
    """One run as RQ has it at the time of looking."""

    status: RqStatus | None
    """None: RQ has no hash of it."""
    in_list: bool
    """Its id waits in the queue's list, or may: behind more entries than were read, nobody can say that it does not."""
    taken: bool = False
    """A worker took it from the list and had not begun it (RQ's intermediate list): at work, or dead in between."""
    execution_id: str | None = None
    """The execution that failed or was stopped, when the newest result names one; otherwise the one that is registered as started."""
    exc_info: str | None = None
    """The end of the newest failure's text, at most 2,000 characters."""
    worker: str | None = None
    ended_at: datetime | None = None

    @property
    def unreadable(self) -> bool:
        """A worker with another serializer took it: one started without `-S json`. Its name is in `worker`.

        Such a worker cannot read the run's argument, so its horse fails the RQ job before any of our code runs: RQ says
        `failed`, the ledger says `dispatched`.
        """
        return self.status is RqStatus.FAILED and WRONG_SERIALIZER in (self.exc_info or "")


def observe(redis: Redis, runs: Iterable[Sought]) -> dict[UUID, Observation]:
    """Look for all of them in one pipelined batch. Every run that was asked for is in the answer."""
    sought = list(runs)
    if not sought:
        return {}
    queues = list(dict.fromkeys(run.queue for run in sought))
    with open_pipeline(redis, transaction=False) as pipeline:
        for queue in queues:
            _ask_queue(pipeline, queue)
        for run in sought:
            _ask_run(pipeline, str(run.run))
        answers = pipeline.execute()
    places = {queue: _places(answers[at * 4 : at * 4 + 4]) for at, queue in enumerate(queues)}
    rest = answers[len(queues) * 4 :]
    return {run.run: _observation(str(run.run), places[run.queue], *rest[at * 2 : at * 2 + 2]) for at, run in enumerate(sought)}


@dataclass(frozen=True, slots=True, kw_only=True)
class _Places:
    """Where ids of one queue are."""

    waiting: frozenset[str]
    cut: bool
    taken: frozenset[str]
    execution: Mapping[str, str]


def _ask_queue(pipeline: Any, queue: str) -> None:
    key = f"{RQ_KEY_PREFIX}:queue:{queue}"
    pipeline.llen(key)
    pipeline.lrange(key, 0, LONGEST_LIST - 1)
    pipeline.lrange(f"{key}:intermediate", 0, LONGEST_LIST - 1)
    pipeline.zrange(f"{RQ_KEY_PREFIX}:wip:{queue}", 0, LONGEST_LIST - 1)


def _ask_run(pipeline: Any, run: str) -> None:
    pipeline.hmget(f"{RQ_KEY_PREFIX}:job:{run}", "created_at", "status", "worker_name", "ended_at")
    pipeline.xrevrange(f"{RQ_KEY_PREFIX}:results:{run}", "+", "-", count=1)


def _places(answers: list[Any]) -> _Places:
    length, waiting, taken, started = answers
    return _Places(
        waiting=frozenset(map(_text, waiting)),
        cut=length > LONGEST_LIST,
        taken=frozenset(map(_text, taken)),
        execution=dict(_text(member).split(":", 1) for member in started if b":" in member),
    )


def _observation(run: str, places: _Places, fields: list[bytes | None], results: list[Any]) -> Observation:
    created, status, worker, ended = fields
    failed_execution, message = _newest_failure(results)
    return Observation(
        status=None if created is None and status is None else _status(status),
        in_list=run in places.waiting or places.cut,
        taken=run in places.taken,
        execution_id=failed_execution or places.execution.get(run),
        exc_info=message or None,
        worker=_text(worker) or None,
        ended_at=_time(ended),
    )


def _newest_failure(results: list[Any]) -> tuple[str | None, str]:
    if not results:
        return None, ""
    payload = cast("Mapping[bytes, bytes]", results[0][1])
    if payload.get(b"type") not in (_FAILED, _STOPPED):
        return None, ""
    return _text(payload.get(b"execution_id")) or None, _unpacked(payload.get(b"exc_string"))


def _unpacked(packed: bytes | None) -> str:
    """The text of a failure; a long traceback ends with what matters."""
    try:
        text = zlib.decompress(b64decode(packed or b"")).decode(errors="replace") if packed else ""
    except (zlib.error, Base64Error):
        return ""
    return text.strip()[-LONGEST_MESSAGE:]


def _status(status: bytes | None) -> RqStatus:
    text = _text(status)
    return RqStatus(text) if text in RqStatus.__members__.values() else RqStatus.CREATED


def _time(text: bytes | None) -> datetime | None:
    try:
        moment = datetime.fromisoformat(_text(text)) if text else None
    except ValueError:
        return None
    return moment if moment is None or moment.tzinfo else moment.replace(tzinfo=UTC)


def _text(value: bytes | str | None) -> str:
    return value.decode(errors="replace") if isinstance(value, bytes) else value or ""
