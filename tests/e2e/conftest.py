"""Everything end to end is seen by both ways to the ledger."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.databases import Database
from tests.support.lab import Lab, laboratory
from tests.support.ways import KINDS, open_way


@pytest.fixture(params=KINDS)
def lab(request: pytest.FixtureRequest, database: Database, redis_url: str, tmp_path: Path) -> Iterator[Lab]:
    with open_way(request.param, database) as way, laboratory(database, redis_url, tmp_path, way) as made:
        yield made
