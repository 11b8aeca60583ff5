"""The one statement of a request: a source of rows, cut and counted, and made JSON by the database."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from psycopg import sql

ROW = sql.SQL("pgrst_row")
_ROWS = sql.SQL("coalesce(json_agg(pgrst_row), '[]')")
_FIRST = sql.SQL("coalesce(json_agg(pgrst_row) -> 0, 'null')")
_SCALARS = sql.SQL("coalesce(json_agg(pgrst_row.pgrst_scalar), '[]')")
_SCALAR = sql.SQL("coalesce(json_agg(pgrst_row.pgrst_scalar) -> 0, 'null')")
NO_BODY = sql.SQL("null")


@dataclass(frozen=True, slots=True)
class Source:
    """A query, which is to be run whole; `total` counts its rows before they are cut."""

    query: sql.Composable
    parameters: Sequence[object]


@dataclass(frozen=True, slots=True)
class Statement:
    """Gives the one row of an `Outcome`."""

    text: sql.Composable
    parameters: Sequence[object]


@dataclass(frozen=True, slots=True)
class Span:
    """Rows `offset` to `offset + limit - 1`; without limit all that follow."""

    offset: int = 0
    limit: int | None = None

    def cut_at(self, most: int) -> Span:
        return replace(self, limit=most if self.limit is None else min(self.limit, most))


def body_of(*, scalar: bool, single: bool) -> sql.Composable:
    """Each row's JSON, or only its one value; all rows in a list, or the first by itself."""
    if scalar:
        return _SCALAR if single else _SCALARS
    return _FIRST if single else _ROWS


def answer_of(source: Source, body: sql.Composable, span: Span, *, counted: bool) -> Statement:
    total = sql.SQL("(select count(*) from pgrst_source)" if counted else "null::bigint")
    template = sql.SQL("""
        with pgrst_source as ({source})
        select {total}, count(pgrst_row), {body}::text,
          nullif(current_setting('response.status', true), ''), nullif(current_setting('response.headers', true), '')
        from (select * from pgrst_source limit %s offset %s) as pgrst_row
    """)
    text = template.format(source=source.query, total=total, body=body)
    return Statement(text, [*source.parameters, span.limit, span.offset])
