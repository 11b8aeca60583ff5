"""What a killed supervisor left running: found by its records and by a mark in the environment, ended in order."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterable
from pathlib import Path

from ledgerq.local.identity import PROC, ProcessIdentity, Steps, end, identify, send, wait_ended
from ledgerq.local.state import Part, ServerName

MARK = "LEDGERQ_STACK"
"""Environment variable of every service and of all that it starts; its value is the data directory."""
RUN_MARK = "LEDGERQ_STACK_RUN"
"""Another one; its value is the id of the supervisor's start."""
SERVICE_STEPS: Steps = ((signal.SIGTERM, 2.0), (signal.SIGTERM, 2.0), (signal.SIGKILL, 5.0))
"""As RQ's workers read it: finish the job, then drop it. Short, for the servers that they need are gone or going."""
SERVER_STEPS: Steps = ((signal.SIGINT, 20.0), (signal.SIGKILL, 5.0))
"""SIGINT is a fast, clean shutdown to PostgreSQL and a clean one to the others."""
ORDER = {ServerName.VECTORS.value: 1, ServerName.VALKEY.value: 2, ServerName.POSTGRES.value: 3}


def end_recorded(parts: Iterable[Part]) -> list[str]:
    """End the recorded processes that still run, services before servers. The names of those that did."""
    running = [part for part in parts if identify(part.pid) == part.identity]
    for part in sorted(running, key=lambda part: ORDER.get(part.name, 0)):
        end(part.identity, SERVER_STEPS if part.name in ORDER else SERVICE_STEPS)
    return [part.name for part in running]


def end_marked(data_dir: Path) -> int:
    """End what services left behind: horses, keepers, and whatever else a handler started. How many there were."""
    return _end(marked(MARK, str(data_dir)))


def end_marked_by_run(run_id: str) -> int:
    """The same of one start alone, for when the directory is somebody else's by now."""
    return _end(marked(RUN_MARK, run_id))


def _end(found: list[ProcessIdentity]) -> int:
    left = found
    for number, seconds in ((signal.SIGTERM, 2.0), (signal.SIGKILL, 5.0)):
        left = [identity for identity in left if send(identity, number)]
        left = [identity for identity in left if not wait_ended(identity, seconds)]
    return len(found)


def marked(mark: str, value: str) -> list[ProcessIdentity]:
    """The live processes that carry the mark, ourselves and our ancestors left out."""
    if not PROC.is_dir():
        return []
    wanted = f"{mark}={value}".encode()
    ours = _ancestors()
    pids = (int(entry.name) for entry in PROC.iterdir() if entry.name.isdigit())
    found = (identify(pid) for pid in pids if pid not in ours and wanted in _environment(pid))
    return [identity for identity in found if identity is not None]


def _environment(pid: int) -> list[bytes]:
    try:
        return (PROC / str(pid) / "environ").read_bytes().split(b"\0")
    except OSError:
        return []


def _ancestors() -> set[int]:
    """`ledgerq down` may be called from something that the stack itself started."""
    found: set[int] = set()
    pid = os.getpid()
    while pid > 0 and pid not in found:
        found.add(pid)
        pid = _parent(pid)
    return found


def _parent(pid: int) -> int:
    try:
        return int((PROC / str(pid) / "stat").read_text().rpartition(")")[2].split()[1])
    except OSError:
        return 0
