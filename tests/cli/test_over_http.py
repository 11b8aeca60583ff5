"""The commands with nothing but a Supabase project's address and its key."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from ledgerq.cli.exit_codes import ExitCode
from ledgerq.cli.stack import servers_to_run
from ledgerq.local.state import ServerName
from tests.cli.conftest import Command
from tests.support.databases import Database
from tests.support.ways import Way, open_way


@pytest.fixture
def way(module_database: Database, redis_url: str, monkeypatch: pytest.MonkeyPatch, command: Command) -> Iterator[Way]:
    del command  # it empties the environment, which is filled here
    with open_way("supabase", module_database) as opened:
        for name, value in {**opened.environment, "REDIS_URL": redis_url}.items():
            monkeypatch.setenv(name, value)
        yield opened


def test_a_job_is_created_listed_explained_and_cancelled(command: Command, way: Way) -> None:
    assert way.kind == "supabase"
    created = command("jobs", "create", "welcome", "--json")
    assert created.code == 0, created.err
    (job,) = command("jobs", "list", "--json").document["jobs"]
    assert job["id"] == created.document["job"]["id"]
    assert command("jobs", "show", job["id"], "--json").document["explain"]["sentence"]
    assert command("jobs", "cancel", job["id"], "--json").document["jobs"][0]["applied"]


def test_the_doctor_knows_what_it_could_not_look_at(command: Command, way: Way) -> None:
    findings = [one for one in command("doctor", "--json").document["findings"] if one["part"] == "ledger"]
    assert {one["level"] for one in findings} == {"ok"}, way
    assert any("DATABASE_URL" in one["message"] for one in findings)


def test_a_schema_not_exposed_is_said_in_one_line(command: Command, module_database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    with open_way("supabase", module_database, schemas=("public",)) as hidden:
        for name, value in hidden.environment.items():
            monkeypatch.setenv(name, value)
        ran = command("jobs", "list")
    assert ran.code == ExitCode.CONFIGURATION
    assert "Exposed schemas" in ran.err
    assert len(ran.err.splitlines()) == 1


def test_migrations_take_a_direct_connection(command: Command, way: Way) -> None:
    ran = command("migrate")
    assert ran.code == ExitCode.CONFIGURATION, way
    assert "DATABASE_URL" in ran.err
    assert "supabase db push" in ran.err


def test_a_stack_starts_no_database_of_its_own(way: Way) -> None:
    assert servers_to_run(way.environment) == [ServerName.VALKEY, ServerName.VECTORS]
