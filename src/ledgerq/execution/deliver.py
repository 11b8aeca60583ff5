"""One delivery from end to end: keeper, connections, runner, and a verdict of our own if the runner itself fails."""

from __future__ import annotations

import sys
from contextlib import suppress

from redis import Redis
from rq.timeouts import BaseTimeoutException

from ledgerq.errors import LedgerqError
from ledgerq.execution.keeper import ForkedKeeper
from ledgerq.execution.parts import Delivery, Keeper, RunLedger, WorkerParts
from ledgerq.execution.runner import Runner, RunReport
from ledgerq.execution.slate import Slate
from ledgerq.logs import get_logger
from ledgerq.models import JsonObject, RunVerdict, Verdict

ACTOR = "horse"

log = get_logger("ledgerq.runner")


def deliver(parts: WorkerParts, delivery: Delivery, redis: Redis) -> RunReport:
    """Work on a run in this process, which must not have opened a connection to the ledger yet.

    Args:
        redis: where runs that the ledger hands back are pushed: the connection that this process has anyway.

    Raises:
        LedgerqError: see `Runner.run`.
        BaseTimeoutException: RQ's timeout of the whole run struck; the verdict is recorded.
    """
    keeper = _keeper(parts, delivery)
    try:
        ledger = (parts.horse_ledger or parts.ledger)()
        try:
            return _run(parts, delivery, ledger, redis, keeper)
        except BaseException as error:
            _confess(ledger, delivery, keeper.slate, error)
            raise
        finally:
            with suppress(Exception):  # the process is about to end; what cannot be closed is closed with it
                ledger.close()
    finally:
        keeper.goodbye()
        _flush_output()


def _keeper(parts: WorkerParts, delivery: Delivery) -> Keeper:
    """The worker's standing keeper, or one of our own where that has died or there never was one."""
    if parts.attend is not None:
        try:
            return parts.attend(delivery)
        except OSError as error:
            log.warning("the standing keeper is gone; forking one", run=delivery.run, cause=f"{type(error).__name__}: {error}")
    return ForkedKeeper.fork(parts, delivery)


def _run(parts: WorkerParts, delivery: Delivery, ledger: RunLedger, redis: Redis, keeper: Keeper) -> RunReport:
    return Runner(
        parts=parts,
        ledger=ledger,
        delivery=delivery,
        slate=keeper.slate,
        push=parts.push_with(ledger, redis),
        keeper_alive=keeper.is_alive,
    ).run()


def _confess(ledger: RunLedger, delivery: Delivery, slate: Slate, error: BaseException) -> None:
    """The runner failed: say so at once, as a witness, instead of letting others find out. Refused if the run never started."""
    at_work = slate.at_work()
    timed_out = isinstance(error, BaseTimeoutException) and bool(at_work)
    evidence: JsonObject = {
        "witness": ACTOR,
        "error": f"{type(error).__name__}: {error}"[:500],
        "tasks_at_work": [one.task for one in at_work[:20]],
    }
    verdict = RunVerdict(
        run=delivery.run,
        delivery=delivery.id,
        verdict=Verdict.TIMEOUT if timed_out else Verdict.DIED,
        culprit=at_work[0].task if timed_out else None,
        evidence=evidence,
    )
    try:
        ledger.reconcile_runs([verdict], actor=ACTOR)
    except LedgerqError as failure:
        log.warning("the end of the run could not be reported", run=delivery.run, cause=str(failure))


def _flush_output() -> None:
    """RQ ends a horse without flushing, so what handlers printed would be lost."""
    for stream in (sys.stdout, sys.stderr):
        with suppress(Exception):  # a handler may have closed or replaced it
            stream.flush()
