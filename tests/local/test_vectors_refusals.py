"""What the vector server refuses: in Qdrant's shape, with the reason, and with nothing written."""

from __future__ import annotations

import http.client
import json
from collections.abc import Iterator
from typing import Any

import pytest

from ledgerq.local.ports import LOOPBACK
from ledgerq.local.vectors import VectorServer
from ledgerq.local.vectors.app import MAX_BODY

Answer = tuple[int, Any]
DENSE = {"size": 2, "distance": "Dot"}


class Raw:
    """HTTP without a client's help, one connection a request."""

    def __init__(self, server: VectorServer) -> None:
        self._server = server

    def __call__(self, method: str, path: str, body: object = None, **headers: str) -> Answer:
        connection = http.client.HTTPConnection(LOOPBACK, self._server.port, timeout=30)
        text = body if isinstance(body, bytes) else b"" if body is None else json.dumps(body).encode()
        connection.request(method, path, text, {"api-key": self._server.api_key} | headers)
        response = connection.getresponse()
        content = response.read()
        connection.close()
        return response.status, json.loads(content) if content.startswith(b"{") else content


@pytest.fixture
def ask(vector_server: VectorServer) -> Raw:
    return Raw(vector_server)


@pytest.fixture
def path(ask: Raw, collection_name: str) -> Iterator[str]:
    found = f"/collections/{collection_name}"
    settings = {"vectors": {"dense": DENSE}, "sparse_vectors": {"sparse": {"modifier": "idf"}}}
    assert ask("PUT", found, settings)[0] == 200
    yield found
    ask("DELETE", found)


def error(answer: Answer) -> str:
    return answer[1]["status"]["error"]


@pytest.mark.parametrize(
    ("vector", "reason"),
    [
        ({"dense": [1.0]}, "expected dim: 2, got 1"),
        ({"dense": []}, "expected dim: 2, got 0"),
        ({"other": [1.0, 2.0]}, "Not existing vector name error: other"),
        ([1.0, 2.0], "Not existing vector name error"),
        ({"sparse": {"indices": [1, 2], "values": [1.0]}}, "2 indices, but 1 values"),
        ({"sparse": {"indices": [1, 1], "values": [1.0, 2.0]}}, "indices must be unique"),
        ({"dense": {"indices": [1], "values": [1.0]}}, "Not existing vector name error: dense"),
        ({"dense": ["a", "b"]}, "vector"),
    ],
)
def test_wrong_vectors(ask: Raw, path: str, vector: object, reason: str) -> None:
    """The second point is good: a request is taken whole or not at all."""
    good = {"id": 2, "vector": {"dense": [1.0, 2.0]}}
    answer = ask("PUT", f"{path}/points", {"points": [{"id": 1, "vector": vector}, good]})
    assert answer[0] == 400
    assert reason in error(answer)
    assert ask("POST", f"{path}/points/count", {})[1]["result"] == {"count": 0}


@pytest.mark.parametrize("point_id", [-1, 1.5, "abc", "", None, True, 2**64])
def test_wrong_ids(ask: Raw, path: str, point_id: object) -> None:
    answer = ask("PUT", f"{path}/points", {"points": [{"id": point_id, "vector": {"dense": [1.0, 2.0]}}]})
    assert answer[0] == 400
    assert "points.0.id" in error(answer)


