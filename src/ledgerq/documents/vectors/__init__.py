"""Points in Qdrant: the one package that knows its client."""

from ledgerq.documents.vectors.db import VectorDB, VectorSettings
from ledgerq.documents.vectors.points import ChunkPayload, FoundPoint, Point

__all__ = ["ChunkPayload", "FoundPoint", "Point", "VectorDB", "VectorSettings"]
