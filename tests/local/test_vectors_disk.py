"""What the vector server keeps on disk: no log without end, and a damaged collection in nobody's way."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from ledgerq.local.vectors import collection as collection_module
from ledgerq.local.vectors import requests as rq
from ledgerq.local.vectors.catalogue import Catalogue
from ledgerq.local.vectors.errors import Refusal

SETTINGS = rq.CreateCollection.model_validate({"vectors": {"size": 4, "distance": "Dot"}})


@pytest.fixture
def catalogue(tmp_path: Path) -> Iterator[Catalogue]:
    made = Catalogue(tmp_path)
    yield made
    made.close()


def upsert(catalogue: Catalogue, name: str, number: int, payload: dict[str, str] | None = None) -> None:
    point = {"id": number, "vector": [1.0, 0, 0, number], "payload": payload or {}}
    catalogue.get(name).upsert(rq.Upsert.model_validate({"points": [point]}))


def count(catalogue: Catalogue, name: str) -> object:
    return catalogue.get(name).count(rq.CountPoints())["count"]


def test_the_log_of_operations_does_not_grow_without_end(catalogue: Catalogue, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(collection_module, "FLUSH_EVERY", 4)
    catalogue.create("c", SETTINGS)
    for number in range(20):
        upsert(catalogue, "c", number % 2, {"text": "x" * 6_000_000})
    log = sum(file.stat().st_blocks * 512 for file in (tmp_path / "collections/c/shard/wal").iterdir())
    assert log < 80_000_000
    assert count(catalogue, "c") == 2


def test_what_was_written_is_there_after_a_clean_end(tmp_path: Path) -> None:
    for written in range(3):
        catalogue = Catalogue(tmp_path)
        if not written:
            catalogue.create("c", SETTINGS)
        assert count(catalogue, "c") == written
        upsert(catalogue, "c", written)
        catalogue.close()


@pytest.mark.parametrize("damage", ["shard/edge_config.json", "settings.json"])
def test_a_damaged_collection_is_refused_by_itself(tmp_path: Path, damage: str) -> None:
    catalogue = Catalogue(tmp_path)
    for name in ("bad", "good"):
        catalogue.create(name, SETTINGS)
        upsert(catalogue, name, 1)
    catalogue.close()
    (tmp_path / "collections" / "bad" / damage).write_text("{broken")
    catalogue = Catalogue(tmp_path)
    assert count(catalogue, "good") == 1
    with pytest.raises(Refusal, match="Collection `bad` cannot be opened") as caught:
        catalogue.get("bad")
    assert caught.value.status == 500
    with pytest.raises(Refusal, match="already exists"):
        catalogue.create("bad", SETTINGS)
    assert catalogue.names() == ["bad", "good"]
    assert catalogue.drop("bad")
    catalogue.create("bad", SETTINGS)
    assert count(catalogue, "bad") == 0
    catalogue.close()
