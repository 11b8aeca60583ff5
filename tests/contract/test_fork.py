"""A transport made before a fork works on both sides of it."""

from __future__ import annotations

import json
import os
import warnings
from collections.abc import Callable
from typing import cast

from ledgerq.ledger import Transport
from tests.support.databases import Database


def test_parent_and_child_have_sessions_of_their_own(make_transport: Callable[[str], Transport], probed: Database) -> None:
    transport = make_transport(probed.service_dsn)
    before = _backend(transport)
    children = {_in_a_child(lambda: _backend(transport)) for _ in range(2)}
    assert len(children | {before}) == 3
    assert _backend(transport) == before
    transport.close()


def test_a_child_that_closes_leaves_the_parent_connected(make_transport: Callable[[str], Transport], probed: Database) -> None:
    transport = make_transport(probed.service_dsn)
    before = _backend(transport)
    _in_a_child(lambda: (transport.close(), 0)[1])
    assert _backend(transport) == before
    transport.close()


def test_a_fork_in_the_middle_of_a_call(make_transport: Callable[[str], Transport], probed: Database) -> None:
    """All connections of the parent are in use: the child's are its own, and so are its places."""
    transport = make_transport(probed.service_dsn)
    connections = transport._connections  # type: ignore[attr-defined]
    with connections.borrow(timeout_s=1), connections.borrow(timeout_s=1), connections.borrow(timeout_s=1), connections.borrow(timeout_s=1):
        assert _in_a_child(lambda: _backend(transport)) > 0
    transport.close()


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
