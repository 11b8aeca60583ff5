"""The programs: Python packages that work together, and the handlers of this installation."""

from __future__ import annotations

import platform
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, version
from typing import Final

from ledgerq import __version__
from ledgerq.cli.checks.finding import Finding, fail, ok, warn
from ledgerq.cli.session import Session

PART: Final = "code"
RQ_MAJOR: Final = "3"
"""The line of RQ that the worker class is written for."""


def check_code(session: Session) -> Iterator[Finding]:
    """Versions, and that `LEDGERQ_APP` can be imported and its handlers be served."""
    yield ok(PART, f"ledgerq {__version__}, Python {platform.python_version()}")
    yield _rq()
    yield from _app(session)


def _rq() -> Finding:
    try:
        found = version("rq")
    except PackageNotFoundError:
        return fail(PART, "rq is not installed", "pip install 'rq>=3,<4'")
    if found.split(".")[0] != RQ_MAJOR:
        return fail(PART, f"rq {found} is not of the supported line {RQ_MAJOR}.x", "pip install 'rq>=3,<4'")
    return ok(PART, f"rq {found}")


def _app(session: Session) -> Iterator[Finding]:
    reference = session.settings.app
    if not reference:
        yield ok(PART, "LEDGERQ_APP is not set: only documents are processed")
        return
    from ledgerq.apps import load_app

    handlers = load_app(reference)
    handlers.check()
    if handlers.types:
        yield ok(PART, f"LEDGERQ_APP={reference} has the types {', '.join(handlers.types)}")
    else:
        yield warn(PART, f"LEDGERQ_APP={reference} registers no handler", "register one with @handlers.handler(…)")
