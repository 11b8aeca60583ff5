"""The stand-in as tests start it, with a project's keys."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from secrets import token_hex
from uuid import UUID

import psycopg
from psycopg import sql

from tests.support.databases import Database
from tests.support.postgrest.gateway import Gateway, Stopped
from tests.support.postgrest.http_server import serving
from tests.support.postgrest.listener import Listener
from tests.support.postgrest.messages import Request, Response
from tests.support.postgrest.pool import Pool
from tests.support.postgrest.refusals import Refusal
from tests.support.postgrest.service import Service
from tests.support.postgrest.tokens import Signer
from tests.support.postgrest.work import Exposure


@dataclass(slots=True)
class PostgrestServer:
    """A running one. `url` is what clients know as SUPABASE_URL."""

    url: str
    gateway: Gateway
    signer: Signer
    service: Service

    @property
    def service_key(self) -> str:
        """The old kind: a token of `service_role`."""
        return self.gateway.service_key

    @property
    def anon_key(self) -> str:
        return self.gateway.anon_key

    @property
    def secret_key(self) -> str:
        """The new kind, which is no token."""
        return self.gateway.secret_key

    @property
    def publishable_key(self) -> str:
        return self.gateway.publishable_key

    def token(self, role: str, sub: UUID | None = None, **claims: object) -> str:
        """What a user gets by logging in: good for an hour, where the claims do not say otherwise."""
        now = int(time.time())
        named = {} if sub is None else {"sub": str(sub)}
        return self.signer.sign({"role": role, "aud": "authenticated", "iat": now, "exp": now + 3600, **named, **claims})

    def reload_schema(self) -> None:
        """As after `notify pgrst, 'reload schema'`, but done when this returns."""
        self.service.reload_schema()

    @property
    def reloads(self) -> int:
        """How often the schema cache was read so far."""
        return self.service.reloads


@contextmanager
def serve_postgrest(
    database: Database,
    *,
    schemas: tuple[str, ...] = ("public", "graphql_public", "ledgerq"),
    max_rows: int = 1000,
    pool_size: int = 10,
    pool_timeout: float = 10.0,
    listen: bool = True,
    safeupdate: bool = True,
    strict_bearer: bool = True,
    older_schema_error: bool = False,
    dsn: str | None = None,
) -> Iterator[PostgrestServer]:
    """Serve a database until the end of the block; then nothing of it is left, whatever is still asked or connected.

    `listen=False` is deaf to `notify pgrst`: the schema cache stays as it was. `older_schema_error`: what releases before
    13.0.7 answer for a schema that is not exposed. `dsn` is another way to the database as `authenticator`, by a proxy say.
    """
    signer = Signer(token_hex(32))
    gateway = Gateway.opened(signer, strict_bearer=strict_bearer)
    if safeupdate:
        _keep_parse_trees_out_of_the_log(database)
    with ExitStack() as stack:
        pool = Pool(dsn or database.authenticator_dsn, pool_size, pool_timeout, safeupdate)
        stack.callback(pool.close)
        service = Service(pool, signer, Exposure(schemas, max_rows, older_schema_error))

        def answer(request: Request) -> Response:
            try:
                return service.answer(*gateway.admit(request))
            except (Refusal, Stopped) as refused:
                return refused.response()

        if listen:
            listener = Listener(pool.dsn, lambda payload: _hear(service, payload))
            listener.start()
            stack.callback(listener.stop)
        with suppress(Refusal):
            service.reload_schema()
        port = stack.enter_context(serving(answer, pool.close))
        yield PostgrestServer(f"http://127.0.0.1:{port}", gateway, signer, service)


def _hear(service: Service, payload: str) -> None:
    with suppress(Refusal, psycopg.Error):
        if payload in {"reload schema", ""}:
            service.reload_schema()
        if payload in {"reload config", ""}:
            service.reload_settings()


def _keep_parse_trees_out_of_the_log(database: Database) -> None:
    """What the watch of `safeupdate` makes the server send to the session it would log, too."""
    with psycopg.connect(database.superuser_dsn, autocommit=True) as connection:
        statement = sql.SQL("alter role authenticator in database {} set log_min_messages = 'fatal'")
        connection.execute(statement.format(sql.Identifier(database.name)))
