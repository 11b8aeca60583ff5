"""The keeper that a worker has for all its horses: forked once, so that a run does not pay for a fork.

A horse that registers hands over three files: one end of a stream, on which it says goodbye; a pidfd of itself, so that its
identity is beyond doubt; and the memory of its slate. Each registration is kept by a thread: a report that has to wait for the
ledger keeps no other horse waiting. There is nothing in this process that could stop its threads: no handler ever runs in it.
"""

from __future__ import annotations

import json
import os
import socket
import threading
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from typing import Final, NoReturn
from uuid import UUID

from ledgerq.execution.keeper import Keeping, become_keeper, farewell
from ledgerq.execution.parts import Delivery, RunLedger, WorkerParts
from ledgerq.execution.process import Horse, OwnFile, is_readable
from ledgerq.execution.slate import SIZE, Slate
from ledgerq.logs import get_logger
from ledgerq.models import RunVerdict

ATTENDED: Final = b"attended"
ATTEND_S: Final = 0.5
"""Longest wait for the keeper's answer; it takes a tenth of a millisecond. A horse that gets none forks a keeper of its own."""
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
        if not _can_hand_over():
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
            OSError: the keeper is gone, or did not take the delivery within half a second.
        """
        with ExitStack() as opened:
            memory = os.memfd_create("ledgerq-slate")
            opened.callback(os.close, memory)
            os.ftruncate(memory, SIZE)
            slate = Slate(memory)
            ours = self._register(delivery, memory)
        try:
            _await_answer(ours)
        except OSError:
            with suppress(OSError):  # should it come to it later: it must not keep this process a second time
                ours.sendall(farewell(None))
            ours.close()
            slate.close()
            raise
        return AttendedKeeper(slate, ours)

    def _register(self, delivery: Delivery, memory: int) -> socket.socket:
        """Hand over what the keeper needs; our end of the stream."""
        message = json.dumps({"run": str(delivery.run), "delivery": str(delivery.id), "pid": os.getpid()}).encode()
        with ExitStack() as opened:
            identity = os.pidfd_open(os.getpid())
            opened.callback(os.close, identity)
            ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
            opened.enter_context(theirs)
            try:
                socket.send_fds(self._control, [message], [theirs.fileno(), identity, memory], socket.MSG_DONTWAIT)
            except OSError:
                ours.close()
                raise
            return ours

    def close(self) -> None:
        """Let go of it; it ends with its parent."""
        self._control.close()


class AttendedKeeper:
    """`keeper.Keeper` of a horse that is kept by the standing one."""

    def __init__(self, slate: Slate, stream: socket.socket) -> None:
        self.slate = slate
        self._stream = stream
        self._file = OwnFile.of(stream.fileno())

    def goodbye(self, last_word: RunVerdict | None = None) -> None:
        """See `Keeper`. What was said is read even when this process ends right now."""
        if not self._file.is_there:
            self._stream.detach()  # a handler closed it: its number may be another file's
            return
        with suppress(OSError):
            self._stream.sendall(farewell(last_word))
        self._stream.close()

    def is_alive(self) -> bool:
        """See `Keeper`. It writes nothing after its answer, so a readable stream is its end."""
        return self._file.is_there and not is_readable(self._file.fd)


def _can_hand_over() -> bool:
    """Whether this system has what a registration hands over; a kernel may lack what Python knows, or forbid it."""
    try:
        os.close(os.memfd_create("ledgerq-slate"))
        os.close(os.pidfd_open(os.getpid()))
    except (AttributeError, OSError):
        return False
    return True


def _await_answer(stream: socket.socket) -> None:
    stream.settimeout(ATTEND_S)
    if stream.recv(len(ATTENDED)) != ATTENDED:
        raise ConnectionRefusedError("the standing keeper did not take the delivery")
    stream.settimeout(None)


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

    def close(self) -> None:
        for fd in (self.stream, self.identity, self.memory):
            with suppress(OSError):
                os.close(fd)


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
            ready = is_readable(self._control.fileno(), PARENT_SEEN_EVERY_S)
            self._threads = [thread for thread in self._threads if thread.is_alive()]
            if ready:
                self._admit(_received(self._control))

    def _admit(self, registration: _Registration | None) -> None:
        if registration is None:
            return
        thread = threading.Thread(target=self._keep, args=(registration,), daemon=True)
        try:
            thread.start()
        except RuntimeError as error:  # no more threads: the horse gets no answer, and helps itself
            log.warning("delivery not taken", run=registration.delivery.run, cause=str(error))
            registration.close()
            return
        self._threads.append(thread)

    def _keep(self, of: _Registration) -> None:
        try:
            keeping = Keeping(self._parts, of.delivery, Slate(of.memory), Horse(of.pid, of.identity), of.stream, self._shared_ledger)
            os.write(of.stream, ATTENDED)
            keeping.run()
        except BrokenPipeError:
            log.info("the horse did not wait to be attended", run=of.delivery.run)
        except Exception:
            log.exception("keeping failed", run=of.delivery.run)
        finally:
            of.close()

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
