"""The vector server and kill -9: what was acknowledged is there again, and a half-made collection is in nobody's way."""

from __future__ import annotations

import http.client
import json
import os
import signal
import threading
from collections import deque
from pathlib import Path

import pytest

from ledgerq.errors import LocalStackError
from ledgerq.local import vectors
from ledgerq.local.accounts import give, server_account
from ledgerq.local.ports import LOOPBACK
from ledgerq.local.vectors import VectorServer
from tests.support.waiting import eventually

pytestmark = pytest.mark.processes
SETTINGS = {"vectors": {"size": 8, "distance": "Dot"}}


def ask(server: VectorServer, method: str, path: str, body: object = None) -> object:
    connection = http.client.HTTPConnection(LOOPBACK, server.port, timeout=30)
    try:
        connection.request(method, path, json.dumps(body), {"api-key": server.api_key})
        response = connection.getresponse()
        content = json.loads(response.read())
        assert response.status == 200, content
        return content["result"]
    finally:
        connection.close()


def kill(server: VectorServer) -> None:
    assert server.identity
    os.kill(server.identity.pid, signal.SIGKILL)
    eventually(lambda: not server.is_alive(), what="the killed server is gone")


def test_no_acknowledged_point_is_lost(server_dir: Path) -> None:
    """Killed twice in the middle of a stream of writes, each of 20 points."""
    with VectorServer(server_dir / "vectors") as server:
        ask(server, "PUT", "/collections/c", SETTINGS)
        acknowledged: set[int] = set()
        for _ in range(2):
            before = len(acknowledged)
            writer = threading.Thread(target=_write_until_it_breaks, args=(server, acknowledged))
            writer.start()
            eventually(lambda wanted=before + 200: len(acknowledged) >= wanted, what="200 more points")
            kill(server)
            writer.join()
            server.start()
            found = ask(server, "POST", "/collections/c/points", {"ids": sorted(acknowledged), "with_payload": True})
            assert isinstance(found, list)
            assert {point["id"]: point["payload"] for point in found} == {n: {"n": n} for n in acknowledged}


def _write_until_it_breaks(server: VectorServer, acknowledged: set[int]) -> None:
    first = len(acknowledged) + 10_000 * (server.identity.pid if server.identity else 0)
    while True:
        numbers = range(first, first + 20)
        points = [{"id": n, "vector": [float(n % 7)] * 8, "payload": {"n": n}} for n in numbers]
        try:
            ask(server, "PUT", "/collections/c/points", {"points": points})
        except (OSError, http.client.HTTPException):
            return
        acknowledged.update(numbers)
        first += 20


def test_killed_while_collections_are_made_and_dropped(server_dir: Path) -> None:
    """Whatever the moment, the server starts again, and a collection is whole or absent."""
    with VectorServer(server_dir / "vectors") as server:
        for _ in range(2):
            made: deque[str] = deque()
            maker = threading.Thread(target=_make_until_it_breaks, args=(server, made))
            maker.start()
            eventually(lambda made=made: len(made) >= 2, what="two collections were made")
            kill(server)
            maker.join()
            server.start()
            listed = ask(server, "GET", "/collections")
            assert isinstance(listed, dict)
            names = [found["name"] for found in listed["collections"]]
            assert set(made) <= set(names)
            for name in names:
                ask(server, "PUT", f"/collections/{name}/points", {"points": [{"id": 1, "vector": [1.0] * 8}]})
                ask(server, "DELETE", f"/collections/{name}")
        assert not list((server.data_dir / "data" / "collections").iterdir())


def _make_until_it_breaks(server: VectorServer, made: deque[str]) -> None:
    for number in range(1000):
        try:
            ask(server, "PUT", f"/collections/keep-{number}", SETTINGS)
            made.append(f"keep-{number}")
            ask(server, "PUT", f"/collections/drop-{number}", SETTINGS)
            ask(server, "DELETE", f"/collections/drop-{number}")
        except (OSError, http.client.HTTPException):
            return


def test_half_made_collection_is_removed_and_whole_ones_are_as_they_were(server_dir: Path) -> None:
    """The directory of a making that was killed before its settings were written; beside it an alias and an index."""
    with VectorServer(server_dir / "vectors") as server:
        ask(server, "PUT", "/collections/whole", SETTINGS)
        ask(server, "PUT", "/collections/whole/index", {"field_name": "document", "field_schema": "keyword"})
        alias = {"create_alias": {"collection_name": "whole", "alias_name": "a"}}
        ask(server, "POST", "/collections/aliases", {"actions": [alias]})
        kill(server)
        half = server.data_dir / "data" / "collections" / ".new-0123"
        (half / "shard").mkdir(parents=True)
        for made in (half, half / "shard"):
            give(made, server_account())
        server.start()
        assert ask(server, "GET", "/collections") == {"collections": [{"name": "whole"}]}
        assert not half.exists()
        info = ask(server, "GET", "/collections/a")
        assert isinstance(info, dict)
        assert info["payload_schema"] == {"document": {"data_type": "keyword", "points": 0}}


def test_second_server_on_the_directory_is_refused(vector_server: VectorServer) -> None:
    assert vector_server.identity
    with pytest.raises(LocalStackError, match=rf"in use by the vector server with pid {vector_server.identity.pid}"):
        VectorServer(vector_server.data_dir).start()
    assert vector_server.is_alive()


def test_missing_extra_is_named(server_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(vectors.server, "find_spec", lambda _: None)
    with pytest.raises(LocalStackError, match=r"pip install 'ledgerq\[local\]'"):
        VectorServer(server_dir / "vectors").start()
