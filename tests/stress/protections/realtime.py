"""What announces a job's changes: in their order, to their owner, and never in the way."""

from __future__ import annotations

from typing import Final

from tests.stress.mutations import Edit, Mutation

TESTS = "ledger/test_realtime.py"

REALTIME: Final[tuple[Mutation, ...]] = (
    Mutation(
        "numbering-steps-alone",
        "a change of the counts or the progress has a number of its own",
        (
            Edit(
                "realtime",
                "create trigger job_sequence before update on ledgerq.job for each row\n",
                "create trigger job_sequence before update on ledgerq.job for each row\n  when (old.status <> new.status)\n",
            ),
        ),
        f"{TESTS}::test_an_external_jobs_progress_is_told",
    ),
    Mutation(
        "announcing-waits",
        "no call waits for a lock of Realtime's tables",
        (Edit("realtime", "in row exclusive mode nowait", "in row exclusive mode"),),
        f"{TESTS}::test_tables_of_realtime_that_are_locked_are_not_waited_for",
    ),
    Mutation(
        "announcing-fails",
        "no call fails because a change cannot be told",
        (Edit("realtime", "  raise warning 'a change of a job of % was not announced: %', v_owner, sqlerrm;\n", "  raise;\n"),),
        f"{TESTS}::test_a_realtime_that_fails_fails_no_call",
    ),
    Mutation(
        "announcing-cancelled",
        "no call fails because its telling was stopped",
        (Edit("realtime", "exception when query_canceled or assert_failure or others then", "exception when others then"),),
        f"{TESTS}::test_a_realtime_that_fails_fails_no_call",
    ),
    Mutation(
        "announcing-waits-for-a-part",
        "no call waits for long for a part of Realtime's table",
        (Edit("realtime", " set lock_timeout = '100ms'", ""),),
        f"{TESTS}::test_a_realtime_that_fails_fails_no_call",
    ),
    Mutation(
        "announcing-as-its-caller",
        "whoever changes a job need not be one who may write to Realtime",
        (Edit("realtime", "language plpgsql security definer", "language plpgsql"),),
        f"{TESTS}::test_a_member_of_the_service_that_row_level_security_holds_announces_too",
    ),
    Mutation(
        "announcing-without-realtime",
        "a PostgreSQL without Realtime is left in peace",
        (Edit("realtime", "if to_regprocedure('realtime.send(jsonb, text, text, boolean)') is null then", "if false then"),),
        f"{TESTS}::test_without_realtime_nothing_is_told_and_all_goes_on",
    ),
    Mutation(
        "announcing-large-progress",
        "messages are small",
        (Edit("realtime", "if octet_length(p_job.progress::text) > 4096 then", "if false then"),),
        f"{TESTS}::test_a_large_progress_is_left_to_be_read",
    ),
    Mutation(
        "deleting-in-silence",
        "a deletion is told",
        (
            Edit(
                "realtime",
                "create trigger job_removal_announced after delete on ledgerq.job for each row\n"
                "  when (old.owner_id is not null)\n  execute function ledgerq._announce_job();\n",
                "",
            ),
        ),
        f"{TESTS}::test_each_change_is_told_in_order_and_says_what_the_row_says",
    ),
)
