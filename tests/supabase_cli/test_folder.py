"""The Supabase CLI accepts `supabase/` as it stands, and agrees with `ledgerq migrate` on what is done."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest

from ledgerq.ledger.migrate import MigrationReport, migrate
from ledgerq.ledger.migration_files import shipped_migrations
from tests.supabase_cli.conftest import FOLDER, Ran, SupabaseCli
from tests.support.databases import Database, Databases

pytestmark = pytest.mark.processes

ALL = tuple(migration.version for migration in shipped_migrations())
FILES = [f"{migration.version}_{migration.name}.sql" for migration in shipped_migrations()]
EXPOSED = "public,graphql_public,ledgerq"
TRAP = """
    create table ledgerq.trap (id int);
    grant select on ledgerq.trap to authenticated;
    create function ledgerq.trap() returns int language sql as 'select 1';
"""
"""An exposed table without row-level security and key, and a function that can be deceived: what the advisors must see."""
SEEN_IN_TRAP = {"rls_disabled_in_public", "no_primary_key", "function_search_path_mutable"}
TOLERATED = {"unused_index"}
"""Of a ledger in which nothing has happened yet, every index is unused."""
SAYS_WHAT_IS_NEW = Path(".temp/cli-latest")
"""Where the CLI keeps the number of its newest version, if it may ask for it; here it may not."""


@pytest.fixture(scope="module")
def pushed(databases: Databases, supabase_cli: SupabaseCli) -> Iterator[tuple[Database, Ran]]:
    """A database whose ledger the CLI made, seed and all, and what it said."""
    with databases.empty() as empty:
        yield empty, supabase_cli("db", "push", "--include-seed", database=empty.dsn)


def test_push_applies_everything_without_a_word_about_the_configuration(pushed: tuple[Database, Ran]) -> None:
    database, ran = pushed
    assert ran.document["migrations"] == FILES
    assert not [line for line in ran.said.splitlines() if "warn" in line.lower() or "error" in line.lower()]
    with psycopg.connect(database.dsn) as connection:
        assert connection.execute("select name from ledgerq.queue order by name").fetchall() == [("crawling",), ("processing",)]


def test_what_was_pushed_is_on_both_sides_and_done_for_ledgerq_too(pushed: tuple[Database, Ran], supabase_cli: SupabaseCli) -> None:
    database, _ = pushed
    listed = supabase_cli("migration", "list", database=database.dsn).document["migrations"]
    assert [(each["local"], each["remote"]) for each in listed] == [(version, version) for version in ALL]
    assert migrate(database.dsn) == MigrationReport(applied=(), version=ALL[-1])
    assert supabase_cli("db", "push", database=database.dsn).document["upToDate"] is True


def test_what_ledgerq_migrated_is_done_for_the_cli_too(database: Database, supabase_cli: SupabaseCli) -> None:
    answer = supabase_cli("db", "push", database=database.dsn).document
    assert (answer["upToDate"], answer["migrations"]) == (True, [])


def test_advisors_find_nothing_in_an_exposed_ledger(pushed: tuple[Database, Ran], supabase_cli: SupabaseCli) -> None:
    """Their rules about exposure look at what the API serves; that they do is shown by a trap."""
    database, _ = pushed
    with psycopg.connect(database.superuser_dsn, autocommit=True) as admin:
        admin.execute(f"alter database {database.name} set pgrst.db_schemas = '{EXPOSED}'".encode())
        admin.execute(TRAP.encode())
        found = supabase_cli("db", "advisors", "--level", "info", "--fail-on", "none", database=database.dsn).document["results"]
        admin.execute("drop table ledgerq.trap; drop function ledgerq.trap")
    assert {each["name"] for each in found if _is_of_trap(each)} == SEEN_IN_TRAP
    ours = [(each["level"], each["name"], each["detail"]) for each in found if not _is_of_trap(each)]
    assert [finding for finding in ours if finding[1] not in TOLERATED] == []


def test_the_cli_leaves_nothing_that_git_would_take(pushed: tuple[Database, Ran], supabase_cli: SupabaseCli) -> None:
    folder = supabase_cli.project / "supabase"
    left = {path.relative_to(folder) for path in folder.rglob("*")} - {path.relative_to(FOLDER) for path in FOLDER.rglob("*")}
    subprocess.run(["git", "init", "--quiet", supabase_cli.project], check=True)
    for path in [*left, SAYS_WHAT_IS_NEW]:
        asked = ["git", "-c", "core.excludesFile=", "-C", folder, "check-ignore", "--quiet", path]
        assert subprocess.run(asked, check=False).returncode == 0, f"{path} is not in .gitignore"


def _is_of_trap(finding: dict[str, Any]) -> bool:
    return finding["metadata"].get("name") == "trap"
