"""`doctor`: what is wrong is named, with what to do."""

from __future__ import annotations

import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psycopg
import pytest
import redis

from ledgerq.local.valkey import ValkeyServer
from tests.cli.conftest import Command
from tests.support.databases import Database, Databases
from tests.support.waiting import eventually


class Patient:
    """Services of one test, and what the doctor says of them."""

    def __init__(self, command: Command, monkeypatch: pytest.MonkeyPatch) -> None:
        self._command = command
        self._monkeypatch = monkeypatch

    def has(self, **environment: str) -> None:
        for name, value in environment.items():
            self._monkeypatch.setenv(name, value)

    def examine(self, *, code: int) -> list[dict[str, Any]]:
        ran = self._command("doctor", "--json")
        assert ran.code == code, ran.out
        assert ran.document["ok"] == (code == 0)
        return ran.document["findings"]

    def finding(self, part: str, level: str, *, code: int) -> dict[str, Any]:
        found = [one for one in self.examine(code=code) if (one["part"], one["level"]) == (part, level)]
        assert found, f"no {level} of {part}"
        return found[0]


@pytest.fixture
def patient(
    command: Command, monkeypatch: pytest.MonkeyPatch, database: Database, redis_url: str, vector_server: Any, collection_name: str
) -> Patient:
    """A healthy installation without a worker."""
    patient = Patient(command, monkeypatch)
    patient.has(DATABASE_URL=database.service_dsn, REDIS_URL=redis_url, QDRANT_URL=vector_server.url, LEDGERQ_COLLECTION=collection_name)
    if getattr(vector_server, "api_key", None):
        patient.has(QDRANT_API_KEY=vector_server.api_key)
    return patient


def test_a_healthy_installation_lacks_only_a_worker(patient: Patient) -> None:
    findings = patient.examine(code=0)
    assert {one["part"] for one in findings} == {"code", "ledger", "queue", "embedder", "vectors", "files"}
    (warning,) = [one for one in findings if one["level"] != "ok"]
    assert warning["message"] == "no worker listens on queue processing"
    assert "ledgerq worker" in warning["advice"]


def test_for_people_it_is_a_line_a_finding_and_what_to_do(patient: Patient, command: Command) -> None:
    ran = command("doctor")
    assert ran.code == 0
    assert "warn queue     no worker listens on queue processing\n" in ran.out
    assert "→ start one: `ledgerq worker`" in ran.out
    assert ran.out.endswith("everything that is needed works\n")


def test_a_database_without_a_ledger_needs_a_migration(patient: Patient, databases: Databases) -> None:
    with databases.empty() as empty:
        patient.has(DATABASE_URL=empty.service_dsn)
        assert "ledgerq migrate" in patient.finding("ledger", "fail", code=4)["message"]


def test_a_wrong_password_of_the_database_is_named_without_the_password(patient: Patient, database: Database) -> None:
    head, _, tail = database.service_dsn.rpartition("@")
    patient.has(DATABASE_URL=f"{head.rpartition(':')[0]}:hush@{tail}")
    finding = patient.finding("ledger", "fail", code=4)
    assert "check DATABASE_URL" in finding["message"]
    assert "hush" not in str(finding)


def test_a_paused_queue_is_a_warning_that_says_how_to_go_on(patient: Patient, command: Command) -> None:
    command("queue", "pause")
    assert patient.finding("ledger", "warn", code=0)["advice"] == "`ledgerq queue resume processing` when it should go on"


def test_a_redis_that_is_away_is_named_without_the_password(patient: Patient) -> None:
    patient.has(REDIS_URL="redis://:hush@127.0.0.1:1/0")
    finding = patient.finding("queue", "fail", code=4)
    assert "127.0.0.1:1" in finding["message"]
    assert "hush" not in str(finding)


def test_a_wrong_password_of_redis_is_named(patient: Patient, valkey: ValkeyServer) -> None:
    patient.has(REDIS_URL=f"redis://:hush@127.0.0.1:{valkey.port}/0")
    assert "refuses the password" in patient.finding("queue", "fail", code=4)["message"]


def test_an_address_that_is_none_is_a_finding(patient: Patient) -> None:
    patient.has(REDIS_URL="http://example.org")
    assert "REDIS_URL" in patient.finding("queue", "fail", code=4)["message"]


@contextmanager
def configured(url: str, **settings: str) -> Iterator[None]:
    with redis.Redis.from_url(url, decode_responses=True) as client:
        before = {name: client.config_get(name)[name] for name in settings}
        for name, value in settings.items():
            client.config_set(name, value)
        try:
            yield
        finally:
            for name, value in before.items():
                client.config_set(name, value)


def test_a_redis_that_may_evict_is_a_warning_and_with_a_limit_a_failure(patient: Patient, redis_url: str) -> None:
    with configured(redis_url, **{"maxmemory-policy": "allkeys-lru"}):
        assert "noeviction" in patient.finding("queue", "warn", code=0)["advice"]
    with configured(redis_url, **{"maxmemory-policy": "allkeys-lru", "maxmemory": "500mb"}):
        assert patient.finding("queue", "fail", code=4)["message"] == "maxmemory-policy is allkeys-lru"


def test_a_redis_that_is_nearly_full_is_a_warning(patient: Patient, redis_url: str) -> None:
    with configured(redis_url, maxmemory="1mb"):
        assert any("of its memory limit" in one["message"] for one in patient.examine(code=0))


