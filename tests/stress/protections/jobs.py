# ruff: noqa: E501 - exact text of migrations
"""Creating, dispatching, cancelling and retrying jobs; the order of locks."""

from __future__ import annotations

from typing import Final

from tests.stress.mutations import Edit, Mutation

FENCES = "stress/test_fences.py"
INTERLEAVINGS = "stress/test_interleavings.py"

JOBS: Final[tuple[Mutation, ...]] = (
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
                "and x.finished_at is null order by x.id for no key update skip locked",
                "and x.finished_at is null order by x.id for no key update",
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
        (
            Edit("cancel", "t.status = 'queued' and t.seq > r.handed limit p_most", "t.status = 'queued' limit p_most"),
            Edit("cancel", "t.status = 'queued' and r.id = t.run_id and t.seq > r.handed", "t.status = 'queued' and r.id = t.run_id"),
        ),
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
        f"{INTERLEAVINGS}::test_a_cancel_meets_the_end_of_its_job",
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
                "  perform ledgerq._lock_jobs(v_ids);\n  v_now := ledgerq.clock();\n  perform ledgerq._check_retry_size",
                "  v_now := ledgerq.clock();\n  perform ledgerq._check_retry_size",
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
)
