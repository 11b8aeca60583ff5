"""Pushing runs to RQ: the id of the RQ job is the run's id, its only argument is the run's id."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from functools import cache
from importlib.metadata import version
from typing import Any, Final
from uuid import UUID

from redis import Redis
from rq import Queue
from rq.exceptions import DuplicateJobError
from rq.serializers import JSONSerializer

from ledgerq.dispatch.connection import Breaker, open_pipeline
from ledgerq.dispatch.observation import Observation, Sought, observe
from ledgerq.models import RunTicket

ENTRY_POINT: Final = "ledgerq.worker.execute_run"
"""The one function that RQ calls. Named, not imported: whoever pushes need not have what workers have."""
DEFAULT_RESULT_TTL_S: Final = 86_400.0
WAITING_TTL_S: Final = 7 * 86_400
"""How long the hash of a run that nobody took stays in Redis. It is pushed again when it expires and the run still waits."""
BACKSTOP_S: Final = 960
"""RQ's timeout for a ticket that names none: the default run budget, the default task timeout and a minute."""


class RunQueue:
    """Where runs are pushed to. Holds no connection of its own; safe to share between threads."""

    def __init__(self, redis: Redis, *, result_ttl_s: float = DEFAULT_RESULT_TTL_S, breaker: Breaker | None = None) -> None:
        """`result_ttl_s`: how long RQ keeps the hash of an ended run, failed ones too (RQ's own default is a year)."""
        self._redis = redis
        self._ended_ttl_s = math.ceil(result_ttl_s)
        self._breaker = breaker or Breaker()

    def push(self, tickets: Sequence[RunTicket]) -> None:
        """Push runs whose ids RQ has never seen, all of them in one transaction and one round trip.

        Raises:
            QueueUnavailable: Redis failed. None of the runs was pushed, or all were and the reply was lost: revoke them, since
                a revoked run that does arrive is refused at its start.
        """
        if not tickets:
            return
        with self._breaker.guard(f"take {len(tickets)} runs"), open_pipeline(self._redis, transaction=True) as pipeline:
            for queue, waiting in _by_queue(tickets).items():
                rq_queue = self._queue(queue)
                rq_queue.enqueue_many([rq_queue.prepare_data(**self._job(ticket)) for ticket in waiting], pipeline=pipeline)
            pipeline.execute()

    def push_again(self, ticket: RunTicket) -> None:
        """Push a run that RQ should have and does not. Harmless when it has it after all.

        Raises:
            QueueUnavailable: Redis failed; it is in doubt whether the run was pushed, and harmless to try again.
        """
        job = self._job(ticket)
        with self._breaker.guard(f"take run {ticket.run} again"):
            try:
                self._queue(ticket.queue).enqueue_call(job.pop("func"), unique=True, **job)
            except DuplicateJobError:
                return

    def observe(self, runs: Iterable[Sought]) -> dict[UUID, Observation]:
        """What RQ believes of each run, in one round trip and without side effects.

        Raises:
            QueueUnavailable: Redis failed, so nothing is known.
        """
        with self._breaker.guard("say what it knows of runs"):
            return observe(self._redis, runs)

    def ping(self) -> None:
        """Ask whether Redis answers.

        Raises:
            QueueUnavailable: it does not.
        """
        with self._breaker.guard("answer"):
            self._redis.ping()  # pyright: ignore[reportUnknownMemberType] - redis types its keyword arguments loosely

    def _queue(self, name: str) -> Any:
        """RQ's queue. Its methods are typed in part only."""
        return Queue(name, connection=self._redis, serializer=JSONSerializer)

    def _job(self, ticket: RunTicket) -> dict[str, Any]:
        return {
            "func": ENTRY_POINT,
            "args": (str(ticket.run),),
            "job_id": str(ticket.run),
            "timeout": max(1, math.ceil(ticket.timeout_s or BACKSTOP_S)),
            "ttl": WAITING_TTL_S,
            "result_ttl": self._ended_ttl_s,
            "failure_ttl": self._ended_ttl_s,
            "description": ticket.description or f"{ticket.type}: {ticket.tasks} tasks of {len(ticket.job_ids)} jobs",
            "at_front": ticket.at_front,
            "meta": _meta(ticket),
        }


def _by_queue(tickets: Sequence[RunTicket]) -> Mapping[str, list[RunTicket]]:
    """The tickets of each queue in the order of pushing: each push at the front overtakes the one before it."""
    queues: dict[str, list[RunTicket]] = {}
    for ticket in [*(t for t in tickets if not t.at_front), *reversed([t for t in tickets if t.at_front])]:
        queues.setdefault(ticket.queue, []).append(ticket)
    return queues


def _meta(ticket: RunTicket) -> dict[str, Any]:
    """What a dashboard shows of the run; nothing reads it back."""
    return {"type": ticket.type, "tasks": ticket.tasks, "job_ids": [str(job) for job in ticket.job_ids], "ledgerq": _version()}


@cache
def _version() -> str:
    return version("ledgerq")
