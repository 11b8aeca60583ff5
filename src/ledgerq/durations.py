"""Durations as people write them: `90`, `"90s"`, `"5m"`, `"1h"`, `"7d"` or a `timedelta`."""

from __future__ import annotations

import math
import re
from datetime import timedelta
from typing import Annotated, Final, TypeAlias

from pydantic import BeforeValidator

from ledgerq.errors import InvalidInput

Duration: TypeAlias = float | int | str | timedelta

_UNITS: Final = {"": 1.0, "ms": 0.001, "s": 1.0, "m": 60.0, "h": 3_600.0, "d": 86_400.0}
_WRITTEN: Final = re.compile(r"^\s*(\d+(?:\.\d+)?)\s*(ms|s|m|h|d|)\s*$")


def seconds(value: Duration, *, name: str = "duration") -> float:
    """The duration in seconds.

    Raises:
        InvalidInput: it is negative, not finite, or not written as a number with a unit of `ms s m h d`.
    """
    result = _parse(value, name)
    if not math.isfinite(result) or result < 0:
        raise InvalidInput(f"{name}: {value!r} must be a finite number of seconds, not negative")
    return result


def _parse(value: Duration, name: str) -> float:
    if isinstance(value, timedelta):
        return value.total_seconds()
    if isinstance(value, bool):
        raise InvalidInput(f"{name}: {value!r} is not a duration; write seconds, or a text like '90s', '5m', '1h'")
    if isinstance(value, int | float):
        return float(value)
    match = _WRITTEN.match(value) if isinstance(value, str) else None  # pyright: ignore[reportUnnecessaryIsInstance] - callers err
    if match is None:
        raise InvalidInput(f"{name}: {value!r} is not a duration; write seconds, or a text like '90s', '5m', '1h'")
    return float(match[1]) * _UNITS[match[2]]


Seconds = Annotated[float, BeforeValidator(seconds)]
"""A field of settings: written like any `Duration`, read as seconds."""
