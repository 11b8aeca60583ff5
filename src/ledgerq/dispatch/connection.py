"""The way to Redis: one attempt, little patience, and a breaker, because the ledger does not need Redis to accept a job."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Generator, Mapping
from contextlib import contextmanager
from typing import Any, Final, TypeAlias, cast

from redis import Redis, connection
from redis.asyncio import Redis as AsyncRedis
from redis.asyncio import connection as async_connection
from redis.backoff import NoBackoff
from redis.client import Pipeline
from redis.connection import BlockingConnectionPool, ConnectionPool
from redis.exceptions import RedisError
from redis.retry import Retry

from ledgerq.errors import ConfigurationError, InvalidInput, QueueUnavailable
from ledgerq.settings import Settings

RedisClient: TypeAlias = Redis | AsyncRedis
"""What callers have."""

CONNECT_TIMEOUT_S: Final = 0.5
COMMAND_TIMEOUT_S: Final = 2.0
"""Longest wait for one reply. A push is one round trip of a few kilobytes."""
BREAKER_OPEN_S: Final = 5.0
"""After a failure nobody waits for Redis again for this long: callers are answered `degraded` at once."""

_BLOCKING: Final[Mapping[type, type]] = {
    connection.Connection: connection.Connection,
    connection.SSLConnection: connection.SSLConnection,
    connection.UnixDomainSocketConnection: connection.UnixDomainSocketConnection,
    async_connection.Connection: connection.Connection,
    async_connection.SSLConnection: connection.SSLConnection,
    async_connection.UnixDomainSocketConnection: connection.UnixDomainSocketConnection,
}
"""The connections we know, and the blocking ones that speak to the same server."""
_WHERE: Final = ("host", "port", "path", "db", "socket_type", "socket_keepalive", "socket_keepalive_options")
_WHO: Final = ("username", "password", "credential_provider", "client_name", "protocol")
"""What we take of a client's settings, besides TLS: the others say how patient it is and how it reads replies, or are its own objects."""


def connect_redis(settings: Settings) -> Redis:
    """A client that tries once. It connects with its first command.

    redis-py sends a pipeline whose reply was lost a second time when it may retry (10 times by default), and takes four
    seconds to report a refused connection; with one attempt the caller learns at once that the outcome is in doubt.

    Raises:
        ConfigurationError: the URL cannot be read.
    """
    try:
        return cast("Any", Redis).from_url(
            settings.redis_dsn,
            socket_connect_timeout=CONNECT_TIMEOUT_S,
            socket_timeout=COMMAND_TIMEOUT_S,
            retry=Retry(NoBackoff(), 0),
            decode_responses=False,
        )
    except ValueError:
        raise unreadable_url() from None


def unreadable_url() -> ConfigurationError:
    """For an address of Redis that cannot be parsed. It is neither quoted nor to be chained: it may show a part of its password."""
    return ConfigurationError("REDIS_URL cannot be read; write redis://[:password@]host[:port][/db], with %-escapes in the password")


def impatient(redis: Redis) -> Redis:
    """A client of the same server that tries once and waits briefly, as `connect_redis` makes them. It connects with its first command.

    RQ's workers wait nearly seven minutes for a reply (`worker_ttl` less 5 s), since they wait for work. A horse that has tasks
    to do must not wait so for a server that has fallen silent.
    """
    pool = redis.connection_pool
    if type(pool) not in (ConnectionPool, BlockingConnectionPool):
        return redis  # Sentinel's pools find their server by themselves
    patience = {
        "socket_connect_timeout": CONNECT_TIMEOUT_S,
        "socket_timeout": COMMAND_TIMEOUT_S,
        "retry": Retry(NoBackoff(), 0),
    }
    settings = pool.connection_kwargs | patience
    return Redis(connection_pool=cast("Any", ConnectionPool)(connection_class=pool.connection_class, **settings))


def own_client(client: object) -> Redis:
    """A blocking client of ours, as `connect_redis` makes them, to the server that a caller's client speaks to. Close it.

    The caller's own client is left alone: it may decode replies, try again, wait long, or belong to an event loop. Nothing is
    connected before the first command.

    Raises:
        InvalidInput: that is no client of one server whose address it knows; says what to give instead.
    """
    if not isinstance(client, Redis | AsyncRedis):
        raise InvalidInput(
            f"redis_client: {type(client).__name__} is no client of one Redis server;"
            " give a redis.Redis or a redis.asyncio.Redis, e.g. redis.Redis.from_url(REDIS_URL)"
        )
    theirs = cast("Any", client).connection_pool
    ours = _BLOCKING.get(theirs.connection_class)
    if ours is None:
        raise InvalidInput(
            f"redis_client: it connects by {theirs.connection_class.__name__}, which has no address that we could connect to ourselves;"
            " give a client of the server itself (behind Sentinel: of the master's address), e.g. redis.Redis.from_url(REDIS_URL)"
        )
    given = {name: value for name, value in theirs.connection_kwargs.items() if name in (*_WHERE, *_WHO) or name.startswith("ssl_")}
    timeouts = {"socket_connect_timeout": CONNECT_TIMEOUT_S, "socket_timeout": COMMAND_TIMEOUT_S}
    pool = cast("Any", ConnectionPool)(connection_class=ours, retry=Retry(NoBackoff(), 0), **given, **timeouts)
    return Redis.from_pool(pool)


def open_pipeline(redis: Redis, *, transaction: bool) -> Pipeline:
    """A batch of commands in one round trip; close it, or use it in a `with`."""
    return redis.pipeline(transaction=transaction)  # pyright: ignore[reportUnknownMemberType] - redis leaves an argument untyped


class Breaker:
    """Turns failures of Redis into `QueueUnavailable`, and answers with it at once for a while after one."""

    def __init__(self, *, open_s: float = BREAKER_OPEN_S, clock: Callable[[], float] = time.monotonic) -> None:
        self._open_s = open_s
        self._clock = clock
        self._open_until = 0.0
        self._cause = ""
        self._lock = threading.Lock()

    @contextmanager
    def guard(self, what: str) -> Generator[None]:
        """Run Redis commands inside; `what` says in the error's message what was tried.

        Raises:
            QueueUnavailable: Redis failed now, or less than `open_s` ago. Whether the commands took effect is in doubt.
        """
        self._check(what)
        try:
            yield
        except (RedisError, OSError) as error:
            cause = f"{type(error).__name__}: {error}"
            self._trip(cause)
            raise QueueUnavailable(f"Redis did not {what} ({cause})", retry_after=self._open_s) from error

    @property
    def is_open(self) -> bool:
        with self._lock:
            return self._clock() < self._open_until

    def _check(self, what: str) -> None:
        with self._lock:
            left = self._open_until - self._clock()
            cause = self._cause
        if left > 0:
            raise QueueUnavailable(f"not asked Redis to {what}: it failed less than {self._open_s:g} s ago ({cause})", retry_after=left)

    def _trip(self, cause: str) -> None:
        with self._lock:
            self._open_until = self._clock() + self._open_s
            self._cause = cause
