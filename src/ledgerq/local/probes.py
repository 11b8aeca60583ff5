"""Whether a part answers right now."""

from __future__ import annotations

import http.client
import socket
from urllib.parse import urlsplit

import psycopg
import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from ledgerq.local.identity import is_running
from ledgerq.local.state import Addresses, Part, PartState, PartStatus, ServerName, without_password

SECONDS = 2


def part_status(part: Part, addresses: Addresses) -> PartStatus:
    alive = is_running(part.identity)
    url = _url(part.name, addresses)
    state = _state(part, addresses, alive=alive)
    return PartStatus(
        name=part.name,
        state=state,
        pid=part.pid if alive else None,
        port=part.port,
        answering=state in {PartState.ANSWERS, PartState.RUNS},
        url=None if url is None else without_password(url),
        restarts=part.restarts,
        problem=part.problem,
    )


def worker_is_registered(url: str, pid: int) -> bool:
    """Whether RQ knows a worker with that pid on this machine."""
    client = _impatient(url)
    try:
        for key in client.smembers("rq:workers"):
            known = client.hmget(key, "pid", "hostname")
            if known == [str(pid), socket.gethostname()]:
                return True
    except redis.RedisError:
        return False
    finally:
        client.close()
    return False


def _state(part: Part, addresses: Addresses, *, alive: bool) -> PartState:
    is_server = part.name in set(ServerName)
    if alive and (_answers(part.name, addresses) if is_server else part.settled):
        return PartState.ANSWERS if is_server else PartState.RUNS
    if part.problem is not None:
        return PartState.RESTARTING
    if alive:
        return PartState.SILENT if is_server else PartState.STARTING
    return PartState.ENDED


def _url(name: str, addresses: Addresses) -> str | None:
    urls = {
        ServerName.POSTGRES: addresses.database_url,
        ServerName.VALKEY: addresses.redis_url,
        ServerName.VECTORS: addresses.qdrant_url,
    }
    return urls[ServerName(name)] if name in urls else None


def _answers(name: str, addresses: Addresses) -> bool:
    match name:
        case ServerName.POSTGRES:
            return addresses.database_url is not None and postgres_answers(addresses.database_url)
        case ServerName.VALKEY:
            return addresses.redis_url is not None and valkey_answers(addresses.redis_url)
        case ServerName.VECTORS:
            return addresses.qdrant_url is not None and vectors_answer(addresses.qdrant_url)
        case _:
            return False


def postgres_answers(dsn: str) -> bool:
    try:
        with psycopg.connect(dsn, connect_timeout=SECONDS) as connection:
            return connection.execute("select 1").fetchone() == (1,)
    except psycopg.OperationalError:
        return False


def valkey_answers(url: str) -> bool:
    """Also False while it is loading."""
    client = _impatient(url)
    try:
        return bool(client.ping())  # pyright: ignore[reportUnknownMemberType] redis-py leaves **kwargs untyped
    except redis.RedisError:
        return False
    finally:
        client.close()


def _impatient(url: str) -> redis.Redis:
    parts = urlsplit(url)
    return redis.Redis(
        host=parts.hostname or "",
        port=parts.port or 0,
        password=parts.password,
        socket_timeout=SECONDS,
        socket_connect_timeout=SECONDS,
        retry=Retry(NoBackoff(), 0),
        decode_responses=True,
    )


def vectors_answer(url: str) -> bool:
    connection = http.client.HTTPConnection(urlsplit(url).netloc, timeout=SECONDS)
    try:
        connection.request("GET", "/readyz")
        return connection.getresponse().status == http.client.OK
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()
