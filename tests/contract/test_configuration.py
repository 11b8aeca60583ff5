"""One clear error for each way to point at the wrong ledger, and never a password in it."""

from __future__ import annotations

import logging
import traceback
from collections.abc import Callable
from urllib.parse import urlsplit, urlunsplit

import pytest

from ledgerq.errors import ConfigurationError, LedgerqError, LedgerUnavailable, SchemaMismatch
from ledgerq.ledger import open_store, open_transport
from ledgerq.local.ports import free_port
from ledgerq.settings import Settings
from tests.support.databases import Database, Databases

SECRET = "s3cret-pass"


def settings(**values: object) -> Settings:
    return Settings.model_validate(values)


def test_no_ledger_at_all() -> None:
    with pytest.raises(ConfigurationError, match="DATABASE_URL"):
        open_store(settings())


def test_a_project_without_its_key() -> None:
    with pytest.raises(ConfigurationError, match="SUPABASE_SERVICE_ROLE_KEY"):
        open_store(settings(supabase_url="https://x.supabase.co"))


def test_what_takes_a_direct_connection_says_so() -> None:
    with pytest.raises(ConfigurationError, match="direct connection"):
        _ = settings(supabase_url="https://x.supabase.co", supabase_key=SECRET).database_dsn


def test_nothing_is_connected_before_the_first_call() -> None:
    store = open_store(settings(database_url=f"postgresql://nobody:{SECRET}@127.0.0.1:{free_port()}/nowhere"))
    with pytest.raises(LedgerUnavailable):
        store.health()
    store.close()


@pytest.mark.parametrize(
    "dsn", ["postgress//me:s3cret-pass@host", "host=x port=y=z s3cret-pass", "me:s3cret-pass@host:5432/x", "s3cret-pass"]
)
def test_what_is_no_connection_string(dsn: str) -> None:
    with pytest.raises(ConfigurationError, match="no Postgres connection string") as caught:
        open_transport(settings(database_url=dsn))
    assert_no_secret(caught.value)


def _with(dsn: str, **parts: str) -> str:
    """The DSN with another user, password, port or database."""
    split = urlsplit(dsn)
    user, password = parts.get("user", split.username), parts.get("password", split.password)
    netloc = f"{user}:{password}@{parts.get('host', split.hostname)}:{parts.get('port', split.port)}"
    return urlunsplit(split._replace(netloc=netloc, path=parts.get("path", split.path)))


WRONG: dict[str, tuple[Callable[[str], str], type[LedgerqError], str]] = {
    "password": (lambda dsn: _with(dsn, password=SECRET), ConfigurationError, "password is wrong"),
    "user": (lambda dsn: _with(dsn, user="nobody", password=SECRET), ConfigurationError, "password is wrong"),
    "database": (lambda dsn: _with(dsn, path="/nowhere"), ConfigurationError, "no such database"),
    "host": (lambda dsn: _with(dsn, host="host.invalid", password=SECRET), LedgerUnavailable, "host.invalid"),
    "port": (lambda dsn: _with(dsn, port="1", password=SECRET), LedgerUnavailable, "127.0.0.1:1/"),
}


@pytest.mark.parametrize("what", sorted(WRONG))
def test_a_wrong_part_of_the_address(what: str, module_database: Database, caplog: pytest.LogCaptureFixture) -> None:
    change, expected, message = WRONG[what]
    store = open_store(settings(database_url=change(module_database.service_dsn)))
    with caplog.at_level(logging.DEBUG), pytest.raises(expected, match=message) as caught:
        store.health()
    assert type(caught.value) is expected
    assert_no_secret(caught.value)
    assert SECRET not in caplog.text
    store.close()


def test_a_database_without_a_ledger(databases: Databases) -> None:
    with databases.empty() as empty:
        store = open_store(settings(database_url=empty.dsn))
        with pytest.raises(SchemaMismatch, match="ledgerq migrate"):
            store.health()
        store.close()


def test_a_role_that_may_not(module_database: Database) -> None:
    """The functions are for members of service_role."""
    import psycopg

    with psycopg.connect(module_database.superuser_dsn, autocommit=True) as admin:
        admin.execute(f"create role stranger login password '{SECRET}'")
    try:
        store = open_store(settings(database_url=_with(module_database.service_dsn, user="stranger", password=SECRET)))
        with pytest.raises(ConfigurationError, match="service_role") as caught:
            store.health()
        assert_no_secret(caught.value)
        store.close()
    finally:
        with psycopg.connect(module_database.superuser_dsn, autocommit=True) as admin:
            admin.execute("drop role stranger")


def test_a_transport_shows_no_secret(module_database: Database) -> None:
    transport = open_transport(settings(database_url=_with(module_database.service_dsn, password=SECRET)))
    assert SECRET not in repr(transport)
    assert SECRET not in repr(vars(transport))
    transport.close()


def assert_no_secret(error: BaseException) -> None:
    assert SECRET not in "".join(traceback.format_exception(error))
    links: list[BaseException | None] = [error]
    while (link := links.pop()) is not None:
        assert SECRET not in str(link)
        assert SECRET not in repr(link)
        links.append(link.__context__)
