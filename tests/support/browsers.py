"""The database as a browser reaches it: a request through PostgREST, and the joining of a channel of Realtime."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import psycopg

from tests.support.sql import Sql

BECOME = b"select set_config('request.jwt.claims', %s, true), set_config('realtime.topic', %s, true), set_config('role', %s, true)"


def claims(sub: str | None = None, *, role: str = "authenticated", **more: Any) -> str:
    """What is in a token, as text; without a subject unless one is named."""
    return json.dumps({"role": role} | ({} if sub is None else {"sub": sub}) | more)


@contextmanager
def browser(dsn: str, role: str, token: str, *, topic: str = "") -> Iterator[Sql]:
    """A transaction with the role of the token and its claims as a setting, undone at the end."""
    with psycopg.connect(dsn) as connection:
        connection.execute(BECOME, (token, topic, role))
        yield Sql(connection)
        connection.rollback()


@contextmanager
def user(dsn: str, sub: str, *, topic: str = "") -> Iterator[Sql]:
    """Somebody who is signed in."""
    with browser(dsn, "authenticated", claims(sub), topic=topic) as sql:
        yield sql


def may_join(dsn: str, role: str, token: str, topic: str, *, extension: str = "broadcast") -> bool:
    """As Realtime finds out: it puts in a message of the topic, looks whether the user sees it, and undoes all."""
    with psycopg.connect(dsn) as connection:
        probe = connection.execute(
            b"insert into realtime.messages (topic, extension) values (%s, %s) returning id", (topic, extension)
        ).fetchone()
        assert probe is not None
        connection.execute(BECOME, (token, topic, role))
        seen = connection.execute(b"select from realtime.messages where id = %s", probe).rowcount
        connection.rollback()
    return seen == 1
