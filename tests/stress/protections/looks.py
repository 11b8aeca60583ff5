# ruff: noqa: E501 - exact text of migrations
"""Looking again under a lock, and the clauses of which several copies protect different things."""

from __future__ import annotations

from typing import Final

from tests.stress.mutations import Edit, Mutation

FENCES = "stress/test_fences.py"
INTERLEAVINGS = "stress/test_interleavings.py"
LOOKS = "stress/test_second_looks.py"
BOUNDED = "ledger/test_bounded_calls.py"
EFFECT = "    left join ledgerq.task t on t.id = o.task and t.run_id = p_run.id and t.status is not distinct from 'queued' and t.seq <= p_run.handed\n"

LOOKS_AGAIN: Final[tuple[Mutation, ...]] = (
    Mutation(
        "expiring-takes-what-is-in-runs",
        "only what waits fails at the deadline",
        (
            Edit(
                "cancel",
                "t.status = 'pending' limit p_most\n  ), moved as (\n    update ledgerq.task t set status = 'failed'",
                "t.status in ('pending', 'queued') limit p_most\n  ), moved as (\n    update ledgerq.task t set status = 'failed'",
            ),
            Edit(
                "cancel",
                "t.id = s.id and t.status = 'pending'\n    returning t.job_id\n  ), per_job",
                "t.id = s.id and t.status in ('pending', 'queued')\n    returning t.job_id\n  ), per_job",
            ),
        ),
        f"{BOUNDED}::test_only_what_waits_expires",
    ),
    Mutation(
        "expiring-without-a-second-look",
        "a job that ended since it was seen does not expire",
        (Edit("cancel", "    and j.finished_at is null and j.deadline_at <= v_now and j.cancel_requested_at is null\n", ""),),
        f"{LOOKS}::test_a_job_that_ended_since_it_was_seen_does_not_expire",
    ),
    Mutation(
        "expiring-what-is-being-cancelled",
        "what is left of a big cancel is cancelled, not failed",
        (
            Edit("cancel", "d.deadline_at <= v_now and d.cancel_requested_at is null\n", "d.deadline_at <= v_now\n"),
            Edit("cancel", "j.deadline_at <= v_now and j.cancel_requested_at is null\n", "j.deadline_at <= v_now\n"),
            Edit("cancel", "v_done int := ledgerq._go_on_cancelling(v_limit, v_most, v_now);", "v_done int := 0;"),
        ),
        f"{BOUNDED}::test_a_steward_finishes_a_cancel_that_its_caller_left",
    ),
    Mutation(
        "cancelling-goes-on-and-waits",
        "going on with a cancel passes by a job that is busy",
        (Edit("cancel", "order by j.id for no key update skip locked), 'expire_jobs'", "order by j.id for no key update), 'expire_jobs'"),),
        f"{LOOKS}::test_going_on_with_a_cancel_passes_by_a_job_that_is_busy",
    ),
    Mutation(
        "dispatch-of-what-is-being-cancelled",
        "nothing of a job goes out while it is being cancelled",
        (Edit("dispatch", "          and (select j.cancel_requested_at from ledgerq.job j where j.id = t.job_id) is null\n", ""),),
        f"{BOUNDED}::test_nothing_of_a_job_goes_out_while_it_is_being_cancelled",
    ),
    Mutation(
        "retry-of-what-is-being-removed",
        "half a job is not retried",
        (Edit("cancel", "where x.id = p_job and not x.removing;", "where x.id = p_job;"),),
        f"{BOUNDED}::test_a_big_job_is_deleted_in_slices_and_cannot_be_retried_meanwhile",
    ),
    Mutation(
        "pruning-without-a-second-look",
        "a job that was retried since it was seen is not pruned",
        (Edit("upkeep", " and (j.removing or j.finished_at < p_before) order by j.id for update", " order by j.id for update"),),
        f"{LOOKS}::test_a_job_that_was_retried_since_it_was_seen_is_not_pruned",
    ),
    Mutation(
        "deleting-without-the-job-lock",
        "a deletion waits for a retry",
        (
            Edit(
                "upkeep",
                "where j.id = ledgerq._required_uuid(request, 'job') for update;",
                "where j.id = ledgerq._required_uuid(request, 'job');",
            ),
        ),
        f"{LOOKS}::test_a_deletion_meets_a_retry",
    ),
    Mutation(
        "garbage-taken-twice",
        "garbage that another sweeper took is not taken again",
        (Edit("garbage", "    where g.id = any (p_generations) and g.check_at <= p_now\n", "    where g.id = any (p_generations)\n"),),
        f"{LOOKS}::test_garbage_that_another_sweeper_took_is_not_taken_again",
    ),
    Mutation(
        "shedding-without-the-job-locks",
        "a shed waits for who adds to the job's counters",
        (Edit("lease", "  perform ledgerq._lock_jobs(ledgerq._jobs_in_run(r.id, r.handed));\n", ""),),
        f"{LOOKS}::test_shedding_waits_for_who_counts",
    ),
    Mutation(
        "paused-start-without-the-job-locks",
        "a start that gives back waits for who adds to the jobs' counters",
        (Edit("start", "    perform ledgerq._lock_jobs(ledgerq._jobs_in_run(r.id, 0));\n", ""),),
        f"{LOOKS}::test_a_start_in_a_paused_queue_waits_for_who_counts",
    ),
    Mutation(
        "external-report-without-the-job-lock",
        "a report on an external job waits for its cancel",
        (
            Edit(
                "external",
                "where x.id = v_id for no key update;\n  v_answer := ledgerq._external_answer(j, 'in_progress');",
                "where x.id = v_id;\n  v_answer := ledgerq._external_answer(j, 'in_progress');",
            ),
        ),
        f"{LOOKS}::test_a_report_on_an_external_job_meets_its_cancel",
    ),
    Mutation(
        "external-end-without-the-job-lock",
        "the end of an external job waits for its cancel",
        (
            Edit(
                "external",
                "where x.id = v_id for no key update;\n  v_answer := ledgerq._external_answer(j, p_status);",
                "where x.id = v_id;\n  v_answer := ledgerq._external_answer(j, p_status);",
            ),
        ),
        f"{LOOKS}::test_the_end_of_an_external_job_meets_its_cancel",
    ),
    Mutation(
        "external-jobs-dispatched",
        "an external job is never dispatched",
        (
            Edit(
                "dispatch",
                "t.status = 'pending' and t.due_at is null and not t.external and t.id > x.above",
                "t.status = 'pending' and t.due_at is null and t.id > x.above",
            ),
        ),
        f"{LOOKS}::test_an_external_job_is_never_dispatched",
    ),
    Mutation(
        "effects-of-tasks-not-handed-out",
        "a task that is not handed out flips nothing",
        (Edit("advance", EFFECT, EFFECT.replace(" and t.seq <= p_run.handed", "")),),
        f"{LOOKS}::test_a_task_that_is_not_handed_out_flips_nothing",
    ),
    Mutation(
        "effects-of-tasks-of-another-run",
        "a task of another run flips nothing",
        (Edit("advance", EFFECT, EFFECT.replace(" and t.run_id = p_run.id", "")),),
        f"{LOOKS}::test_a_task_of_another_run_flips_nothing",
    ),
    Mutation(
        "effects-of-tasks-that-are-done",
        "a task that is done flips nothing",
        (Edit("advance", EFFECT, EFFECT.replace(" and t.status is not distinct from 'queued'", "")),),
        f"{LOOKS}::test_a_task_that_is_done_flips_nothing",
    ),
    Mutation(
        "kill-by-hearsay",
        "only a keeper or parent reports a kill",
        (
            Edit(
                "reconcile",
                "when 'cancel_kill' then p_run.status = 'running' and s.direct and s.culprit_held",
                "when 'cancel_kill' then p_run.status = 'running' and s.culprit_held",
            ),
        ),
        f"{FENCES}::test_only_a_direct_witness_reports_timeouts_and_kills",
    ),
    Mutation(
        "kill-of-a-task-not-held",
        "who is killed for a cancel is held",
        (
            Edit(
                "reconcile",
                "when 'cancel_kill' then p_run.status = 'running' and s.direct and s.culprit_held",
                "when 'cancel_kill' then p_run.status = 'running' and s.direct",
            ),
        ),
        f"{LOOKS}::test_who_is_killed_for_a_cancel_is_held",
    ),
    Mutation(
        "stopped-unheard-of-a-witness",
        "a keeper's word of a stop needs no silence",
        (Edit("reconcile", "p_run.cause is null and (s.direct or s.silent)", "p_run.cause is null and s.silent"),),
        f"{LOOKS}::test_a_person_who_stops_a_run_stops_its_job",
    ),
    Mutation(
        "stopped-means-all-jobs",
        "stopping a run of several jobs cancels none of them",
        (Edit("reconcile", "where x.verdict = 'stopped' and r.single_job", "where x.verdict = 'stopped'"),),
        "ledger/test_reconcile_runs.py::test_stopping_a_run_of_several_jobs_frees_them",
    ),
    Mutation(
        "retry-of-an-open-job",
        "an open job is not retried",
        (
            Edit(
                "cancel",
                "  elsif j.finished_at is null then\n    return jsonb_build_object('id', p_job, 'disposition', 'not_finished'",
                "  elsif false then\n    return jsonb_build_object('id', p_job, 'disposition', 'not_finished'",
            ),
        ),
        "ledger/test_retry_jobs.py::test_open_job_is_not_finished",
    ),
    Mutation(
        "retry-of-completed-tasks",
        "what completed is not done again",
        (Edit("cancel", "where t.job_id = p_job and t.status in ('failed', 'cancelled');", "where t.job_id = p_job;"),),
        "ledger/test_retry_jobs.py::test_failed_and_cancelled_tasks_are_pending_again_and_completed_ones_stay",
    ),
    Mutation(
        "points-counted-under-a-writer",
        "a count is too soon while a run may still write",
        (Edit("garbage", "      when ledgerq._still_written(g.document_id, g.garbage_since) then 'too_soon'\n", ""),),
        "ledger/test_documents_garbage.py::test_points_of_an_old_revision_wait_for_the_run_that_writes_them",
    ),
    Mutation(
        "counting-without-the-document-locks",
        "a count waits for who builds",
        (Edit("garbage", "  perform from ledgerq.document where id = any (v_documents) order by id for no key update;\n", ""),),
        f"{LOOKS}::test_a_count_of_points_waits_for_who_builds",
    ),
    Mutation(
        "points-of-another-run-removed",
        "points that another run still writes are not for the worker to remove",
        (
            Edit(
                "generations",
                "select from ledgerq.task as t where t.document_id = g.document_id and t.status = 'queued' and t.run_id <> p_run",
                "select from ledgerq.task as t where false",
            ),
        ),
        "ledger/test_documents_locks.py::test_points_that_another_run_still_writes_are_not_for_the_worker_to_remove",
    ),
    Mutation(
        "caps-not-waited-for",
        "what two ends set free under a cap goes out",
        (Edit("dispatch", "    if p_wait then\n", "    if false then\n"),),
        "ledger/test_dispatch.py::test_what_two_ends_set_free_under_a_cap_goes_out",
    ),
    Mutation(
        "ending-what-may-grow",
        "a job that may grow does not end",
        (
            Edit(
                "settle",
                "        when s.sealed and s.completed + s.failed + s.cancelled = s.total then\n",
                "        when s.completed + s.failed + s.cancelled = s.total then\n",
            ),
        ),
        f"{LOOKS}::test_a_job_that_may_grow_does_not_end",
    ),
    Mutation(
        "shed-leaves-the-size",
        "a run is as long as what it kept, after a shed",
        (Edit("lease", "  update ledgerq.run x set size = x.handed where", "  update ledgerq.run x set size = x.size where"),),
        f"{LOOKS}::test_a_run_is_as_long_as_what_it_kept",
    ),
    Mutation(
        "yield-leaves-the-size",
        "a run is as long as what it kept, after it gave back",
        (Edit("advance", "    p_run.size := p_run.handed;\n", ""),),
        f"{LOOKS}::test_a_run_is_as_long_as_what_it_kept",
    ),
    Mutation(
        "advance-is-no-heartbeat",
        "an advance is a heartbeat",
        (Edit("advance", "size = p_run.size, heartbeat_at = p_now,", "size = p_run.size,"),),
        f"{LOOKS}::test_an_advance_is_a_heartbeat",
    ),
    Mutation(
        "finished-with-tasks-not-handed-out",
        "a run with tasks that are not handed out goes on",
        (
            Edit(
                "advance",
                "  v_finished := v_out.tasks = '[]' and not exists (\n    select from ledgerq.task t where t.run_id = p_run.id and t.status = 'queued' and t.seq > v_out.handed);",
                "  v_finished := v_out.tasks = '[]';",
            ),
        ),
        f"{LOOKS}::test_a_run_with_tasks_that_are_not_handed_out_goes_on",
    ),
)
