"""Qdrant's failures as ours."""

from __future__ import annotations

import json
from collections.abc import Generator
from contextlib import contextmanager

from qdrant_client.common.client_exceptions import ResourceExhaustedResponse
from qdrant_client.http.exceptions import ApiException, ResponseHandlingException, UnexpectedResponse

from ledgerq.errors import ConfigurationError, InvalidInput, LedgerqError, VectorsUnavailable


class NoCollection(VectorsUnavailable):
    """The collection does not exist. Whoever stores next makes it again."""


@contextmanager
def translated(doing: str) -> Generator[None]:
    """Raise ours for the client's.

    Raises:
        NoCollection: as above.
        VectorsUnavailable: no answer, or one that says "later" (with `retry_after`).
        ConfigurationError: the key is refused, or something else than Qdrant answers.
        InvalidInput: the request is refused; repeating it cannot help.
    """
    try:
        yield
    except ResourceExhaustedResponse as error:
        raise VectorsUnavailable(f"Qdrant asks to wait before {doing}: {error}", retry_after=float(error.retry_after_s)) from error
    except UnexpectedResponse as error:
        raise _by_status(error, doing) from error
    except (ResponseHandlingException, ApiException) as error:
        raise VectorsUnavailable(f"Qdrant did not answer while {doing}: {error}") from error


def _by_status(error: UnexpectedResponse, doing: str) -> LedgerqError:
    status = error.status_code or 500
    said = f"Qdrant answered {status} while {doing}: {_content(error)}"
    if status in (401, 403):
        return ConfigurationError(f"{said}; check QDRANT_API_KEY")
    if status == 404:
        return NoCollection(said) if _is_qdrants(error) else ConfigurationError(f"{said}; check QDRANT_URL: it is no Qdrant")
    if status in (408, 425, 429) or status >= 500:
        return VectorsUnavailable(said)
    return InvalidInput(said)


def _is_qdrants(error: UnexpectedResponse) -> bool:
    """Its refusals are JSON with a `status`; a page that is not found has none."""
    try:
        return "status" in json.loads(error.content)
    except (ValueError, TypeError):
        return False


def _content(error: UnexpectedResponse) -> str:
    return error.content.decode(errors="replace")[:500]
