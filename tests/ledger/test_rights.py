"""Who may do what, read from the catalogue: a new table or function without a rule fails here."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from uuid import uuid4

import psycopg
import pytest

from ledgerq.ids import new_id
from tests.support.databases import Database
from tests.support.sql import Sql, begin, connected, saved, working_on

READABLE = {"job", "task", "event", "document", "source"}
"""What users may read of their own. Everything else is closed to them."""
OF_ITS_OWNER = {"ledgerq._announce_job()"}
"""Runs with its owner's rights, and by its triggers only."""
STRANGERS = ("public", "anon", "authenticated")

TABLES = "select relname::text from pg_class where relnamespace = 'ledgerq'::regnamespace and relkind in ('r', 'p', 'v', 'm', 'f')"
FUNCTIONS = "select oid::regprocedure::text from pg_proc where pronamespace = 'ledgerq'::regnamespace"


@pytest.fixture
def owner(module_database: Database) -> Iterator[Sql]:
    with connected(module_database.dsn) as sql:
        yield sql


def names(sql: Sql, statement: str) -> set[str]:
    return {row[0] for row in sql.rows(statement)}


# --- the catalogue ------------------------------------------------------------------------------------------------


def test_every_table_has_row_level_security_and_the_services_policy(owner: Sql) -> None:
    tables = names(owner, TABLES)
    assert tables > READABLE
    assert names(owner, f"{TABLES} and relrowsecurity") == tables
    policies = owner.rows(
        "select tablename::text, cmd, qual, with_check from pg_policies where schemaname = 'ledgerq' and roles = '{service_role}'"
    )
    assert {row[0] for row in policies} == tables
    assert {row[1:] for row in policies} == {("ALL", "true", "true")}


def test_users_have_one_policy_on_what_they_may_read_and_it_asks_who_they_are_once(owner: Sql) -> None:
    policies = owner.rows(
        "select tablename::text, cmd, permissive, roles::text[], qual from pg_policies"
        " where schemaname = 'ledgerq' and roles <> '{service_role}'"
    )
    assert {row[0] for row in policies} == READABLE
    assert len(policies) == len(READABLE)
    for _, command, permissive, roles, condition in policies:
        assert (command, permissive, roles) == ("SELECT", "PERMISSIVE", ["authenticated"])
        assert "( SELECT auth.uid() AS uid)" in condition
        assert condition.count("auth.uid()") == 1


@pytest.mark.parametrize("privilege", ["select", "insert", "update", "delete", "truncate", "references", "trigger"])
def test_strangers_have_no_right_on_any_table_but_to_read_their_own(owner: Sql, privilege: str) -> None:
    allowed = owner.rows(
        f"select r.role, t.relname from ({TABLES}) as t, unnest(%s::text[]) as r (role)"
        " where has_table_privilege(r.role, format('ledgerq.%%I', t.relname), %s)",
        list(STRANGERS),
        privilege,
    )
    expected = {("authenticated", table) for table in READABLE} if privilege == "select" else set[tuple[str, str]]()
    assert set(allowed) == expected


def test_strangers_may_execute_nothing(owner: Sql) -> None:
    functions = names(owner, FUNCTIONS)
    assert len(functions) > 50
    for role in STRANGERS:
        assert names(owner, f"{FUNCTIONS} and has_function_privilege('{role}', oid, 'execute')") == set(), role


def test_strangers_may_use_no_sequence_and_create_nothing(owner: Sql) -> None:
    for role in STRANGERS:
        for right in ("usage", "select", "update"):
            allowed = f"case relkind when 'S' then has_sequence_privilege('{role}', oid, '{right}') else false end"
            sequences = "select relname::text from pg_class where relnamespace = 'ledgerq'::regnamespace"
            assert names(owner, f"{sequences} and {allowed}") == set(), role
        assert owner.value(f"select has_schema_privilege('{role}', 'ledgerq', 'create')") is False
    assert owner.value("select has_schema_privilege('anon', 'ledgerq', 'usage')") is False


def test_service_may_execute_everything_and_use_every_table(owner: Sql) -> None:
    assert names(owner, f"{FUNCTIONS} and not has_function_privilege('service_role', oid, 'execute')") == OF_ITS_OWNER
    for right in ("select", "insert", "update", "delete"):
        assert names(owner, f"{TABLES} and not has_table_privilege('service_role', oid, '{right}')") == set(), right


def test_every_function_runs_as_its_caller_with_an_empty_search_path(owner: Sql) -> None:
    """Nothing here has more power than who calls it, except one that nobody can call; and nothing can be put under its names."""
    assert names(owner, f"{FUNCTIONS} and prosecdef") == OF_ITS_OWNER
    assert names(owner, f"""{FUNCTIONS} and not ('search_path=""' = any (coalesce(proconfig, '{{}}')))""") == set()


def test_every_public_function_takes_one_document_and_gives_one(owner: Sql) -> None:
    """What PostgREST needs: one argument called `request`, no overloads, never a set of rows."""
    shapes = owner.rows(
        "select proname::text, pg_get_function_arguments(oid), pg_get_function_result(oid) from pg_proc"
        " where pronamespace = 'ledgerq'::regnamespace and left(proname, 1) <> '_' and proname <> 'clock'"
    )
    assert {row[1:] for row in shapes} == {("request jsonb", "jsonb")}
    assert len({row[0] for row in shapes}) == len(shapes) > 30


