"""The ledger: whether it answers, is of this version, and may be used by this role."""

from __future__ import annotations

import shlex
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Final

from ledgerq.cli.checks.finding import Finding, fail, ok, warn
from ledgerq.cli.output import short_seconds
from ledgerq.cli.session import Session
from ledgerq.models import Health, QueueStats

PART: Final = "ledger"
SLOW_S: Final = 0.25
"""A call to a database in the same region takes a few milliseconds; each window costs a worker one."""
CLOCK_S: Final = 5.0
OLDEST_SERVER: Final = 15
STUCK_S: Final = 600.0
"""Ready work that nobody takes for this long."""


def check_ledger(session: Session) -> Iterator[Finding]:
    """Reachable, fast enough, this version of the schema, rights of the role, and queues that move."""
    begun = time.monotonic()
    health = session.store.health()
    took_s = time.monotonic() - begun
    yield from _answer(health, took_s)
    yield from _schema(health, session.where)
    yield from _clock(health)
    yield from _exposure(session)
    for queue in session.store.queue_stats():
        yield _queue(queue, session.where)


def _answer(health: Health, first_s: float) -> Iterator[Finding]:
    major = health.server_version.split(".")[0].split(" ")[0]
    if major.isdigit() and int(major) < OLDEST_SERVER:
        yield fail(PART, f"PostgreSQL {health.server_version} is older than {OLDEST_SERVER}", "upgrade the database")
    elif first_s > SLOW_S:
        yield warn(PART, f"answers, but the first call took {first_s:.2f} s", "run services and workers near the database")
    else:
        yield ok(PART, f"PostgreSQL {health.server_version} answers in {first_s * 1000:.0f} ms; the role may use the ledger")


def _schema(health: Health, where: str = "") -> Iterator[Finding]:
    from ledgerq.ledger.migration_files import shipped_migrations

    ours = shipped_migrations()[-1].version
    if health.schema_version == ours:
        yield ok(PART, f"schema version {ours}")
    elif health.schema_version < ours:
        yield fail(PART, f"schema version {health.schema_version}, this ledgerq needs {ours}", f"run `ledgerq migrate{where}`")
    else:
        yield warn(PART, f"schema version {health.schema_version} is newer than this ledgerq ({ours})", "upgrade the package")


def _clock(health: Health) -> Iterator[Finding]:
    off_s = abs((datetime.now(UTC) - health.now).total_seconds())
    if off_s > CLOCK_S:
        yield warn(
            PART, f"this machine's clock and the database's are {short_seconds(off_s)} apart", "synchronise this machine's clock (NTP)"
        )


def _exposure(session: Session) -> Iterator[Finding]:
    """Rights that would let a browser in. Over a direct connection only: the API shows them to nobody."""
    settings = session.settings
    if settings.database_url is None:
        yield ok(PART, "what the project's API exposes was not looked at: that takes DATABASE_URL")
        return
    from ledgerq.ledger.exposure import exposed_rights

    exposed = exposed_rights(settings.database_dsn, timeout_s=settings.ledger_timeout_s)
    for right in exposed:
        advice = "revoke it: in the schema ledgerq nobody but service_role is to do more than users, who read their own rows"
        yield fail(PART, f"the role {right} in the schema ledgerq", advice)
    if not exposed:
        yield ok(PART, "no role of browsers may execute functions, change tables, or read more than its own rows")


def _queue(queue: QueueStats, where: str = "") -> Finding:
    if queue.paused:
        return warn(
            PART, f"queue {queue.queue} is paused", f"`ledgerq queue resume{where} {shlex.quote(queue.queue)}` when it should go on"
        )
    if (queue.oldest_ready_s or 0.0) > STUCK_S:
        waited = short_seconds(queue.oldest_ready_s)
        return warn(PART, f"queue {queue.queue}: the oldest ready task has waited {waited}", "start more workers, and a steward")
    return ok(PART, f"queue {queue.queue}: {queue.ready} ready, {queue.running} runs at work")
