# ruff: noqa: E501 - exact text of migrations
"""Ending a run that its worker does not end."""

from __future__ import annotations

from typing import Final

from tests.stress.mutations import Edit, Mutation

FENCES = "stress/test_fences.py"
INTERLEAVINGS = "stress/test_interleavings.py"

VERDICTS: Final[tuple[Mutation, ...]] = (
    Mutation(
        "verdict-by-any-delivery",
        "a direct witness is fenced by the delivery that it saw",
        (Edit("reconcile", "then p_run.delivery is distinct from (p_verdict ->> 'delivery')::uuid", "then false"),),
        f"{FENCES}::test_a_witness_of_another_delivery_is_not_heard",
    ),
    Mutation(
        "verdict-on-another-status",
        "a verdict holds for the status that was seen",
        (Edit("reconcile", "p_run.status is distinct from p_verdict ->> 'seen_status'\n        or ", ""),),
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
                "when 'died' then p_run.status = 'running'\n        and (",
                "when 'died' then (p_run.status = 'running' or true)\n        and (",
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
                "when 'stopped' then p_run.status = 'running' and p_run.cause is null and (s.direct or s.silent)",
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
        (Edit("reconcile", "\n        and p_now - pg_postmaster_start_time() > make_interval(secs => p_queue.lease_s)", ""),),
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
    Mutation(
        "runs-locked-in-any-order",
        "runs are locked in the order of their ids",
        (Edit("reconcile", "order by r.id for no key update;\n  v_now", "order by r.id desc for no key update;\n  v_now"),),
        f"{INTERLEAVINGS}::test_runs_are_locked_in_the_order_of_their_ids_and_before_any_job",
    ),
)
