"""What the pipeline's tests stand on: a ledger of documents in memory, bodies in memory, a context, and a pipeline over the
real loader, chunker, offline embedder and vector server.

The ledger here is a fake of the protocol only. That the real one behaves like it is shown where the parts meet.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from typing import Any
from uuid import UUID, uuid4

import structlog
from structlog.typing import FilteringBoundLogger

from ledgerq.documents.chunk import Chunker, ChunkerSettings
from ledgerq.documents.embed import Embedder
from ledgerq.documents.embed.offline import OfflineEmbedder
from ledgerq.documents.load import Loader
from ledgerq.documents.pipeline import DocumentPipeline, process_documents
from ledgerq.documents.search import Searcher
from ledgerq.documents.stages import Stages
from ledgerq.documents.vectors import VectorDB
from ledgerq.documents.window import WindowSettings
from ledgerq.errors import DocumentError
from ledgerq.handlers import TaskCancelled
from ledgerq.models import DocumentBody, DocumentWork, Json, LiveGeneration, LiveManifest, Task
from ledgerq.outcomes import Completed, DocumentEffect, Outcome, Usage

_GENERATIONS = itertools.count(1)
"""One sequence for all ledgers here, as the real one has: they share a collection."""


@dataclass(slots=True)
class _Document:
    id: UUID
    tenant: str
    uri: str
    data: bytes
    source: UUID | None
    revision: int = 1
    content_type: str | None = None
    live: DocumentEffect | None = None
    live_digest: str = ""
    live_revision: int = 0
    live_since: datetime | None = None
    previous: int | None = None
    previous_since: datetime | None = None
    deleted_at: datetime | None = None


@dataclass(slots=True)
class Live:
    documents: Sequence[LiveGeneration]


@dataclass(slots=True)
class MemoryLedger:
    """`ports.DocumentLedger` and `ports.Blobs`, with the rules that matter here: one generation for a document's revision and
    config, flips by acknowledged effects only."""

    now: datetime = datetime(2026, 1, 1, tzinfo=UTC)
    documents: dict[UUID, _Document] = field(default_factory=dict)
    generations: dict[tuple[UUID, int, str], int] = field(default_factory=dict)
    begun: list[list[UUID]] = field(default_factory=list)
    before_answer: Callable[[], None] = lambda: None
    """Called within each `live_generations`: where a test lets the world change between two steps of a search."""
    room: int = 8 * 2**20
    read_instead: Callable[[], bytes] | None = None

    def save(self, data: bytes | str, *, uri: str, tenant: str = "", source: UUID | None = None, content_type: str | None = None) -> UUID:
        raw = data.encode() if isinstance(data, str) else data
        document = _Document(id=uuid4(), tenant=tenant, uri=uri, data=raw, source=source, content_type=content_type)
        self.documents[document.id] = document
        return document.id

    def change(self, document: UUID, data: bytes | str) -> None:
        found = self.documents[document]
        found.data = data.encode() if isinstance(data, str) else data
        found.revision += 1

    def delete(self, document: UUID) -> None:
        self.documents[document].deleted_at = self.now

    def acknowledge(self, outcome: Outcome) -> None:
        """What `advance_run` does with the effects of an outcome."""
        for effect in outcome.effects if isinstance(outcome, Completed) else ():
            document = self.documents[effect.document]
            if document.revision != effect.revision or document.deleted_at is not None:
                continue
            self.now += timedelta(seconds=1)
            document.previous, document.previous_since = (document.live.generation if document.live else None), document.live_since
            document.live, document.live_since, document.live_revision = effect, self.now, effect.revision
            document.live_digest = next(key[2] for key, number in self.generations.items() if number == effect.generation)

    def begin_documents(
        self, documents: Sequence[UUID], *, config_digest: str, wanting: Mapping[UUID, int] | None = None
    ) -> Sequence[DocumentWork]:
        self.begun.append(list(documents))
        room, works = self.room, []
        for number in documents:
            work = self._work(number, config_digest, (wanting or {}).get(number))
            size = len(work.body.text or "") if work.body else 0
            works.append(work if size <= room else work.model_copy(update={"body": None}))
            room -= size
        return works

    def _work(self, number: UUID, config_digest: str, wanting: int | None) -> DocumentWork:
        document = self.documents.get(number)
        if document is None:
            return DocumentWork(document=number, disposition="not_found")
        unchanged = document.live is not None and document.live_digest == config_digest and document.live_revision == document.revision
        key, live = (number, document.revision, config_digest), document.live
        if live is not None and wanting == live.generation:
            unchanged = False
            if self.generations.get(key) == live.generation:
                del self.generations[key]
        if key not in self.generations:
            self.generations[key] = next(_GENERATIONS)
        return DocumentWork(
            document=number,
            disposition="deleted" if document.deleted_at else "unchanged" if unchanged else "process",
            revision=document.revision,
            generation=self.generations[key],
            tenant=document.tenant,
            source=document.source,
            uri=document.uri,
            content_type=document.content_type,
            content_hash=sha256(document.data).hexdigest(),
            byte_size=len(document.data),
            body=DocumentBody(kind="inline", text=document.data.decode("latin-1")),
            live=LiveManifest(generation=live.generation, config_digest=document.live_digest, points=live.points) if live else None,
        )

    def read(self, work: DocumentWork, *, max_bytes: int) -> bytes:
        if self.read_instead is not None:
            return self.read_instead()
        if work.body is None or work.body.text is None:
            raise DocumentError(f"{work.uri}: no body")
        return work.body.text.encode("latin-1")[: max_bytes + 1]

    def moment(self) -> datetime:
        return self.now

    def live_generations(self, documents: Sequence[UUID]) -> Live:
        self.before_answer()
        return Live([self._live(self.documents[number]) for number in documents if number in self.documents])

    def _live(self, document: _Document) -> LiveGeneration:
        return LiveGeneration(
            document=document.id,
            tenant=document.tenant,
            uri=document.uri,
            live_generation=document.live.generation if document.live else None,
            live_since=document.live_since,
            previous_generation=document.previous,
            previous_since=document.previous_since,
            deleted_at=document.deleted_at,
        )


@dataclass(slots=True)
class Context:
    """`handlers.TaskContext` for tests."""

    cancelled: set[int] = field(default_factory=set)
    spent: list[tuple[int | None, Usage]] = field(default_factory=list)

    @property
    def log(self) -> FilteringBoundLogger:
        return structlog.get_logger("tests")

    def progress(self, data: Json) -> None:
        raise NotImplementedError

    def is_cancelled(self, task: Task | None = None) -> bool:
        return task is not None and task.id in self.cancelled

    def check_cancelled(self, task: Task | None = None) -> None:
        if self.is_cancelled(task):
            raise TaskCancelled

    def usage(self, usage: Usage, task: Task | None = None) -> None:
        self.spent.append((None if task is None else task.id, usage))


@dataclass(slots=True)
class World:
    """A ledger and a pipeline over it."""

    ledger: MemoryLedger
    pipeline: DocumentPipeline
    context: Context = field(default_factory=Context)
    _tasks: Iterator[int] = field(default_factory=lambda: itertools.count(1))

    @property
    def stages(self) -> Stages:
        return self.pipeline.stages

    @property
    def vectors(self) -> VectorDB:
        return self.stages.vectors

    @property
    def searcher(self) -> Searcher:
        return Searcher(self.vectors, self.ledger, self.stages.embedder, self.stages.sparse)

    def task(self, document: UUID | None, **fields: Any) -> Task:
        number = next(self._tasks)
        return Task(id=number, job=uuid4(), type="process", key=str(number), document=document, max_attempts=3, **fields)

    def outcomes(self, documents: Iterable[UUID]) -> Iterator[Outcome]:
        """Of new tasks, unacknowledged."""
        return process_documents((self.task(document) for document in documents), self.context, self.pipeline)

    def process(self, *documents: UUID) -> list[Outcome]:
        """Outcomes in the order of the documents, each acknowledged as it came."""
        tasks = [self.task(document) for document in documents]
        outcomes: dict[int | None, Outcome] = {}
        for outcome in process_documents(iter(tasks), self.context, self.pipeline):
            self.ledger.acknowledge(outcome)
            assert outcome.task not in outcomes
            outcomes[outcome.task] = outcome
        assert outcomes.keys() == {task.id for task in tasks}
        return [outcomes[task.id] for task in tasks]

    def points(self, document: UUID) -> set[UUID]:
        """Of the document's live generation, as they are stored."""
        live = self.ledger.documents[document].live
        return self.vectors.existing(document, live.generation) if live else set()


def make_world(
    vectors: VectorDB,
    *,
    embedder: Embedder | None = None,
    chunker: ChunkerSettings | None = None,
    window: WindowSettings | None = None,
    loader: Loader | None = None,
) -> World:
    ledger = MemoryLedger()
    stages = Stages(
        blobs=ledger,
        loader=loader or Loader(),
        chunker=Chunker(chunker or ChunkerSettings(max_tokens=32, overlap=0)),
        embedder=embedder or OfflineEmbedder(),
        vectors=vectors,
    )
    return World(ledger, DocumentPipeline(ledger=ledger, stages=stages, settings=window))


def with_vectors(world: World, vectors: VectorDB) -> World:
    """The same ledger over other vectors."""
    return World(
        world.ledger, DocumentPipeline(ledger=world.ledger, stages=replace(world.stages, vectors=vectors), settings=world.pipeline.settings)
    )


def text_of(sections: Iterable[str]) -> str:
    """A document whose chunks, at 32 tokens, are these sections."""
    return "".join(
        f"# {section}\n\nThis section speaks of {section}, of which much can be said, and so it is said here.\n\n" for section in sections
    )
