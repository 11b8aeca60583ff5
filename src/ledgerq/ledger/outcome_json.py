"""Outcomes as the ledger takes them: cleaned, capped, and never able to stop the window they are in.

One outcome with a NUL or a NaN in its result would fail the acknowledgement of its whole window, again at every repeat.
What can be mended is mended here; what cannot be stored fails its own task, as `unreportable`.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Final, cast

from pydantic_core import from_json, to_json

from ledgerq.errors import InvalidInput
from ledgerq.logs import get_logger
from ledgerq.models import Json, JsonObject
from ledgerq.outcomes import Cancelled, Completed, Failed, Outcome, Retry, TaskError, Usage

RESULT_BYTES: Final = 65_536
"""Largest result of a task, as jsonb prints it."""
ERROR_BYTES: Final = 8_192
"""Largest error of a task. A larger one is shortened: its data goes first, then the middle of its traceback."""
LONGEST_WAIT_S: Final = 31_536_000.0
"""A year: no handler's wish reaches further."""

log = get_logger("ledgerq.runner")


@dataclass(frozen=True, slots=True)
class Returned:
    """The task goes back untouched: it was held and never begun. Costs nothing."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskReport:
    """What a runner tells the ledger of one held task."""

    task: int
    outcome: Outcome | Returned
    after_s: float | None = None
    """Wait before the next try, as the retry policy says; what the outcome itself asks for comes first."""
    duration_s: float | None = None
    """From being taken to the outcome."""
    usage: tuple[Usage, ...] = ()
    """Billed calls that the handler recorded, beyond those of the outcome's effects. They count whatever the outcome."""
    entry: JsonObject | None = None
    """The report as it is sent, when it was fixed before."""


def fixed(report: TaskReport, *, passing: tuple[type[Exception], ...] = ()) -> TaskReport:
    """The report with its JSON made now: what is done to the objects in it afterwards changes nothing."""
    return replace(report, entry=outcome_json(report, passing=passing))


def outcome_json(report: TaskReport, *, passing: tuple[type[Exception], ...] = ()) -> JsonObject:
    """The `Outcome` object of `advance_run`. Never raises for what a handler returned.

    Args:
        passing: exceptions that say nothing about the outcome, although they may strike while it is serialised. They are raised.
    """
    if report.entry is not None:
        return report.entry
    try:
        entry = _entry(report.outcome, report.after_s)
    except passing:
        raise
    except Exception as error:  # noqa: BLE001 - whatever serialising a handler's object raises is that task's failure alone
        entry = _unreportable(report.outcome, error)
    entry["task"] = report.task
    _set(entry, "duration_s", _finite(report.duration_s))
    usage = _usage(report, passing)
    if usage:
        entry["usage"] = usage
    return entry


def storable(value: object) -> Json:
    """The value as plain JSON that Postgres can hold. NaN and infinities become null; a NUL and half a surrogate pair
    become U+FFFD; dates, UUIDs, dataclasses, pydantic models and the numbers of array libraries become what they look like in JSON.

    Raises:
        ValueError: JSON cannot say it (also pydantic's serialisation error, which is one), or it is nested too deep.
    """
    try:
        try:
            text = to_json(value, inf_nan_mode="null", fallback=_scalar)
        except ValueError:  # half a surrogate pair, or a type that has no JSON
            text = to_json(_cleaned(value), inf_nan_mode="null", fallback=_scalar)
        if b"\\u0000" in text:
            text = to_json(_cleaned(from_json(text)))
        return from_json(text)
    except RecursionError:
        raise InvalidInput("a value is nested too deep to be stored, or holds itself") from None


def _scalar(value: Any) -> bool | int | float | str:
    """The number in a scalar of numpy, torch and their like, which all have `item()`.

    Raises:
        TypeError: it is no scalar.
    """
    plain: object = value.item() if callable(getattr(value, "item", None)) else None
    if not isinstance(plain, bool | int | float | str):
        raise TypeError(f"{type(value).__qualname__} has no JSON")
    return plain


def _usage(report: TaskReport, passing: tuple[type[Exception], ...]) -> list[Json]:
    """A bill that cannot be said is told in the log, and stops neither its task nor the others of the window."""
    told: list[Json] = []
    for usage in report.usage:
        try:
            told.append(storable(usage))
        except passing:
            raise
        except Exception as error:  # noqa: BLE001 - as above
            log.warning("usage is not recorded", task=report.task, cause=_reason(error))
    return told


