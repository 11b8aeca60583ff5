"""Storing, counting, finding and removing the points of documents."""

from __future__ import annotations

import os
import threading
import warnings
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, TypeVar
from urllib.parse import urlsplit
from uuid import UUID

from qdrant_client import QdrantClient, models

from ledgerq.documents.sparse import SparseVector
from ledgerq.documents.vectors import filters
from ledgerq.documents.vectors.collection import SPARSE, require_collection
from ledgerq.documents.vectors.errors import NoCollection, translated
from ledgerq.documents.vectors.points import ChunkPayload, FoundPoint, Point
from ledgerq.errors import InvalidInput

_PAGE: Final = 1_000
"""Ids that one scroll answers."""
_HASHES: Final = 256
"""Hashes asked for at once: their vectors come back, at up to 60 kB each."""
_LOOPBACK: Final = ("127.0.0.1", "localhost", "::1")
"""No wire that a key could be read from."""
_T = TypeVar("_T")


@dataclass(frozen=True, slots=True, kw_only=True)
class VectorSettings:
    url: str
    api_key: str | None = None
    collection: str = "ledgerq"
    timeout_s: int = 30
    """For one request. The client's default of 5 s is too short for a full batch on a busy server."""
    batch: int = 128
    """Points stored by one request: below 10 MB at 3,072 dimensions."""


