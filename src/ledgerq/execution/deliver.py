"""One delivery from end to end: keeper, connections, runner, and a verdict of our own if the runner itself fails."""

from __future__ import annotations

import sys
from contextlib import suppress
from typing import cast

from redis import Redis
from rq.timeouts import BaseTimeoutException

from ledgerq.errors import LedgerqError
from ledgerq.execution.keeper import ForkedKeeper
from ledgerq.execution.parts import Delivery, Keeper, Push, RunLedger, WorkerParts
from ledgerq.execution.runner import Runner, RunReport
from ledgerq.ledger.outcome_json import storable
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
    last_word: RunVerdict | None = None
    try:
        ledger = (parts.horse_ledger or parts.ledger)()
        try:
            return _run(parts, delivery, ledger, redis, keeper)
        except LedgerqError:
            raise  # the ledger's own trouble is no task's: should the run have started after all, its lease tells
        except BaseException as error:
            confession = _confession(delivery, keeper, error)
            if not _is_recorded(confession, ledger, parts.push_with(ledger, redis)):
                last_word = confession
            raise
        finally:
            with suppress(Exception):  # the process is about to end; what cannot be closed is closed with it
                ledger.close()
    finally:
        keeper.goodbye(last_word)
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


def _confession(delivery: Delivery, keeper: Keeper, error: BaseException) -> RunVerdict:
    """The runner failed: to be said at once, as a witness, instead of letting others find out. Refused if the run never started."""
    at_work = keeper.slate.at_work()
    timed_out = isinstance(error, BaseTimeoutException) and bool(at_work)
    evidence = {"witness": ACTOR, "error": _said_by(error), "tasks_at_work": [one.task for one in at_work[:20]]}
    return RunVerdict(
        run=delivery.run,
        delivery=delivery.id,
        verdict=Verdict.TIMEOUT if timed_out else Verdict.DIED,
        culprit=at_work[0].task if timed_out else None,
        evidence=cast("JsonObject", storable(evidence)),
    )


def _is_recorded(confession: RunVerdict, ledger: RunLedger, push: Push) -> bool:
    try:
        answer = ledger.reconcile_runs([confession], actor=ACTOR)
    except Exception as failure:  # noqa: BLE001 - whatever it is, it must not stand before what the runner failed with
        log.warning("left to the keeper to report", run=confession.run, cause=f"{type(failure).__name__}: {failure}")
        return False
    with suppress(Exception):  # what is not pushed is pushed by the status sync
        push(answer.to_push)
    return True


def _said_by(error: BaseException) -> str:
    try:
        return f"{type(error).__name__}: {error}"[:500]
    except Exception:  # noqa: BLE001 - an exception whose own text raises
        return type(error).__name__


def _flush_output() -> None:
    """RQ ends a horse without flushing, so what handlers printed would be lost."""
    for stream in (sys.stdout, sys.stderr):
        with suppress(Exception):  # a handler may have closed or replaced it
            stream.flush()
