"""What a handler may say and ask while it works."""

from __future__ import annotations

import os
from typing import Final, Protocol
from uuid import UUID

from structlog.typing import FilteringBoundLogger

from ledgerq.execution.outcome_of import NOT_OURS_TO_JUDGE
from ledgerq.handlers import TaskCancelled
from ledgerq.ledger.outcome_json import storable
from ledgerq.logs import get_logger
from ledgerq.models import Json, Task
from ledgerq.outcomes import Usage

PROGRESS_CHARACTERS: Final = 4_000
"""Progress is a few numbers. The ledger takes 16 KiB."""

_log = get_logger("ledgerq.handler")


class Desk(Protocol):
    """What the runner knows of the tasks at work."""

    def oldest(self) -> Task | None:
        """The task that was taken first and is not answered."""
        ...

    def is_cancelled(self, task: int) -> bool: ...

    @property
    def is_void(self) -> bool:
        """The run is somebody else's now, or its ledger was given up: whatever is done for it is thrown away."""
        ...

    def add_usage(self, task: int | None, usage: Usage) -> None: ...

    def note_progress(self, task: int, data: Json) -> None: ...


class Context:
    """`handlers.TaskContext` over the runner's desk. In a child that a handler forked it only answers: its parent speaks for
    the task, over a connection that they must not share."""

    def __init__(self, run: UUID, desk: Desk) -> None:
        self._run = run
        self._desk = desk
        self._pid = os.getpid()

    @property
    def log(self) -> FilteringBoundLogger:
        task = self._desk.oldest()
        if task is None:
            return _log.bind(run=self._run)
        return _log.bind(run=self._run, job=task.job, task=task.id, key=task.key)

    def progress(self, data: Json) -> None:
        task = None if self._is_fork() else self._desk.oldest()
        sayable = _sayable(data)
        if task is None or sayable is None:
            self.log.warning("progress outside a task, too long or without JSON is not recorded")
        else:
            self._desk.note_progress(task.id, sayable[0])

    def is_cancelled(self, task: Task | None = None) -> bool:
        asked = task or self._desk.oldest()
        return self._desk.is_void or (asked is not None and self._desk.is_cancelled(asked.id))

    def check_cancelled(self, task: Task | None = None) -> None:
        if self.is_cancelled(task):
            raise TaskCancelled

    def usage(self, usage: Usage, task: Task | None = None) -> None:
        if self._is_fork():
            self.log.warning("usage of a child process is not recorded")
            return
        spender = task or self._desk.oldest()
        self._desk.add_usage(None if spender is None else spender.id, usage)

    def _is_fork(self) -> bool:
        return os.getpid() != self._pid


def _sayable(data: object) -> tuple[Json] | None:
    """The data as JSON, or None when it has none or is too long to be progress."""
    try:
        plain = storable(data)
    except NOT_OURS_TO_JUDGE:
        raise
    except Exception:  # noqa: BLE001 - whatever serialising a handler's object raises
        return None
    return (plain,) if len(repr(plain)) <= PROGRESS_CHARACTERS else None
