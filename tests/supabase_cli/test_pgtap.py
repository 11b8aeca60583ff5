"""What users of a Supabase project run with `supabase test db`, here without its containers and without pg_prove: through psycopg.

That PostgreSQL's notices stay unread is no loss: TAP is in the results, and is read strictly.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest

from tests.supabase_cli.conftest import FOLDER
from tests.support.databases import Database, Databases

FILES = sorted((FOLDER / "tests").glob("*_test.sql"))
PLAN = re.compile(r"1\.\.(?P<tests>\d+)")
RESULT = re.compile(r"ok (?P<number>\d+) - \S.*")
SEARCH_PATH = "-c search_path=public,extensions"
"""As in a Supabase project. The shim sets it for its database too, but copies of a template do not get it."""


@pytest.fixture(scope="module")
def with_pgtap(databases15: Databases) -> Iterator[Database]:
    with databases15.fresh() as fresh:
        with psycopg.connect(fresh.dsn) as connection:
            if connection.execute("select from pg_extension where extname = 'pgtap'").fetchone() is None:
                pytest.skip("pgTAP is not installed (apt install postgresql-15-pgtap)")
        yield fresh


def tap_of(script: str, dsn: str) -> list[str]:
    """All lines that a script of pgTAP says."""
    with psycopg.connect(dsn, autocommit=True, options=SEARCH_PATH) as connection:
        cursor = connection.execute(script.encode())
        lines: list[str] = []
        while True:
            if cursor.description is not None:
                lines += [line for row in cursor.fetchall() for line in str(row[0]).splitlines()]
            if not cursor.nextset():
                return lines


def complaints(lines: list[str]) -> list[str]:
    """What is not as planned: anything but one plan and after it as many successes, counted from 1."""
    planned = PLAN.fullmatch(lines[0]) if lines else None
    if planned is None:
        return ["it has no plan", *lines]
    results = [RESULT.fullmatch(line) for line in lines[1:]]
    odd = [line for line, result in zip(lines[1:], results, strict=True) if result is None]
    numbers = [int(result["number"]) for result in results if result is not None]
    return odd or ([] if numbers == list(range(1, int(planned["tests"]) + 1)) else [f"{lines[0]} was planned, {numbers} were run"])


def test_there_are_tests_of_rights_owners_and_jobs() -> None:
    assert [file.stem for file in FILES] == ["job_test", "owners_test", "rights_test"]


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_file_goes_as_planned_and_leaves_nothing(with_pgtap: Database, file: Path) -> None:
    assert complaints(tap_of(file.read_text(), with_pgtap.dsn)) == []
    with psycopg.connect(with_pgtap.dsn) as connection:
        assert connection.execute("select count(*) from ledgerq.job").fetchone() == (0,)


@pytest.mark.parametrize(
    "lines",
    [
        [],
        ["ok 1 - no plan"],
        ["1..2", "ok 1 - one is missing"],
        ["1..1", "ok 1 - one", "ok 2 - too many"],
        ["1..1", "not ok 1 - failed"],
        ["1..1", "ok 1 - one", "# Looks like you planned 2 tests but ran 1"],
        ["1..2", "ok 1 - one", "ok 1 - the same again"],
    ],
)
def test_what_is_not_as_planned_is_a_complaint(lines: list[str]) -> None:
    assert complaints(lines)
