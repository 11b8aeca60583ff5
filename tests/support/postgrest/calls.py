"""`/rpc/<function>`: which function is meant, and the statement that calls it."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Any, Never

from psycopg import sql

from tests.support.postgrest.catalogue import Catalogue, Function, Parameter
from tests.support.postgrest.filters import is_condition
from tests.support.postgrest.messages import Request
from tests.support.postgrest.refusals import Refusal, bad_body, bad_method, unknown_to_the_stand_in
from tests.support.postgrest.statements import Source

RESERVED = {"select", "order", "limit", "offset", "columns", "on_conflict", "and", "or"}
"""Words of the query string that are no arguments."""


@dataclass(frozen=True, slots=True)
class Arguments:
    names: frozenset[str]
    body: str | None = None
    """JSON; absent in a GET."""
    values: tuple[tuple[str, str], ...] = ()
    """Of a GET."""


@dataclass(frozen=True, slots=True)
class Call:
    function: Function
    source: Source
    read_only: bool


def call_for(request: Request, schema: str, name: str, catalogue: Catalogue) -> Call:
    """Raises:
    Refusal: the request is no call (PGRST101, PGRST102), or of no function (PGRST202), or of several (PGRST203).
    """
    arguments = _of_query(request) if request.reads else _of_body(request)
    function = _choose(catalogue, schema, name, arguments)
    return Call(function, _source(function, arguments), request.reads or not function.volatile)


def _of_query(request: Request) -> Arguments:
    for key, value in request.query:
        if key in RESERVED or is_condition(value):
            raise unknown_to_the_stand_in(f"filters on what a function returns ({key}={value})")
    return Arguments(frozenset(key for key, _ in request.query), values=request.query)


def _of_body(request: Request) -> Arguments:
    if request.method != "POST":
        raise bad_method(request.method)
    if request.query:
        raise unknown_to_the_stand_in(f"a query string with a call by POST ({request.query})")
    kind = request.headers.get("content-type", "application/json").partition(";")[0].strip()
    if kind != "application/json":
        raise unknown_to_the_stand_in(f"calls with a body of {kind}")
    value = parsed(request.body) if request.body else {}
    if isinstance(value, dict):
        return Arguments(frozenset(value), request.body.decode() or "{}")
    return Arguments(_common_keys(value), request.body.decode() if isinstance(value, list) and value else "[]")


def _common_keys(value: Any) -> frozenset[str]:
    """Of a list of objects. Whatever else a body may be counts as an empty list."""
    if not isinstance(value, list) or not value:
        return frozenset()
    if not all(isinstance(one, dict) and one.keys() == value[0].keys() for one in value):
        raise bad_body("All object keys must match")
    return frozenset(value[0])


def parsed(body: bytes) -> Any:
    """Raises:
    Refusal: it is not JSON (PGRST102).
    """
    try:
        return json.loads(body, parse_constant=_no_json)
    except (ValueError, RecursionError) as error:
        raise bad_body("Empty or invalid json") from error


def _no_json(constant: str) -> Never:
    raise ValueError(f"{constant} is no JSON")


def _choose(catalogue: Catalogue, schema: str, name: str, arguments: Arguments) -> Function:
    candidates = catalogue.functions.get((schema, name), ())
    fitting = [one for one in candidates if _fits(one, arguments)] or [one for one in candidates if _takes_body(one, arguments)]
    if not fitting:
        raise _no_function(catalogue, schema, name, arguments)
    if len(fitting) > 1:
        raise _ambiguous(fitting)
    return fitting[0]


def _fits(function: Function, arguments: Arguments) -> bool:
    """By name: every required parameter is given, and nothing that is none."""
    names = {one.name for one in function.parameters}
    required = {one.name for one in function.parameters if one.required}
    return required <= arguments.names <= names


def _takes_body(function: Function, arguments: Arguments) -> bool:
    """Whole, as the only parameter, which has no name."""
    if arguments.body is None or len(function.parameters) != 1:
        return False
    return function.parameters[0].name == "" and function.parameters[0].type in {"json", "jsonb"}


def _source(function: Function, arguments: Arguments) -> Source:
    if any(one.variadic for one in function.parameters):
        raise unknown_to_the_stand_in("variadic functions")
    given = [one for one in function.parameters if one.name in arguments.names]
    if arguments.body is None:
        values = dict(arguments.values)
        listed = [sql.SQL("{} := %s::{}").format(sql.Identifier(one.name), _type(one)) for one in given]
        return _called(function, sql.SQL(", ").join(listed), sql.SQL(""), [values[one.name] for one in given])
    if _takes_body(function, arguments):
        return _called(function, sql.SQL("%s::{}").format(_type(function.parameters[0])), sql.SQL(""), [arguments.body])
    if not given:
        return _called(function, sql.SQL(""), sql.SQL(""), [])
    listed = [sql.SQL("{0} := argument.{0}").format(sql.Identifier(one.name)) for one in given]
    return _called(function, sql.SQL(", ").join(listed), _typed_by_json(given, arguments.body), [arguments.body])


def _typed_by_json(given: Sequence[Parameter], body: str) -> sql.Composable:
    """The database itself reads the body, by the declared types. Of a list only the first object is a call."""
    reader = "json_to_record" if body.lstrip().startswith("{") else "json_to_recordset"
    columns = [sql.SQL("{} {}").format(sql.Identifier(one.name), _type(one)) for one in given]
    template = sql.SQL("(select * from {}(%s::json) as _ ({}) limit 1) as argument, lateral ")
    return template.format(sql.SQL(reader), sql.SQL(", ").join(columns))


def _called(function: Function, listed: sql.Composable, before: sql.Composable, parameters: list[object]) -> Source:
    call = sql.SQL("{}({})").format(sql.Identifier(function.schema, function.name), listed)
    if function.returns != "composite":
        call = sql.SQL("(select {} as pgrst_scalar)").format(call)
    return Source(sql.SQL("select pgrst_call.* from {}{} as pgrst_call").format(before, call), parameters)


def _type(parameter: Parameter) -> sql.SQL:
    """As the catalogue writes it, with its schema and quoted where it must be."""
    return sql.SQL(parameter.type)


def _no_function(catalogue: Catalogue, schema: str, name: str, arguments: Arguments) -> Refusal:
    function, given = f"{schema}.{name}", sorted(arguments.names)
    listed = f"({', '.join(given)})" if given else " without parameters"
    searched = f" with parameter{'s' if len(given) > 1 else ''} {', '.join(given)}" if given else " without parameters"
    body = "" if arguments.body is None else " or with a single unnamed json/jsonb parameter"
    return Refusal(
        404,
        "PGRST202",
        f"Could not find the function {function}{listed} in the schema cache",
        f"Searched for the function {function}{searched}{body}, but no matches were found in the schema cache.",
        _hint(catalogue, schema, name, given),
    )


def _hint(catalogue: Catalogue, schema: str, name: str, given: list[str]) -> str | None:
    same_name = catalogue.functions.get((schema, name), ())
    known = [f"({', '.join(sorted(one.name for one in each.parameters))})" for each in same_name]
    near = get_close_matches(f"({', '.join(given)})", known, n=1, cutoff=0.33)
    if known:
        return f"Perhaps you meant to call the function {schema}.{name}{near[0]}" if near else None
    other = catalogue.near_function(schema, name)
    return other and f"Perhaps you meant to call the function {schema}.{other}"


def _ambiguous(fitting: Sequence[Function]) -> Refusal:
    return Refusal(
        300,
        "PGRST203",
        f"Could not choose the best candidate function between: {', '.join(one.described() for one in fitting)}",
        hint="Try renaming the parameters or the function itself in the database so function overloading can be resolved",
    )
