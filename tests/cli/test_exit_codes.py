"""One table of exit codes."""

from __future__ import annotations

import inspect

import pytest

from ledgerq import errors
from ledgerq.cli.exit_codes import ExitCode, exit_code_of

KINDS = [kind for _, kind in inspect.getmembers(errors, inspect.isclass) if issubclass(kind, errors.LedgerqError)]


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
def test_every_error_of_ours_is_expected(kind: type[errors.LedgerqError]) -> None:
    expected = ExitCode.UNEXPECTED if kind is errors.LedgerqError else None
    assert (exit_code_of(kind("x")) is ExitCode.UNEXPECTED) == (expected is ExitCode.UNEXPECTED)


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (errors.InvalidInput("x"), 2),
        (errors.UnknownQueue("x"), 2),
        (errors.DocumentError("x"), 3),
        (errors.LedgerUnavailable("x"), 4),
        (errors.QueueUnavailable("x"), 4),
        (errors.NotFound("x"), 5),
        (errors.WrongState("x"), 6),
        (errors.SchemaMismatch("x"), 7),
        (errors.LocalStackError("x"), 8),
        (ZeroDivisionError("x"), 1),
    ],
)
def test_the_codes_that_scripts_rely_on(error: Exception, code: int) -> None:
    assert exit_code_of(error) == code
