"""Making the collection, and refusing one that holds something else."""

from __future__ import annotations

from typing import Final

from qdrant_client import QdrantClient, models

from ledgerq.documents.vectors.errors import NoCollection, translated
from ledgerq.errors import ConfigurationError, InvalidInput

SPARSE: Final = "bm25"
_KEYWORD: Final = models.KeywordIndexParams(type=models.KeywordIndexType.KEYWORD)
INDEXES: Final[dict[str, models.PayloadSchemaType | models.KeywordIndexParams]] = {
    "tenant": models.KeywordIndexParams(type=models.KeywordIndexType.KEYWORD, is_tenant=True),
    "document": _KEYWORD,
    "generation": models.PayloadSchemaType.INTEGER,
    "content_hash": _KEYWORD,
    "source": _KEYWORD,
}
"""Every field that is filtered by: a Qdrant in strict mode refuses filters on others."""


def require_collection(client: QdrantClient, name: str, *, dense: str, dimensions: int) -> None:
    """Make the collection if there is none, with its indexes. Safe when several do at once.

    Raises:
        ConfigurationError: it exists and its vectors are of another embedder, or not ours at all.
        VectorsUnavailable: see `translated`.
    """
    info = _info(client, name)
    if info is None:
        _create(client, name, dense=dense, dimensions=dimensions)
        info = _info(client, name)
    if info is None:
        raise NoCollection(f"collection {name!r} was dropped while it was being made")
    _check(info, name, dense=dense, dimensions=dimensions)
    for field, schema in INDEXES.items():
        if field not in info.payload_schema:
            with translated(f"indexing {field} of {name}"):
                client.create_payload_index(name, field, field_schema=schema, wait=True)


def _info(client: QdrantClient, name: str) -> models.CollectionInfo | None:
    try:
        with translated(f"looking at collection {name}"):
            return client.get_collection(name)
    except NoCollection:
        return None


def _create(client: QdrantClient, name: str, *, dense: str, dimensions: int) -> None:
    try:
        with translated(f"making collection {name}"):
            client.create_collection(
                name,
                vectors_config={dense: models.VectorParams(size=dimensions, distance=models.Distance.COSINE)},
                sparse_vectors_config={SPARSE: models.SparseVectorParams(modifier=models.Modifier.IDF)},
                # Every search is of one tenant, so the graph is built per tenant and not over all.
                hnsw_config=models.HnswConfigDiff(m=0, payload_m=16),
            )
    except InvalidInput:
        # Somebody else made it in between (409); if that is not so, the check that follows says what is wrong.
        if _info(client, name) is None:
            raise


def _check(info: models.CollectionInfo, name: str, *, dense: str, dimensions: int) -> None:
    vectors = info.config.params.vectors
    kinds = vectors if isinstance(vectors, dict) else {}
    sparse = (info.config.params.sparse_vectors or {}).get(SPARSE)
    wanted = f"vectors {dense!r} of {dimensions} dimensions by cosine and sparse vectors {SPARSE!r} with IDF"
    fits = dense in kinds and (kinds[dense].size, kinds[dense].distance) == (dimensions, models.Distance.COSINE)
    if not fits or sparse is None or sparse.modifier != models.Modifier.IDF:
        has = ", ".join(f"{key!r} ({params.size}, {params.distance.value})" for key, params in kinds.items()) or "unnamed vectors"
        raise ConfigurationError(
            f"collection {name!r} holds {has}; the embedder needs {wanted}: set LEDGERQ_COLLECTION to another name, or the embedder back"
        )
