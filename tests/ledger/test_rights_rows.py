"""Everything in the catalogue, tried by everybody: what is new and has no rule fails here by its name."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from uuid import uuid4

import psycopg
import pytest

from ledgerq.ids import new_id
from ledgerq.ledger.exposure import exposed_rights
from tests.support.browsers import BECOME, browser, claims, user
from tests.support.databases import Database
from tests.support.sql import Sql, begin, connected, job, saved, working_on

READABLE = ("document", "event", "job", "source", "task")
ANN, BOB = str(uuid4()), str(uuid4())
RELATIONS = "select relname::text from pg_class where relnamespace = 'ledgerq'::regnamespace and relkind = any (%s) order by 1"
FUNCTIONS = """
    select oid::regprocedure::text, format('select ledgerq.%I(%s)', proname,
      (select string_agg(format('null::%s', format_type(t, null)), ', ' order by o) from unnest(proargtypes) with ordinality a(t, o)))
    from pg_proc where pronamespace = 'ledgerq'::regnamespace order by 1"""
CHANGES = (
    "insert into {table} default values",
    "update {table} set {column} = {column}",
    "delete from {table}",
    "truncate {table}",
    "select from {table} for key share",
    "lock table {table} in row share mode",
    "create trigger t before insert on {table} for each row execute function suppress_redundant_updates_trigger()",
    "create policy p on {table} using (true)",
    "alter table {table} disable row level security",
)
WRITABLE_COLUMN = """
    select a.attname::text from pg_attribute a where a.attrelid = %s::regclass and a.attnum > 0 and not a.attisdropped
    and a.attgenerated = '' and a.attidentity = '' order by a.attnum desc limit 1"""


@dataclass(frozen=True)
class Somebody:
    role: str
    token: str
    owner: str | None = None
    """Whose rows they may see."""

    def __str__(self) -> str:
        return f"{self.role} {self.token}"


SIGNED_IN = [Somebody("authenticated", claims(owner), owner) for owner in (ANN, BOB)]
NAMELESS = [
    Somebody("authenticated", claims()),
    Somebody("authenticated", ""),
    Somebody("authenticated", claims("00000000-0000-0000-0000-000000000000")),
    Somebody("authenticated", claims(str(uuid4()))),
]
GARBLED = [Somebody("authenticated", token) for token in (claims(""), claims("' or true --"), claims(f"{ANN},{BOB}"), "no json", "[]")]
ANONYMOUS = [Somebody("anon", token) for token in (claims(ANN, role="anon"), claims(role="anon"), "")]
EVERYBODY = [*SIGNED_IN, *NAMELESS, *GARBLED, *ANONYMOUS]


@pytest.fixture(scope="module")
def filled(module_database: Database) -> Database:
    """Rows of two owners and of nobody in every table, made as services make them."""
    with connected(module_database.service_dsn) as sql:
        for owner in (ANN, BOB, None):
            live(sql, owner)
        sql.run("insert into ledgerq.webhook_event (provider, event_key, body) values ('crawler', '1', '{}')")
    with connected(module_database.dsn) as sql:
        empty = [table for table in tables(sql) if sql.value(f"select count(*) from ledgerq.{table}") == 0]
        assert not empty, f"these tables have no row to be protected, put one there: {', '.join(empty)}"
        for table in READABLE:
            assert set(rows_by_owner(sql, table)) == {ANN, BOB, None}, table
    return module_database


def live(sql: Sql, owner: str | None) -> None:
    """A source, a document with points, what it cost, a job that goes on, one that failed in part, and the trace of one deleted."""
    tenant = str(owner)
    source = sql.call("save_source", id=str(new_id()), kind="folder", owner=owner, tenant=tenant)["source"]
    document = saved(sql, uri=f"{owner}.md", owner=owner, tenant=tenant)
    paid = {"id": str(new_id()), "provider": "p", "model": "m", "tokens": 1}
    working_on(sql, document, owner=owner, tenant=tenant, source=source).complete(begin(sql, document), usage=[paid])
    failing = working_on(sql, saved(sql, uri="b.md", owner=owner, tenant=tenant), owner=owner, tenant=tenant)
    failing.advance({"task": failing.tasks[0]["id"], "kind": "failed", "error": {"type": "E", "message": "it broke"}})
    gone = job(sql, owner=owner, tenant=tenant, details={"secret": tenant})
    assert sql.call("delete_job", job=gone["id"], actor="test")["disposition"] == "applied"
    working_on(sql, saved(sql, uri="c.md", owner=owner, tenant=tenant), owner=owner, tenant=tenant, details={"secret": tenant})


@pytest.fixture
def catalogue(filled: Database) -> Iterator[Sql]:
    with connected(filled.dsn) as sql:
        yield sql


def tables(sql: Sql) -> list[str]:
    return [row[0] for row in sql.rows(RELATIONS, ["r", "p", "v", "m", "f"])]


def rows_by_owner(sql: Sql, table: str) -> dict[str | None, set[str]]:
    found: dict[str | None, set[str]] = {}
    for owner, row in sql.rows(f"select owner_id::text, to_jsonb(t)::text from ledgerq.{table} as t"):
        found.setdefault(owner, set()).add(row)
    return found


def tried(sql: Sql, statement: str) -> tuple[str, list[str]]:
    """The error's class, or "" with the first column of what came."""
    try:
        with sql.connection.transaction():
            done = sql.connection.execute(statement.encode())
            return "", [str(row[0]) for row in done.fetchall()] if done.description else []
    except psycopg.Error as error:
        return error.sqlstate or "", []


