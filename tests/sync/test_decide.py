"""Every cell of the published table, and the times that bound its rules."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from uuid import UUID

import pytest

from ledgerq.dispatch.observation import Observation, RqStatus
from ledgerq.lifecycle import RunStatus
from ledgerq.models import LiveRun, RunTicket, RunVerdict, Verdict
from ledgerq.sync.decide import (
    ABSENT,
    MISFIRE_HOLD,
    PICKUP_GRACE,
    PUSH_GRACE,
    START_GRACE,
    TABLE,
    Decision,
    Leave,
    PushAgain,
    Rule,
    decide,
    is_questionable,
)

NOW = datetime(2026, 11, 22, 12, tzinfo=UTC)
RUN = UUID(int=1)
TICKET = RunTicket(run=RUN, queue="processing", type="noop")
STATUSES = (*RqStatus, ABSENT)
MOMENT = timedelta(milliseconds=1)
LONG = timedelta(hours=1)


def dispatched(*, age: timedelta = LONG) -> LiveRun:
    return LiveRun(run=RUN, queue="processing", status=RunStatus.DISPATCHED, created_at=NOW - age, ticket=TICKET)


def running(*, heard: timedelta = timedelta(), lease_left: timedelta = timedelta(seconds=20), execution: str | None = "e1") -> LiveRun:
    return LiveRun(
        run=RUN,
        queue="processing",
        status=RunStatus.RUNNING,
        step=4,
        worker="w",
        execution_id=execution,
        created_at=NOW - LONG,
        started_at=NOW - LONG,
        heartbeat_at=NOW - heard,
        lease_until=NOW + lease_left,
        ticket=TICKET,
    )


def seen(status: RqStatus | None, *, in_list: bool = False, failed: str | None = None) -> Observation:
    return Observation(status=status, in_list=in_list, execution_id=failed)


def name(decision: Decision) -> str:
    match decision:
        case RunVerdict():
            return decision.verdict.value
        case PushAgain():
            return "push_again"
        case Leave():
            return "leave"


def test_the_table_has_a_cell_for_everything_that_can_be_seen() -> None:
    assert set(TABLE) == {status for status in RunStatus if status.is_live}
    assert all(set(cells) == set(STATUSES) for cells in TABLE.values())


# what is decided in the end, when a dispatched run has been seen like that for an hour: (in the list, in none)
NEVER_STARTED = {
    ABSENT: ("push_again", "push_again"),
    RqStatus.CREATED: ("leave", "revoke"),
    RqStatus.QUEUED: ("leave", "revoke"),
    RqStatus.STARTED: ("leave", "revoke"),
    RqStatus.FINISHED: ("leave", "revoke"),
    RqStatus.FAILED: ("leave", "revoke"),
    RqStatus.STOPPED: ("leave", "revoke"),
    RqStatus.CANCELED: ("revoke", "revoke"),
    RqStatus.DEFERRED: ("leave", "revoke"),
    RqStatus.SCHEDULED: ("leave", "revoke"),
    RqStatus.RATE_LIMITED: ("leave", "revoke"),
    RqStatus.READY_TO_ENQUEUE: ("leave", "revoke"),
}


@pytest.mark.parametrize("status", STATUSES)
@pytest.mark.parametrize("in_list", [True, False])
def test_a_run_that_nobody_started(status: RqStatus | None, in_list: bool) -> None:
    decision = decide(dispatched(), seen(status, in_list=in_list), NOW, first_seen=NOW - LONG)
    assert name(decision) == NEVER_STARTED[status][0 if in_list else 1]


@pytest.mark.parametrize("status", STATUSES)
@pytest.mark.parametrize("in_list", [True, False])
def test_a_run_is_left_alone_while_the_ledger_hears_of_it(status: RqStatus | None, in_list: bool) -> None:
    decision = decide(running(heard=timedelta(seconds=10)), seen(status, in_list=in_list, failed="e1"), NOW, first_seen=NOW - LONG)
    assert name(decision) == "leave"


# what RQ's word adds when the ledger is silent too
SILENT: dict[RqStatus | None, str] = {RqStatus.FAILED: "died", RqStatus.STOPPED: "stopped"}


@pytest.mark.parametrize("status", STATUSES)
@pytest.mark.parametrize("in_list", [True, False])
def test_only_failed_and_stopped_say_anything_about_a_silent_run(status: RqStatus | None, in_list: bool) -> None:
    decision = decide(running(heard=timedelta(seconds=11)), seen(status, in_list=in_list, failed="e1"), NOW)
    assert name(decision) == SILENT.get(status, "leave")


@pytest.mark.parametrize("status", STATUSES)
@pytest.mark.parametrize("in_list", [True, False])
def test_an_ended_lease_permits_a_verdict_whatever_rq_says(status: RqStatus | None, in_list: bool) -> None:
    run = running(heard=timedelta(seconds=30), lease_left=-MOMENT)
    decision = decide(run, seen(status, in_list=in_list, failed="e1"), NOW)
    assert name(decision) == SILENT.get(status, "expired")


@pytest.mark.parametrize(("recorded", "failed"), [("e1", "e2"), ("e1", None), (None, None), (None, "e1")])
def test_a_failure_of_another_execution_kills_nobody(recorded: str | None, failed: str | None) -> None:
    run = running(heard=timedelta(seconds=11), execution=recorded)
    assert name(decide(run, seen(RqStatus.FAILED, failed=failed), NOW)) == "leave"


@pytest.mark.parametrize("in_list", [True, False])
def test_a_push_gets_its_time(in_list: bool) -> None:
    absent = seen(ABSENT, in_list=in_list)
    assert name(decide(dispatched(age=PUSH_GRACE), absent, NOW)) == "leave"
    assert decide(dispatched(age=PUSH_GRACE + MOMENT), absent, NOW) == PushAgain(TICKET)


@pytest.mark.parametrize(("status", "grace"), [(RqStatus.QUEUED, PICKUP_GRACE), (RqStatus.STARTED, START_GRACE)])
def test_a_doubtful_state_must_last(status: RqStatus, grace: timedelta) -> None:
    assert name(decide(dispatched(), seen(status), NOW)) == "leave", "a first sighting proves nothing"
    assert name(decide(dispatched(), seen(status), NOW, first_seen=NOW - grace + MOMENT)) == "leave"
    assert name(decide(dispatched(), seen(status), NOW, first_seen=NOW - grace)) == "revoke"


@pytest.mark.parametrize("status", [RqStatus.FAILED, RqStatus.FINISHED, RqStatus.STOPPED])
def test_a_misfire_keeps_its_place_for_a_while(status: RqStatus) -> None:
    """So a worker that cannot start anything is met depth times in half a minute, not in a hot loop."""
    assert decide(dispatched(age=MISFIRE_HOLD), seen(status), NOW) == Leave(Rule.MISFIRED)
    assert name(decide(dispatched(age=MISFIRE_HOLD + MOMENT), seen(status), NOW)) == "revoke"


def test_a_misfire_is_named() -> None:
    unreadable = Observation(
        status=RqStatus.FAILED, in_list=False, worker="w7", exc_info="Traceback …\nrq.exceptions.DeserializationError: no"
    )
    verdict = decide(dispatched(), unreadable, NOW)
    assert isinstance(verdict, RunVerdict)
    assert verdict.evidence["rq_error"] == "worker w7 cannot read runs: start it with `-S json -c ledgerq.rq_settings`"
    broken = replace(unreadable, exc_info="Traceback\n  File …\nModuleNotFoundError: No module named 'app'\n")
    verdict = decide(dispatched(), broken, NOW)
    assert isinstance(verdict, RunVerdict)
    assert verdict.evidence["rq_error"] == "ModuleNotFoundError: No module named 'app'"


def test_what_rq_says_is_cleaned_for_the_ledger() -> None:
    odd = Observation(status=RqStatus.FAILED, in_list=False, worker="w\x00", exc_info="ValueError: \x00 and \ud800")
    verdict = decide(dispatched(), odd, NOW)
    assert isinstance(verdict, RunVerdict)
    assert verdict.evidence["rq_error"] == "ValueError: \ufffd and \ufffd"
    assert verdict.evidence["worker"] == "w\ufffd"


def test_a_verdict_carries_the_fence_it_was_reached_under() -> None:
    run = running(heard=timedelta(seconds=30), lease_left=-MOMENT)
    verdict = decide(run, seen(ABSENT), NOW)
    assert isinstance(verdict, RunVerdict)
    assert (verdict.verdict, verdict.seen_status, verdict.seen_step, verdict.seen_heartbeat_at, verdict.delivery) == (
        Verdict.EXPIRED,
        RunStatus.RUNNING,
        4,
        NOW - timedelta(seconds=30),
        None,
    )
    assert verdict.evidence["rq_status"] == "absent"
    assert verdict.evidence["worker"] == "w"


@pytest.mark.parametrize(
    ("run", "asked"),
    [
        (dispatched(age=PUSH_GRACE), False),
        (dispatched(age=PUSH_GRACE + MOMENT), True),
        (running(heard=timedelta(seconds=10)), False),
        (running(heard=timedelta(seconds=10) + MOMENT), True),
    ],
)
def test_rq_is_only_asked_about_what_is_questionable(run: LiveRun, asked: bool) -> None:
    assert is_questionable(run, NOW) is asked
