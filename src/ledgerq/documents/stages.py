"""What is done for one document, step by step. Nothing here knows of the other documents, or of tasks and outcomes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from hashlib import sha256
from typing import Final
from uuid import UUID

from ledgerq.documents.chunk import Chunk, Chunker
from ledgerq.documents.digest import config_digest, content_hash, manifest_digest, point_id
from ledgerq.documents.embed import Embedder, Vector
from ledgerq.documents.load import EmptyDocument, Loader, loader_versions
from ledgerq.documents.load.model import shortened
from ledgerq.documents.ports import Blobs
from ledgerq.documents.sparse import Bm25
from ledgerq.documents.vectors import ChunkPayload, Point, VectorDB
from ledgerq.errors import ConfigurationError, DocumentError
from ledgerq.models import DocumentWork

_COPIED_AT_ONCE: Final = 256
"""Chunks whose vectors are in memory while they are copied."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Prepared:
    """A document as chunks, with what identifies its points. The text itself is let go."""

    work: DocumentWork
    chunks: tuple[Chunk, ...]
    ids: tuple[UUID, ...]
    """Of each chunk's point."""
    hashes: tuple[str, ...]
    title: str | None = None
    content_type: str | None = None
    pages: int | None = None

    @property
    def digest(self) -> str:
        return manifest_digest(self.ids)

    @property
    def tokens(self) -> int:
        return sum(chunk.tokens for chunk in self.chunks)


@dataclass(frozen=True, slots=True)
class Plan:
    """Which points are there, which were copied, and which are still to be made (positions)."""

    kept: int
    reused: int
    missing: tuple[int, ...]
    saved_tokens: int = 0
    """Of the copied ones: they need not be embedded."""


@dataclass(frozen=True, kw_only=True)
class Stages:
    """The parts that the steps use. Threads may share it; `prepare` is for one thread at a time."""

    blobs: Blobs
    loader: Loader
    chunker: Chunker
    embedder: Embedder
    vectors: VectorDB
    sparse: Bm25 = field(default_factory=Bm25)

    def __post_init__(self) -> None:
        if self.chunker.settings.max_tokens > self.embedder.max_tokens:
            wanted, most = self.chunker.settings.max_tokens, self.embedder.max_tokens
            raise ConfigurationError(f"chunks of {wanted} tokens are too long for {self.embedder.name}, which takes {most}")

    @cached_property
    def config_digest(self) -> str:
        """See `digest.config_digest`."""
        return config_digest(
            loader=loader_versions(),
            chunker=self.chunker,
            embedder=self.embedder.name,
            sparse=self.sparse.name,
            collection=self.vectors.settings.collection,
        )

    def prepare(self, work: DocumentWork) -> Prepared:
        """Read, load and chunk. A document that has lost its text since it was indexed has no chunks.

        Raises:
            DocumentError: it can never be processed as it is.
            ServiceUnavailable, OSError: its bytes cannot be had now.
        """
        data = self.blobs.read(work, max_bytes=self.loader.limits.max_bytes)
        _check_content(data, work)
        try:
            loaded = self.loader.load(data, uri=work.uri, content_type=work.content_type)
        except EmptyDocument:
            if work.live is None:
                raise
            return Prepared(work=work, chunks=(), ids=(), hashes=())
        del data
        chunks = tuple(self.chunker.process_document(loaded))
        pages = loaded.metadata.get("pages")
        return Prepared(
            work=work,
            chunks=chunks,
            ids=tuple(self._point_id(work, chunk.position) for chunk in chunks),
            hashes=tuple(content_hash(chunk.text, embedder=self.embedder.name) for chunk in chunks),
            title=shortened(work.title or loaded.title or "") or None,
            content_type=loaded.content_type,
            pages=pages if isinstance(pages, int) else None,
        )

    def plan(self, prepared: Prepared, existing: set[UUID]) -> Plan:
        """Copy the vectors of unchanged chunks from the live generation, and say what is still to be embedded.

        `existing` are the points that an earlier try stored. Those that no chunk has now are removed: none of ours can
        have them, and a generation must have exactly the points of its manifest.
        """
        stray = existing.difference(prepared.ids)
        if stray:
            self.vectors.delete_points(stray)
        absent = [position for position, point in enumerate(prepared.ids) if point not in existing]
        copied = self._copy(prepared, absent)
        missing = tuple(position for position in absent if position not in copied)
        saved = sum(prepared.chunks[position].tokens for position in copied)
        return Plan(kept=len(prepared.chunks) - len(absent), reused=len(copied), missing=missing, saved_tokens=saved)

    def store(self, made: Sequence[tuple[Prepared, int, Vector]]) -> None:
        """Store the points of chunks (document, position, vector), of any number of documents."""
        self.vectors.add_documents([self._point(prepared, position, vector) for prepared, position, vector in made])

    def close(self) -> None:
        """Close the parser process and all connections. The stages may be used again."""
        for part in (self.loader, self.embedder, self.vectors):
            part.close()

    def _copy(self, prepared: Prepared, absent: Sequence[int]) -> set[int]:
        live = prepared.work.live
        copied: set[int] = set()
        if live is None or not live.points or live.generation == prepared.work.generation:
            return copied
        for positions in _slices(absent, _COPIED_AT_ONCE):
            known = self.vectors.vectors_by_hash(
                prepared.work.document, live.generation, {prepared.hashes[position] for position in positions}
            )
            found = [position for position in positions if prepared.hashes[position] in known]
            self.store([(prepared, position, known[prepared.hashes[position]]) for position in found])
            copied.update(found)
        return copied

    def _point(self, prepared: Prepared, position: int, vector: Vector) -> Point:
        chunk, work = prepared.chunks[position], prepared.work
        return Point(
            id=prepared.ids[position],
            dense=vector,
            sparse=self.sparse.document(chunk.text),
            payload=ChunkPayload(
                tenant=work.tenant,
                document=work.document,
                generation=work.generation,
                position=position,
                content_hash=prepared.hashes[position],
                text=chunk.text,
                start=chunk.start,
                end=chunk.end,
                tokens=chunk.tokens,
                uri=work.uri,
                title=prepared.title,
                source=work.source,
                page=chunk.page,
                heading=chunk.heading,
            ),
        )

    def _point_id(self, work: DocumentWork, position: int) -> UUID:
        return point_id(
            tenant=work.tenant, document=work.document, generation=work.generation, position=position, config=self.config_digest
        )


def _check_content(data: bytes, work: DocumentWork) -> None:
    """Points of other bytes than the ledger knows would be wrong under this revision, and differ between two tries."""
    if work.content_hash and sha256(data).hexdigest() != work.content_hash:
        raise DocumentError(f"{work.uri}: its content has changed since it was saved; save it again")


def _slices(items: Sequence[int], size: int) -> Iterator[Sequence[int]]:
    return (items[start : start + size] for start in range(0, len(items), size))
