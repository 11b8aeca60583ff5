"""One collection: its shard, what was asked for when it was made, and the operations on it."""

from __future__ import annotations

import shutil
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import qdrant_edge as edge

from ledgerq.local.vectors import requests as rq
from ledgerq.local.vectors import translate
from ledgerq.local.vectors.errors import Refusal, no_space, wrong_input
from ledgerq.local.vectors.translate import Json

SPACE_KEPT = 64 * 1024 * 1024
"""Bytes that must be free before a write. The engine writes through memory maps, where a full disk is a SIGBUS."""
FLUSH_EVERY = 256
"""Operations after which the engine writes its segments out, a tenth of a second, and lets go of its log of them. What was deleted
leaves the segments only when they are optimised: that blocks all requests for seconds to minutes, and is not done."""
MODES = {
    "upsert": edge.UpdateMode.Upsert,
    "insert_only": edge.UpdateMode.InsertOnly,
    "update_only": edge.UpdateMode.UpdateOnly,
}


@dataclass(slots=True)
class Collection:
    """Every request is checked before the engine sees it: a bad one would be in its write-ahead log already."""

    directory: Path
    settings: rq.CreateCollection
    shard: edge.EdgeShard
    _operations: int = field(default=0, init=False)

    def close(self) -> None:
        with engine():
            try:
                self.shard.flush()
            finally:
                self.shard.close()

    # Writing -----------------------------------------------------------------------------------------------------
    def upsert(self, request: rq.Upsert | rq.UpsertBatch) -> Json:
        self._check_vectors(request)
        points = translate.points_of(request)
        if not points:
            raise wrong_input("no points")
        condition, mode = translate.filter_of(request.update_filter), request.update_mode
        operation = edge.UpdateOperation.upsert_points(points, condition, MODES[mode] if mode else None)
        return self._update(operation)

    def delete(self, request: rq.Selection) -> Json:
        if request.points is not None:
            return self._update(edge.UpdateOperation.delete_points(list(request.points)))
        return self._update(edge.UpdateOperation.delete_points_by_filter(_required(request.filter)))

    def set_payload(self, request: rq.SetPayload) -> Json:
        kind = edge.UpdateOperation
        if request.points is not None:
            return self._update(kind.set_payload(list(request.points), request.payload, request.key))
        return self._update(kind.set_payload_by_filter(_required(request.filter), request.payload, request.key))

    def overwrite_payload(self, request: rq.SetPayload) -> Json:
        kind = edge.UpdateOperation
        if request.points is not None:
            return self._update(kind.overwrite_payload(list(request.points), request.payload, request.key))
        return self._update(kind.overwrite_payload_by_filter(_required(request.filter), request.payload, request.key))

    def delete_payload(self, request: rq.DeletePayload) -> Json:
        if request.points is not None:
            return self._update(edge.UpdateOperation.delete_payload(list(request.points), request.keys))
        return self._update(edge.UpdateOperation.delete_payload_by_filter(_required(request.filter), request.keys))

    def clear_payload(self, request: rq.Selection) -> Json:
        if request.points is not None:
            return self._update(edge.UpdateOperation.clear_payload(list(request.points)))
        return self._update(edge.UpdateOperation.clear_payload_by_filter(_required(request.filter)))

    def create_index(self, request: rq.CreateIndex) -> Json:
        operation = edge.UpdateOperation.create_field_index(request.field_name, translate.index_schema(request))
        return self._update(operation)

    def delete_index(self, field_name: str) -> Json:
        return self._update(edge.UpdateOperation.delete_field_index(field_name))

    # Reading -----------------------------------------------------------------------------------------------------
    def query(self, request: rq.QueryPoints) -> Json:
        with engine():
            points = self.shard.query(translate.query_of(request))
        return {"points": [translate.scored_json(point) for point in points]}

    def query_batch(self, request: rq.QueryBatch) -> list[Json]:
        return [self.query(one) for one in request.searches]

    def scroll(self, request: rq.ScrollPoints) -> Json:
        with engine():
            records, following = self.shard.scroll(translate.scroll_of(request))
        return {
            "points": [translate.record_json(record) for record in records],
            "next_page_offset": None if following is None else translate.id_json(following),
        }

    def retrieve(self, request: rq.RetrievePoints) -> list[Json]:
        payload = translate.with_payload(request.with_payload, default=True)
        with engine():
            records = self.shard.retrieve(list(request.ids), payload, translate.with_vector(request.with_vector))
        return [translate.record_json(record) for record in records]

    def count(self, request: rq.CountPoints) -> Json:
        exact = True if request.exact is None else request.exact
        with engine():
            return {"count": self.shard.count(edge.CountRequest(exact=exact, filter=translate.filter_of(request.filter)))}

    def info(self) -> Json:
        with engine():
            info = self.shard.info()
        schema = {key: _index_json(index) for key, index in info.payload_schema.items()}
        return {
            "status": "green",
            "optimizer_status": "ok",
            "indexed_vectors_count": info.indexed_vectors_count,
            "points_count": info.points_count,
            "segments_count": info.segments_count,
            "payload_schema": schema,
            "config": _config_json(self.settings),
        }

    def _update(self, operation: Any) -> Json:
        free = shutil.disk_usage(self.directory).free
        if free < SPACE_KEPT:
            raise no_space(free)
        with engine():
            self.shard.update(operation)
            self._operations += 1
            if self._operations % FLUSH_EVERY == 0:
                self.shard.flush()
        return {"operation_id": self._operations, "status": "completed"}

    def _check_vectors(self, request: rq.Upsert | rq.UpsertBatch) -> None:
        if isinstance(request, rq.Upsert):
            for point in request.points:
                self._check_row(point.vector)
        elif isinstance(request.batch.vectors, dict):
            for name, column in request.batch.vectors.items():
                for vector in column:
                    self._check_row({name: vector})
        else:
            for vector in request.batch.vectors:
                self._check_row(vector)

    def _check_row(self, given: rq.DenseVector | rq.NamedVectors) -> None:
        for name, vector in given.items() if isinstance(given, dict) else [("", given)]:
            if isinstance(vector, rq.SparseVector):
                if name not in self.settings.sparse:
                    raise wrong_input(f"Not existing vector name error: {name}")
                continue
            wanted = self.settings.dense.get(name)
            if wanted is None:
                raise wrong_input(f"Not existing vector name error: {name}")
            if len(vector) != wanted.size:
                raise wrong_input(f"Vector dimension error: expected dim: {wanted.size}, got {len(vector)}")


