"""The conditions that points are chosen by."""

from __future__ import annotations

from collections.abc import Iterable
from uuid import UUID

from qdrant_client import models


def of_tenant(tenant: str, source: UUID | None = None) -> models.Filter:
    """What a search may see."""
    conditions = [_equals("tenant", tenant)]
    if source is not None:
        conditions.append(_equals("source", str(source)))
    return _all(conditions)


def of_generations(generations: Iterable[int]) -> models.Filter:
    """Generations come from one sequence, so their number alone names the document too."""
    return _all([models.FieldCondition(key="generation", match=models.MatchAny(any=list(generations)))])


def of_document(document: UUID, generation: int | None = None) -> models.Filter:
    conditions = [_equals("document", str(document))]
    if generation is not None:
        conditions.append(_equals("generation", generation))
    return _all(conditions)


def of_hashes(generation: int, hashes: Iterable[str]) -> models.Filter:
    with_hash = models.FieldCondition(key="content_hash", match=models.MatchAny(any=list(hashes)))
    return _all([_equals("generation", generation), with_hash])


def _equals(key: str, value: str | int) -> models.FieldCondition:
    return models.FieldCondition(key=key, match=models.MatchValue(value=value))


def _all(conditions: list[models.FieldCondition]) -> models.Filter:
    return models.Filter(must=list[models.Condition](conditions))
