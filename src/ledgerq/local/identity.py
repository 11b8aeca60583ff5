"""Which process is meant: a pid alone is recycled, a pid with its start time is not."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ledgerq.errors import LocalStackError

PROC = Path("/proc")
UNUSED_SECONDS = 1.0
Steps = Sequence[tuple[signal.Signals, float]]
"""Signals in the order in which they are sent, each with the seconds that it is given to work."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ProcessIdentity:
    """A process that cannot be mistaken for a later one with the same pid."""

    pid: int
    started: str
    """Boot id and start tick on Linux, the start time as `ps` prints it elsewhere."""


def identify(pid: int) -> ProcessIdentity | None:
    """The live process with that pid; None when there is none, or only a zombie."""
    started = _linux_start(pid) if sys.platform.startswith("linux") else _ps_start(pid)
    return None if started is None else ProcessIdentity(pid=pid, started=started)


def is_running(identity: ProcessIdentity) -> bool:
    return identify(identity.pid) == identity


def send(identity: ProcessIdentity, number: signal.Signals) -> bool:
    """Signal exactly this process. False when it has ended; a recycled pid is never signalled."""
    if not hasattr(os, "pidfd_open"):
        return is_running(identity) and _kill(identity.pid, number)
    try:
        handle = os.pidfd_open(identity.pid)
    except ProcessLookupError:
        return False
    try:
        # The handle was opened first, so what is identified now is what the handle holds.
        if not is_running(identity):
            return False
        signal.pidfd_send_signal(handle, number)
    except ProcessLookupError:
        return False
    finally:
        os.close(handle)
    return True


def end(identity: ProcessIdentity, steps: Steps) -> bool:
    """Signal it step by step until it has ended. True when it has."""
    for number, seconds in steps:
        if not send(identity, number) or wait_ended(identity, seconds):
            return True
    return not is_running(identity)


def wait_ended(identity: ProcessIdentity, seconds: float) -> bool:
    deadline = time.monotonic() + seconds
    while is_running(identity):
        if time.monotonic() >= deadline:
            return False
        time.sleep(0.02)
    return True


def working_in(directory: Path) -> list[int]:
    """Pids of the processes whose working directory is this one, as far as this account may see."""
    if not PROC.is_dir():
        return []
    wanted = str(directory.resolve())
    return [int(entry.name) for entry in PROC.iterdir() if entry.name.isdigit() and _cwd(entry) == wanted]


def require_unused(directory: Path, what: str) -> None:
    """LocalStackError when a server works in its directory; what a killed one forked gets a moment to end."""
    deadline = time.monotonic() + UNUSED_SECONDS
    while others := [pid for pid in working_in(directory) if pid != os.getpid()]:
        if time.monotonic() < deadline:
            time.sleep(0.02)
            continue
        raise LocalStackError(
            f"{directory.parent} is in use by the {what} with pid {others[0]}: stop that one (`ledgerq down`), or choose "
            "another data directory"
        )


def _cwd(process: Path) -> str | None:
    try:
        return str((process / "cwd").readlink())
    except OSError:
        return None


def _linux_start(pid: int) -> str | None:
    try:
        fields = (PROC / str(pid) / "stat").read_text().rpartition(")")[2].split()
        boot = (PROC / "sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        return None
    # proc(5): the state is the third field, the start time the twenty-second; two are cut off with the name.
    state, ticks = fields[0], fields[19]
    return None if state in "ZX" else f"{boot}/{ticks}"


def _ps_start(pid: int) -> str | None:
    command = ["ps", "-o", "state=,lstart=", "-p", str(pid)]
    state, _, started = subprocess.run(command, capture_output=True, text=True, check=False).stdout.strip().partition(" ")
    return None if not started or state.startswith("Z") else started.strip()


def _kill(pid: int, number: signal.Signals) -> bool:
    try:
        os.kill(pid, number)
    except ProcessLookupError:
        return False
    return True
