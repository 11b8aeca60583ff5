"""Generations: who begins what, which one becomes live, and what a reader may believe."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from typing import Any
from uuid import uuid4

import psycopg
import pytest

from tests.support.clock import LedgerClock
from tests.support.databases import Database
from tests.support.sql import (
    CONFIG,
    Run,
    Sql,
    begin,
    completed,
    connected,
    document,
    effect_of,
    job,
    lose,
    save,
    saved,
    working_on,
)


@pytest.fixture
def sql(database: Database) -> Iterator[Sql]:
    with connected(database.service_dsn) as connection:
        yield connection


@pytest.fixture
def clock(database: Database) -> LedgerClock:
    return LedgerClock(database.dsn)


def live(sql: Sql, document_id: str) -> dict[str, Any]:
    return sql.call("live_generations", documents=[document_id])["documents"][0]


def generations(sql: Sql, document_id: str) -> dict[int, str]:
    rows = sql.rows(
        "select id, case when garbage_since is not null then 'garbage' when live_since is not null then 'live' else 'building' end"
        " from ledgerq.generation where document_id = %s order by id",
        document_id,
    )
    return dict(rows)


# --- beginning ----------------------------------------------------------------------------------------------------


def test_one_generation_for_document_revision_and_config(sql: Sql) -> None:
    one = saved(sql)
    first = begin(sql, one)
    assert (first["disposition"], first["revision"], first["live"]) == ("process", 1, None)
    assert first["body"] == {"kind": "inline", "text": "text"}
    assert begin(sql, one)["generation"] == first["generation"]
    other_config = begin(sql, one, "config-2")["generation"]
    saved(sql, "new text")
    next_revision = begin(sql, one)["generation"]
    assert first["generation"] < other_config < next_revision


def test_two_jobs_on_one_document_share_a_generation_and_either_may_end_first(sql: Sql) -> None:
    one = saved(sql)
    first, second = working_on(sql, one), working_on(sql, one)
    begun = [begin(sql, one), begin(sql, one)]
    assert begun[0]["generation"] == begun[1]["generation"]
    for run in (second, first):
        answer = run.complete(begun[0])
        assert (answer["stale"], answer["ignored"], answer["remove"], answer["finished"]) == ([], [], [], True)
    assert generations(sql, one) == {begun[0]["generation"]: "live"}
    assert begin(sql, one)["disposition"] == "unchanged"


def test_many_beginners_at_once_get_one_number(database: Database, sql: Sql) -> None:
    ids = [saved(sql, f"text {n}", f"{n}.md") for n in range(30)]
    seen: list[dict[str, int]] = []

    def begin_all(order: list[str]) -> None:
        with connected(database.service_dsn) as mine:
            wanted = [{"document": each, "config_digest": CONFIG} for each in order]
            begun = mine.call("begin_documents", documents=wanted)["documents"]
        seen.append({each["document"]: each["generation"] for each in begun})

    threads = [threading.Thread(target=begin_all, args=(ids[n:] + ids[:n],)) for n in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert len(seen) == 6
    assert all(each == seen[0] for each in seen)
    assert sql.value("select count(*) from ledgerq.generation") == 30


def test_unchanged_is_skipped_and_says_what_is_live(sql: Sql) -> None:
    one = saved(sql)
    begun = begin(sql, one)
    working_on(sql, one).complete(begun, points=9)
    again = begin(sql, one)
    assert (again["disposition"], again["generation"], again["body"]) == ("unchanged", begun["generation"], None)
    assert again["live"] == {"generation": begun["generation"], "config_digest": CONFIG, "points": 9}
    assert sql.value("select check_at from ledgerq.generation") is None, "the sweeper has nothing to look at"
    other = begin(sql, one, "config-2")
    assert (other["disposition"], other["live"]["generation"]) == ("process", begun["generation"])
    assert other["generation"] > begun["generation"]


def test_a_live_generation_found_wanting_is_followed_by_one_other(sql: Sql) -> None:
    one = saved(sql)
    first = begin(sql, one)
    working_on(sql, one).complete(first, points=9)
    wanting = {"document": one, "config_digest": CONFIG, "wanting": first["generation"]}
    again, repeated = (sql.call("begin_documents", documents=[wanting])["documents"][0] for _ in range(2))
    assert (again["disposition"], again["body"] is not None, again["live"]["generation"]) == ("process", True, first["generation"])
    assert again["generation"] == repeated["generation"] > first["generation"]
    assert begin(sql, one)["disposition"] == "unchanged", "who has not counted is told what is live"
    working_on(sql, one).complete(again)
    late = sql.call("begin_documents", documents=[wanting])["documents"][0]
    assert (late["disposition"], late["live"]["generation"]) == ("unchanged", again["generation"])
    assert generations(sql, one) == {first["generation"]: "garbage", again["generation"]: "live"}


def test_deleted_and_unknown_are_told_apart(sql: Sql) -> None:
    one, unknown = saved(sql), str(uuid4())
    sql.call("delete_documents", documents=[one], actor="test")
    assert begin(sql, one)["disposition"] == "deleted"
    assert begin(sql, unknown) == {"document": unknown, "disposition": "not_found"}
    assert generations(sql, one) == {}


def test_texts_of_one_answer_are_bounded(sql: Sql) -> None:
    ids = [saved(sql, str(n) * 1_000_000, f"{n}.md") for n in range(10)]
    begun = sql.call("begin_documents", documents=[{"document": each, "config_digest": CONFIG} for each in ids])["documents"]
    assert [each["document"] for each in begun] == ids
    assert [each["body"] is not None for each in begun] == [True] * 8 + [False] * 2
    left_out = sql.call("document_get", document=ids[-1])
    assert left_out["body"]["text"] == "9" * 1_000_000


@pytest.mark.parametrize(
    ("wrong", "named"),
    [
        ({"document": "x"}, r"documents\[0\].document: 'x'"),
        ({"config_digest": ""}, r"documents\[0\].config_digest"),
        ({"config_digest": None}, r"documents\[0\].config_digest: nothing"),
        ({"wanting": "x"}, r"documents\[0\].wanting: 'x'"),
    ],
)
def test_begin_names_what_is_wrong(sql: Sql, wrong: dict[str, Any], named: str) -> None:
    with pytest.raises(psycopg.Error, match=named) as caught:
        sql.call("begin_documents", documents=[{"document": str(uuid4()), "config_digest": CONFIG} | wrong])
    assert caught.value.sqlstate == "LQ001"


# --- the flip -----------------------------------------------------------------------------------------------------


def test_flip_comes_with_the_acknowledgement(sql: Sql) -> None:
    one = saved(sql)
    run = working_on(sql, one)
    begun = begin(sql, one)
    assert live(sql, one)["live_generation"] is None
    run.complete(begun, points=5, digest="e" * 64)
    now = live(sql, one)
    assert (now["live_generation"], now["previous_generation"]) == (begun["generation"], None)
    assert sql.rows("select points, digest, chunks from ledgerq.generation") == [(5, "e" * 64, 5)]


def test_new_revision_takes_over_and_the_old_points_wait_for_their_readers(sql: Sql) -> None:
    one = saved(sql)
    first = begin(sql, one)
    working_on(sql, one).complete(first)
    before = live(sql, one)
    saved(sql, "new text")
    second = begin(sql, one)
    answer = working_on(sql, one).complete(second)
    after = live(sql, one)
    assert answer["remove"] == []
    assert (after["live_generation"], after["previous_generation"]) == (second["generation"], first["generation"])
    assert after["previous_since"] == before["live_since"]
    assert after["live_since"] > before["live_since"]
    assert generations(sql, one) == {first["generation"]: "garbage", second["generation"]: "live"}


def test_content_that_changed_meanwhile_is_stale_and_done_again_uncharged(sql: Sql) -> None:
    one = saved(sql)
    run = working_on(sql, one)
    task = run.tasks[0]["id"]
    begun = begin(sql, one)
    saved(sql, "new text")
    answer = run.complete(begun)
    assert answer["stale"] == [task]
    assert answer["remove"] == [{"document": one, "generation": begun["generation"], "tenant": ""}]
    assert live(sql, one)["live_generation"] is None
    assert sql.rows("select status, attempts from ledgerq.task where id = %s", task)[0][1] == 0
    again = Run(sql, answer["runs"][0]["run"])
    again.start()
    again.complete(begin(sql, one))
    assert sql.call("document_get", document=one)["status"] == "indexed"


def test_deleted_meanwhile_is_cancelled_and_its_points_go(sql: Sql) -> None:
    one = saved(sql)
    run = working_on(sql, one)
    begun = begin(sql, one)
    sql.call("delete_documents", documents=[one], actor="test")
    answer = run.complete(begun)
    assert (answer["stale"], answer["remove"]) == ([], [{"document": one, "generation": begun["generation"], "tenant": ""}])
    assert sql.rows("select status from ledgerq.task") == [("cancelled",)]
    assert live(sql, one)["live_generation"] is None


def test_two_jobs_in_any_order_leave_the_newest_revision(sql: Sql) -> None:
    """The job that began the older revision ends last, and changes nothing that is visible."""
    one = saved(sql)
    slow = working_on(sql, one)
    task = slow.tasks[0]["id"]
    old = begin(sql, one)
    saved(sql, "new text")
    quick = working_on(sql, one)
    new = begin(sql, one)
    quick.complete(new)
    assert slow.complete(old)["stale"] == [task]
    assert live(sql, one)["live_generation"] == new["generation"]


def test_of_two_configurations_the_one_begun_later_stays(sql: Sql) -> None:
    """During a deploy both are in work. Whoever ends last, the live generation never falls back to the one begun before."""
    one = saved(sql)
    old_worker, new_worker = working_on(sql, one), working_on(sql, one)
    old, new = begin(sql, one, "old"), begin(sql, one, "new")
    new_worker.complete(new)
    answer = old_worker.complete(old)
    assert (answer["stale"], answer["remove"][0]["generation"]) == ([], old["generation"])
    assert live(sql, one)["live_generation"] == new["generation"]
    assert sql.rows("select status from ledgerq.job") == [("completed",), ("completed",)]


def test_going_back_to_an_earlier_configuration_gets_a_new_number(sql: Sql) -> None:
    """The first build of that configuration is being removed: its number must never be built on again."""
    one = saved(sql)
    numbers = []
    for config in ("a", "b", "a"):
        begun = begin(sql, one, config)
        working_on(sql, one).complete(begun)
        numbers.append(begun["generation"])
    assert numbers == sorted(set(numbers))
    assert live(sql, one)["live_generation"] == numbers[-1]


def test_zombie_changes_nothing(sql: Sql, clock: LedgerClock) -> None:
    """A run that was lost still writes and acknowledges; meanwhile its task was done by another one, with the same numbers."""
    one = saved(sql)
    zombie = working_on(sql, one)
    begun = begin(sql, one)
    lose(sql, clock, zombie)
    (dispatched,) = queued(sql)
    owner = Run(sql, dispatched)
    owner.start()
    assert begin(sql, one)["generation"] == begun["generation"]
    assert zombie.complete(begun, points=99)["disposition"] == "superseded"
    assert live(sql, one)["live_generation"] is None
    owner.complete(begun, points=3)
    assert zombie.complete(begun, points=99)["disposition"] == "superseded"
    assert sql.rows("select points from ledgerq.generation") == [(3,)]


def queued(sql: Sql) -> list[str]:
    return [row[0] for row in sql.rows("select distinct run_id::text from ledgerq.task where status = 'queued'")]


def test_lost_reply_flips_once(sql: Sql) -> None:
    one = saved(sql)
    run = working_on(sql, one)
    task = run.tasks[0]["id"]
    begun = begin(sql, one)
    run.complete(begun)
    since = live(sql, one)["live_since"]
    run.step -= 1
    assert run.complete(begun, task=task)["finished"] is True
    assert live(sql, one)["live_since"] == since


def test_an_outcome_flips_all_of_its_documents_or_none(sql: Sql) -> None:
    ids = [saved(sql, uri=f"{n}.md") for n in range(2)]
    run = working_on(sql, ids[0])
    begun = [begin(sql, each) for each in ids]
    save(sql, document("changed", "1.md"))
    answer = run.advance({"task": run.tasks[0]["id"], "kind": "completed", "effects": [effect_of(each) for each in begun]})
    assert len(answer["stale"]) == 1
    assert [live(sql, each)["live_generation"] for each in ids] == [None, None]


@pytest.mark.parametrize("kind", ["failed", "cancelled", "retry", "returned"])
def test_only_completed_flips(sql: Sql, kind: str) -> None:
    one = saved(sql)
    run = working_on(sql, one)
    run.advance(completed(run.tasks[0]["id"], begin(sql, one)) | {"kind": kind, "error": {"type": "X", "message": "x"}})
    assert live(sql, one)["live_generation"] is None


def test_generation_that_was_never_allotted_fails_its_own_call_in_class_23(sql: Sql) -> None:
    """The class that makes a runner acknowledge one by one, so that only this outcome fails."""
    one = saved(sql)
    run = working_on(sql, one)
    with pytest.raises(psycopg.Error, match="never allotted") as caught:
        run.complete(begin(sql, one) | {"generation": 4_711})
    assert caught.value.sqlstate == "23503"
    assert live(sql, one)["live_generation"] is None


def test_two_tasks_of_one_window_about_one_document(sql: Sql) -> None:
    one = saved(sql)
    sql.run("update ledgerq.queue set depth = 1")
    created = job(sql, {"key": "a", "document": one}, {"key": "b", "document": one})
    run = Run(sql, created["runs"][0]["run"])
    run.start()
    old, new = begin(sql, one, "old"), begin(sql, one, "new")
    answer = run.advance(completed(run.tasks[0]["id"], new), completed(run.tasks[1]["id"], old))
    assert (answer["finished"], answer["remove"][0]["generation"]) == (True, old["generation"])
    assert live(sql, one)["live_generation"] == new["generation"]


def test_document_without_text_loses_its_old_points(sql: Sql) -> None:
    one = saved(sql)
    working_on(sql, one).complete(begin(sql, one))
    saved(sql, "")
    empty = begin(sql, one)
    working_on(sql, one).complete(empty, points=0)
    assert live(sql, one)["live_generation"] == empty["generation"]
    assert sql.call("document_get", document=one)["points"] == 0


# --- usage --------------------------------------------------------------------------------------------------------


def test_usage_counts_once_and_also_for_what_was_stale(sql: Sql) -> None:
    one = saved(sql, tenant="t")
    run = working_on(sql, one, tenant="t")
    begun = begin(sql, one)
    calls = [{"id": str(uuid4()), "provider": "openai", "model": "m", "tokens": 10 * n, "cost": 0.25, "saved_tokens": 1} for n in (1, 2)]
    task = run.tasks[0]["id"]
    saved(sql, "new text", tenant="t")
    run.complete(begun, usage=calls)
    run.step -= 1
    run.complete(begun, task=task, usage=calls)
    found = sql.rows("select tenant, provider, tokens, cost::float, saved_tokens from ledgerq.usage order by tokens")
    assert found == [("t", "openai", 10, 0.25, 1), ("t", "openai", 20, 0.25, 1)]


def test_usage_that_is_reported_by_two_attempts_counts_once(sql: Sql) -> None:
    """The call was made for the first attempt, and its result was found again by the second."""
    one = saved(sql)
    call = {"id": str(uuid4()), "provider": "openai", "model": "m", "tokens": 10, "cost": 0.25, "saved_tokens": 0}
    for config in ("a", "b"):
        working_on(sql, one).complete(begin(sql, one, config), usage=[call])
    assert sql.rows("select tokens from ledgerq.usage") == [(10,)]


def test_usage_of_an_ignored_outcome_counts(sql: Sql) -> None:
    one = saved(sql, tenant="t")
    run = working_on(sql, one, tenant="t")
    (task,) = run.tasks
    sql.run("update ledgerq.task set status = 'cancelled', finished_at = now() where id = %s", task["id"])
    late = {"id": str(uuid4()), "provider": "openai", "model": "m", "tokens": 5, "cost": 0, "saved_tokens": 0}
    assert run.complete(begin(sql, one), usage=[late])["ignored"] == [task["id"]]
    assert sql.rows("select id::text, tenant, job_id::text from ledgerq.usage") == [(late["id"], "t", task["job"])]


def test_ignored_outcome_gives_its_points_up_unless_another_task_builds_on_them(sql: Sql) -> None:
    one = saved(sql)
    runs = [working_on(sql, one), working_on(sql, one)]
    begun = begin(sql, one)
    tasks = [run.tasks[0]["id"] for run in runs]
    cancel = "update ledgerq.task set status = 'cancelled', finished_at = now() where id = %s"
    sql.run(cancel, tasks[0])
    assert runs[0].complete(begun, task=tasks[0])["remove"] == []
    assert begin(sql, one)["generation"] == begun["generation"]
    sql.run(cancel, tasks[1])
    assert runs[1].complete(begun, task=tasks[1])["remove"] == [{"document": one, "generation": begun["generation"], "tenant": ""}]
    assert begin(sql, one)["generation"] > begun["generation"]


# --- readers ------------------------------------------------------------------------------------------------------


def accepted(sql: Sql, document_id: str, moment: str, hits: list[int]) -> list[int]:
    """What a search does with hits that it found after taking this moment of the ledger's clock."""
    now = live(sql, document_id)
    if now["deleted_at"] is not None and now["deleted_at"] <= moment:
        return []
    if now["live_since"] is not None and now["live_since"] <= moment:
        return [hit for hit in hits if hit == now["live_generation"]]
    if now["previous_since"] is not None and now["previous_since"] <= moment:
        return [hit for hit in hits if hit == now["previous_generation"]]
    return []


