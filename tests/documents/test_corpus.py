"""The real documents of LEDGERQ_CORPUS: what can be indexed is, what cannot is named, and memory stays small."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from ledgerq.documents.chunk import Chunker
from ledgerq.documents.load import Loaded, Loader
from ledgerq.documents.vectors import VectorDB
from ledgerq.errors import DocumentError
from ledgerq.outcomes import Completed, Failed, TaskError
from tests.documents.world import World, make_world

if TYPE_CHECKING:
    from ledgerq.local.vectors import VectorServer

CORPUS = Path(os.environ.get("LEDGERQ_CORPUS", "/nonexistent"))
pytestmark = [
    pytest.mark.corpus,
    pytest.mark.skipif(not CORPUS.is_dir(), reason="LEDGERQ_CORPUS is not set: the real documents are elsewhere"),
]
UNREADABLE = {"libreoffice-writer-password.pdf": "is encrypted and needs a password", "imagemagick-images.pdf": "OCR is needed"}


@pytest.fixture(scope="module")
def loaded() -> Iterator[dict[str, Loaded | str]]:
    """Each file as a document, or why not."""
    loader, found = Loader(), dict[str, Loaded | str]()
    for path in sorted([*CORPUS.glob("pdf/*"), *CORPUS.glob("html/*")]):
        try:
            found[path.name] = loader.load(path.read_bytes(), uri=path.name)
        except DocumentError as error:
            found[path.name] = str(error)
    yield found
    loader.close()


def test_all_but_two_can_be_loaded(loaded: dict[str, Loaded | str]) -> None:
    refused = {name: why for name, why in loaded.items() if isinstance(why, str)}
    assert refused.keys() == UNREADABLE.keys()
    assert all(UNREADABLE[name] in why for name, why in refused.items())
    assert len(loaded) > 40


def test_known_places_are_found(loaded: dict[str, Loaded | str]) -> None:
    page, book = loaded["wal-intro.html"], loaded["GeoTopo-komprimiert.pdf"]
    assert isinstance(page, Loaded)
    assert isinstance(book, Loaded)
    assert page.title == "30.3. Write-Ahead Logging (WAL)"
    assert "Prev" not in page.text
    assert "restores database file\ncontents after a crash" in page.text
    assert (book.metadata["pages"], book.title) == (117, "Geometrie und Topologie")
    place = book.text.index("Jeder metrische Raum (X, d) ist auch ein topologischer Raum")
    segment = book.segment_at(place)
    assert segment is not None
    assert segment.heading == "1.1 Topologische Räume"


def test_every_chunk_is_an_exact_slice(loaded: dict[str, Loaded | str]) -> None:
    chunker = Chunker()
    chunks = [(one, chunk) for one in loaded.values() if isinstance(one, Loaded) for chunk in chunker.process_document(one)]
    assert len(chunks) > 500
    assert all(one.text[chunk.start : chunk.end] == chunk.text for one, chunk in chunks)
    assert max(chunk.tokens for _, chunk in chunks) <= 512


@pytest.fixture(scope="module")
def indexed(collection: VectorDB) -> Iterator[World]:
    world = make_world(collection, chunker=Chunker().settings)
    yield world
    world.pipeline.close()


def test_the_corpus_becomes_searchable_and_what_cannot_is_named(indexed: World) -> None:
    paths = sorted([*CORPUS.glob("pdf/*"), *CORPUS.glob("html/*")])
    outcomes = dict(
        zip(
            [path.name for path in paths],
            indexed.process(*(indexed.ledger.save(path.read_bytes(), uri=path.name) for path in paths)),
            strict=True,
        )
    )
    failed = {name: outcome.error for name, outcome in outcomes.items() if isinstance(outcome, Failed)}
    assert failed.keys() == UNREADABLE.keys()
    assert all(isinstance(error, TaskError) and error.message.startswith(f"{name}: ") for name, error in failed.items())
    assert all(isinstance(outcome, Completed) for name, outcome in outcomes.items() if name not in failed)
    queries = ("jsonb path containment operators", "Definition topologischer Raum", "pg_hba.conf authentication records")
    on_json, on_topology, on_hba = (indexed.searcher.search(query, limit=3)[0].uri for query in queries)
    assert "json" in on_json
    assert on_topology == "GeoTopo-komprimiert.pdf"
    assert on_hba in {"auth-pg-hba-conf.html", "auth-password.html"}


@pytest.mark.processes
def test_memory_stays_below_400_mb(vector_server: VectorServer) -> None:
    """In a process of its own, with its parser process, counted as PSS at its highest."""
    script = Path(__file__).with_name("ingest_corpus.py")
    arguments = [sys.executable, str(script), str(CORPUS), vector_server.url]
    environment = {**os.environ, "QDRANT_API_KEY": vector_server.api_key}
    ran = subprocess.run(arguments, capture_output=True, text=True, check=True, env=environment, cwd=Path(__file__).parents[2])
    figures = json.loads(ran.stdout.splitlines()[-1])
    assert figures["documents"] > 40
    assert 50 < figures["peak_pss_mb"] < 400, figures
