"""Garbage: points leave when nobody reads or writes them any more, and not before."""

from __future__ import annotations

from collections.abc import Iterator

import psycopg
import pytest

from tests.support.clock import LedgerClock
from tests.support.databases import Database
from tests.support.sql import Sql, begin, connected, job, lose, saved, working_on

GRACE_S = 60
LEASE_S = 20


@pytest.fixture
def sql(database: Database) -> Iterator[Sql]:
    with connected(database.service_dsn) as connection:
        yield connection


@pytest.fixture
def clock(database: Database) -> LedgerClock:
    return LedgerClock(database.dsn)


def listed(sql: Sql, **request: object) -> list[int]:
    return [item["generation"] for item in sql.call("garbage", **request)["items"]]


def counted(sql: Sql, document_id: str, generation: int, remaining: int = 0) -> str:
    item = {"document": document_id, "generation": generation, "remaining": remaining}
    return sql.call("garbage_gone", items=[item])["items"][0]["disposition"]


def indexed(sql: Sql, text: str = "text") -> tuple[str, int]:
    """A document with this text that was processed, and its live generation."""
    one = saved(sql, text)
    begun = begin(sql, one)
    working_on(sql, one).complete(begun)
    return one, begun["generation"]


def replaced(sql: Sql) -> tuple[str, int]:
    """A document whose first generation was replaced just now."""
    one, first = indexed(sql)
    indexed(sql, "new text")
    return one, first


def test_live_points_are_nobodys_garbage(sql: Sql, clock: LedgerClock) -> None:
    indexed(sql)
    clock.advance(10_000)
    assert listed(sql) == []


def test_replaced_points_wait_for_their_readers_and_are_counted_gone_twice(sql: Sql, clock: LedgerClock) -> None:
    one, first = replaced(sql)
    clock.advance(GRACE_S - 5)
    assert listed(sql) == []
    clock.advance(10)
    assert listed(sql) == [first]
    assert listed(sql) == [], "another sweeper has it in hand"
    assert counted(sql, one, first) == "seen"
    assert counted(sql, one, first) == "too_soon"
    clock.advance(LEASE_S + 1)
    assert listed(sql) == [first]
    assert counted(sql, one, first) == "gone"
    assert counted(sql, one, first) == "not_found"
    clock.advance(10_000)
    assert listed(sql) == []
    assert sql.value("select count(*) from ledgerq.generation") == 1


def test_grace_of_readers_is_the_callers(sql: Sql, clock: LedgerClock) -> None:
    _, first = replaced(sql)
    clock.advance(1)
    assert listed(sql, reader_grace_s=0) == [first]


def test_points_that_came_back_start_the_count_anew(sql: Sql, clock: LedgerClock) -> None:
    one, first = replaced(sql)
    clock.advance(GRACE_S + 5)
    listed(sql)
    assert counted(sql, one, first) == "seen"
    clock.advance(LEASE_S + 1)
    assert listed(sql) == [first]
    assert counted(sql, one, first, remaining=2) == "remaining"
    assert listed(sql) == [first]
    assert counted(sql, one, first) == "seen"
    clock.advance(LEASE_S + 1)
    assert counted(sql, one, first) == "gone"


def test_what_was_not_reported_is_listed_again(sql: Sql, clock: LedgerClock) -> None:
    _, first = replaced(sql)
    clock.advance(GRACE_S + 5)
    assert listed(sql) == [first]
    clock.advance(LEASE_S + 1)
    assert listed(sql) == [first]


def test_build_is_kept_while_any_task_may_go_on_with_it(sql: Sql, clock: LedgerClock) -> None:
    """Waiting for a retry, a task still counts on the points it has stored already."""
    one = saved(sql)
    run = working_on(sql, one)
    task = run.tasks[0]["id"]
    begun = begin(sql, one)
    run.advance({"task": task, "kind": "retry", "after_s": 50_000, "error": {"type": "X", "message": "x"}})
    for _ in range(5):
        clock.advance(5_000)
        assert listed(sql) == []
    assert begin(sql, one)["generation"] == begun["generation"]
    sql.call("cancel_jobs", jobs=[sql.value("select id::text from ledgerq.job")], actor="test", reason="")
    clock.advance(2_000)
    assert listed(sql) == [begun["generation"]]
    assert begin(sql, one)["generation"] > begun["generation"], "a number that is being removed is never built on again"


def test_abandoned_build_is_not_listed_while_somebody_has_just_begun(sql: Sql, clock: LedgerClock) -> None:
    one = saved(sql)
    begun = begin(sql, one)
    clock.advance(GRACE_S - 5)
    begin(sql, one)
    clock.advance(GRACE_S - 5)
    assert listed(sql) == []
    clock.advance(GRACE_S)
    assert listed(sql) == [begun["generation"]]


def test_abandoned_build_is_given_the_time_that_readers_are_given(sql: Sql, clock: LedgerClock) -> None:
    one = saved(sql)
    begun = begin(sql, one)
    clock.advance(100)
    assert listed(sql, reader_grace_s=600) == []
    clock.advance(700)
    assert listed(sql, reader_grace_s=600) == [begun["generation"]]


def test_points_of_an_old_revision_wait_for_the_run_that_writes_them(sql: Sql, clock: LedgerClock) -> None:
    one = saved(sql)
    run = working_on(sql, one)
    begun = begin(sql, one)
    saved(sql, "new text")
    for _ in range(3):
        clock.advance(15)
        run.sql.call("heartbeat_run", run=run.id, delivery=run.delivery)
        assert listed(sql) == []
        assert counted(sql, one, begun["generation"]) == "too_soon"
    run.complete(begun)
    clock.advance(15)
    assert listed(sql) == [begun["generation"]]