@pytest.mark.parametrize(
    ("method", "rest", "body", "reason"),
    [
        ("PUT", "/points", b"{", "JSON"),
        ("PUT", "/points", b'{"points": [{"id": 1, "vector": {"dense": [1, NaN]}}]}', "JSON"),
        ("PUT", "/points", {"points": []}, "no points"),
        ("PUT", "/points", {"points": [], "surprise": 1}, "surprise"),
        ("PUT", "/points", {"batch": {"ids": [1, 2], "vectors": {"dense": [[1.0, 2.0]]}}}, "differ in length"),
        ("POST", "/points/query", {"query": [1.0], "using": "dense"}, "expected dim: 2, got 1"),
        ("POST", "/points/query", {"query": [1.0, 2.0], "using": "nothing"}, "Not existing vector name error: nothing"),
        ("POST", "/points/query", {"query": {"recommend": {}}}, "query"),
        ("POST", "/points/query", {"query": {"fusion": "rrf"}}, "without prefetches"),
        ("POST", "/points/query", {"limit": 0}, "limit"),
        ("POST", "/points/query", {"lookup_from": {}}, "lookup_from"),
        ("POST", "/points/count", {"filter": {"must": [{"key": "a", "geo_radius": {}}]}}, "geo_radius"),
        ("POST", "/points/count", {"filter": {"must": [{"key": "a[", "match": {"value": 1}}]}}, "invalid JSON path"),
        ("POST", "/points/delete", {}, "either points or filter"),
        ("POST", "/points/delete", {"points": [1], "filter": {}}, "either points or filter"),
        ("PUT", "/index", {"field_name": "a", "field_schema": "geo"}, "field_schema"),
        ("POST", "/points/query/groups", {}, "is not served by the local vector server"),
        ("POST", "/snapshots", None, "is not served by the local vector server"),
        ("PATCH", "", {}, "is not served by the local vector server"),
    ],
)
def test_outside_of_the_subset(ask: Raw, path: str, method: str, rest: str, body: object, reason: str) -> None:
    answer = ask(method, path + rest, body)
    assert answer[0] == 400, answer
    assert reason in error(answer)


@pytest.mark.parametrize(
    ("name", "settings", "reason"),
    [
        ("a", {}, "at least one vector"),
        ("a", {"vectors": {"size": 0, "distance": "Dot"}}, "size"),
        ("a", {"vectors": {"size": 2, "distance": "Hamming"}}, "distance"),
        ("a", {"vectors": DENSE, "sharding_method": "custom"}, "sharding_method"),
        ("a%2F..%2Fb", {"vectors": DENSE}, "is not served"),
        ("..%2e", {"vectors": DENSE}, "collection name"),
        ("x" * 201, {"vectors": DENSE}, "collection name"),
    ],
)
def test_collections_that_are_not_made(ask: Raw, name: str, settings: object, reason: str) -> None:
    answer = ask("PUT", f"/collections/{name}", settings)
    assert answer[0] == 400
    assert reason in error(answer)


def test_aliases_are_changed_all_or_none(ask: Raw, path: str, collection_name: str) -> None:
    good = {"create_alias": {"collection_name": collection_name, "alias_name": "one"}}
    bad = {"create_alias": {"collection_name": "nothing-there", "alias_name": "two"}}
    assert ask("POST", "/collections/aliases", {"actions": [good, bad]})[0] == 404
    assert ask("GET", f"{path}/aliases")[1]["result"] == {"aliases": []}
    assert ask("POST", "/collections/aliases", {"actions": [{"rename_alias": {"old_alias_name": "one", "new_alias_name": "b"}}]})[0] == 400


@pytest.mark.parametrize("headers", [{"api-key": ""}, {"api-key": "wrong"}, {"api-key": "", "authorization": "Bearer wrong"}])
def test_wrong_key(ask: Raw, headers: dict[str, str]) -> None:
    assert ask("GET", "/collections", None, **headers)[0] == 401


def test_key_as_bearer_and_open_paths(ask: Raw, vector_server: VectorServer) -> None:
    bearer = {"api-key": "", "authorization": f"Bearer {vector_server.api_key}"}
    assert ask("GET", "/collections", None, **bearer)[0] == 200
    assert [ask("GET", path, None, **{"api-key": ""})[0] for path in ("/", "/healthz", "/livez", "/readyz")] == [200] * 4


def test_body_over_the_limit(ask: Raw, path: str) -> None:
    status, _ = ask("PUT", f"{path}/points", b" " * (MAX_BODY + 1))
    assert status == 413
    assert ask("GET", path)[0] == 200
