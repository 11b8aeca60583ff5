"""The conditions that points are chosen by."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from uuid import UUID

from qdrant_client import models


def of_tenant(tenant: str, source: UUID | None = None) -> models.Filter:
    """What a search may see."""
    conditions = [_equals("tenant", tenant)]
    if source is not None:
        conditions.append(_equals("source", str(source)))
    return _all(conditions)


def of_generations(generations: Mapping[UUID, int]) -> models.Filter:
    """One generation of each document. A number alone names none: ledgers that share a collection count from 1 each."""
    return models.Filter(should=[of_document(document, generation) for document, generation in sorted(generations.items())])


def of_document(document: UUID, generation: int | None = None) -> models.Filter:
    conditions = [_equals("document", str(document))]
    if generation is not None:
        conditions.append(_equals("generation", generation))
    return _all(conditions)


def of_hashes(document: UUID, generation: int, hashes: Iterable[str]) -> models.Filter:
    with_hash = models.FieldCondition(key="content_hash", match=models.MatchAny(any=list(hashes)))
    return _all([_equals("document", str(document)), _equals("generation", generation), with_hash])


def _equals(key: str, value: str | int) -> models.FieldCondition:
    return models.FieldCondition(key=key, match=models.MatchValue(value=value))


def _all(conditions: list[models.FieldCondition]) -> models.Filter:
    return models.Filter(must=list[models.Condition](conditions))
