"""Redis: whether it answers and keeps what it is given, and who works for it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from ipaddress import ip_address
from typing import TYPE_CHECKING, Any, Final, cast
from urllib.parse import urlsplit

from ledgerq.cli.checks.finding import Finding, fail, ok, warn
from ledgerq.cli.session import Session
from ledgerq.errors import LedgerqError, QueueUnavailable
from ledgerq.settings import Settings

if TYPE_CHECKING:
    from redis import Redis

    from ledgerq.dispatch.workers import RqWorker

PART: Final = "queue"
OLDEST_SERVER: Final = (6, 2)
"""The first with LMOVE, without which a run can be lost between a worker's pop and its start."""


def check_redis(session: Session) -> Iterator[Finding]:
    """Reachable, new enough, evicting nothing, and served by workers that can read our runs."""
    from ledgerq.dispatch.connection import connect_redis

    with closing(connect_redis(session.settings)) as redis:
        told = information(redis, session.settings)
        yield _version(told)
        yield _policy(told)
        yield from _memory(told)
        yield from _exposure(session.settings)
        yield from _workers(redis, session)


def information(redis: Redis, settings: Settings) -> Mapping[str, Any]:
    """What Redis says of itself.

    Raises:
        QueueUnavailable: it does not answer, or refuses us; names its place.
    """
    from redis.exceptions import AuthenticationError, RedisError

    try:
        return cast("Mapping[str, Any]", redis.info())  # pyright: ignore[reportUnknownMemberType] - redis leaves **kwargs untyped
    except AuthenticationError as error:
        raise QueueUnavailable(f"Redis at {_place(settings)} refuses the password ({error}): check REDIS_URL") from error
    except (RedisError, OSError) as error:
        raise QueueUnavailable(f"Redis at {_place(settings)} does not answer ({error}): check REDIS_URL, or start it") from error


def _place(settings: Settings) -> str:
    """Where it is, without the password."""
    parts = urlsplit(settings.redis_dsn)
    return f"{parts.hostname or parts.path}:{parts.port or 6379}"


def _version(information: Mapping[str, Any]) -> Finding:
    name = "Valkey" if "valkey_version" in information else "Redis"
    found = str(information.get("valkey_version") or information.get("redis_version", "unknown"))
    numbers = tuple(int(part) for part in str(information.get("redis_version", "0")).split(".")[:2] if part.isdigit())
    if numbers < OLDEST_SERVER:
        return fail(PART, f"{name} {found} is older than 6.2", "upgrade it: without LMOVE a worker's death can lose a run")
    return ok(PART, f"{name} {found} answers")


def _policy(information: Mapping[str, Any]) -> Finding:
    policy = str(information.get("maxmemory_policy", "unknown"))
    if policy == "noeviction":
        return ok(PART, "evicts nothing (noeviction)")
    if policy == "unknown":
        return warn(PART, "does not say its eviction policy", "make sure that maxmemory-policy is noeviction")
    advice = "CONFIG SET maxmemory-policy noeviction, and in its configuration: otherwise it drops jobs when memory runs short"
    return (warn if not information.get("maxmemory") else fail)(PART, f"maxmemory-policy is {policy}", advice)


def _memory(information: Mapping[str, Any]) -> Iterator[Finding]:
    limit, used = int(information.get("maxmemory") or 0), int(information.get("used_memory") or 0)
    if limit and used > 0.9 * limit:
        yield warn(PART, f"uses {used / limit:.0%} of its memory limit", "raise maxmemory; when it is full, new runs wait in the ledger")


def _exposure(settings: Settings) -> Iterator[Finding]:
    """It has just answered without a password, and from elsewhere than this machine: so it does to others."""
    parts = urlsplit(settings.redis_dsn)
    if parts.scheme == "unix" or parts.password or "password=" in parts.query or _is_loopback(parts.hostname or "localhost"):
        return
    advice = "give it a password (requirepass, or an ACL user) and write REDIS_URL=redis://:password@…; who may write to it runs our jobs"
    yield warn(PART, f"Redis at {_place(settings)} answers over the network without a password", advice)


def _is_loopback(host: str) -> bool:
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost" or host.endswith(".localhost")


def _workers(redis: Redis, session: Session) -> Iterator[Finding]:
    from ledgerq.dispatch.workers import list_workers

    ours = session.settings.queue
    workers = list_workers(redis, queues=_queues(session) or [ours])
    for worker in workers:
        for problem in worker.problems:
            text = str(problem)
            bad = "serializer" in text or "-S json" in text
            yield (fail if bad else warn)(PART, f"worker {worker.name} on {worker.hostname or 'an unknown host'} {text}", _advice(worker))
    healthy = [worker for worker in workers if not worker.problems and ours in worker.queues]
    if healthy:
        yield ok(PART, f"{len(healthy)} worker{'s' if len(healthy) > 1 else ''} on queue {ours}")
    else:
        yield warn(
            PART,
            f"no worker listens on queue {ours}",
            f"start one: `ledgerq worker{session.where}`, or `rq worker -S json -c ledgerq.rq_settings`",
        )


def _advice(worker: RqWorker) -> str:
    return f"stop process {worker.pid} there" if worker.pid else "stop it"


def _queues(session: Session) -> Sequence[str]:
    """The ledger's; none when it cannot be asked, which its own check tells."""
    try:
        return [queue.queue for queue in session.store.queue_stats()]
    except LedgerqError:
        return []
