"""Where a command finds its services."""

from __future__ import annotations

from pathlib import Path

import pytest

from ledgerq.cli import environment
from ledgerq.cli.environment import PARTS, data_directory, elsewhere, missing, stack_addresses
from ledgerq.cli.stack import servers_to_run
from ledgerq.errors import LocalStackError
from ledgerq.local import ServerName
from ledgerq.settings import Settings

STACK = {"DATABASE_URL": "postgresql://stack/", "REDIS_URL": "redis://stack/", "QDRANT_URL": "http://stack/", "QDRANT_API_KEY": "stack"}


def test_a_stack_supplies_what_nothing_names() -> None:
    assert missing(STACK, {}) == STACK


@pytest.mark.parametrize("variable", ["DATABASE_URL", "LEDGERQ_DATABASE_URL"])
def test_a_ledger_of_ones_own_keeps_the_stacks_out(variable: str) -> None:
    assert "DATABASE_URL" not in missing(STACK, {variable: "mine"})
    assert "REDIS_URL" in missing(STACK, {variable: "mine"})


@pytest.mark.parametrize("variable", ["REDIS_URL", "REDIS_HOST", "REDIS_PORT", "LEDGERQ_REDIS_URL"])
def test_a_redis_of_ones_own_keeps_the_stacks_out(variable: str) -> None:
    assert "REDIS_URL" not in missing(STACK, {variable: "mine"})


def test_a_stacks_key_is_not_sent_to_a_vector_store_of_ones_own() -> None:
    assert set(missing(STACK, {"QDRANT_URL": "http://mine/"})) == {"DATABASE_URL", "REDIS_URL"}


@pytest.mark.parametrize("key", ["SUPABASE_SERVICE_ROLE_KEY", "SUPABASE_SECRET_KEY", "SUPABASE_KEY"])
def test_a_supabase_project_is_a_ledger_together_with_its_key(key: str) -> None:
    assert elsewhere({"SUPABASE_URL": "https://mine.supabase.co"}) == (None, None, None)
    assert elsewhere({"SUPABASE_URL": "https://mine.supabase.co", key: "mine"}) == ("SUPABASE_URL", None, None)


@pytest.mark.parametrize("variable", ["SUPABASE_URL", "REDIS_DB", "REDIS_PASSWORD", "QDRANT_API_KEY", "LEDGERQ_QDRANT_API_KEY"])
def test_a_variable_without_an_address_keeps_nothing_out(variable: str) -> None:
    assert missing(STACK, {variable: "mine"}) == STACK
    assert servers_to_run({variable: "mine"}) == list(ServerName)


def test_a_key_for_another_place_is_not_taken_for_the_stacks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in {name for part in PARTS for name in part} | {"LEDGERQ_DATA_DIR"}:
        monkeypatch.setenv(name, "")
    monkeypatch.setenv("LEDGERQ_QDRANT_API_KEY", "mine")
    monkeypatch.setattr(environment, "stack_addresses", lambda _: STACK)
    environment.enter(tmp_path)
    key = Settings().qdrant_api_key
    assert key is not None
    assert key.get_secret_value() == "stack"


def test_an_empty_variable_names_nothing() -> None:
    assert missing(STACK, {"DATABASE_URL": ""}) == STACK


def test_the_directory_is_the_given_one_then_the_environments_then_a_hidden_one_here(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("LEDGERQ_DATA_DIR", raising=False)
    assert data_directory(None) == tmp_path / ".ledgerq"
    monkeypatch.setenv("LEDGERQ_DATA_DIR", "/var/lib/stack")
    assert data_directory(None) == Path("/var/lib/stack")
    assert data_directory(Path("mine")) == tmp_path / "mine"


def test_a_directory_without_a_stack_supplies_nothing(tmp_path: Path) -> None:
    assert stack_addresses(tmp_path) == {}
    assert environment.migration_url(tmp_path) is None


def test_a_directory_that_cannot_be_looked_into_matters_only_where_something_is_to_be_found_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    closed = tmp_path / ("x" * 300)  # as a directory of somebody else, and for root as well
    for name in ("DATABASE_URL", "REDIS_URL", "QDRANT_URL", "LEDGERQ_DATA_DIR"):
        monkeypatch.setenv(name, "mine")
    environment.enter(closed)
    monkeypatch.setenv("REDIS_URL", "")
    with pytest.raises(LocalStackError, match=r"cannot look for a stack in .*: File name too long; name another directory with --data-dir"):
        environment.enter(closed)
