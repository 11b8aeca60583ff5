"""Everything end to end is seen by both ways to the ledger."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.databases import Databases
from tests.support.lab import Lab, laboratory
from tests.support.ways import KINDS, ledger_for, open_way


@pytest.fixture(params=KINDS)
def lab(request: pytest.FixtureRequest, databases: Databases, redis_url: str, tmp_path: Path) -> Iterator[Lab]:
    with (
        ledger_for(request.param, databases) as database,
        open_way(request.param, database) as way,
        laboratory(database, redis_url, tmp_path, way) as made,
    ):
        yield made
