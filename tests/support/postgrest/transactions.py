"""One request is one transaction: its mode, its settings, its one statement."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass

import psycopg
from psycopg import sql

from tests.support.postgrest.pool import Pool, Session
from tests.support.postgrest.sqlstates import refusal_of
from tests.support.postgrest.statements import Statement


@dataclass(frozen=True, slots=True)
class Outcome:
    """The one row that every statement of ours gives."""

    total: int | None
    """Rows without limit, where they were to be counted."""
    rows: int
    body: str | None
    status: str | None
    """`response.status` and `response.headers`, which a function may have set."""
    headers: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Transaction:
    settings: Sequence[tuple[str, str]]
    """In order; all of them last as long as the transaction."""
    statement: Statement
    read_only: bool
    isolation: str
    check: Callable[[Outcome], None]
    """Looks at the outcome before the commit; what it raises rolls back."""

    def run(self, pool: Pool, *, authenticated: bool) -> Outcome:
        """Raises:
        Refusal: the database's error, or what `check` or the watch over statements raise. Nothing is committed then.
        """
        with pool.session() as session:
            try:
                return self._within(session)
            except psycopg.Error as error:
                _end(session, "rollback")
                _check_watch(session)
                raise refusal_of(error, authenticated=authenticated) from error
            except BaseException:
                _end(session, "rollback")
                raise

    def _within(self, session: Session) -> Outcome:
        with session.connection.cursor() as cursor:
            cursor.execute(self._begin())
            cursor.execute(*self._set())
            row = cursor.execute(self.statement.text, self.statement.parameters).fetchone()
            assert row is not None
            outcome = Outcome(*row)
            _check_watch(session)
            self.check(outcome)
            cursor.execute("commit")
        return outcome

    def _begin(self) -> sql.Composable:
        mode = "read only" if self.read_only else "read write"
        return sql.SQL("begin isolation level {} {}").format(sql.SQL(self.isolation), sql.SQL(mode))

    def _set(self) -> tuple[sql.Composable, list[str]]:
        calls = sql.SQL(", ").join([sql.SQL("set_config(%s, %s, true)")] * len(self.settings))
        return sql.SQL("select ") + calls, [word for pair in self.settings for word in pair]


def _check_watch(session: Session) -> None:
    if session.watch is not None:
        session.watch.check()


def _end(session: Session, command: str) -> None:
    """On a connection that is lost there is nothing to end, and the pool does not take it back."""
    with suppress(psycopg.Error):
        session.connection.execute(command)
