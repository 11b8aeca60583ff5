"""supabase-py's client: one a process, made when it is first needed, so never on the wrong side of a fork."""

from __future__ import annotations

import os
import threading
from collections.abc import Mapping
from typing import Any, Final, cast

import httpx
from postgrest.exceptions import APIError
from supabase import Client, ClientOptions, create_client

from ledgerq import __version__
from ledgerq.errors import LedgerUnavailable, WrongState
from ledgerq.ledger.supabase.faults import api_fault, broken_json, no_answer, not_the_api
from ledgerq.ledger.supabase.project import Project
from ledgerq.models import Json

SCHEMA: Final = "ledgerq"
LONGEST_IDLE_S: Final = 50.0
"""Gateways close connections that were idle for a minute or more (nginx and Kong: 60 to 75 s)."""
LONGEST_CONNECT_S: Final = 5.0
CLOSED: Final = "this way to the ledger was closed"


class Sessions:
    """The sessions of one transport, by process."""

    def __init__(self, project: Project, *, pool_size: int, timeout_s: float) -> None:
        self._project = project
        self._pool_size = pool_size
        self._timeout_s = timeout_s
        self._by_process: dict[int, Session] = {}
        self._closed = False

    def mine(self) -> Session:
        """This process's session. A child finds nothing under its pid and leaves its parent's alone, which stays referenced:
        closing it would say goodbye on the parent's connections. `setdefault` is atomic, where a lock might have been held by
        another thread at the fork; of two sessions made at once one has not connected yet, and is forgotten.

        Raises:
            WrongState: the transport was closed.
        """
        if self._closed:
            raise WrongState(CLOSED)
        pid = os.getpid()
        return self._by_process.get(pid) or self._by_process.setdefault(pid, self._open())

    def close(self) -> None:
        """Close this process's connections."""
        self._closed = True
        session = self._by_process.pop(os.getpid(), None)
        if session is not None:
            session.close()

    def _open(self) -> Session:
        return Session(self._project, pool_size=self._pool_size, timeout_s=self._timeout_s)


class Session:
    """One client with its connections. Safe for threads."""

    def __init__(self, project: Project, *, pool_size: int, timeout_s: float) -> None:
        self._project = project
        self._pool_size = pool_size
        self._timeout_s = timeout_s
        self._heard = threading.local()
        self._http = httpx.Client(
            timeout=httpx.Timeout(timeout_s, connect=min(LONGEST_CONNECT_S, timeout_s)),
            limits=httpx.Limits(max_connections=pool_size, max_keepalive_connections=pool_size, keepalive_expiry=LONGEST_IDLE_S),
            headers={"User-Agent": f"ledgerq/{__version__}"},
            http2=project.url.startswith("https:"),
            trust_env=not project.is_on_this_machine,
            event_hooks={"request": [self._drop_bearer], "response": [self._hear]},
        )
        self._rest = _client(project, self._http).postgrest

    def post(self, function: str, arguments: Mapping[str, Json]) -> Json:
        """One POST, not repeated. The one argument of every function of the ledger is called `request`.

        Raises:
            ServerFault: anything but an answer of the function.
            LedgerUnavailable: all connections are in use for the whole timeout.
            TypeError, ValueError, RecursionError: the arguments are no JSON; nothing was sent.
        """
        try:
            return self._checked(self._rest.rpc(function, {"request": cast("Any", arguments)}).execute().data)
        except APIError as error:
            raise api_fault(error, self._last_heard()) from error
        except httpx.PoolTimeout as error:
            raise LedgerUnavailable(
                f"all {self._pool_size} connections to the ledger are in use for {self._timeout_s:g} s; raise LEDGERQ_LEDGER_POOL_SIZE"
            ) from error
        except httpx.HTTPError as error:
            raise no_answer(error) from error
        except RuntimeError as error:
            if self._http.is_closed:
                raise WrongState(CLOSED) from error
            raise
        finally:
            self._heard.response = None  # an answer may be large

    def close(self) -> None:
        self._http.close()

    def _checked(self, data: object) -> Json:
        """supabase-py passes off any text as an answer: a page of something between us and the project, say."""
        response = self._last_heard()
        if not response.headers.get("content-type", "").startswith("application/json"):
            raise not_the_api(response)
        if isinstance(data, str) and data == response.text:
            raise broken_json(response)
        return cast("Json", data)

    def _hear(self, response: httpx.Response) -> None:
        """supabase-py's errors do not tell the HTTP status. Called in the thread of the call."""
        self._heard.response = response

    def _last_heard(self) -> httpx.Response:
        return cast("httpx.Response", self._heard.response)

    def _drop_bearer(self, request: httpx.Request) -> None:
        """supabase-py sends every key as a Bearer as well, which the API may refuse of the new kind: it is no token."""
        if not self._project.takes_bearer:
            request.headers.pop("Authorization", None)


def _client(project: Project, http: httpx.Client) -> Client:
    """With an HTTP client of ours: what supabase-py makes waits two minutes, follows redirects, and warns of its own arguments."""
    options = ClientOptions(schema=SCHEMA, httpx_client=http, auto_refresh_token=False, persist_session=False, postgrest_client_retry=False)
    return create_client(project.url, project.key, options)