DENIED = "42501"

# --- browsers -----------------------------------------------------------------------------------------------------------


def test_users_read_exactly_their_own_rows_of_five_tables(filled: Database, catalogue: Sql) -> None:
    wrong: list[str] = []
    everything = {table: rows_by_owner(catalogue, table) for table in READABLE}
    for somebody in EVERYBODY:
        with browser(filled.dsn, somebody.role, somebody.token) as sql:
            for table in tables(catalogue):
                said, rows = tried(sql, f"select to_jsonb(t)::text from ledgerq.{table} as t")
                if somebody.role == "anon" or table not in READABLE:
                    right = said == DENIED
                else:
                    own = everything[table].get(somebody.owner, set()) if somebody.owner else set[str]()
                    right = set(rows) == own and (said == "" or somebody in GARBLED)
                if not right:
                    wrong.append(f"{somebody} gets {said or f'{len(rows)} rows'} of ledgerq.{table}")
    assert not wrong, "\n".join(wrong)


def test_users_change_nothing_and_lock_nothing(filled: Database, catalogue: Sql) -> None:
    wrong: list[str] = []
    for somebody in EVERYBODY:
        with browser(filled.dsn, somebody.role, somebody.token) as sql:
            for table in tables(catalogue):
                column = catalogue.value(WRITABLE_COLUMN, f"ledgerq.{table}")
                given = {form: tried(sql, form.format(table=f"ledgerq.{table}", column=column))[0] for form in CHANGES}
                wrong += [f"{somebody}: {form} ({table}): {said or 'done'}" for form, said in given.items() if said != DENIED]
    assert not wrong, "\n".join(wrong)


def test_users_call_no_function_and_use_no_sequence(filled: Database, catalogue: Sql) -> None:
    wrong: list[str] = []
    functions = catalogue.rows(FUNCTIONS)
    sequences = [row[0] for row in catalogue.rows(RELATIONS, ["S"])]
    assert len(functions) > 100
    assert len(sequences) >= 4
    for somebody in (SIGNED_IN[0], NAMELESS[0], ANONYMOUS[0]):
        with browser(filled.dsn, somebody.role, somebody.token) as sql:
            wrong += [f"{somebody} may call {name}" for name, statement in functions if tried(sql, statement)[0] != DENIED]
            for sequence in sequences:
                uses = (f"select nextval('ledgerq.{sequence}')", f"select setval('ledgerq.{sequence}', 1)", f"table ledgerq.{sequence}")
                wrong += [f"{somebody}: {use}" for use in uses if tried(sql, use)[0] != DENIED]
    assert not wrong, "\n".join(wrong)


