"""From requests to the engine's types, and from its answers to JSON."""

from __future__ import annotations

from typing import Any, cast
from uuid import UUID

import qdrant_edge as edge

from ledgerq.local.vectors import requests as rq
from ledgerq.local.vectors.errors import wrong_input

Json = dict[str, Any]
DISTANCES = {
    "Cosine": edge.Distance.Cosine,
    "Dot": edge.Distance.Dot,
    "Euclid": edge.Distance.Euclid,
    "Manhattan": edge.Distance.Manhattan,
}
RRF_K = 2
"""Qdrant's own when a request names none."""
DEFAULT_LIMIT = 10


# Configuration ---------------------------------------------------------------------------------------------------
def shard_config(request: rq.CreateCollection) -> edge.EdgeConfig:
    dense = {name: edge.EdgeVectorParams(size=v.size, distance=DISTANCES[v.distance]) for name, v in request.dense.items()}
    sparse = {
        name: edge.EdgeSparseVectorParams(modifier=edge.Modifier.Idf if params.modifier == "idf" else None)
        for name, params in request.sparse.items()
    }
    return edge.EdgeConfig(vectors=dense or None, sparse_vectors=sparse or None)


def index_schema(request: rq.CreateIndex) -> Any:
    schema = request.field_schema
    kind = schema if isinstance(schema, str) else schema.type
    if isinstance(schema, rq.IndexParams) and kind == "keyword":
        return edge.KeywordIndexParams(is_tenant=schema.is_tenant, on_disk=schema.on_disk)
    return getattr(edge.PayloadSchemaType, kind.capitalize())


# Filters ---------------------------------------------------------------------------------------------------------
def filter_of(request: rq.Filter | None) -> edge.Filter | None:
    if request is None:
        return None
    return edge.Filter(must=_conditions(request.must), should=_conditions(request.should), must_not=_conditions(request.must_not))


def _conditions(given: list[rq.Condition] | rq.Condition | None) -> list[Any] | None:
    if given is None:
        return None
    return [_condition(condition) for condition in (given if isinstance(given, list) else [given])]


def _condition(condition: rq.Condition) -> Any:
    match condition:
        case rq.HasIdCondition(has_id=ids):
            return edge.HasIdCondition(set(ids))
        case rq.IsEmptyCondition(is_empty=field):
            return edge.IsEmptyCondition(field.key)
        case rq.IsNullCondition(is_null=field):
            return edge.IsNullCondition(field.key)
        case rq.FieldCondition():
            return _field_condition(condition)
        case rq.Filter():
            return filter_of(condition)


def _field_condition(condition: rq.FieldCondition) -> edge.FieldCondition:
    return edge.FieldCondition(
        key=condition.key,
        match=_match(condition.match),
        range=_range(condition.range),
        is_empty=condition.is_empty,
        is_null=condition.is_null,
    )


def _match(match: rq.MatchValue | rq.MatchAny | rq.MatchExcept | rq.MatchText | None) -> Any:
    if match is None:
        return None
    match match:
        case rq.MatchValue(value=value):
            return edge.MatchValue(value)
        case rq.MatchAny(any=values):
            return edge.MatchAny(values)
        case rq.MatchExcept(except_=values):
            return edge.MatchExcept(values)
        case rq.MatchText(text=text):
            return edge.MatchText(text)


def _range(given: rq.Range | rq.DatetimeRange | None) -> Any:
    if given is None:
        return None
    kind = edge.RangeFloat if isinstance(given, rq.Range) else edge.RangeDateTime
    return kind(gt=given.gt, gte=given.gte, lt=given.lt, lte=given.lte)  # pyright: ignore[reportArgumentType] one kind each


# Points ----------------------------------------------------------------------------------------------------------
def points_of(request: rq.Upsert | rq.UpsertBatch) -> list[edge.Point]:
    if isinstance(request, rq.Upsert):
        return [edge.Point(point.id, _vectors(point.vector), point.payload) for point in request.points]
    batch = request.batch
    payloads = batch.payloads or [None] * len(batch.ids)
    return [
        edge.Point(point_id, _vectors(_row(batch.vectors, at)), payload)
        for at, (point_id, payload) in enumerate(zip(batch.ids, payloads, strict=True))
    ]


def _row(vectors: list[rq.DenseVector] | dict[str, list[rq.DenseVector | rq.SparseVector]], at: int) -> Any:
    return {name: column[at] for name, column in vectors.items()} if isinstance(vectors, dict) else vectors[at]


