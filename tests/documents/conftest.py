"""A vector collection for the module and a world for the test."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING
from uuid import uuid4

import pytest

from ledgerq.documents.vectors import VectorDB, VectorSettings
from tests.documents.world import World, make_world

if TYPE_CHECKING:
    from ledgerq.local.vectors import VectorServer


@pytest.fixture(scope="module")
def collection(vector_server: VectorServer) -> Iterator[VectorDB]:
    """For the offline embedder. Shared: documents and generations of different tests never meet."""
    settings = VectorSettings(url=vector_server.url, api_key=vector_server.api_key, collection=f"test_{uuid4().hex}")
    made = VectorDB(settings, embedder="wordllama-l2-supercat-256", dimensions=256)
    yield made
    made.ensure_collection()
    made._client.delete_collection(settings.collection)
    made.close()


@pytest.fixture
def world(collection: VectorDB) -> Iterator[World]:
    made = make_world(collection)
    yield made
    made.pipeline.close()
