"""Which request does what: the table of the subset that is served."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any

from pydantic import TypeAdapter, ValidationError
from pydantic_core import from_json

from ledgerq.local.vectors import requests as rq
from ledgerq.local.vectors.catalogue import Catalogue
from ledgerq.local.vectors.collection import Collection
from ledgerq.local.vectors.errors import Refusal, outside_the_subset

Operation = Callable[[Catalogue, Mapping[str, str], bytes], Any]


@dataclass(frozen=True, slots=True)
class Endpoint:
    method: str
    path: re.Pattern[str]
    run: Operation
    body: Any = None
    """The type of its request, if it takes one."""


def prepare() -> None:
    """Build everything that is otherwise built at its first use."""
    for endpoint in _table():
        if endpoint.body is not None:
            _adapter(endpoint.body)


def answer(catalogue: Catalogue, method: str, path: str, body: bytes) -> Any:
    """The `result` of Qdrant's envelope; `Refusal` for everything else."""
    for endpoint in _table():
        found = endpoint.path.fullmatch(path.rstrip("/"))
        if found and endpoint.method == method:
            return endpoint.run(catalogue, found.groupdict(), body)
    raise outside_the_subset(f"{method} {path}")


@cache
def _table() -> tuple[Endpoint, ...]:
    return (
        _plain("GET", "/collections", lambda known, _: {"collections": [{"name": name} for name in known.names()]}),
        _plain("GET", "/aliases", lambda known, _: known.aliases()),
        _with_body("POST", "/collections/aliases", rq.ChangeAliases, lambda known, _, body: known.change_aliases(body)),
        _plain("GET", "/collections/{name}", lambda known, name: known.get(name).info()),
        _with_body("PUT", "/collections/{name}", rq.CreateCollection, lambda known, name, body: known.create(name, body)),
        _plain("DELETE", "/collections/{name}", lambda known, name: known.drop(name)),
        _plain("GET", "/collections/{name}/exists", lambda known, name: {"exists": known.exists(name)}),
        _plain("GET", "/collections/{name}/aliases", lambda known, name: known.aliases(name)),
        _on_collection("PUT", "index", rq.CreateIndex, Collection.create_index),
        Endpoint("DELETE", _pattern("/collections/{name}/index/{field}"), _delete_index),
        _on_collection("PUT", "points", rq.Upsert | rq.UpsertBatch, Collection.upsert),
        _on_collection("POST", "points", rq.RetrievePoints, Collection.retrieve),
        _on_collection("POST", "points/delete", rq.Selection, Collection.delete),
        _on_collection("POST", "points/query", rq.QueryPoints, Collection.query),
        _on_collection("POST", "points/query/batch", rq.QueryBatch, Collection.query_batch),
        _on_collection("POST", "points/scroll", rq.ScrollPoints, Collection.scroll),
        _on_collection("POST", "points/count", rq.CountPoints, Collection.count),
        _on_collection("POST", "points/payload", rq.SetPayload, Collection.set_payload),
        _on_collection("PUT", "points/payload", rq.SetPayload, Collection.overwrite_payload),
        _on_collection("POST", "points/payload/delete", rq.DeletePayload, Collection.delete_payload),
        _on_collection("POST", "points/payload/clear", rq.Selection, Collection.clear_payload),
    )


def _plain(method: str, path: str, run: Callable[[Catalogue, str], Any]) -> Endpoint:
    return Endpoint(method, _pattern(path), lambda catalogue, found, _: run(catalogue, found.get("name", "")))


def _with_body(method: str, path: str, kind: Any, run: Callable[[Catalogue, str, Any], Any]) -> Endpoint:
    def operation(catalogue: Catalogue, found: Mapping[str, str], body: bytes) -> Any:
        return run(catalogue, found.get("name", ""), _parse(kind, body))

    return Endpoint(method, _pattern(path), operation, kind)


def _on_collection(method: str, rest: str, kind: Any, run: Callable[[Collection, Any], Any]) -> Endpoint:
    """The collection is looked up first: a request to one that is not there is a 404 whatever it says."""

    def operation(catalogue: Catalogue, found: Mapping[str, str], body: bytes) -> Any:
        collection = catalogue.get(found["name"])
        return run(collection, _parse(kind, body))

    return Endpoint(method, _pattern("/collections/{name}/" + rest), operation, kind)


def _delete_index(catalogue: Catalogue, found: Mapping[str, str], _: bytes) -> Any:
    return catalogue.get(found["name"]).delete_index(found["field"])


def _pattern(path: str) -> re.Pattern[str]:
    return re.compile(re.sub(r"\{(\w+)\}", r"(?P<\1>[^/]+)", path))


def _parse(kind: Any, body: bytes) -> Any:
    """The typed request. JSON has no NaN and no infinity; the quick parser lets them pass where anything may stand."""
    try:
        if b"NaN" in body or b"Infinity" in body:
            from_json(body, allow_inf_nan=False)
        return _adapter(kind).validate_json(body or b"{}")
    except ValidationError as error:
        raise Refusal(400, f"Format error in JSON body: {_explain(error)}") from error
    except ValueError as error:
        raise Refusal(400, f"Format error in JSON body: {error}") from error


@cache
def _adapter(kind: Any) -> TypeAdapter[Any]:
    return TypeAdapter(kind)


def _explain(error: ValidationError) -> str:
    """The first faults; a union reports one for each of its members."""
    faults = error.errors(include_url=False, include_input=False, include_context=False)[:4]
    return "; ".join(f"{'.'.join(map(str, fault['loc']))}: {fault['msg']}" for fault in faults)
