"""Protections of the ledger's SQL, each with how to take it away and the test that must notice.

A mutation is exact text of a migration. When the SQL changes and the text is not found (or not as often as said), applying
it fails: a mutation that changes nothing would prove nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from ledgerq.ledger.migration_files import Migration


class MutationOutdated(Exception):
    """The text that a mutation wants to change is not there (so often)."""


@dataclass(frozen=True, slots=True)
class Edit:
    """`old` becomes `new` in the migration of that name, wherever it occurs, which must be `times` times."""

    migration: str
    old: str
    new: str
    times: int = 1


@dataclass(frozen=True, slots=True)
class Mutation:
    """One protection taken away: all of its edits together, because some protections are held twice."""

    name: str
    removes: str
    edits: tuple[Edit, ...]
    noticed_by: str
    """The test (`file::name` below `tests/`) that is tried first."""
    fast: bool = False
    """Part of the small set that runs with every test run."""


def applied(mutation: Mutation, migrations: Sequence[Migration]) -> tuple[Migration, ...]:
    """The migrations with that protection taken away.

    Raises:
        MutationOutdated: an edit does not fit the SQL as it is now.
    """
    changed = {migration.name: migration for migration in migrations}
    for edit in mutation.edits:
        if edit.migration not in changed:
            raise MutationOutdated(f"{mutation.name}: there is no migration {edit.migration!r}")
        found = changed[edit.migration]
        if (times := found.script.count(edit.old)) != edit.times:
            raise MutationOutdated(f"{mutation.name}: {edit.old!r} occurs {times} times in {edit.migration}, not {edit.times}")
        changed[edit.migration] = replace(found, script=found.script.replace(edit.old, edit.new))
    return tuple(changed[migration.name] for migration in migrations)
