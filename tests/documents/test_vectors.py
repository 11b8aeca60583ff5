"""Points in a vector server, through the real client."""

from __future__ import annotations

import os
import socket
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import TYPE_CHECKING
from uuid import UUID, uuid4, uuid5

import pytest
from qdrant_client import QdrantClient, models

from ledgerq.documents.sparse import Bm25
from ledgerq.documents.vectors import ChunkPayload, Point, VectorDB, VectorSettings
from ledgerq.errors import ConfigurationError, InvalidInput, VectorsUnavailable

if TYPE_CHECKING:
    from ledgerq.local.vectors import VectorServer

DOCUMENT, OTHER = uuid4(), uuid4()
bm25 = Bm25()


@pytest.fixture(scope="module")
def shared(vector_server: VectorServer) -> Iterator[VectorDB]:
    """Making a collection takes most of the time of these tests."""
    made = database(vector_server, f"test_{uuid4().hex}")
    made.ensure_collection()
    yield made
    made._client.delete_collection(made.settings.collection)
    made.close()


@pytest.fixture
def vectors(shared: VectorDB) -> VectorDB:
    """A collection without points."""
    for document in (DOCUMENT, OTHER):
        assert shared.delete_document(document) == 0
    return shared


@pytest.fixture
def own(vector_server: VectorServer, collection_name: str) -> Iterator[VectorDB]:
    """A collection that is not made yet."""
    made = database(vector_server, collection_name)
    yield made
    made._client.delete_collection(collection_name)
    made.close()


def database(server: VectorServer, name: str, *, embedder: str = "tiny-3", dimensions: int = 3, batch: int = 4) -> VectorDB:
    settings = VectorSettings(url=server.url, api_key=server.api_key, collection=name, batch=batch)
    return VectorDB(settings, embedder=embedder, dimensions=dimensions)


def point(
    position: int, *, text: str = "words", generation: int = 1, tenant: str = "", document: UUID = DOCUMENT, source: UUID | None = None
) -> Point:
    payload = ChunkPayload(
        tenant=tenant,
        document=document,
        generation=generation,
        position=position,
        content_hash=f"hash of {text}",
        text=text,
        start=0,
        end=len(text),
        tokens=1,
        uri="a.txt",
        source=source,
        page=position + 1,
        heading="H",
    )
    dense = [1.0, position / 10, 0.0]
    return Point(id=uuid5(document, f"{generation}:{position}"), dense=dense, sparse=bm25.document(text), payload=payload)


def test_storing_again_changes_nothing(vectors: VectorDB) -> None:
    vectors.ensure_collection()
    points = [point(number) for number in range(10)]
    assert vectors.add_documents(points) == 10
    assert vectors.add_documents(points[:7]) == 7
    assert vectors.count() == vectors.count(document=DOCUMENT, generation=1) == 10
    assert vectors.existing(DOCUMENT, 1) == {made.id for made in points}


def test_the_collection_as_qdrant_sees_it(vectors: VectorDB, vector_server: VectorServer) -> None:
    vectors.ensure_collection()
    vectors.add_documents([point(0)])
    collection_name = vectors.settings.collection
    with pytest.warns(UserWarning, match="insecure"):
        client = QdrantClient(url=vector_server.url, api_key=vector_server.api_key, check_compatibility=False)
    info = client.get_collection(collection_name)
    assert {"tenant", "document", "generation", "content_hash", "source"} <= info.payload_schema.keys()
    assert info.config.params.sparse_vectors is not None
    assert info.config.params.sparse_vectors["bm25"].modifier == models.Modifier.IDF
    client.close()


def test_several_at_once_make_one_collection(own: VectorDB, vector_server: VectorServer, collection_name: str) -> None:
    made = [database(vector_server, collection_name) for _ in range(6)]
    with ThreadPoolExecutor(6) as executor:
        list(executor.map(VectorDB.ensure_collection, made))
    own.add_documents([point(0)])
    assert {one.count() for one in made} == {1}
    for one in made:
        one.close()


@pytest.mark.parametrize(("embedder", "dimensions"), [("tiny-3", 4), ("other-3", 3)])
def test_a_collection_of_other_vectors_is_refused(vectors: VectorDB, vector_server: VectorServer, embedder: str, dimensions: int) -> None:
    collection_name = vectors.settings.collection
    other = database(vector_server, collection_name, embedder=embedder, dimensions=dimensions)
    with pytest.raises(ConfigurationError, match=rf"collection '{collection_name}' holds 'tiny-3' \(3, Cosine\).*LEDGERQ_COLLECTION"):
        other.ensure_collection()
    other.close()


def test_searching_by_another_embedder_is_refused_by_name(vectors: VectorDB, vector_server: VectorServer) -> None:
    vectors.ensure_collection()
    other = database(vector_server, vectors.settings.collection, embedder="other-3")
    with pytest.raises(ConfigurationError, match=r"holds 'tiny-3'.*needs vectors 'other-3'"):
        other.search(dense=[1, 0, 0], sparse=Bm25().query("x"), tenant="", limit=1)
    other.close()


