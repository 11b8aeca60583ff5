"""The query string of a request for a table: columns, conditions, order and limits."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from psycopg import sql

from tests.support.postgrest.catalogue import Table
from tests.support.postgrest.messages import Request
from tests.support.postgrest.refusals import bad_query, bad_range, unknown_to_the_stand_in
from tests.support.postgrest.statements import Span

_COLUMN = re.compile(r'^[^\W\d]\w*$|^"[^"]+"$')
_CONDITION = re.compile(r"^(?P<negated>not\.)?(?P<operator>[a-z]+)\.(?P<value>.*)$", re.DOTALL)
_OPERATORS = {"eq": "=", "neq": "<>", "gt": ">", "gte": ">=", "lt": "<", "lte": "<=", "like": "like", "ilike": "ilike"}
_IS = {"null": "null", "not_null": "not null", "true": "true", "false": "false", "unknown": "unknown"}
_ELEMENT = re.compile(r'\s*(?:"((?:[^"\\]|\\.)*)"|([^,"]*))\s*(?:,|$)')
_OTHER_OPERATORS = {
    "match", "imatch", "isdistinct", "fts", "plfts", "phfts", "wfts", "cs", "cd", "ov", "sl", "sr", "nxr", "nxl", "adj",
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Choice:
    """What of a table is asked for."""

    columns: tuple[str, ...] = ()
    """Empty for all of them."""
    conditions: Sequence[sql.Composable] = ()
    parameters: Sequence[object] = ()
    order: Sequence[sql.Composable] = ()
    span: Span = field(default_factory=Span)

    def selected_of(self, table: str) -> sql.Composable:
        if not self.columns:
            return sql.SQL("{}.*").format(sql.Identifier(table))
        return sql.SQL(", ").join(sql.Identifier(table, column) for column in self.columns)

    @property
    def where(self) -> sql.Composable:
        return sql.SQL(" where ") + sql.SQL(" and ").join(self.conditions) if self.conditions else sql.SQL("")

    @property
    def order_by(self) -> sql.Composable:
        return sql.SQL(" order by ") + sql.SQL(", ").join(self.order) if self.order else sql.SQL("")


def choice_of(request: Request, table: Table) -> Choice:
    """Raises:
    Refusal: it cannot be read (PGRST100, PGRST103).
    """
    words = dict(request.query)
    conditions: list[sql.Composable] = []
    parameters: list[object] = []
    for key, value in request.query:
        if key in {"select", "order", "limit", "offset", "columns"}:
            continue
        condition, values = _condition(table, key, value)
        conditions.append(condition)
        parameters.extend(values)
    return Choice(_columns(words), conditions, parameters, _order(words), _span(request, words))


def is_condition(text: str) -> bool:
    """Whether a value of the query string is an operator and its operand."""
    match = _CONDITION.match(text)
    return match is not None and match["operator"] in _OPERATORS.keys() | {"is", "in"} | _OTHER_OPERATORS


def column_name(text: str) -> str:
    if not _COLUMN.match(text):
        raise unknown_to_the_stand_in(f"aliases, casts, paths and other tables in a query string ({text})")
    return text.strip('"')


def _columns(words: Mapping[str, str]) -> tuple[str, ...]:
    listed = words.get("select", "*")
    return () if listed == "*" else tuple(column_name(one) for one in listed.split(","))


def _condition(table: Table, key: str, text: str) -> tuple[sql.Composable, list[object]]:
    if key in {"and", "or", "not.and", "not.or", "on_conflict"}:
        raise unknown_to_the_stand_in(f"{key} in a query string")
    column = sql.Identifier(table.name, column_name(key))
    match = _CONDITION.match(text)
    if match is None or not is_condition(text):
        details = f'unexpected "{text[:1]}" expecting "not" or operator (eq, gt, ...)'
        raise bad_query(f'"failed to parse filter ({text})" (line 1, column 1)', details)
    compared, values = _compared(match["operator"], match["value"])
    return sql.SQL("not {} {}" if match["negated"] else "{} {}").format(column, compared), values


def _compared(operator: str, value: str) -> tuple[sql.Composable, list[object]]:
    """Values are literals of no type, which the database reads as the column's."""
    if operator == "is":
        if value.lower() not in _IS:
            raise bad_query(f'"failed to parse filter (is.{value})" (line 1, column 4)', "expecting null, true, false or unknown")
        return sql.SQL("is {}").format(sql.SQL(_IS[value.lower()])), []
    if operator == "in":
        return sql.SQL("= any(%s)"), [_array(value)]
    if operator not in _OPERATORS:
        raise unknown_to_the_stand_in(f"the operator {operator}")
    return sql.SQL("{} %s").format(sql.SQL(_OPERATORS[operator])), [value.replace("*", "%") if "like" in operator else value]


def _array(value: str) -> str:
    """`(a,"b,c")` as PostgreSQL writes a list."""
    if not (value.startswith("(") and value.endswith(")")):
        raise bad_query(f'"failed to parse filter (in.{value})" (line 1, column 4)', 'expecting "("')
    elements = [plain if quoted is None else re.sub(r"\\(.)", r"\1", quoted) for quoted, plain in _elements(value[1:-1])]
    escaped = (one.replace("\\", "\\\\").replace('"', '\\"') for one in elements)
    return "{" + ",".join(f'"{one}"' for one in escaped) + "}"


def _elements(text: str) -> list[tuple[str | None, str]]:
    """Each quoted, or plain."""
    return [match.groups() for match in _ELEMENT.finditer(text) if match.end() > match.start()]


def _order(words: Mapping[str, str]) -> list[sql.Composable]:
    return [_term(one) for one in words["order"].split(",")] if words.get("order") else []


def _term(text: str) -> sql.Composable:
    column, *ways = text.split(".")
    known = {"asc": "asc", "desc": "desc", "nullsfirst": "nulls first", "nullslast": "nulls last"}
    if not set(ways) <= known.keys():
        raise bad_query(f'"failed to parse order ({text})" (line 1, column 1)', 'expecting "asc", "desc", "nullsfirst" or "nullslast"')
    return sql.SQL("{} {}").format(sql.Identifier(column_name(column)), sql.SQL(" ".join(known[one] for one in ways)))


def _span(request: Request, words: Mapping[str, str]) -> Span:
    """The query string's and the `Range` header's together."""
    offset, limit = int(words.get("offset", "0")), words.get("limit")
    if limit is not None and int(limit) < 0:
        raise bad_range("Limit should be greater than or equal to zero.")
    span = Span(offset, None if limit is None else int(limit))
    given = re.match(r"^(\d+)-(\d*)$", request.headers.get("range", "")) if request.method == "GET" else None
    if given is None:
        return span
    first, last = int(given[1]), int(given[2]) if given[2] else None
    if last is not None and last < first:
        raise bad_range("The lower boundary must be lower than or equal to the upper boundary in the Range header.")
    ends = [end for end in (last, None if span.limit is None else span.offset + span.limit - 1) if end is not None]
    start = max(first, span.offset)
    return Span(start, min(ends) - start + 1 if ends else None)