def test_work_that_began_later_does_not_hold_up_what_was_replaced(sql: Sql, clock: LedgerClock) -> None:
    """A document that is always being processed must not keep its old points for ever."""
    one, first = replaced(sql)
    clock.advance(GRACE_S + 5)
    working_on(sql, one)
    assert listed(sql) == [first]


def test_zombie_that_writes_for_a_lease_leaves_nothing(sql: Sql, clock: LedgerClock) -> None:
    """The first count comes after the run was lost, the second a lease later: what it wrote in between is found."""
    one = saved(sql)
    zombie = working_on(sql, one)
    begun = begin(sql, one)
    sql.call("delete_documents", documents=[one], actor="test")
    clock.advance(GRACE_S + 5)
    assert listed(sql) == []
    lose(sql, clock, zombie)
    clock.advance(LEASE_S)
    assert listed(sql) == [begun["generation"]]
    assert counted(sql, one, begun["generation"]) == "seen"
    clock.advance(LEASE_S + 1)
    assert counted(sql, one, begun["generation"], remaining=1) == "remaining"


def test_tombstone_stays_until_its_points_are_gone_and_nobody_holds_it(sql: Sql, clock: LedgerClock) -> None:
    one, first = indexed(sql)
    waiting = job(sql, {"key": "again", "document": one}, due_at="2999-01-01T00:00:00Z")["id"]
    sql.call("delete_documents", documents=[one], actor="test")
    for expected in ("seen", "gone"):
        clock.advance(GRACE_S + 5)
        assert listed(sql) == [first]
        assert counted(sql, one, first) == expected
    clock.advance(1)
    listed(sql)
    assert sql.call("document_get", document=one)["status"] == "deleted", "a task of it still waits"
    sql.call("cancel_jobs", jobs=[waiting], actor="test", reason="")
    clock.advance(10_000)
    listed(sql)
    assert sql.call("document_get", document=one) is None
    assert sql.rows("select count(*) from ledgerq.task where document_id = %s", one) == [(2,)], "who read it is still told"


def test_document_without_points_leaves_at_the_next_round(sql: Sql, clock: LedgerClock) -> None:
    one = saved(sql)
    sql.call("delete_documents", documents=[one], actor="test")
    clock.advance(1)
    listed(sql)
    assert sql.call("document_get", document=one) is None


def test_saved_again_before_it_is_gone(sql: Sql, clock: LedgerClock) -> None:
    """The old points leave, the document stays."""
    one, first = indexed(sql)
    sql.call("delete_documents", documents=[one], actor="test")
    assert saved(sql) == one
    for expected in ("seen", "gone"):
        clock.advance(GRACE_S + 5)
        assert listed(sql) == [first]
        assert counted(sql, one, first) == expected
    clock.advance(10_000)
    listed(sql)
    assert sql.call("document_get", document=one)["status"] == "pending"


def test_what_cannot_be_removed_does_not_stand_in_front_of_the_rest(sql: Sql, clock: LedgerClock) -> None:
    stuck, first_stuck = replaced(sql)
    free = saved(sql, uri="b.md")
    begun = begin(sql, free)
    working_on(sql, free).complete(begun)
    sql.call("delete_documents", documents=[free], actor="test")
    clock.advance(GRACE_S + 5)
    seen = [listed(sql, limit=1), listed(sql, limit=1)]
    assert sorted(seen) == sorted([[first_stuck], [begun["generation"]]])
    assert stuck != free


def test_sweeper_passes_by_a_document_that_is_locked(database: Database, sql: Sql, clock: LedgerClock) -> None:
    one, first = replaced(sql)
    clock.advance(GRACE_S + 5)
    with connected(database.service_dsn, autocommit=False) as other:
        other.run("select 1 from ledgerq.document where id = %s for no key update", one)
        assert listed(sql) == []
    assert listed(sql) == [first]


def test_many_generations_leave_in_batches(sql: Sql, clock: LedgerClock) -> None:
    one, _ = indexed(sql)
    for n in range(6):
        indexed(sql, f"text {n}")
    clock.advance(GRACE_S + 5)
    batches = [listed(sql, limit=4), listed(sql, limit=4), listed(sql, limit=4)]
    assert [len(batch) for batch in batches] == [4, 2, 0]
    answer = sql.call("garbage_gone", items=[{"document": one, "generation": g, "remaining": 0} for g in batches[0] + batches[1]])
    assert {item["disposition"] for item in answer["items"]} == {"seen"}


@pytest.mark.parametrize("wrong", [{"document": "x"}, {"generation": "many"}, {"remaining": -1}])
def test_counts_that_are_no_counts(sql: Sql, wrong: dict[str, object]) -> None:
    item = {"document": "019a0000-0000-7000-8000-000000000001", "generation": 1, "remaining": 0} | wrong
    with pytest.raises(psycopg.Error, match=rf"items\[0\].{next(iter(wrong))}") as caught:
        sql.call("garbage_gone", items=[item])
    assert caught.value.sqlstate == "LQ001"


def test_a_live_generation_cannot_be_counted_away(sql: Sql) -> None:
    one, first = indexed(sql)
    assert counted(sql, one, first) == "not_found"
    assert begin(sql, one)["disposition"] == "unchanged"