class VectorDB:
    """The collection of one embedder's chunks. Threads may share it; the client is made when first needed, so after a fork.

    Every method may raise `VectorsUnavailable` (the same call may be repeated), `ConfigurationError` (key refused, or the
    collection is not ours) and `InvalidInput` (the request itself is refused).
    """

    def __init__(self, settings: VectorSettings, *, embedder: str, dimensions: int) -> None:
        """`embedder` names the dense vectors, so that a collection cannot mix those of two models of equal dimensions."""
        self.settings = settings
        self._dense, self._dimensions = embedder, dimensions
        self._lock = threading.Lock()
        self._made: tuple[int, QdrantClient] | None = None
        self._ensured = False

    def ensure_collection(self) -> None:
        """Make the collection and its indexes if they are not there; asked once per process."""
        if not self._ensured:
            require_collection(self._client, self.settings.collection, dense=self._dense, dimensions=self._dimensions)
            self._ensured = True

    def add_documents(self, points: Sequence[Point]) -> int:
        """Store chunks; returns how many. A point that is there already is written again as it was. Acknowledged when durable."""
        for batch in _batches(points, self.settings.batch):
            self._upsert(batch)
        return len(points)

    def existing(self, document: UUID, generation: int) -> set[UUID]:
        """Ids of the points that a generation of a document has now."""
        return {UUID(str(record.id)) for record in self._scroll(filters.of_document(document, generation), fields=[])}

    def existing_of(self, generations: Mapping[UUID, int]) -> dict[UUID, set[UUID]]:
        """Ids of the points of one generation of each document, asked for at once. One without points is an empty set."""
        found: dict[UUID, set[UUID]] = {document: set() for document in generations}
        if found:
            for record in self._scroll(filters.of_generations(generations), fields=["document"]):
                found[UUID((record.payload or {})["document"])].add(UUID(str(record.id)))
        return found

    def short_of(self, wanted: Mapping[UUID, tuple[int, int]]) -> set[UUID]:
        """Of documents with a generation and its number of points each, those that have fewer: one request if there are none."""
        generations = {document: generation for document, (generation, _) in wanted.items()}
        if not wanted or self._count(filters.of_generations(generations)) >= sum(points for _, points in wanted.values()):
            return set()
        return {document for document, ids in self.existing_of(generations).items() if len(ids) < wanted[document][1]}

    def vectors_by_hash(self, document: UUID, generation: int, hashes: Collection[str]) -> dict[str, list[float]]:
        """Dense vectors of a generation's chunks by content hash, for those hashes that it has."""
        found: dict[str, list[float]] = {}
        for batch in _batches(sorted(hashes), _HASHES):
            chosen = filters.of_hashes(document, generation, batch)
            for record in self._scroll(chosen, fields=["content_hash"], vectors=True, page=_HASHES):
                vector = record.vector.get(self._dense) if isinstance(record.vector, dict) else None
                if isinstance(vector, list):
                    found[(record.payload or {})["content_hash"]] = [float(value) for value in vector if isinstance(value, float | int)]
        return found

    def count(self, *, document: UUID | None = None, generation: int | None = None) -> int:
        """Points of a document, of one of its generations, or of all."""
        return self._count(None if document is None else filters.of_document(document, generation))

    def delete_generation(self, document: UUID, generation: int) -> int:
        """Remove a generation's points; returns how many are left, which is 0 unless somebody is storing them right now."""
        self._delete(models.FilterSelector(filter=filters.of_document(document, generation)))
        return self.count(document=document, generation=generation)

    def delete_document(self, document: UUID) -> int:
        """Remove all points of a document; returns how many are left."""
        self._delete(models.FilterSelector(filter=filters.of_document(document)))
        return self.count(document=document)

    def delete_points(self, points: Collection[UUID]) -> None:
        for batch in _batches(sorted(points), _PAGE):
            self._delete(models.PointIdsList(points=[str(point) for point in batch]))

    def search(
        self, *, dense: Sequence[float], sparse: SparseVector, tenant: str, limit: int, source: UUID | None = None
    ) -> list[FoundPoint]:
        """The best chunks of a tenant by meaning and by words, fused by rank. Without a collection there are none."""
        chosen = filters.of_tenant(tenant, source)
        words = models.SparseVector(indices=list(sparse.indices), values=list(sparse.values))
        # The filter is in every prefetch: one on the outside alone would be applied after the best of all tenants were taken.
        prefetch = [models.Prefetch(query=list(dense), using=self._dense, filter=chosen, limit=limit)]
        if sparse.indices:
            prefetch.append(models.Prefetch(query=words, using=SPARSE, filter=chosen, limit=limit))
        fusion = models.FusionQuery(fusion=models.Fusion.RRF)
        try:
            with translated("searching"):
                answer = self._client.query_points(
                    self.settings.collection, prefetch=prefetch, query=fusion, query_filter=chosen, limit=limit, with_payload=True
                )
        except NoCollection:
            return []
        except InvalidInput:
            # Most often the vectors are of another embedder; that says so by name.
            require_collection(self._client, self.settings.collection, dense=self._dense, dimensions=self._dimensions)
            raise
        return [_found(point) for point in answer.points]

    def close(self) -> None:
        """Close the connections. The object may be used again."""
        with self._lock:
            made, self._made, self._ensured = self._made, None, False
        if made is not None and made[0] == os.getpid():
            made[1].close()

    @property
    def _client(self) -> QdrantClient:
        with self._lock:
            if self._made is None or self._made[0] != os.getpid():
                self._made = (os.getpid(), self._connect())
            return self._made[1]

    def _connect(self) -> QdrantClient:
        settings = self.settings
        local = urlsplit(settings.url).hostname in _LOOPBACK
        with warnings.catch_warnings():
            if local:
                warnings.filterwarnings("ignore", "Api key is used with an insecure connection")
            # The compatibility check is a request from a thread of its own, at a moment that nobody chose.
            # No proxy that the environment names reaches a server of this machine.
            return QdrantClient(
                url=settings.url, api_key=settings.api_key, timeout=settings.timeout_s, check_compatibility=False, trust_env=not local
            )

    def _struct(self, point: Point) -> models.PointStruct:
        sparse = models.SparseVector(indices=list(point.sparse.indices), values=list(point.sparse.values))
        return models.PointStruct(
            id=str(point.id), vector={self._dense: list(point.dense), SPARSE: sparse}, payload=point.payload.model_dump(mode="json")
        )

    def _count(self, chosen: models.Filter | None) -> int:
        try:
            with translated("counting points"):
                return self._client.count(self.settings.collection, count_filter=chosen, exact=True).count
        except NoCollection:
            self._ensured = False  # dropped: whoever stores next makes it again
            return 0

    def _delete(self, selector: models.FilterSelector | models.PointIdsList) -> None:
        try:
            with translated("removing points"):
                self._client.delete(self.settings.collection, points_selector=selector, wait=True)
        except NoCollection:
            return

    def _upsert(self, points: Sequence[Point]) -> None:
        try:
            with translated(f"storing {len(points)} points"):
                self._client.upsert(self.settings.collection, [self._struct(point) for point in points], wait=True)
        except NoCollection:
            self._ensured = False
            raise

    def _scroll(self, chosen: models.Filter, *, fields: list[str], vectors: bool = False, page: int = _PAGE) -> Iterator[models.Record]:
        offset: Any = None
        while True:
            try:
                with translated("reading points"):
                    records, offset = self._client.scroll(
                        self.settings.collection,
                        scroll_filter=chosen,
                        limit=page,
                        offset=offset,
                        with_payload=fields or False,
                        with_vectors=[self._dense] if vectors else False,
                    )
            except NoCollection:
                self._ensured = False
                return
            yield from records
            if offset is None:
                return


def _found(point: models.ScoredPoint) -> FoundPoint:
    return FoundPoint(id=UUID(str(point.id)), score=point.score, payload=ChunkPayload.model_validate(point.payload or {}))


def _batches(items: Sequence[_T], size: int) -> Iterator[Sequence[_T]]:
    return (items[start : start + size] for start in range(0, len(items), size))
