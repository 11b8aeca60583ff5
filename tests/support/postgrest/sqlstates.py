"""Errors of the database as HTTP: PostgREST's table, and the two ways in which SQL can choose the answer itself."""

from __future__ import annotations

import json
from typing import Any

import psycopg

from tests.support.postgrest.refusals import Refusal, connection_lost

STATUSES = {
    "08": 503, "09": 500, "0L": 403, "0P": 403, "23503": 409, "23505": 409, "25006": 405, "25": 500, "28": 403, "2D": 500,
    "38": 500, "39": 500, "3B": 500, "40": 500, "53400": 500, "53": 503, "54": 500, "55": 500, "57P01": 503, "57": 500,
    "58": 500, "F0": 500, "HV": 500, "P0001": 400, "P0": 500, "XX": 500, "42883": 404, "42P01": 404, "42P17": 500,
}  # fmt: skip
"""By SQLSTATE, or else by its class; anything else is 400. Some depend on more: see `status_of`."""


def refusal_of(error: psycopg.Error, *, authenticated: bool) -> Refusal:
    """The answer to an error of the database; one without SQLSTATE is the loss of the connection."""
    if error.sqlstate is None:
        return connection_lost(str(error))
    message, details = error.diag.message_primary or "", error.diag.message_detail
    if error.sqlstate == "PGRST":
        return _as_it_says(message, details)
    status = status_of(error.sqlstate, message, authenticated=authenticated)
    headers = {"WWW-Authenticate": "Bearer"} if status == 401 else {}
    return Refusal(status, error.sqlstate, message, details, error.diag.message_hint, headers)


def status_of(sqlstate: str, message: str = "", *, authenticated: bool = True) -> int:
    """`authenticated`: as any role but the anonymous one."""
    match sqlstate:
        case "42501":
            return 403 if authenticated else 401
        case "21000":
            return 400 if message.endswith("requires a WHERE clause") else 500
        case "22023":
            return 401 if message.startswith("role") and message.endswith("does not exist") else 400
        case _ if sqlstate.startswith("PT"):
            return int(sqlstate[2:]) if sqlstate[2:].isdigit() else 500
        case _:
            return STATUSES.get(sqlstate, STATUSES.get(sqlstate[:2], 400))


def _as_it_says(message: str, details: str | None) -> Refusal:
    """`raise sqlstate 'PGRST'`: the message is the body, the detail is status and headers."""
    said, how = _object(message), _object(details)
    if said is None or not {"code", "message"} <= said.keys():
        hint = "MESSAGE must be a JSON object with obligatory keys: 'code', 'message' and optional keys: 'details', 'hint'."
        return _unreadable(f"Invalid JSON value for MESSAGE: '{message}'", hint)
    if how is None or not {"status", "headers"} <= how.keys():
        hint = "DETAIL must be a JSON object with obligatory keys: 'status', 'headers' and optional key: 'status_text'."
        missing = "DETAIL is missing in the RAISE statement"
        return _unreadable(missing if details is None else f"Invalid JSON value for DETAIL: '{details}'", hint)
    return Refusal(how["status"], said["code"], said["message"], said.get("details"), said.get("hint"), how["headers"])


def _unreadable(details: str, hint: str) -> Refusal:
    return Refusal(500, "PGRST121", "Could not parse JSON in the \"RAISE SQLSTATE 'PGRST'\" error", details, hint)


def _object(text: str | None) -> dict[str, Any] | None:
    try:
        value = json.loads(text or "")
    except ValueError:
        return None
    return value if isinstance(value, dict) else None
