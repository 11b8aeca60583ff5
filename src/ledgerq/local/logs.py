"""The logs of our own processes."""

from __future__ import annotations

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
