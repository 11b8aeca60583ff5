"""The stack in the foreground: Ctrl-C at any moment leaves nothing running; as root and as an ordinary user."""

from __future__ import annotations

import os
import pwd
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from ledgerq.local import Stack
from tests.support.processes import run_python, working_on
from tests.support.waiting import eventually

pytestmark = pytest.mark.processes

RUN = """
import logging, os, sys
from pathlib import Path
import structlog
from ledgerq.local import Service, ServerName, Stack
structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))
busy = Service(name="busy", argv=(sys.executable, "-c", "import time; time.sleep(1000)"), settle_s=0.1)
servers = [ServerName(name) for name in sys.argv[2].split(",")]
stack = Stack(Path(sys.argv[1]), servers=servers, services=[busy], fsync=False, grace_s=5.0)
stack.run(dict(os.environ), migrate=lambda dsn: None, on_ready=lambda status: print(status.ok, flush=True))
"""
UP = """
import sys
from pathlib import Path
from ledgerq.local import ServerName, Stack
Stack(Path(sys.argv[1]), servers=[ServerName.POSTGRES, ServerName.VALKEY], fsync=False).up()
"""
UP_AND_DOWN = """
import os, sys
from pathlib import Path
from ledgerq.local import Stack
stack = Stack(Path(sys.argv[1]), fsync=False)
print(os.geteuid(), stack.up().ok, stack.down())
"""


@contextmanager
def started(code: str, *arguments: str) -> Iterator[subprocess.Popen[str]]:
    """A program in a process group of its own, as a shell starts it."""
    command = [sys.executable, "-c", code, *arguments]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True) as program:
        try:
            yield program
        finally:
            program.kill()


@pytest.mark.parametrize(("number", "servers"), [(signal.SIGINT, "valkey,vectors"), (signal.SIGTERM, "valkey")])
def test_stops_cleanly_when_asked(server_dir: Path, number: signal.Signals, servers: str) -> None:
    with started(RUN, str(server_dir / "stack"), servers) as program:
        assert program.stdout
        assert program.stdout.readline() == "True\n"
        os.killpg(program.pid, number)
        assert program.wait(60) == 0
    assert working_on(server_dir) == []
    assert Stack(server_dir / "stack").status().phase == "stopped"


@pytest.mark.parametrize(
    ("code", "moment"),
    [
        pytest.param(RUN, "passwords.json", id="before initdb"),
        pytest.param(RUN, "pgdata.unfinished", id="in initdb"),
        pytest.param(RUN, "pgdata/postmaster.pid", id="while PostgreSQL starts"),
        pytest.param(UP, "pgdata.unfinished", id="in initdb, detached"),
    ],
)
def test_interrupted_at_any_moment_leaves_nothing_running(server_dir: Path, code: str, moment: str) -> None:
    """Ctrl-C when that file has just appeared."""
    stack_dir = server_dir / "stack"
    with started(code, str(stack_dir), "postgres,valkey") as program:
        eventually((stack_dir / "postgres" / moment).exists, what=moment)
        os.killpg(program.pid, signal.SIGINT)
        program.wait(60)
    eventually(lambda: working_on(server_dir) == [], seconds=20.0, what="nothing is left running")
    assert not (stack_dir / "postgres" / "pgdata.unfinished").exists()


def test_killed_in_the_foreground_takes_its_parts_with_it(server_dir: Path) -> None:
    """On Linux the kernel ends them; elsewhere the next start does."""
    with started(RUN, str(server_dir / "stack"), "valkey") as program:
        assert program.stdout
        assert program.stdout.readline() == "True\n"
        program.kill()
        program.wait(5)
        if sys.platform.startswith("linux"):
            eventually(lambda: working_on(server_dir) == [], what="nothing is left running")
    Stack(server_dir / "stack").down()
    assert working_on(server_dir) == []


def test_runs_as_an_ordinary_user(server_dir: Path) -> None:
    """In a directory of that user's own, with nothing of root's at hand."""
    user = "nobody" if os.geteuid() == 0 else None
    if user is not None:
        shutil.chown(server_dir, user, pwd.getpwnam(user).pw_gid)
    done = run_python(UP_AND_DOWN, str(server_dir / "stack"), user=user)
    assert done.returncode == 0, done.stderr
    uid, *rest = done.stdout.split()
    assert int(uid) != 0
    assert rest == ["True", "True"]
    assert working_on(server_dir) == []
    assert {path.stat().st_uid for path in server_dir.rglob("*")} == {int(uid)}
