"""How long to wait before the next try, and which exceptions are worth one."""

from __future__ import annotations

import math
import random
import ssl
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from enum import StrEnum
from typing import Any, Final

from ledgerq.errors import ConfigurationError, DocumentError, InvalidInput, NotFound, ServiceUnavailable, WrongState


@dataclass(frozen=True, slots=True, kw_only=True)
class RetryPolicy:
    """Exponential backoff with jitter: a wait drawn evenly from half to all of `base_s * factor ** attempts`."""

    base_s: float = 2.0
    factor: float = 2.0
    longest_s: float = 600.0
    draw: Callable[[], float] = random.random

    def __post_init__(self) -> None:
        if not (0 <= self.base_s < math.inf and 1 <= self.factor < math.inf and 0 <= self.longest_s < math.inf):
            raise InvalidInput(
                f"retry policy: base_s {self.base_s} and longest_s {self.longest_s} must not be negative, factor {self.factor} not below 1,"
                " and all of them finite"
            )

    def delay_s(self, attempts: int) -> float:
        """Seconds to wait after `attempts` answered tries (0 for the first)."""
        try:
            longest = min(self.longest_s, self.base_s * self.factor ** min(attempts, 64))
        except OverflowError:
            longest = self.longest_s
        return longest * (0.5 + self.draw() / 2)


class Judgement(StrEnum):
    """What an exception says about trying again."""

    TRANSIENT = "transient"
    """Trying again may help; counts an attempt."""
    THROTTLED = "throttled"
    """The service said how long to wait; costs no attempt."""
    PERMANENT = "permanent"
    """Trying again cannot help."""


PERMANENT_TYPES: Final[tuple[type[BaseException], ...]] = (
    DocumentError,
    InvalidInput,
    NotFound,
    WrongState,
    ConfigurationError,
    ValueError,
    TypeError,
    LookupError,
    AttributeError,
    NameError,
    ArithmeticError,
    AssertionError,
    NotImplementedError,
    SyntaxError,
    ImportError,
    RecursionError,
    FileNotFoundError,
    PermissionError,
    IsADirectoryError,
    NotADirectoryError,
    ssl.SSLCertVerificationError,
)
"""Exceptions that say something about the input, the code or the configuration."""

TRANSIENT_TYPES: Final[tuple[type[BaseException], ...]] = (
    ServiceUnavailable,
    ConnectionError,
    TimeoutError,
    MemoryError,
    OSError,
    EOFError,
)
"""Exceptions that say something about the world at that moment."""

LONGEST_WAIT_S: Final = 31_536_000.0
"""A year: nobody who asks for more means it, and it keeps numbers within what others can hold."""

_PERMANENT_NAMES: Final = frozenset(
    {
        "openai.BadRequestError",
        "openai.AuthenticationError",
        "openai.PermissionDeniedError",
        "openai.NotFoundError",
        "openai.UnprocessableEntityError",
        "httpx.InvalidURL",
        "httpx.UnsupportedProtocol",
        "pypdf.errors.PyPdfError",
        "pydantic_core.ValidationError",
    }
)
_TRANSIENT_NAMES: Final = frozenset(
    {
        "openai.APIConnectionError",
        "openai.RateLimitError",
        "openai.InternalServerError",
        "openai.ConflictError",
        "httpx.TransportError",
        "httpx2.TransportError",
        "requests.exceptions.ConnectionError",
        "requests.exceptions.Timeout",
        "redis.exceptions.ConnectionError",
        "redis.exceptions.TimeoutError",
        "psycopg.OperationalError",
        "qdrant_client.http.exceptions.ResponseHandlingException",
    }
)
_PERMANENT_PROVIDER_CODES: Final = frozenset({"insufficient_quota", "invalid_api_key", "model_not_found", "context_length_exceeded"})
"""Codes under which a provider answers 429 or 4xx although waiting does not help (OpenAI's error reference)."""
_WORTH_REPEATING: Final = frozenset({408, 409, 425, 429})
"""Of the HTTP statuses below 500; those from there on are worth it, too."""


