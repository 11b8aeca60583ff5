"""The keeper that a worker has for all its horses: forked once, so that a run does not pay for a fork.

A horse that registers hands over three files: one end of a stream, on which it says goodbye; a pidfd of itself, so that its
identity is beyond doubt; and the memory of its slate. Each registration is kept by a thread: a report that has to wait for the
ledger keeps no other horse waiting. There is nothing in this process that could stop its threads: no handler ever runs in it.
"""

from __future__ import annotations

import json
import os
import select
import socket
import threading
from contextlib import suppress
from dataclasses import dataclass
from typing import Final, NoReturn
from uuid import UUID

from ledgerq.execution.keeper import GOODBYE, Keeping, become_keeper
from ledgerq.execution.parts import Delivery, RunLedger, WorkerParts
from ledgerq.execution.process import Horse
from ledgerq.execution.slate import SIZE, Slate
from ledgerq.logs import get_logger

PARENT_SEEN_EVERY_S: Final = 1.0

log = get_logger("ledgerq.keeper")


class StandingKeeper:
    """The worker's handle, which its horses inherit."""

    def __init__(self, control: socket.socket, pid: int) -> None:
        self._control = control
        self.pid = pid

    @classmethod
    def open(cls, parts: WorkerParts) -> StandingKeeper | None:
        """Fork it; None where the system cannot hand over what it needs (then each horse forks its own).

        It ends by itself when the caller of this is gone and no horse of it lives.
        """
        if not hasattr(os, "memfd_create") or not hasattr(os, "pidfd_open"):
            return None
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
        parent = os.getpid()
        pid = os.fork()
        if pid == 0:
            _live(parts, theirs, parent)
        theirs.close()
        return cls(ours, pid)

    def attend(self, delivery: Delivery) -> AttendedKeeper:
        """Have this process kept while it works on the delivery.

        Raises:
            OSError: the keeper is gone.
        """
        memory = os.memfd_create("ledgerq-slate")
        identity = os.pidfd_open(os.getpid())
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            os.ftruncate(memory, SIZE)
            message = json.dumps({"run": str(delivery.run), "delivery": str(delivery.id), "pid": os.getpid()}).encode()
            socket.send_fds(self._control, [message], [theirs.fileno(), identity, memory], socket.MSG_DONTWAIT)
            return AttendedKeeper(Slate(memory), ours)
        except OSError:
            ours.close()
            raise
        finally:
            theirs.close()
            os.close(identity)
            os.close(memory)

    def close(self) -> None:
        """Let go of it; it ends with its parent."""
        self._control.close()


class AttendedKeeper:
    """`keeper.Keeper` of a horse that is kept by the standing one."""

    def __init__(self, slate: Slate, stream: socket.socket) -> None:
        self.slate = slate
        self._stream = stream

    def goodbye(self) -> None:
        """See `Keeper`. What was said is read even when this process ends right now."""
        with suppress(OSError):
            self._stream.sendall(GOODBYE)
        self._stream.close()

    def is_alive(self) -> bool:
        """See `Keeper`. It never writes, so a readable stream is its end."""
        try:
            return not select.select([self._stream], [], [], 0)[0]
        except (OSError, ValueError):
            return False


def _live(parts: WorkerParts, control: socket.socket, parent: int) -> NoReturn:
    """The child's whole life. Nothing of the parent's stack runs in it again, whatever happens."""
    code = 1
    try:
        become_keeper(keep=(control.fileno(),))
        _House(parts, control, parent).run()
        code = 0
    except BaseException:
        with suppress(BaseException):
            log.exception("standing keeper failed")
    finally:
        os._exit(code)


@dataclass(frozen=True, slots=True)
class _Registration:
    delivery: Delivery
    pid: int
    stream: int
    identity: int
    memory: int


class _House:
    """Takes registrations, and gives each a thread."""

    def __init__(self, parts: WorkerParts, control: socket.socket, parent: int) -> None:
        self._parts = parts
        self._control = control
        self._parent = parent
        self._threads: list[threading.Thread] = []
        self._ledger: RunLedger | None = None
        self._lock = threading.Lock()

    def run(self) -> None:
        while os.getppid() == self._parent or self._threads:
            ready = select.select([self._control], [], [], PARENT_SEEN_EVERY_S)[0]
            self._threads = [thread for thread in self._threads if thread.is_alive()]
            if ready:
                self._admit(_received(self._control))

    def _admit(self, registration: _Registration | None) -> None:
        if registration is None:
            return
        thread = threading.Thread(target=self._keep, args=(registration,), daemon=True)
        thread.start()
        self._threads.append(thread)

    def _keep(self, of: _Registration) -> None:
        try:
            slate = Slate(of.memory)
            Keeping(self._parts, of.delivery, slate, Horse(of.pid, of.identity), of.stream, self._shared_ledger).run()
        except Exception:
            log.exception("keeping failed", run=of.delivery.run)
        finally:
            for fd in (of.stream, of.identity, of.memory):
                with suppress(OSError):
                    os.close(fd)

    def _shared_ledger(self) -> RunLedger:
        with self._lock:
            if self._ledger is None:
                self._ledger = self._parts.ledger()
            return self._ledger


def _received(control: socket.socket) -> _Registration | None:
    """The registration that is there now; None when it came without its files."""
    message, fds, _flags, _sender = socket.recv_fds(control, 1024, 3)
    if len(fds) < 3:
        for fd in fds:
            os.close(fd)
        return None
    told = json.loads(message)
    delivery = Delivery(run=UUID(told["run"]), id=UUID(told["delivery"]), worker="", execution_id=None, host="", pid=told["pid"])
    return _Registration(delivery, told["pid"], *fds)
