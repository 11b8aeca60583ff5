"""Vectors and embeddings: whether both answer, and fit together."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from typing import TYPE_CHECKING, Final

from ledgerq.cli.checks.finding import Finding, ok
from ledgerq.cli.session import Session
from ledgerq.errors import ConfigurationError

if TYPE_CHECKING:
    from ledgerq.documents.embed import Embedder

EMBEDDER: Final = "embedder"
VECTORS: Final = "vectors"


def check_embedder(session: Session) -> Iterator[Finding]:
    """It can be made, and embeds a word. With a provider that is one billed call of a token."""
    with closing(_embedder(session)) as embedder:
        embedded = embedder.embed(["ledger"])
        yield ok(EMBEDDER, f"{embedder.name} answers with {len(embedded.vectors[0])} dimensions")


def check_vectors(session: Session) -> Iterator[Finding]:
    """Qdrant answers, and the collection, once there is one, was made for this embedder."""
    from ledgerq.documents.vectors import VectorDB, VectorSettings

    settings = session.settings
    if settings.qdrant_url is None:
        raise ConfigurationError("no vector store: set QDRANT_URL, or start one on this machine with `ledgerq up`")
    key = settings.qdrant_api_key
    wanted = VectorSettings(
        url=settings.qdrant_url, api_key=key.get_secret_value() if key else None, collection=settings.collection, timeout_s=5
    )
    with (
        closing(_embedder(session)) as embedder,
        closing(VectorDB(wanted, embedder=embedder.name, dimensions=embedder.dimensions)) as vectors,
    ):
        points = vectors.count()
        if points:
            vectors.ensure_collection()  # refuses a collection of another embedder; makes nothing, for it is there
        yield ok(VECTORS, f"Qdrant answers; collection {settings.collection} has {points:,} points")


def _embedder(session: Session) -> Embedder:
    from ledgerq.documents.embed import make_embedder

    settings = session.settings
    key = settings.openai_api_key
    return make_embedder(
        settings.embedder, openai_api_key=key.get_secret_value() if key else None, openai_base_url=settings.openai_base_url
    )
