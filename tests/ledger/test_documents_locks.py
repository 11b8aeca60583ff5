"""Documents under two transactions at once, in the orders that hurt: each waits, then sees what the other did."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from typing import Any

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
    save,
    saved,
    working_on,
)
from tests.support.waiting import eventually


@pytest.fixture
def sql(database: Database) -> Iterator[Sql]:
    with connected(database.service_dsn) as connection:
        yield connection


@pytest.fixture
def other(database: Database) -> Iterator[Sql]:
    """A second session, whose transaction stays open until it is committed."""
    with connected(database.service_dsn, autocommit=False) as connection:
        yield connection


class Blocked:
    """A call in a thread that waits for a lock of somebody else."""

    def __init__(self, sql: Sql, watcher: Sql, act: Callable[[], Any]) -> None:
        self.answer: Any = None
        self.error: Exception | None = None
        self._thread = threading.Thread(target=self._run, args=(act,))
        self._thread.start()
        pid = sql.connection.info.backend_pid
        eventually(
            lambda: watcher.value("select wait_event_type = 'Lock' from pg_stat_activity where pid = %s", pid), seconds=20, what="it waits"
        )

    def result(self) -> Any:
        self._thread.join(20)
        assert not self._thread.is_alive()
        if self.error is not None:
            raise self.error
        return self.answer

    def _run(self, act: Callable[[], Any]) -> None:
        try:
            self.answer = act()
        except Exception as error:
            self.error = error


def test_acknowledgement_waits_for_a_save_and_is_stale(database: Database, sql: Sql, other: Sql) -> None:
    one = saved(sql)
    run = working_on(sql, one)
    task = run.tasks[0]["id"]
    begun = begin(sql, one)
    saved(other, "new text")
    with connected(database.superuser_dsn) as watcher:
        acknowledgement = Blocked(sql, watcher, lambda: run.complete(begun))
    other.connection.commit()
    assert acknowledgement.result()["stale"] == [task]
    assert sql.value("select live_generation from ledgerq.document") is None


def test_acknowledgement_waits_for_a_delete_and_is_cancelled(database: Database, sql: Sql, other: Sql) -> None:
    one = saved(sql)
    run = working_on(sql, one)
    begun = begin(sql, one)
    other.call("delete_documents", documents=[one], actor="test")
    with connected(database.superuser_dsn) as watcher:
        acknowledgement = Blocked(sql, watcher, lambda: run.complete(begun))
    other.connection.commit()
    assert acknowledgement.result()["remove"] == [{"document": one, "generation": begun["generation"], "tenant": ""}]
    assert sql.rows("select status from ledgerq.task") == [("cancelled",)]


def test_begin_waits_for_a_save_and_gets_the_new_revision(database: Database, sql: Sql, other: Sql) -> None:
    one = saved(sql)
    saved(other, "new text")
    with connected(database.superuser_dsn) as watcher:
        beginning = Blocked(sql, watcher, lambda: begin(sql, one))
    other.connection.commit()
    begun = beginning.result()
    assert (begun["revision"], begun["body"]["text"]) == (2, "new text")
    assert sql.rows("select revision from ledgerq.generation") == [(2,)]


def test_begin_waits_for_a_flip_and_finds_nothing_to_do(database: Database, sql: Sql, other: Sql) -> None:
    one = saved(sql)
    run = working_on(sql, one)
    begun = begin(sql, one)
    Run(other, run.id, delivery=run.delivery).advance(completed(run.tasks[0]["id"], begun))
    with connected(database.superuser_dsn) as watcher:
        beginning = Blocked(sql, watcher, lambda: begin(sql, one))
    other.connection.commit()
    assert beginning.result()["disposition"] == "unchanged"


def test_two_saves_of_a_new_document_wait_and_count_revisions(database: Database, sql: Sql, other: Sql) -> None:
    first = save(other, document("one"))[0]
    with connected(database.superuser_dsn) as watcher:
        second = Blocked(sql, watcher, lambda: save(sql, document("two"))[0])
    other.connection.commit()
    assert second.result() == first | {"revision": 2, "disposition": "changed"}


def test_a_deleted_document_that_is_being_saved_again_is_not_purged(database: Database, sql: Sql, other: Sql) -> None:
    clock = LedgerClock(database.dsn)
    one = saved(sql)
    sql.call("delete_documents", documents=[one], actor="test")
    clock.advance(10)
    saved(other)
    sql.call("garbage")
    other.connection.commit()
    sql.call("garbage")
    assert sql.call("document_get", document=one)["status"] == "pending"


Act = Callable[[Sql, Run, list[dict[str, Any]]], Any]

ACTS: dict[str, Act] = {
    "advance_run": lambda sql, run, begun: run.advance(
        {"task": run.tasks[0]["id"], "kind": "completed", "effects": [effect_of(each) for each in reversed(begun)]}
    ),
    "begin_documents": lambda sql, run, begun: sql.call(
        "begin_documents", documents=[{"document": each["document"], "config_digest": CONFIG} for each in reversed(begun)]
    ),
    "save_documents": lambda sql, run, begun: save(sql, *(document("new", each["uri"]) for each in reversed(begun))),
    "delete_documents": lambda sql, run, begun: sql.call(
        "delete_documents", documents=[each["document"] for each in reversed(begun)], actor="test"
    ),
    "garbage_gone": lambda sql, run, begun: sql.call(
        "garbage_gone",
        items=[{"document": each["document"], "generation": each["generation"], "remaining": 0} for each in reversed(begun)],
    ),
}


@pytest.mark.parametrize("function", ACTS)
def test_documents_are_locked_in_the_order_of_their_ids(database: Database, sql: Sql, other: Sql, function: str) -> None:
    """While it waits for the first it holds none of the others: whoever goes in the same order is never met head-on."""
    ids = sorted(saved(sql, uri=uri) for uri in ("z.md", "a.md", "m.md"))
    run = working_on(sql, ids[0])
    begun = [begin(sql, each) for each in ids]
    other.run("select 1 from ledgerq.document where id = %s for no key update", ids[0])
    with connected(database.superuser_dsn) as watcher:
        call = Blocked(sql, watcher, lambda: ACTS[function](sql, run, begun))
    for each in ids[1:]:
        other.run("select 1 from ledgerq.document where id = %s for no key update nowait", each)
    other.connection.commit()
    assert call.result() is not None


# --- fences that are held twice: each alone ---------------------------------------------------------------------------


def test_an_old_revision_is_stale_even_if_nothing_calls_its_generation_garbage(sql: Sql) -> None:
    one = saved(sql)
    run = working_on(sql, one)
    task = run.tasks[0]["id"]
    begun = begin(sql, one)
    saved(sql, "new text")
    sql.run("update ledgerq.generation set garbage_since = null where id = %s", begun["generation"])
    assert run.complete(begun)["stale"] == [task]


def test_a_generation_that_is_garbage_is_stale_even_if_the_revision_is_the_same(sql: Sql) -> None:
    one = saved(sql)
    run = working_on(sql, one)
    task = run.tasks[0]["id"]
    begun = begin(sql, one)
    sql.run("update ledgerq.generation set garbage_since = now() where id = %s", begun["generation"])
    assert run.complete(begun)["stale"] == [task]
    assert begin(sql, one)["generation"] > begun["generation"]


def test_a_living_document_is_never_purged(sql: Sql) -> None:
    one = saved(sql)
    sql.run("update ledgerq.document set check_at = now() - interval '1 hour' where id = %s", one)
    sql.call("garbage")
    assert sql.call("document_get", document=one)["status"] == "pending"


def test_a_document_with_points_cannot_vanish(sql: Sql) -> None:
    one = saved(sql)
    begin(sql, one)
    with pytest.raises(psycopg.errors.ForeignKeyViolation):
        sql.run("delete from ledgerq.document where id = %s", one)


def test_points_that_another_run_still_writes_are_not_for_the_worker_to_remove(sql: Sql) -> None:
    one = saved(sql)
    runs = [working_on(sql, one), working_on(sql, one)]
    begun = begin(sql, one)
    saved(sql, "new text")
    sql.call("pause_queue", queue="processing", actor="test")
    assert runs[0].complete(begun)["remove"] == []
    assert runs[1].complete(begun)["remove"] == [{"document": one, "generation": begun["generation"], "tenant": ""}]


def test_builds_begun_before_the_one_that_became_live_are_garbage(sql: Sql) -> None:
    one = saved(sql)
    older = begin(sql, one, "older")
    working_on(sql, one).complete(begin(sql, one, "newer"))
    assert sql.value("select garbage_since is not null from ledgerq.generation where id = %s", older["generation"])
    assert job(sql, {"key": "x", "document": one})["runs"]
