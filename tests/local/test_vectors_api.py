"""The real client against the vector server: every call that ledgerq makes."""

from __future__ import annotations

import uuid
import warnings
from collections.abc import Iterator
from typing import Any

import pytest
from qdrant_client import QdrantClient, models
from qdrant_client.http.exceptions import UnexpectedResponse

from ledgerq.local.vectors import VectorServer

SIZE = 4


@pytest.fixture(scope="module")
def client(vector_server: VectorServer) -> Iterator[QdrantClient]:
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Api key is used with an insecure connection")
        found = QdrantClient(url=vector_server.url, api_key=vector_server.api_key, timeout=30)
    yield found
    found.close()


@pytest.fixture
def collection(client: QdrantClient, collection_name: str) -> Iterator[str]:
    client.create_collection(
        collection_name,
        vectors_config={"dense": models.VectorParams(size=SIZE, distance=models.Distance.COSINE)},
        sparse_vectors_config={"sparse": models.SparseVectorParams(modifier=models.Modifier.IDF)},
    )
    yield collection_name
    client.delete_collection(collection_name)


def ids(count: int) -> list[str]:
    return [str(uuid.UUID(int=number + 1)) for number in range(count)]


def points(count: int, **payload: Any) -> list[models.PointStruct]:
    return [
        models.PointStruct(
            id=point_id,
            vector={
                "dense": [1.0, number / 10, 0.0, 0.5],
                "sparse": models.SparseVector(indices=[number % 3, 100], values=[1.0, 0.5]),
            },
            payload={"n": number, "document": f"d{number % 5}", **payload},
        )
        for number, point_id in enumerate(ids(count))
    ]


def of_document(name: str) -> models.Filter:
    return models.Filter(must=[models.FieldCondition(key="document", match=models.MatchValue(value=name))])


def test_collection_comes_and_goes(client: QdrantClient, collection_name: str) -> None:
    assert not client.collection_exists(collection_name)
    client.create_collection(collection_name, vectors_config=models.VectorParams(size=SIZE, distance=models.Distance.DOT))
    assert client.collection_exists(collection_name)
    assert collection_name in [found.name for found in client.get_collections().collections]
    with pytest.raises(UnexpectedResponse) as refused:
        client.create_collection(collection_name, vectors_config=models.VectorParams(size=SIZE, distance=models.Distance.DOT))
    assert refused.value.status_code == 409
    assert client.delete_collection(collection_name)
    assert not client.collection_exists(collection_name)
    assert not client.delete_collection(collection_name)


def test_collection_describes_itself(client: QdrantClient, collection: str) -> None:
    client.create_payload_index(collection, "document", models.PayloadSchemaType.KEYWORD)
    client.create_payload_index(collection, "tenant", models.KeywordIndexParams(type=models.KeywordIndexType.KEYWORD, is_tenant=True))
    client.upsert(collection, points(3))
    info = client.get_collection(collection)
    assert info.points_count == 3
    assert info.config.params.vectors == {"dense": models.VectorParams(size=SIZE, distance=models.Distance.COSINE)}
    assert {key: schema.data_type for key, schema in info.payload_schema.items()} == {"document": "keyword", "tenant": "keyword"}
    client.delete_payload_index(collection, "tenant")
    assert set(client.get_collection(collection).payload_schema) == {"document"}


def test_upsert_is_idempotent_and_read_back_as_written(client: QdrantClient, collection: str) -> None:
    for _ in range(2):
        client.upsert(collection, points(20), wait=True)
    assert client.count(collection).count == 20
    [found] = client.retrieve(collection, ids(1), with_vectors=True)
    assert found.payload == {"n": 0, "document": "d0"}
    assert isinstance(found.vector, dict)
    assert found.vector["sparse"] == models.SparseVector(indices=[0, 100], values=[1.0, 0.5])
    assert found.vector["dense"] == pytest.approx([0.894, 0.0, 0.0, 0.447], abs=0.001)


def test_unnamed_vector_and_batches(client: QdrantClient, collection_name: str) -> None:
    client.create_collection(collection_name, vectors_config=models.VectorParams(size=2, distance=models.Distance.DOT))
    client.upsert(collection_name, models.Batch(ids=[1, 2], vectors=[[1.0, 0.0], [0.0, 1.0]], payloads=[{"a": 1}, {"a": 2}]))
    found = client.query_points(collection_name, query=[0.0, 2.0], limit=1, with_vectors=True).points
    assert [(point.id, point.score, point.vector, point.payload) for point in found] == [(2, 2.0, [0.0, 1.0], {"a": 2})]
    client.upload_points(
        collection_name, [models.PointStruct(id=n, vector=[1.0, float(n)]) for n in range(10, 30)], batch_size=7, wait=True
    )
    assert client.count(collection_name).count == 22
    client.delete_collection(collection_name)


def test_dense_sparse_and_batched_queries(client: QdrantClient, collection: str) -> None:
    client.upsert(collection, points(20))
    dense = client.query_points(collection, query=[1.0, 0.0, 0.0, 0.5], using="dense", limit=3).points
    assert [point.payload["n"] for point in dense if point.payload] == [0, 1, 2]
    sparse = client.query_points(collection, query=models.SparseVector(indices=[2], values=[1.0]), using="sparse", limit=20).points
    assert {point.payload["n"] % 3 for point in sparse if point.payload} == {2}
    both = client.query_batch_points(collection, [models.QueryRequest(query=[1.0, 0, 0, 0], using="dense", limit=2)] * 3)
    assert [len(answer.points) for answer in both] == [2, 2, 2]


