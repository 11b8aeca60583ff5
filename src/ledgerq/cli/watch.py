"""Watching jobs until they end: a bar per job on a terminal, a line per change elsewhere. All of it on stderr."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, Protocol
from uuid import UUID

from ledgerq.cli.output import printable
from ledgerq.errors import LedgerUnavailable

if TYPE_CHECKING:
    from rich.console import Console
    from rich.progress import Progress, TaskID

    from ledgerq.manager import JobManager
    from ledgerq.models import Job

POLL_S: Final = 0.2
SYNC_S: Final = 5.0
"""How often RQ is asked as well, so that a wait ends even where no steward runs."""
QUIET_S: Final = 8.0
"""After this long without any change the ledger is asked why, once per silence."""
AWAY_S: Final = 60.0
"""A ledger that is away for less than this only delays the bars."""
LINE_S: Final = 5.0
"""Off a terminal, counts are told no more often than this."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Watched:
    """A job to watch, under the name that people gave it."""

    title: str
    job: Job


class Display(Protocol):
    """Where changes are shown."""

    def change(self, title: str, job: Job) -> None: ...

    def say(self, text: str) -> None: ...


def watch(jobs: JobManager, wanted: Sequence[Watched], *, clock: Callable[[], float] = time.monotonic) -> list[Job]:
    """The jobs once all of them have ended, in the order given; meanwhile their progress is shown.

    Raises:
        NotFound: one of them was deleted meanwhile.
        LedgerUnavailable: the ledger was away for a minute.
    """
    with _display(wanted) as display:
        return _Watch(jobs, wanted, display, clock).until_ended()


@dataclass(slots=True)
class _Watch:
    jobs: JobManager
    wanted: Sequence[Watched]
    display: Display
    clock: Callable[[], float]
    _known: list[Job] = field(init=False)
    _changed_at: float = field(init=False)
    _synced_at: float = field(init=False)
    _heard_at: float = field(init=False)
    _told: bool = field(default=False, init=False)

    def __post_init__(self) -> None:
        self._known = [one.job for one in self.wanted]
        self._changed_at = self._synced_at = self._heard_at = self.clock()

    def until_ended(self) -> list[Job]:
        while not all(job.status.is_terminal for job in self._known):
            time.sleep(POLL_S)
            try:
                self._look()
            except LedgerUnavailable:
                if self.clock() - self._heard_at > AWAY_S:
                    raise
        return self._known

    def _look(self) -> None:
        synchronise = self.clock() - self._synced_at > SYNC_S
        for index, before in enumerate(self._known):
            if not before.status.is_terminal:
                self._look_at(index, before, synchronise=synchronise)
        self._heard_at = self.clock()
        if synchronise:
            self._synced_at = self._heard_at
        if not self._told and self._heard_at - self._changed_at > QUIET_S:
            self._tell_why()

    def _look_at(self, index: int, before: Job, *, synchronise: bool) -> None:
        if synchronise:
            self.jobs.get_job_status(before.id)
        now = self.jobs.get_job(before.id)
        if (now.status, now.done, now.total) != (before.status, before.done, before.total):
            self._known[index] = now
            self._changed_at, self._told = self.clock(), False
            self.display.change(self.wanted[index].title, now)

    def _tell_why(self) -> None:
        self._told = True
        waiting = next((job for job in self._known if not job.status.is_terminal), None)
        if waiting is not None:
            self.display.say(self.jobs.explain_job(waiting.id).sentence)


@contextmanager
def _display(wanted: Sequence[Watched]) -> Generator[Display]:
    from rich.console import Console

    console = Console(stderr=True)
    if not console.file.isatty() or console.is_dumb_terminal:  # not `is_terminal`: FORCE_COLOR makes no terminal of a file
        yield _Lines()
        return
    with _progress(console) as progress:
        yield _Bars(progress, {one.job.id: _bar(progress, one) for one in wanted})


def _progress(console: Console) -> Progress:
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    return Progress(
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[state]}", markup=False),
        TimeElapsedColumn(),
        console=console,
    )


def _bar(progress: Progress, one: Watched) -> TaskID:
    return progress.add_task(one.title, total=one.job.total, completed=one.job.done, state=_state(one.job))


@dataclass(slots=True)
class _Bars:
    progress: Progress
    bars: dict[UUID, TaskID]

    def change(self, title: str, job: Job) -> None:
        del title  # two jobs may have the same
        self.progress.update(self.bars[job.id], total=job.total, completed=job.done, state=_state(job))
        if job.status.is_terminal:
            self.progress.stop_task(self.bars[job.id])

    def say(self, text: str) -> None:
        self.progress.console.print(printable(text), markup=False, highlight=False)


@dataclass(slots=True)
class _Lines:
    told_at: float = float("-inf")

    def change(self, title: str, job: Job) -> None:
        now = time.monotonic()
        if job.status.is_terminal or now - self.told_at >= LINE_S:
            self.told_at = now
            self.say(f"{title}: {job.done} of {job.total}, {_state(job)}")

    def say(self, text: str) -> None:
        with suppress(OSError):  # nobody reads it any more, and the work goes on
            sys.stderr.write(printable(text) + "\n")
            sys.stderr.flush()


def _state(job: Job) -> str:
    words = str(job.status).replace("_", " ")
    return f"{words}, {job.failed} failed" if job.failed else words
