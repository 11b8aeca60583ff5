"""Whether a part answers right now."""

from __future__ import annotations

import http.client
from urllib.parse import urlsplit

import psycopg
import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from ledgerq.local.identity import is_running
from ledgerq.local.state import Addresses, Part, PartStatus, ServerName, without_password

SECONDS = 2


def part_status(part: Part, addresses: Addresses) -> PartStatus:
    alive = is_running(part.identity)
    url = _url(part.name, addresses)
    return PartStatus(
        name=part.name,
        pid=part.pid if alive else None,
        port=part.port,
        answering=alive and _answers(part.name, addresses),
        url=None if url is None else without_password(url),
        restarts=part.restarts,
    )


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
            return True  # a service has no address: that its process lives is all that is known here


def postgres_answers(dsn: str) -> bool:
    try:
        with psycopg.connect(dsn, connect_timeout=SECONDS) as connection:
            return connection.execute("select 1").fetchone() == (1,)
    except psycopg.OperationalError:
        return False


def valkey_answers(url: str) -> bool:
    """Also False while it is loading."""
    parts = urlsplit(url)
    client = redis.Redis(
        host=parts.hostname or "",
        port=parts.port or 0,
        password=parts.password,
        socket_timeout=SECONDS,
        socket_connect_timeout=SECONDS,
        retry=Retry(NoBackoff(), 0),
    )
    try:
        return bool(client.ping())  # pyright: ignore[reportUnknownMemberType] redis-py leaves **kwargs untyped
    except redis.RedisError:
        return False
    finally:
        client.close()


def vectors_answer(url: str) -> bool:
    connection = http.client.HTTPConnection(urlsplit(url).netloc, timeout=SECONDS)
    try:
        connection.request("GET", "/readyz")
        return connection.getresponse().status == http.client.OK
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()
