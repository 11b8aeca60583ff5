"""The requests that the vector server understands, in the words of Qdrant's REST API.

Strict: a field that is not listed here is refused with its name, so that nothing is silently ignored. Fields that only
tune the speed or the placement of data are listed and have no effect.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal, Self
from uuid import UUID

from pydantic import BaseModel, ConfigDict, Field, FiniteFloat, model_validator

MAX_DIMENSIONS = 65_536
MAX_LIMIT = 100_000


class Request(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


class SparseVector(Request):
    indices: list[Annotated[int, Field(ge=0, lt=2**32)]]
    values: list[FiniteFloat]

    @model_validator(mode="after")
    def _paired(self) -> Self:
        if len(self.indices) != len(self.values):
            raise ValueError(f"{len(self.indices)} indices, but {len(self.values)} values")
        if len(set(self.indices)) != len(self.indices):
            raise ValueError("indices must be unique")
        return self


PointId = Annotated[int, Field(ge=0, lt=2**64)] | UUID
DenseVector = list[FiniteFloat]
NamedVectors = dict[str, DenseVector | SparseVector]
Tuning = dict[str, Any] | None
Payload = dict[str, Any]


# Collections -----------------------------------------------------------------------------------------------------
class VectorParams(Request):
    size: int = Field(ge=1, le=MAX_DIMENSIONS)
    distance: Literal["Cosine", "Dot", "Euclid", "Manhattan"]
    datatype: Literal["float32"] | None = None
    on_disk: bool | None = None
    hnsw_config: Tuning = None
    quantization_config: Tuning = None


class SparseVectorParams(Request):
    modifier: Literal["idf", "none"] | None = None
    index: Tuning = None


class CreateCollection(Request):
    vectors: VectorParams | dict[str, VectorParams] = Field(default_factory=dict[str, VectorParams])
    sparse_vectors: dict[str, SparseVectorParams] | None = None
    on_disk_payload: bool | None = None
    shard_number: Literal[1] | None = None
    replication_factor: Literal[1] | None = None
    write_consistency_factor: Literal[1] | None = None
    hnsw_config: Tuning = None
    wal_config: Tuning = None
    optimizers_config: Tuning = None
    quantization_config: Tuning = None

    @property
    def dense(self) -> dict[str, VectorParams]:
        """By name; the unnamed one is called ''."""
        return {"": self.vectors} if isinstance(self.vectors, VectorParams) else self.vectors

    @property
    def sparse(self) -> dict[str, SparseVectorParams]:
        return self.sparse_vectors or {}

    @model_validator(mode="after")
    def _has_vectors(self) -> Self:
        if not self.dense and not self.sparse:
            raise ValueError("a collection needs at least one vector")
        return self


IndexType = Literal["keyword", "integer", "float", "bool", "datetime", "uuid", "text"]


class IndexParams(Request):
    type: IndexType
    is_tenant: bool | None = None
    is_principal: bool | None = None
    on_disk: bool | None = None
    lookup: bool | None = None
    range: bool | None = None
    enable_hnsw: bool | None = None


class CreateIndex(Request):
    field_name: str = Field(min_length=1)
    field_schema: IndexType | IndexParams


class AliasTarget(Request):
    collection_name: str
    alias_name: str


class AliasName(Request):
    alias_name: str


class AliasRename(Request):
    old_alias_name: str
    new_alias_name: str


class CreateAlias(Request):
    create_alias: AliasTarget


class DeleteAlias(Request):
    delete_alias: AliasName


class RenameAlias(Request):
    rename_alias: AliasRename


class ChangeAliases(Request):
    actions: list[CreateAlias | DeleteAlias | RenameAlias]


# Filters ---------------------------------------------------------------------------------------------------------
class MatchValue(Request):
    value: bool | int | str


class MatchAny(Request):
    any: list[str] | list[int]


class MatchExcept(Request):
    except_: list[str] | list[int] = Field(alias="except")


class MatchText(Request):
    text: str


class Range(Request):
    gt: FiniteFloat | None = None
    gte: FiniteFloat | None = None
    lt: FiniteFloat | None = None
    lte: FiniteFloat | None = None


class DatetimeRange(Request):
    gt: str | None = None
    gte: str | None = None
    lt: str | None = None
    lte: str | None = None


class FieldCondition(Request):
    key: str
    match: MatchValue | MatchAny | MatchExcept | MatchText | None = None
    range: Range | DatetimeRange | None = None
    is_empty: bool | None = None
    is_null: bool | None = None

    @model_validator(mode="after")
    def _says_something(self) -> Self:
        given = [self.match, self.range, self.is_empty, self.is_null]
        if all(part is None for part in given):
            raise ValueError("one of match, range, is_empty, is_null is needed")
        return self


class PayloadField(Request):
    key: str


class IsEmptyCondition(Request):
    is_empty: PayloadField


class IsNullCondition(Request):
    is_null: PayloadField


class HasIdCondition(Request):
    has_id: list[PointId]


class Filter(Request):
    must: list[Condition] | Condition | None = None
    should: list[Condition] | Condition | None = None
    must_not: list[Condition] | Condition | None = None


Condition = FieldCondition | IsEmptyCondition | IsNullCondition | HasIdCondition | Filter


# Reading ---------------------------------------------------------------------------------------------------------
class Include(Request):
    include: list[str]


class Exclude(Request):
    exclude: list[str]


WithPayload = bool | list[str] | Include | Exclude | None
WithVector = bool | list[str] | None
Limit = Annotated[int, Field(ge=1, le=MAX_LIMIT)]


class NearestQuery(Request):
    nearest: DenseVector | SparseVector


class FusionQuery(Request):
    fusion: Literal["rrf", "dbsf"]


class Rrf(Request):
    k: int | None = Field(default=None, ge=1)
    weights: list[FiniteFloat] | None = None


class RrfQuery(Request):
    rrf: Rrf


Query = DenseVector | SparseVector | NearestQuery | FusionQuery | RrfQuery


class SearchParams(Request):
    hnsw_ef: int | None = None
    exact: bool | None = None
    indexed_only: bool | None = None
    quantization: Tuning = None


class Prefetch(Request):
    prefetch: list[Prefetch] | Prefetch | None = None
    query: Query | None = None
    using: str | None = None
    filter: Filter | None = None
    params: SearchParams | None = None
    score_threshold: FiniteFloat | None = None
    limit: Limit | None = None


class QueryPoints(Request):
    prefetch: list[Prefetch] | Prefetch | None = None
    query: Query | None = None
    using: str | None = None
    filter: Filter | None = None
    params: SearchParams | None = None
    score_threshold: FiniteFloat | None = None
    limit: Limit | None = None
    offset: int | None = Field(default=None, ge=0, le=MAX_LIMIT)
    with_vector: WithVector = None
    with_payload: WithPayload = None


class QueryBatch(Request):
    searches: list[QueryPoints]


class ScrollPoints(Request):
    offset: PointId | None = None
    limit: Limit | None = None
    filter: Filter | None = None
    with_payload: WithPayload = None
    with_vector: WithVector = None


class RetrievePoints(Request):
    ids: list[PointId]
    with_payload: WithPayload = None
    with_vector: WithVector = None


class CountPoints(Request):
    filter: Filter | None = None
    exact: bool | None = None


# Writing ---------------------------------------------------------------------------------------------------------
class PointStruct(Request):
    id: PointId
    vector: DenseVector | NamedVectors
    payload: Payload | None = None


class Upsert(Request):
    points: list[PointStruct]
    update_filter: Filter | None = None
    update_mode: Literal["upsert", "insert_only", "update_only"] | None = None


class Batch(Request):
    ids: list[PointId]
    vectors: list[DenseVector] | dict[str, list[DenseVector | SparseVector]]
    payloads: list[Payload | None] | None = None

    @model_validator(mode="after")
    def _same_length(self) -> Self:
        columns = list(self.vectors.values()) if isinstance(self.vectors, dict) else [self.vectors]
        lengths = {len(self.ids), *map(len, columns), *([len(self.payloads)] if self.payloads is not None else [])}
        if len(lengths) != 1:
            raise ValueError("ids, vectors and payloads differ in length")
        return self


class UpsertBatch(Request):
    batch: Batch
    update_filter: Filter | None = None
    update_mode: Literal["upsert", "insert_only", "update_only"] | None = None


class Selection(Request):
    points: list[PointId] | None = None
    filter: Filter | None = None

    @model_validator(mode="after")
    def _exactly_one(self) -> Self:
        if (self.points is None) == (self.filter is None):
            raise ValueError("either points or filter is needed")
        return self


class SetPayload(Selection):
    payload: Payload
    key: str | None = None


class DeletePayload(Selection):
    keys: list[str]
