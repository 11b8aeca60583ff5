"""Searching what is live.

Qdrant also holds points of generations that are being written or were replaced. So the ledger's time is taken first, and a hit
counts if its generation was the live one at that time: replaced points stay for `reader_grace` after their time, so nobody
sees half a document, two versions of one, or a hole.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final
from uuid import UUID

from ledgerq.documents.clean import clean
from ledgerq.documents.embed import Embedder, Vector
from ledgerq.documents.ports import DocumentLedger
from ledgerq.documents.snippets import snippet_of
from ledgerq.documents.sparse import Bm25
from ledgerq.documents.tokens import Cl100k
from ledgerq.documents.vectors import FoundPoint, VectorDB
from ledgerq.errors import InvalidInput
from ledgerq.models import LiveGeneration

MOST_HITS: Final = 200
_OVERFETCH: Final = 3
_WIDER: Final = 4
_DEEPEST: Final = 2_000
"""Points asked for at most, when many that are found are not live."""
_ROUNDS: Final = 6
_ASKED_AT_ONCE: Final = 1_000
"""Documents in one question to the ledger."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Hit:
    """A chunk that answers."""

    uri: str
    document_id: UUID
    chunk_id: UUID
    score: float
    """Above 0 to 1. Half of it is the place by meaning, half that by words: 0.5 for the first, 0.33 for the second, 0.25 for
    the third and so on; 1 is first by both. Scores of one search compare; those of two do not, since they are ranks."""
    snippet: str
    """The part of the chunk that has the most words of the query, on one line."""
    page: int | None = None
    heading: str | None = None
    title: str | None = None


class Searcher:
    """Answers queries from the live generations. Threads may share it."""

    def __init__(self, vectors: VectorDB, ledger: DocumentLedger, embedder: Embedder, sparse: Bm25 | None = None) -> None:
        self._vectors = vectors
        self._ledger = ledger
        self._embedder = embedder
        self._sparse = sparse or Bm25()
        self._tokenizer = Cl100k()

    def search(self, query: str, *, tenant: str = "", limit: int = 10, source: UUID | None = None) -> list[Hit]:
        """The best `limit` chunks of the tenant's documents, best first; of one source if it is given.

        Raises:
            InvalidInput: the query is empty or longer than the embedder takes, or the limit is not from 1 to 200.
            ConfigurationError: the collection holds vectors of another embedder.
            EmbedderUnavailable, VectorsUnavailable, LedgerUnavailable: as their names say; may be tried again.
        """
        words = clean(query).strip()
        self._check_length(words)
        if not 1 <= limit <= MOST_HITS:
            raise InvalidInput(f"limit: {limit} is not between 1 and {MOST_HITS}")
        dense = self._embedder.embed([words]).vectors[0]
        found = self._live(words, dense, tenant=tenant, limit=limit, source=source)
        return [_hit(point, live, words) for point, live in found[:limit]]

    def _check_length(self, words: str) -> None:
        if not words:
            raise InvalidInput("query: is empty")
        most = self._embedder.max_tokens
        if len(words.encode()) <= most:  # a token is at least a byte
            return
        (tokens,) = self._tokenizer.count([words])
        if tokens > most:
            raise InvalidInput(f"query: has {tokens:,} tokens; the embedder takes {most:,}")

    def _live(self, query: str, dense: Vector, *, tenant: str, limit: int, source: UUID | None) -> list[tuple[FoundPoint, LiveGeneration]]:
        """Ask deeper while too much of what is found is not live, and again while documents change twice within a question."""
        sparse = self._sparse.query(query)
        depth = limit * _OVERFETCH
        best: list[tuple[FoundPoint, LiveGeneration]] = []
        for _ in range(_ROUNDS):
            moment = self._ledger.moment()
            points = self._vectors.search(dense=dense, sparse=sparse, tenant=tenant, limit=depth, source=source)
            known = {live.document: live for live in self._known(points)}
            best = [(point, live) for point in points if (live := known.get(point.payload.document)) and _was_live(point, live, moment)]
            if any(_changed_twice(live, moment) for live in known.values()):
                continue
            if len(best) >= limit or len(points) < depth or depth >= _DEEPEST:
                break
            depth = min(depth * _WIDER, _DEEPEST)
        return best

    def _known(self, points: Sequence[FoundPoint]) -> Iterator[LiveGeneration]:
        documents = list(dict.fromkeys(point.payload.document for point in points))
        for start in range(0, len(documents), _ASKED_AT_ONCE):
            yield from self._ledger.live_generations(documents[start : start + _ASKED_AT_ONCE]).documents


def _was_live(point: FoundPoint, live: LiveGeneration, moment: datetime) -> bool:
    """Whether readers saw that point's generation at that moment. What was deleted since is not shown either."""
    if live.deleted_at is not None:
        return False
    generation = point.payload.generation
    if live.live_since is not None and live.live_since <= moment:
        return generation == live.live_generation
    return live.previous_since is not None and live.previous_since <= moment and generation == live.previous_generation


def _changed_twice(live: LiveGeneration, moment: datetime) -> bool:
    """More than one flip since: the ledger no longer knows which generation was live then."""
    return live.previous_since is not None and live.previous_since > moment


def _hit(point: FoundPoint, live: LiveGeneration, query: str) -> Hit:
    payload = point.payload
    return Hit(
        uri=live.uri or payload.uri,
        document_id=payload.document,
        chunk_id=point.id,
        score=round(point.score, 6),
        snippet=snippet_of(payload.text, query),
        page=payload.page,
        heading=payload.heading,
        title=live.title or payload.title,
    )
