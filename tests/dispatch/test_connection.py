"""The way to Redis is tried once, and briefly."""

from __future__ import annotations

import socket
import time
from collections.abc import Iterator
from uuid import uuid4

import pytest
from redis import Redis
from redis.exceptions import TimeoutError as RedisTimeout

from ledgerq.dispatch.connection import COMMAND_TIMEOUT_S, impatient

RQ_WAITS_S = 415
"""What RQ sets in the client that its workers and horses share."""


@pytest.fixture
def silent() -> Iterator[Redis]:
    """A worker's client of a server that takes connections and never says a word."""
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        server.listen()
        client = Redis(host="127.0.0.1", port=server.getsockname()[1], password="secret", db=3)
        client.connection_pool.connection_kwargs.update({"socket_timeout": RQ_WAITS_S})
        yield client


def test_a_silent_server_is_not_waited_for_as_a_worker_does(silent: Redis) -> None:
    began = time.monotonic()
    with pytest.raises(RedisTimeout):
        impatient(silent).ping()
    assert time.monotonic() - began < 4 * COMMAND_TIMEOUT_S
    assert silent.connection_pool.connection_kwargs["socket_timeout"] == RQ_WAITS_S


def test_it_speaks_to_the_same_server_as_the_same_user(redis_url: str) -> None:
    with Redis.from_url(redis_url) as patient:
        key = f"test:{uuid4()}"
        patient.set(key, "1", ex=60)
        with impatient(patient) as mine:
            assert mine.get(key) == b"1"
            kwargs = mine.connection_pool.connection_kwargs
            kept = {name: patient.connection_pool.connection_kwargs.get(name) for name in ("host", "port", "db", "password")}
            assert {name: kwargs.get(name) for name in kept} == kept
