"""What is answered instead of a result: PostgREST's own errors (`PGRST…`), each with its HTTP status."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from tests.support.postgrest.messages import JSON_TYPE, Response


@dataclass(eq=False)
class Refusal(Exception):
    """An error's body, status and headers."""

    status: int
    code: str
    message: str
    details: Any = None
    hint: str | None = None
    headers: Mapping[str, str] = field(default_factory=dict)

    def response(self) -> Response:
        body = {"code": self.code, "message": self.message, "details": self.details, "hint": self.hint}
        headers = {"Content-Type": JSON_TYPE, "Proxy-Status": f"PostgREST; error={self.code}", **self.headers}
        if self.status == 503:
            headers["Retry-After"] = "1"
        return Response(self.status, headers, json.dumps(body, ensure_ascii=False).encode())


def unknown_to_the_stand_in(what: str) -> Refusal:
    """For what the real one may well do: nobody has needed it here yet."""
    return Refusal(501, "STANDIN", f"the stand-in does not know {what}")


def no_connection(reason: str) -> Refusal:
    return Refusal(503, "PGRST000", "Database connection error.", details=reason)


def connection_lost(reason: str) -> Refusal:
    return Refusal(503, "PGRST001", "Database client error. Retrying the connection.", details=reason)


def no_schema_cache() -> Refusal:
    return Refusal(503, "PGRST002", "Could not query the database for the schema cache. Retrying.")


def no_connection_in_time() -> Refusal:
    return Refusal(504, "PGRST003", "Timed out acquiring connection from connection pool.")


def bad_query(message: str, details: str) -> Refusal:
    return Refusal(400, "PGRST100", message, details=details)


def bad_method(method: str) -> Refusal:
    return Refusal(405, "PGRST101", f"Cannot use the {method} method on RPC")


def bad_body(message: str) -> Refusal:
    return Refusal(400, "PGRST102", message)


def bad_range(details: str) -> Refusal:
    return Refusal(416, "PGRST103", "Requested range not satisfiable", details=details)


def not_exposed(schema: str, exposed: Sequence[str], *, older: bool) -> Refusal:
    """`older`: as releases before 13.0.7 say it."""
    listed = ", ".join(exposed)
    if older:
        return Refusal(406, "PGRST106", f"The schema must be one of the following: {listed}")
    return Refusal(406, "PGRST106", f"Invalid schema: {schema}", hint=f"Only the following schemas are exposed: {listed}")


def not_acceptable(accept: str) -> Refusal:
    return Refusal(406, "PGRST107", f"None of these media types are available: {accept}")


def not_one_row(rows: int) -> Refusal:
    return Refusal(406, "PGRST116", "Cannot coerce the result to a single JSON object", details=f"The result contains {rows} rows")


def bad_preferences(preferences: Sequence[str]) -> Refusal:
    details = f"Invalid preferences: {', '.join(preferences)}"
    return Refusal(400, "PGRST122", "Invalid preferences given with handling=strict", details=details)


def bad_path() -> Refusal:
    return Refusal(404, "PGRST125", "Invalid path specified in request URL")


def no_column(table: str, column: str) -> Refusal:
    return Refusal(400, "PGRST204", f"Could not find the '{column}' column of '{table}' in the schema cache")


def no_table(schema: str, table: str, near: str | None) -> Refusal:
    hint = near and f"Perhaps you meant the table '{schema}.{near}'"
    return Refusal(404, "PGRST205", f"Could not find the table '{schema}.{table}' in the schema cache", hint=hint)


def bad_token(message: str, details: str | None = None) -> Refusal:
    """It is no JWT of ours."""
    return Refusal(401, "PGRST301", message, details=details, headers=_challenge(message))


def bad_claims(message: str) -> Refusal:
    return Refusal(401, "PGRST303", message, headers=_challenge(message))


def _challenge(message: str) -> dict[str, str]:
    return {"WWW-Authenticate": f'Bearer error="invalid_token", error_description={json.dumps(message)}'}
