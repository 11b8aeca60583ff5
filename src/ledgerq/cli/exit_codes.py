"""How the command line ends: one table of exit codes, and which error gets which."""

from __future__ import annotations

from enum import IntEnum
from typing import Final

from ledgerq import errors


class ExitCode(IntEnum):
    """Exit codes of every command."""

    OK = 0
    """Done. For `status`: everything answers. For `doctor`: no check failed."""
    UNEXPECTED = 1
    """A defect of ledgerq; `--debug` shows the traceback."""
    USAGE = 2
    """A wrong option, a path or a queue that does not exist, or data that cannot be."""
    SOME_FAILED = 3
    """The work ended, and some of it failed for good or was cancelled."""
    UNAVAILABLE = 4
    """A service does not answer, or (`doctor`) is not fit for use; the same command may work later."""
    NOT_FOUND = 5
    """The job, document or source that was named does not exist."""
    WRONG_STATE = 6
    """It exists, but its status does not allow this."""
    CONFIGURATION = 7
    """Settings are missing, wrong or contradict each other, or the ledger needs `ledgerq migrate`."""
    LOCAL_STACK = 8
    """The embedded stack cannot start or be ended, or its directory cannot be used."""
    HUNG_UP = 129
    """Ended because its terminal was closed (SIGHUP)."""
    INTERRUPTED = 130
    """Ended by Ctrl-C."""
    BROKEN_PIPE = 141
    """Whoever read its output went away, as `head` does."""
    TERMINATED = 143
    """Ended by SIGTERM."""


_BY_ERROR: Final[tuple[tuple[type[errors.LedgerqError], ExitCode], ...]] = (
    (errors.InvalidInput, ExitCode.USAGE),
    (errors.DocumentError, ExitCode.SOME_FAILED),
    (errors.ServiceUnavailable, ExitCode.UNAVAILABLE),
    (errors.NotFound, ExitCode.NOT_FOUND),
    (errors.WrongState, ExitCode.WRONG_STATE),
    (errors.ConfigurationError, ExitCode.CONFIGURATION),
    (errors.LocalStackError, ExitCode.LOCAL_STACK),
)


def exit_code_of(error: Exception) -> ExitCode:
    """The code of the closest base of the error; anything else is unexpected."""
    return next((code for base, code in _BY_ERROR if isinstance(error, base)), ExitCode.UNEXPECTED)
