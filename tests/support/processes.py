"""Looking at real processes: who works in a directory, and running a program as somebody without power."""

from __future__ import annotations

import os
import pwd
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

PROC = Path("/proc")


def working_on(directory: Path) -> list[str]:
    """The processes that have the directory in their command line, environment or working directory, as `pid command`."""
    others = [entry for entry in PROC.iterdir() if entry.name.isdigit() and int(entry.name) != os.getpid()]
    return [f"{entry.name} {_read(entry / 'cmdline')}" for entry in others if str(directory) in _traces(entry)]


def run_python(code: str, *arguments: str, user: str | None = None, timeout: float = 60.0) -> subprocess.CompletedProcess[str]:
    """Run a piece of Python to its end, as this user (only root can ask for another one)."""
    command = [*_as_user(user), sys.executable, "-c", code, *arguments]
    environment = {**os.environ, "HOME": "/nonexistent"}
    return subprocess.run(command, capture_output=True, text=True, timeout=timeout, check=False, cwd="/", env=environment)


def _as_user(user: str | None) -> list[str]:
    """A prefix that drops root's power for good.

    When our Python lies in root's home, the power to read is all that is left; otherwise nothing is.
    """
    if user is None:
        return []
    if (setpriv := shutil.which("setpriv")) is None:
        pytest.skip("setpriv (util-linux) is needed to run as another user")
    entry = pwd.getpwnam(user)
    plain = [setpriv, f"--reuid={entry.pw_uid}", f"--regid={entry.pw_gid}", "--clear-groups", "--no-new-privs"]
    reading = [*plain, "--inh-caps=-all,+dac_read_search", "--ambient-caps=-all,+dac_read_search"]
    for prefix in ([*plain, "--inh-caps=-all"], reading):
        same = f"import ledgerq, sys; sys.exit(sys.version != {sys.version!r})"  # another Python may have been found instead
        if subprocess.run([*prefix, sys.executable, "-c", same], capture_output=True, check=False, cwd="/").returncode == 0:
            return prefix
    pytest.skip(f"the user {user} cannot execute {sys.executable}, and this container lets nobody change that")


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
