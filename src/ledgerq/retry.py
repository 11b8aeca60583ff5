"""How long to wait before the next try, and which exceptions are worth one."""

from __future__ import annotations

import random
import ssl
from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from ledgerq.errors import ConfigurationError, DocumentError, InvalidInput, NotFound, ServiceUnavailable, WrongState


@dataclass(frozen=True, slots=True, kw_only=True)
class RetryPolicy:
    """Exponential backoff with jitter: a wait drawn evenly from half to all of `base_s * factor ** attempts`."""

    base_s: float = 2.0
    factor: float = 2.0
    longest_s: float = 600.0
    draw: Callable[[], float] = random.random

    def __post_init__(self) -> None:
        if self.base_s < 0 or self.factor < 1 or self.longest_s < 0:
            raise InvalidInput(
                f"retry policy: base_s {self.base_s} and longest_s {self.longest_s} must not be negative, factor {self.factor} not below 1"
            )

    def delay_s(self, attempts: int) -> float:
        """Seconds to wait after `attempts` answered tries (0 for the first)."""
        exponent = min(attempts, 64)
        longest = min(self.longest_s, self.base_s * self.factor**exponent)
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


def classify(error: BaseException) -> Judgement:
    """Whether trying again can help. Asked in this order:

    1. a `code` of the provider that means "waiting does not help" is permanent, whatever the HTTP status;
    2. a `retry_after` (seconds) on the exception is throttled;
    3. the exception's own class and then its bases, by the two tables above (library types by qualified name);
    4. an HTTP status on the exception: 408, 409, 425, 429 and 5xx are transient, other 4xx permanent;
    5. anything else is transient: attempts are bounded, and an unknown error is more often the world's than ours.
    """
    if getattr(error, "code", None) in _PERMANENT_PROVIDER_CODES:
        return Judgement.PERMANENT
    if retry_after_s(error) is not None:
        return Judgement.THROTTLED
    return _by_class(type(error)) or _by_http_status(error) or Judgement.TRANSIENT


def retry_after_s(error: BaseException) -> float | None:
    """The wait that the exception asks for, when it carries one (`retry_after` or `retry_after_s`, in seconds)."""
    for name in ("retry_after", "retry_after_s"):
        value = getattr(error, name, None)
        if isinstance(value, int | float) and not isinstance(value, bool) and value >= 0:
            return float(value)
    return None


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


def _by_http_status(error: BaseException) -> Judgement | None:
    status = getattr(error, "status_code", None)
    if not isinstance(status, int) or status < 400:
        return None
    return Judgement.TRANSIENT if status in (408, 409, 425, 429) or status >= 500 else Judgement.PERMANENT
