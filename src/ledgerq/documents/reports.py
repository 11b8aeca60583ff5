"""From what became of a document to the outcome of its task."""

from __future__ import annotations

import traceback
from hashlib import sha256
from typing import Final

from ledgerq.documents.stages import Plan, Prepared
from ledgerq.errors import NotFound, ServiceUnavailable
from ledgerq.models import DocumentWork, JsonObject
from ledgerq.outcomes import Completed, DocumentEffect, Failed, Outcome, Retry, TaskError, Usage
from ledgerq.retry import Judgement, RetryPolicy, classify, retry_after_s

_AWAY: Final = RetryPolicy(base_s=10.0, factor=1.0)
"""For a service that is away and does not say for how long: 5 to 10 s, without charge, until the job's deadline."""

_POSTPONED: Final = RetryPolicy(base_s=60.0, factor=1.0)
"""For what waits behind those: 30 to 60 s."""


def indexed(task: int, prepared: Prepared, plan: Plan, *, tokens: int, usage: tuple[Usage, ...]) -> Completed:
    """All points are stored: the effect makes them the live ones."""
    work, chunks = prepared.work, len(prepared.chunks)
    effect = DocumentEffect(
        document=work.document,
        revision=work.revision,
        generation=work.generation,
        points=chunks,
        chunks=chunks,
        digest=prepared.digest,
        usage=usage,
    )
    result: JsonObject = {
        "uri": work.uri,
        "content_type": prepared.content_type,
        "pages": prepared.pages,
        "chunks": chunks,
        "points": chunks,
        "embedded": len(plan.missing),
        "reused": plan.reused,
        "kept": plan.kept,
        "tokens": tokens,
    }
    return Completed({key: value for key, value in result.items() if value is not None}, effects=(effect,), task=task)


def unchanged(task: int, work: DocumentWork) -> Completed:
    """Nothing to do: content and config are those of the live generation."""
    points = work.live.points if work.live else 0
    return Completed({"uri": work.uri, "unchanged": True, "chunks": points, "points": points, "embedded": 0, "reused": 0}, task=task)


def unknown(task: int, work: DocumentWork) -> Failed:
    return failed(task, NotFound(f"document {work.document} does not exist"))


def failure(task: int, error: BaseException, *, attempts: int, uri: str) -> Outcome:
    """What an error says about the document it happened to. A service that is away costs no attempt."""
    if isinstance(error, ServiceUnavailable):
        return Retry(
            reason=type(error).__name__,
            after_s=_AWAY.delay_s(0) if error.retry_after is None else error.retry_after,
            throttled=True,
            error=_described(error, uri),
            task=task,
        )
    judgement = classify(error)
    if judgement is Judgement.PERMANENT:
        return failed(task, error, uri=uri)
    throttled = judgement is Judgement.THROTTLED
    after_s = retry_after_s(error) if throttled else RetryPolicy().delay_s(attempts)
    return Retry(reason=type(error).__name__, after_s=after_s, throttled=throttled, error=_described(error, uri), task=task)


def postponed(task: int, error: ServiceUnavailable) -> Retry:
    """For a task that was not begun because others of its window found a service away. They see first whether it is back, so this
    one waits longer; and not all of them equally long, so that they do not come back at the same moment."""
    after_s = _POSTPONED.delay_s(0) if error.retry_after is None else error.retry_after * (1 + _POSTPONED.draw())
    return Retry(reason=type(error).__name__, after_s=after_s, throttled=True, error=_described(error, ""), task=task)


def failed(task: int, error: BaseException, *, uri: str = "") -> Failed:
    return Failed(_described(error, uri), task=task)


def _described(error: BaseException, uri: str) -> TaskError:
    said = str(error) or type(error).__name__
    kind = type(error)
    name = kind.__qualname__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__qualname__}"
    # Failures of the same kind have the same digest, whichever document they happened to.
    return TaskError(
        type=name,
        message=said if uri in said else f"{uri}: {said}",
        digest=sha256(f"{name}\n{said.replace(uri, '')}".encode(errors="replace")).hexdigest()[:16],
        traceback="".join(traceback.format_exception(error))[-4_000:],
    )
