"""RQ's forking worker with three things more: it runs nothing but our entry point, it reports its horse's death itself, and it
has a steward beside it."""

from __future__ import annotations

from contextlib import closing, suppress
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final, cast
from uuid import UUID

from redis import Redis
from rq.exceptions import DeserializationError
from rq.serializers import JSONSerializer
from rq.worker import Worker
from rq.worker.base import WorkerStatus

from ledgerq.dispatch.connection import Breaker, impatient, unreadable_url
from ledgerq.dispatch.run_queue import ENTRY_POINT
from ledgerq.errors import LedgerqError
from ledgerq.execution.delivery import delivery_id
from ledgerq.execution.parts import WorkerParts
from ledgerq.execution.preload import preload
from ledgerq.execution.process import ending_of
from ledgerq.execution.steward_child import MakeSteward, StewardChild
from ledgerq.logs import get_logger
from ledgerq.models import JsonObject, RunVerdict, Verdict
from ledgerq.settings import Settings

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rq import Queue
    from rq.executions import Execution
    from rq.job import Job

ACTOR: Final = "worker"
WORKER_TTL_S: Final = 75
"""An idle worker wakes up every minute (RQ: this less 15 s) and looks after its steward; RQ's own default is seven minutes."""

log = get_logger("ledgerq.worker")


def open_worker(
    settings: Settings, parts: WorkerParts, *, queue: str | None = None, name: str | None = None, steward: MakeSteward | None = None
) -> LedgerqWorker:
    """A worker of one queue with everything loaded; `work(burst=…)` starts it.

    Raises:
        ConfigurationError: a handler wants something that nobody provides, or the address of Redis cannot be read.
        QueueUnavailable: Redis does not answer now. It may go away later: a worker that has begun waits for it.
    """
    try:
        # RQ's own client settings: a worker waits for a Redis that is away, and changes the timeouts of its client.
        connection = cast("Redis", _untyped(Redis).from_url(settings.redis_dsn))
    except ValueError:
        raise unreadable_url() from None
    _ask_once(connection)  # before anything is forked, which would be left behind
    return LedgerqWorker([queue or settings.queue], connection=connection, parts=preload(parts), steward=steward, name=name)


class LedgerqWorker(Worker):
    """What `ledgerq worker` runs. Serialises as JSON whatever it is told."""

    def __init__(
        self,
        queues: Sequence[str],
        *,
        connection: Redis,
        parts: WorkerParts,
        steward: MakeSteward | None = None,
        **options: Any,
    ) -> None:
        """`steward` opens the one that runs beside the worker, in a process of its own."""
        options = {"worker_ttl": WORKER_TTL_S, **options, "serializer": JSONSerializer}
        _untyped(super()).__init__(list(queues), connection=connection, **options)
        self._parts = parts
        self._steward = None if steward is None else StewardChild(steward)
        self._monitored = ""

    def work(self, *args: Any, **options: Any) -> bool:
        """RQ's loop, with the steward beside it from the first to the last moment."""
        self._look_after_steward()
        try:
            return super().work(*args, **options)
        finally:
            if self._steward is not None:
                self._steward.stop()

    def heartbeat(self, *args: Any, **options: Any) -> None:
        """RQ's heartbeat: before and after each job, and at least every minute when idle."""
        super().heartbeat(*args, **options)
        self._look_after_steward()

    def execute_job(self, job: Job, queue: Queue) -> None:
        """Fork a horse for it, if it is one of ours. Anything else fails here, before anything of it is imported."""
        refusal = _refusal(job)
        if refusal is None:
            super().execute_job(job, queue)
            return
        log.warning("job refused", rq_job=job.id, why=refusal)
        self._refuse(job, queue, refusal)

    def monitor_work_horse(self, job: Job, queue: Queue, execution: Execution) -> None:
        """RQ forgets the execution before it reports the death of its horse."""
        self._monitored = execution.id
        super().monitor_work_horse(job, queue, execution)

    def handle_work_horse_killed(self, job: Job, retpid: int | None, ret_val: int | None, rusage: Any) -> None:
        """RQ reaped a horse that did not end by itself: tell the ledger, with the signal and what it had used.

        The keeper saw the same death. Whoever is first counts, and one of them may have been killed with the horse. Only of a
        horse that the keeper killed itself it knows more: why, and whose fault it was.
        """
        _untyped(super()).handle_work_horse_killed(job, retpid, ret_val, rusage)
        evidence: JsonObject = {"witness": ACTOR, "horse_pid": retpid, **ending_of(ret_val), **_used(rusage)}
        try:
            run = UUID(job.id)
            delivery = delivery_id(run, self._monitored)
            if self._parts.killed is not None and self._parts.killed.names(delivery):
                log.info("the keeper reports why it killed the horse", run=run)
                return
            self._report(RunVerdict(run=run, verdict=Verdict.DIED, delivery=delivery, evidence=evidence))
        except (LedgerqError, ValueError) as error:
            log.warning("the horse's death could not be reported", run=job.id, cause=str(error))

    def _report(self, verdict: RunVerdict) -> None:
        """Over connections that are closed again at once: the next horse must not inherit any."""
        with closing(self._parts.ledger()) as ledger:
            answer = ledger.reconcile_runs([verdict], actor=ACTOR)
            log.info("death reported", run=verdict.run, disposition=answer.runs[0].disposition)
            if answer.to_push:
                with closing(self._parts.redis()) as redis:
                    self._parts.push_with(ledger, redis)(answer.to_push)

    def _refuse(self, job: Job, queue: Queue, refusal: str) -> None:
        execution = self.prepare_execution(job)
        self.connection.lrem(queue.intermediate_queue_key, 1, job.id)
        job.started_at = job.ended_at = datetime.now(UTC)
        _untyped(self).handle_job_failure(job, queue=queue, exc_string=refusal, execution=execution)
        self.executions.pop(execution.id, None)
        self.set_state(WorkerStatus.IDLE)

    def _look_after_steward(self) -> None:
        if self._steward is not None and not self.is_horse:
            self._steward.ensure()


def _ask_once(connection: Redis) -> None:
    """See that Redis answers now, over a connection of which no process that is forked afterwards inherits anything.

    Raises:
        QueueUnavailable: it does not.
    """
    client = _untyped(impatient(connection))
    try:
        with Breaker().guard("answer"):
            client.ping()
    finally:
        client.connection_pool.disconnect()


def _untyped(thing: object) -> Any:
    """Where RQ's own annotations are incomplete."""
    return thing


def _refusal(job: Job) -> str | None:
    """Why this worker does not run the job; None for a run of ours."""
    try:
        function = cast("str", job.func_name)
    except DeserializationError:
        return "refused: its data is not JSON; ledgerq workers read no pickles"
    callbacks = [job._success_callback_name, job._failure_callback_name, job._stopped_callback_name]  # noqa: SLF001  # pyright: ignore[reportPrivateUsage] - the public properties import them
    if function != ENTRY_POINT or any(callbacks):
        return (
            f"refused: ledgerq workers run {ENTRY_POINT} and nothing else, not {function!r} or callbacks; use another queue for other jobs"
        )
    return None


def _used(rusage: Any) -> JsonObject:
    """From RQ's `struct_rusage` of the horse and what it waited for."""
    with suppress(AttributeError, TypeError):
        return {
            "peak_bytes": int(rusage.ru_maxrss) * 1024,
            "cpu_s": round(float(rusage.ru_utime) + float(rusage.ru_stime), 3),
        }
    return {}
