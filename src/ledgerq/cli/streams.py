"""The standard streams as a command may rely on them: there, and able to write any text."""

from __future__ import annotations

import io
import os
import sys
from typing import TYPE_CHECKING, TextIO, cast

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer

ESCAPED = "backslashreplace"
"""What the encoding of a stream lacks, and bytes that are no text, are written as escapes."""


class _Unheard(io.FileIO):
    """Notes and progress that nobody can read any more end no work: what cannot be written is forgotten."""

    def write(self, data: ReadableBuffer, /) -> int:
        try:
            return super().write(data) or 0
        except OSError:
            return memoryview(data).nbytes


def settle() -> None:
    """Make the streams of this process fit: a closed one goes nowhere, any text can be written, and nothing fails on stderr."""
    for number in range(3):
        _open_closed(number)
    # Not None where a shell closed it: the descriptor leads nowhere by now.
    sys.stdin = sys.stdin or _text(io.FileIO(0, closefd=False), "utf-8")
    out = cast("TextIO | None", sys.stdout)
    if isinstance(out, io.TextIOWrapper):
        cast("io.TextIOWrapper[io.BufferedWriter]", out).reconfigure(errors=ESCAPED)
    sys.stdout = out or _text(io.FileIO(1, "w", closefd=False), "utf-8")
    encoding = getattr(sys.stderr, "encoding", None) or "utf-8"
    sys.stderr = _text(_Unheard(2, "w", closefd=False), encoding)


def _open_closed(number: int) -> None:
    """A free descriptor would be given to the next file that is opened, and then written to by whoever means the stream."""
    try:
        os.fstat(number)
    except OSError:
        os.set_inheritable(os.open(os.devnull, os.O_RDWR), True)  # the lowest that is free, for those below are open


def _text(file: io.FileIO, encoding: str) -> TextIO:
    buffer = io.BufferedWriter(file) if file.writable() else io.BufferedReader(file)
    return io.TextIOWrapper(buffer, encoding=encoding, errors=ESCAPED, line_buffering=True)
