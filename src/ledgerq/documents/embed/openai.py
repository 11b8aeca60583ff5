"""Vectors from OpenAI, or from a server that speaks its API."""

from __future__ import annotations

import math
import random
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from functools import cached_property
from typing import TYPE_CHECKING, Any, Final

import structlog
from tenacity import RetryCallState, Retrying, retry_if_exception, stop_after_attempt

from ledgerq.documents.embed.base import Embedded, Vector
from ledgerq.documents.tokens import Cl100k
from ledgerq.errors import ConfigurationError, EmbedderUnavailable, InvalidInput, LedgerqError

if TYPE_CHECKING:
    import openai
    from openai.types import CreateEmbeddingResponse

log = structlog.get_logger("ledgerq.documents.embed")

MAX_TOKENS: Final = 8_192
MAX_ITEMS: Final = 2_048
MAX_REQUEST_TOKENS: Final = 300_000
"""Per text, per request, and summed over a request: OpenAI's API reference, embeddings."""


@dataclass(frozen=True, slots=True)
class Model:
    dimensions: int
    price: float
    """US dollars for a million tokens: OpenAI's price list of 2025."""
    may_be_shortened: bool = True


MODELS: Final = {
    "text-embedding-3-small": Model(1_536, 0.02),
    "text-embedding-3-large": Model(3_072, 0.13),
    "text-embedding-ada-002": Model(1_536, 0.10, may_be_shortened=False),
}
_PERMANENT_CODES: Final = frozenset(
    {"insufficient_quota", "billing_hard_limit_reached", "account_deactivated", "invalid_api_key", "model_not_found"}
)
"""Codes, or types of errors without one. Waiting does not help, although some of them come with status 429."""


@dataclass(frozen=True, slots=True, kw_only=True)
class OpenAISettings:
    """How patient to be, beside what the model is."""

    timeout_s: float = 60.0
    """For one call; the client's own default is ten minutes."""
    attempts: int = 4
    """Calls for one batch, where the provider fails or limits for a moment; after that the ledger waits, not the worker."""
    first_wait_s: float = 0.5
    longest_wait_s: float = 5.0
    """A provider that asks for more is reported with the wait it asked for."""
    concurrency: int = 4
    sleep: Callable[[float], None] = time.sleep