def _entry(outcome: Outcome | Returned, after_s: float | None) -> JsonObject:
    match outcome:
        case Completed():
            entry: JsonObject = {"kind": "completed"}
            _set(entry, "result", _result(outcome.result))
            if outcome.effects:
                entry["effects"] = storable(outcome.effects)
        case Retry():
            entry = {"kind": "throttled" if outcome.throttled else "retry"}
            _set(entry, "after_s", _finite(outcome.after_s if outcome.after_s is not None else after_s))
            _set(entry, "error", error_json(outcome.error or (TaskError(type="Retry", message=outcome.reason) if outcome.reason else None)))
        case Failed():
            entry = {"kind": "failed", "error": error_json(outcome.error)}
        case Cancelled():
            entry = {"kind": "cancelled"}
        case Returned():
            entry = {"kind": "returned"}
    return entry


def _set(entry: JsonObject, key: str, value: Json) -> None:
    if value is not None:
        entry[key] = value


def _result(result: object) -> Json:
    if result is None or isinstance(result, bool):
        return result
    value = storable(result)
    size = printed_size(value)
    if size > RESULT_BYTES:
        raise ValueError(f"the result has {size:,} bytes; at most {RESULT_BYTES:,} are kept. Store it elsewhere and return where it is")
    return value


def _unreportable(outcome: object, error: Exception) -> JsonObject:
    """The task fails, but what it cost still counts: usage within effects is read for every kind, and only `completed` flips."""
    reason = _reason(error)
    failure = TaskError(type="unreportable", message=f"the outcome cannot be stored: {reason}")
    entry: JsonObject = {"kind": "failed", "error": error_json(failure)}
    if isinstance(outcome, Completed) and outcome.effects:
        try:
            entry["effects"] = storable(outcome.effects)
        except Exception:  # noqa: BLE001 - then it is the effects that cannot be stored
            return entry
    return entry


def _reason(error: Exception) -> str:
    try:
        return str(error) if isinstance(error, ValueError) else f"{type(error).__name__}: {error}"
    except Exception:  # noqa: BLE001 - an exception of a handler's own, whose text raises
        return type(error).__name__


# --- errors -----------------------------------------------------------------------------------------------------


def error_json(error: TaskError | str | None) -> Json:
    """The error as an object of at most `ERROR_BYTES`, or None."""
    if error is None:
        return None
    if not isinstance(error, TaskError):
        error = TaskError(type="Failed", message=str(error))
    whole = _error_object(error, text=ERROR_BYTES, with_data=True)
    if whole is not None:
        return whole
    shortened = (_error_object(error, text=text, with_data=False) for text in (5_000, 2_000, 400))
    return next((entry for entry in shortened if entry is not None), {"type": "unreportable", "message": "the error could not be stored"})


def _error_object(error: TaskError, *, text: int, with_data: bool) -> JsonObject | None:
    entry: JsonObject = {
        "type": _shortened(error.type, 200),
        "message": _shortened(error.message, min(text, 2_000)),
        "digest": _shortened(error.digest, 128),
        "traceback": _shortened(error.traceback, text),
    }
    if error.data and with_data:
        try:
            entry["data"] = storable(error.data)
        except ValueError:
            entry["data"] = {"unreportable": True}
    elif error.data:
        entry["data"] = {"dropped": "the error was too large"}
    kept = {key: value for key, value in entry.items() if value != ""}
    return kept if printed_size(kept) <= ERROR_BYTES else None


def _shortened(value: object, characters: int) -> str:
    """Head and tail stay: a message begins with what failed, and a traceback ends with where."""
    text = _clean_text(str(value))
    if len(text) <= characters:
        return text
    half = (characters - 5) // 2
    return f"{text[:half]} ... {text[-half:]}"


# --- cleaning ---------------------------------------------------------------------------------------------------

_UNSTORABLE_TEXT: Final = re.compile("[\x00\ud800-\udfff]")


def _cleaned(value: object) -> object:
    if isinstance(value, str):
        return _clean_text(value)
    if isinstance(value, Mapping):
        return {_cleaned(key): _cleaned(inner) for key, inner in cast("Mapping[object, object]", value).items()}
    if isinstance(value, list | tuple):
        return [_cleaned(inner) for inner in cast("list[object]", value)]
    return value


def _clean_text(text: str) -> str:
    if _UNSTORABLE_TEXT.search(text) is None:
        return text
    whole = text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")  # joins the pairs that are whole
    return whole.replace("\x00", "\ufffd")


def printed_size(value: Json) -> int:
    """Bytes of the value as jsonb prints it, with a space after each comma and colon."""
    compact = len(to_json(value))
    if compact * 2 <= ERROR_BYTES:
        return compact
    return len(json.dumps(value, ensure_ascii=False).encode())


def _finite(seconds: object) -> float | None:
    """A number of seconds that the ledger accepts, or None for what is no number."""
    if not isinstance(seconds, int | float) or not math.isfinite(seconds):
        return None
    return min(max(float(seconds), 0.0), LONGEST_WAIT_S)
