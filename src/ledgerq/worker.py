"""The one function that RQ calls."""

from __future__ import annotations

from functools import cache
from uuid import UUID

from rq import get_current_job

from ledgerq.dispatch.connection import impatient
from ledgerq.errors import InvalidInput
from ledgerq.execution.deliver import deliver
from ledgerq.execution.delivery import delivery_of
from ledgerq.execution.parts import WorkerParts
from ledgerq.execution.preload import preloaded
from ledgerq.logs import configure_logging
from ledgerq.settings import Settings


def execute_run(run_id: str) -> None:
    """Work on a run: what RQ calls with the run's id, in a horse of `rq worker -S json -c ledgerq.rq_settings <queue>`.

    A delivery that the ledger refuses (a duplicate, a revoked run, a paused queue) returns quietly: if it raised, RQ would call
    the living delivery's job failed.

    Raises:
        InvalidInput: that is no run's id.
        ConfigurationError: the settings, or the registry that `LEDGERQ_APP` names, cannot be used.
        LedgerqError: see `ledgerq.execution.runner.Runner.run`.
    """
    run = _parsed(run_id)
    parts = preloaded() or parts_from_environment()
    job = get_current_job()
    redis = parts.redis() if job is None else impatient(job.connection)
    deliver(parts, delivery_of(run, job, redis), redis)


@cache
def parts_from_environment() -> WorkerParts:
    """Built once in a process: in the worker before it forks (`rq_settings`), or in a horse whose worker did not.

    Raises:
        ConfigurationError: the settings, or the registry that `LEDGERQ_APP` names, cannot be used.
    """
    from ledgerq.assembly import worker_parts

    settings = Settings()
    configure_logging(settings.log_level, settings.log_format)
    return worker_parts(settings)


def _parsed(run_id: str) -> UUID:
    try:
        return UUID(run_id)
    except (ValueError, AttributeError, TypeError) as error:
        raise InvalidInput(f"{run_id!r} is no id of a run; execute_run is called by RQ alone") from error
