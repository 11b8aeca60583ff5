# ruff: noqa: E501 - exact text of migrations
"""Starting, advancing and keeping a run."""

from __future__ import annotations

from typing import Final

from tests.stress.mutations import Edit, Mutation

FENCES = "stress/test_fences.py"
INTERLEAVINGS = "stress/test_interleavings.py"

RUNS: Final[tuple[Mutation, ...]] = (
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
        f"{INTERLEAVINGS}::test_a_start_meets_a_cancel_of_a_job_in_progress",
    ),
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
        "the jobs of what is acknowledged and of what is handed out are locked together, in one order",
        (
            Edit(
                "advance",
                "ledgerq._jobs_named(r, v_outcomes) || ledgerq._jobs_between(r.id, r.handed, case when v_shed then r.size else v_to end)",
                "ledgerq._jobs_named(r, v_outcomes)",
            ),
        ),
        f"{INTERLEAVINGS}::test_jobs_named_and_jobs_handed_out_are_locked_together",
    ),
    Mutation(
        "outcomes-of-tasks-not-handed-out",
        "only held tasks are acknowledged",
        (Edit("advance", " and t.seq <= p_run.handed", "", 5),),
        f"{FENCES}::test_only_held_tasks_are_acknowledged",
    ),
    Mutation(
        "outcomes-of-tasks-of-another-run",
        "only the run's own tasks are acknowledged",
        (
            Edit(
                "advance",
                "t.run_id = p_run.id and t.status is not distinct from 'queued' and t.seq <= p_run.handed",
                "t.status is not distinct from 'queued' and t.seq <= p_run.handed",
                4,
            ),
            Edit(
                "advance",
                "t.run_id = p_run.id and t.status = 'queued' and t.seq <= p_run.handed",
                "t.status = 'queued' and t.seq <= p_run.handed",
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
                "t.run_id = p_run.id and t.status is not distinct from 'queued' and t.seq <= p_run.handed",
                "t.run_id = p_run.id and t.seq <= p_run.handed",
                4,
            ),
            Edit(
                "advance",
                "t.run_id = p_run.id and t.status = 'queued' and t.seq <= p_run.handed",
                "t.run_id = p_run.id and t.seq <= p_run.handed",
            ),
        ),
        f"{FENCES}::test_a_task_is_acknowledged_once",
    ),
    Mutation(
        "progress-of-anything",
        "progress is noted for held tasks of the run alone",
        (
            Edit(
                "advance",
                "where t.id = p.task and t.run_id = p_run.id and t.status is not distinct from 'queued' and t.seq <= p_run.handed;\nend $$;\ncomment on function ledgerq._note_progress",
                "where t.id = p.task;\nend $$;\ncomment on function ledgerq._note_progress",
            ),
        ),
        f"{FENCES}::test_progress_is_noted_for_what_is_held",
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
        (Edit("lease", "heartbeat_at = v_now, suspected_at = null,", "heartbeat_at = v_now,"),),
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
)
