"""A transport made before a fork works on both sides of it."""

from __future__ import annotations

import json
import os
import warnings
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import cast

import psycopg

from ledgerq.ledger import Transport
from tests.support.databases import Database
from tests.support.proxy import Proxy
from tests.support.waiting import eventually
from tests.support.ways import Way

PLACES = 4
"""Connections of one transport (`Settings.ledger_pool_size`)."""


def test_parent_and_child_have_connections_of_their_own(lossy: tuple[Transport, Proxy]) -> None:
    transport, proxy = lossy
    _backend(transport)
    assert proxy.faults.connections == 1
    for _ in range(2):
        _in_a_child(lambda: _backend(transport))
    assert proxy.faults.connections == 3
    _backend(transport)
    assert proxy.faults.connections == 3


def test_a_child_that_closes_leaves_the_parent_connected(lossy: tuple[Transport, Proxy]) -> None:
    transport, proxy = lossy
    _backend(transport)
    _in_a_child(lambda: (transport.close(), 0)[1])
    _backend(transport)
    assert proxy.faults.connections == 1


def test_a_fork_in_the_middle_of_a_call(way: Way, probed: Database) -> None:
    """All connections of the parent are in use: the child's are its own, and so are its places."""
    transport = way.transport(timeout_s=30)
    with ThreadPoolExecutor(PLACES) as threads, psycopg.connect(probed.superuser_dsn, autocommit=True) as admin:
        admin.execute("select pg_advisory_lock(4711)")
        calls = [threads.submit(transport.call, "probe_held", {"lock": 4711}) for _ in range(PLACES)]
        try:
            eventually(lambda: _waiting(admin) == PLACES, what="all calls wait in the database")
            assert _in_a_child(lambda: _backend(transport)) > 0
        finally:
            admin.execute("select pg_advisory_unlock(4711)")
        assert [call.result() for call in calls] == [{}] * PLACES
    transport.close()


def _waiting(admin: psycopg.Connection) -> int:
    row = admin.execute("select count(*) from pg_locks where locktype = 'advisory' and not granted").fetchone()
    assert row is not None
    return int(row[0])


def _backend(transport: Transport) -> int:
    answer = transport.call("probe_session", {})
    assert isinstance(answer, dict)
    return cast("int", answer["backend"])


def _in_a_child(work: Callable[[], int]) -> int:
    reading, writing = os.pipe()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # of forking beside threads: RQ does just that
        child = os.fork()
    if child == 0:
        try:
            os.write(writing, json.dumps(work()).encode())
        finally:
            os._exit(0)
    os.close(writing)
    with os.fdopen(reading) as answer:
        text = answer.read()
    os.waitpid(child, 0)
    assert text, "the child failed"
    return int(json.loads(text))
