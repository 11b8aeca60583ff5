"""What a handler may say and ask while it works."""

from __future__ import annotations

from typing import Protocol
from uuid import UUID

from structlog.typing import FilteringBoundLogger

from ledgerq.handlers import TaskCancelled
from ledgerq.logs import get_logger
from ledgerq.models import Json, Task
from ledgerq.outcomes import Usage

_log = get_logger("ledgerq.handler")


class Desk(Protocol):
    """What the runner knows of the tasks at work."""

    def oldest(self) -> Task | None:
        """The task that was taken first and is not answered."""
        ...

    def is_cancelled(self, task: int) -> bool: ...

    @property
    def is_lost(self) -> bool:
        """The run is somebody else's now: whatever is done for it is thrown away."""
        ...

    def add_usage(self, task: int | None, usage: Usage) -> None: ...

    def note_progress(self, task: int | None, data: Json) -> None: ...


class Context:
    """`handlers.TaskContext` over the runner's desk."""

    def __init__(self, run: UUID, desk: Desk) -> None:
        self._run = run
        self._desk = desk

    @property
    def log(self) -> FilteringBoundLogger:
        task = self._desk.oldest()
        if task is None:
            return _log.bind(run=self._run)
        return _log.bind(run=self._run, job=task.job, task=task.id, key=task.key)

    def progress(self, data: Json) -> None:
        task = self._desk.oldest()
        self._desk.note_progress(None if task is None else task.id, data)

    def is_cancelled(self, task: Task | None = None) -> bool:
        asked = task or self._desk.oldest()
        return self._desk.is_lost or (asked is not None and self._desk.is_cancelled(asked.id))

    def check_cancelled(self, task: Task | None = None) -> None:
        if self.is_cancelled(task):
            raise TaskCancelled

    def usage(self, usage: Usage, task: Task | None = None) -> None:
        spender = task or self._desk.oldest()
        self._desk.add_usage(None if spender is None else spender.id, usage)
