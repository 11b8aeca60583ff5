"""Errors of SQL as HTTP: PostgREST's table, and what SQL says itself."""

from __future__ import annotations

from typing import Any

import httpx
import pytest
from supabase import Client, PostgrestAPIError

from tests.support.postgrest.sqlstates import status_of

DOCUMENTED = {
    "08006": 503, "09000": 500, "0L000": 403, "0P000": 403, "23503": 409, "23505": 409, "25006": 405, "25P02": 500,
    "28000": 403, "2D000": 500, "38000": 500, "39000": 500, "3B000": 500, "40001": 500, "40P01": 500, "53400": 500,
    "53300": 503, "54000": 500, "55P03": 500, "57014": 500, "57P01": 503, "57P03": 500, "58000": 500, "F0000": 500,
    "HV000": 500, "P0001": 400, "P0002": 500, "XX000": 500, "42883": 404, "42P01": 404, "42P17": 500, "42501": 403,
    "22023": 400, "21000": 500, "22P02": 400, "23502": 400, "42703": 400, "LQ001": 400, "LQ005": 400, "PT418": 418, "PT999": 999,
}  # fmt: skip


@pytest.mark.parametrize(("code", "status"), DOCUMENTED.items())
def test_the_table(code: str, status: int) -> None:
    assert status_of(code) == status


@pytest.mark.parametrize("code", ["LQ001", "LQ009", "P0001", "23505", "40001", "57014", "PT409", "XX000", "42P01"])
def test_what_a_function_raises(raw: httpx.Client, code: str) -> None:
    response = raw.post("/rpc/fail", json={"code": code, "message": "no", "detail": "more", "hint": "do"})
    assert response.status_code == status_of(code)
    assert response.json() == {"code": code, "message": "no", "details": "more", "hint": "do"}
    assert response.headers["content-type"] == "application/json; charset=utf-8"
    assert response.headers["proxy-status"] == f"PostgREST; error={code}"


def test_supabase_py_tells_everything_but_the_status(service: Client) -> None:
    failing: Any = {"code": "LQ001", "message": "no", "detail": "more", "hint": "do"}
    with pytest.raises(PostgrestAPIError) as refused:
        service.rpc("fail", failing).execute()
    assert refused.value.json() == {"code": "LQ001", "message": "no", "details": "more", "hint": "do"}


def test_a_missing_right_is_403_or_for_the_anonymous_401(raw: httpx.Client, anonymous: Client, server: Any) -> None:
    user = raw.post("/rpc/only_service", json={}, headers={"Authorization": f"Bearer {server.token('authenticated')}"})
    nobody = raw.post("/rpc/only_service", json={}, headers={"Authorization": f"Bearer {server.anon_key}"})
    assert (user.status_code, user.json()["code"], "www-authenticate" in user.headers) == (403, "42501", False)
    assert (nobody.status_code, nobody.json()["code"], nobody.headers["www-authenticate"]) == (401, "42501", "Bearer")
    with pytest.raises(PostgrestAPIError, match="permission denied for function only_service"):
        anonymous.rpc("only_service", {}).execute()


def test_a_function_can_say_status_headers_and_body(raw: httpx.Client) -> None:
    message = '{"code": "123", "message": "pay", "details": "quota", "hint": "upgrade"}'
    response = raw.post("/rpc/refuse", json={"message": message, "detail": '{"status": 402, "headers": {"X-Of-Mine": "yes"}}'})
    assert (response.status_code, response.headers["x-of-mine"]) == (402, "yes")
    assert response.json() == {"code": "123", "message": "pay", "details": "quota", "hint": "upgrade"}


@pytest.mark.parametrize(
    ("message", "detail", "details"),
    [
        ("no json", "{}", "Invalid JSON value for MESSAGE: 'no json'"),
        ('{"code": "1", "message": "m"}', "no json", "Invalid JSON value for DETAIL: 'no json'"),
        ('{"code": "1", "message": "m"}', '{"status": 400}', "Invalid JSON value for DETAIL: '{\"status\": 400}'"),
        ('{"code": "1", "message": "m"}', None, "DETAIL is missing in the RAISE statement"),
    ],
)
def test_what_it_says_must_be_json(raw: httpx.Client, message: str, detail: str | None, details: str) -> None:
    response = raw.post("/rpc/refuse", json={"message": message, "detail": detail})
    assert (response.status_code, response.json()["code"], response.json()["details"]) == (500, "PGRST121", details)
