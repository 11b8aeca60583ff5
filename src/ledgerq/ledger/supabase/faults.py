"""What the answers of a project's API mean that are not the database's.

| answer | exception |
|---|---|
| PGRST000 to PGRST003: no connection to the database, or no schema cache, in time | repeated, then `LedgerUnavailable` |
| PGRST106: the schema is not exposed | `ConfigurationError`, says where to expose it |
| PGRST202: no such function, or a schema cache older than the migration | repeated, then `SchemaMismatch` |
| PGRST203 | `SchemaMismatch` |
| PGRST301 to PGRST303, 401 and 403 in JSON: the key | `ConfigurationError` |
| 404, 405, 3xx, a page of HTML: no API at that address, or not now | repeated, then `ConfigurationError` |
| JSON that was cut, or is none of a function's | repeated, then `LedgerUnavailable` |
| 413 | `TooLarge` |
| 408, 425, 429, 5xx, no answer at all | repeated, then `LedgerUnavailable` |
| SQLSTATE of the database | see `errors_table` |
| anything else | `LedgerUnavailable` |
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

import httpx
from postgrest.exceptions import APIError

from ledgerq.errors import ConfigurationError, LedgerqError, LedgerUnavailable, SchemaMismatch, ServiceUnavailable, TooLarge
from ledgerq.ledger.errors_table import ServerFault

SQLSTATE: Final = re.compile(r"[0-9A-Z]{5}")
LONGEST_QUOTE: Final = 200
"""Characters of a foreign page that a message repeats."""


@dataclass(frozen=True, slots=True)
class Meaning:
    """What is told of a refusal, and whether it may pass."""

    error: type[LedgerqError]
    advice: str = ""
    is_repeatable: bool = False


NOT_YET: Final = Meaning(LedgerUnavailable, is_repeatable=True)
WRONG_KEY: Final = Meaning(ConfigurationError, "the project does not accept the key; check SUPABASE_SERVICE_ROLE_KEY")
NO_API: Final = Meaning(ConfigurationError, "there is no API of a Supabase project at that address; check SUPABASE_URL", is_repeatable=True)
"""Also what a gateway says for a moment while it is changed, which a worker must not end for."""

BY_CODE: Final[dict[str, Meaning]] = {
    "PGRST000": NOT_YET,
    "PGRST001": NOT_YET,
    "PGRST002": NOT_YET,
    "PGRST003": NOT_YET,
    "PGRST106": Meaning(
        ConfigurationError,
        "the project's API does not expose the schema; add `ledgerq` under Project Settings > Data API > Exposed schemas,"
        " or to `[api] schemas` in supabase/config.toml",
    ),
    # It is heard within a second of a migration that says `notify pgrst`.
    "PGRST202": Meaning(
        SchemaMismatch,
        "this project has no ledger, or one of another version; run `ledgerq migrate` or `supabase db push`, and after a migration"
        " by hand `notify pgrst, 'reload schema'`",
        is_repeatable=True,
    ),
    "PGRST203": Meaning(SchemaMismatch, "this project has two functions of that name in the ledger; run `ledgerq migrate`"),
    "PGRST301": WRONG_KEY,
    "PGRST302": WRONG_KEY,
    "PGRST303": WRONG_KEY,
    # The database's own, where the advice for a direct connection would not help.
    "42501": Meaning(ConfigurationError, "this key may not use the ledger; give the secret key, or the service_role key"),
}
BY_STATUS: Final[dict[int, Meaning]] = {
    401: WRONG_KEY,
    403: WRONG_KEY,
    404: NO_API,
    405: NO_API,
    408: NOT_YET,
    413: Meaning(TooLarge, "the project's gateway takes no request of this size"),
    425: NOT_YET,
    429: Meaning(LedgerUnavailable, "the project asks for fewer calls", is_repeatable=True),
    540: Meaning(LedgerUnavailable, "the project is paused; resume it on its dashboard"),
}


@dataclass(slots=True, eq=False)
class ApiFault(ServerFault):
    """The API, or something before it, did not let the call through to the database. `sqlstate` is its code, or the HTTP status."""

    meaning: Meaning = NOT_YET

    def __str__(self) -> str:
        return f"{self.message} ({self.sqlstate})"

    @property
    def is_repeatable(self) -> bool:
        return self.meaning.is_repeatable

    def as_error(self, doing: str) -> LedgerqError:
        told = f"{doing}: {self.meaning.advice} ({self})" if self.meaning.advice else f"{doing}: {self}"
        if issubclass(self.meaning.error, ServiceUnavailable):
            return self.meaning.error(told, retry_after=self.retry_after)
        return self.meaning.error(told)


def api_fault(error: APIError, response: httpx.Response) -> ServerFault:
    """The fault behind supabase-py's error."""
    code, message = error.code or "", error.message or response.reason_phrase
    if code in BY_CODE:
        return ApiFault(code, _with_hint(message, error.hint), meaning=BY_CODE[code], retry_after=_retry_after(response))
    if SQLSTATE.fullmatch(code):
        return ServerFault(code, message, error.hint or "")
    if code == str(response.status_code):  # supabase-py's own words for a body that is none of PostgREST's
        quoted = _quoted(str(error.details or ""))
        return _by_status(response, f"{message}: {quoted}" if quoted else message, is_json=False)
    return _by_status(response, _with_hint(message, error.hint), code)


def not_the_api(response: httpx.Response) -> ServerFault:
    """The fault where something answers that is no JSON."""
    kind = response.headers.get("content-type") or "nothing"
    return _by_status(response, f"answered with {kind}: {_quoted(response.text)}")


def broken_json(response: httpx.Response) -> ServerFault:
    """The fault where an answer says that it is JSON, and is none: it was cut on its way."""
    return ApiFault(f"HTTP {response.status_code}", f"answered with broken JSON: {_quoted(response.text)}")


def no_answer(error: httpx.HTTPError) -> ServerFault:
    """The fault where nothing is heard, or no HTTP. Whether the call took effect is unknown."""
    if isinstance(error, httpx.TimeoutException):
        return ApiFault("no reply", "no answer in time")
    if isinstance(error, httpx.UnsupportedProtocol):
        return ApiFault("no reply", str(error), meaning=NO_API)
    return ApiFault("no reply", str(error) or type(error).__name__)


def _by_status(response: httpx.Response, message: str, code: str = "", *, is_json: bool = True) -> ApiFault:
    status = response.status_code
    # Who knows keys answers in JSON: a page with 401 or 403 is a firewall's, or of a gateway that is being changed.
    meaning = NO_API if status in (401, 403) and not is_json else _meaning(status)
    return ApiFault(code or f"HTTP {status}", message, meaning=meaning, retry_after=_retry_after(response))


def _meaning(status: int) -> Meaning:
    if status in BY_STATUS:
        return BY_STATUS[status]
    if status < 400:
        return NO_API
    return NOT_YET if status >= 500 else Meaning(LedgerUnavailable)


def _retry_after(response: httpx.Response) -> float | None:
    """Seconds; a date is not worth reading for how long to wait."""
    text = response.headers.get("retry-after", "")
    return float(text) if re.fullmatch(r"[0-9]{1,6}", text) else None


def _quoted(text: str) -> str:
    return " ".join(text.split())[:LONGEST_QUOTE]


def _with_hint(message: str, hint: str | None) -> str:
    return f"{message}; {hint}" if hint else message
