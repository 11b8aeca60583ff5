"""Ids and digests: the same everywhere, and different when anything that matters is."""

from __future__ import annotations

from hashlib import sha256
from uuid import UUID, uuid4

import pytest

from ledgerq.documents.chunk import Chunker, ChunkerSettings
from ledgerq.documents.digest import config_digest, content_hash, manifest_digest, point_id

BASE = {
    "loader": {"html": "1", "pypdfium2": "5.0"},
    "chunker": Chunker(),
    "embedder": "wordllama-256",
    "sparse": "bm25-1",
    "collection": "ledgerq",
}


@pytest.mark.parametrize(
    "change",
    [
        {"loader": {"html": "1", "pypdfium2": "5.1"}},
        {"chunker": Chunker(ChunkerSettings(overlap=32))},
        {"embedder": "text-embedding-3-small-1536"},
        {"sparse": "bm25-2"},
        {"collection": "other"},
    ],
)
def test_the_config_digest_changes_with_each_part(change: dict[str, object]) -> None:
    digest = config_digest(**BASE)  # pyright: ignore[reportArgumentType]
    assert len(digest) == 64
    assert digest == config_digest(**{**BASE, "loader": dict(reversed(list(BASE["loader"].items())))})  # pyright: ignore[reportArgumentType]
    assert digest != config_digest(**{**BASE, **change})  # pyright: ignore[reportArgumentType]


def test_point_ids_are_fixed_by_five_things() -> None:
    document = UUID("018f0000-0000-7000-8000-000000000001")
    base = {"tenant": "t", "document": document, "generation": 7, "position": 0, "config": "c" * 64}
    ids = [
        point_id(**{**base, **change})  # pyright: ignore[reportArgumentType]
        for change in ({}, {"tenant": "u"}, {"document": uuid4()}, {"generation": 8}, {"position": 1}, {"config": "d" * 64})
    ]
    assert len(set(ids)) == 6
    assert ids[0] == point_id(**base)  # pyright: ignore[reportArgumentType]
    assert str(ids[0]) == "7994d102-f91f-5b35-a03e-07fdde3b7c90"


def test_the_manifest_does_not_depend_on_order() -> None:
    one, two = uuid4(), uuid4()
    assert manifest_digest([one, two]) == manifest_digest([two, one]) != manifest_digest([one])
    assert manifest_digest([]) == sha256(b"").hexdigest()


def test_the_content_hash_is_of_text_and_embedder() -> None:
    assert content_hash("a", embedder="x") != content_hash("a", embedder="y") != content_hash("b", embedder="y")
