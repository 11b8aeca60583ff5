"""From what a handler did (returned, raised, ended, left) to an outcome. Whatever it did, only its own task is touched."""

from __future__ import annotations

import hashlib
import inspect
import traceback
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Final, TypeGuard

from rq.timeouts import BaseTimeoutException

from ledgerq.handlers import Handler, TaskCancelled
from ledgerq.models import Task
from ledgerq.outcomes import Cancelled, Completed, Failed, Outcome, Retry, TaskError
from ledgerq.retry import Judgement, classify, retry_after_s

LONGEST_TRACEBACK: Final = 4_000
OURS: Final = str(Path(__file__).parent)
NOT_OURS_TO_JUDGE: Final[tuple[type[Exception], ...]] = (BaseTimeoutException,)
"""RQ's timeout of the whole run: it may strike in a handler's frame, and says nothing about the task."""


def is_outcome(value: object) -> TypeGuard[Outcome]:
    return isinstance(value, Completed | Retry | Failed | Cancelled)


def task_named_by(value: object) -> object:
    """The task that an outcome of a window handler names; None when it names none, or is no outcome."""
    try:
        return value.task if is_outcome(value) else None
    except NOT_OURS_TO_JUDGE:
        raise
    except BaseException:  # noqa: BLE001 - an object that lies about its class; `outcome_of_return` says so
        return None


def outcome_of_return(value: object, handler: Handler) -> Outcome:
    """The outcome that a handler returned or yielded; nothing means `Completed()`, anything else is its mistake.

    Raises:
        BaseTimeoutException: RQ's own, which is about the run.
    """
    return _judged(handler, lambda: _of_return(value, handler))


def with_policy(outcome: Outcome, task: Task, handler: Handler | None) -> tuple[Outcome, float | None]:
    """The outcome, and the wait of the handler's policy when it is to be tried again.

    Raises:
        BaseTimeoutException: RQ's own, which is about the run.
    """
    if handler is None or not isinstance(outcome, Retry):
        return outcome, None
    try:
        return outcome, handler.retry.delay_s(task.attempts)
    except NOT_OURS_TO_JUDGE:
        raise
    except BaseException as worse:  # noqa: BLE001 - as in `_judged`
        return _misuse(handler, f"has a retry policy that raises {type(worse).__name__}"), None


def _of_return(value: object, handler: Handler) -> Outcome:
    if value is None:
        return Completed()
    if is_outcome(value):
        return value
    if inspect.iscoroutine(value):
        value.close()
        return _misuse(handler, "is a coroutine function; handlers are ordinary functions, see docs/adr/0005")
    if inspect.isgenerator(value):
        value.close()
        return _misuse(handler, "is a generator; register it with `window_handler`, or return one outcome")
    said = f"returned {type(value).__name__!r}"
    return _misuse(
        handler, f"{said}; return an Outcome (Completed, Retry, Failed, Cancelled) or None. A result goes into Completed(result)"
    )


def outcome_of_exception(error: BaseException, task: Task, handler: Handler, *, cancelled: bool) -> Outcome:
    """What an exception that escaped from a handler says about its task, by `retry.classify`.

    `SystemExit` and its like fail the task and nothing else: a task that asks its worker to end has a mistake in it.

    Raises:
        BaseTimeoutException: RQ's own, which is about the run.
    """
    raise_if_not_ours(error)
    return _judged(handler, lambda: _of_exception(error, task, handler, cancelled=cancelled))


def _of_exception(error: BaseException, task: Task, handler: Handler, *, cancelled: bool) -> Outcome:
    if isinstance(error, TaskCancelled):
        return Cancelled() if cancelled else Failed(_error_of(error, "raised TaskCancelled, but its job was not cancelled"))
    if not isinstance(error, Exception):
        return Failed(_error_of(error, f"ended the process with {type(error).__name__}({_text_of(error)}); return or raise instead"))
    judgement = classify(error)
    if judgement is Judgement.PERMANENT:
        return Failed(_error_of(error))
    wait_s = retry_after_s(error) if judgement is Judgement.THROTTLED else handler.retry.delay_s(task.attempts)
    return Retry(reason=type(error).__name__, after_s=wait_s, throttled=judgement is Judgement.THROTTLED, error=_error_of(error))


