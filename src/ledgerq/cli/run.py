"""One run of the command line: parse, work, and turn whatever goes wrong into one clear line and an exit code."""

from __future__ import annotations

import errno
import os
import sys
import traceback
import warnings
from collections.abc import Sequence
from pathlib import Path

from typer import Exit, TyperException

from ledgerq.cli.exit_codes import ExitCode, exit_code_of
from ledgerq.cli.output import complain, write_json
from ledgerq.cli.validation import describe_validation
from ledgerq.errors import ConfigurationError, InvalidInput, LedgerqError, LocalStackError

OF_THE_FILE = frozenset(
    {errno.EACCES, errno.ELOOP, errno.ENAMETOOLONG, errno.ENOENT, errno.ENOSPC, errno.ENOTDIR, errno.EPERM, errno.EROFS}
)
"""What is the matter with a file or its disk, and no defect of a program that uses it."""


def run(arguments: Sequence[str]) -> int:
    """Run one command; raises nothing but its end by a signal. Errors are one line on stderr, or one document with `--json`."""
    flags = _flags(arguments)
    if "--debug" not in flags:
        warnings.simplefilter("ignore")  # what other libraries tell their developers is not for stderr
    try:
        return _told(arguments, flags)
    except BrokenPipeError:
        return _reader_is_gone()


def _told(arguments: Sequence[str], flags: frozenset[str]) -> int:
    try:
        return _invoke(arguments)
    except BrokenPipeError:
        raise
    except KeyboardInterrupt:
        return _report(KeyboardInterrupt("interrupted"), ExitCode.INTERRUPTED, flags)
    except TyperException as error:
        if _is_help(error):
            sys.stdout.flush()
            return ExitCode.USAGE
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
        result = end.exit_code
    except SystemExit as end:
        if isinstance(end.__context__, BrokenPipeError):  # rich, which prints the help
            raise BrokenPipeError from end
        raise
    sys.stdout.flush()
    return result if isinstance(result, int) else ExitCode.OK


def _flags(arguments: Sequence[str]) -> frozenset[str]:
    """The flags that decide how an error is told, known even when the arguments cannot be parsed."""
    before = arguments[: arguments.index("--")] if "--" in arguments else arguments
    return frozenset(word for word in before if word in {"--json", "--debug"})


def _as_ours(error: Exception) -> Exception:
    """Settings that pydantic refused name the variable, and files that cannot be used the file; the rest is unexpected."""
    if isinstance(error, UnicodeEncodeError) and error.reason == "surrogates not allowed":
        return InvalidInput(f"an argument is not UTF-8: {error.object[error.start - 20 if error.start > 20 else 0 : error.end]!r}")
    if isinstance(error, FileNotFoundError) and error.filename is None and not _is_somewhere():
        return InvalidInput("the working directory is gone: change to one that exists")
    if isinstance(error, OSError) and error.filename is not None and error.errno in OF_THE_FILE:
        return InvalidInput(f"{os.fsdecode(error.filename)}: {error.strerror}")
    errors_of = getattr(error, "errors", None)
    if type(error).__name__ != "ValidationError" or not callable(errors_of):
        return error
    return ConfigurationError(describe_validation(error))


def _is_somewhere() -> bool:
    try:
        Path.cwd()
    except FileNotFoundError:
        return False
    return True


def _report(error: BaseException, code: int, flags: frozenset[str]) -> int:
    if "--debug" in flags:
        traceback.print_exception(error, file=sys.stderr)
    message = _message(error, code)
    if "--json" in flags:
        write_json({"error": {"code": int(code), "kind": _kind(error), "message": message}})
    elif message:
        complain(message)
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
    return ExitCode.BROKEN_PIPE


def _is_help(error: TyperException) -> bool:
    """A group without a command has printed its help, which says all there is to say."""
    return type(error).__name__ == "NoArgsIsHelpError"
