"""The composition root: settings in, wired objects out. The only module that knows all parts.

Nothing here connects: every part opens what it needs when it is first used, so what is wired before a fork may be used after it.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Final

from ledgerq.apps import load_app
from ledgerq.errors import ConfigurationError
from ledgerq.handlers import Handlers, TaskContext
from ledgerq.models import JobType, Task
from ledgerq.outcomes import Outcome
from ledgerq.retry import RetryPolicy
from ledgerq.settings import ProcessingConfig, Settings

if TYPE_CHECKING:
    from ledgerq.content.blobs import DocumentBlobs
    from ledgerq.documents.embed import Embedder
    from ledgerq.documents.pipeline import DocumentPipeline
    from ledgerq.documents.search import Searcher
    from ledgerq.documents.vectors import VectorDB
    from ledgerq.execution.parts import WorkerParts
    from ledgerq.ledger import LedgerStore
    from ledgerq.ledger.answers import GarbageItem
    from ledgerq.manager import JobManager
    from ledgerq.stewardship.steward import Steward
    from ledgerq.stewardship.sweeper import Sweeper


FOR_DOCUMENTS: Final = "ledgerq.documents.warm"
"""What workers that process documents load before they fork."""


def job_manager(settings: Settings) -> JobManager:
    """A manager that knows the handlers of `LEDGERQ_APP`. Close it.

    Raises:
        ConfigurationError: the settings name no ledger, or the app cannot be loaded.
    """
    from ledgerq.manager import JobManager

    return JobManager.from_settings(settings, handlers=load_app(settings.app) if settings.app else None)


def load_handlers(settings: Settings, config: ProcessingConfig | None = None) -> Handlers:
    """The registry that `LEDGERQ_APP` names and the built-in handlers beside it. An app's own `process` replaces ours.

    Raises:
        ConfigurationError: the app cannot be loaded, or a handler wants a resource that nobody provides.
    """
    handlers = Handlers()
    if settings.app is not None:
        handlers.include(load_app(settings.app))
    if handlers.find(JobType.PROCESS) is None:
        handlers.include(builtin_handlers(settings, config))
    handlers.check()
    return handlers


def builtin_handlers(settings: Settings, config: ProcessingConfig | None = None) -> Handlers:
    """The type `process`: documents become searchable. Its resource `document_pipeline` is there for handlers of your own as well."""
    handlers = Handlers()
    handlers.resource(name="document_pipeline")(_pipeline_maker(settings))
    handlers.window_handler(
        JobType.PROCESS,
        max_attempts=None if config is None else config.max_retries + 1,
        retry=RetryPolicy(factor=settings.backoff_factor if config is None else config.backoff_factor),
    )(_process_documents)
    return handlers


def worker_parts(settings: Settings, config: ProcessingConfig | None = None) -> WorkerParts:
    """What the horses of a worker need, made before the fork.

    Points that an acknowledgement made garbage are left to the sweeper: only the ledger knows that nobody builds the same
    generation at that moment.

    Raises:
        ConfigurationError: the app cannot be loaded.
    """
    from ledgerq.execution.wiring import wire

    return wire(settings, load_handlers(settings, config), modules=() if settings.qdrant_url is None else (FOR_DOCUMENTS,))


@contextmanager
def steward(settings: Settings, config: ProcessingConfig | None = None) -> Generator[Steward]:
    """A steward with all its duties; it sweeps points when `QDRANT_URL` is set.

    Raises:
        ConfigurationError: the settings name no ledger.
    """
    from ledgerq.dispatch.connection import connect_redis
    from ledgerq.dispatch.dispatcher import Dispatcher
    from ledgerq.dispatch.run_queue import RunQueue
    from ledgerq.ledger import open_store
    from ledgerq.stewardship.pruner import Pruner
    from ledgerq.stewardship.steward import Steward
    from ledgerq.sync.reconciler import Reconciler

    with ExitStack() as closing:
        store = closing.enter_context(open_store(settings))
        redis = connect_redis(settings)
        closing.callback(redis.close)
        run_queue = RunQueue(redis, result_ttl_s=settings.result_ttl_s)
        dispatcher = Dispatcher(store, run_queue, actor="steward")
        yield Steward(
            store,
            dispatcher,
            Reconciler(store, run_queue, dispatcher),
            Pruner(store, settings.keep_finished_s),
            _sweeper(settings, store, closing),
            interval_s=settings.steward_interval_s if config is None else config.poll_interval,
        )


@contextmanager
def searcher(settings: Settings) -> Generator[Searcher]:
    """Search over the live generations.

    Raises:
        ConfigurationError: there is no ledger, no `QDRANT_URL`, or the embedder cannot be made.
    """
    from ledgerq.documents.search import Searcher
    from ledgerq.ledger import open_store

    with ExitStack() as closing:
        store = closing.enter_context(open_store(settings))
        embedder = _embedder(settings)
        closing.callback(embedder.close)
        vectors = _vectors(settings, embedder)
        closing.callback(vectors.close)
        yield Searcher(ledger=store, vectors=vectors, embedder=embedder)


def _process_documents(tasks: Iterable[Task], context: TaskContext, document_pipeline: DocumentPipeline) -> Iterator[Outcome]:
    """See `documents.pipeline.process_documents`. A worker without `QDRANT_URL`, which can process no document, does not load it:
    it starts in 0.7 s instead of 2.1 s, with 61 MB instead of 156 MB.
    """
    from ledgerq.documents.pipeline import process_documents

    return process_documents(tasks, context, document_pipeline)


def _pipeline_maker(settings: Settings) -> Callable[[], Iterator[DocumentPipeline]]:
    def document_pipeline() -> Iterator[DocumentPipeline]:
        from ledgerq.documents.chunk import Chunker, ChunkerSettings
        from ledgerq.documents.load import Loader
        from ledgerq.documents.pipeline import DocumentPipeline
        from ledgerq.documents.stages import Stages
        from ledgerq.ledger import open_store

        embedder = _embedder(settings)
        blobs = _blobs(settings)
        with ExitStack() as closing:
            store = closing.enter_context(open_store(settings))
            closing.callback(blobs.close)
            stages = Stages(
                blobs=blobs,
                loader=Loader(),
                chunker=Chunker(ChunkerSettings(max_tokens=settings.chunk_tokens, overlap=settings.chunk_overlap)),
                embedder=embedder,
                vectors=_vectors(settings, embedder),
            )
            pipeline = DocumentPipeline(ledger=store, stages=stages)
            closing.callback(pipeline.close)
            yield pipeline

    return document_pipeline


def _embedder(settings: Settings) -> Embedder:
    from ledgerq.documents.embed import make_embedder

    key = None if settings.openai_api_key is None else settings.openai_api_key.get_secret_value()
    return make_embedder(settings.embedder, openai_api_key=key, openai_base_url=settings.openai_base_url)


def _vectors(settings: Settings, embedder: Embedder | None) -> VectorDB:
    """The collection. Without an embedder nothing can be stored or found in it, only counted and removed."""
    from ledgerq.documents.vectors import VectorDB, VectorSettings

    if settings.qdrant_url is None:
        raise ConfigurationError("no vector store: set QDRANT_URL, or start one on this machine with `ledgerq up`")
    key = None if settings.qdrant_api_key is None else settings.qdrant_api_key.get_secret_value()
    where = VectorSettings(url=settings.qdrant_url, api_key=key, collection=settings.collection)
    return VectorDB(where, embedder="" if embedder is None else embedder.name, dimensions=0 if embedder is None else embedder.dimensions)


def _blobs(settings: Settings) -> DocumentBlobs:
    from ledgerq.content.blobs import DocumentBlobs, StorageSettings

    if settings.supabase_url is None or settings.supabase_key is None:
        return DocumentBlobs(files_root=settings.files_root)
    storage = StorageSettings(url=settings.supabase_url, key=settings.supabase_key.get_secret_value())
    return DocumentBlobs(storage, files_root=settings.files_root)


def _sweeper(settings: Settings, store: LedgerStore, closing: ExitStack) -> Sweeper | None:
    from ledgerq.stewardship.sweeper import Sweeper

    if settings.qdrant_url is None:
        return None
    vectors = _vectors(settings, None)
    closing.callback(vectors.close)
    return Sweeper(store, _Points(vectors), settings.reader_grace_s)


class _Points:
    """Fills `stewardship.sweeper.PointRemover`."""

    def __init__(self, vectors: VectorDB) -> None:
        self._vectors = vectors

    def remove(self, item: GarbageItem) -> int:
        if item.generation is None:
            return self._vectors.delete_document(item.document)
        return self._vectors.delete_generation(item.document, item.generation)
