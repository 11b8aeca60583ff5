"""The small process beside the horse: forked before any client exists, in a session of its own.

It speaks to the ledger only when it must (a heartbeat that is due, a verdict), over a connection that it opens then. A process
and not a thread of the horse, because C code that holds the interpreter's lock stops every thread, and because a thread dies
with what it should report.

This one is forked by the horse and lives for one run. A worker that was preloaded has a standing one (`standing`), and needs
this one only where that has died.
"""

from __future__ import annotations

import gc
import os
import select
import signal
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final, NoReturn

from redis import Redis
from rq.defaults import RQ_KEY_PREFIX

from ledgerq.execution.parts import Delivery, LedgerFactory, RunLedger, WorkerParts
from ledgerq.execution.process import Horse, OwnFile, name_process
from ledgerq.execution.slate import Slate
from ledgerq.execution.watch import LOOK_S, Look, Watch
from ledgerq.logs import get_logger
from ledgerq.models import RunTicket, RunVerdict

GOODBYE: Final = b"goodbye"
LONGEST_FAREWELL: Final = select.PIPE_BUF
"""Bytes that a pipe takes at once, so that what is said is read whole: a goodbye, and a verdict behind it."""
LONGEST_GOODBYE_S: Final = 1.0
"""A keeper that does not end by itself within this time is in a call to a ledger that is away; it is killed."""
STOP_ASKED_S: Final = 0.5
"""RQ's parent writes why it killed a horse within milliseconds of reaping it."""

log = get_logger("ledgerq.keeper")


class ForkedKeeper:
    """A keeper for one run, the horse's child."""

    def __init__(self, slate: Slate, pid: int, pipe: int) -> None:
        self.slate = slate
        self._pid = pid
        self._pipe = OwnFile.of(pipe)

    @classmethod
    def fork(cls, parts: WorkerParts, delivery: Delivery) -> ForkedKeeper:
        """Start it. Call before this process opens any connection that it will use."""
        slate = Slate()
        reading, writing = os.pipe()
        horse = os.getpid()
        sys.stdout.flush()  # otherwise both processes would print what is buffered now
        pid = os.fork()
        if pid == 0:
            _keep(parts, delivery, slate, horse, reading)
        os.close(reading)
        return cls(slate, pid, writing)

    def goodbye(self, last_word: RunVerdict | None = None) -> None:
        """See `Keeper`. Returns when it has ended and is reaped, or after a second when it has something to tell."""
        if self._pipe.is_there:
            with suppress(OSError):  # it is dead; that is what `_ended` finds
                os.write(self._pipe.fd, farewell(last_word))
            os.close(self._pipe.fd)
        if not self._ended(LONGEST_GOODBYE_S) and last_word is None:
            with suppress(ProcessLookupError):
                os.kill(self._pid, signal.SIGKILL)
            self._ended(LONGEST_GOODBYE_S)

    def is_alive(self) -> bool:
        """See `Keeper`."""
        return not self._reaped()

    def _ended(self, seconds: float) -> bool:
        deadline, pause = time.monotonic() + seconds, 0.0002
        while not self._reaped():
            if time.monotonic() > deadline:
                return False
            time.sleep(pause)
            pause = min(pause * 1.5, 0.01)
        return True

    def _reaped(self) -> bool:
        """Our own child's pid cannot be anybody else's before we reap it."""
        if self._pid == 0:
            return True
        try:
            pid, _status = os.waitpid(self._pid, os.WNOHANG)
        except ChildProcessError:  # somebody's SIGCHLD handler was faster
            pid = self._pid
        if pid != 0:
            self._pid = 0
        return self._pid == 0


def farewell(last_word: RunVerdict | None) -> bytes:
    """What a horse says to its keeper in the end."""
    said = GOODBYE if last_word is None else GOODBYE + last_word.model_dump_json().encode()
    return said if len(said) <= LONGEST_FAREWELL else GOODBYE


def _keep(parts: WorkerParts, delivery: Delivery, slate: Slate, horse: int, pipe: int) -> NoReturn:
    """The child's whole life. Nothing of the horse's stack runs in it again, whatever happens."""
    code = 1
    try:
        become_keeper(keep=(pipe,))
        Keeping(parts, delivery, slate, Horse(horse), pipe).run()
        code = 0
    except BaseException:
        with suppress(BaseException):
            log.exception("keeper failed", run=delivery.run)
    finally:
        os._exit(code)


