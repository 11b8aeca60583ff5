"""The logs of our own processes."""

from __future__ import annotations

from contextlib import suppress
from typing import TextIO

import structlog


def log_lines(file: TextIO) -> None:
    """One JSON document a line; for processes whose output is a file that their starter opened."""
    structlog.configure(
        processors=[
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.format_exc_info,
            structlog.processors.JSONRenderer(),
        ],
        logger_factory=structlog.PrintLoggerFactory(file=file),
    )


class PatientLog:
    """A logger that what becomes of its lines cannot hurt: a full disk or a closed terminal must not end a stack."""

    def __init__(self, name: str) -> None:
        self._log = structlog.get_logger(name)

    def info(self, event: str, **fields: object) -> None:
        with suppress(OSError, ValueError):  # ValueError: the file is closed
            self._log.info(event, **fields)

    def warning(self, event: str, **fields: object) -> None:
        with suppress(OSError, ValueError):
            self._log.warning(event, **fields)

    def error(self, event: str, **fields: object) -> None:
        with suppress(OSError, ValueError):
            self._log.error(event, **fields)