def test_users_make_nothing_in_the_schema(filled: Database) -> None:
    for somebody in (SIGNED_IN[0], ANONYMOUS[0]):
        with browser(filled.dsn, somebody.role, somebody.token) as sql:
            for statement in ("create table ledgerq.x ()", "create function ledgerq.x() returns int return 1", "drop table ledgerq.event"):
                assert tried(sql, statement)[0] == DENIED


def test_rights_are_of_whole_tables_and_there_is_nothing_beside_tables_functions_and_sequences(catalogue: Sql) -> None:
    """A right on a column passes a look at the rights on tables; a type or a view would be a door of another kind."""
    for role in ("anon", "authenticated", "public"):
        for right in ("select", "insert", "update", "references"):
            allowed = catalogue.rows(
                "select distinct c.relname::text from pg_class c join pg_attribute a on a.attrelid = c.oid"
                " where c.relnamespace = 'ledgerq'::regnamespace and a.attnum > 0 and not a.attisdropped and c.relkind <> 'i'"
                " and has_column_privilege(%s, c.oid, a.attnum, %s) order by 1",
                role,
                right,
            )
            expected = [(table,) for table in READABLE] if (role, right) == ("authenticated", "select") else []
            assert allowed == expected, (role, right)
    assert (
        catalogue.rows(
            "select attrelid::regclass::text from pg_attribute where attacl is not null and attrelid::regclass::text ~ '^ledgerq'"
        )
        == []
    )
    assert catalogue.rows(RELATIONS, ["v", "m", "f", "c"]) == []
    assert catalogue.rows("select typname from pg_type where typnamespace = 'ledgerq'::regnamespace and typtype not in ('b', 'c')") == []


def test_what_runs_with_more_power_than_its_caller_is_nobodys_to_call(catalogue: Sql) -> None:
    powerful = catalogue.rows(
        "select proname::text, prorettype::regtype::text, proconfig, array("
        "   select r.rolname::text from pg_roles r where r.rolname in ('anon', 'authenticated', 'service_role', 'ledgerq_service')"
        "   and has_function_privilege(r.oid, p.oid, 'execute'))"
        " from pg_proc p where pronamespace = 'ledgerq'::regnamespace and prosecdef"
    )
    assert powerful == [("_announce_job", "trigger", ['search_path=""', "lock_timeout=100ms"], [])]


# --- what is made later -------------------------------------------------------------------------------------------------


def test_a_table_that_is_made_later_opens_nothing(filled: Database) -> None:
    """By whoever runs migrations, who forgot to say who may use it."""
    with connected(filled.dsn, autocommit=False) as sql:
        sql.run("create table ledgerq.later (id bigint generated always as identity, secret text)")
        sql.run("insert into ledgerq.later (secret) values ('s')")
        for somebody in EVERYBODY:
            with as_somebody(sql, somebody):
                for statement in (
                    "select secret from ledgerq.later",
                    "delete from ledgerq.later",
                    "select nextval('ledgerq.later_id_seq')",
                ):
                    assert tried(sql, statement)[0] == DENIED, (somebody, statement)
        sql.connection.rollback()


@contextmanager
def as_somebody(sql: Sql, somebody: Somebody) -> Iterator[None]:
    with sql.connection.transaction(force_rollback=True):
        sql.connection.execute(BECOME, (somebody.token, "", somebody.role))
        yield


