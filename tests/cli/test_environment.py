"""Where a command finds its services."""

from __future__ import annotations

from pathlib import Path

import pytest

from ledgerq.cli import environment
from ledgerq.cli.environment import data_directory, missing, stack_addresses
from ledgerq.errors import LocalStackError

STACK = {"DATABASE_URL": "postgresql://stack/", "REDIS_URL": "redis://stack/", "QDRANT_URL": "http://stack/", "QDRANT_API_KEY": "stack"}


def test_a_stack_supplies_what_nothing_names() -> None:
    assert missing(STACK, {}) == STACK


@pytest.mark.parametrize("variable", ["DATABASE_URL", "LEDGERQ_DATABASE_URL", "SUPABASE_URL"])
def test_a_ledger_of_ones_own_keeps_the_stacks_out(variable: str) -> None:
    assert "DATABASE_URL" not in missing(STACK, {variable: "mine"})
    assert "REDIS_URL" in missing(STACK, {variable: "mine"})


@pytest.mark.parametrize("variable", ["REDIS_URL", "REDIS_HOST", "REDIS_PORT", "LEDGERQ_REDIS_URL"])
def test_a_redis_of_ones_own_keeps_the_stacks_out(variable: str) -> None:
    assert "REDIS_URL" not in missing(STACK, {variable: "mine"})


def test_a_stacks_key_is_not_sent_to_a_vector_store_of_ones_own() -> None:
    assert set(missing(STACK, {"QDRANT_URL": "http://mine/"})) == {"DATABASE_URL", "REDIS_URL"}


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
