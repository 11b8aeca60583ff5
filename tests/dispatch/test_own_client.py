"""A caller's client says where Redis is; the commands go over one of ours."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
import redis
import redis.asyncio
from redis.connection import Connection, SSLConnection, UnixDomainSocketConnection
from redis.sentinel import Sentinel

from ledgerq.dispatch.connection import COMMAND_TIMEOUT_S, CONNECT_TIMEOUT_S, own_client
from ledgerq.errors import InvalidInput

FACES = [redis, redis.asyncio]


@pytest.mark.parametrize("face", FACES)
def test_it_speaks_to_the_same_database_and_neither_decodes_nor_waits(redis_url: str, face: Any) -> None:
    theirs = face.Redis.from_url(redis_url, db=3, decode_responses=True, socket_timeout=400, health_check_interval=9, client_name="theirs")
    key = f"test:{uuid4()}"
    with redis.Redis.from_url(redis_url, db=3) as direct, own_client(theirs) as ours:
        direct.set(key, "1", ex=60)
        assert ours.get(key) == b"1"
        settings = ours.connection_pool.connection_kwargs
    assert (settings["socket_timeout"], settings["socket_connect_timeout"]) == (COMMAND_TIMEOUT_S, CONNECT_TIMEOUT_S)
    assert settings["client_name"] == "theirs"
    assert settings["retry"].get_retries() == 0
    assert theirs.connection_pool.connection_kwargs["socket_timeout"] == 400


def test_a_client_that_is_in_use_in_a_loop_is_left_alone(redis_url: str) -> None:
    async def story() -> None:
        async with redis.asyncio.Redis.from_url(redis_url) as theirs:
            await theirs.ping()
            with own_client(theirs) as ours:
                assert ours.ping()
            assert await theirs.ping()

    asyncio.run(story())


@pytest.mark.parametrize("face", FACES)
@pytest.mark.parametrize("pool", ["ConnectionPool", "BlockingConnectionPool"])
def test_the_settings_of_a_pool_are_carried(face: Any, pool: str) -> None:
    theirs = face.Redis(connection_pool=getattr(face, pool)(host="h", port=7, username="u", password="p", max_connections=2))
    with own_client(theirs) as ours:
        settings = ours.connection_pool.connection_kwargs
        assert ours.connection_pool.connection_class is Connection
        assert [settings[name] for name in ("host", "port", "username", "password")] == ["h", 7, "u", "p"]


@pytest.mark.parametrize("face", FACES)
def test_tls_is_carried(face: Any, tmp_path: Path) -> None:
    authority = str(tmp_path / "ca.pem")
    theirs = face.Redis.from_url(f"rediss://u:p%40@h:1/2?ssl_ca_certs={authority}&ssl_check_hostname=false", client_name="theirs")
    with own_client(theirs) as ours:
        connection = ours.connection_pool.make_connection()
    assert isinstance(connection, SSLConnection)
    assert (connection.ca_certs, connection.check_hostname, connection.db, connection.password) == (authority, False, 2, "p@")


@pytest.mark.parametrize("face", FACES)
def test_a_socket_of_this_machine_is_carried(face: Any, tmp_path: Path) -> None:
    with own_client(face.Redis(unix_socket_path=str(tmp_path / "redis.sock"), db=5)) as ours:
        connection = ours.connection_pool.make_connection()
    assert isinstance(connection, UnixDomainSocketConnection)
    assert (connection.path, connection.db) == (str(tmp_path / "redis.sock"), 5)


class OfTheirOwn(Connection):
    """A way to connect that only its author knows."""


REFUSED: list[tuple[Callable[[], object], str]] = [
    (lambda: None, "NoneType is no client of one Redis server"),
    (lambda: "redis://localhost", "str is no client of one Redis server"),
    (lambda: redis.asyncio.RedisCluster("h", 1), "RedisCluster is no client of one Redis server"),
    (lambda: Sentinel([("h", 1)]).master_for("m"), "SentinelManagedConnection, which has no address"),
    (lambda: redis.asyncio.Sentinel([("h", 1)]).master_for("m"), "SentinelManagedConnection, which has no address"),
    (lambda: redis.Redis(connection_pool=redis.ConnectionPool(OfTheirOwn, host="h")), "OfTheirOwn, which has no address"),
]


@pytest.mark.parametrize(("client", "why"), REFUSED)
def test_what_names_no_server_is_refused(client: Callable[[], object], why: str) -> None:
    with pytest.raises(InvalidInput, match=f"redis_client: .*{why}.*redis.Redis.from_url"):
        own_client(client())