def test_reader_sees_what_was_live_at_its_moment(sql: Sql) -> None:
    one = saved(sql)
    first = begin(sql, one)["generation"]
    hits = [first]
    before = sql.call("moment")["now"]
    working_on(sql, one).complete(begin(sql, one))
    between = sql.call("moment")["now"]
    saved(sql, "new text")
    second = begin(sql, one)["generation"]
    hits.append(second)
    working_on(sql, one).complete(begin(sql, one))
    after = sql.call("moment")["now"]
    assert [accepted(sql, one, moment, hits) for moment in (before, between, after)] == [[], [first], [second]]
    sql.call("delete_documents", documents=[one], actor="test")
    assert accepted(sql, one, after, hits) == [second]
    assert accepted(sql, one, sql.call("moment")["now"], hits) == []


def test_undeleted_document_starts_without_points(sql: Sql) -> None:
    one = saved(sql)
    old = begin(sql, one)
    working_on(sql, one).complete(old)
    sql.call("delete_documents", documents=[one], actor="test")
    assert save(sql, document())[0] == {"id": one, "uri": "a.md", "revision": 2, "disposition": "changed"}
    assert (live(sql, one)["live_generation"], live(sql, one)["deleted_at"]) == (None, None)
    again = begin(sql, one)
    assert (again["disposition"], again["live"]) == ("process", None)
    working_on(sql, one).complete(again)
    assert generations(sql, one) == {old["generation"]: "garbage", again["generation"]: "live"}


def test_a_documents_dates_never_go_backwards(sql: Sql, clock: LedgerClock) -> None:
    """The machine's clock was set back between two flips: readers still find one order."""
    one = saved(sql)
    clock.advance(100)
    working_on(sql, one).complete(begin(sql, one))
    clock.advance(-90)
    working_on(sql, one).complete(begin(sql, one, "config-2"))
    now = live(sql, one)
    assert now["previous_since"] <= now["live_since"]
