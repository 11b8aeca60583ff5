# ruff: noqa: E501 - exact text of migrations
"""Protections of the ledger's SQL, each with how to take it away and the test that must notice.

A mutation is exact text of a migration. When the SQL changes and the text is not found (or not as often as said), applying
it fails: a mutation that changes nothing would prove nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Final

from ledgerq.ledger.migration_files import Migration


class MutationOutdated(Exception):
    """The text that a mutation wants to change is not there (so often)."""


@dataclass(frozen=True, slots=True)
class Edit:
    """`old` becomes `new` in the migration of that name, wherever it occurs, which must be `times` times."""

    migration: str
    old: str
    new: str
    times: int = 1


@dataclass(frozen=True, slots=True)
class Mutation:
    """One protection taken away: all of its edits together, because some protections are held twice."""

    name: str
    removes: str
    edits: tuple[Edit, ...]
    noticed_by: str
    """The test (`file::name` below `tests/`) that is tried first."""
    fast: bool = False
    """Part of the small set that runs with every test run."""


def applied(mutation: Mutation, migrations: Sequence[Migration]) -> tuple[Migration, ...]:
    """The migrations with that protection taken away.

    Raises:
        MutationOutdated: an edit does not fit the SQL as it is now.
    """
    changed = {migration.name: migration for migration in migrations}
    for edit in mutation.edits:
        if edit.migration not in changed:
            raise MutationOutdated(f"{mutation.name}: there is no migration {edit.migration!r}")
        found = changed[edit.migration]
        if (times := found.script.count(edit.old)) != edit.times:
            raise MutationOutdated(f"{mutation.name}: {edit.old!r} occurs {times} times in {edit.migration}, not {edit.times}")
        changed[edit.migration] = replace(found, script=found.script.replace(edit.old, edit.new))
    return tuple(changed[migration.name] for migration in migrations)


INTERLEAVINGS = "stress/test_interleavings.py"
FENCES = "stress/test_fences.py"

MUTATIONS: Final[tuple[Mutation, ...]] = (
    # --- start_run
    Mutation(
        "start-admits-a-second-delivery",
        "a run admits one delivery in its life",
        (
            Edit("start", "  if r.status <> 'dispatched' then\n    return '{\"disposition\": \"superseded\"}';\n  end if;\n", ""),
            Edit("start", "  where x.id = r.id and x.status = 'dispatched';", "  where x.id = r.id;"),
        ),
        f"{FENCES}::test_a_run_admits_one_delivery",
        fast=True,
    ),
    Mutation(
        "start-repeats-for-anyone",
        "a repeated start is answered only to the delivery that made it",
        (Edit("start", "if r.status = 'running' and r.delivery = v_delivery then", "if r.status = 'running' then"),),
        f"{FENCES}::test_a_run_admits_one_delivery",
    ),
    Mutation(
        "start-does-not-repeat",
        "a start whose reply was lost is answered again",
        (Edit("start", "if r.status = 'running' and r.delivery = v_delivery then", "if false then"),),
        f"{FENCES}::test_a_lost_start_is_answered_again",
    ),
    Mutation(
        "start-without-the-run-lock",
        "two starts of one run take turns",
        (
            Edit(
                "start",
                "select * into r from ledgerq.run x where x.id = v_id for no key update;",
                "select * into r from ledgerq.run x where x.id = v_id;",
            ),
        ),
        f"{INTERLEAVINGS}::test_two_deliveries_start_at_once",
        fast=True,
    ),
    Mutation(
        "start-of-a-paused-queue",
        "nothing of a paused queue starts",
        (Edit("start", "  if q.paused_at is not null then", "  if false then"),),
        f"{FENCES}::test_a_paused_queue_starts_nothing",
    ),
    Mutation(
        "hand-out-without-the-job-locks",
        "tasks are handed out under the locks of their jobs",
        (Edit("start", "  perform ledgerq._lock_jobs(ledgerq._jobs_between(r.id, 0, v_to));\n", ""),),
        f"{INTERLEAVINGS}::test_a_start_meets_a_cancel",
    ),
    # --- advance_run
    Mutation(
        "advance-by-a-stranger",
        "only the delivery that owns a run advances it",
        (
            Edit(
                "advance",
                "if p_run.delivery is distinct from p_delivery or p_run.status in ('lost', 'revoked') then",
                "if p_run.status in ('lost', 'revoked') then",
            ),
        ),
        f"{FENCES}::test_a_stranger_changes_nothing",
        fast=True,
    ),
    Mutation(
        "advance-of-a-lost-run",
        "a run that was taken away is not advanced, not even by a repeated call",
        (
            Edit(
                "advance",
                "if p_run.delivery is distinct from p_delivery or p_run.status in ('lost', 'revoked') then",
                "if p_run.delivery is distinct from p_delivery then",
            ),
        ),
        f"{FENCES}::test_a_zombie_changes_nothing",
    ),
    Mutation(
        "advance-of-an-ended-run",
        "nothing is applied to a run that is not running",
        (
            Edit(
                "advance",
                "if p_run.delivery is distinct from p_delivery or p_run.status in ('lost', 'revoked') then",
                "if p_run.delivery is distinct from p_delivery then",
            ),
            Edit("advance", "if p_step < p_run.step or p_run.status <> 'running' then", "if p_step < p_run.step then"),
        ),
        f"{FENCES}::test_a_zombie_changes_nothing",
    ),
    Mutation(
        "advance-of-a-finished-run",
        "a finished run is not advanced",
        (Edit("advance", "if p_step < p_run.step or p_run.status <> 'running' then", "if p_step < p_run.step then"),),
        f"{FENCES}::test_a_finished_run_goes_no_further",
    ),
    Mutation(
        "advance-does-not-repeat",
        "an acknowledgement whose reply was lost is answered again",
        (Edit("advance", "  if p_step = p_run.step - 1 then", "  if false then"),),
        f"{FENCES}::test_a_lost_acknowledgement_is_answered_again",
    ),
    Mutation(
        "advance-by-an-old-step",
        "a call from before the last one changes nothing",
        (Edit("advance", "if p_step < p_run.step or p_run.status <> 'running' then", "if p_run.status <> 'running' then"),),
        f"{FENCES}::test_an_old_step_changes_nothing",
    ),
    Mutation(
        "advance-by-a-future-step",
        "a step that was never answered is a mistake",
        (Edit("advance", "  if p_step > p_run.step then", "  if false then"),),
        f"{FENCES}::test_a_step_from_the_future_is_a_mistake",
    ),
    Mutation(
        "advance-without-the-run-lock",
        "two advances of one run take turns",
        (
            Edit(
                "advance",
                "select * into r from ledgerq.run x where x.id = v_id for no key update;",
                "select * into r from ledgerq.run x where x.id = v_id;",
            ),
        ),
        f"{INTERLEAVINGS}::test_the_same_acknowledgement_twice_at_once",
        fast=True,
    ),
    Mutation(
        "advance-without-the-job-locks",
        "counters are added under the job's lock",
        (
            Edit(
                "advance",
                "  perform ledgerq._lock_jobs(ledgerq._jobs_named(r, v_outcomes) || ledgerq._jobs_between(r.id, r.handed, case when v_shed then r.size else v_to end));\n",
                "",
            ),
        ),
        f"{INTERLEAVINGS}::test_two_runs_acknowledge_tasks_of_one_job",
        fast=True,
    ),
    Mutation(
        "advance-locks-only-what-it-names",
        "what is handed out is handed out under its job's lock",
        (
            Edit(
                "advance",
                "ledgerq._jobs_named(r, v_outcomes) || ledgerq._jobs_between(r.id, r.handed, case when v_shed then r.size else v_to end)",
                "ledgerq._jobs_named(r, v_outcomes)",
            ),
        ),
        f"{INTERLEAVINGS}::test_a_hand_out_meets_a_cancel_of_another_job",
    ),
    Mutation(
        "outcomes-of-tasks-not-handed-out",
        "only held tasks are acknowledged",
        (Edit("advance", " and t.seq <= p_run.handed", "", 4),),
        f"{FENCES}::test_only_held_tasks_are_acknowledged",
    ),
    Mutation(
        "outcomes-of-tasks-of-another-run",
        "only the run's own tasks are acknowledged",
        (
            Edit(
                "advance",
                "t.run_id = p_run.id and t.status = 'queued' and t.seq <= p_run.handed",
                "t.status = 'queued' and t.seq <= p_run.handed",
                4,
            ),
        ),
        f"{FENCES}::test_only_its_own_tasks_are_acknowledged",
    ),
    Mutation(
        "outcomes-of-tasks-that-are-done",
        "a task is acknowledged once",
        (
            Edit(
                "advance",
                "t.run_id = p_run.id and t.status = 'queued' and t.seq <= p_run.handed",
                "t.run_id = p_run.id and t.seq <= p_run.handed",
                4,
            ),
        ),
        f"{FENCES}::test_a_task_is_acknowledged_once",
    ),
    Mutation(
        "retry-of-a-cancelled-task",
        "a task of a job that is being cancelled does not go back",
        (
            Edit(
                "advance",
                "when d.what in ('cancelled', 'deleted') or d.cancelling then 'cancelled'",
                "when d.what in ('cancelled', 'deleted') then 'cancelled'",
            ),
        ),
        f"{INTERLEAVINGS}::test_an_acknowledgement_meets_a_cancel",
    ),
    Mutation(
        "retry-without-end",
        "attempts are bounded",
        (
            Edit(
                "advance",
                "when g.kind = 'retry' and t.attempts + 1 >= j.max_attempts then 'exhausted'",
                "when g.kind = 'retry' and false then 'exhausted'",
            ),
        ),
        f"{FENCES}::test_attempts_are_bounded",
    ),
    Mutation(
        "waiting-without-end",
        "what is free of charge ends at the deadline",
        (Edit("advance", "when d.overdue then 'failed'", "when false then 'failed'"),),
        f"{FENCES}::test_free_returns_end_at_the_deadline",
    ),
    Mutation(
        "advance-leaves-the-suspicion",
        "an advance clears the first sighting",
        (
            Edit(
                "advance",
                "lease_until = p_now + make_interval(secs => p_queue.lease_s), suspected_at = null,",
                "lease_until = p_now + make_interval(secs => p_queue.lease_s),",
            ),
        ),
        f"{FENCES}::test_an_advance_clears_the_suspicion",
    ),
    Mutation(
        "advance-leaves-the-lease",
        "an advance renews the lease",
        (Edit("advance", "lease_until = p_now + make_interval(secs => p_queue.lease_s), suspected_at = null,", "suspected_at = null,"),),
        f"{FENCES}::test_whoever_speaks_keeps_the_run",
    ),
    Mutation(
        "stale-effects-complete",
        "a completed outcome whose document changed is done again",
        (Edit("advance", "when g.kind = 'completed' and g.verdict <> 'applied' then g.verdict\n", ""),),
        f"{INTERLEAVINGS}::test_a_flip_meets_new_content",
    ),
    # --- heartbeat, shed
    Mutation(
        "heartbeat-of-a-stranger",
        "only the owner renews the lease",
        (
            Edit(
                "lease",
                "where x.id = v_id and x.delivery = v_delivery and x.status = 'running'\n",
                "where x.id = v_id and x.status = 'running'\n",
            ),
        ),
        f"{FENCES}::test_a_stranger_changes_nothing",
    ),
    Mutation(
        "heartbeat-of-an-ended-run",
        "a run that was taken away has no lease to renew",
        (
            Edit(
                "lease",
                "where x.id = v_id and x.delivery = v_delivery and x.status = 'running'\n",
                "where x.id = v_id and x.delivery = v_delivery\n",
            ),
        ),
        f"{FENCES}::test_a_zombie_changes_nothing",
    ),
    Mutation(
        "heartbeat-leaves-the-suspicion",
        "a heartbeat clears the first sighting",
        (Edit("lease", "heartbeat_at = ledgerq.clock(), suspected_at = null,", "heartbeat_at = ledgerq.clock(),"),),
        f"{FENCES}::test_a_heartbeat_clears_the_suspicion",
    ),
    Mutation(
        "shed-takes-what-is-held",
        "only un-handed tasks are given back",
        (
            Edit(
                "settle",
                "t.run_id = p_run and t.status = 'queued' and t.seq > p_above\n    returning",
                "t.run_id = p_run and t.status = 'queued'\n    returning",
            ),
        ),
        f"{FENCES}::test_shedding_leaves_what_is_held",
    ),
    Mutation(
        "shed-of-a-run-that-has-not-started",
        "only a running run is shed",
        (
            Edit(
                "lease",
                "where x.id = v_id and x.status = 'running' for no key update skip locked",
                "where x.id = v_id for no key update skip locked",
            ),
            Edit("lease", "where x.id = r.id and x.status = 'running';", "where x.id = r.id;"),
        ),
        f"{FENCES}::test_only_a_running_run_is_shed",
    ),
    Mutation(
        "shed-waits",
        "shedding passes by a run that is busy",
        (Edit("lease", "x.status = 'running' for no key update skip locked", "x.status = 'running' for no key update"),),
        f"{INTERLEAVINGS}::test_shed_passes_by_a_run_that_is_busy",
    ),
    # --- verdicts
    Mutation(
        "verdict-by-any-delivery",
        "a direct witness is fenced by the delivery that it saw",
        (Edit("reconcile", "then p_run.delivery is distinct from (p_verdict ->> 'delivery')::uuid", "then false"),),
        f"{FENCES}::test_a_witness_of_another_delivery_is_not_heard",
    ),
    Mutation(
        "verdict-on-another-status",
        "a verdict holds for the status that was seen",
        (Edit("reconcile", "p_run.status is distinct from p_verdict ->> 'seen_status'\n      or ", ""),),
        f"{FENCES}::test_a_verdict_holds_for_what_was_seen",
    ),
    Mutation(
        "verdict-on-another-step",
        "a verdict holds for the step that was seen",
        (Edit("reconcile", "      or p_run.step is distinct from (p_verdict ->> 'seen_step')::int\n", ""),),
        f"{FENCES}::test_a_verdict_holds_for_what_was_seen",
    ),
    Mutation(
        "verdict-after-a-heartbeat",
        "a verdict holds for the heartbeat that was seen",
        (Edit("reconcile", "      or p_run.heartbeat_at is distinct from (p_verdict ->> 'seen_heartbeat_at')::timestamptz\n", ""),),
        f"{FENCES}::test_a_verdict_holds_for_what_was_seen",
    ),
    Mutation(
        "verdict-on-an-ended-run",
        "a run ends once",
        (
            Edit("reconcile", "  if p_run.ended_at is not null then\n", "  if false then\n"),
            Edit(
                "reconcile",
                "when 'died' then p_run.status = 'running'\n      and (",
                "when 'died' then (p_run.status = 'running' or true)\n      and (",
            ),
        ),
        f"{FENCES}::test_a_run_ends_once",
    ),
    Mutation(
        "verdict-without-the-run-locks",
        "verdicts and acknowledgements of one run take turns",
        (Edit("reconcile", "order by r.id for no key update;\n  v_now", "order by r.id;\n  v_now"),),
        f"{INTERLEAVINGS}::test_a_verdict_meets_an_acknowledgement",
    ),
    Mutation(
        "verdict-without-the-job-locks",
        "verdicts add to counters under the jobs' locks",
        (
            Edit(
                "reconcile",
                "  perform ledgerq._lock_jobs(array(\n    select distinct t.job_id from jsonb_to_recordset(p_judged) x(run uuid) join ledgerq.task t on t.run_id = x.run and t.status = 'queued'));\n",
                "",
            ),
        ),
        f"{INTERLEAVINGS}::test_a_verdict_meets_a_cancel",
    ),
    Mutation(
        "death-without-silence",
        "RQ's word of a death counts only when the ledger hears nothing either",
        (Edit("reconcile", "s.direct or s.silent and p_run.execution_id", "s.direct or p_run.execution_id"),),
        f"{FENCES}::test_a_death_needs_positive_evidence",
    ),
    Mutation(
        "death-of-another-execution",
        "RQ's word of a death counts only for the execution that the run records",
        (
            Edit(
                "reconcile",
                "s.direct or s.silent and p_run.execution_id = p_verdict -> 'evidence' ->> 'execution_id'",
                "s.direct or s.silent",
            ),
        ),
        f"{FENCES}::test_a_death_needs_positive_evidence",
    ),
    Mutation(
        "timeout-of-a-task-not-held",
        "a timeout names a task that is held",
        (
            Edit(
                "reconcile",
                "when 'timeout' then p_run.status = 'running' and s.direct and s.culprit_held",
                "when 'timeout' then p_run.status = 'running' and s.direct",
            ),
        ),
        f"{FENCES}::test_a_culprit_is_a_held_task",
    ),
    Mutation(
        "timeout-by-hearsay",
        "only a keeper or parent reports a timeout",
        (
            Edit(
                "reconcile",
                "when 'timeout' then p_run.status = 'running' and s.direct and s.culprit_held",
                "when 'timeout' then p_run.status = 'running' and s.culprit_held",
            ),
        ),
        f"{FENCES}::test_only_a_direct_witness_reports_timeouts_and_kills",
    ),
    Mutation(
        "kill-without-a-cancel",
        "a task is killed for a cancel only when one was requested",
        (
            Edit(
                "reconcile",
                "          and (p_verdict ->> 'verdict' <> 'cancel_kill' or j.cancel_requested_at is not null)) as culprit_held",
                "          ) as culprit_held",
            ),
        ),
        f"{FENCES}::test_a_kill_needs_a_cancel_request",
    ),
    Mutation(
        "stopped-without-silence",
        "a stop seen in RQ counts only when the ledger hears nothing",
        (
            Edit(
                "reconcile",
                "when 'stopped' then p_run.status = 'running' and p_run.cause is null and s.silent",
                "when 'stopped' then p_run.status = 'running' and p_run.cause is null",
            ),
        ),
        f"{FENCES}::test_a_stop_needs_silence",
    ),
    Mutation(
        "expired-before-the-lease",
        "a lease that lasts protects its run",
        (
            Edit(
                "reconcile",
                "when 'expired' then p_run.status = 'running' and p_run.lease_until < p_now\n",
                "when 'expired' then p_run.status = 'running'\n",
            ),
        ),
        f"{FENCES}::test_a_lease_protects_while_it_lasts",
    ),
    Mutation(
        "expired-right-after-the-database-started",
        "leases are not judged within one lease of the database's own start",
        (Edit("reconcile", "\n      and p_now - pg_postmaster_start_time() > make_interval(secs => p_queue.lease_s)", ""),),
        f"{FENCES}::test_a_database_that_was_away_judges_nobody_at_once",
    ),
    Mutation(
        "expired-at-first-sight",
        "an expired lease is applied at the second sighting",
        (
            Edit(
                "reconcile",
                "elsif p_verdict ->> 'verdict' = 'expired' and (p_run.suspected_at is null or",
                "elsif p_verdict ->> 'verdict' = 'expired' and (false and p_run.suspected_at is null or",
            ),
        ),
        f"{FENCES}::test_an_expired_lease_is_seen_twice",
        fast=True,
    ),
    Mutation(
        "expired-at-second-glance",
        "a heartbeat's time lies between the two sightings",
        (
            Edit(
                "reconcile",
                "p_run.suspected_at is null or p_now - p_run.suspected_at < make_interval(secs => q.heartbeat_s))",
                "p_run.suspected_at is null)",
            ),
        ),
        f"{FENCES}::test_an_expired_lease_is_seen_twice",
    ),
    Mutation(
        "revoke-of-a-started-run",
        "only a dispatched run is revoked",
        (Edit("reconcile", "when 'revoke' then p_run.status = 'dispatched'", "when 'revoke' then true"),),
        f"{FENCES}::test_only_a_dispatched_run_is_revoked",
    ),
    Mutation(
        "death-charges-what-was-not-held",
        "only held tasks are charged",
        (
            Edit("reconcile", "t.seq <= r.handed and (d.verdict = 'died' or", "(d.verdict = 'died' or"),
            Edit("reconcile", "t.seq <= r.handed and d.verdict = 'expired' as loss", "d.verdict = 'expired' as loss"),
        ),
        f"{FENCES}::test_only_held_tasks_are_charged",
    ),
    Mutation(
        "timeout-charges-the-others",
        "a timeout charges its culprit only",
        (
            Edit(
                "reconcile",
                "d.verdict = 'died' or d.verdict = 'timeout' and t.id = d.culprit) as crash",
                "d.verdict in ('died', 'timeout')) as crash",
            ),
        ),
        f"{FENCES}::test_a_timeout_charges_its_culprit_only",
    ),
    Mutation(
        "suspects-stay-together",
        "whatever was held at a death runs alone from then on",
        (Edit("reconcile", "alone = t.alone or x.crash or x.loss,", "alone = t.alone,"),),
        f"{FENCES}::test_suspects_run_alone",
    ),
    Mutation(
        "innocents-are-given-up",
        "a task is given up only when it was alone at its last death",
        (
            Edit(
                "reconcile",
                "when h.crash and h.crashes + 1 >= h.max_crashes and h.by_itself then 'crash'",
                "when h.crash and h.crashes + 1 >= h.max_crashes then 'crash'",
            ),
        ),
        f"{FENCES}::test_nobody_is_given_up_in_company",
    ),
    Mutation(
        "crashes-without-end",
        "crashes are bounded",
        (Edit("reconcile", "when h.crash and h.crashes + 1 >= h.max_crashes and h.by_itself then 'crash'\n", ""),),
        f"{FENCES}::test_crashes_are_bounded",
    ),
    Mutation(
        "losses-without-end",
        "losses are bounded",
        (Edit("reconcile", "when h.loss and h.losses + 1 >= h.max_losses then 'lost'\n", ""),),
        f"{FENCES}::test_losses_are_bounded",
    ),
    Mutation(
        "timeouts-without-end",
        "timeouts count as attempts",
        (Edit("reconcile", "when h.attempt and h.attempts + 1 >= h.max_attempts then 'timeout'\n", ""),),
        f"{FENCES}::test_timeouts_are_bounded",
    ),
    Mutation(
        "cancelled-tasks-come-back-from-lost-runs",
        "a task of a job that is being cancelled does not go back when its run ends",
        (
            Edit(
                "reconcile",
                "when x.given_up is not null then 'failed' when x.cancelling then 'cancelled' else 'pending' end",
                "when x.given_up is not null then 'failed' else 'pending' end",
            ),
        ),
        f"{FENCES}::test_what_is_cancelled_does_not_come_back_from_a_lost_run",
    ),
    # --- locks in order
    Mutation(
        "jobs-locked-in-any-order",
        "jobs are locked in the order of their ids",
        (
            Edit(
                "settle",
                "where j.id = any(p_jobs) order by j.id for no key update;",
                "where j.id = any(p_jobs) order by j.id desc for no key update;",
            ),
        ),
        f"{INTERLEAVINGS}::test_jobs_are_locked_in_the_order_of_their_ids",
    ),
    Mutation(
        "runs-locked-in-any-order",
        "runs are locked in the order of their ids",
        (Edit("reconcile", "order by r.id for no key update;\n  v_now", "order by r.id desc for no key update;\n  v_now"),),
        f"{INTERLEAVINGS}::test_runs_are_locked_in_the_order_of_their_ids_and_before_any_job",
    ),
    # --- dispatch
    Mutation(
        "dispatch-waits-for-tasks",
        "a dispatch never waits",
        (
            Edit(
                "dispatch",
                "        order by t.id limit v_quota\n        for no key update skip locked",
                "        order by t.id limit v_quota\n        for no key update",
            ),
        ),
        f"{INTERLEAVINGS}::test_two_dispatches_never_take_the_same_task",
    ),
    Mutation(
        "dispatch-without-task-locks",
        "two dispatches never take the same task",
        (
            Edit(
                "dispatch",
                "        order by t.id limit v_quota\n        for no key update skip locked",
                "        order by t.id limit v_quota",
            ),
        ),
        f"{INTERLEAVINGS}::test_two_dispatches_never_take_the_same_task",
    ),
    Mutation(
        "dispatch-waits-for-jobs",
        "a dispatch never waits for a job",
        (
            Edit(
                "dispatch",
                "and x.status = 'pending' order by x.id for no key update skip locked",
                "and x.status = 'pending' order by x.id for no key update",
            ),
        ),
        f"{INTERLEAVINGS}::test_a_dispatch_does_not_wait_for_a_job",
    ),
    Mutation(
        "dispatch-waits-for-the-cursor",
        "a dispatch never waits for another one's turn",
        (Edit("dispatch", "where t.queue = p_queue for no key update skip locked;", "where t.queue = p_queue for no key update;"),),
        f"{INTERLEAVINGS}::test_a_dispatch_does_not_wait_for_the_cursor",
    ),
    Mutation(
        "dispatch-waits-to-promote",
        "a dispatch never waits for a task that becomes due",
        (
            Edit(
                "dispatch",
                "    order by d.due_at limit 500\n    for no key update skip locked",
                "    order by d.due_at limit 500\n    for no key update",
            ),
        ),
        f"{INTERLEAVINGS}::test_a_dispatch_does_not_wait_to_promote",
    ),
    Mutation(
        "caps-counted-by-all-at-once",
        "hard caps are counted by one at a time",
        (Edit("dispatch", "if not pg_try_advisory_xact_lock(hashtextextended('ledgerq.dispatch ' || q.name, 0)) then", "if false then"),),
        f"{INTERLEAVINGS}::test_caps_are_counted_by_one_at_a_time",
    ),
    Mutation(
        "caps-ignored",
        "hard caps are kept",
        (
            Edit(
                "dispatch",
                "v_ids := ledgerq._within_caps(q, ledgerq._pick_all(q.name, v_room * q.run_size));",
                "v_ids := ledgerq._pick_all(q.name, v_room * q.run_size);",
            ),
        ),
        f"{FENCES}::test_caps_are_kept",
    ),
    Mutation(
        "dispatch-of-a-paused-queue",
        "nothing of a paused queue is dispatched",
        (Edit("dispatch", "  if q.paused_at is not null then", "  if false then"),),
        f"{FENCES}::test_a_paused_queue_starts_nothing",
    ),
    Mutation(
        "dispatch-beyond-the-depth",
        "no more runs than the depth allows",
        (Edit("dispatch", "  select q.depth - count(*) into v_room from", "  select q.depth into v_room from"),),
        f"{FENCES}::test_the_depth_is_kept",
    ),
    Mutation(
        "dispatch-before-its-time",
        "nothing goes out before it is due",
        (
            Edit(
                "dispatch",
                "where d.queue = p_queue and d.status = 'pending' and not d.external and d.due_at <= p_now",
                "where d.queue = p_queue and d.status = 'pending' and not d.external and d.due_at is not null",
            ),
        ),
        f"{FENCES}::test_nothing_goes_out_before_its_time",
    ),
    Mutation(
        "lone-tasks-in-company",
        "a task that must be alone is a run by itself",
        (Edit("dispatch", "case when t.alone then t.id end as lone", "null::bigint as lone"),),
        f"{FENCES}::test_suspects_run_alone",
    ),
    # --- creating, cancelling, retrying
    Mutation(
        "another-request-under-the-same-id",
        "an id stands for one request",
        (
            Edit(
                "create",
                "when j.id is not null and j.request_digest = decode(g.digest, 'hex') then 'applied'",
                "when j.id is not null then 'applied'",
            ),
        ),
        f"{FENCES}::test_an_id_stands_for_one_request",
    ),
    Mutation(
        "cancel-takes-what-is-held",
        "what a worker holds is not cancelled under its hands",
        (Edit("cancel", "t.status = 'queued' and r.id = t.run_id and t.seq > r.handed", "t.status = 'queued' and r.id = t.run_id"),),
        f"{FENCES}::test_a_cancel_leaves_what_is_held",
    ),
    Mutation(
        "cancel-misses-what-is-being-dispatched",
        "a cancel looks for un-handed tasks after it has waited for the pending ones",
        (Edit("cancel", "t.status = 'queued' and r.id = t.run_id and t.seq > r.handed", "false and r.id = t.run_id and t.seq > r.handed"),),
        f"{INTERLEAVINGS}::test_a_cancel_meets_a_dispatch",
    ),
    Mutation(
        "cancel-without-the-job-locks",
        "a cancel waits for who works on the job's counters",
        (
            Edit(
                "cancel",
                "  perform ledgerq._lock_jobs(v_ids);\n  v_now := ledgerq.clock();\n  select jsonb_agg(",
                "  v_now := ledgerq.clock();\n  select jsonb_agg(",
            ),
        ),
        f"{INTERLEAVINGS}::test_a_cancel_meets_an_acknowledgement",
    ),
    Mutation(
        "retry-does-not-repeat",
        "a retry whose reply was lost is not made twice",
        (Edit("cancel", "  elsif j.retry_request = p_request then", "  elsif false then"),),
        f"{FENCES}::test_a_lost_retry_is_answered_again",
    ),
    Mutation(
        "retry-without-the-job-locks",
        "two retries of one job take turns",
        (
            Edit(
                "cancel",
                "  perform ledgerq._lock_jobs(v_ids);\n  v_now := ledgerq.clock();\n  -- In the order",
                "  v_now := ledgerq.clock();\n  -- In the order",
            ),
        ),
        f"{INTERLEAVINGS}::test_a_retry_meets_itself",
    ),
    Mutation(
        "deadlines-wait",
        "expiring passes by a job that is busy",
        (Edit("cancel", "    order by j.id for no key update skip locked);", "    order by j.id for no key update);"),),
        f"{INTERLEAVINGS}::test_deadlines_pass_by_a_job_that_is_busy",
    ),
    Mutation(
        "seal-without-the-job-lock",
        "a seal waits for who works on the job's counters",
        (
            Edit(
                "create",
                "select x.sealed into v_sealed from ledgerq.job x where x.id = v_id for no key update;",
                "select x.sealed into v_sealed from ledgerq.job x where x.id = v_id;",
            ),
        ),
        f"{INTERLEAVINGS}::test_the_seal_meets_the_last_outcome",
    ),
    Mutation(
        "adding-without-the-job-lock",
        "two who add tasks take turns",
        (
            Edit(
                "create",
                '  select * into j from ledgerq.job x where x.id = v_id for no key update;\n  if not found then\n    return \'{"disposition": "not_found", "added": 0',
                '  select * into j from ledgerq.job x where x.id = v_id;\n  if not found then\n    return \'{"disposition": "not_found", "added": 0',
            ),
        ),
        f"{INTERLEAVINGS}::test_tasks_are_added_by_two_at_once",
    ),
    # --- documents
    Mutation(
        "flip-of-an-old-revision",
        "only the present revision becomes live",
        (
            Edit("generations", "        when d.revision <> e.revision then 'stale'\n", ""),
            Edit("generations", "        when g.garbage_since is not null then 'stale'\n", ""),
        ),
        f"{INTERLEAVINGS}::test_a_flip_meets_new_content",
        fast=True,
    ),
    Mutation(
        "flip-of-a-deleted-document",
        "a deleted document stays without points",
        (Edit("generations", "when d.id is null or d.deleted_at is not null then 'deleted'", "when d.id is null then 'deleted'"),),
        f"{INTERLEAVINGS}::test_a_flip_meets_a_deletion",
    ),
    Mutation(
        "flip-backwards",
        "the live generation only rises",
        (Edit("generations", " and e.generation > coalesce(d.live_generation, 0)\n", "\n"),),
        f"{INTERLEAVINGS}::test_two_jobs_flip_one_document",
    ),
    Mutation(
        "flip-without-the-document-locks",
        "documents flip under their locks",
        (
            Edit(
                "generations",
                "  perform from ledgerq.document where id = any (v_documents) order by id for no key update;\n  v_verdicts",
                "  v_verdicts",
            ),
        ),
        f"{INTERLEAVINGS}::test_a_flip_meets_new_content",
    ),
    Mutation(
        "begin-without-the-document-locks",
        "generations are allotted under the documents' locks",
        (Edit("generations", "  perform from ledgerq.document where id = any (v_ids) order by id for no key update;\n", ""),),
        f"{INTERLEAVINGS}::test_documents_are_locked_in_the_order_of_their_ids",
    ),
    Mutation(
        "usage-counted-twice",
        "a provider's call counts once",
        (
            Edit(
                "generations",
                "  order by (u ->> 'id')::uuid\n  on conflict (id) do nothing",
                "  order by (u ->> 'id')::uuid\n  on conflict (id) do update set tokens = ledgerq.usage.tokens + excluded.tokens",
            ),
        ),
        f"{FENCES}::test_usage_counts_once",
    ),
    Mutation(
        "points-removed-under-a-writer",
        "points that a run may still write are not removed",
        (
            Edit(
                "garbage",
                "        when ledgerq._still_written(g.document_id, g.garbage_since) then p_now + ledgerq._longest_lease() / 2\n",
                "",
            ),
        ),
        "ledger/test_documents_garbage.py",
    ),
    Mutation(
        "points-removed-under-a-reader",
        "points that a reader may still look at are not removed",
        (
            Edit(
                "garbage",
                "        when g.live_since is not null and g.garbage_since > p_now - p_grace then g.garbage_since + p_grace\n",
                "",
            ),
        ),
        "ledger/test_documents_garbage.py",
    ),
    Mutation(
        "points-gone-at-first-count",
        "points are counted gone twice",
        (Edit("garbage", "      when g.empty_seen_at is null then 'seen'\n", "      when g.empty_seen_at is null then 'gone'\n"),),
        "ledger/test_documents_garbage.py",
    ),
    Mutation(
        "points-gone-at-second-glance",
        "a lease lies between the two counts",
        (Edit("garbage", "when g.empty_seen_at <= p_now - ledgerq._longest_lease() then 'gone'", "when true then 'gone'"),),
        "ledger/test_documents_garbage.py",
    ),
    Mutation(
        "builds-given-up-under-their-tasks",
        "a build that a task will go on with is not given up",
        (
            Edit(
                "garbage",
                "begun_at <= p_begun_before\n    and not exists (select from ledgerq.task as t where t.document_id = g.document_id and t.status in ('pending', 'queued'))",
                "begun_at <= p_begun_before",
            ),
        ),
        "ledger/test_documents_garbage.py",
    ),
)
