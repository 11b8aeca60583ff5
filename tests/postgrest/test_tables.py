"""Tables: what is read, what rights and row-level security answer."""

from __future__ import annotations

from typing import Any
from uuid import UUID, uuid4

import httpx
import psycopg
import pytest
from supabase import Client, PostgrestAPIError

from tests.postgrest.conftest import Connect
from tests.support.databases import Database
from tests.support.postgrest import PostgrestServer, serve_postgrest


@pytest.fixture(autouse=True)
def emptied(exposed: Database) -> None:
    with psycopg.connect(exposed.superuser_dsn, autocommit=True) as connection:
        connection.execute("truncate public.note, public.part restart identity")


@pytest.fixture
def rows(service: Client) -> None:
    sizes: Any = [{"body": body, "size": size} for body, size in (("a", 1), ("b,c", 2), ('d"e', None), ("f(g)", 4))]
    service.table("note").insert(sizes).execute()


@pytest.mark.usefixtures("rows")
@pytest.mark.parametrize(
    ("query", "found"),
    [
        (lambda one: one.eq("body", "a"), ["a"]),
        (lambda one: one.neq("body", "a"), ["b,c", 'd"e', "f(g)"]),
        (lambda one: one.gt("size", 1).lt("size", 4), ["b,c"]),
        (lambda one: one.gte("size", 2).lte("size", 4), ["b,c", "f(g)"]),
        (lambda one: one.in_("body", ["a", "b,c", 'd"e', "f(g)", "\\", ""]), ["a", "b,c", 'd"e', "f(g)"]),
        (lambda one: one.in_("body", []), []),
        (lambda one: one.is_("size", "null"), ['d"e']),
        (lambda one: one.not_.is_("size", "null"), ["a", "b,c", "f(g)"]),
        (lambda one: one.like("body", "%,%"), ["b,c"]),
        (lambda one: one.like("body", "f*"), ["f(g)"]),
        (lambda one: one.order("size", desc=True, nullsfirst=False).limit(2), ["f(g)", "b,c"]),
        (lambda one: one.order("size", nullsfirst=True).limit(1), ['d"e']),
        (lambda one: one.limit(2), ["a", "b,c"]),
        (lambda one: one.limit(0), []),
        (lambda one: one.range(1, 2), ["b,c", 'd"e']),
    ],
)  # fmt: skip
def test_rows_are_chosen(service: Client, query: Any, found: list[str]) -> None:
    answer = query(service.table("note").select("body")).order("id").execute()
    assert [row["body"] for row in answer.data] == found


@pytest.mark.usefixtures("rows")
def test_rows_are_counted_and_ranged(raw: httpx.Client) -> None:
    part = raw.get("/note", params={"select": "id", "order": "id"}, headers={"Prefer": "count=exact", "Range": "1-2"})
    assert (part.status_code, part.headers["content-range"], len(part.json())) == (206, "1-2/4", 2)
    assert part.headers["preference-applied"] == "count=exact"
    everything = raw.get("/note", headers={"Prefer": "count=exact"})
    assert (everything.status_code, everything.headers["content-range"]) == (200, "0-3/4")
    assert raw.get("/note").headers["content-range"] == "0-3/*"
    assert raw.head("/note").headers["content-range"] == "0-3/*"
    beyond = raw.get("/note", params={"offset": "9"}, headers={"Prefer": "count=exact"})
    assert (beyond.status_code, beyond.json()["code"]) == (416, "PGRST103")
    assert raw.get("/note", params={"limit": "-1"}).status_code == 416
    assert raw.get("/note", headers={"Range": "3-1"}).status_code == 416


@pytest.mark.usefixtures("rows")
def test_rows_are_cut(exposed: Database, connect: Connect) -> None:
    with serve_postgrest(exposed, max_rows=3) as server:
        client = connect(server)
        assert len(client.table("note").select("id").execute().data) == 3
        assert len(client.table("note").select("id").limit(100).execute().data) == 3
        assert client.table("note").select("id", count="exact").execute().count == 4


def test_a_row_may_be_insisted_on(service: Client) -> None:
    with pytest.raises(PostgrestAPIError) as refused:
        service.table("note").select("*").single().execute()
    assert (refused.value.code, refused.value.details) == ("PGRST116", "The result contains 0 rows")


def test_rows_are_written_as_the_role(server: PostgrestServer, connect: Connect, service: Client) -> None:
    mine, yours = uuid4(), uuid4()
    me, you = (connect(server, "anon_key", token=server.token("authenticated", user)) for user in (mine, yours))
    made = me.table("note").insert({"body": "mine", "size": 1}).execute().data
    assert (made[0]["owner_id"], made[0]["body"]) == (str(mine), "mine")
    assert you.table("note").select("*").execute().data == []
    assert you.table("note").update({"size": 2}).eq("body", "mine").execute().data == []
    assert you.table("note").delete().eq("body", "mine").execute().data == []
    assert me.table("note").update({"size": 3}).eq("body", "mine").execute().data[0]["size"] == 3
    assert [UUID(row["owner_id"]) for row in service.table("note").select("owner_id").execute().data] == [mine]
    assert me.table("note").delete().eq("body", "mine").execute().data[0]["body"] == "mine"


