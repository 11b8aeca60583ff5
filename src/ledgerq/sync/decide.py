"""What the status sync decides about a live run: a published table, and the times that bound it. Pure.

The ledger is the authority and RQ is evidence: about a run that was never started, whether a delivery is still on its way;
about a running one, only why the ledger has become silent about it. So every answer about a running run begins with the
ledger's own silence, and a missing key proves nothing: after FLUSHALL every worker's key is gone and every worker lives.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import Enum
from typing import Final, TypeAlias, cast

from ledgerq.dispatch.observation import Observation, RqStatus
from ledgerq.ledger.outcome_json import storable
from ledgerq.lifecycle import RunStatus
from ledgerq.models import JsonObject, LiveRun, RunTicket, RunVerdict, Verdict

PUSH_GRACE: Final = timedelta(seconds=5)
"""A push may be on its way for so long: ten times our time to connect to Redis."""

PICKUP_GRACE: Final = timedelta(seconds=10)
"""From the first sighting in no list to the verdict. RQ moves an id from its list to a started status in milliseconds."""

START_GRACE: Final = timedelta(seconds=60)
"""From the first sighting as started in RQ to the verdict: the horse may be importing, or waiting for the ledger."""

MISFIRE_HOLD: Final = timedelta(seconds=30)
"""How long a run that RQ ended without starting it keeps its place in the queue's depth, so that a worker that cannot start
any run (no JSON serializer, a failing import) is met at most depth times in half a minute and not in a hot loop."""

SILENT_HEARTBEATS: Final = 2
"""Intervals without a heartbeat after which RQ's word about a running run counts."""


class Rule(Enum):
    """What a cell of the table asks for. Times and identities that a rule still needs are in its sentence."""

    LEAVE = "a delivery is on its way, or at work"
    PUSH_AGAIN = "RQ does not have it: push it again under the same id, once a push cannot be on its way any more"
    UNLISTED = "RQ has it in no list: revoke it after a second sighting; it goes out under a fresh id"
    STARTING = "RQ has started it and the ledger has not: revoke it when that stays so"
    MISFIRED = "RQ ended it without starting it: hold it for a while, then revoke it, and say why"
    TAKEN_BACK = "somebody cancelled it in RQ before it started: revoke it"
    LEASE_ONLY = "RQ knows nothing that counts: only an ended lease permits a verdict"
    DIED = "RQ saw the recorded execution fail: died, if the ledger is silent too; otherwise by the lease"
    STOPPED = "a person stopped it in RQ: stopped, if the ledger is silent too; otherwise by the lease"


Cell: TypeAlias = tuple[Rule, Rule]
"""The rule while the id is in the queue's list, and the rule while it is not."""

ABSENT: Final = None
"""RQ has no hash of that id."""

DISPATCHED: Final[Mapping[RqStatus | None, Cell]] = {
    ABSENT: (Rule.PUSH_AGAIN, Rule.PUSH_AGAIN),
    RqStatus.CREATED: (Rule.LEAVE, Rule.UNLISTED),
    RqStatus.QUEUED: (Rule.LEAVE, Rule.UNLISTED),
    RqStatus.STARTED: (Rule.LEAVE, Rule.STARTING),
    RqStatus.FINISHED: (Rule.LEAVE, Rule.MISFIRED),
    RqStatus.FAILED: (Rule.LEAVE, Rule.MISFIRED),
    RqStatus.STOPPED: (Rule.LEAVE, Rule.MISFIRED),
    RqStatus.CANCELED: (Rule.TAKEN_BACK, Rule.TAKEN_BACK),
    RqStatus.DEFERRED: (Rule.LEAVE, Rule.UNLISTED),
    RqStatus.SCHEDULED: (Rule.LEAVE, Rule.UNLISTED),
    RqStatus.RATE_LIMITED: (Rule.LEAVE, Rule.UNLISTED),
    RqStatus.READY_TO_ENQUEUE: (Rule.LEAVE, Rule.UNLISTED),
}
"""Never started. An id in the list will be delivered, whatever its hash says; start_run admits one delivery."""

RUNNING: Final[Mapping[RqStatus | None, Cell]] = {
    ABSENT: (Rule.LEASE_ONLY, Rule.LEASE_ONLY),
    RqStatus.CREATED: (Rule.LEASE_ONLY, Rule.LEASE_ONLY),
    RqStatus.QUEUED: (Rule.LEASE_ONLY, Rule.LEASE_ONLY),
    RqStatus.STARTED: (Rule.LEASE_ONLY, Rule.LEASE_ONLY),
    RqStatus.FINISHED: (Rule.LEASE_ONLY, Rule.LEASE_ONLY),
    RqStatus.FAILED: (Rule.DIED, Rule.DIED),
    RqStatus.STOPPED: (Rule.STOPPED, Rule.STOPPED),
    RqStatus.CANCELED: (Rule.LEASE_ONLY, Rule.LEASE_ONLY),
    RqStatus.DEFERRED: (Rule.LEASE_ONLY, Rule.LEASE_ONLY),
    RqStatus.SCHEDULED: (Rule.LEASE_ONLY, Rule.LEASE_ONLY),
    RqStatus.RATE_LIMITED: (Rule.LEASE_ONLY, Rule.LEASE_ONLY),
    RqStatus.READY_TO_ENQUEUE: (Rule.LEASE_ONLY, Rule.LEASE_ONLY),
}
"""Started by one delivery. `finished` in RQ never ends a run: only its last acknowledgement does."""

