"""supabase-py's client over one HTTP connection. It is made when it is first needed, so never on the wrong side of a fork."""

from __future__ import annotations

import ssl
from collections.abc import Callable, Mapping
from typing import Any, Final, cast

import httpx
from postgrest.exceptions import APIError
from supabase import Client, ClientOptions, create_client

from ledgerq import __version__
from ledgerq.errors import ConfigurationError
from ledgerq.ledger.places import Condition
from ledgerq.ledger.project import Project
from ledgerq.ledger.supabase.faults import api_fault, broken_json, no_answer, not_the_api
from ledgerq.models import Json

SCHEMA: Final = "ledgerq"
LONGEST_IDLE_S: Final = 50.0
"""Gateways close connections that were idle for a minute or more (nginx and Kong: 60 to 75 s)."""
LONGEST_CONNECT_S: Final = 5.0
ONE: Final = httpx.Limits(max_connections=1, max_keepalive_connections=1, keepalive_expiry=LONGEST_IDLE_S)


class Session:
    """One client with one connection, for one thread at a time. Opens nothing until the first call.

    Raises:
        ConfigurationError: the environment names a proxy that cannot be used.
    """

    def __init__(self, project: Project, trusted: ssl.SSLContext, *, timeout_s: float) -> None:
        self._takes_bearer = project.takes_bearer
        self._heard: httpx.Response | None = None
        self._is_lost = False
        self._http = _http_client(project, trusted, timeout_s, request=[self._drop_bearer], response=[self._hear])
        self._rest = _client(project, self._http).postgrest

    def post(self, function: str, arguments: Mapping[str, Json]) -> Json:
        """One POST, not repeated. The one argument of every function of the ledger is called `request`.

        Raises:
            ServerFault: anything but an answer of the function.
            TypeError, ValueError, RecursionError: the arguments are no JSON; nothing was sent.
        """
        try:
            return self._checked(self._rest.rpc(function, {"request": cast("Any", arguments)}).execute().data)
        except APIError as error:
            raise api_fault(error, self._last_heard()) from error
        except httpx.HTTPError as error:
            self._is_lost = True
            raise no_answer(error) from error
        except (TypeError, ValueError, RecursionError) as error:
            if self._heard is None:
                raise
            raise broken_json(self._heard) from error
        finally:
            self._heard = None  # an answer may be large

    def condition(self) -> Condition:
        """What it is after a call."""
        return Condition.LOST if self._is_lost else Condition.GOOD

    def close(self) -> None:
        self._http.close()

    def _checked(self, data: object) -> Json:
        """Every function answers with an object, or null. supabase-py passes off any text as an answer: a page of something between
        us and the project, say.
        """
        if data is None or isinstance(data, dict):
            return cast("Json", data)
        response = self._last_heard()
        says_json = response.headers.get("content-type", "").lower().startswith("application/json")
        raise broken_json(response) if says_json else not_the_api(response)

    def _hear(self, response: httpx.Response) -> None:
        """supabase-py's errors do not tell the HTTP status."""
        self._heard = response

    def _last_heard(self) -> httpx.Response:
        return cast("httpx.Response", self._heard)

    def _drop_bearer(self, request: httpx.Request) -> None:
        """supabase-py sends every key as a Bearer as well, which the API may refuse of the new kind: it is no token."""
        if not self._takes_bearer:
            request.headers.pop("Authorization", None)


def certificates(project: Project) -> ssl.SSLContext:
    """Whom to trust: SSL_CERT_FILE, or the usual ones. Reading them takes longer than a call, so once for all sessions of a transport.

    Raises:
        ConfigurationError: they cannot be read.
    """
    try:
        # What leads to this machine is not asked of the environment (see `_http_client`), except for this.
        return ssl.create_default_context() if project.is_on_this_machine else httpx.create_ssl_context()
    except OSError as error:
        raise _unusable(error) from None


def _http_client(project: Project, trusted: ssl.SSLContext, timeout_s: float, **hooks: list[Callable[..., object]]) -> httpx.Client:
    """By HTTP/1.1 (httpx's default): the library for HTTP/2 logs headers, and the key with them.

    Raises:
        ConfigurationError: the environment names a proxy that cannot be used.
    """
    try:
        return httpx.Client(
            timeout=httpx.Timeout(timeout_s, connect=min(LONGEST_CONNECT_S, timeout_s)),
            limits=ONE,
            headers={"User-Agent": f"ledgerq/{__version__}"},
            trust_env=not project.is_on_this_machine,
            verify=trusted,
            event_hooks=hooks,
        )
    except (ImportError, ValueError) as error:
        raise _unusable(error) from None


def _unusable(error: Exception) -> ConfigurationError:
    at_fault = f"the environment's proxy or certificates cannot be used ({type(error).__name__})"
    return ConfigurationError(f"{at_fault}: check HTTPS_PROXY, ALL_PROXY, SSL_CERT_FILE")


def _client(project: Project, http: httpx.Client) -> Client:
    """With an HTTP client of ours: what supabase-py makes waits two minutes, follows redirects, and warns of its own arguments."""
    options = ClientOptions(schema=SCHEMA, httpx_client=http, auto_refresh_token=False, persist_session=False, postgrest_client_retry=False)
    return create_client(project.url, project.key, options)
