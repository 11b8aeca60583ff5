"""The horse as its keeper sees it: alive or not, stopped or not, how much memory, and how it ended."""

from __future__ import annotations

import array
import fcntl
import os
import select
import signal
import struct
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from ledgerq.models import JsonObject

_PIDFD_GET_INFO: Final = 0xC040FF0B
"""`_IOWR(0xFF, 11, struct pidfd_info)` with its first, 64-byte layout (linux/pidfd.h)."""
_PIDFD_INFO_EXIT: Final = 1 << 3
"""Ask how it ended: Linux 6.15 and later, once the parent has reaped it."""
_EXIT_CODE_AT: Final = 60
_STATE: Final = 0
_EXIT_CODE: Final = 49
"""Fields of /proc/<pid>/stat behind the closing parenthesis of the name (proc_pid_stat(5): 3 is the first of them)."""


class Horse:
    """The process that is kept. Its identity cannot be taken by another one: we hold a pidfd, or where there is none it is our
    parent, whose pid changes for us when it dies."""

    def __init__(self, pid: int, fd: int | None = None) -> None:
        """`fd`: a pidfd that it opened of itself; without one it must be our parent."""
        self.pid = pid
        self._fd = _pidfd(pid) if fd is None else fd
        self._peak = 0

    @property
    def fd(self) -> int | None:
        """Readable when the process has ended."""
        return self._fd

    def is_alive(self) -> bool:
        if self._fd is None:
            return os.getppid() == self.pid
        return not is_readable(self._fd)

    def is_stopped(self) -> bool:
        """Stopped by a signal or a debugger, so that it works on nothing although it lives."""
        return _stat_field(self.pid, _STATE) in ("T", "t") and self.is_alive()

    def kill(self) -> None:
        """SIGKILL to it, and to its group when it leads one: RQ makes each horse the leader of its children."""
        if not self.is_alive():
            return
        if _leads_its_group(self.pid):
            with suppress(ProcessLookupError, PermissionError):
                os.killpg(self.pid, signal.SIGKILL)
        with suppress(ProcessLookupError):
            if self._fd is None:
                os.kill(self.pid, signal.SIGKILL)
            else:
                signal.pidfd_send_signal(self._fd, signal.SIGKILL)

    def note_peak(self) -> int:
        """Largest resident memory so far, in bytes, 0 where it cannot be read. A dead process cannot be asked any more."""
        with suppress(OSError, ValueError, IndexError):
            status = Path(f"/proc/{self.pid}/status").read_text(encoding="ascii", errors="replace")
            self._peak = max(self._peak, int(status.split("VmHWM:", 1)[1].split(maxsplit=1)[0]) * 1024)
        return self._peak

    def ending(self) -> JsonObject:
        """How it ended: `signal` or `exit_code`, when the kernel still tells. Its own parent may have reaped it already."""
        status = _zombie_status(self.pid)
        if status is None and self._fd is not None:
            status = _reaped_status(self._fd)
        return ending_of(status)


def ending_of(status: int | None) -> JsonObject:
    """`signal` or `exit_code` of a wait status; nothing for None."""
    if status is None:
        return {}
    if os.WIFSIGNALED(status):
        return {"signal": signal_name(os.WTERMSIG(status))}
    return {"exit_code": os.WEXITSTATUS(status)}


def signal_name(number: int) -> str:
    """`SIGKILL` for 9."""
    with suppress(ValueError):
        return signal.Signals(number).name
    return f"signal {number}"


def is_readable(fd: int, seconds: float = 0.0) -> bool:
    """Whether there is something to read, or the other side is gone. By poll(): select() knows no file from number 1024 on."""
    poll = select.poll()
    poll.register(fd, select.POLLIN)
    return bool(poll.poll(seconds * 1000))


@dataclass(frozen=True, slots=True)
class OwnFile:
    """A file by more than its number: a handler that closes all files gives the number to whatever is opened next."""

    fd: int
    identity: tuple[int, int] | None

    @classmethod
    def of(cls, fd: int) -> OwnFile:
        """The file that has this number now."""
        return cls(fd, _identity(fd))

    @property
    def is_there(self) -> bool:
        """Whether the number still means this file."""
        return self.identity is not None and _identity(self.fd) == self.identity


def name_process(name: str) -> None:
    """What `ps -o comm` and `top` call this process (Linux)."""
    with suppress(OSError):
        Path("/proc/self/comm").write_text(name, encoding="ascii")


def _identity(fd: int) -> tuple[int, int] | None:
    with suppress(OSError):
        seen = os.fstat(fd)
        return seen.st_dev, seen.st_ino
    return None


def _pidfd(pid: int) -> int | None:
    if not hasattr(os, "pidfd_open"):
        return None
    with suppress(OSError):
        return os.pidfd_open(pid)
    return None


def _leads_its_group(pid: int) -> bool:
    with suppress(ProcessLookupError, PermissionError):
        return os.getpgid(pid) == pid
    return False


def _zombie_status(pid: int) -> int | None:
    if _stat_field(pid, _STATE) != "Z":
        return None
    code = _stat_field(pid, _EXIT_CODE)
    return int(code) if code else None


def _reaped_status(fd: int) -> int | None:
    info = array.array("B", struct.pack("=Q", _PIDFD_INFO_EXIT) + bytes(56))
    try:
        fcntl.ioctl(fd, _PIDFD_GET_INFO, info, True)
    except OSError:
        return None
    (mask,) = struct.unpack_from("=Q", info)
    return struct.unpack_from("=i", info, _EXIT_CODE_AT)[0] if mask & _PIDFD_INFO_EXIT else None


def _stat_field(pid: int, field: int) -> str | None:
    with suppress(OSError, IndexError):
        text = Path(f"/proc/{pid}/stat").read_text(encoding="ascii", errors="replace")
        return text[text.rindex(")") + 2 :].split()[field]
    return None
