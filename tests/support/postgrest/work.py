"""One request that passed the gateway: from its headers to a transaction, and from its outcome to a response."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from tests.support.postgrest.calls import call_for
from tests.support.postgrest.catalogue import Catalogue, Function, Table
from tests.support.postgrest.filters import choice_of
from tests.support.postgrest.messages import JSON_TYPE, Request, Response
from tests.support.postgrest.pool import Pool
from tests.support.postgrest.preferences import Preferences, preferences_of
from tests.support.postgrest.refusals import (
    Refusal,
    bad_path,
    no_table,
    not_acceptable,
    not_exposed,
    not_one_row,
    unknown_to_the_stand_in,
)
from tests.support.postgrest.statements import NO_BODY, Span, Statement, answer_of, body_of
from tests.support.postgrest.tables import read_source, write_source
from tests.support.postgrest.transactions import Outcome, Transaction

ANONYMOUS = "anon"
EXTRA_SEARCH_PATH = ("public", "extensions")
ISOLATION = "default_transaction_isolation"
SINGULAR = "application/vnd.pgrst.object+json"


@dataclass(frozen=True, slots=True)
class Exposure:
    """What of the database is shown, and how much at once."""

    schemas: tuple[str, ...]
    """The first is the one that is meant where no header names one."""
    max_rows: int
    older_schema_error: bool


@dataclass(slots=True)
class Work:
    """One request of somebody with these claims."""

    request: Request
    claims: Mapping[str, Any]
    catalogue: Catalogue
    exposure: Exposure
    pool: Pool

    def call(self) -> Response:
        schema, name = self._schema(), self.request.path.removeprefix("/rpc/")
        if "/" in name:
            raise bad_path()
        call = call_for(self.request, schema, name, self.catalogue)
        function, preferences = call.function, preferences_of(self.request, writes=False)
        single = self._wants_single() or not function.set_of
        body = NO_BODY if function.returns == "void" else body_of(scalar=function.returns == "scalar", single=single)
        span = Span().cut_at(self.exposure.max_rows)
        statement = answer_of(call.source, body, span, counted=preferences.counted)
        outcome = self._run(schema, statement, read_only=call.read_only, function=function)
        if function.returns == "void":
            return Response(204, _headers(_content_range(outcome, span), preferences))
        return self._answer(_status_of_rows(outcome, span), schema, outcome, _content_range(outcome, span), preferences)

    def table(self) -> Response:
        schema = self._schema()
        table = self._table(schema)
        return self._read(table) if self.request.reads else self._write(table)

    def _read(self, table: Table) -> Response:
        preferences, choice = preferences_of(self.request, writes=False), choice_of(self.request, table)
        span = choice.span.cut_at(self.exposure.max_rows)
        body = body_of(scalar=False, single=self._wants_single())
        statement = answer_of(read_source(table, choice), body, span, counted=preferences.counted)
        outcome = self._run(table.schema, statement, read_only=True)
        return self._answer(_status_of_rows(outcome, span), table.schema, outcome, _content_range(outcome, span), preferences)

    def _write(self, table: Table) -> Response:
        """What is written is never cut."""
        preferences, choice = preferences_of(self.request, writes=True), choice_of(self.request, table)
        source = write_source(self.request, table, choice, returned=preferences.represented)
        body = body_of(scalar=False, single=self._wants_single()) if preferences.represented else NO_BODY
        outcome = self._run(table.schema, answer_of(source, body, Span(), counted=preferences.counted), read_only=False)
        rows = outcome if self.request.method == "PATCH" else replace(outcome, rows=0)
        content_range, creates = _content_range(rows, Span()), self.request.method == "POST"
        if preferences.represented:
            return self._answer(201 if creates else 200, table.schema, outcome, content_range, preferences)
        return Response(201 if creates else 204, _headers(content_range, preferences))

    def _run(self, schema: str, statement: Statement, *, read_only: bool, function: Function | None = None) -> Outcome:
        isolation = self._role_settings().get(ISOLATION, "read committed")
        transaction = Transaction(
            settings=self._settings(schema, function),
            statement=statement,
            read_only=read_only,
            isolation=isolation if function is None else function.settings.get(ISOLATION, isolation),
            check=_check_single if self._wants_single() else _check,
        )
        return transaction.run(self.pool, authenticated=self._role() != ANONYMOUS)

    def _schema(self) -> str:
        header = "accept-profile" if self.request.reads else "content-profile"
        schema = self.request.headers.get(header, self.exposure.schemas[0])
        if schema not in self.exposure.schemas:
            raise not_exposed(schema, self.exposure.schemas, older=self.exposure.older_schema_error)
        return schema

    def _table(self, schema: str) -> Table:
        name = self.request.path.removeprefix("/")
        if not name:
            raise unknown_to_the_stand_in("the OpenAPI description at the root")
        if "/" in name:
            raise bad_path()
        table = self.catalogue.tables.get((schema, name))
        if table is None:
            raise no_table(schema, name, self.catalogue.near_table(schema, name))
        return table

    def _wants_single(self) -> bool:
        kinds = [one.partition(";")[0].strip() for one in self.request.headers.get("accept", "*/*").split(",")]
        if SINGULAR in kinds:
            return True
        if not {"application/json", "application/*", "*/*"} & set(kinds):
            raise not_acceptable(", ".join(kinds))
        return False

    def _role(self) -> str:
        role = self.claims.get("role", ANONYMOUS)
        return role if isinstance(role, str) else json.dumps(role)

    def _role_settings(self) -> Mapping[str, str]:
        return self.catalogue.role_settings.get(self._role(), {})

    def _settings(self, schema: str, function: Function | None) -> list[tuple[str, str]]:
        """The role's own come before the role, as whom they might not be set; a function's come last."""
        path = ", ".join(f'"{one}"' for one in (schema, *EXTRA_SEARCH_PATH))
        headers = {name: value for name, value in self.request.headers.items() if name != "cookie"}
        settings = [
            ("search_path", path),
            *self._role_settings().items(),
            ("role", self._role()),
            ("request.jwt.claims", json.dumps({**self.claims, "role": self._role()})),
            ("request.method", self.request.method),
            ("request.path", self.request.path),
            ("request.headers", json.dumps(headers)),
            *({} if function is None else function.settings).items(),
        ]
        return [(name, value) for name, value in settings if name != ISOLATION]

    def _answer(self, status: int, schema: str, outcome: Outcome, content_range: str, preferences: Preferences) -> Response:
        kind = f"{SINGULAR}; charset=utf-8" if self._wants_single() else JSON_TYPE
        headers = {"Content-Type": kind, "Content-Profile": schema, **_headers(content_range, preferences)}
        return Response(status, headers, (outcome.body or "").encode())


def _check(outcome: Outcome) -> None:
    if outcome.status is not None or outcome.headers is not None:
        raise unknown_to_the_stand_in("response.status and response.headers")


def _check_single(outcome: Outcome) -> None:
    _check(outcome)
    if outcome.rows != 1:
        raise not_one_row(outcome.rows)


def _status_of_rows(outcome: Outcome, span: Span) -> int:
    if outcome.total is None:
        return 200
    if span.offset > outcome.total:
        details = f"An offset of {span.offset} was requested, but there are only {outcome.total} rows."
        raise Refusal(416, "PGRST103", "Requested range not satisfiable", details)
    return 206 if outcome.rows < outcome.total else 200


def _content_range(outcome: Outcome, span: Span) -> str:
    rows = f"{span.offset}-{span.offset + outcome.rows - 1}" if outcome.rows and outcome.total != 0 else "*"
    return f"{rows}/{'*' if outcome.total is None else outcome.total}"


def _headers(content_range: str, preferences: Preferences) -> dict[str, str]:
    return {"Content-Range": content_range} | ({"Preference-Applied": preferences.applied} if preferences.applied else {})
