"""A vector server in one small process: the subset of Qdrant's REST API that `qdrant-client` uses here."""

from ledgerq.local.vectors.server import VectorServer

__all__ = ["VectorServer"]
