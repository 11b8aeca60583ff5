"""Who is let in, and as whom: API keys at the gateway, tokens at PostgREST."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from typing import Any
from uuid import uuid4

import httpx
import jwt
import pytest
from supabase import PostgrestAPIError

from tests.postgrest.conftest import PLAIN, Connect
from tests.support.databases import Database
from tests.support.postgrest import PostgrestServer, serve_postgrest

WHO: Any = {"names": ["request.jwt.claims"]}


@pytest.fixture(scope="module")
def bare(server: PostgrestServer) -> Iterator[httpx.Client]:
    """Without any key."""
    with httpx.Client(base_url=f"{server.url}/rest/v1", **PLAIN) as client:
        yield client


def user_of(response: httpx.Response) -> str:
    return response.json()["user"]


@pytest.mark.parametrize(("key", "role"), [("service_key", "service_role"), ("anon_key", "anon")])
def test_a_key_of_the_old_kind_is_a_token(server: PostgrestServer, connect: Connect, key: str, role: str) -> None:
    assert connect(server, key).rpc("inside", {}).execute().data["user"] == role


@pytest.mark.parametrize(("key", "role"), [("secret_key", "service_role"), ("publishable_key", "anon")])
def test_a_key_of_the_new_kind_stands_for_a_role(server: PostgrestServer, bare: httpx.Client, key: str, role: str) -> None:
    assert user_of(bare.post("/rpc/inside", json={}, headers={"apikey": getattr(server, key)})) == role


def test_a_key_may_be_in_the_query_string(server: PostgrestServer, bare: httpx.Client) -> None:
    assert bare.get("/rpc/add", params={"a": "1", "apikey": server.service_key}).json() == 11


def test_without_a_key_nothing_gets_in(server: PostgrestServer, bare: httpx.Client) -> None:
    response = bare.post("/rpc/inside", json={}, headers={"Authorization": f"Bearer {server.service_key}"})
    assert response.status_code == 401
    assert response.json() == {
        "message": "No API key found in request",
        "hint": "No `apikey` request header or url param was found.",
    }


def test_an_unknown_key_is_refused_without_a_code(server: PostgrestServer, connect: Connect) -> None:
    """So that supabase-py, which has none to tell, tells of none."""
    with pytest.raises(PostgrestAPIError) as refused:
        connect(server, server.token("service_role")).rpc("inside", {}).execute()
    assert refused.value.code is None
    assert refused.value.message == "Invalid API key"
    assert refused.value.hint == "Double check your Supabase `anon` or `service_role` API key."


def test_a_new_key_is_no_bearer(server: PostgrestServer, connect: Connect) -> None:
    """supabase-py sends its key as both, unless it is told what to send."""
    with pytest.raises(PostgrestAPIError) as refused:
        connect(server, "secret_key").rpc("inside", {}).execute()
    assert (refused.value.code, refused.value.message) == ("PGRST301", "Expected 3 parts in JWT; got 1")
    told = connect(server, "secret_key", token=server.token("service_role"))
    assert told.rpc("inside", {}).execute().data["user"] == "service_role"


def test_some_gateways_let_a_new_key_be_a_bearer(exposed: Database, connect: Connect) -> None:
    with serve_postgrest(exposed, strict_bearer=False) as tolerant:
        assert connect(tolerant, "secret_key").rpc("inside", {}).execute().data["user"] == "service_role"


def test_a_secret_key_is_not_for_browsers(server: PostgrestServer, bare: httpx.Client) -> None:
    browser = {"User-Agent": "Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36"}
    secret = bare.post("/rpc/inside", json={}, headers={"apikey": server.secret_key, **browser})
    public = bare.post("/rpc/inside", json={}, headers={"apikey": server.publishable_key, **browser})
    assert (secret.status_code, public.status_code) == (401, 200)


def test_a_users_token_says_who_asks(server: PostgrestServer, connect: Connect) -> None:
    user = uuid4()
    client = connect(server, "publishable_key", token=server.token("authenticated", user, email="a@example.org"))
    inside = client.rpc("inside", WHO).execute().data
    claims = json.loads(inside["settings"]["request.jwt.claims"])
    assert inside["user"] == "authenticated"
    assert (claims["sub"], claims["role"], claims["email"]) == (str(user), "authenticated", "a@example.org")


def test_without_a_role_it_is_the_anonymous_one(server: PostgrestServer, bare: httpx.Client) -> None:
    token = server.signer.sign({"sub": "x"})
    assert user_of(bare.post("/rpc/inside", json={}, headers={"apikey": server.anon_key, "Authorization": f"Bearer {token}"})) == "anon"


@pytest.mark.parametrize("scheme", ["Basic", "Token"])
def test_another_scheme_is_no_token(server: PostgrestServer, bare: httpx.Client, scheme: str) -> None:
    headers = {"apikey": server.service_key, "Authorization": f"{scheme} {server.service_key}"}
    assert user_of(bare.post("/rpc/inside", json={}, headers=headers)) == "anon"


OTHERS = "another secret that is long enough for this"


@pytest.mark.parametrize(
    ("token", "code", "message"),
    [
        ("", "PGRST301", "Empty JWT is sent in Authorization header"),
        ("a.b", "PGRST301", "Expected 3 parts in JWT; got 2"),
        ("a.b.c", "PGRST301", "JWT cryptographic operation failed"),
        (jwt.encode({"role": "service_role"}, OTHERS, algorithm="HS256"), "PGRST301", "No suitable key or wrong key type"),
        (jwt.encode({"role": "service_role"}, None, algorithm="none"), "PGRST301", "Wrong or unsupported encoding algorithm"),
        ({"exp": -60}, "PGRST303", "JWT expired"),
        ({"nbf": 60}, "PGRST303", "JWT not yet valid"),
        ({"iat": 60}, "PGRST303", "JWT issued at future"),
        ({"exp": "soon"}, "PGRST303", "The JWT 'exp' claim must be a number"),
    ],
)
def test_a_token_that_is_none_of_ours_or_not_now(
    server: PostgrestServer, bare: httpx.Client, token: str | dict[str, Any], code: str, message: str
) -> None:
    if isinstance(token, dict):
        moved = {name: int(time.time()) + value if isinstance(value, int) else value for name, value in token.items()}
        token = server.token("authenticated", **moved)
    response = bare.post("/rpc/inside", json={}, headers={"apikey": server.anon_key, "Authorization": f"Bearer {token}".strip()})
    assert (response.status_code, response.json()["code"], response.json()["message"]) == (401, code, message)
    assert response.headers["www-authenticate"] == f'Bearer error="invalid_token", error_description="{message}"'


def test_clocks_may_differ_a_little(server: PostgrestServer, connect: Connect) -> None:
    token = server.token("authenticated", exp=int(time.time()) - 10)
    assert connect(server, token=token).rpc("inside", {}).execute().data["user"] == "authenticated"


@pytest.mark.parametrize(("role", "status", "code"), [("nobody", 401, "22023"), ("postgres", 403, "42501")])
def test_a_role_that_cannot_be_taken_on(server: PostgrestServer, raw: httpx.Client, role: str, status: int, code: str) -> None:
    response = raw.post("/rpc/inside", json={}, headers={"Authorization": f"Bearer {server.token(role)}"})
    assert (response.status_code, response.json()["code"]) == (status, code)


def test_other_paths_are_not_postgrests(server: PostgrestServer, http: httpx.Client) -> None:
    response = http.post(f"{server.url}/rpc/inside", headers={"apikey": server.service_key}, json={})
    assert (response.status_code, response.json()) == (404, {"message": "no Route matched with those values"})
