"""What every transport promises, whatever is between it and the database."""

from __future__ import annotations

import math
from concurrent.futures import ThreadPoolExecutor
from uuid import uuid4

import psycopg
import pytest

from ledgerq.errors import (
    ConfigurationError,
    InvalidInput,
    LedgerUnavailable,
    NotFound,
    SchemaMismatch,
    TooLarge,
    UnknownQueue,
    WrongState,
)
from ledgerq.ledger import Transport, open_transport
from ledgerq.ledger.postgres import PostgresTransport
from tests.support.databases import Database
from tests.support.proxy import Proxy
from tests.support.ways import Way

Lossy = tuple[Transport, Proxy]


def test_a_document_goes_there_and_back(transport: Transport) -> None:
    document = {"text": "grüß 😀 \"'\\ %s $1", "number": 1.5, "big": 2**60, "deep": [{"null": None}, True, []], "": ""}
    assert transport.call("probe_echo", document) == document


def test_sql_null_is_none(transport: Transport) -> None:
    assert transport.call("probe_null", {}) is None


def test_a_large_document_goes_there_and_back(transport: Transport) -> None:
    """Larger than all buffers on the way, so that both sides have to read while they write."""
    document = {"text": "x" * 8_000_000}
    assert transport.call("probe_echo", document) == document


@pytest.mark.parametrize(
    ("sqlstate", "expected"),
    [
        ("LQ001", InvalidInput),
        ("LQ002", TooLarge),
        ("LQ003", UnknownQueue),
        ("LQ004", WrongState),
        ("LQ005", NotFound),
        ("LQ009", WrongState),
        ("22003", InvalidInput),
        ("23503", InvalidInput),
        ("54000", InvalidInput),
        ("42883", SchemaMismatch),
        ("3F000", SchemaMismatch),
        ("42P01", SchemaMismatch),
        ("42501", ConfigurationError),
        ("P0001", LedgerUnavailable),
        ("XX000", LedgerUnavailable),
        ("0A000", LedgerUnavailable),
    ],
)
def test_a_refusal_becomes_our_error(transport: Transport, sqlstate: str, expected: type[Exception]) -> None:
    with pytest.raises(expected) as caught:
        transport.call("probe_raise", {"sqlstate": sqlstate, "message": "tenant: 'x' is not right"})
    assert type(caught.value) is expected
    assert "tenant: 'x' is not right" in str(caught.value)


def test_a_hint_of_ours_says_what_to_do(transport: Transport) -> None:
    with pytest.raises(InvalidInput, match=r"^depth: '0' is too low; give at least 1$"):
        transport.call("probe_raise", {"sqlstate": "LQ001", "message": "depth: '0' is too low", "hint": "give at least 1"})


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"jobs": [{}, {"details": {"title": "a\x00b"}}]}, r"jobs\[1\].details.title contains NUL"),
        ({"jobs": [{"a\x00": 1}]}, r"a key of jobs\[0\] contains NUL"),
        ({"x": math.nan}, "x is nan"),
        ({"x": [1.0, math.inf]}, r"x\[1\] is inf"),
        ({"text": "\ud800"}, "text contains half of a surrogate pair"),
        ({"thing": object()}, "thing is a object"),
    ],
)
def test_what_cannot_be_stored_is_named(transport: Transport, arguments: dict[str, object], message: str) -> None:
    with pytest.raises(InvalidInput, match=message):
        transport.call("probe_echo", arguments)  # type: ignore[arg-type]


@pytest.mark.parametrize("sqlstate", ["40001", "40P01", "55P03", "57014", "57P01", "57P02", "57P03", "08006", "53300"])
def test_what_may_be_repeated_is_repeated(transport: Transport, probed: Database, sqlstate: str) -> None:
    """Twice refused, then done once."""
    before = _tries_and_rows(probed)
    answer = transport.call("probe_flaky", {"sqlstate": sqlstate, "times": before[0] + 2})
    assert answer == {"tries": before[0] + 3}
    assert _tries_and_rows(probed) == (before[0] + 3, before[1] + 1)


def test_repeating_ends(transport: Transport) -> None:
    with pytest.raises(LedgerUnavailable, match="deadlock by request"):
        transport.call("probe_raise", {"sqlstate": "40P01", "message": "deadlock by request"})


def test_a_mistake_is_not_repeated(transport: Transport, probed: Database) -> None:
    before = _tries_and_rows(probed)
    with pytest.raises(InvalidInput):
        transport.call("probe_flaky", {"sqlstate": "LQ001", "times": before[0] + 1})
    assert _tries_and_rows(probed) == (before[0] + 1, before[1])


def test_a_lost_reply_is_asked_for_again(lossy: Lossy) -> None:
    """The first call was committed, although nobody heard of it: which is why every function may be repeated."""
    transport, proxy = lossy
    proxy.faults.replies_to_lose = 1
    note = str(uuid4())
    assert transport.call("probe_write", {"note": note}) == {"rows": 2}
    assert proxy.faults.lost == 1


