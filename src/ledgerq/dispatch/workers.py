"""Who works for RQ, and what RQ's lists hold, for the doctor and for statistics. Only reads."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum
from typing import Any, Final, Protocol, cast
from uuid import UUID

from redis import Redis
from rq.defaults import RQ_KEY_PREFIX

from ledgerq.dispatch.connection import Breaker, open_pipeline
from ledgerq.dispatch.observation import observe

SILENT_S: Final = 420 + 60
"""Seconds after which an idle worker's key would have expired (RQ's `DEFAULT_WORKER_TTL` and its margin)."""
FAILURES_READ: Final = 50
"""Newest failed RQ jobs of a queue that are searched for workers with another serializer."""


class WorkerProblem(StrEnum):
    """What a worker's operator should mend; the text says how."""

    WRONG_SERIALIZER = "was started without `-S json`, so it cannot read runs and fails each one it takes; restart it with the flag"
    SEVERAL_QUEUES = "listens on several queues, where RQ can lose a run between taking and starting it; start one process a queue"
    OTHER_QUEUE = "listens on no queue of the ledger"
    SILENT = "has sent no heartbeat for eight minutes; it is gone or hangs"


@dataclass(frozen=True, slots=True, kw_only=True)
class RqWorker:
    """A worker as RQ's registry has it."""

    name: str
    queues: tuple[str, ...]
    state: str
    hostname: str
    pid: int | None
    current_run: str | None
    started_at: datetime | None
    heartbeat_at: datetime | None
    stopping: bool
    """Shutdown was requested; it ends after the run that it works on."""
    rq_version: str
    python_version: str
    problems: tuple[WorkerProblem, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class RqQueueCounts:
    """Lengths of RQ's lists and registries of one queue. They count other people's jobs as well."""

    queue: str
    waiting: int
    taken: int
    started: int
    failed: int


def list_workers(
    redis: Redis, *, queues: Sequence[str] = (), now: datetime | None = None, breaker: Breaker | None = None
) -> list[RqWorker]:
    """All registered workers by name, with what is wrong about them; `queues` are the ledger's.

    Raises:
        QueueUnavailable: Redis failed.
    """
    with (breaker or Breaker()).guard("list its workers"):
        keys = sorted(_text(key) for key in cast("set[bytes]", redis.smembers(f"{RQ_KEY_PREFIX}:workers")))
        with open_pipeline(redis, transaction=False) as pipeline:
            for key in keys:
                pipeline.hgetall(key)
            hashes = cast("list[Mapping[bytes, bytes]]", pipeline.execute())
        unreadable = _wrong_serializers(redis, queues)
    moment = now or datetime.now(UTC)
    return [_worker(key, fields, queues, unreadable, moment) for key, fields in zip(keys, hashes, strict=True) if fields]


def queue_counts(redis: Redis, queues: Sequence[str], *, breaker: Breaker | None = None) -> list[RqQueueCounts]:
    """How much RQ holds of each queue, without the cleanup that RQ's own counts run.

    Raises:
        QueueUnavailable: Redis failed.
    """
    with (breaker or Breaker()).guard("count its queues"), open_pipeline(redis, transaction=False) as pipeline:
        for queue in queues:
            pipeline.llen(f"{RQ_KEY_PREFIX}:queue:{queue}")
            pipeline.llen(f"{RQ_KEY_PREFIX}:queue:{queue}:intermediate")
            pipeline.zcard(f"{RQ_KEY_PREFIX}:wip:{queue}")
            pipeline.zcard(f"{RQ_KEY_PREFIX}:failed:{queue}")
        counts = cast("list[int]", pipeline.execute())
    return [
        RqQueueCounts(queue=queue, waiting=counts[at], taken=counts[at + 1], started=counts[at + 2], failed=counts[at + 3])
        for queue, at in zip(queues, range(0, len(counts), 4), strict=True)
    ]


@dataclass(frozen=True, slots=True)
class _Failed:
    run: UUID
    queue: str


class _Seen(Protocol):
    @property
    def worker(self) -> str | None: ...
    @property
    def unreadable(self) -> bool: ...


def _wrong_serializers(redis: Redis, queues: Iterable[str]) -> frozenset[str]:
    """Names of workers that lately failed a run because they could not read it. The registry does not tell a serializer."""
    listened = list(queues)
    with open_pipeline(redis, transaction=False) as pipeline:
        for queue in listened:
            _ask_failed(pipeline, queue)
        answers = pipeline.execute()
    failed = [_Failed(run, queue) for queue, members in zip(listened, answers, strict=True) for run in map(_uuid, members) if run]
    return _blamed(observe(redis, failed).values())


def _ask_failed(pipeline: Any, queue: str) -> None:
    pipeline.zrevrange(f"{RQ_KEY_PREFIX}:failed:{queue}", 0, FAILURES_READ - 1)


def _blamed(seen: Iterable[_Seen]) -> frozenset[str]:
    return frozenset(one.worker for one in seen if one.unreadable and one.worker)


def _worker(key: str, fields: Mapping[bytes, bytes], queues: Sequence[str], unreadable: frozenset[str], now: datetime) -> RqWorker:
    told: dict[str, str] = {_text(name): _text(value) for name, value in fields.items()}
    name = key.removeprefix(f"{RQ_KEY_PREFIX}:worker:")
    listens = tuple(queue for queue in told.get("queues", "").split(",") if queue)
    heartbeat_at = _time(told.get("last_heartbeat"))
    return RqWorker(
        name=name,
        queues=listens,
        state=told.get("state", "unknown"),
        hostname=told.get("hostname", ""),
        pid=int(told["pid"]) if told.get("pid", "").isdigit() else None,
        current_run=told.get("current_job") or None,
        started_at=_time(told.get("birth")),
        heartbeat_at=heartbeat_at,
        stopping="shutdown_requested_date" in told,
        rq_version=told.get("version", ""),
        python_version=told.get("python_version", "").split(" ", maxsplit=1)[0],
        problems=tuple(_problems(name in unreadable, listens, queues, heartbeat_at, now)),
    )


def _problems(
    wrong_serializer: bool, listens: Sequence[str], queues: Sequence[str], heartbeat_at: datetime | None, now: datetime
) -> Iterable[WorkerProblem]:
    if wrong_serializer:
        yield WorkerProblem.WRONG_SERIALIZER
    if queues and not set(listens) & set(queues):
        yield WorkerProblem.OTHER_QUEUE
    elif len(listens) > 1:
        yield WorkerProblem.SEVERAL_QUEUES
    if heartbeat_at is not None and (now - heartbeat_at).total_seconds() > SILENT_S:
        yield WorkerProblem.SILENT


def _uuid(member: bytes) -> UUID | None:
    try:
        return UUID(_text(member))
    except ValueError:
        return None


def _time(text: str | None) -> datetime | None:
    try:
        moment = datetime.fromisoformat(text) if text else None
    except ValueError:
        return None
    return moment if moment is None or moment.tzinfo else moment.replace(tzinfo=UTC)


def _text(value: Any) -> str:
    return value.decode(errors="replace") if isinstance(value, bytes) else str(value)
