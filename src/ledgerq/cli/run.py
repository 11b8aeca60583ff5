"""One run of the command line: parse, work, and turn whatever goes wrong into one clear line and an exit code."""

from __future__ import annotations

import os
import sys
import traceback
import warnings
from collections.abc import Sequence

from typer import Exit, TyperException

from ledgerq.cli.exit_codes import ExitCode, exit_code_of
from ledgerq.cli.output import write_json
from ledgerq.errors import ConfigurationError, LedgerqError, LocalStackError

BROKEN_PIPE = 141
"""128 + SIGPIPE, as shells report a program whose reader went away."""


def run(arguments: Sequence[str]) -> int:
    """Run one command; never raises. Errors are one line on stderr, or with `--json` one document on stdout."""
    flags = _flags(arguments)
    if "--debug" not in flags:
        warnings.simplefilter("ignore")  # what other libraries tell their developers is not for stderr
    try:
        return _invoke(arguments)
    except BrokenPipeError:
        return _reader_is_gone()
    except KeyboardInterrupt:
        return _report(KeyboardInterrupt("interrupted"), ExitCode.INTERRUPTED, flags)
    except TyperException as error:
        return _report(error, ExitCode.USAGE, flags)
    except LedgerqError as error:
        return _report(error, exit_code_of(error), flags)
    except Exception as error:  # noqa: BLE001 - the edge: nothing is above us
        return _report(_as_ours(error), exit_code_of(_as_ours(error)), flags)


def _invoke(arguments: Sequence[str]) -> int:
    from ledgerq.cli.app import app

    # Not standalone: a command returns nothing or its code, and everything else arrives here as an exception.
    try:
        result = app(args=list(arguments), prog_name="ledgerq", standalone_mode=False)
    except Exit as end:
        return end.exit_code
    sys.stdout.flush()
    return result if isinstance(result, int) else ExitCode.OK


def _flags(arguments: Sequence[str]) -> frozenset[str]:
    """The flags that decide how an error is told, known even when the arguments cannot be parsed."""
    before = arguments[: arguments.index("--")] if "--" in arguments else arguments
    return frozenset(word for word in before if word in {"--json", "--debug"})


def _as_ours(error: Exception) -> Exception:
    """Settings that pydantic refused are a configuration error that names the variable; the rest is unexpected."""
    errors_of = getattr(error, "errors", None)
    if type(error).__name__ != "ValidationError" or not callable(errors_of):
        return error
    return ConfigurationError(describe_validation(error))


def describe_validation(error: Exception) -> str:
    """One line for a pydantic ValidationError: which setting, what was given, what is wanted. Secrets stay out."""
    from pydantic import ValidationError

    if not isinstance(error, ValidationError):
        return str(error)
    first = error.errors(include_url=False, include_context=False, include_input=False)[0]
    return f"{'.'.join(map(str, first['loc'])) or error.title}: {first['msg']}"


def _report(error: BaseException, code: int, flags: frozenset[str]) -> int:
    if "--debug" in flags:
        traceback.print_exception(error, file=sys.stderr)
    message = _message(error, code)
    if "--json" in flags:
        write_json({"error": {"code": int(code), "kind": _kind(error), "message": message}})
    elif message:
        sys.stderr.write(f"ledgerq: {message}\n")
    return int(code)


def _message(error: BaseException, code: int) -> str:
    if isinstance(error, TyperException):
        return f"{error.format_message()} (see `{_command(error)} --help`)"
    # One line, except that a stack which cannot start shows the end of its log.
    text = str(error) if isinstance(error, LocalStackError) else " ".join(str(error).split())
    if code == ExitCode.UNEXPECTED:
        return f"unexpected {type(error).__name__}: {text} (run it again with --debug for the traceback)"
    return text


def _command(error: TyperException) -> str:
    return str(getattr(getattr(error, "ctx", None), "command_path", None) or "ledgerq")


def _kind(error: BaseException) -> str:
    return "UsageError" if isinstance(error, TyperException) else type(error).__name__


def _reader_is_gone() -> int:
    # Python flushes stdout once more at its end, which would fail again and print about it.
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return BROKEN_PIPE
