"""Every invariant is really checked: each is broken by hand, and named."""

from __future__ import annotations

from collections.abc import Iterator

import psycopg
import pytest

from tests.support.databases import Database
from tests.support.invariants import INVARIANTS, broken_invariants
from tests.support.sql import connected
from tests.support.work import Work, outcome

BREAKS: list[tuple[str, str]] = [
    ("1.", "update ledgerq.job set completed = completed + 1 where status = 'in_progress'"),
    ("2.", "update ledgerq.run set status = 'finished', ended_at = now() where status = 'running'"),
    ("2.", "update ledgerq.task set seq = 99 where status = 'queued'"),
    ("3.", "update ledgerq.event set data = '{\"completed\": 2}' where kind = 'progressed'"),
    ("4.", "update ledgerq.job set status = 'completed', finished_at = now(), completed = 3 where status = 'in_progress'"),
    ("5.", "update ledgerq.run set status = 'dispatched' where status = 'running'"),
    ("6.", "update ledgerq.task set attempts = 3 where status = 'queued'"),
    ("6.", "update ledgerq.task set crashes = 5"),
    ("6.", "update ledgerq.task set losses = 7"),
    ("7.", "update ledgerq.generation set document_id = (select id from ledgerq.document where live_generation is null)"),
    ("8.", "update ledgerq.task set status = 'completed', finished_at = now() where status = 'queued'"),
    ("a job that is queued", "update ledgerq.task set status = 'pending', run_id = null, seq = null where status = 'queued'"),
    (
        "a job whose cancel",
        (
            "update ledgerq.job set cancel_requested_at = now(); "
            "update ledgerq.task set status = 'pending', run_id = null, seq = null where status = 'queued'"
        ),
    ),
    ("a task that must be alone", "update ledgerq.task set alone = true"),
    ("what is told of a job", "update ledgerq.task set owner_id = gen_random_uuid()"),
    ("what is told of a job", "update ledgerq.event set owner_id = gen_random_uuid()"),
    ("what is told of a job", "update ledgerq.job set owner_id = gen_random_uuid()"),
    (
        "what is told of a job",
        (
            "insert into ledgerq.usage (id, owner_id, job_id, provider, model) "
            "select gen_random_uuid(), gen_random_uuid(), id, 'p', 'm' from ledgerq.job"
        ),
    ),
]


@pytest.fixture
def broken(module_database: Database, work: Work) -> Iterator[psycopg.Connection[tuple[object, ...]]]:
    """A superuser whom no trigger stops, over a job of three with one task completed and two held; undone at the end."""
    _, run = work.running(3)
    run.advance(outcome(run.tasks[0]))
    with psycopg.connect(module_database.superuser_dsn) as connection:
        connection.execute("set session_replication_role = replica")
        connection.execute(
            "insert into ledgerq.document (id, changed_under, uri, content_hash, body, live_generation, live_since, live_revision) values "
            "(gen_random_uuid(), gen_random_uuid(), 'a', '', '{\"kind\": \"inline\"}', 1, now(), 1), "
            "(gen_random_uuid(), gen_random_uuid(), 'b', '', '{\"kind\": \"inline\"}', null, null, null)"
        )
        connection.execute(
            "insert into ledgerq.generation (id, document_id, revision, config_digest) "
            "overriding system value select 1, id, 1, 'c' from ledgerq.document where live_generation = 1"
        )
        assert broken_invariants(connection) == {}
        yield connection
        connection.rollback()


@pytest.mark.parametrize(("invariant", "statement"), BREAKS)
def test_broken_invariant_is_named(broken: psycopg.Connection[tuple[object, ...]], invariant: str, statement: str) -> None:
    broken.execute(statement.encode())
    assert any(name.startswith(invariant) for name in broken_invariants(broken))


def test_every_invariant_is_broken_by_some_test() -> None:
    assert all(any(name.startswith(invariant) for invariant, _ in BREAKS) for name in INVARIANTS)


def test_empty_ledger_breaks_nothing(work: Work, other_dsn: str) -> None:
    with connected(other_dsn) as sql:
        assert broken_invariants(sql.connection) == {}