def test_a_lost_request_is_sent_again(lossy: Lossy) -> None:
    transport, proxy = lossy
    proxy.faults.requests_to_lose = 2
    assert transport.call("probe_write", {"note": str(uuid4())}) == {"rows": 1}
    assert proxy.faults.calls == 3


def test_connections_that_broke_while_idle_do_not_matter(lossy: Lossy) -> None:
    transport, proxy = lossy
    with ThreadPoolExecutor(4) as threads:
        list(threads.map(lambda _: transport.call("probe_sleep", {"seconds": 0.05}), range(4)))
    proxy.drop_all()
    assert transport.call("probe_echo", {"still": "here"}) == {"still": "here"}


def test_a_way_that_stays_closed_is_an_error_in_bounded_time(lossy: Lossy) -> None:
    transport, proxy = lossy
    proxy.faults.refuse = True
    with pytest.raises(LedgerUnavailable, match="probe_echo on the ledger at "):
        transport.call("probe_echo", {})
    proxy.faults.refuse = False
    assert transport.call("probe_echo", {}) == {}


def test_sessions_that_the_server_ends_do_not_matter(transport: Transport, probed: Database) -> None:
    first = transport.call("probe_session", {})
    assert isinstance(first, dict)
    with psycopg.connect(probed.superuser_dsn, autocommit=True) as admin:
        admin.execute("select pg_terminate_backend(%s, 5000)", (first["backend"],))
    second = transport.call("probe_session", {})
    assert isinstance(second, dict)
    assert second["backend"] != first["backend"]


def test_threads_share_a_transport(transport: Transport) -> None:
    """More threads than connections: each waits its turn and gets its own answer."""
    with ThreadPoolExecutor(16) as threads:
        answers = list(threads.map(lambda n: transport.call("probe_echo", {"n": n}), range(200)))
    assert answers == [{"n": n} for n in range(200)]


def test_a_closed_transport_says_so(transport: Transport) -> None:
    transport.call("probe_echo", {})
    transport.close()
    with pytest.raises(WrongState, match="closed"):
        transport.call("probe_echo", {})


def test_no_call_leaves_anything_in_its_session(transport: Transport, way: Way) -> None:
    """So that a transaction pooler may hand the session to somebody else after each call."""
    first, second = transport.call("probe_session", {}), transport.call("probe_session", {})
    assert isinstance(first, dict)
    assert isinstance(second, dict)
    assert first["transaction"] != second["transaction"]
    assert (second["advisory"], second["user"]) == (0, way.login)
    assert second["prepared"] == 0 or way.kind == "supabase"  # PostgREST's sessions are its own, and it may prepare in them


# --- time -------------------------------------------------------------------------------------------------------


def test_a_silent_server_is_given_up(way: Way) -> None:
    """Also where the network still acknowledges every packet."""
    with way.through_proxy() as (through, proxy):
        transport = through.transport(timeout_s=0.5)
        transport.call("probe_echo", {})
        proxy.faults.replies_to_hold = 10
        with pytest.raises(LedgerUnavailable, match="no answer in time"):
            transport.call("probe_echo", {})
        transport.close()


def test_all_connections_in_use_is_an_error_that_says_so(way: Way, probed: Database) -> None:
    """Six at once on one connection, which nobody gets back in time but the first."""
    transport = open_transport(way.settings(ledger_pool_size=1, ledger_timeout_s=0.5))
    with ThreadPoolExecutor(6) as threads, psycopg.connect(probed.superuser_dsn, autocommit=True) as admin:
        admin.execute("select pg_advisory_lock(4712)")
        errors = [call.exception() for call in [threads.submit(transport.call, "probe_held", {"lock": 4712}) for _ in range(6)]]
        admin.execute("select pg_advisory_unlock(4712)")
    assert all(isinstance(error, LedgerUnavailable) for error in errors)
    assert any("LEDGERQ_LEDGER_POOL_SIZE" in str(error) for error in errors)
    transport.close()


def test_a_call_that_is_given_up_is_stopped_in_the_server(probed: Database) -> None:
    """It would hold its locks against its own repetition. Over HTTP nothing can be stopped: the statement timeout does it."""
    transport = PostgresTransport(probed.service_dsn, timeout_s=0.2)
    with pytest.raises(LedgerUnavailable, match="no answer in time"):
        transport.call("probe_sleep", {"seconds": 60})
    with psycopg.connect(probed.superuser_dsn, autocommit=True) as admin:
        row = admin.execute(
            "select count(*) from pg_stat_activity where query like '%probe_sleep%' and state = 'active' and pid <> pg_backend_pid()"
        )
        assert row.fetchone() == (0,)
    transport.close()


def _tries_and_rows(database: Database) -> tuple[int, int]:
    with psycopg.connect(database.dsn, autocommit=True) as connection:
        row = connection.execute(
            "select case when is_called then last_value else 0 end, (select count(*) from ledgerq.probe where note = 'flaky')"
            " from ledgerq.probe_tries"
        ).fetchone()
    assert row is not None
    return int(row[0]), int(row[1])