def test_an_app_that_cannot_be_imported_is_named(patient: Patient) -> None:
    patient.has(LEDGERQ_APP="no_such_module:handlers")
    assert "no_such_module" in patient.finding("code", "fail", code=4)["message"]


def test_an_app_is_shown_with_its_types(patient: Patient, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    name = f"doctors_app_{tmp_path.name.replace('-', '_')}"
    (tmp_path / f"{name}.py").write_text(
        "from ledgerq import Handlers\nhandlers = Handlers()\nhandlers.handler('shout')(lambda task: None)\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    patient.has(LEDGERQ_APP=f"{name}:handlers")
    assert any("crawl, shout" in one["message"] for one in patient.examine(code=0))


def test_a_vector_store_that_is_away_or_not_named_is_a_failure(patient: Patient) -> None:
    patient.has(QDRANT_URL="http://127.0.0.1:1")
    assert patient.finding("vectors", "fail", code=4)
    patient.has(QDRANT_URL="")
    assert "set QDRANT_URL" in patient.finding("vectors", "fail", code=4)["message"]


def test_an_embedder_that_does_not_exist_is_named(patient: Patient) -> None:
    patient.has(LEDGERQ_EMBEDDER="abacus")
    assert "'abacus'" in patient.finding("embedder", "fail", code=4)["message"]


@pytest.mark.processes
def test_a_worker_with_the_wrong_serializer_is_named(patient: Patient, command: Command, tmp_path: Path) -> None:
    rq = str(Path(sys.executable).with_name("rq"))
    log = tmp_path / "worker.log"
    with log.open("wb") as output:
        worker = subprocess.Popen([rq, "worker", "-c", "ledgerq.rq_settings", "processing"], stdout=output, stderr=output)
    try:
        command("jobs", "create", "anything")

        def named() -> list[str]:
            return [one["message"] for one in command("doctor", "--json").document["findings"] if one["level"] == "fail"]

        (message,) = eventually(named, what="the doctor names the worker")
        assert "-S json" in message
    finally:
        worker.terminate()
        worker.wait(30)


def test_files_that_cannot_be_read_here_are_a_warning(patient: Patient, command: Command, tmp_path: Path) -> None:
    (tmp_path / "brief.txt").write_text("Here today.")
    assert command("ingest", "brief.txt", "--no-wait").code == 0
    assert any("files that have to be read can be read here (1)" in one["message"] for one in patient.examine(code=0))
    (tmp_path / "brief.txt").unlink()
    assert "brief.txt" in patient.finding("files", "warn", code=0)["message"]


def test_files_that_were_indexed_need_not_be_there_any_more(patient: Patient, command: Command, tmp_path: Path, ledger_dsn: str) -> None:
    (tmp_path / "brief.txt").write_text("Here today.")
    assert command("ingest", "brief.txt", "--no-wait").code == 0
    (tmp_path / "brief.txt").unlink()
    with psycopg.connect(ledger_dsn) as connection:
        connection.execute("delete from ledgerq.task")
        connection.execute("update ledgerq.document set live_revision = revision, live_generation = 1, live_since = now()")
    assert any(one["message"] == "no file has to be read" for one in patient.examine(code=0))


def test_a_redis_that_refuses_the_password_is_said_at_once_with_the_jobs_that_are_safe(
    patient: Patient, command: Command, tmp_path: Path, redis_url: str, ledger_dsn: str
) -> None:
    (tmp_path / "brief.txt").write_text("Here today.")
    patient.has(REDIS_URL=f"redis://:wrong@{redis_url.rpartition('@')[2]}")
    for words in (["ingest", "brief.txt", "--no-wait"], ["ingest", "brief.txt"], ["jobs", "create", "anything", "--json"]):
        ran = command(*words)
        said = ran.document["error"]["message"] if "--json" in words else ran.err
        assert ran.code == 7
        assert "AuthenticationError" in said
        assert "check the password in REDIS_URL" in said
        with psycopg.connect(ledger_dsn) as connection:
            newest = connection.execute("select id::text from ledgerq.job order by created_at desc limit 1").fetchone()
        assert newest is not None
        assert said.rstrip().endswith(newest[0])
    assert command("dashboard").err.startswith("ledgerq: Redis at 127.0.0.1:")


def test_a_dashboard_whose_port_is_taken_says_so(patient: Patient, command: Command) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        ran = command("dashboard", "--port", str(port))
    assert ran.code == 2
    assert ran.err == f"ledgerq: --port: {port} cannot be used on 127.0.0.1 (Address already in use); name another one\n"
    del patient


def test_rights_of_browsers_are_named(patient: Patient, ledger_dsn: str) -> None:
    with psycopg.connect(ledger_dsn, autocommit=True) as connection:
        connection.execute("grant usage on schema ledgerq to anon")
        connection.execute("grant execute on function ledgerq.document_list(jsonb) to anon")
        connection.execute("grant delete on ledgerq.document to authenticated")
    messages = [one["message"] for one in patient.examine(code=4) if one["level"] == "fail"]
    assert messages == [
        "the role anon may execute 1 functions, document_list for one in the schema ledgerq",
        "the role authenticated may change 1 tables, document for one in the schema ledgerq",
    ]