def test_no_foreign_key_is_without_an_index_and_no_index_is_there_twice(owner: Sql) -> None:
    keys = owner.rows(
        "select conrelid::regclass::text, conname::text from pg_constraint c"
        " where contype = 'f' and connamespace = 'ledgerq'::regnamespace and not exists ("
        "   select from pg_index i where i.indrelid = c.conrelid"
        "   and (i.indkey::int2[])[0:cardinality(c.conkey) - 1] operator(pg_catalog.@>) c.conkey)"
    )
    assert keys == []
    twins = owner.rows(
        "select array_agg(indexname::text) from pg_indexes where schemaname = 'ledgerq'"
        " group by tablename, regexp_replace(indexdef, 'INDEX \\S+ ON', 'INDEX ON') having count(*) > 1"
    )
    assert twins == []
    assert owner.rows(f"{TABLES} and relkind = 'r' and not relhasindex") == []


def test_every_statement_that_changes_rows_has_a_condition(owner: Sql) -> None:
    """Supabase's API role refuses an update or delete without one, also inside functions."""
    for name, body in owner.rows("select proname::text, prosrc from pg_proc where pronamespace = 'ledgerq'::regnamespace"):
        code = re.sub(r"--[^\n]*", "", body)
        for statement in re.findall(r"\b(?:update\s+ledgerq\.|delete\s+from\s+ledgerq\.)[^;]*", code):
            assert re.search(r"\bwhere\b", statement), f"{name}: {statement[:80]}"


def test_migrations_need_no_superuser(owner: Sql) -> None:
    assert owner.rows("select rolsuper from pg_roles where rolname = current_user") == [(False,)]
    assert names(owner, f"{TABLES} and relowner <> current_user::regrole") == set()


# --- in use -------------------------------------------------------------------------------------------------------


@contextmanager
def as_role(database: Database, role: str, user: str | None = None) -> Iterator[Sql]:
    """A connection as PostgREST makes it: the role of the token, and its claims as a setting."""
    with connected(database.dsn) as sql:
        sql.run("select set_config('request.jwt.claims', %s, false)", json.dumps({"sub": user, "role": role}))
        sql.run(f"set role {role}")
        yield sql


def test_users_see_their_own_rows_and_nobody_elses(module_database: Database) -> None:
    users = [str(uuid4()) for _ in range(2)]
    seen: dict[str, dict[str, Any]] = {user: {} for user in users}
    with connected(module_database.service_dsn) as sql:
        for user in users:
            source = sql.call("save_source", id=str(new_id()), kind="folder", owner=user)["source"]
            document = saved(sql, uri=f"{user}.md", owner=user)
            working_on(sql, document, owner=user, source=source).complete(begin(sql, document))
        saved(sql, uri="nobodys.md")
    for user in users:
        with as_role(module_database, "authenticated", user) as sql:
            for table in READABLE:
                seen[user][table] = {json.dumps(row[0]) for row in sql.rows(f"select to_jsonb(t) from ledgerq.{table} as t")}
            owners = {row[0] for table in READABLE for row in sql.rows(f"select owner_id::text from ledgerq.{table}")}
            assert owners == {user}
    assert all(len(seen[users[0]][table]) == len(seen[users[1]][table]) > 0 for table in READABLE)
    assert all(seen[users[0]][table].isdisjoint(seen[users[1]][table]) for table in READABLE)


def test_somebody_without_a_name_sees_nothing(module_database: Database) -> None:
    with connected(module_database.service_dsn) as sql:
        saved(sql, uri="anybodys.md")
    with as_role(module_database, "authenticated") as sql:
        assert [sql.value(f"select count(*) from ledgerq.{table}") for table in READABLE] == [0] * len(READABLE)


@pytest.mark.parametrize("role", ["anon", "authenticated"])
@pytest.mark.parametrize(
    "statement",
    [
        "select * from ledgerq.run",
        "select * from ledgerq.usage",
        "update ledgerq.job set status = 'completed' where true",
        "delete from ledgerq.document where true",
        "insert into ledgerq.event (kind) values ('x')",
        "select ledgerq.health('{}')",
        "select ledgerq.clock()",
    ],
)
def test_users_can_do_nothing_else(module_database: Database, role: str, statement: str) -> None:
    with as_role(module_database, role, str(uuid4())) as sql, pytest.raises(psycopg.errors.InsufficientPrivilege):
        sql.run(statement)


def test_a_login_role_that_is_a_member_of_the_service_works(module_database: Database, owner: Sql) -> None:
    """It inherits the grants, but not the attribute that passes row-level security: the policy lets it in."""
    with connected(module_database.superuser_dsn) as superuser:
        superuser.run("drop role if exists plain_member")
        superuser.run("create role plain_member login inherit nobypassrls")
        superuser.run("grant service_role to plain_member")
        superuser.run("set session authorization plain_member")
        one = saved(superuser, uri="member.md")
        working_on(superuser, one).complete(begin(superuser, one))
        assert superuser.call("document_get", document=one)["status"] == "indexed"
        superuser.run("reset session authorization")
        superuser.run("drop role plain_member")
    assert owner.value("select count(*) from ledgerq.document where uri = 'member.md'") == 1


def test_users_find_the_tasks_of_their_job_by_index(module_database: Database) -> None:
    with as_role(module_database, "authenticated", str(uuid4())) as sql:
        sql.run("set enable_seqscan = off")
        plan = "\n".join(row[0] for row in sql.rows("explain select * from ledgerq.task where job_id = %s", str(new_id())))
    assert "Index Cond: (job_id =" in plan
