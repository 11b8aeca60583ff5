"""What the shared fixtures promise to the tests that stand on them."""

from __future__ import annotations

import psycopg
import redis

from tests.support.databases import Database


def test_database_is_fresh_and_belongs_to_a_role_without_power(database: Database) -> None:
    with psycopg.connect(database.dsn) as connection:
        row = connection.execute(
            "select current_user::text, current_database()::text, rolsuper from pg_roles where rolname = current_user"
        ).fetchone()
    assert row == ("postgres", database.name, False)


def test_service_may_do_what_service_role_may(database: Database) -> None:
    with psycopg.connect(database.service_dsn) as connection:
        row = connection.execute("select pg_has_role('service_role', 'usage'), pg_has_role('postgres', 'usage')").fetchone()
    assert row == (True, False)


def test_redis_is_empty(redis_url: str) -> None:
    with redis.Redis.from_url(redis_url) as client:
        assert client.dbsize() == 0
