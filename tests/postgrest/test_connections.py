"""Connections: to the database, which may be away, and of clients, who may stay."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from urllib.parse import urlsplit

import httpx
import psycopg
import pytest
from supabase import PostgrestAPIError

from tests.postgrest.conftest import Connect
from tests.support.databases import Database
from tests.support.postgrest import PostgrestServer, serve_postgrest
from tests.support.proxy import Proxy, proxied
from tests.support.waiting import eventually

Ask = Callable[..., httpx.Response]


@pytest.fixture
def ask(http: httpx.Client) -> Ask:
    """Calls a function by plain HTTP: `add(1)`, which is 11, or another."""

    def asked(server: PostgrestServer, function: str = "add", **arguments: object) -> httpx.Response:
        url = f"{server.url}/rest/v1/rpc/{function}"
        return http.post(url, json=arguments or {"a": 1}, headers={"apikey": server.service_key})

    return asked


def cut_off(proxy: Proxy) -> None:
    proxy.faults.refuse = True
    proxy.drop_all()


def test_without_the_database_the_answer_is_503_until_it_is_back(ask: Ask, exposed: Database) -> None:
    with proxied(exposed.authenticator_dsn) as (dsn, proxy), serve_postgrest(exposed, dsn=dsn, listen=False) as server:
        assert ask(server).json() == 11
        cut_off(proxy)
        lost = ask(server)
        assert (lost.status_code, lost.json()["code"]) == (503, "PGRST001"), "the connection it had"
        away = ask(server)
        assert (away.status_code, away.json()["code"], away.json()["message"]) == (503, "PGRST000", "Database connection error.")
        assert away.headers["retry-after"] == "1"
        proxy.faults.refuse = False
        assert ask(server).json() == 11


def test_without_the_database_at_the_start_there_is_no_schema_cache(ask: Ask, exposed: Database, connect: Connect) -> None:
    with proxied(exposed.authenticator_dsn) as (dsn, proxy):
        cut_off(proxy)
        with serve_postgrest(exposed, dsn=dsn, listen=False) as server:
            client = connect(server)
            for _ in range(2):
                with pytest.raises(PostgrestAPIError) as refused:
                    client.rpc("inside", {}).execute()
                assert (refused.value.code, refused.value.message) == (
                    "PGRST002",
                    "Could not query the database for the schema cache. Retrying.",
                )
            assert ask(server).status_code == 503
            proxy.faults.refuse = False
            assert ask(server).json() == 11


def test_a_connection_that_the_database_ends_is_replaced(ask: Ask, server: PostgrestServer, exposed: Database) -> None:
    backend = ask(server, "inside", names=[]).json()["backend"]
    with psycopg.connect(exposed.superuser_dsn, autocommit=True) as superuser:
        superuser.execute("select pg_terminate_backend(%s, 5000)", [backend])
    ended = ask(server)
    assert (ended.status_code, ended.json()["code"]) == (503, "57P01")
    assert ask(server).json() == 11


def test_who_waits_too_long_for_a_connection_is_told(ask: Ask, exposed: Database) -> None:
    with (
        serve_postgrest(exposed, pool_size=1, pool_timeout=0.1, listen=False) as server,
        psycopg.connect(exposed.superuser_dsn, autocommit=True) as superuser,
        ThreadPoolExecutor(1) as threads,
    ):
        slow = threads.submit(ask, server, "sleep", seconds=30)
        eventually(lambda: sleepers(superuser))
        late = ask(server)
        assert (late.status_code, late.json()["code"]) == (504, "PGRST003")
        superuser.execute("select pg_cancel_backend(pid) from pg_stat_activity where pid = %s", [sleepers(superuser)])
        assert (slow.result().status_code, slow.result().json()["code"]) == (500, "57014")
        assert ask(server).json() == 11


def test_many_ask_at_once_over_few_connections(ask: Ask, exposed: Database) -> None:
    with serve_postgrest(exposed, pool_size=3, listen=False) as server, ThreadPoolExecutor(12) as threads:
        answers = list(threads.map(lambda _: ask(server, "inside", names=[]).json(), range(60)))
    assert {answer["user"] for answer in answers} == {"service_role"}
    assert len({answer["backend"] for answer in answers}) <= 3


def test_connections_of_clients_are_kept_and_answers_leave_at_once(server: PostgrestServer) -> None:
    with socket.create_connection(("127.0.0.1", urlsplit(server.url).port or 0)) as client:
        for _ in range(3):
            head = f"GET /rest/v1/rpc/add?a=1 HTTP/1.1\r\nHost: x\r\napikey: {server.service_key}\r\n\r\n"
            client.sendall(head.encode())
            answer = client.recv(65536)
            assert answer.startswith(b"HTTP/1.1 200 OK\r\n")
            assert answer.endswith(b"\r\n\r\n11")


def test_at_the_end_nothing_is_left(ask: Ask, exposed: Database) -> None:
    """Neither an idle client nor a long statement holds it up, and no connection or thread stays."""
    threads = set(threading.enumerate())
    with psycopg.connect(exposed.superuser_dsn, autocommit=True) as superuser, ThreadPoolExecutor(1) as helpers:
        before = backends(superuser)
        with serve_postgrest(exposed) as server:
            slow = helpers.submit(ask, server, "sleep", seconds=30)
            idle = socket.create_connection(("127.0.0.1", urlsplit(server.url).port or 0))
            eventually(lambda: sleepers(superuser))
            began = time.monotonic()
        assert time.monotonic() - began < 5, "a statement's own timeout would end it too"
        assert idle.recv(1) == b""
        idle.close()
        assert isinstance(slow.exception(), httpx.TransportError)
        eventually(lambda: backends(superuser) <= before)
    assert {thread.name for thread in threading.enumerate() if thread not in threads} == set()
    with pytest.raises(httpx.ConnectError):
        ask(server)


def backends(superuser: psycopg.Connection) -> set[int]:
    """Of stand-ins, in this database."""
    return {
        row[0]
        for row in superuser.execute(
            "select pid from pg_stat_activity where usename = 'authenticator' and datname = current_database()"
        ).fetchall()
    }


def sleepers(superuser: psycopg.Connection) -> int | None:
    """The backend that sleeps for a call, when there is one."""
    found = superuser.execute(
        "select pid from pg_stat_activity where datname = current_database() and usename = 'authenticator' and wait_event = 'PgSleep'"
    ).fetchone()
    return found and found[0]