TABLE: Final[Mapping[RunStatus, Mapping[RqStatus | None, Cell]]] = {RunStatus.DISPATCHED: DISPATCHED, RunStatus.RUNNING: RUNNING}


@dataclass(frozen=True, slots=True)
class Leave:
    """Nothing to do now."""

    rule: Rule


@dataclass(frozen=True, slots=True)
class PushAgain:
    """Push the same run once more; the ledger stays as it is."""

    ticket: RunTicket


Decision: TypeAlias = RunVerdict | PushAgain | Leave


def rule_of(run: LiveRun, seen: Observation) -> Rule:
    """The table's cell for that run and what RQ shows of it."""
    listed, unlisted = TABLE[run.status][seen.status]
    return listed if seen.in_list else unlisted


def decide(run: LiveRun, seen: Observation, now: datetime, first_seen: datetime | None = None) -> Decision:
    """The verdict on one live run, or nothing.

    Args:
        run: as the ledger had it when RQ was looked at; its status, step and heartbeat become the verdict's fence.
        seen: what RQ shows of it.
        now: the ledger's clock at that time.
        first_seen: since when the same observer has seen it under the same rule; None at the first sighting.
    """
    rule = rule_of(run, seen)
    if run.status is RunStatus.DISPATCHED:
        return _about_dispatched(run, seen, rule, now, first_seen)
    return _about_running(run, seen, rule, now)


def is_silent(run: LiveRun, now: datetime) -> bool:
    """Whether the ledger has heard nothing of a running run for two heartbeats."""
    heard = run.heartbeat_at or run.started_at or run.created_at
    return now - heard > timedelta(seconds=run.heartbeat_s * SILENT_HEARTBEATS)


def is_questionable(run: LiveRun, now: datetime) -> bool:
    """Whether RQ is worth asking about the run at all: not started though a push has had its time, or silent."""
    return is_silent(run, now) if run.status is RunStatus.RUNNING else now - run.created_at > PUSH_GRACE


def _about_dispatched(run: LiveRun, seen: Observation, rule: Rule, now: datetime, first_seen: datetime | None) -> Decision:
    age = now - run.created_at
    watched = timedelta(0) if first_seen is None else now - first_seen
    if rule is Rule.PUSH_AGAIN and age > PUSH_GRACE:
        return PushAgain(run.ticket)
    due = (
        (rule is Rule.UNLISTED and watched >= PICKUP_GRACE)
        or (rule is Rule.STARTING and watched >= START_GRACE)
        or (rule is Rule.MISFIRED and age > MISFIRE_HOLD)
        or rule is Rule.TAKEN_BACK
    )
    return _verdict(run, Verdict.REVOKE, rule, seen) if due else Leave(rule)


def _about_running(run: LiveRun, seen: Observation, rule: Rule, now: datetime) -> Decision:
    silent = is_silent(run, now)
    if silent and rule is Rule.DIED and run.execution_id is not None and seen.execution_id == run.execution_id:
        return _verdict(run, Verdict.DIED, rule, seen)
    if silent and rule is Rule.STOPPED:
        return _verdict(run, Verdict.STOPPED, rule, seen)
    if run.lease_until is not None and run.lease_until < now:
        return _verdict(run, Verdict.EXPIRED, rule, seen)
    return Leave(rule)


def _verdict(run: LiveRun, verdict: Verdict, rule: Rule, seen: Observation) -> RunVerdict:
    return RunVerdict(
        run=run.run,
        verdict=verdict,
        seen_status=run.status,
        seen_step=run.step,
        seen_heartbeat_at=run.heartbeat_at,
        evidence=_evidence(run, rule, seen),
    )


def _evidence(run: LiveRun, rule: Rule, seen: Observation) -> JsonObject:
    said: JsonObject = {
        "rule": rule.name.lower(),
        "why": rule.value,
        "rq_status": "absent" if seen.status is None else seen.status.value,
        "in_list": seen.in_list,
    }
    named = {"worker": run.worker or seen.worker, "execution_id": seen.execution_id, "rq_error": misfire_reason(seen)}
    # RQ's text is whatever a worker printed: half a character of it would keep the whole batch from the ledger.
    return cast("JsonObject", storable(said | {name: text for name, text in named.items() if text is not None}))


def misfire_reason(seen: Observation) -> str | None:
    """What RQ says went wrong: in words where it is known, otherwise the line of the traceback that names the error."""
    if seen.unreadable:
        return f"worker {seen.worker or 'unknown'} cannot read runs: start it with `-S json -c ledgerq.rq_settings`"
    lines = [line.strip() for line in (seen.exc_info or "").splitlines() if line.strip()]
    return lines[-1][:500] if lines else None
