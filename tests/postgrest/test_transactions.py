"""One request is one transaction: as the role, with its settings, and nothing is left of it."""

from __future__ import annotations

import time
from typing import Any

import httpx
import psycopg
import pytest
from supabase import Client, PostgrestAPIError

from tests.postgrest.conftest import Connect
from tests.support.databases import Database
from tests.support.postgrest import PostgrestServer, serve_postgrest


def test_the_role_is_taken_on_for_one_transaction(service: Client, anonymous: Client) -> None:
    inside = [client.rpc("inside", {}).execute().data for client in (service, anonymous, service)]
    assert [one["user"] for one in inside] == ["service_role", "anon", "service_role"]
    assert [one["statement_timeout"] for one in inside] == ["8s", "3s", "8s"]
    assert {one["session"] for one in inside} == {"authenticator"}
    assert len({one["backend"] for one in inside}) == 1, "one connection served them all"


def test_what_a_function_can_know_of_its_request(raw: httpx.Client) -> None:
    names = ["request.method", "request.path", "request.headers", "request.jwt.claims"]
    inside = raw.post("/rpc/inside", json={"names": names}, headers={"X-Of-Mine": "yes"}).json()
    assert inside["settings"]["request.method"] == "POST"
    assert inside["settings"]["request.path"] == "/rpc/inside"
    assert '"x-of-mine": "yes"' in inside["settings"]["request.headers"]
    assert '"role": "service_role"' in inside["settings"]["request.jwt.claims"]
    assert inside["search_path"] == '"public", "public", "extensions"'
    assert (inside["isolation"], inside["read_only"]) == ("read committed", "off")


@pytest.mark.parametrize(("method", "function"), [("GET", "inside_stable"), ("POST", "inside_stable"), ("GET", "inside")])
def test_what_only_reads_runs_read_only(raw: httpx.Client, method: str, function: str) -> None:
    answer = raw.request(method, f"/rpc/{function}").json()
    assert (answer if isinstance(answer, str) else answer["read_only"]) == "on"


def test_a_function_that_says_it_is_stable_may_not_write(raw: httpx.Client) -> None:
    response = raw.post("/rpc/says_stable", json={})
    assert (response.status_code, response.json()["code"]) == (405, "25006")


@pytest.mark.parametrize(("role", "seconds"), [("anon", "3s"), ("authenticated", "8s"), ("service_role", "8s")])
def test_statements_may_take_as_long_as_the_role_may(server: PostgrestServer, connect: Connect, role: str, seconds: str) -> None:
    """service_role has no time of its own: what is left is the login role's."""
    inside = connect(server, token=server.token(role)).rpc("inside", {}).execute().data
    assert (inside["statement_timeout"], inside["lock_timeout"]) == (seconds, "8s")


def test_a_functions_own_time_is_its_transactions(raw: httpx.Client) -> None:
    """PostgreSQL itself looks at the time before a function begins, so its own comes too late."""
    began = time.monotonic()
    response = raw.post("/rpc/hasty", json={"seconds": 30})
    assert (response.status_code, response.json()["code"]) == (500, "57014")
    assert time.monotonic() - began < 7, "the role's own time, 8 s, ended it"


def test_a_functions_own_time_is_of_no_other_transaction(service: Client) -> None:
    assert service.rpc("patient", {}).execute().data == "20s"
    assert service.rpc("inside", {}).execute().data["statement_timeout"] == "8s"


def test_a_functions_own_isolation_is_the_transactions(service: Client) -> None:
    assert service.rpc("serial", {}).execute().data == "serializable"


def test_an_error_undoes_everything_and_leaves_the_connection_clean(service: Client, anonymous: Client) -> None:
    before = anonymous.rpc("inside", {}).execute().data
    failing: Any = {"code": "LQ001"}
    with pytest.raises(PostgrestAPIError) as refused:
        service.rpc("fail", failing).execute()
    names: Any = {"names": ["request.jwt.claims", "request.path"]}
    after = anonymous.rpc("inside", names).execute().data
    assert refused.value.code == "LQ001"
    assert after.pop("settings")["request.path"] == "/rpc/inside"
    assert after == {name: value for name, value in before.items() if name != "settings"}
    assert service.table("note").select("*").eq("body", "never committed").execute().data == []


def test_an_error_at_the_commit_is_an_answer_too(raw: httpx.Client) -> None:
    """A deferred constraint is only looked at then."""
    response = raw.post("/part", json={"id": 1, "note_id": -1})
    assert (response.status_code, response.json()["code"]) == (409, "23503")
    assert raw.get("/part", params={"select": "id"}).json() == []


def test_a_committed_reply_is_a_committed_change(service: Client, exposed: Database) -> None:
    written: Any = {"note": "committed"}
    assert service.rpc("nothing", written).execute().data == []
    with psycopg.connect(exposed.superuser_dsn) as connection:
        assert connection.execute("delete from public.note where body = 'committed'").rowcount == 1


@pytest.mark.parametrize(
    ("function", "command"),
    [("unsafe_update", "UPDATE"), ("unsafe_delete", "DELETE"), ("unsafe_inside", "DELETE"), ("unsafe_by_call", "UPDATE")],
)
def test_no_change_without_where_in_functions_neither(service: Client, raw: httpx.Client, function: str, command: str) -> None:
    kept: Any = {"body": f"kept from {function}", "size": 7}
    service.table("note").insert(kept).execute()
    for _ in range(2):
        response = raw.post(f"/rpc/{function}", json={})
        assert (response.status_code, response.json()["code"]) == (400, "21000")
        assert response.json()["message"] == f"{command} requires a WHERE clause"
    assert service.table("note").select("size").eq("body", kept["body"]).execute().data == [{"size": 7}]


def test_changes_with_where_pass(service: Client) -> None:
    assert service.rpc("safe", {}).execute().data == 0


def test_the_watch_can_be_left_out(exposed: Database, connect: Connect) -> None:
    """A direct connection has no safeupdate either."""
    with serve_postgrest(exposed, safeupdate=False) as server:
        assert connect(server).rpc("unsafe_update", {}).execute().data == 1