def test_another_distance_is_refused(own: VectorDB, collection_name: str) -> None:
    own._client.create_collection(
        collection_name,
        vectors_config={"tiny-3": models.VectorParams(size=3, distance=models.Distance.DOT)},
        sparse_vectors_config={"bm25": models.SparseVectorParams(modifier=models.Modifier.IDF)},
    )
    with pytest.raises(ConfigurationError, match=r"holds 'tiny-3' \(3, Dot\).*by cosine"):
        own.ensure_collection()


def test_a_server_that_is_no_qdrant_is_named() -> None:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_error(404)

        def log_message(self, *_: object) -> None:
            return

    with HTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        made = VectorDB(VectorSettings(url=f"http://127.0.0.1:{server.server_port}"), embedder="e", dimensions=3)
        with pytest.raises(ConfigurationError, match="check QDRANT_URL: it is no Qdrant"):
            made.ensure_collection()
        made.close()
        server.shutdown()


def test_a_collection_that_somebody_else_made_is_refused(own: VectorDB, vector_server: VectorServer, collection_name: str) -> None:
    with pytest.warns(UserWarning, match="insecure"):
        client = QdrantClient(url=vector_server.url, api_key=vector_server.api_key, check_compatibility=False)
    client.create_collection(collection_name, vectors_config=models.VectorParams(size=3, distance=models.Distance.COSINE))
    client.close()
    with pytest.raises(ConfigurationError, match="unnamed vectors"):
        own.ensure_collection()


def test_vectors_are_found_by_hash_in_one_generation(vectors: VectorDB) -> None:
    vectors.ensure_collection()
    vectors.add_documents([point(0, text="a"), point(5, text="b"), point(0, text="c", generation=2)])
    found = vectors.vectors_by_hash(DOCUMENT, 1, {"hash of a", "hash of b", "hash of c", "nothing"})
    assert found.keys() == {"hash of a", "hash of b"}
    assert found["hash of a"] == pytest.approx([1, 0, 0])
    assert vectors.vectors_by_hash(DOCUMENT, 1, set()) == {}


def test_more_than_one_page_of_everything(vectors: VectorDB) -> None:
    settings = replace(vectors.settings, batch=256)
    big = VectorDB(settings, embedder="tiny-3", dimensions=3)
    big.add_documents([point(number, text=f"text {number}") for number in range(1_100)])
    assert len(big.existing(DOCUMENT, 1)) == 1_100
    assert len(big.vectors_by_hash(DOCUMENT, 1, [f"hash of text {number}" for number in range(600)])) == 600
    assert {document: len(ids) for document, ids in big.existing_of({DOCUMENT: 1, OTHER: 1}).items()} == {DOCUMENT: 1_100, OTHER: 0}
    assert big.delete_generation(DOCUMENT, 1) == 0
    big.close()


def test_removing_takes_exactly_what_was_named(vectors: VectorDB) -> None:
    vectors.ensure_collection()
    vectors.add_documents([point(n, generation=g, document=d) for d, g in ((DOCUMENT, 1), (DOCUMENT, 2), (OTHER, 3)) for n in range(3)])
    assert vectors.delete_generation(DOCUMENT, 1) == 0
    assert vectors.existing(DOCUMENT, 1) == set()
    assert vectors.existing_of({DOCUMENT: 2, OTHER: 3}) == {
        DOCUMENT: {point(n, generation=2).id for n in range(3)},
        OTHER: {point(n, generation=3, document=OTHER).id for n in range(3)},
    }
    vectors.delete_points({point(0, generation=2).id})
    assert vectors.count(document=DOCUMENT) == 2
    assert vectors.delete_document(DOCUMENT) == 0
    assert vectors.count() == 3


def test_ledgers_that_share_a_collection_share_numbers_of_generations_and_nothing_else(vectors: VectorDB) -> None:
    vectors.ensure_collection()
    vectors.add_documents([point(n, document=document, text=f"{n}") for document in (DOCUMENT, OTHER) for n in range(2)])
    mine = {point(n).id for n in range(2)}
    assert vectors.existing_of({DOCUMENT: 1}) == {DOCUMENT: mine}
    assert vectors.existing_of({DOCUMENT: 2, OTHER: 1})[DOCUMENT] == set()
    assert vectors.vectors_by_hash(uuid4(), 1, {"hash of 0"}) == {}
    assert vectors.short_of({DOCUMENT: (1, 2), OTHER: (1, 2)}) == set()
    assert vectors.short_of({DOCUMENT: (1, 3), OTHER: (1, 2)}) == {DOCUMENT}


