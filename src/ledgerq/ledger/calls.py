"""What all typed calls have in common: a request made of plain JSON, an answer read into a model."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import Any, TypeVar, cast
from uuid import UUID

from pydantic import BaseModel, ValidationError

from ledgerq.errors import SchemaMismatch
from ledgerq.ledger.transport import Transport
from ledgerq.models import Json, JsonObject

M = TypeVar("M", bound=BaseModel)


class Calls:
    """Base of the groups of calls that make up `LedgerStore`."""

    def __init__(self, transport: Transport) -> None:
        self._transport = transport

    def _ask(self, answer: type[M], function: str, **fields: object) -> M:
        """Call the function with the fields that are not None, and read its answer."""
        return self._send(answer, function, request(fields))

    def _send(self, answer: type[M], function: str, arguments: Mapping[str, Json]) -> M:
        return read(answer, function, self._transport.call(function, arguments))

    def _find(self, answer: type[M], function: str, **fields: object) -> M | None:
        """The same for a function that answers null when there is no such thing."""
        found = self._transport.call(function, request(fields))
        return None if found is None else read(answer, function, found)

    def _list(self, answer: type[M], function: str, key: str, **fields: object) -> tuple[M, ...]:
        """The same for an answer that is one list under a key."""
        found = self._transport.call(function, request(fields))
        return tuple(read(answer, function, item) for item in cast("list[Json]", _member(function, found, key)))

    def _value(self, function: str, key: str, **fields: object) -> Any:
        """One member of the answer, as it is."""
        return _member(function, self._transport.call(function, request(fields)), key)


def read(answer: type[M], function: str, found: Json) -> M:
    """The answer as a model.

    Raises:
        SchemaMismatch: it does not fit; the ledger is of another version.
    """
    try:
        return answer.model_validate(found)
    except ValidationError as error:
        raise SchemaMismatch(f"{function} answered what this ledgerq does not understand; are both of one version? {error}") from error


def request(fields: Mapping[str, object]) -> JsonObject:
    """The fields that are not None as plain JSON."""
    return {key: plain(value) for key, value in fields.items() if value is not None}


def plain(value: object) -> Json:
    """UUIDs and times as text; everything else is JSON already."""
    if isinstance(value, UUID):
        return str(value)
    if isinstance(value, datetime):
        return value.isoformat()
    return cast("Json", value)


def texts(ids: Iterable[UUID]) -> list[Json]:
    """Ids as the ledger takes them."""
    return [str(entry) for entry in ids]


def _member(function: str, found: Json, key: str) -> Json:
    if not isinstance(found, dict) or key not in found:
        raise SchemaMismatch(f"{function} answered without {key!r}; are ledger and ledgerq of one version?")
    return found[key]
