"""One program that we start, watch and end, with its output in a file that does not grow without bound."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Generator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO

from ledgerq.errors import LocalStackError
from ledgerq.local import launch
from ledgerq.local.accounts import Account
from ledgerq.local.identity import ProcessIdentity, Steps, identify

LOG_LIMIT = 4 * 1024 * 1024
"""Bytes of output kept of each program; twice that at most is on the disk."""
TAIL_LINES = 12
LINE_LIMIT = 300
POLL_SECONDS = 0.02
POLITE: Steps = ((signal.SIGTERM, 10.0), (signal.SIGKILL, 5.0))


@dataclass(frozen=True, slots=True, kw_only=True)
class Command:
    """What to start, and how to end it."""

    name: str
    argv: tuple[str, ...]
    cwd: Path
    log: Path
    env: Mapping[str, str] | None = None
    """The whole environment; None hands on ours."""
    account: Account | None = None
    stop: Steps = POLITE
    whole_group: bool = False
    """Send the stop signals to all that it has started, too."""
    descriptors: tuple[int, ...] = ()
    """Open files of ours that it gets under the same numbers."""
    orphaned: signal.Signals = signal.SIGTERM
    """What the kernel sends it when its starter dies (Linux)."""


@dataclass(slots=True)
class Child:
    """A started program in a session of its own, so that a terminal's Ctrl-C reaches it only through us."""

    command: Command
    _process: subprocess.Popen[bytes] | None = field(default=None, init=False)
    _identity: ProcessIdentity | None = field(default=None, init=False)
    _log_start: int = field(default=0, init=False)

    def start(self) -> None:
        """Start it from the thread that will outlive it: the kernel ends it together with that thread."""
        trim_log(self.command.log)
        with open_log(self.command.log) as log, undisturbed():
            self._log_start = log.tell()
            self._process = subprocess.Popen(
                _launcher(self.command),
                cwd=self.command.cwd,
                env=self.command.env,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
                pass_fds=self.command.descriptors,
            )
            self._identity = identify(self._process.pid)

    @property
    def identity(self) -> ProcessIdentity | None:
        """Of the program that runs now; the launcher becomes it without a change of pid or start time."""
        return self._identity if self.is_alive() else None

    def is_alive(self) -> bool:
        return self._process is not None and self._process.poll() is None

    def exit_code(self) -> int | None:
        """Negative for a signal; None while it runs, or was never started."""
        return None if self._process is None else self._process.poll()

    def wait_ready(self, ready: Callable[[], bool], seconds: float) -> None:
        """Return when `ready` says so. LocalStackError with the end of the log if it dies first or takes too long."""
        deadline = time.monotonic() + seconds
        while not ready():
            if not self.is_alive():
                raise LocalStackError(f"{self.command.name} ended at its start (exit {self.exit_code()})\n{self.tail()}")
            if time.monotonic() >= deadline:
                raise LocalStackError(f"{self.command.name} does not answer after {seconds:.0f} s\n{self.tail()}")
            time.sleep(POLL_SECONDS)

    def stop(self) -> None:
        """End it step by step, the last step being SIGKILL to its whole session. Harmless when it has ended."""
        if self._process is None:
            return
        for number, seconds in self.command.stop:
            if self._process.poll() is None:
                self.signal(number)
                _wait(self._process, seconds)
        if self._process.poll() is None:
            raise LocalStackError(f"{self.command.name} (pid {self._process.pid}) cannot be ended")

    def signal(self, number: signal.Signals) -> None:
        """Only while it has not been reaped, so that the pid is never a stranger's."""
        if self._process is None or self._process.poll() is not None:
            return
        if self.command.whole_group:
            os.killpg(self._process.pid, number)
        else:
            self._process.send_signal(number)

    def tail(self) -> str:
        """The end of what it has written since it was started last."""
        return tail(self.command.log, self._log_start)

    def last_line(self) -> str:
        """The last thing that it has said; empty when that is nothing."""
        with suppress(OSError):
            lines = [line.strip() for line in _end_of(self.command.log, self._log_start) if line.strip()]
            return lines[-1][:LINE_LIMIT] if lines else ""
        return ""


def run_once(command: Command, seconds: float) -> None:
    """Run a program to its end; LocalStackError with its output if that is not a success. Ended with us on Ctrl-C."""
    child = Child(command)
    child.start()
    try:
        _wait_for_end(child, seconds)
    finally:
        child.stop()
    if child.exit_code() != 0:
        raise LocalStackError(f"{command.name} failed (exit {child.exit_code()})\n{child.tail()}")


@contextmanager
def undisturbed() -> Generator[None]:
    """Ctrl-C and the like wait, so that no process is started that nobody knows of."""
    held = signal.pthread_sigmask(signal.SIG_BLOCK, (signal.SIGINT, signal.SIGTERM, signal.SIGHUP))
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, held)


def tail(log: Path, start: int = 0) -> str:
    """The end of what a log holds from this byte on, for a message."""
    try:
        lines = _end_of(log, start)
    except OSError as error:
        return f"(no log: {error})"
    return "\n".join(["the end of " + str(log) + ":", *(f"  {line}" for line in lines)])


def _end_of(log: Path, start: int) -> list[str]:
    with log.open("rb") as file:
        size = file.seek(0, os.SEEK_END)
        # One that has been cut since then is all new.
        file.seek(max(start if start <= size else 0, size - 8192))
        return file.read().decode("utf-8", "replace").splitlines()[-TAIL_LINES:]


def trim_log(log: Path) -> None:
    """Move what is over the limit to `<log>.1` and begin anew.

    Safe while the program writes: it appends, so after the cut its next line is the first. A line written between
    the copy and the cut is lost.
    """
    if not log.exists() or log.stat().st_size <= LOG_LIMIT:
        return
    with log.open("r+b") as file:
        file.seek(-LOG_LIMIT, os.SEEK_END)
        log.with_name(log.name + ".1").write_bytes(file.read())
        file.truncate(0)


def _launcher(command: Command) -> list[str]:
    account = ["-", "-"] if command.account is None else [str(command.account.uid), str(command.account.gid)]
    script = [sys.executable, "-I", "-S", str(Path(launch.__file__)), str(os.getpid()), str(int(command.orphaned))]
    return [*script, *account, "--", *command.argv]


def open_log(log: Path) -> BinaryIO:
    """For appending, so that it can be trimmed while a program writes to it; readable by its owner alone."""
    log.parent.mkdir(parents=True, exist_ok=True)
    return os.fdopen(os.open(log, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600), "ab")


def _wait(process: subprocess.Popen[bytes], seconds: float) -> None:
    with suppress(subprocess.TimeoutExpired):
        process.wait(seconds)


def _wait_for_end(child: Child, seconds: float) -> None:
    deadline = time.monotonic() + seconds
    while child.is_alive():
        if time.monotonic() >= deadline:
            raise LocalStackError(f"{child.command.name} did not end within {seconds:.0f} s\n{child.tail()}")
        time.sleep(POLL_SECONDS)
