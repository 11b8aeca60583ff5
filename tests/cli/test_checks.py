"""The doctor's thresholds, where no real service has to be that old, slow or full."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from ledgerq.cli.checks import code, ledger, redis_server
from ledgerq.cli.checks.finding import VARIABLES, Finding, findings_of, ok
from ledgerq.cli.output import Output
from ledgerq.cli.session import Session
from ledgerq.errors import ConfigurationError, LedgerqError, QueueUnavailable, SchemaMismatch
from ledgerq.ledger.migration_files import shipped_migrations
from ledgerq.models import Health, QueueStats
from ledgerq.settings import Settings

NOW = datetime.now(UTC)
OURS = shipped_migrations()[-1].version


def health(**fields: object) -> Health:
    known = {"schema_version": OURS, "now": datetime.now(UTC), "server_version": "18.1", "started_at": NOW}
    return Health.model_validate({**known, **fields})


def levels(findings: Any) -> list[str]:
    return [finding.level for finding in findings]


@pytest.mark.parametrize(
    ("version", "took_s", "level"), [("18.1", 0.01, "ok"), ("15.4 (Debian)", 0.01, "ok"), ("14.9", 0.01, "fail"), ("18.1", 0.9, "warn")]
)
def test_an_old_database_fails_and_a_slow_one_warns(version: str, took_s: float, level: str) -> None:
    assert levels(ledger._answer(health(server_version=version), took_s)) == [level]


@pytest.mark.parametrize(
    ("version", "level", "advice"), [(OURS, "ok", None), ("0", "fail", "run `ledgerq migrate`"), ("9" * 14, "warn", "upgrade the package")]
)
def test_the_schema_must_be_ours(version: str, level: str, advice: str | None) -> None:
    (finding,) = ledger._schema(health(schema_version=version))
    assert (finding.level, finding.advice) == (level, advice)


def test_clocks_that_differ_are_a_warning() -> None:
    assert levels(ledger._clock(health())) == []
    assert levels(ledger._clock(health(now=datetime.now(UTC) - timedelta(minutes=3)))) == ["warn"]


@pytest.mark.parametrize(
    ("stats", "level"), [({}, "ok"), ({"paused": True}, "warn"), ({"oldest_ready_s": 601.0}, "warn"), ({"oldest_ready_s": 599.0}, "ok")]
)
def test_a_queue_that_does_not_move_is_a_warning(stats: dict[str, Any], level: str) -> None:
    assert ledger._queue(QueueStats(queue="processing", **stats)).level == level


@pytest.mark.parametrize(
    ("information", "level"),
    [({"redis_version": "7.2.4"}, "ok"), ({"redis_version": "6.2.0"}, "ok"), ({"redis_version": "6.0.16"}, "fail"), ({}, "fail")],
)
def test_a_redis_without_lmove_fails(information: dict[str, Any], level: str) -> None:
    assert redis_server._version(information).level == level


def test_a_redis_that_hides_its_policy_is_a_warning() -> None:
    assert redis_server._policy({}).level == "warn"


def test_another_line_of_rq_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(code, "version", lambda _: "2.12.0")
    assert code._rq().message == "rq 2.12.0 is not of the supported line 3.x"


def test_a_check_that_is_broken_keeps_no_other_from_being_made() -> None:
    def broken(_: object) -> Any:
        yield ok("part", "so far")
        raise ZeroDivisionError("by nothing")

    found: list[Finding] = list(findings_of("part", broken, Session(Path(), Output(as_json=True))))
    assert levels(found) == ["ok", "fail"]
    assert found[1].message == "ZeroDivisionError: by nothing"


@pytest.mark.parametrize("error", [ConfigurationError("no"), QueueUnavailable("away"), SchemaMismatch("old"), LedgerqError("other")])
@pytest.mark.parametrize("part", VARIABLES)
def test_every_failure_says_what_to_do_and_with_debug_where_it_happened(
    part: str, error: LedgerqError, capsys: pytest.CaptureFixture[str]
) -> None:
    def broken(_: object) -> Any:
        raise error
        yield

    (found,) = findings_of(part, broken, Session(Path(), Output(as_json=True), debug=True))
    assert found.advice is not None
    assert VARIABLES[part] in found.advice or "ledgerq migrate" in found.advice
    assert f"{type(error).__name__}: {error}" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("url", "exposed"),
    [
        ("redis://10.0.0.7:6379/0", ["warn"]),
        ("rediss://cache.example.org", ["warn"]),
        ("redis://:secret@10.0.0.7:6379/0", []),
        ("redis://127.0.0.1:6379/0", []),
        ("redis://[::1]:6379/0", []),
        ("redis://localhost/0", []),
        ("unix:///run/redis.sock", []),
    ],
)
def test_a_redis_that_answers_anybody_is_a_warning(url: str, exposed: list[str]) -> None:
    assert levels(redis_server._exposure(Settings(redis_url=url))) == exposed