@dataclass(slots=True)
class Keeping:
    """Waits for one horse's goodbye or its end, and looks every now and then."""

    parts: WorkerParts
    delivery: Delivery
    slate: Slate
    horse: Horse
    pipe: int
    shared_ledger: LedgerFactory | None = None
    """Gives one that others share; without it this makes its own."""
    _ledger: RunLedger | None = None
    _redis: Redis | None = None

    def run(self) -> None:
        """Until the horse says goodbye or has ended; then nothing of it is left in this process."""
        try:
            self._attend(self._new_watch())
        finally:
            self._let_go()

    def ledger(self) -> RunLedger:
        """The keeper's own ledger, made now if this is its first use."""
        if self.shared_ledger is not None:
            return self.shared_ledger()
        if self._ledger is None:
            self._ledger = self.parts.ledger()
        return self._ledger

    def _new_watch(self) -> Watch:
        return Watch(
            run=self.delivery.run,
            delivery=self.delivery.id,
            slate=self.slate,
            horse=self.horse,
            ledger=self.ledger,
            push=self._push,
            stopped_by_hand=self._stopped_by_hand,
            now_ns=time.monotonic_ns,
            note_kill=self._note_kill,
            wait=time.sleep,
        )

    def _attend(self, watch: Watch) -> None:
        poll = select.poll()
        os.set_blocking(self.pipe, False)
        poll.register(self.pipe, select.POLLIN)
        if self.horse.fd is not None:
            poll.register(self.horse.fd, select.POLLIN)
        while True:
            ready = {fd for fd, _event in poll.poll(LOOK_S * 1000)}
            if self.pipe in ready and self._hears_goodbye(poll, watch):
                return
            if not self.horse.is_alive():
                if not self._hears_goodbye(poll, watch):
                    watch.horse_died()
                return
            if watch.look() is Look.OVER:
                return

    def _let_go(self) -> None:
        """A process that keeps horse after horse must not keep anything of them."""
        mine = (self.slate, self._redis, self._ledger)
        self._redis = self._ledger = None
        for one in mine:
            with suppress(Exception):  # what cannot be closed is left to the collector
                if one is not None:
                    one.close()

    def _hears_goodbye(self, poll: select.poll, watch: Watch) -> bool:
        """Whether the horse said that the run is over. An end of file alone is not its death: it may have closed all its files,
        and a child of a handler may hold the pipe open after it died. Its process is the witness."""
        try:
            data = os.read(self.pipe, LONGEST_FAREWELL)
        except (BlockingIOError, ConnectionResetError):  # the latter is told once, before what was said
            return False
        if not data:
            with suppress(KeyError):
                poll.unregister(self.pipe)
        if data.startswith(GOODBYE) and data != GOODBYE:
            watch.report(RunVerdict.model_validate_json(data.removeprefix(GOODBYE)))
        return data.startswith(GOODBYE)

    def _note_kill(self) -> None:
        if self.parts.killed is not None:
            self.parts.killed.write(self.delivery.id)

    def _push(self, tickets: Sequence[RunTicket]) -> None:
        if tickets:
            self.parts.push_with(self.ledger(), self._connection())(tickets)

    def _connection(self) -> Redis:
        if self._redis is None:
            self._redis = self.parts.redis()
        return self._redis

    def _stopped_by_hand(self) -> bool:
        """RQ kills a horse with SIGKILL when a person stops its job, and says so afterwards."""
        key = f"{RQ_KEY_PREFIX}:job:{self.delivery.run}"
        return _poll_until(lambda: self._connection().hget(key, "status"), unless=(b"started", b"queued")) == b"stopped"


def _poll_until(ask: Callable[[], object], *, unless: tuple[bytes, ...]) -> object:
    """The answer when it is another than those, or the last one after half a second. None when Redis does not answer."""
    deadline = time.monotonic() + STOP_ASKED_S
    answer: object = None
    with suppress(Exception):  # also settings that cannot be used: the death is reported all the same
        answer = ask()
        while answer in unless and time.monotonic() < deadline:
            time.sleep(0.02)
            answer = ask()
    return answer


def become_keeper(*, keep: tuple[int, ...]) -> None:
    """Turn a fresh fork into a keeper: nothing that it inherited is used, freed or held open, but these files."""
    gc.freeze()  # no finaliser of an inherited object runs twice; what this process makes is collected
    gc.enable()
    os.setsid()
    name_process("ledgerq-keeper")
    _default_signals()
    _detach_files(keep=keep)


def _default_signals() -> None:
    """A terminal's Ctrl-C and a supervisor's SIGTERM to the whole tree must not end the witness before the horse."""
    signal.set_wakeup_fd(-1)
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    for number in (signal.SIGALRM, signal.SIGCHLD):
        signal.signal(number, signal.SIG_DFL)


def _detach_files(*, keep: tuple[int, ...]) -> None:
    """Let go of the horse's files. Their numbers stay taken, so that an inherited object that closes its own cannot close one
    of ours that was opened later under the same number."""
    nowhere = os.open(os.devnull, os.O_RDWR)
    for fd in _open_files():
        if fd > 2 and fd not in (*keep, nowhere):
            with suppress(OSError):
                os.dup2(nowhere, fd, inheritable=False)


def _open_files() -> list[int]:
    for folder in ("/proc/self/fd", "/dev/fd"):
        with suppress(OSError):
            return [int(entry.name) for entry in Path(folder).iterdir()]
    return list(range(3, 256))
