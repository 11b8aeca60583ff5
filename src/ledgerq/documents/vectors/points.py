"""A chunk as Qdrant stores it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from uuid import UUID

from ledgerq.documents.sparse import SparseVector
from ledgerq.models import Model


class ChunkPayload(Model):
    """What is stored beside a chunk's vectors. `tenant`, `document`, `generation`, `content_hash` and `source` are indexed."""

    tenant: str
    document: UUID
    generation: int
    position: int
    content_hash: str
    """Of text and embedder: equal hashes have equal dense vectors."""
    text: str
    start: int
    end: int
    tokens: int
    uri: str = ""
    title: str | None = None
    source: UUID | None = None
    page: int | None = None
    heading: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Point:
    """A chunk to store."""

    id: UUID
    dense: Sequence[float]
    sparse: SparseVector
    payload: ChunkPayload


@dataclass(frozen=True, slots=True, kw_only=True)
class FoundPoint:
    """A chunk that a search found."""

    id: UUID
    score: float
    """Reciprocal rank fusion as Qdrant computes it: 1 / (2 + rank) summed over the two rankings, ranks from 0; at most 1."""
    payload: ChunkPayload