def test_search_is_of_one_tenant_and_source(vectors: VectorDB) -> None:
    vectors.ensure_collection()
    source = uuid4()
    vectors.add_documents(
        [point(n, text="flutter of wings") for n in range(3)]
        + [point(n, text="flutter of wings", tenant="t", generation=2) for n in range(3)]
        + [point(9, text="flutter", tenant="t", generation=2, source=source)]
    )
    query = {"dense": [1.0, 0.0, 0.0], "sparse": bm25.query("flutter")}
    assert {hit.payload.tenant for hit in vectors.search(**query, tenant="t", limit=50)} == {"t"}  # pyright: ignore[reportArgumentType]
    assert len(vectors.search(**query, tenant="", limit=50)) == 3  # pyright: ignore[reportArgumentType]
    assert [hit.payload.position for hit in vectors.search(**query, tenant="t", limit=50, source=source)] == [9]  # pyright: ignore[reportArgumentType]
    assert vectors.search(**query, tenant="nobody", limit=50) == []  # pyright: ignore[reportArgumentType]


def test_search_fuses_meaning_and_words(vectors: VectorDB) -> None:
    vectors.ensure_collection()
    vectors.add_documents([point(0, text="soup"), point(3, text="flutter"), point(9, text="wings")])
    first, second, third = vectors.search(dense=[1.0, 0.0, 0.0], sparse=bm25.query("wings"), tenant="", limit=3)
    assert (first.payload.text, first.score) == ("wings", pytest.approx(0.5 + 0.25, abs=1e-3))
    assert (second.payload.text, second.score) == ("soup", pytest.approx(0.5, abs=1e-3))
    assert third.score == pytest.approx(1 / 3, abs=1e-3)
    assert first.payload == point(9, text="wings").payload
    best = vectors.search(dense=[1.0, 0.0, 0.0], sparse=bm25.query("soup"), tenant="", limit=1)
    assert best[0].score == pytest.approx(1.0)
    assert len(vectors.search(dense=[1.0, 0.0, 0.0], sparse=bm25.query("the of"), tenant="", limit=3)) == 3


def test_without_a_collection_there_is_nothing(own: VectorDB) -> None:
    assert own.search(dense=[1.0, 0.0, 0.0], sparse=bm25.query("x"), tenant="", limit=3) == []
    assert own.count() == 0
    assert own.existing(DOCUMENT, 1) == set()
    assert own.delete_generation(DOCUMENT, 1) == 0


def test_a_collection_dropped_under_way_comes_back_at_the_next_try(own: VectorDB) -> None:
    own.ensure_collection()
    own._client.delete_collection(own.settings.collection)
    with pytest.raises(VectorsUnavailable, match="404"):
        own.add_documents([point(0)])
    own.ensure_collection()
    assert own.add_documents([point(0)]) == 1


def test_a_request_that_qdrant_refuses(vectors: VectorDB) -> None:
    vectors.ensure_collection()
    wrong = point(0)
    with pytest.raises(InvalidInput, match="Qdrant answered 400 while storing 1 points"):
        vectors.add_documents([Point(id=wrong.id, dense=[1.0, 2.0], sparse=wrong.sparse, payload=wrong.payload)])


def test_a_wrong_key(vector_server: VectorServer, collection_name: str) -> None:
    made = VectorDB(VectorSettings(url=vector_server.url, api_key="wrong", collection=collection_name), embedder="e", dimensions=3)
    with pytest.raises(ConfigurationError, match="check QDRANT_API_KEY"):
        made.ensure_collection()
    made.close()


def test_nobody_answers() -> None:
    with socket.socket() as unheard:
        unheard.bind(("127.0.0.1", 0))
        made = VectorDB(VectorSettings(url=f"http://127.0.0.1:{unheard.getsockname()[1]}"), embedder="e", dimensions=3)
        with pytest.raises(VectorsUnavailable, match="did not answer while looking at collection"):
            made.ensure_collection()
        made.close()


@pytest.mark.parametrize(
    ("status", "headers", "retry_after"), [(429, {"Retry-After": "7"}, 7.0), (503, {}, None), (500, {}, None), (429, {}, None)]
)
def test_a_server_that_asks_to_wait(status: int, headers: dict[str, str], retry_after: float | None) -> None:
    class Handler(BaseHTTPRequestHandler):
        def do_PUT(self) -> None:
            self.rfile.read(int(self.headers["content-length"]))
            self.send_response(status)
            for name, value in {**headers, "content-length": "2"}.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(b"{}")

        def log_message(self, *_: object) -> None:
            return

    with HTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        made = VectorDB(VectorSettings(url=f"http://127.0.0.1:{server.server_port}"), embedder="e", dimensions=3)
        with pytest.raises(VectorsUnavailable) as caught:
            made.add_documents([point(0)])
        assert caught.value.retry_after == retry_after
        made.close()
        server.shutdown()


def test_a_forked_child_makes_its_own_client(vectors: VectorDB) -> None:
    vectors.ensure_collection()
    vectors.add_documents([point(0)])
    child = os.fork()
    if child == 0:
        try:
            os._exit(0 if vectors.count() == 1 else 1)
        finally:
            os._exit(2)
    assert os.waitpid(child, 0)[1] == 0
    assert vectors.count() == 1


def test_a_proxy_of_the_environment_is_not_asked_for_a_server_of_this_machine(
    vector_server: VectorServer, collection_name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    for name in ("NO_PROXY", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
    made = database(vector_server, collection_name)
    assert made.count() == 0
    made.close()
