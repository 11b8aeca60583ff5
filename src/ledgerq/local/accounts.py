"""The account that the servers run under: one's own, or, for root, one that has no power and exists already."""

from __future__ import annotations

import os
import pwd
import subprocess
import sys
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from ledgerq.errors import LocalStackError

CANDIDATES = ("postgres", "nobody", "daemon")
"""Tried in this order. PostgreSQL refuses to run as root, and the other servers have no need to."""
THROUGH_DESCRIPTORS = sys.platform.startswith("linux")
"""Whether /proc/self/fd/N leads into the directory that is open as N, whoever may enter the directories above it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Account:
    name: str
    uid: int
    gid: int


def server_account() -> Account | None:
    """None for an ordinary user, who runs the servers as itself. Nothing is ever created."""
    if os.geteuid() != 0:
        return None
    found = {entry.pw_name: entry for entry in pwd.getpwall() if entry.pw_uid != 0}
    for name in CANDIDATES:
        if name in found:
            return Account(name=name, uid=found[name].pw_uid, gid=found[name].pw_gid)
    raise LocalStackError(
        f"the servers must not run as root, and none of the accounts {', '.join(CANDIDATES)} exists here: start ledgerq as an ordinary user"
    )


def account_name(uid: int) -> str:
    """The name of the account, or its number where it has none here."""
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return f"uid {uid}"


def give(path: Path, account: Account | None) -> None:
    """Make the account the owner of what is ours; nothing to do when everything runs as ourselves.

    LocalStackError when it is somebody else's, who could not use it any more.
    """
    if account is None or (owner := path.lstat().st_uid) == account.uid:
        return
    if owner != os.geteuid():
        raise LocalStackError(f"{path} belongs to {account_name(owner)}: run this as {account_name(owner)}, or choose another directory")
    os.chown(path, account.uid, account.gid, follow_symlinks=False)


def make_home(data_dir: Path, name: str, account: Account | None) -> Path:
    """A server's directory `data_dir/name`, closed to everybody else. LocalStackError if the account cannot get there."""
    home = data_dir / name
    for directory in (data_dir, home):
        directory.mkdir(parents=True, exist_ok=True, mode=0o700)
        give(directory, account)
    require_entry(home, account)
    return home


def may_enter(path: Path, account: Account | None) -> bool:
    """Whether the account reaches this file or directory; asked of the kernel, which alone knows."""
    command = ["/usr/bin/env", "test", "-x", str(path)]
    if account is None:
        return os.access(path, os.X_OK)
    done = subprocess.run(command, user=account.uid, group=account.gid, extra_groups=[], cwd="/", check=False)
    return done.returncode == 0


def require_entry(path: Path, account: Account | None) -> None:
    """LocalStackError that names the account and the closed directory, when there is no way for it to get there."""
    if account is None or THROUGH_DESCRIPTORS or may_enter(path, account):
        return
    closed = next((p for p in reversed([path, *path.parents]) if not may_enter(p, account)), path)
    raise LocalStackError(
        f"as root the servers run as the account {account.name!r}, which may not enter {closed}: choose a data "
        f"directory outside of it (for example /var/lib/ledgerq), or allow it with `chmod o+x {closed}`"
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Sight:
    """A directory as a server sees it."""

    path: Path
    descriptors: tuple[int, ...] = ()
    """To be handed to the server under the same numbers."""


@contextmanager
def in_sight(directory: Path, account: Account | None) -> Generator[Sight]:
    """A path by which the account gets there: below root's home it is that of an open descriptor. Valid in the block."""
    if may_enter(directory, account):
        yield Sight(path=directory)
        return
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        yield Sight(path=Path(f"/proc/self/fd/{descriptor}"), descriptors=(descriptor,))
    finally:
        os.close(descriptor)
