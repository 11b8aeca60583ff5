"""This start of a run, as RQ's job in this process tells it."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final, cast
from uuid import UUID, uuid4, uuid5

from redis.exceptions import RedisError
from rq.defaults import RQ_KEY_PREFIX
from rq.executions import ExecutionRegistry

from ledgerq.dispatch.connection import Breaker
from ledgerq.errors import QueueUnavailable
from ledgerq.execution.parts import Delivery
from ledgerq.logs import get_logger

if TYPE_CHECKING:
    from redis import Redis
    from rq.job import Job

UNASKED_S: Final = 30.0
"""How long a Redis that did not answer is not asked again whether to stop: its silence would cost each task two seconds."""

log = get_logger("ledgerq.runner")


def delivery_of(run: UUID, job: Job | None, redis: Redis) -> Delivery:
    """The delivery for a job that RQ performs here; None: somebody calls the entry point without RQ.

    Args:
        redis: a client with little patience, for the little that is asked here. RQ's own waits for minutes.
    """
    worker = (None if job is None else job.worker_name) or f"pid-{os.getpid()}"
    execution = None if job is None else _execution_of(job.id, worker, redis)
    timeout = None if job is None else job.timeout
    return Delivery(
        run=run,
        id=uuid4() if execution is None else delivery_id(run, execution),
        worker=worker,
        execution_id=execution,
        host=socket.gethostname(),
        pid=os.getpid(),
        budget_s=float(timeout) if timeout and timeout > 0 else None,
        stop_wanted=_never if job is None else _shutdown_requested(redis, worker),
    )


def delivery_id(run: UUID, execution: str) -> UUID:
    """One per execution of RQ, which is one per pop from its list. Made from it, so that a worker can name its horse's."""
    return uuid5(run, execution)


def _execution_of(job_id: str, worker: str, redis: Redis) -> str | None:
    """The execution that RQ registered for this start; None when Redis does not say, so that only the keeper can tell of a death.
    Only a duplicate delivery makes it look at several."""
    registry = ExecutionRegistry(job_id, redis)
    try:
        # Read directly: RQ's own method writes to the registry first.
        ids = cast("list[bytes]", cast("Any", redis).zrange(registry.key, 0, -1))
        if len(ids) < 2:
            return ids[0].decode() if ids else None
        executions = cast("list[Any]", registry.get_executions())
    except (RedisError, OSError, ValueError) as error:  # the last one: an execution ended while we looked
        log.warning("the execution is not known", run=job_id, cause=f"{type(error).__name__}: {error}")
        return None
    mine = [execution for execution in executions if execution.worker_name == worker] or executions
    newest = max(mine, key=lambda execution: execution.created_at, default=None)
    return None if newest is None else str(newest.id)


def _shutdown_requested(redis: Redis, worker: str) -> Callable[[], bool]:
    """A warm shutdown waits for the horse, which RQ does not tell; but its parent writes it down."""

    breaker = Breaker(open_s=UNASKED_S)

    def asked() -> bool:
        try:
            with breaker.guard("say whether to stop"):
                return bool(redis.hexists(f"{RQ_KEY_PREFIX}:worker:{worker}", "shutdown_requested_date"))
        except QueueUnavailable:  # then nobody can have asked through it
            return False

    return asked


def _never() -> bool:
    return False
