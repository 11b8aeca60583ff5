"""Functions by `/rpc/…`: which one is meant, how arguments are typed, what comes back."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any
from uuid import uuid4

import httpx
import pytest
from supabase import Client, PostgrestAPIError

from tests.postgrest.conftest import Connect
from tests.support.databases import Database
from tests.support.postgrest import serve_postgrest


@pytest.mark.parametrize(
    ("function", "arguments", "data"),
    [
        ("echo", {"value": {"deep": [1, None, "ü\U0001f600", 2.5, True]}}, {"deep": [1, None, "ü\U0001f600", 2.5, True]}),
        ("echo", {"value": None}, None),
        ("add", {"a": 1}, 11),
        ("add", {"a": 1, "b": 2}, 3),
        ("add", {"b": "2", "a": "1"}, 3),
        ("no_text", {}, None),
        ("nothing", {}, []),
        ("someone", {}, {"name": "Ada", "age": 36}),
        ("people", {"n": 2}, [{"name": "p1", "age": 1}, {"name": "p2", "age": 2}]),
        ("people", {"n": 0}, []),
        ("numbers", {"n": 3}, [1, 2, 3]),
        ("pairs", {"n": 1}, [{"number": 1, "word": "w1"}]),
        ("whole", {"any": ["thing"]}, {"got": {"any": ["thing"]}}),
    ],
)
def test_a_function_is_called_by_the_names_of_its_arguments(service: Client, function: str, arguments: Any, data: object) -> None:
    assert service.rpc(function, arguments).execute().data == data


def test_the_database_types_the_arguments(service: Client) -> None:
    arguments: Any = {
        "ids": [uuid4(), uuid4()],
        "moment": datetime(2026, 11, 28, 12, tzinfo=UTC),
        "raw": b"\x00\xff",
        "who": {"name": "Ada", "age": 36, "unknown": 1},
        "all_of_them": [{"name": "A", "age": 1}, {"name": "B", "age": 2}],
        "fine": True,
    }
    assert service.rpc("typed", arguments).execute().data == {
        "ids": 2,
        "moment": "2026-11-28T12:00:00",
        "raw": "00ff",
        "who": {"name": "Ada", "age": 36},
        "ages": 3,
        "fine": True,
    }


def test_void_answers_204_without_a_body(raw: httpx.Client) -> None:
    response = raw.post("/rpc/nothing", json={})
    assert (response.status_code, response.content, "content-length" in response.headers) == (204, b"", False)


def test_a_result_comes_as_json_of_its_schema(raw: httpx.Client) -> None:
    response = raw.post("/rpc/add", json={"a": 1})
    assert response.status_code == 200
    assert response.headers["content-type"] == "application/json; charset=utf-8"
    assert response.headers["content-profile"] == "public"


@pytest.mark.parametrize("head", [False, True])
def test_a_stable_function_can_be_asked_by_get(service: Client, *, head: bool) -> None:
    arguments: Any = {"a": 1, "b": 2}
    assert service.rpc("add", arguments, get=not head, head=head).execute().data == ([] if head else 3)


def test_a_volatile_function_asked_by_get_may_not_write(raw: httpx.Client) -> None:
    response = raw.get("/rpc/nothing", params={"note": "by get"})
    assert (response.status_code, response.json()["code"]) == (405, "25006")


def test_another_method_is_none_for_functions(raw: httpx.Client) -> None:
    response = raw.patch("/rpc/add", json={})
    assert (response.status_code, response.json()["code"]) == (405, "PGRST101")
    assert response.json()["message"] == "Cannot use the PATCH method on RPC"


@pytest.mark.parametrize(
    ("function", "arguments", "message", "details", "hint"),
    [
        (
            "ad",
            {"a": 1, "b": 2},
            "Could not find the function public.ad(a, b) in the schema cache",
            (
                "Searched for the function public.ad with parameters a, b or with a single unnamed json/jsonb parameter, "
                "but no matches were found in the schema cache."
            ),
            "Perhaps you meant to call the function public.add",
        ),
        (
            "add",
            {"b": 1},
            "Could not find the function public.add(b) in the schema cache",
            (
                "Searched for the function public.add with parameter b or with a single unnamed json/jsonb parameter, "
                "but no matches were found in the schema cache."
            ),
            "Perhaps you meant to call the function public.add(a, b)",
        ),
        (
            "quite_another",
            {},
            "Could not find the function public.quite_another without parameters in the schema cache",
            (
                "Searched for the function public.quite_another without parameters or with a single unnamed json/jsonb parameter, "
                "but no matches were found in the schema cache."
            ),
            None,
        ),
    ],
)
def test_an_unknown_function_or_argument(
    service: Client, function: str, arguments: Any, message: str, details: str, hint: str | None
) -> None:
    with pytest.raises(PostgrestAPIError) as refused:
        service.rpc(function, arguments).execute()
    assert refused.value.json() == {"code": "PGRST202", "message": message, "details": details, "hint": hint}


def test_an_argument_too_many_is_404(raw: httpx.Client) -> None:
    response = raw.post("/rpc/add", json={"a": 1, "c": 2})
    assert (response.status_code, response.json()["code"]) == (404, "PGRST202")
    assert response.headers["proxy-status"] == "PostgREST; error=PGRST202"


def test_a_trigger_function_is_not_in_the_schema_cache(raw: httpx.Client) -> None:
    assert raw.post("/rpc/later", json={}).json()["code"] == "PGRST202"


def test_overloads_with_the_same_names_cannot_be_told_apart(raw: httpx.Client) -> None:
    response = raw.post("/rpc/twice", json={"a": 1})
    assert response.status_code == 300
    assert response.json() == {
        "code": "PGRST203",
        "message": "Could not choose the best candidate function between: public.twice(a => integer), public.twice(a => text)",
        "details": None,
        "hint": "Try renaming the parameters or the function itself in the database so function overloading can be resolved",
    }


@pytest.mark.parametrize("body", ["{", "nothing", '{"a": NaN}', '{"a": 1} x', b"\xff"])
def test_a_body_that_is_not_json(raw: httpx.Client, body: str | bytes) -> None:
    response = raw.post("/rpc/add", content=body, headers={"Content-Type": "application/json"})
    assert (response.status_code, response.json()["code"], response.json()["message"]) == (400, "PGRST102", "Empty or invalid json")


def test_no_body_is_an_empty_object(raw: httpx.Client) -> None:
    assert raw.post("/rpc/no_text").content == b"null"


@pytest.mark.parametrize(("arguments", "code"), [({"a": "x"}, "22P02"), ({"a": 2**40}, "22003"), ({"a": {}}, "22P02")])
def test_a_value_that_the_type_does_not_take(raw: httpx.Client, arguments: object, code: str) -> None:
    response = raw.post("/rpc/add", json=arguments)
    assert (response.status_code, response.json()["code"]) == (400, code)


@pytest.mark.parametrize(("text", "code"), [("\\u0000", "22P05"), ("\\ud800", "22P02")])
def test_text_that_the_database_cannot_hold(raw: httpx.Client, text: str, code: str) -> None:
    response = raw.post("/rpc/echo", content=f'{{"value": "{text}"}}', headers={"Content-Type": "application/json"})
    assert (response.status_code, response.json()["code"]) == (400, code)


def test_rows_of_a_function_are_cut_after_it_ran(exposed: Database, connect: Connect) -> None:
    """Why no function of the ledger returns rows: seven are claimed, three are told."""
    with serve_postgrest(exposed, max_rows=3) as server:
        client = connect(server)
        client.table("note").insert([{"body": f"claimed {n}"} for n in range(10)]).execute()
        arguments: Any = {"n": 7}
        assert len(client.rpc("claim", arguments).execute().data) == 3
        assert client.table("note").select("id", count="exact").eq("size", 1).execute().count == 7
        client.table("note").delete().like("body", "claimed*").execute()


def test_rows_are_counted_whole(service: Client) -> None:
    arguments: Any = {"n": 1200}
    answer = service.rpc("people", arguments, count="exact").execute()
    assert (len(answer.data), answer.count) == (1000, 1200)


def test_a_single_row_can_be_insisted_on(service: Client) -> None:
    one: Any = {"n": 1}
    two: Any = {"n": 2}
    assert service.rpc("people", one).single().execute().data == {"name": "p1", "age": 1}
    with pytest.raises(PostgrestAPIError) as refused:
        service.rpc("people", two).single().execute()
    assert (refused.value.code, refused.value.details) == ("PGRST116", "The result contains 2 rows")


def test_the_body_as_the_only_argument_is_no_preference_any_more(raw: httpx.Client) -> None:
    ignored = raw.post("/rpc/echo", json={"deep": 1}, headers={"Prefer": "params=single-object"})
    assert (ignored.status_code, ignored.json()["code"]) == (404, "PGRST202")
    strict = raw.post("/rpc/echo", json={"value": 1}, headers={"Prefer": "params=single-object, handling=strict"})
    assert (strict.status_code, strict.json()["code"]) == (400, "PGRST122")
    assert strict.json()["details"] == "Invalid preferences: params=single-object"


@pytest.mark.parametrize(
    ("path", "headers"),
    [
        ("/rpc/people?select=name", {}),
        ("/rpc/nothing", {"Prefer": "tx=rollback"}),
        ("/rpc/nothing", {"Content-Type": "text/csv"}),
        ("/rpc/answer_teapot", {}),
    ],
)
def test_what_the_stand_in_does_not_know_it_refuses(raw: httpx.Client, path: str, headers: dict[str, str]) -> None:
    response = raw.post(path, json={}, headers=headers)
    assert (response.status_code, response.json()["code"]) == (501, "STANDIN")
