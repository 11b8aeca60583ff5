"""The config digest: what decides about a document's points besides its content, as one hash.

Two workers with the same digest make the same chunks with the same ids and comparable vectors. Any change of it, down to the
release of a parser, is a new generation; vectors of chunks whose text stays the same are copied, not made again.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict
from hashlib import sha256
from uuid import UUID, uuid5

from ledgerq.documents import chunk
from ledgerq.documents.chunk import Chunker

NAMESPACE = UUID("5b0b1c9e-6a55-5d0e-9d7c-0d5f3a1f7e21")
"""Of point ids. Never to change: ids would."""


def config_digest(*, loader: Mapping[str, str], chunker: Chunker, embedder: str, sparse: str, collection: str) -> str:
    """64 hexadecimal digits over the versions of loaders and chunker, their settings, the names of the vectors' makers, and where
    the points are: in another collection there are none yet.
    """
    config = {
        "loader": dict(loader),
        "chunker": {"version": chunk.VERSION, "tokenizer": chunker.tokenizer.name, **asdict(chunker.settings)},
        "embedder": embedder,
        "sparse": sparse,
        "collection": collection,
    }
    return sha256(json.dumps(config, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


def point_id(*, tenant: str, document: UUID, generation: int, position: int, config: str) -> UUID:
    """The id of a chunk's point: the same at every try, so that storing it again changes nothing."""
    # The tenant is last and the only part of free form, so that no two tuples have the same text.
    return uuid5(NAMESPACE, f"{document}:{generation}:{position}:{config}:{tenant}")


def content_hash(text: str, *, embedder: str) -> str:
    """What a vector depends on: the text and the embedder. 64 hexadecimal digits."""
    return sha256(f"{embedder}\0{text}".encode()).hexdigest()


def manifest_digest(points: Iterable[UUID]) -> str:
    """SHA-256 over the sorted point ids as text, one per line. Of no points: that of nothing."""
    return sha256("\n".join(sorted(map(str, points))).encode()).hexdigest()
