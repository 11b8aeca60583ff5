"""The tests notice when a protection is taken out of the SQL: a test that cannot fail proves nothing."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from ledgerq.ledger.migration_files import shipped_migrations
from tests.stress.mutations import Edit, Mutation, MutationOutdated, applied
from tests.stress.protections import MUTATIONS

ROOT = Path(__file__).parent.parent.parent


@pytest.mark.parametrize("name", [mutation.name for mutation in MUTATIONS])
def test_the_list_fits_the_sql(name: str) -> None:
    """A mutation whose text is gone would change nothing, and be noticed by nobody."""
    (mutation,) = [each for each in MUTATIONS if each.name == name]
    assert applied(mutation, shipped_migrations()) != shipped_migrations()


def test_text_that_is_not_there_is_an_error() -> None:
    gone = Mutation("gone", "nothing", (Edit("start", "no such text", ""),), "stress/test_fences.py")
    with pytest.raises(MutationOutdated, match="occurs 0 times in start"):
        applied(gone, shipped_migrations())


@pytest.mark.processes
@pytest.mark.timeout(300)
def test_six_mutants_are_noticed() -> None:
    """All of them: `scripts/mutate_ledger`."""
    done = subprocess.run([sys.executable, "-m", "tests.stress", "--fast"], capture_output=True, text=True, check=False, cwd=ROOT)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.count("noticed ") >= 6
