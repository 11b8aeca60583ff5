"""Directories in which no stack starts: the reason and the way out in one sentence, and nothing touched."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from ledgerq.errors import LocalStackError
from ledgerq.local import PostgresServer, ServerName, Stack, ValkeyServer, VectorServer, accounts, layout
from ledgerq.local.accounts import require_entry, server_account
from ledgerq.local.layout import Claim, Layout
from tests.support.processes import run_python, working_on
from tests.support.waiting import eventually


def contents(directory: Path) -> dict[str, object]:
    return {str(path): path.read_bytes() if path.is_file() else None for path in sorted(directory.rglob("*"))}


@pytest.mark.parametrize(
    ("files", "reason"),
    [
        ({"thesis.txt": "mine"}, r"holds other things \(thesis.txt\); nothing was touched.*--data-dir"),
        ({"VERSION": "ledgerq-stack 999\n"}, r"made by another version of ledgerq \(it says 'ledgerq-stack 999'"),
        ({"VERSION": "ledgerq-stack 1\n", "postgres/pgdata/PG_VERSION": "17\n"}, "belongs to PostgreSQL 17, but this is PostgreSQL 18"),
    ],
)
def test_directory_of_something_else(server_dir: Path, files: dict[str, str], reason: str) -> None:
    for name, text in files.items():
        (server_dir / name).parent.mkdir(parents=True, exist_ok=True)
        (server_dir / name).write_text(text)
    before = contents(server_dir)
    stack = Stack(server_dir)
    for request in (stack.up, stack.down, stack.status):
        with pytest.raises(LocalStackError, match=reason):
            request()
    assert contents(server_dir) == before


def test_file_instead_of_a_directory(server_dir: Path) -> None:
    (server_dir / "file").write_text("")
    with pytest.raises(LocalStackError, match="is not a directory"):
        Stack(server_dir / "file").up()


def test_nothing_was_ever_started(server_dir: Path) -> None:
    stack = Stack(server_dir / "stack")
    assert not stack.status().ok
    assert not stack.down()
    with pytest.raises(LocalStackError, match=r"no stack runs in .*: start it with `ledgerq up --data-dir"):
        stack.environment()
    assert contents(server_dir) == {}


def test_no_room_is_told_before_anything_starts(server_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(layout, "SPACE_NEEDED", 2**62)
    with pytest.raises(LocalStackError, match=r"no room for the stack in .* MB are free"):
        Stack(server_dir / "stack").up()
    assert working_on(server_dir) == []


def test_stack_that_is_there_needs_less_room_than_a_new_one(server_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    free = layout.shutil.disk_usage(server_dir)._replace(free=100 * 2**20)
    monkeypatch.setattr(layout.shutil, "disk_usage", lambda _: free)
    found = Layout(server_dir)
    with pytest.raises(LocalStackError, match=r"100 MB are free, 300 MB are needed"):
        found.prepare(with_postgres=True)
    found.prepare(with_postgres=False)
    (server_dir / "postgres" / "pgdata").mkdir(parents=True)
    (server_dir / "postgres" / "pgdata" / "PG_VERSION").write_text("18\n")
    found.prepare(with_postgres=True)


@pytest.mark.parametrize("name", ["x" * 300, "deep/" * 1000], ids=["a long name", "a long path"])
def test_name_that_no_directory_can_have(server_dir: Path, name: str) -> None:
    stack = Stack(server_dir / name)
    for request in (stack.up, stack.down, stack.status, stack.environment):
        with pytest.raises(LocalStackError, match=r"^cannot read .*: File name too long; choose another directory with --data-dir$"):
            request()


LOOK = """
import sys
from pathlib import Path
from ledgerq.errors import LocalStackError
from ledgerq.local import Stack
stack = Stack(Path(sys.argv[1]))
for request in (stack.up, stack.down, stack.status):
    try:
        request()
    except LocalStackError as error:
        print(error)