def test_fusion_weighs_its_sources(client: QdrantClient, collection: str) -> None:
    client.upsert(collection, points(20))
    prefetch = [
        models.Prefetch(query=[1.0, 0.0, 0.0, 0.5], using="dense", limit=2),
        models.Prefetch(query=models.SparseVector(indices=[2], values=[1.0]), using="sparse", limit=5),
    ]

    def first(query: Any) -> tuple[int, float]:
        [best] = client.query_points(collection, prefetch=prefetch, query=query, limit=1).points
        assert best.payload
        return best.payload["n"], best.score

    assert first(models.RrfQuery(rrf=models.Rrf(k=60, weights=[9.0, 1.0])))[0] == 0
    assert first(models.RrfQuery(rrf=models.Rrf(k=60, weights=[1.0, 9.0])))[0] % 3 == 2
    assert first(models.FusionQuery(fusion=models.Fusion.RRF))[1] == pytest.approx(1 / 2)  # k = 2, first in one list
    assert first(models.FusionQuery(fusion=models.Fusion.DBSF))[1] > 0


def test_filters_hold_in_fusion_too(client: QdrantClient, collection: str) -> None:
    client.upsert(collection, points(20))
    prefetch = [models.Prefetch(query=[1.0, 0, 0, 0], using="dense", limit=10, filter=of_document("d1"))]
    found = client.query_points(
        collection, prefetch=prefetch, query=models.FusionQuery(fusion=models.Fusion.RRF), query_filter=of_document("d1"), limit=10
    ).points
    assert {point.payload["document"] for point in found if point.payload} == {"d1"}


@pytest.mark.parametrize(
    ("condition", "expected"),
    [
        (models.FieldCondition(key="n", range=models.Range(gte=5, lt=8)), 3),
        (models.FieldCondition(key="document", match=models.MatchAny(any=["d1", "d2"])), 8),
        (models.FieldCondition(key="document", match=models.MatchExcept(**{"except": ["d1", "d2"]})), 12),
        (models.HasIdCondition(has_id=ids(4)), 4),
        (models.IsEmptyCondition(is_empty=models.PayloadField(key="nothing")), 20),
        (models.IsNullCondition(is_null=models.PayloadField(key="nothing")), 0),
        (models.FieldCondition(key="when", range=models.DatetimeRange(gt="2026-01-01T00:00:00Z")), 20),
        (models.Filter(should=[of_document("d0"), of_document("d1")]), 8),
        (models.Filter(must_not=[of_document("d0")]), 16),
    ],
)
def test_conditions(client: QdrantClient, collection: str, condition: models.Condition, expected: int) -> None:
    client.upsert(collection, points(20, when="2026-06-01T00:00:00Z"))
    assert client.count(collection, count_filter=models.Filter(must=[condition])).count == expected


def test_scroll_reaches_every_point_once(client: QdrantClient, collection: str) -> None:
    client.upsert(collection, points(25))
    seen: list[Any] = []
    offset: Any = None
    while True:
        page, offset = client.scroll(collection, limit=10, offset=offset, with_payload=["n"])
        seen += [record.payload for record in page]
        if offset is None:
            break
    assert sorted(payload["n"] for payload in seen) == list(range(25))


def test_payload_is_chosen(client: QdrantClient, collection: str) -> None:
    client.upsert(collection, points(1))
    [included] = client.retrieve(collection, ids(1), with_payload=models.PayloadSelectorInclude(include=["n"]))
    [excluded] = client.retrieve(collection, ids(1), with_payload=models.PayloadSelectorExclude(exclude=["n"]))
    assert (included.payload, excluded.payload) == ({"n": 0}, {"document": "d0"})


def test_payload_is_changed(client: QdrantClient, collection: str) -> None:
    client.upsert(collection, points(2))
    client.set_payload(collection, {"a": 1}, points=ids(1))
    client.delete_payload(collection, ["n"], points=ids(1))
    client.overwrite_payload(
        collection, {"b": 2}, points=models.Filter(must=[models.FieldCondition(key="n", match=models.MatchValue(value=1))])
    )
    assert [record.payload for record in client.retrieve(collection, ids(2))] == [{"document": "d0", "a": 1}, {"b": 2}]
    client.clear_payload(collection, points_selector=ids(1))
    assert client.retrieve(collection, ids(1))[0].payload == {}
    with pytest.raises(UnexpectedResponse) as refused:
        client.set_payload(collection, {"a": 1}, points=[str(uuid.uuid4())])
    assert refused.value.status_code == 404


def test_delete_by_filter_and_by_id(client: QdrantClient, collection: str) -> None:
    client.upsert(collection, points(20))
    client.delete(collection, points_selector=models.FilterSelector(filter=of_document("d1")))
    assert client.count(collection).count == 16
    client.delete(collection, points_selector=ids(3))
    assert client.count(collection).count == 14  # one of the three was gone already
    assert client.count(collection, count_filter=of_document("d1")).count == 0


def test_alias_moves_in_one_step(client: QdrantClient, collection: str, collection_name: str) -> None:
    alias = f"{collection_name}-alias"
    create = models.CreateAliasOperation(create_alias=models.CreateAlias(collection_name=collection, alias_name=alias))
    client.update_collection_aliases([create])
    client.upsert(alias, points(2))
    assert client.count(collection).count == 2
    assert [found.alias_name for found in client.get_collection_aliases(collection).aliases] == [alias]
    client.update_collection_aliases([models.DeleteAliasOperation(delete_alias=models.DeleteAlias(alias_name=alias))])
    assert not client.collection_exists(alias)


def test_missing_collection_is_not_found(client: QdrantClient) -> None:
    with pytest.raises(UnexpectedResponse) as refused:
        client.count("nothing-of-that-name")
    assert refused.value.status_code == 404
    assert b"Collection `nothing-of-that-name` doesn't exist!" in refused.value.content