@contextmanager
def engine() -> Generator[None]:
    """Failures of the engine as refusals. It raises bare exceptions, so their texts are all there is to tell them by."""
    try:
        yield
    except Refusal:
        raise
    except (TypeError, ValueError, OverflowError) as error:
        raise wrong_input(str(error)) from error
    except Exception as error:
        raise _refusal(str(error)) from error
    except BaseException as error:
        # A panic in Rust arrives as a BaseException of a type that cannot be imported; anything else goes on.
        if type(error).__name__ != "PanicException":
            raise
        raise Refusal(500, f"Service internal error: {error}") from error


def _refusal(text: str) -> Refusal:
    if text.startswith("No point with id"):
        return Refusal(404, f"Not found: {text} found")
    if text.startswith("Service runtime error"):
        return Refusal(500, text)
    return wrong_input(text)


def _required(request: rq.Filter | None) -> edge.Filter:
    found = translate.filter_of(request)
    if found is None:
        raise wrong_input("either points or filter is needed")
    return found


def _index_json(index: edge.PayloadIndexInfo) -> Json:
    kind = str(index.data_type).rpartition(".")[2].lower()
    return {"data_type": kind, "points": index.points}


def _config_json(settings: rq.CreateCollection) -> Json:
    """What was asked for, and Qdrant's defaults where its clients insist on a value."""
    params = settings.model_dump(mode="json", include={"vectors", "sparse_vectors"}, exclude_none=True)
    return {
        "params": params | {"shard_number": 1, "replication_factor": 1, "write_consistency_factor": 1, "on_disk_payload": True},
        "hnsw_config": {"m": 16, "ef_construct": 100, "full_scan_threshold": 10_000},
        "optimizer_config": {
            "deleted_threshold": 0.2,
            "vacuum_min_vector_number": 1000,
            "default_segment_number": 0,
            "flush_interval_sec": 5,
        },
        "wal_config": {"wal_capacity_mb": 32, "wal_segments_ahead": 0},
    }