def test_a_right_that_is_given_later_is_seen(database: Database) -> None:
    """PostgreSQL lets everybody execute a function that is made, and no default of one schema takes that away."""
    assert exposed_rights(database.dsn, timeout_s=5) == ()
    with connected(database.dsn) as sql:
        sql.run("create function ledgerq.later() returns int language sql return 1")
        sql.run("create table ledgerq.later (id int, secret text)")
        sql.run("grant select (secret) on ledgerq.later to authenticated")
        sql.run("grant usage on sequence ledgerq.event_id_seq to anon")
        sql.run("alter table ledgerq.document disable row level security")
        sql.run("create policy curious on ledgerq.job for select to authenticated using (true)")
    with user(database.dsn, ANN) as sql:
        assert sql.value("select ledgerq.later()") == 1
    assert exposed_rights(database.dsn, timeout_s=5) == (
        "anon may use 1 sequences, event_id_seq for one",
        "authenticated may read 2 tables beyond its own rows, document for one",
        "authenticated may see rows by 1 policies beside ours, curious on job for one",
        "public may execute 1 functions, later for one",
    )


# --- services -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("bypass", ["bypassrls", "nobypassrls"])
def test_a_member_of_the_service_sees_and_changes_every_row(filled: Database, catalogue: Sql, bypass: str) -> None:
    with connected(filled.superuser_dsn, autocommit=False) as sql:
        sql.run(f"create role passing_member login inherit {bypass} in role service_role")
        sql.run("set local session authorization passing_member")
        for table in tables(catalogue):
            count = catalogue.value(f"select count(*) from ledgerq.{table}")
            column = catalogue.value(WRITABLE_COLUMN, f"ledgerq.{table}")
            assert sql.value(f"select count(*) from ledgerq.{table}") == count, table
            changed = sql.connection.execute(f"update ledgerq.{table} set {column} = {column} where true".encode()).rowcount
            assert changed == count > 0, table
        live(sql, str(uuid4()))
        sql.connection.rollback()


def test_the_services_role_is_no_way_to_another(filled: Database) -> None:
    """It may be service_role, and neither a browser nor the owner of the tables."""
    with connected(filled.service_dsn) as sql:
        sql.run("set role service_role")
        sql.run("reset role")
        for role in ("postgres", "anon", "authenticated", "supabase_realtime_admin", "supabase_admin"):
            with pytest.raises(psycopg.errors.InsufficientPrivilege):
                sql.run(f"set role {role}")


# --- by index -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("table", ["job", "event", "document", "source"])
def test_what_a_user_owns_is_found_by_index(filled: Database, table: str) -> None:
    """Among many owners, and who is asking is asked once a statement."""
    with connected(filled.dsn, autocommit=False) as sql:
        sql.run(MANY[table])
        sql.run(f"analyze ledgerq.{table}")
        sql.connection.execute(BECOME, (claims(ANN), "", "authenticated"))
        plan = "\n".join(row[0] for row in sql.rows(f"explain select id from ledgerq.{table}"))
        sql.connection.rollback()
    assert f"{table}_by_owner" in plan, plan
    assert "Index Cond: (owner_id = (InitPlan" in plan or "Index Cond: (owner_id = $" in plan, plan


MANY = {
    "job": (
        "insert into ledgerq.job (id, owner_id, type, queue, request_digest, max_attempts, timeout_s, deadline_s, deadline_at)"
        " select gen_random_uuid(), gen_random_uuid(), 'noop', 'processing', '', 1, 1, 1, now() from generate_series(1, 2000)"
    ),
    "event": "insert into ledgerq.event (owner_id, kind) select gen_random_uuid(), 'created' from generate_series(1, 2000)",
    "document": (
        "insert into ledgerq.document (id, owner_id, uri, content_hash, body, changed_under)"
        " select gen_random_uuid(), gen_random_uuid(), n::text, '', '{\"kind\": \"inline\"}', gen_random_uuid()"
        " from generate_series(1, 2000) n"
    ),
    "source": (
        "insert into ledgerq.source (id, owner_id, kind) select gen_random_uuid(), gen_random_uuid(), 'x' from generate_series(1, 2000)"
    ),
}
