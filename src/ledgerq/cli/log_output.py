"""Logs of a command: on stderr, quiet unless somebody asks."""

from __future__ import annotations

import logging
import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from structlog.typing import Processor

    from ledgerq.settings import Settings


def show_logs(settings: Settings, *, debug: bool) -> None:
    """As `LEDGERQ_LOG_LEVEL` and `LEDGERQ_LOG_FORMAT` say; everything with `debug`."""
    from ledgerq.logs import configure_logging

    level = "debug" if debug else settings.log_level
    configure_logging(level, settings.log_format)
    _keep_off_stdout(level, settings.log_format)


def _keep_off_stdout(level: str, form: str) -> None:
    """Loggers that are structlog's own print to stdout by default, which belongs to results."""
    import structlog

    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.StackInfoRenderer(),
            structlog.dev.set_exc_info,
            structlog.processors.TimeStamper(fmt="%Y-%m-%d %H:%M:%S", utc=False),
            *_rendering(form),
        ],
        wrapper_class=structlog.make_filtering_bound_logger(logging.getLevelNamesMapping()[level.upper()]),
        logger_factory=structlog.PrintLoggerFactory(file=sys.stderr),
    )


def _rendering(form: str) -> list[Processor]:
    """Tracebacks are plain: structlog's own, and rich's, print the local variables of each frame, passwords included."""
    import structlog

    if form == "json":
        return [structlog.processors.format_exc_info, structlog.processors.JSONRenderer()]
    renderer = structlog.dev.ConsoleRenderer(colors=sys.stderr.isatty(), exception_formatter=structlog.dev.plain_traceback)
    return [renderer]
