"""The one function that RQ calls, and what it needs before the fork."""

from __future__ import annotations

import gc
import os
import socket
from collections.abc import Callable
from functools import cache
from typing import TYPE_CHECKING, Any, Final, cast
from uuid import UUID, uuid4, uuid5

from rq import get_current_job
from rq.defaults import RQ_KEY_PREFIX

from ledgerq.errors import InvalidInput
from ledgerq.execution.deliver import deliver
from ledgerq.execution.parts import Delivery, WorkerParts
from ledgerq.logs import configure_logging
from ledgerq.settings import Settings

if TYPE_CHECKING:
    from redis import Redis
    from rq.job import Job


def execute_run(run_id: str) -> None:
    """Work on a run: what RQ calls with the run's id, in a horse of `rq worker -S json -c ledgerq.rq_settings <queue>`.

    A delivery that the ledger refuses (a duplicate, a revoked run, a paused queue) returns quietly: if it raised, RQ would call
    the living delivery's job failed.

    Raises:
        InvalidInput: that is no run's id.
        LedgerqError: see `ledgerq.execution.runner.Runner.run`.
    """
    parts = worker_parts()
    job = get_current_job()
    delivery = delivery_of(_parsed(run_id), job)
    deliver(parts, delivery, parts.redis() if job is None else job.connection)


@cache
def worker_parts() -> WorkerParts:
    """Built once per process from the environment; a horse finds what its parent built before the fork."""
    from ledgerq.assembly import worker_parts as assemble

    settings = Settings()
    configure_logging(settings.log_level, settings.log_format)
    return assemble(settings)


def preload() -> WorkerParts:
    """Do before the fork what every horse would do after it: import, read settings, load the handlers.

    Raises:
        ConfigurationError: the settings, or the registry that `LEDGERQ_APP` names, cannot be used.
    """
    from importlib import import_module

    for module in PRELOADED:
        import_module(module)
    parts = worker_parts()
    parts.handlers.check()
    gc.collect()
    gc.freeze()  # so that the collector of a horse does not write to the pages that it shares with its parent
    return parts


PRELOADED: Final = ("ledgerq.ledger.postgres", "ledgerq.execution.deliver", "ledgerq.dispatch.dispatcher", "encodings.idna")


def delivery_of(run: UUID, job: Job | None) -> Delivery:
    """This start of the run. Its id is made from RQ's execution, so that the worker's parent can name it as well."""
    worker = (None if job is None else job.worker_name) or f"pid-{os.getpid()}"
    execution = None if job is None else _execution_of(job, worker)
    timeout = None if job is None else job.timeout
    return Delivery(
        run=run,
        id=uuid4() if execution is None else delivery_id(run, execution),
        worker=worker,
        execution_id=execution,
        host=socket.gethostname(),
        pid=os.getpid(),
        budget_s=float(timeout) if timeout and timeout > 0 else None,
        stop_wanted=_shutdown_requested(job, worker),
    )


def delivery_id(run: UUID, execution: str) -> UUID:
    """One per execution of RQ, which is one per pop from the list."""
    return uuid5(run, execution)


def _execution_of(job: Job, worker: str) -> str | None:
    """The execution that RQ registered for this start: the newest one of this worker."""
    executions = cast("list[Any]", job.get_executions())
    mine = [execution for execution in executions if execution.worker_name == worker] or executions
    newest = max(mine, key=lambda execution: execution.created_at, default=None)
    return None if newest is None else str(newest.id)


def _shutdown_requested(job: Job | None, worker: str) -> Callable[[], bool]:
    """A warm shutdown waits for the horse, which RQ does not tell; but its parent writes it down."""
    if job is None:
        return lambda: False
    redis: Redis = job.connection

    def asked() -> bool:
        try:
            return bool(redis.hexists(f"{RQ_KEY_PREFIX}:worker:{worker}", "shutdown_requested_date"))
        except Exception:  # noqa: BLE001 - Redis is away: then nobody asked
            return False

    return asked


def _parsed(run_id: str) -> UUID:
    try:
        return UUID(run_id)
    except (ValueError, AttributeError, TypeError) as error:
        raise InvalidInput(f"{run_id!r} is no id of a run; execute_run is called by RQ alone") from error
