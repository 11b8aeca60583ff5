"""`/<table>`: reading and writing rows, as far as rights and row-level security have to answer."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from psycopg import sql

from tests.support.postgrest.calls import parsed
from tests.support.postgrest.catalogue import Table
from tests.support.postgrest.filters import Choice, column_name
from tests.support.postgrest.messages import Request
from tests.support.postgrest.refusals import bad_body, no_column, unknown_to_the_stand_in
from tests.support.postgrest.statements import Source


def read_source(table: Table, choice: Choice) -> Source:
    query = sql.SQL("select {} from {}{}{}").format(choice.selected_of(table.name), _name(table), choice.where, choice.order_by)
    return Source(query, choice.parameters)


def write_source(request: Request, table: Table, choice: Choice, *, returned: bool) -> Source:
    """Insert (POST), update (PATCH) or delete. Without `returned` rows no right to read them is needed."""
    returning = sql.SQL(" returning {}").format(choice.selected_of(table.name) if returned else sql.SQL("1"))
    match request.method:
        case "POST":
            return _insert(request, table, returning)
        case "PATCH":
            return _update(request, table, choice, returning)
        case "DELETE":
            query = sql.SQL("delete from {}{}{}").format(_name(table), choice.where, returning)
            return Source(query, choice.parameters)
        case method:
            raise unknown_to_the_stand_in(f"{method} on a table")


def _insert(request: Request, table: Table, returning: sql.Composable) -> Source:
    columns = _payload_columns(request, table)
    if not columns:
        raise unknown_to_the_stand_in("inserting rows without any column")
    template = sql.SQL("insert into {}({}) select * from {}{}")
    return Source(template.format(_name(table), _listed(columns), _rows(request, table, columns), returning), [request.body.decode()])


def _update(request: Request, table: Table, choice: Choice, returning: sql.Composable) -> Source:
    columns = _payload_columns(request, table)
    if not columns:
        raise unknown_to_the_stand_in("an update of no column")
    pairs = sql.SQL(", ").join(sql.SQL("{0} = pgrst_body.{0}").format(sql.Identifier(one)) for one in columns)
    template = sql.SQL("update {} set {} from (select * from {} limit 1) as pgrst_body{}{}")
    rows = _rows(request, table, columns)
    query = template.format(_name(table), pairs, rows, choice.where, returning)
    return Source(query, [request.body.decode(), *choice.parameters])


def _payload_columns(request: Request, table: Table) -> tuple[str, ...]:
    value = parsed(request.body)
    rows: list[Any] = value if isinstance(value, list) else [value]
    if not all(isinstance(row, dict) for row in rows):
        raise bad_body("All object keys must match")
    listed = dict(request.query).get("columns")
    if listed is None and any(row.keys() != rows[0].keys() for row in rows):
        raise bad_body("All object keys must match")
    columns = tuple(column_name(one) for one in listed.split(",")) if listed else tuple(rows[0] if rows else ())
    for column in columns:
        if column not in table.columns:
            raise no_column(table.name, column)
    return columns


def _rows(request: Request, table: Table, columns: Sequence[str]) -> sql.Composable:
    """The body, read by the database with the types of the columns."""
    reader = "json_to_recordset" if request.body.lstrip().startswith(b"[") else "json_to_record"
    typed = [sql.SQL("{} {}").format(sql.Identifier(one), sql.SQL(table.columns[one])) for one in columns]
    return sql.SQL("{}(%s::json) as _ ({})").format(sql.SQL(reader), sql.SQL(", ").join(typed))


def _listed(columns: Sequence[str]) -> sql.Composable:
    return sql.SQL(", ").join(map(sql.Identifier, columns))


def _name(table: Table) -> sql.Identifier:
    return sql.Identifier(table.schema, table.name)
