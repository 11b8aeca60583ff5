"""Looking at real processes: who works in a directory, and running a program as somebody without power."""

from __future__ import annotations

import os
import pwd
import subprocess
import sys
from pathlib import Path

PROC = Path("/proc")


def working_on(directory: Path) -> list[str]:
    """The processes that have the directory in their command line, environment or working directory, as `pid command`."""
    found: list[str] = []
    for entry in PROC.iterdir():
        if entry.name.isdigit() and int(entry.name) != os.getpid() and str(directory) in _traces(entry):
            found.append(f"{entry.name} {_read(entry / 'cmdline')}")
    return found


def run_python(code: str, *arguments: str, user: str | None = None, timeout: float = 60.0) -> subprocess.CompletedProcess[str]:
    """Run a piece of Python to its end, as this user (only root can ask for another one)."""
    return subprocess.run(
        [sys.executable, "-c", code, *arguments],
        capture_output=True,
        text=True,
        timeout=timeout,
        check=False,
        cwd="/",
        env={**os.environ, "HOME": "/nonexistent"},
        **account(user),
    )


def account(user: str | None) -> dict[str, object]:
    """Arguments of `subprocess` that drop root's power for good."""
    if user is None:
        return {}
    entry = pwd.getpwnam(user)
    return {"user": entry.pw_uid, "group": entry.pw_gid, "extra_groups": []}


def _traces(entry: Path) -> str:
    try:
        cwd = str((entry / "cwd").readlink())
    except OSError:
        cwd = ""
    return "\n".join([cwd, _read(entry / "cmdline"), _read(entry / "environ")])


def _read(path: Path) -> str:
    try:
        return path.read_bytes().replace(b"\0", b" ").decode("utf-8", "replace")
    except OSError:
        return ""
