"""Processes told apart by their start time, and small files that are whole or absent."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from ledgerq.local.files import kept_secrets, write_private
from ledgerq.local.identity import ProcessIdentity, end, identify, is_running, send
from ledgerq.local.ports import answers, free_port
from tests.support.waiting import eventually

SLEEP = [sys.executable, "-c", "import time; time.sleep(1000)"]
DEAF = [sys.executable, "-c", "import signal, time; signal.signal(15, signal.SIG_IGN); print('deaf', flush=True); time.sleep(1000)"]


def test_zombie_is_not_running() -> None:
    with subprocess.Popen(SLEEP) as process:
        identity = identify(process.pid)
        assert identity
        assert is_running(identity)
        os.kill(process.pid, signal.SIGKILL)
        eventually(lambda: not is_running(identity), what="it is a zombie, for nobody has waited for it")
        assert identify(process.pid) is None


def test_stranger_with_the_same_pid_is_not_signalled() -> None:
    with subprocess.Popen(SLEEP) as process:
        stranger = ProcessIdentity(pid=process.pid, started="another-boot/1")
        assert not send(stranger, signal.SIGKILL)
        assert end(stranger, ((signal.SIGKILL, 1.0),))
        assert process.poll() is None
        process.kill()


def test_deaf_process_is_ended_by_the_last_step() -> None:
    with subprocess.Popen(DEAF, stdout=subprocess.PIPE) as process:
        assert process.stdout
        process.stdout.readline()
        identity = identify(process.pid)
        assert identity
        assert end(identity, ((signal.SIGTERM, 0.1), (signal.SIGKILL, 5.0)))


def test_nobody_has_that_pid() -> None:
    assert identify(2**22 + 1) is None


def test_secrets_are_kept(tmp_path: Path) -> None:
    file = tmp_path / "passwords.json"
    first = kept_secrets(file, "a")
    assert kept_secrets(file, "a", "b")["a"] == first["a"]
    assert len(set(kept_secrets(file, "a", "b").values())) == 2
    assert file.stat().st_mode & 0o777 == 0o600


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can write files of somebody else")
def test_replaced_file_keeps_its_owner(tmp_path: Path) -> None:
    file = tmp_path / "stack.json"
    write_private(file, "old")
    os.chown(file, 12345, 23456)
    write_private(file, "new")
    assert (file.stat().st_uid, file.stat().st_gid, file.read_text()) == (12345, 23456, "new")


def test_failed_write_leaves_the_old_file(tmp_path: Path) -> None:
    file = tmp_path / "state.json"
    write_private(file, "old")
    with pytest.raises(UnicodeEncodeError):
        write_private(file, "\ud800")
    assert file.read_text() == "old"
    assert [path.name for path in tmp_path.iterdir()] == ["state.json"]


def test_free_port_prefers_what_it_is_given_unless_it_is_taken() -> None:
    import socket

    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        assert free_port(port) != port
        assert answers(port)
    assert free_port(port) == port