def classify(error: BaseException) -> Judgement:
    """Whether trying again can help. Asked in this order:

    1. a `code` of the provider that means "waiting does not help" is permanent, whatever the HTTP status;
    2. a wait that is asked for (`retry_after_s`) is throttled;
    3. an HTTP status, of the exception or of the `response` that it carries: 408, 409, 425, 429 and 5xx are transient, other
       4xx permanent. Before the classes, since some libraries derive theirs from `OSError`;
    4. the exception's own class and then its bases, by the two tables above (library types by qualified name);
    5. anything else is transient: attempts are bounded, and an unknown error is more often the world's than ours.
    """
    code = _attribute(error, "code")
    if isinstance(code, str) and code in _PERMANENT_PROVIDER_CODES:
        return Judgement.PERMANENT
    if retry_after_s(error) is not None:
        return Judgement.THROTTLED
    return _by_http_status(error) or _by_class(type(error)) or Judgement.TRANSIENT


def retry_after_s(error: BaseException) -> float | None:
    """The wait that the exception asks for, when it carries one: `retry_after` or `retry_after_s` in seconds, or the
    `Retry-After` of an HTTP answer that is worth repeating. A date counts from the answer's own `Date`."""
    for name in ("retry_after", "retry_after_s"):
        value = _attribute(error, name)
        if isinstance(value, int | float) and not isinstance(value, bool) and _is_wait(value):
            return float(min(value, LONGEST_WAIT_S))
    return _wait_in_headers(error) if _by_http_status(error) is Judgement.TRANSIENT else None


def _by_class(kind: type[BaseException]) -> Judgement | None:
    for base in kind.__mro__:
        if base in TRANSIENT_TYPES or _public_name(base) in _TRANSIENT_NAMES:
            return Judgement.TRANSIENT
        if base in PERMANENT_TYPES or _public_name(base) in _PERMANENT_NAMES:
            return Judgement.PERMANENT
    return None


def _public_name(kind: type) -> str:
    root = kind.__module__.split(".")[0]
    short = f"{root}.{kind.__qualname__}"
    full = f"{kind.__module__}.{kind.__qualname__}"
    return short if short in _PERMANENT_NAMES or short in _TRANSIENT_NAMES else full


# --- HTTP, as httpx, requests, urllib, aiohttp, OpenAI's and Qdrant's clients tell it


def _by_http_status(error: BaseException) -> Judgement | None:
    status = _status(error)
    if status is None:
        return None
    return Judgement.TRANSIENT if status >= 500 or status in _WORTH_REPEATING else Judgement.PERMANENT


def _status(error: BaseException) -> int | None:
    response = _attribute(error, "response")
    for owner, name in ((error, "status_code"), (response, "status_code"), (response, "status"), (error, "status"), (error, "code")):
        value = _attribute(owner, name)
        if isinstance(value, int) and 400 <= value < 600:
            return value
    return None


def _wait_in_headers(error: BaseException) -> float | None:
    for owner in (_attribute(error, "response"), error):
        headers = _attribute(owner, "headers")
        milliseconds = _number(_header(headers, "retry-after-ms"))
        if milliseconds is not None:
            return milliseconds / 1_000
        said = _header(headers, "retry-after")
        wait = _number(said)
        wait = _until(said, _header(headers, "date")) if wait is None else wait
        if wait is not None:
            return wait
    return None


def _header(headers: Any, name: str) -> str | None:
    """Of a mapping that does not mind the case, as all these libraries have."""
    try:
        value: object = headers.get(name)
    except Exception:  # noqa: BLE001 - whatever a foreign object raises: then it carries no headers
        return None
    return value if isinstance(value, str) else None


def _number(text: str | None) -> float | None:
    try:
        number = math.nan if text is None else float(text)
    except ValueError:
        return None
    return min(number, LONGEST_WAIT_S) if _is_wait(number) else None


def _is_wait(seconds: float) -> bool:
    return 0 <= seconds < math.inf


def _until(date: str | None, answered_at: str | None) -> float | None:
    """Seconds from the answer to the date, by the clock of the one who answered; by ours where it does not tell."""
    then = _date(date)
    if then is None:
        return None
    return max(0.0, (then - (_date(answered_at) or datetime.now(UTC))).total_seconds())


def _date(text: str | None) -> datetime | None:
    try:
        date = None if text is None else parsedate_to_datetime(text)
    except (ValueError, OverflowError):
        return None
    return date if date is None or date.tzinfo is not None else date.replace(tzinfo=UTC)


def _attribute(thing: object, name: str) -> object:
    """None for one that is missing, or whose property raises."""
    try:
        return getattr(thing, name, None)
    except Exception:  # noqa: BLE001 - whatever a property of a foreign exception raises
        return None
