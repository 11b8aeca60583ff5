"""A page of memory that the horse and its keeper share: who works on what until when, and what the ledger said.

A pipe would cost a system call and a wake-up of the keeper for each task that begins or ends. A page costs a store: the keeper
reads it when it looks, and it is still there when the horse is not. Each word is written by one side only, and is eight
aligned bytes, which one instruction stores. All times are this machine's monotonic nanoseconds.
"""

from __future__ import annotations

import mmap
from collections.abc import Iterable
from dataclasses import dataclass
from enum import IntEnum
from typing import Final

SLOTS: Final = 512
"""Tasks that may be at work at once: the largest run has 500."""
CANCELS: Final = 512


class _Word(IntEnum):
    """Words before the slots. The first ones are the horse's, those from RENEWED_NS on the keeper's."""

    PEAK_BYTES = 0
    HEARD_NS = 1
    HEARTBEAT_NS = 2
    CANCEL_GRACE_NS = 3
    LEASE_NS = 4
    WAITING_SINCE_NS = 5
    IDLE_UNTIL_NS = 6
    RENEWED_NS = 7
    SUPERSEDED = 8
    SHED = 9
    LEDGER_AWAY = 10
    CANCEL_COUNT = 11


_SLOTS_AT: Final = 16
_CANCELS_AT: Final = _SLOTS_AT + 3 * SLOTS
SIZE: Final = (_CANCELS_AT + CANCELS) * 8
"""Bytes of the page."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Terms:
    """What the ledger said at the start of the run. Seconds."""

    lease_s: float
    heartbeat_s: float
    cancel_grace_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class AtWork:
    """A task that was taken and not yet answered."""

    task: int
    taken_ns: int
    deadline_ns: int


class Slate:
    """Made before the fork of the keeper, or over a file of memory that is handed to it: both sides see the same words."""

    def __init__(self, fd: int = -1) -> None:
        self._memory = mmap.mmap(fd, SIZE)
        self._words = memoryview(self._memory).cast("q")
        self._free = list(range(SLOTS))
        self._slot_of: dict[int, int] = {}

    # --- the horse writes

    def begin_run(self, terms: Terms, *, at_ns: int) -> None:
        """The run was started under these terms by a call that was sent at that time. The lease is written last: it tells the
        keeper that there is something to keep."""
        self._words[_Word.HEARTBEAT_NS] = int(terms.heartbeat_s * 1e9)
        self._words[_Word.CANCEL_GRACE_NS] = int(terms.cancel_grace_s * 1e9)
        self._words[_Word.HEARD_NS] = at_ns
        self._words[_Word.LEASE_NS] = int(terms.lease_s * 1e9)

    def begin(self, task: int, *, taken_ns: int, timeout_s: float) -> None:
        """The task is at work from now on. Its number is written last, so that the keeper never sees half a slot."""
        slot = self._free.pop()
        at = _SLOTS_AT + 3 * slot
        self._words[at + 1] = taken_ns
        self._words[at + 2] = taken_ns + int(timeout_s * 1e9)
        self._words[at] = task
        self._slot_of[task] = slot

    def end(self, task: int) -> None:
        """The task has its outcome. Harmless for a task that is not at work."""
        slot = self._slot_of.pop(task, None)
        if slot is not None:
            self._words[_SLOTS_AT + 3 * slot] = 0
            self._free.append(slot)

    def wait_since(self, at_ns: int) -> None:
        """The handler waits for us since then: until `waited`, no deadline passes."""
        self._words[_Word.WAITING_SINCE_NS] = at_ns

    def waited(self, by_ns: int) -> None:
        """The handler goes on. Deadlines are moved first, so that the keeper never sees an old one with a running clock."""
        if by_ns:
            for slot in list(self._slot_of.values()):
                self._words[_SLOTS_AT + 3 * slot + 2] += by_ns
            if self._words[_Word.IDLE_UNTIL_NS]:
                self._words[_Word.IDLE_UNTIL_NS] += by_ns
        self._words[_Word.WAITING_SINCE_NS] = 0

    def idle_until(self, at_ns: int) -> None:
        """A window handler runs and must take a task or end by then. Counts while no task is at work; 0: no handler runs."""
        self._words[_Word.IDLE_UNTIL_NS] = at_ns

    def note_peak(self, peak_bytes: int) -> None:
        self._words[_Word.PEAK_BYTES] = peak_bytes

    def heard(self, at_ns: int) -> None:
        """The horse's own call was applied and renewed the lease; `at_ns` is the time before it was sent."""
        self._words[_Word.HEARD_NS] = at_ns

    # --- the keeper writes

    def renewed(self, at_ns: int) -> None:
        """The keeper's heartbeat was applied; `at_ns` is the time before it was sent."""
        self._words[_Word.RENEWED_NS] = at_ns
        self._words[_Word.LEDGER_AWAY] = 0

    def supersede(self) -> None:
        self._words[_Word.SUPERSEDED] = 1

    def want_shed(self, wanted: bool) -> None:
        self._words[_Word.SHED] = int(wanted)

    def ledger_is_away(self) -> None:
        self._words[_Word.LEDGER_AWAY] = 1

    def cancel(self, tasks: Iterable[int]) -> None:
        """Tell the horse of cancelled tasks; it is told of each once. The count is written last."""
        known = self.cancelled()
        count = self._words[_Word.CANCEL_COUNT]
        for task in tasks:
            if task not in known and count < CANCELS:
                self._words[_CANCELS_AT + count] = task
                count += 1
        self._words[_Word.CANCEL_COUNT] = count

    # --- both read

    @property
    def terms(self) -> Terms | None:
        """None before the run was started."""
        heartbeat, grace, lease = self._words[_Word.HEARTBEAT_NS : _Word.LEASE_NS + 1].tolist()
        return Terms(lease_s=lease / 1e9, heartbeat_s=heartbeat / 1e9, cancel_grace_s=grace / 1e9) if lease else None

    def at_work(self) -> list[AtWork]:
        """The tasks at work, the one taken first in front."""
        taken = [at for at, task in enumerate(self._words[_SLOTS_AT:_CANCELS_AT:3].tolist()) if task]
        slots = (self._words[_SLOTS_AT + 3 * at : _SLOTS_AT + 3 * at + 3].tolist() for at in taken)
        found = [AtWork(task=task, taken_ns=since, deadline_ns=deadline) for task, since, deadline in slots if task]
        return sorted(found, key=lambda one: one.taken_ns)

    def cancelled(self) -> frozenset[int]:
        count = self._words[_Word.CANCEL_COUNT]
        return frozenset(self._words[_CANCELS_AT : _CANCELS_AT + count].tolist()) if count else frozenset()

    @property
    def cancel_count(self) -> int:
        return self._words[_Word.CANCEL_COUNT]

    @property
    def waiting_since_ns(self) -> int:
        """Since when the horse waits for the ledger with a handler's clock stopped; 0 when it does not."""
        return self._words[_Word.WAITING_SINCE_NS]

    @property
    def idle_until_ns(self) -> int:
        """When a window handler that has no task at work is over its time; 0 when none runs."""
        return self._words[_Word.IDLE_UNTIL_NS]

    @property
    def is_superseded(self) -> bool:
        return self._words[_Word.SUPERSEDED] == 1

    @property
    def is_shed_wanted(self) -> bool:
        return self._words[_Word.SHED] == 1

    @property
    def is_ledger_away(self) -> bool:
        """The keeper's last heartbeat failed."""
        return self._words[_Word.LEDGER_AWAY] == 1

    @property
    def renewed_ns(self) -> int:
        """When the keeper last renewed the lease; 0 if it never did."""
        return self._words[_Word.RENEWED_NS]

    @property
    def heard_ns(self) -> int:
        """When the horse itself last renewed the lease; 0 if it never did."""
        return self._words[_Word.HEARD_NS]

    @property
    def peak_bytes(self) -> int:
        return self._words[_Word.PEAK_BYTES]

    def close(self) -> None:
        self._words.release()
        self._memory.close()
