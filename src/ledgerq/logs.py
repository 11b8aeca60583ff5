"""Structured logs of the whole life of a job: quiet until somebody asks to hear them.

Loggers are structlog's, over the standard library's loggers of the same names (`ledgerq.manager`, `ledgerq.sync` …). A
program that configures `logging` hears us through its own handlers; one that does not hears warnings on stderr and nothing
else. Importing ledgerq touches neither structlog's nor logging's global configuration.
"""

from __future__ import annotations

import json
import logging
import sys
from collections.abc import Mapping, MutableMapping
from contextlib import suppress
from datetime import UTC, datetime
from typing import Any, Final, NoReturn, TextIO, cast

import structlog
from structlog.typing import FilteringBoundLogger, Processor

ROOT: Final = "ledgerq"
FIELDS: Final = "ledgerq_fields"
"""The attribute of a log record that carries the event's values, for formatters of your own."""


def get_logger(name: str, **values: object) -> FilteringBoundLogger:
    """A structlog logger whose events go to the standard logger of that name; `values` are bound to each event."""
    logger = structlog.wrap_logger(
        logging.getLogger(name),
        processors=_PROCESSORS,
        wrapper_class=structlog.make_filtering_bound_logger(logging.NOTSET),
        context_class=dict,
        cache_logger_on_first_use=True,
    )
    return cast("FilteringBoundLogger", logger.bind(**values))


def configure_logging(level: str = "warning", form: str = "console", stream: TextIO | None = None) -> None:
    """Show our logs on `stream` (stderr by default): what the command line and the workers do. Repeatable.

    Args:
        level: `debug info warning error critical`; the whole life of a job is told at `info`.
        form: `console` for people, `json` for one object a line.
    """
    handler = logging.StreamHandler(stream or sys.stderr)
    handler.setFormatter(_JsonLines() if form == "json" else _Lines())
    root = logging.getLogger(ROOT)
    for old in list(root.handlers):
        root.removeHandler(old)
    root.addHandler(handler)
    root.setLevel(level.upper())
    root.propagate = False


class _Event:
    """What a record carries as its message: rendered only when somebody formats it."""

    __slots__ = ("_fields", "_name")

    def __init__(self, name: str, fields: Mapping[str, object]) -> None:
        self._name = name
        self._fields = fields

    def __str__(self) -> str:
        return " ".join((self._name, *(f"{key}={_short(value)}" for key, value in self._fields.items())))


class _Lines(logging.Formatter):
    def __init__(self) -> None:
        super().__init__("%(asctime)s %(levelname)-7s %(name)s  %(message)s", datefmt="%H:%M:%S")


class _JsonLines(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        said = getattr(record, FIELDS, None)
        line: dict[str, object] = {
            "at": datetime.fromtimestamp(record.created, UTC).isoformat(),
            "level": record.levelname.lower(),
            "logger": record.name,
            **(cast("dict[str, object]", said) if isinstance(said, dict) else {"event": record.getMessage()}),
        }
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return json.dumps(line, default=str, ensure_ascii=False)


def _log(logger: Any, method: str, event: MutableMapping[str, Any]) -> NoReturn:
    """Hand it to the standard logger. The values travel in one attribute, so no key can clash with a record's own.

    What a handler raises because its stream is closed goes no further: logging itself reports that on stderr, which may be the
    closed one.
    """
    passed = {key: event.pop(key) for key in ("exc_info", "stack_info", "stacklevel") if key in event}
    name = str(event.pop("event", ""))
    extra = {FIELDS: {"event": name, **event}}
    with suppress(ValueError, OSError):
        getattr(logger, method)(_Event(name, event), **passed, extra=extra)
    raise structlog.DropEvent  # it is logged


def _short(value: object) -> str:
    text = str(value)
    return text if text and " " not in text and "=" not in text else json.dumps(text, ensure_ascii=False)


_PROCESSORS: Final[list[Processor]] = [
    cast("Processor", structlog.stdlib.filter_by_level),
    structlog.contextvars.merge_contextvars,
    cast("Processor", _log),
]
