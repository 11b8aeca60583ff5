"""The ledger behind a pooler that hands each transaction to another session: port 6543 of a Supabase project."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from itertools import pairwise
from typing import Any
from uuid import UUID, uuid4

import psycopg
import pytest

from ledgerq.errors import ConfigurationError, LedgerUnavailable
from ledgerq.ids import new_id
from ledgerq.ledger import LedgerStore, TaskReport, Transport
from ledgerq.ledger.answers import QueueLimits
from ledgerq.ledger.migrate import MigrationReport, migrate, schema_version
from ledgerq.ledger.migration_files import Migration, shipped_migrations
from ledgerq.ledger.postgres import PostgresTransport
from ledgerq.lifecycle import JobStatus
from ledgerq.models import JobRequest, RunVerdict, TaskRequest, Verdict
from ledgerq.outcomes import Completed
from tests.pooler.conftest import SESSIONS, through
from tests.support.databases import Database, Databases
from tests.support.pooler import pooled
from tests.support.proxy import proxied
from tests.support.waiting import eventually

ALL = tuple(migration.version for migration in shipped_migrations())
OF_THE_LOGIN = {"application_name", "client_encoding", "DateStyle", "IntervalStyle", "TimeZone", "standard_conforming_strings"}
"""Settings that a pooler may carry over to a session from the client that it lends it to."""
REMEMBERED = {
    "prepared statements": "select name from pg_prepared_statements",
    "advisory locks": "select objid from pg_locks where locktype = 'advisory' and pid = pg_backend_pid()",
    "settings": "select name from pg_settings where source = 'session' and not name = any (%s)",
    "temporary tables": "select relname from pg_class where relnamespace = pg_my_temp_schema()",
    "channels": "select pg_listening_channels()",
    "cursors": "select name from pg_cursors",
}
"""What a session would carry over to whoever gets it next."""
CARELESS = (
    "prepare of_mine as select 1",
    "select pg_advisory_lock(7)",
    "set work_mem = '5MB'",
    "create temporary table of_mine ()",
    "listen of_mine",
    "declare of_mine cursor with hold for select 1",
)
"""What no client of a transaction pooler may do."""


def test_each_call_is_made_in_another_session(probed: Database) -> None:
    with pooled(probed.service_dsn, sessions=SESSIONS) as strict:
        transport = PostgresTransport(strict.dsn)
        backends = [_backend(transport) for _ in range(3 * SESSIONS)]
        transport.close()
    assert len(set(backends)) == SESSIONS
    assert all(one != following for one, following in pairwise(backends))


def test_jobs_of_many_threads_run_to_their_end_and_no_session_remembers_them(pooler: Database, transport: Transport) -> None:
    store = LedgerStore(transport)
    store.save_queue("processing", QueueLimits(depth=100))
    with ThreadPoolExecutor(8) as threads:
        jobs = list(threads.map(lambda _: _worked_through(store), range(24)))
    assert [_status(store, job) for job in jobs] == [JobStatus.COMPLETED] * 24
    assert _remembered(pooler.service_dsn) == []


def test_what_a_session_remembers_is_seen(probed: Database) -> None:
    """Otherwise the test before proved nothing."""
    with pooled(probed.service_dsn, sessions=SESSIONS) as strict:
        with psycopg.connect(strict.dsn, autocommit=True) as careless:
            for statement in CARELESS:
                careless.execute(statement.encode())
        assert {what for what, _ in _remembered(strict.dsn)} == set(REMEMBERED)


def test_the_status_sync_decides_through_it(transport: Transport) -> None:
    store = LedgerStore(transport)
    job = _request()
    (ticket,) = store.create_jobs([job]).runs
    (live,) = store.live_runs(runs=[ticket.run]).runs
    fence = {"seen_status": live.status, "seen_step": live.step, "seen_heartbeat_at": live.heartbeat_at}
    verdict = RunVerdict(run=ticket.run, verdict=Verdict.REVOKE, **fence)
    (decided,) = store.reconcile_runs([verdict], actor="sync", dispatch=False).runs
    assert (decided.disposition, _status(store, job.id)) == ("applied", JobStatus.PENDING)
    store.cancel_jobs([job.id], actor="test")


def test_a_large_request_and_its_answer_pass(transport: Transport) -> None:
    document: dict[str, Any] = {"text": "x" * 8_000_000}
    assert transport.call("probe_echo", document) == document


def test_a_reply_that_is_lost_before_the_pooler_is_asked_for_again(pooler: Database) -> None:
    with proxied(pooler.service_dsn) as (dsn, network):
        transport = PostgresTransport(dsn)
        network.faults.replies_to_lose = 1
        assert transport.call("probe_write", {"note": str(uuid4())}) == {"rows": 2}
        transport.close()


def test_a_session_that_is_lost_behind_the_pooler_in_the_middle_of_a_call_is_made_up_for(
    pooler: Database, transport: Transport, admin: psycopg.Connection
) -> None:
    with ThreadPoolExecutor(1) as thread:
        answer = thread.submit(transport.call, "probe_sleep", {"seconds": 0.7})
        (pid,) = eventually(lambda: _sleeping(admin, pooler))
        admin.execute("select pg_terminate_backend(%s)", (pid,))
        assert answer.result(30) == {}
        assert transport.call("probe_echo", {"still": "here"}) == {"still": "here"}


def test_sessions_that_ended_while_nobody_used_them_do_not_matter(
    pooler: Database, transport: Transport, admin: psycopg.Connection
) -> None:
    transport.call("probe_echo", {})
    admin.execute(
        "select pg_terminate_backend(pid) from pg_stat_activity where datname = %s and usename = 'ledgerq_service'", (pooler.name,)
    )
    assert transport.call("probe_echo", {"still": "here"}) == {"still": "here"}


def test_giving_up_stops_the_call_that_was_given_up_and_no_other(pooler: Database, admin: psycopg.Connection) -> None:
    impatient = PostgresTransport(pooler.service_dsn, timeout_s=0.3)
    with psycopg.connect(pooler.service_dsn, prepare_threshold=None) as patient, ThreadPoolExecutor(1) as thread:
        other = thread.submit(patient.execute, "select ledgerq.probe_sleep('{\"seconds\": 1.5}')")
        (its_session,) = eventually(lambda: _sleeping(admin, pooler))
        with pytest.raises(LedgerUnavailable, match="no answer in time"):
            impatient.call("probe_sleep", {"seconds": 60})
        eventually(lambda: set(_sleeping(admin, pooler)) <= {its_session}, seconds=20)
        assert other.result(30).fetchone() == ({},)
    impatient.close()


# --- addresses ------------------------------------------------------------------------------------------------------


def test_users_that_carry_their_project_are_let_in(probed: Database) -> None:
    with pooled(probed.service_dsn, sessions=1, tenant="abcdefghijklmnopqrst") as strict:
        assert "//ledgerq_service.abcdefghijklmnopqrst:" in strict.dsn
        transport = PostgresTransport(strict.dsn)
        answer = transport.call("probe_session", {})
        transport.close()
    assert isinstance(answer, dict)
    assert answer["user"] == "ledgerq_service"


def test_an_unknown_project_is_a_clear_mistake(probed: Database) -> None:
    with pooled(probed.service_dsn, sessions=1, tenant="abcdefghijklmnopqrst") as strict:
        transport = PostgresTransport(strict.dsn.replace("abcdefghijklmnopqrst", "someotherproject"))
        with pytest.raises(ConfigurationError, match=r"does not let this user in; check DATABASE_URL.*\(ENOTFOUND\)"):
            transport.call("probe_echo", {})
        transport.close()


# --- migrations -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["ours", "pgbouncer"])
def test_migrations_apply_through_it_also_when_two_start_at_once(databases: Databases, kind: str) -> None:
    """Each is one transaction, and so are its lock and its settings."""
    with databases.empty() as empty, through(kind, empty) as pooler:
        with ThreadPoolExecutor(2) as threads:
            reports = list(threads.map(migrate, [pooler.dsn] * 2))
        assert sorted(version for report in reports for version in report.applied) == list(ALL)
        assert migrate(pooler.dsn) == MigrationReport(applied=(), version=ALL[-1])
        assert schema_version(pooler.dsn) == ALL[-1]
        assert _remembered(pooler.dsn) == []


def test_a_migration_whose_session_is_lost_is_told_apart_from_one_that_fails(probed: Database, admin: psycopg.Connection) -> None:
    slow = Migration(version="99990101000000", name="slow", script="select ledgerq.probe_sleep('{\"seconds\": 60}')")
    with pooled(probed.dsn, sessions=1) as strict, ThreadPoolExecutor(1) as thread:
        answer = thread.submit(migrate, strict.dsn, migrations=[*shipped_migrations(), slow])
        (pid,) = eventually(lambda: _sleeping(admin, probed))
        admin.execute("select pg_terminate_backend(%s)", (pid,))
        with pytest.raises(LedgerUnavailable, match=r"migration 99990101000000_slow.*EDBHANDLEREXITED"):
            answer.result(30)
    assert schema_version(probed.dsn) == ALL[-1]


# --- the parts ------------------------------------------------------------------------------------------------------


@pytest.fixture
def admin(probed: Database) -> Iterator[psycopg.Connection]:
    """Beside the pooler, as the superuser."""
    with psycopg.connect(probed.superuser_dsn, autocommit=True) as connection:
        yield connection


def _request() -> JobRequest:
    return JobRequest(id=new_id(), type="summarise", tasks=(TaskRequest(key="only"),))


def _worked_through(store: LedgerStore) -> UUID:
    """Create a job, and work on what goes out with it as a worker does."""
    request = _request()
    for ticket in store.create_jobs([request]).runs:
        _deliver(store, ticket.run)
    return request.id


def _deliver(store: LedgerStore, run: UUID) -> None:
    delivery = uuid4()
    started = store.start_run(run, delivery=delivery, window=10, worker="w", execution_id="e", host="h", pid=1)
    store.heartbeat_run(run, delivery=delivery)
    reports = [TaskReport(task=task.id, outcome=Completed({"done": task.key})) for task in started.tasks]
    answer = store.advance_run(run, delivery=delivery, step=started.step, reports=reports, want=0, give_back=False)
    for ticket in answer.runs:
        _deliver(store, ticket.run)


def _status(store: LedgerStore, job: UUID) -> JobStatus:
    found = store.job_get(job)
    assert found is not None
    return found.status


def _backend(transport: Transport) -> object:
    answer = transport.call("probe_session", {})
    assert isinstance(answer, dict)
    return answer["backend"]


def _sleeping(admin: psycopg.Connection, database: Database) -> list[int]:
    """The sessions of the database in which a call of `probe_sleep` sleeps."""
    statement = """
        select pid from pg_stat_activity
        where datname = %s and state = 'active' and wait_event = 'PgSleep' and query like '%%probe_sleep%%'
    """
    return [row[0] for row in admin.execute(statement, (database.name,))]


def _remembered(dsn: str) -> list[tuple[str, object]]:
    """What the sessions of the pool remember. Transactions that are open at once are in sessions of their own, so all are seen."""
    with ExitStack() as stack:
        connections = [stack.enter_context(psycopg.connect(dsn, prepare_threshold=None)) for _ in range(SESSIONS)]
        found = [(what, name) for each in connections for what, statement in REMEMBERED.items() for name in _names(each, statement)]
        assert len({each.execute("select pg_backend_pid()").fetchone() for each in connections}) == SESSIONS
    return found


def _names(connection: psycopg.Connection, statement: str) -> list[object]:
    return [row[0] for row in connection.execute(statement.encode(), (sorted(OF_THE_LOGIN),) if "%s" in statement else None)]
