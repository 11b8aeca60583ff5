"""The schema cache: the functions and tables of the exposed schemas, and the settings of the roles, as they were when read."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Literal

import psycopg

HOISTED = ("statement_timeout", "plan_filter.statement_cost_limit", "default_transaction_isolation")
"""Settings of a function that are made the transaction's."""


@dataclass(frozen=True, slots=True)
class Parameter:
    name: str
    """Empty where it has none."""
    type: str
    required: bool
    variadic: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Function:
    schema: str
    name: str
    parameters: tuple[Parameter, ...]
    volatile: bool
    returns: Literal["void", "scalar", "composite"]
    set_of: bool
    settings: Mapping[str, str]
    """Those that are hoisted."""

    def described(self) -> str:
        listed = ", ".join(f"{one.name} => {one.type}" for one in self.parameters)
        return f"{self.schema}.{self.name}({listed})"


@dataclass(frozen=True, slots=True)
class Table:
    schema: str
    name: str
    columns: Mapping[str, str]
    """Their types."""


@dataclass(frozen=True, slots=True)
class Catalogue:
    functions: Mapping[tuple[str, str], Sequence[Function]]
    tables: Mapping[tuple[str, str], Table]
    role_settings: Mapping[str, Mapping[str, str]]

    def near_function(self, schema: str, name: str) -> str | None:
        return _near(name, [known for within, known in self.functions if within == schema])

    def near_table(self, schema: str, name: str) -> str | None:
        return _near(name, [known for within, known in self.tables if within == schema])


def read_catalogue(connection: psycopg.Connection, schemas: Sequence[str]) -> Catalogue:
    """`schemas` that do not exist are empty."""
    with connection.transaction():
        # So that every type is named with its schema.
        connection.execute("select set_config('search_path', '', true)")
        functions: dict[tuple[str, str], list[Function]] = {}
        for row in connection.execute(_FUNCTIONS, [list(schemas)]):
            function = _function(*row)
            functions.setdefault((function.schema, function.name), []).append(function)
        tables = {(row[0], row[1]): Table(*row) for row in connection.execute(_TABLES, [list(schemas)])}
        return Catalogue(functions, tables, read_role_settings(connection))


def read_role_settings(connection: psycopg.Connection) -> dict[str, dict[str, str]]:
    """What `alter role … set` gave the roles that can be impersonated, as far as we may set it."""
    return {role: dict(_pair(setting) for setting in settings) for role, settings in connection.execute(_ROLE_SETTINGS)}


def _function(
    schema: str,
    name: str,
    parameters: list[list[str]],
    volatile: bool,
    returns: Literal["void", "scalar", "composite"],
    set_of: bool,
    settings: list[str],
) -> Function:
    return Function(
        schema=schema,
        name=name,
        parameters=tuple(Parameter(one[0], one[1], one[2] == "required", one[3] == "variadic") for one in parameters),
        volatile=volatile,
        returns=returns,
        set_of=set_of,
        settings={key: value for key, value in map(_pair, settings) if key in HOISTED},
    )


def _pair(setting: str) -> tuple[str, str]:
    key, _, value = setting.partition("=")
    return key, value


def _near(name: str, known: list[str]) -> str | None:
    return next(iter(get_close_matches(name, known, n=1, cutoff=0.75)), None)


_FUNCTIONS = b"""
    with argument as (
      select proc.oid, array_agg(array[
          coalesce(one.name, ''),
          case one.type when 'bit'::regtype then 'bit varying' when 'character'::regtype then 'character varying'
            else one.type::regtype::text end,
          case when one.number <= proc.pronargs - proc.pronargdefaults then 'required' else 'optional' end,
          case when one.mode = 'v' then 'variadic' else '' end
        ] order by one.number) as described,
        count(*) filter (where coalesce(one.name, '') = '') as unnamed,
        count(*) = 1 and min(one.type::regtype::text) in ('bytea', 'json', 'jsonb', 'text', 'xml') as takes_a_body
      from pg_proc as proc,
        unnest(proc.proargnames, proc.proargtypes, proc.proargmodes) with ordinality as one (name, type, mode, number)
      where one.type is not null
      group by proc.oid
    )
    select space.nspname, proc.proname, coalesce(argument.described, '{}'), proc.provolatile = 'v',
      case when proc.prorettype = 'void'::regtype then 'void'
        when result.typtype = 'c' or coalesce(proc.proargmodes::text[] && '{t,b,o}', false) then 'composite'
        else 'scalar' end,
      proc.proretset, coalesce(proc.proconfig, '{}')
    from pg_proc as proc
    join pg_namespace as space on space.oid = proc.pronamespace
    join pg_type as result on result.oid = proc.prorettype
    left join argument on argument.oid = proc.oid
    where space.nspname = any(%s) and proc.prokind = 'f' and proc.prorettype <> 'trigger'::regtype
      and (coalesce(argument.unnamed, 0) = 0 or argument.takes_a_body)
    order by space.nspname, proc.proname, proc.pronargs, proc.oid
"""

_TABLES = b"""
    select space.nspname, class.relname, json_object_agg(attribute.attname, format_type(attribute.atttypid, attribute.atttypmod)
        order by attribute.attnum)
    from pg_class as class
    join pg_namespace as space on space.oid = class.relnamespace
    join pg_attribute as attribute on attribute.attrelid = class.oid and attribute.attnum > 0 and not attribute.attisdropped
    where space.nspname = any(%s) and class.relkind in ('r', 'p', 'v', 'm', 'f') and not class.relispartition
    group by space.nspname, class.relname
"""

_ROLE_SETTINGS = b"""
    select role.rolname, array_agg(set.one)
    from pg_auth_members as membership
    join pg_roles as role on role.oid = membership.roleid
    cross join unnest(role.rolconfig) as set (one)
    join pg_settings as known on known.name = split_part(set.one, '=', 1)
    where membership.member = to_regrole(quote_ident(current_user))
      and (known.context = 'user' or has_parameter_privilege(current_user, known.name, 'set'))
    group by role.rolname
"""