def raise_if_not_ours(error: BaseException) -> None:
    """Let RQ's timeout of the whole run pass."""
    if isinstance(error, NOT_OURS_TO_JUDGE):
        raise error


def no_outcome(handler: Handler) -> Outcome:
    """For a task that a window handler took and never answered."""
    return _misuse(handler, "ended without an outcome for this task; yield one for each task that is taken")


def no_handler(type_name: str, known: tuple[str, ...]) -> Outcome:
    """This worker cannot do it, another may: wait, without charge, until the job's deadline."""
    message = f"this worker has no handler for jobs of type {type_name!r} (it has: {', '.join(known) or 'none'}); set LEDGERQ_APP for it"
    return Retry(reason="no handler", after_s=30.0, throttled=True, error=TaskError(type="UnknownType", message=message))


def resource_failed(error: BaseException, task: Task, handler: Handler) -> Outcome:
    """A resource could not be made. When trying again may help, it costs no attempt: the task has not begun."""
    judged = outcome_of_exception(error, task, handler, cancelled=False)
    if isinstance(judged, Retry):
        return Retry(reason=judged.reason, after_s=max(1.0, judged.after_s or 0.0), throttled=True, error=judged.error)
    return judged


def _judged(handler: Handler, judge: Callable[[], Outcome]) -> Outcome:
    """Judging runs code of the handler (properties, a policy, what is closed): what that raises is its task's failure, too."""
    try:
        return judge()
    except NOT_OURS_TO_JUDGE:
        raise
    except BaseException as worse:  # noqa: BLE001 - also SystemExit: it ends its task, never its worker
        return _misuse(handler, f"cannot be judged by what it returned or raised: asking that raised {type(worse).__name__}")


def _misuse(handler: Handler, what: str) -> Outcome:
    name = getattr(handler.function, "__qualname__", None) or type(handler.function).__name__
    return Failed(TaskError(type="HandlerMisuse", message=f"handler {handler.type!r} ({name}) {what}"))


def _error_of(error: BaseException, message: str | None = None) -> TaskError:
    return TaskError(type=_name_of(type(error)), message=message or _text_of(error), digest=_digest(error), traceback=_traceback_of(error))


def _name_of(kind: type[BaseException]) -> str:
    return kind.__qualname__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__qualname__}"


def _text_of(error: BaseException) -> str:
    try:
        return str(error) or type(error).__name__
    except NOT_OURS_TO_JUDGE:
        raise
    except Exception as worse:  # noqa: BLE001 - an exception whose own text raises is still only that task's failure
        return f"({type(error).__name__}, whose text raises {type(worse).__name__})"


def _traceback_of(error: BaseException) -> str:
    """The end of the traceback, without our own frames in front."""
    with suppress(Exception):  # formatting calls the exception's own code
        text = "".join(traceback.format_exception(type(error), error, _below_us(error)))
        return text[-LONGEST_TRACEBACK:]
    return ""


def _below_us(error: BaseException):  # noqa: ANN202 - TracebackType | None
    found = error.__traceback__
    while found is not None and found.tb_frame.f_code.co_filename.startswith(OURS):
        found = found.tb_next
    return found


def _digest(error: BaseException) -> str:
    """Equal for failures of the same kind at the same place: the type, and the functions that it passed through."""
    parts = [_name_of(type(error))]
    found = _below_us(error)
    while found is not None:
        code = found.tb_frame.f_code
        parts.append(f"{Path(code.co_filename).name}:{code.co_qualname if hasattr(code, 'co_qualname') else code.co_name}")
        found = found.tb_next
    return hashlib.sha256("\n".join(parts).encode("utf-8", "replace")).hexdigest()[:16]