class OpenAIEmbedder:
    """See `Embedder`. The client is made at the first call, so after a fork.

    Raises:
        ConfigurationError: a model whose dimensions are not known, or that cannot be shortened to the given ones.
    """

    provider = "openai"
    max_tokens = MAX_TOKENS
    max_batch_items = MAX_ITEMS
    max_batch_tokens = MAX_REQUEST_TOKENS

    def __init__(
        self,
        model: str,
        *,
        api_key: str,
        base_url: str | None = None,
        dimensions: int | None = None,
        settings: OpenAISettings | None = None,
    ) -> None:
        known = MODELS.get(model)
        if known is None and dimensions is None:
            raise ConfigurationError(
                f"embedder openai:{model}: say its dimensions, as in openai:{model}@1024; known without: {', '.join(MODELS)}"
            )
        self.model = model
        self.dimensions = dimensions or (known.dimensions if known else 0)
        self.name = f"{model}-{self.dimensions}"
        self._shortened = known is None or self.dimensions != known.dimensions
        if known and self._shortened and (not known.may_be_shortened or self.dimensions > known.dimensions):
            raise ConfigurationError(f"embedder openai:{model}: it has {known.dimensions} dimensions, not {dimensions}")
        self._price = known.price if known else 0.0
        self._api_key, self._base_url = api_key, base_url
        self._settings = settings or OpenAISettings()
        self.concurrency = self._settings.concurrency
        self._tokenizer = Cl100k()

    def embed(self, texts: Sequence[str]) -> Embedded:
        """See `Embedder.embed`. A short failure of the provider is waited out here; a longer one is `EmbedderUnavailable`."""
        retrying = Retrying(
            stop=stop_after_attempt(self._settings.attempts),
            retry=retry_if_exception(self._is_worth_a_wait),
            wait=self._wait,
            sleep=self._settings.sleep,
            reraise=True,
        )
        return retrying(self._embed_once, list(texts))

    def close(self) -> None:
        """Close the connections. The embedder may be used again."""
        client = self.__dict__.pop("_client", None)
        if client is not None:
            client.close()

    @cached_property
    def _client(self) -> openai.OpenAI:
        try:
            import openai
        except ImportError as error:
            raise ConfigurationError("the embedder openai needs its client: pip install 'ledgerq[openai]'") from error
        # Our own retries know which 429 is worth waiting for, and end; the client's do not stack under them.
        return openai.OpenAI(api_key=self._api_key, base_url=self._base_url, max_retries=0, timeout=self._settings.timeout_s)

    def _embed_once(self, texts: list[str]) -> Embedded:
        client = self._client
        import openai

        try:
            # The newest model families only: an older one refuses the parameter.
            response = (
                client.embeddings.create(model=self.model, input=texts, dimensions=self.dimensions)
                if self._shortened
                else client.embeddings.create(model=self.model, input=texts)
            )
        except openai.APIError as error:
            # Servers that only speak the API may quote the key that they refuse, which then goes no further.
            raise _ours(error, self.model, len(texts), self._api_key) from (None if self._api_key in str(error) else error)
        except (AttributeError, TypeError, ValueError) as error:
            # The client takes a 200 for an answer: a proxy's page, JSON that was cut, no data.
            raise EmbedderUnavailable(f"openai:{self.model} answered something else than vectors ({error})"[:500]) from error
        return self._checked(response, texts)

    def _checked(self, response: CreateEmbeddingResponse, texts: list[str]) -> Embedded:
        """By index: the API promises no order."""
        wanted = len(texts)
        try:
            vectors: dict[int, Vector] = {item.index: list(map(float, item.embedding)) for item in response.data}
        except (AttributeError, TypeError, ValueError) as error:
            raise EmbedderUnavailable(f"openai:{self.model} answered something else than vectors ({error})"[:500]) from error
        if sorted(vectors) != list(range(wanted)):
            raise EmbedderUnavailable(f"openai:{self.model} answered {len(vectors)} vectors for {wanted} texts")
        for vector in vectors.values():
            if len(vector) != self.dimensions:
                has = len(vector)
                raise ConfigurationError(
                    f"openai:{self.model} answers {has} dimensions, not {self.dimensions}: write openai:{self.model}@{has}"
                )
            if not all(map(math.isfinite, vector)):
                raise EmbedderUnavailable(f"openai:{self.model} answered a vector that is not finite")
        tokens = self._tokens(response, texts)
        return Embedded([vectors[index] for index in range(wanted)], tokens, tokens * self._price / 1_000_000)

    def _tokens(self, response: CreateEmbeddingResponse, texts: list[str]) -> int:
        """As billed; counted here where a server that only speaks the API does not say."""
        billed: object = getattr(getattr(response, "usage", None), "total_tokens", None)
        return billed if isinstance(billed, int) else sum(self._tokenizer.count(texts))

    def _is_worth_a_wait(self, error: BaseException) -> bool:
        return isinstance(error, EmbedderUnavailable) and (error.retry_after or 0) <= self._settings.longest_wait_s

    def _wait(self, state: RetryCallState) -> float:
        """What the provider asked for, else exponential with jitter: half to all of it."""
        error = state.outcome.exception() if state.outcome else None
        log.info("embedding waits", model=self.model, attempt=state.attempt_number, error=str(error))
        if isinstance(error, EmbedderUnavailable) and error.retry_after is not None:
            return error.retry_after
        longest = min(self._settings.first_wait_s * 2 ** (state.attempt_number - 1), self._settings.longest_wait_s)
        return longest * (0.5 + random.random() / 2)  # noqa: S311 - jitter


def _ours(error: openai.APIError, model: str, texts: int, api_key: str) -> LedgerqError:
    """The provider's error as one of ours, without the key."""
    import openai

    said = f"openai:{model}: {_said(error, api_key)}"
    status = error.status_code if isinstance(error, openai.APIStatusError) else None
    if error.code in _PERMANENT_CODES or error.type in _PERMANENT_CODES or status in (401, 403, 404):
        return ConfigurationError(f"{said}; check the key, its quota and the model's name")
    if status is None or status in (408, 409, 425, 429) or status >= 500:
        return EmbedderUnavailable(said, retry_after=_retry_after(error))
    return InvalidInput(f"{said} (a batch of {texts} texts)")


def _said(error: openai.APIError, api_key: str) -> str:
    body: Any = error.body
    message = body.get("message") if isinstance(body, dict) else None  # pyright: ignore[reportUnknownMemberType, reportUnknownVariableType] - the body is any JSON
    return f"{type(error).__name__}: {message or error.message}".replace(api_key, "(the key)")[:500]


def _retry_after(error: openai.APIError) -> float | None:
    """Seconds, from the headers that OpenAI and others send."""
    headers: Mapping[str, str] = getattr(getattr(error, "response", None), "headers", {})
    for name, unit in (("retry-after-ms", 0.001), ("retry-after", 1.0)):
        try:
            seconds = float(headers[name]) * unit
        except (KeyError, ValueError):
            continue
        if math.isfinite(seconds) and seconds >= 0:
            return seconds
    return _until(headers.get("retry-after"), headers.get("date"))


def _until(date: str | None, now: str | None) -> float | None:
    """Seconds between two HTTP dates, both of the server's clock: ours may be wrong."""
    try:
        return max(0.0, (parsedate_to_datetime(date or "") - parsedate_to_datetime(now or "")).total_seconds())
    except (TypeError, ValueError):
        return None
