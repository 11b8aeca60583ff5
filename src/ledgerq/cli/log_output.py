"""Logs of a command: on stderr, quiet unless somebody asks."""

from __future__ import annotations

import logging
import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ledgerq.settings import Settings


def show_logs(settings: Settings, *, debug: bool) -> None:
    """As `LEDGERQ_LOG_LEVEL` and `LEDGERQ_LOG_FORMAT` say; everything with `debug`."""
    from ledgerq.logs import configure_logging

    level = "debug" if debug else settings.log_level
    configure_logging(level, settings.log_format)
    _keep_off_stdout(level)


def _keep_off_stdout(level: str) -> None:
    """Loggers that are structlog's own print to stdout by default, which belongs to results."""
    import structlog

    structlog.configure(
        wrapper_class=structlog.make_filtering_bound_logger(logging.getLevelNamesMapping()[level.upper()]),
        logger_factory=structlog.PrintLoggerFactory(file=sys.stderr),
    )