def _vectors(given: rq.DenseVector | rq.NamedVectors) -> Any:
    return {name: vector_of(vector) for name, vector in given.items()} if isinstance(given, dict) else given


def vector_of(given: rq.DenseVector | rq.SparseVector) -> Any:
    return edge.SparseVector(given.indices, given.values) if isinstance(given, rq.SparseVector) else given


def record_json(record: edge.Record) -> Json:
    return {"id": id_json(record.id), "payload": record.payload, "vector": _vector_json(record.vector)}


def scored_json(point: edge.ScoredPoint) -> Json:
    return {
        "id": id_json(point.id),
        "version": point.version,
        "score": point.score,
        "payload": point.payload,
        "vector": _vector_json(point.vector),
    }


def id_json(point_id: int | str | UUID) -> int | str:
    return point_id if isinstance(point_id, int) else str(point_id)


def _vector_json(vector: Any) -> Any:
    if isinstance(vector, edge.SparseVector):
        return {"indices": vector.indices, "values": vector.values}
    if isinstance(vector, dict):
        named = {name: _vector_json(value) for name, value in cast("dict[str, Any]", vector).items()}
        return named[""] if set(named) == {""} else named  # the unnamed vector stands alone
    return vector


# Queries ---------------------------------------------------------------------------------------------------------
def query_of(request: rq.QueryPoints) -> edge.QueryRequest:
    return edge.QueryRequest(
        limit=request.limit or DEFAULT_LIMIT,
        offset=request.offset or 0,
        query=_query(request.query, request.using),
        prefetches=_prefetches(request.prefetch),
        filter=filter_of(request.filter),
        score_threshold=request.score_threshold,
        params=_params(request.params),
        with_vector=with_vector(request.with_vector),
        with_payload=with_payload(request.with_payload, default=False),
    )


def scroll_of(request: rq.ScrollPoints) -> edge.ScrollRequest:
    return edge.ScrollRequest(
        offset=request.offset,
        limit=request.limit or DEFAULT_LIMIT,
        filter=filter_of(request.filter),
        with_payload=with_payload(request.with_payload, default=True),
        with_vector=with_vector(request.with_vector),
    )


def with_payload(given: rq.WithPayload, *, default: bool) -> Any:
    match given:
        case None:
            return default
        case rq.Include(include=keys):
            return edge.PayloadSelector.Include(keys)
        case rq.Exclude(exclude=keys):
            return edge.PayloadSelector.Exclude(keys)
        case _:
            return given


def with_vector(given: rq.WithVector) -> bool | list[str]:
    return False if given is None else given


def _prefetches(given: list[rq.Prefetch] | rq.Prefetch | None) -> list[edge.Prefetch] | None:
    if not given:
        return None
    return [_prefetch(one) for one in (given if isinstance(given, list) else [given])]


def _prefetch(request: rq.Prefetch) -> edge.Prefetch:
    return edge.Prefetch(
        limit=request.limit or DEFAULT_LIMIT,
        query=_query(request.query, request.using),
        prefetches=_prefetches(request.prefetch),
        filter=filter_of(request.filter),
        params=_params(request.params),
        score_threshold=request.score_threshold,
    )


def _query(query: rq.Query | None, using: str | None) -> Any:
    match query:
        case None:
            return None
        case rq.FusionQuery(fusion=kind):
            return edge.Fusion.Rrf(k=RRF_K) if kind == "rrf" else edge.Fusion.Dbsf()
        case rq.RrfQuery(rrf=rrf):
            return edge.Fusion.Rrf(k=rrf.k or RRF_K, weights=rrf.weights)
        case rq.NearestQuery(nearest=vector):
            return _nearest(vector, using)
        case _:
            return _nearest(query, using)


def _nearest(vector: rq.DenseVector | rq.SparseVector, using: str | None) -> Any:
    if not isinstance(vector, rq.SparseVector) and not vector:
        raise wrong_input("the query vector is empty")
    return edge.Query.Nearest(vector_of(vector), using=using)


def _params(params: rq.SearchParams | None) -> edge.SearchParams | None:
    if params is None:
        return None
    return edge.SearchParams(hnsw_ef=params.hnsw_ef, exact=bool(params.exact), indexed_only=bool(params.indexed_only))
