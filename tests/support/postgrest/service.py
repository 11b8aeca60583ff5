"""PostgREST proper: it verifies who asks, keeps the schema cache, and has the work done."""

from __future__ import annotations

import threading
from dataclasses import dataclass, field, replace

import psycopg

from tests.support.postgrest.catalogue import Catalogue, read_catalogue, read_role_settings
from tests.support.postgrest.messages import Request, Response
from tests.support.postgrest.pool import Pool
from tests.support.postgrest.refusals import Refusal, no_schema_cache
from tests.support.postgrest.tokens import Signer
from tests.support.postgrest.work import Exposure, Work


@dataclass(slots=True)
class Service:
    pool: Pool
    signer: Signer
    exposure: Exposure
    reloads: int = 0
    """How often the schema cache was read."""
    _catalogue: Catalogue | None = None
    _reading: threading.Lock = field(default_factory=threading.Lock)

    def answer(self, request: Request, token: str | None) -> Response:
        """Raises:
        Refusal: the error to answer with.
        """
        claims = {} if token is None else self.signer.claims_of(token)
        work = Work(request, claims, self._known(), self.exposure, self.pool)
        return work.call() if request.path.startswith("/rpc/") else work.table()

    def reload_schema(self) -> None:
        """Read the schema cache again, and make new connections for what comes. The old cache serves on when that fails.

        Raises:
            Refusal: the database does not answer (PGRST002).
        """
        with self._reading:
            self._read()

    def reload_settings(self) -> None:
        """Read again what the roles are set to."""
        with self._reading:
            if self._catalogue is not None:
                with self.pool.session() as session:
                    settings = read_role_settings(session.connection)
                self._catalogue = replace(self._catalogue, role_settings=settings)

    def _known(self) -> Catalogue:
        with self._reading:
            return self._catalogue or self._read()

    def _read(self) -> Catalogue:
        try:
            with self.pool.session() as session:
                self._catalogue = read_catalogue(session.connection, self.exposure.schemas)
        except (psycopg.OperationalError, Refusal) as error:
            raise no_schema_cache() from error
        self.pool.flush()
        self.reloads += 1
        return self._catalogue