def test_row_level_security_refuses_what_is_anothers(server: PostgrestServer, connect: Connect) -> None:
    me = connect(server, "anon_key", token=server.token("authenticated", uuid4()))
    with pytest.raises(PostgrestAPIError) as refused:
        me.table("note").insert({"body": "yours", "owner_id": str(uuid4())}).execute()
    assert refused.value.code == "42501"


def test_rights_refuse_what_is_not_granted(raw: httpx.Client, server: PostgrestServer) -> None:
    anonymous = {"Authorization": f"Bearer {server.anon_key}"}
    assert raw.get("/note", headers=anonymous).json() == []
    response = raw.post("/note", json={"body": "x"}, headers=anonymous)
    assert (response.status_code, response.json()["code"]) == (401, "42501")
    closed = raw.get("/closed")
    assert (closed.status_code, closed.json()["message"]) == (403, "permission denied for table closed")


@pytest.mark.parametrize(("method", "quiet", "told"), [("POST", 201, 201), ("PATCH", 204, 200), ("DELETE", 204, 200)])
def test_what_was_written_is_told_when_asked_for(raw: httpx.Client, method: str, quiet: int, told: int) -> None:
    if method != "POST":
        raw.post("/note", json=[{"body": "one"}, {"body": "two"}])
    where = ({}, {}) if method == "POST" else ({"body": "eq.one"}, {"body": "eq.two"})
    first = raw.request(method, "/note", json={"body": "one"}, params=where[0])
    second = raw.request(
        method, "/note", json={"body": "two"}, params={**where[1], "select": "body"}, headers={"Prefer": "return=representation"}
    )
    assert (first.status_code, first.content) == (quiet, b"")
    assert first.headers["content-range"] == ("0-0/*" if method == "PATCH" else "*/*")
    assert (second.status_code, second.json()) == (told, [{"body": "two"}])
    assert second.headers["preference-applied"] == "return=representation"


@pytest.mark.parametrize("method", ["PATCH", "DELETE"])
def test_a_change_of_every_row_is_refused(raw: httpx.Client, method: str) -> None:
    response = raw.request(method, "/note", json={"size": 1})
    assert (response.status_code, response.json()["code"]) == (400, "21000")
    assert response.json()["message"] == f"{'UPDATE' if method == 'PATCH' else method} requires a WHERE clause"


@pytest.mark.parametrize(
    ("row", "status", "code"),
    [
        ({"body": "twice"}, 409, "23505"),
        ({"body": None}, 400, "23502"),
        ({"body": "x", "size": 5000}, 400, "23514"),
        ({"body": "x", "colour": "red"}, 400, "PGRST204"),
        ([{"body": "x"}, {"size": 1}], 400, "PGRST102"),
    ],
)
def test_a_row_that_cannot_be(raw: httpx.Client, row: Any, status: int, code: str) -> None:
    raw.post("/note", json={"body": "twice"})
    response = raw.post("/note", json=row)
    assert (response.status_code, response.json()["code"]) == (status, code)


@pytest.mark.parametrize(
    ("query", "status", "code"),
    [
        ({"select": "colour"}, 400, "42703"),
        ({"colour": "eq.red"}, 400, "42703"),
        ({"size": "red"}, 400, "PGRST100"),
        ({"size": "eq.red"}, 400, "22P02"),
        ({"size": "is.red"}, 400, "PGRST100"),
        ({"order": "id.up"}, 400, "PGRST100"),
        ({"size": "cs.{1}"}, 501, "STANDIN"),
        ({"or": "(id.eq.1,id.eq.2)"}, 501, "STANDIN"),
        ({"select": "id,part(id)"}, 501, "STANDIN"),
        ({"select": "body->a"}, 501, "STANDIN"),
    ],
)
def test_a_query_that_cannot_be(raw: httpx.Client, query: dict[str, str], status: int, code: str) -> None:
    response = raw.get("/note", params=query)
    assert (response.status_code, response.json()["code"]) == (status, code)


def test_an_unknown_table(service: Client) -> None:
    with pytest.raises(PostgrestAPIError) as refused:
        service.table("notes").select("*").execute()
    assert refused.value.json() == {
        "code": "PGRST205",
        "message": "Could not find the table 'public.notes' in the schema cache",
        "details": None,
        "hint": "Perhaps you meant the table 'public.note'",
    }


def test_a_path_that_is_nothing(raw: httpx.Client) -> None:
    response = raw.get("/note/1")
    assert (response.status_code, response.json()["code"]) == (404, "PGRST125")
    assert raw.get("/note", headers={"Accept": "text/csv"}).json()["code"] == "PGRST107"
