"""Takes protections out of the ledger's SQL, one at a time, and asks the tests whether they notice.

One server for all; a mutant is a copy of the migrated template in which the changed functions were replaced. The tests run
in this process as always, except that the databases they are given are mutants.
"""

from __future__ import annotations

import contextlib
import io
import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from unittest import mock

import psycopg
import pytest

from ledgerq.ledger.migrate import migrate
from ledgerq.ledger.migration_files import Migration, shipped_migrations
from ledgerq.local.postgres import PostgresServer
from tests.stress.mutations import Mutation, applied
from tests.support import databases, servers
from tests.support.directories import server_directory

TESTS = Path(__file__).parent.parent
FAST_TESTS = ("stress", "ledger", "contract/test_store.py")
"""All tests that are asked when the one that should notice does not."""
LEFT_OUT = ("*_stress.py", "*_speed.py", "*/test_mutants.py", "*/test_world.py", "*/test_oldest_postgres.py")
"""Too long, or on servers of their own, which no mutation reaches."""
SOUND = "the ledger as it is"
ORIGINAL = "ledger_original"


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """What the tests said of one mutant."""

    mutation: Mutation
    noticed_by: tuple[str, ...]
    """The tests that failed; none: it survived."""

    @property
    def survived(self) -> bool:
        return not self.noticed_by

    @property
    def as_expected(self) -> bool:
        """Whether the test that is there for it noticed."""
        return any(name.startswith(self.mutation.noticed_by) for name in self.noticed_by)


class SomethingElseBroke(Exception):
    """The tests fail without a mutation, or cannot run."""


def judge(mutations: Sequence[Mutation], *, told: Callable[[Verdict], None] = lambda _: None) -> list[Verdict]:
    """Try every mutation, and first that the tests which are to notice them pass without one.

    Raises:
        MutationOutdated: a mutation does not fit the SQL any more.
        SomethingElseBroke: tests fail on the ledger as it is, so that their failing would say nothing; or a mutant is no valid SQL.
    """
    migrations = shipped_migrations()
    mutants = [(mutation, applied(mutation, migrations)) for mutation in mutations]
    with _workshop(migrations) as workshop:
        named = sorted({mutation.noticed_by for mutation in mutations})
        if failed := workshop.failures(named, migrations):
            raise SomethingElseBroke(f"fail without any mutation: {', '.join(failed)}")
        verdicts: list[Verdict] = []
        for mutation, changed in mutants:
            noticed = workshop.failures([mutation.noticed_by], changed) or workshop.first_failure(changed)
            verdicts.append(Verdict(mutation=mutation, noticed_by=tuple(noticed)))
            told(verdicts[-1])
        return verdicts


@dataclass(slots=True)
class _Workshop:
    """A server with the original ledger, and tests that run on changed copies of it."""

    server: PostgresServer
    original: tuple[Migration, ...]
    _is_sound: bool = False

    def failures(self, tests: Sequence[str], migrations: Sequence[Migration], *, stop_at_first: bool = False) -> list[str]:
        """Those of the tests that fail on the ledger that these migrations make."""
        listener = _Listener()
        options = ["-q", "-p", "no:randomly", "-p", "no:cacheprovider", "-m", "not processes", "-k", "not databases15"]
        options += [f"--ignore-glob={name}" for name in LEFT_OUT]
        options += ["-W", "ignore::pytest.PytestAssertRewriteWarning", "--timeout=60", *(["-x"] if stop_at_first else [])]
        said = io.StringIO()
        with self._serving(migrations), contextlib.redirect_stdout(said), contextlib.redirect_stderr(said):
            code = pytest.main([*options, *(str(TESTS / test) for test in tests)], plugins=[listener])
        if code not in (pytest.ExitCode.OK, pytest.ExitCode.TESTS_FAILED):
            raise SomethingElseBroke(f"pytest ended with {code!r} for {', '.join(tests)}:\n{said.getvalue()}")
        return listener.failed

    def first_failure(self, migrations: Sequence[Migration]) -> list[str]:
        """The first of all tests that notices. All of them pass on the ledger as it is, so it is the mutation's doing."""
        if not self._is_sound and (failed := self.failures(FAST_TESTS, self.original)):
            raise SomethingElseBroke(f"fail without any mutation: {', '.join(failed)}")
        self._is_sound = True
        return self.failures(FAST_TESTS, migrations, stop_at_first=True)

    @contextmanager
    def _serving(self, migrations: Sequence[Migration]) -> Iterator[None]:
        """While this lasts the tests' server is ours, and their template is the mutant."""
        attached = _Attached(self.server)
        self.server.create_database(databases.TEMPLATE, template=ORIGINAL)
        try:
            # Here, where an error is ours: inside a test it would pass for a failure of the test.
            self._mutate(migrations)
            with (
                mock.patch.object(servers, "PostgresServer", return_value=contextlib.nullcontext(attached)),
                mock.patch.object(databases, "import_module", return_value=attached),
            ):
                yield
        finally:
            self.server.drop_database(databases.TEMPLATE)

    def _mutate(self, migrations: Sequence[Migration]) -> None:
        with psycopg.connect(self.server.dsn(database=databases.TEMPLATE), autocommit=True) as connection:
            for was, now in zip(self.original, migrations, strict=True):
                for statement in changes(was.statements, now.statements):
                    try:
                        connection.execute(statement.encode())
                    except psycopg.Error as error:
                        raise SomethingElseBroke(f"a mutant is no valid SQL: {error}: {statement[:200]}") from error


@dataclass(slots=True)
class _Attached:
    """Our running server in place of the one that a test session would start. Everybody's template is there: the mutant."""

    server: PostgresServer

    def create_database(self, name: str, *, template: str | None = None) -> None:
        if name != databases.TEMPLATE:
            self.server.create_database(name, template=template)

    def migrate(self, dsn: str) -> None:
        """It is a copy of one that was."""

    def __getattr__(self, name: str) -> Any:
        return getattr(self.server, name)


@dataclass(slots=True, eq=False)
class _Listener:
    """A plugin of pytest that writes down which tests failed."""

    failed: list[str] = field(default_factory=list[str])

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.failed:
            self.failed.append(report.nodeid.removeprefix("tests/"))


@contextmanager
def _workshop(migrations: tuple[Migration, ...]) -> Iterator[_Workshop]:
    with server_directory("mutants") as directory, PostgresServer(directory / "postgres", fsync=False) as server:
        server.create_database(ORIGINAL)
        migrate(server.dsn(database=ORIGINAL), migrations=migrations)
        yield _Workshop(server, migrations)


def changes(was: Sequence[str], now: Sequence[str]) -> list[str]:
    """What makes the one out of the other: triggers that are gone are dropped, changed functions take the place of those there."""
    gone = [statement for statement in was if statement not in now]
    made = [statement for statement in now if statement not in was]
    return [*(drop for statement in gone if (drop := _dropping(statement))), *map(_replacing, made)]


def _dropping(statement: str) -> str | None:
    trigger = re.search(r"^create trigger (\w+) .*? on (ledgerq\.\w+) ", statement, flags=re.MULTILINE)
    return f"drop trigger {trigger[1]} on {trigger[2]}" if trigger else None


def _replacing(statement: str) -> str:
    """Nothing but functions and triggers may change."""
    if re.search(r"^create trigger ", statement, flags=re.MULTILINE):
        return statement
    replaced, times = re.subn(r"^create (?:or replace )?function", "create or replace function", statement, count=1, flags=re.MULTILINE)
    if times == 0:
        raise SomethingElseBroke(f"a mutation changes more than a function: {statement[:80]}")
    return replaced
