"""The guard: what remains when a function forgets a clause."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Final

from ledgerq.ledger.migration_files import shipped_migrations
from tests.stress.mutations import Edit, Mutation

TESTS = "ledger/test_guard.py"
NOTICED_BY: Final = {
    "job_guard": f"{TESTS}::test_step_is_taken_if_it_is_listed_and_refused_if_not[job-completed-pending]",
    "task_guard": f"{TESTS}::test_step_is_taken_if_it_is_listed_and_refused_if_not[task-completed-pending]",
    "run_guard": f"{TESTS}::test_step_is_taken_if_it_is_listed_and_refused_if_not[run-lost-running]",
    "job_first": f"{TESTS}::test_rows_begin_at_their_first_status[job-completed]",
    "task_first": f"{TESTS}::test_rows_begin_at_their_first_status[task-completed]",
    "run_first": f"{TESTS}::test_rows_begin_at_their_first_status[run-lost]",
}


def _without_each_trigger() -> Iterator[Mutation]:
    """They are rendered, so their text is taken from there."""
    (script,) = [migration.script for migration in shipped_migrations() if migration.name == "guard"]
    for found in re.finditer(r"create trigger (\w+) .*?;\n", script, flags=re.DOTALL):
        name = found[1]
        yield Mutation(f"without-{name.replace('_', '-')}", f"the trigger {name}", (Edit("guard", found[0], ""),), NOTICED_BY[name])


GUARD: Final[tuple[Mutation, ...]] = tuple(_without_each_trigger())
