"""Calls of the ledger's functions through a Supabase project's API."""

from __future__ import annotations

import ssl
from collections.abc import Mapping
from functools import cached_property
from typing import cast

from ledgerq.ledger import json_text
from ledgerq.ledger.errors_table import ServerFault, refused
from ledgerq.ledger.places import Places
from ledgerq.ledger.project import Project
from ledgerq.ledger.repeating import repeating
from ledgerq.ledger.supabase.session import LONGEST_IDLE_S, Session, certificates
from ledgerq.models import Json


class SupabaseTransport:
    """`ledgerq.ledger.Transport` over supabase-py. Opens nothing until the first call; safe for threads, and across a fork.

    supabase-py itself never repeats a POST; we do, for every function of the ledger may be repeated. `timeout_s` bounds each
    step of one try (to connect, to send, to wait for the answer) and must exceed the API's statement timeout of 8 s, because
    a call that is given up here goes on there. No try begins later than `timeout_s` after the first.

    Raises:
        ConfigurationError: the address is none, or the key is one that browsers get.
    """

    def __init__(self, url: str, key: str, *, pool_size: int = 4, timeout_s: float = 10.0) -> None:
        self._project = Project.parse(url, key)
        self._timeout_s = timeout_s
        self._sessions = Places(self._open, Session.condition, size=pool_size, longest_idle_s=LONGEST_IDLE_S)
        self._repeating = repeating(timeout_s=timeout_s)

    def call(self, function: str, arguments: Mapping[str, Json]) -> Json:
        """See `Transport.call`."""
        if not function.isidentifier():
            raise ValueError(f"{function!r} is no name of a function")
        # The same bytes as over a direct connection: what is no JSON is refused, or becomes text, in one place.
        plain = cast("Mapping[str, Json]", json_text.decode(json_text.encode(arguments, doing=function)))
        try:
            return self._repeating(self._try, function, plain)
        except ServerFault as fault:
            raise refused(f"{function} on {self._project.place}", fault, arguments) from fault
        except (TypeError, ValueError, RecursionError) as error:
            raise json_text.complain(arguments, doing=function, otherwise=str(error)) from error

    def close(self) -> None:
        """See `Transport.close`."""
        self._sessions.close()

    def _try(self, function: str, arguments: Mapping[str, Json]) -> Json:
        with self._sessions.borrow(timeout_s=self._timeout_s) as session:
            return session.post(function, arguments)

    def _open(self) -> Session:
        return Session(self._project, self._trusted, timeout_s=self._timeout_s)

    @cached_property
    def _trusted(self) -> ssl.SSLContext:
        return certificates(self._project)