"""


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files to somebody else")
@pytest.mark.parametrize("closed", [False, True])
def test_stack_of_somebody_else_is_left_alone(server_dir: Path, *, closed: bool) -> None:
    """Root's by an ordinary user, who may look into the directory or not; and an ordinary user's by root."""
    stack = Stack(server_dir / "stack")
    Layout(stack.data_dir).prepare(with_postgres=True)
    Claim(Layout(stack.data_dir)).release()
    stack.data_dir.chmod(0o700 if closed else 0o711)
    before = contents(stack.data_dir)
    done = run_python(LOOK, str(stack.data_dir), user="nobody")
    reason = f"{stack.data_dir} belongs to root: run this as root"
    assert [reason in line for line in done.stdout.splitlines()] == [True] * 3, done.stderr
    shutil.chown(stack.data_dir / "VERSION", "nobody")
    for request in (stack.up, stack.down, stack.status):
        with pytest.raises(LocalStackError, match=r"belongs to nobody: run this as nobody; nothing was touched"):
            request()
    assert contents(stack.data_dir) == before


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files to somebody else")
@pytest.mark.parametrize("kind", [PostgresServer, ValkeyServer, VectorServer])
def test_server_takes_no_directory_from_its_owner(server_dir: Path, kind: type[PostgresServer | ValkeyServer | VectorServer]) -> None:
    os.chown(server_dir, 12345, 12345)
    with pytest.raises(LocalStackError, match=rf"{server_dir} belongs to uid 12345: run this as uid 12345"):
        kind(server_dir).start()
    assert server_dir.stat().st_uid == 12345
    assert contents(server_dir) == {}


@pytest.fixture
def tiny_disk(server_dir: Path) -> Iterator[Path]:
    """A file system of 24 MB."""
    disk = server_dir / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=24m,mode=711", "tmpfs", str(disk)]
    if os.geteuid() != 0 or subprocess.run(mount, capture_output=True, check=False).returncode != 0:
        pytest.skip("a small file system can only be mounted by root, and not in every container")
    yield disk
    subprocess.run(["umount", "-l", str(disk)], check=True)


@pytest.mark.processes
def test_full_disk_while_it_starts(tiny_disk: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`initdb` needs more than there is."""
    monkeypatch.setattr(layout, "SPACE_NEEDED", 0)
    with pytest.raises(LocalStackError, match=r"No space left on device|disk .* is full"):
        Stack(tiny_disk / "stack", servers=[ServerName.POSTGRES]).up()
    eventually(lambda: working_on(tiny_disk) == [], what="nothing is left running")


@pytest.mark.processes
def test_full_disk_while_it_runs_ends_nothing_and_keeps_nothing_running(tiny_disk: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A server that dies meanwhile is back as soon as there is room again."""
    monkeypatch.setattr(layout, "SPACE_TO_RUN", 0)
    stack = Stack(tiny_disk / "stack", servers=[ServerName.VALKEY])
    before = stack.up()
    fill(tiny_disk)
    kill(before.parts[0].pid)
    eventually(lambda: "No space left on device" in stack.log("supervisor").read_text(), what="it cannot be started")
    assert stack.status().running
    (tiny_disk / "filler").unlink()
    after = eventually(lambda: (status := stack.status()).ok and status, what="it is back")
    assert after.supervisor_pid == before.supervisor_pid
    fill(tiny_disk)
    kill(after.supervisor_pid)
    assert stack.down()
    assert working_on(tiny_disk) == []


def fill(disk: Path) -> None:
    """To the last byte."""
    with suppress(OSError), (disk / "filler").open("wb", buffering=0) as filler:
        while filler.write(b"x" * 4096):
            pass
    assert shutil.disk_usage(disk).free == 0


def kill(pid: int | None) -> None:
    assert pid
    os.kill(pid, signal.SIGKILL)


@pytest.mark.processes
def test_vector_server_refuses_to_write_on_a_full_disk_and_lives(tiny_disk: Path) -> None:
    from tests.local.test_vectors_refusals import Raw

    with VectorServer(tiny_disk / "vectors") as server:
        answer = Raw(server)("PUT", "/collections/c", {"vectors": {"size": 2, "distance": "Dot"}})
        assert answer[0] == 500
        assert "No space left on device" in answer[1]["status"]["error"]
        assert server.is_alive()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root's servers run as another account")
def test_directory_that_the_servers_account_may_not_enter_is_named(server_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where a descriptor is no way in, as on macOS."""
    monkeypatch.setattr(accounts, "THROUGH_DESCRIPTORS", False)
    closed = server_dir / "closed"
    closed.mkdir(mode=0o700)
    account = server_account()
    assert account
    with pytest.raises(LocalStackError, match=rf"account '{account.name}', which may not enter {closed}: .*chmod o\+x {closed}"):
        require_entry(closed / "deep" / "stack", account)
