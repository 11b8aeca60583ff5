"""A parser process that may be killed: what it dies of costs one document, never the worker.

One process serves one document after another and is started again when it was killed, or has grown. It is started when
first needed, so never before a fork; after a fork the child starts its own.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import tempfile
import threading
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO, Any, Final

from ledgerq.documents.load.child import read_frame, write_frame
from ledgerq.documents.load.model import Loaded, LoadLimits, Segment, Unreadable

GROWN_BYTES: Final = 192 * 1024 * 1024
"""A parser process that has kept more than this is replaced by a fresh one of 40 MB, so that a worker stays small."""
_WORKED: Final = 0.5
"""Of the time that a document may take, the part for which its parser must have worked before the document is to blame."""
_ENVIRONMENT: Final = ("PATH", "LANG", "LC_ALL", "LC_CTYPE", "TMPDIR", "LD_LIBRARY_PATH", "SYSTEMROOT")
_ENVIRONMENT_PREFIXES: Final = ("PYTHON", "COVERAGE_")
"""All that the process gets to see: no keys, no passwords."""


@dataclass(slots=True)
class _Parser:
    process: subprocess.Popen[bytes]
    owner: int
    """The pid of the process that started it: a fork inherits the object, not the parser."""
    errors: IO[bytes]

    def kill(self) -> str:
        """End it, and give its last words."""
        self.process.kill()
        self.process.wait()
        words = self._last_words()
        for stream in (self.process.stdin, self.process.stdout, self.errors):
            if stream is not None:
                _close(stream)
        return words

    def _last_words(self) -> str:
        self.errors.seek(0)
        lines = self.errors.read()[-4_000:].decode(errors="replace").strip().splitlines()
        return lines[-1][:300] if lines else "it said nothing"


class _Watch:
    """Kills the parser when one request takes too long. Once that is answered, it can no longer: the next one has its own."""

    def __init__(self, parser: _Parser, seconds: float) -> None:
        self._process = parser.process
        self._lock = threading.Lock()
        self._over = False
        self._cpu_s = cpu_s(parser.process.pid)
        self.expired = False
        self.worked_s = 0.0
        """CPU time that was spent on it until it expired."""
        self._timer = threading.Timer(seconds, self.expire)
        self._timer.daemon = True
        self._timer.start()

    def expire(self) -> None:
        with self._lock:
            if not self._over:
                self.expired = True
                self.worked_s = cpu_s(self._process.pid) - self._cpu_s
                self._process.kill()

    def end(self) -> None:
        self._timer.cancel()
        with self._lock:
            self._over = True


class Sandbox:
    """Parses in a process of its own. Used by several threads, it serves one after the other.

    The thread that calls `load` first must outlive the sandbox's use: on Linux the parser ends with the thread that
    started it (and is started again by the next call).
    """

    def __init__(self, limits: LoadLimits) -> None:
        self._limits = limits
        self._lock = threading.Lock()
        self._parser: _Parser | None = None
        self._closing = False

    def load(self, kind: str, data: bytes, *, declared: str | None) -> Loaded:
        """Parse `data` as `pdf` or `html`.

        Raises:
            Unreadable: by its content, or it took more time or memory than a document may, or killed the parser twice.
            TimeoutError: it took too long, but had the processor for a small part of that time: the machine is too busy.
            OSError: no process can be started now.
        """
        with self._lock:
            try:
                return self._load(kind, data, declared)
            except EOFError:
                # It may have died before it saw this document (its thread ended, somebody killed it): once more, afresh.
                pass
            try:
                return self._load(kind, data, declared)
            except EOFError as death:
                raise Unreadable(f"killed its parser ({death}), twice") from death

    def close(self) -> None:
        """End the process, also in the middle of a document. The sandbox may be used again."""
        self._closing = True
        parser = self._parser
        if parser is not None and parser.owner == os.getpid():
            parser.process.kill()  # whoever waits for its answer holds the lock
        with self._lock:
            self._end()
            self._closing = False

    def _load(self, kind: str, data: bytes, declared: str | None) -> Loaded:
        if self._closing:
            raise OSError("the parser process is being closed")
        parser = self._running()
        watch = _Watch(parser, self._limits.seconds)
        try:
            header, text = _exchange(parser, {"kind": kind, "declared": declared, "limits": asdict(self._limits)}, data)
        except (OSError, EOFError, ValueError):
            watch.end()
            raise self._died(parser, watch) from None
        finally:
            watch.end()
        if watch.expired:  # the answer was on its way already
            self._end()
        return self._loaded(header, text)

    def _loaded(self, header: dict[str, Any], text: bytes) -> Loaded:
        if header["status"] == "unreadable":
            raise Unreadable(header["reason"])
        if header["status"] == "memory":
            self._end()
            raise Unreadable(f"needs more than {self._limits.memory_bytes // 2**20} MiB of memory to be parsed")
        if header["resident_bytes"] > GROWN_BYTES:
            self._end()
        return Loaded(
            text=text.decode(),
            segments=tuple(Segment(**segment) for segment in header["segments"]),
            content_type=header["content_type"],
            title=header["title"],
            metadata=header["metadata"],
        )

    def _died(self, parser: _Parser, watch: _Watch) -> Exception:
        """What to raise for a parser that no longer answers; none is left behind."""
        words = parser.kill()
        self._parser = None
        if watch.expired:
            return self._too_slow(watch.worked_s)
        code = parser.process.returncode
        if code >= 0:
            return OSError(f"the parser process ended with exit code {code}: {words}")
        return EOFError(f"{_signal_name(-code)}, within {self._limits.memory_bytes // 2**20} MiB of memory")

    def _too_slow(self, worked_s: float) -> Exception:
        if worked_s >= self._limits.seconds * _WORKED:
            return Unreadable(f"took longer than {self._limits.seconds:g} s to be parsed")
        return TimeoutError(f"was not parsed in {self._limits.seconds:g} s, of which its parser had the processor for {worked_s:.1f} s")

    def _running(self) -> _Parser:
        parser = self._parser
        if parser is not None and parser.owner != os.getpid():
            self._parser = parser = None
        if parser is None:
            self._parser = parser = _start()
        return parser

    def _end(self) -> None:
        if self._parser is not None and self._parser.owner == os.getpid():
            self._parser.kill()
        self._parser = None


def _start() -> _Parser:
    errors = tempfile.TemporaryFile()  # noqa: SIM115 - closed with the parser; a pipe that nobody reads would block it
    process = subprocess.Popen(
        [sys.executable, "-P", "-m", "ledgerq.documents.load.child", str(os.getpid())],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=errors,
        env=_environment(),
    )
    return _Parser(process=process, owner=os.getpid(), errors=errors)


def _environment() -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if name in _ENVIRONMENT or name.startswith(_ENVIRONMENT_PREFIXES)}
    # The parent may have found us by a path that it added itself. One arena: each further one takes 64 MiB of address space.
    return {**kept, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path), "MALLOC_ARENA_MAX": "1"}


def _exchange(parser: _Parser, header: dict[str, Any], data: bytes) -> tuple[dict[str, Any], bytes]:
    stdin, stdout = parser.process.stdin, parser.process.stdout
    if stdin is None or stdout is None:
        raise EOFError
    write_frame(stdin, header, data)
    return read_frame(stdout)


def cpu_s(pid: int) -> float:
    """CPU time that a process has used; 0 where the system does not tell."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()
    except OSError:
        return 0.0
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def _close(stream: IO[bytes]) -> None:
    with contextlib.suppress(OSError):  # what was still to be written has no reader any more
        stream.close()


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"
