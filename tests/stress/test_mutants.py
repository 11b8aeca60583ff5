"""The tests notice when a protection is taken out of the SQL: a test that cannot fail proves nothing."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from ledgerq.ledger.migration_files import shipped_migrations
from tests.stress.__main__ import without_their_test
from tests.stress.mutants import SomethingElseBroke, Verdict, changes
from tests.stress.mutations import Edit, Mutation, MutationOutdated, applied
from tests.stress.protections import MUTATIONS

ROOT = Path(__file__).parent.parent.parent


@pytest.mark.parametrize("name", [mutation.name for mutation in MUTATIONS])
def test_the_list_fits_the_sql(name: str) -> None:
    """A mutation whose text is gone would change nothing, and be noticed by nobody."""
    (mutation,) = [each for each in MUTATIONS if each.name == name]
    assert applied(mutation, shipped_migrations()) != shipped_migrations()


@pytest.mark.parametrize("noticed_by", sorted({mutation.noticed_by for mutation in MUTATIONS}))
def test_the_tests_that_it_names_are_there(noticed_by: str) -> None:
    file, named, name = noticed_by.partition("::")
    text = (ROOT / "tests" / file).read_text(encoding="utf-8")
    assert not named or f"def {name.partition('[')[0]}(" in text


def test_text_that_is_not_there_is_an_error() -> None:
    gone = Mutation("gone", "nothing", (Edit("start", "no such text", ""),), "stress/test_fences.py")
    with pytest.raises(MutationOutdated, match="occurs 0 times in start"):
        applied(gone, shipped_migrations())


def test_only_the_test_that_is_named_counts() -> None:
    told = [
        Verdict(mutation=Mutation(name, "", (), "stress/test_fences.py::test_a"), noticed_by=by)
        for name, by in (
            ("noticed", ("stress/test_fences.py::test_a[1]",)),
            ("by chance", ("ledger/test_guard.py::test_b",)),
            ("survived", ()),
        )
    ]
    assert without_their_test(told) == ["by chance", "survived"]


def test_a_trigger_that_is_gone_is_dropped_and_a_changed_function_replaced() -> None:
    was = ["-- first\ncreate trigger t before update of status on ledgerq.job for each row", "create function f() a", "select 1"]
    assert changes(was, ["create function f() b", "select 1"]) == ["drop trigger t on ledgerq.job", "create or replace function f() b"]
    with pytest.raises(SomethingElseBroke, match="more than a function: select 2"):
        changes(was, [*was, "select 2"])


@pytest.mark.processes
@pytest.mark.timeout(300)
def test_six_mutants_are_noticed() -> None:
    """All of them: `scripts/mutate_ledger`."""
    done = subprocess.run([sys.executable, "-m", "tests.stress", "--fast"], capture_output=True, text=True, check=False, cwd=ROOT)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.count("noticed ") >= 6
