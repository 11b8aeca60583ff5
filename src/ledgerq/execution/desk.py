"""The tasks in a horse's hands: not begun, at work, answered. Keeps the ledger, the keeper and the pace informed."""

from __future__ import annotations

import math
import threading
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final
from uuid import UUID

from ledgerq.errors import LedgerqError
from ledgerq.execution.pace import Pace
from ledgerq.execution.parts import Push, Remove
from ledgerq.execution.session import RunSession
from ledgerq.execution.slate import Slate
from ledgerq.handlers import Handler
from ledgerq.ledger.outcome_json import Returned, TaskReport
from ledgerq.logs import get_logger
from ledgerq.models import Disposition, DocumentGeneration, Json, RunAdvanced, Task
from ledgerq.outcomes import Cancelled, Outcome, Retry, Usage

IDLE_ANSWERS: Final = 3
"""Answers in a row that hand out nothing and do not finish the run. The ledger gives none; it bounds a loop all the same."""

PROGRESS_EVERY_S: Final = 1.0
"""A handler may report as often as it likes; the ledger hears of it so often."""
PROGRESS_CHARACTERS: Final = 4_000
"""Progress is a few numbers. The ledger takes 16 KiB."""

log = get_logger("ledgerq.runner")


@dataclass(frozen=True, slots=True)
class _Begun:
    task: Task
    at: float


class RunDesk:
    """Where tasks are taken and answered, by the runner's loop or from inside a window handler (also from its threads)."""

    def __init__(
        self,
        *,
        run: UUID,
        session: RunSession,
        slate: Slate,
        pace: Pace,
        push: Push,
        remove: Remove | None,
        timeout_s: Callable[[Task], float],
        stop_wanted: Callable[[], bool],
        now: Callable[[], float],
    ) -> None:
        self._run = run
        self._session = session
        self._slate = slate
        self._pace = pace
        self._push = push
        self._remove = remove
        self._timeout_s = timeout_s
        self._stop_wanted = stop_wanted
        self._now = now
        self._lock = threading.RLock()
        self._waiting: deque[Task] = deque()
        self._begun: dict[int, _Begun] = {}
        self._reports: list[TaskReport] = []
        self._cancelled: set[int] = set()
        self._told = 0
        self._usage: dict[int, list[Usage]] = {}
        self._progress: dict[int, Json] = {}
        self._progress_sent_at = -math.inf
        self._giving_back = False
        self._idle = 0
        self.is_lost = False
        self.is_over = False
        self.failure: Exception | None = None
        self.answered = 0

    # --- taking and answering

    def hand(self, tasks: Sequence[Task]) -> None:
        """Tasks that the ledger handed out at the start."""
        self._waiting.extend(tasks)
        self._cancelled.update(task.id for task in tasks if task.cancelled)
        self._pace.resume(self._now())

    def take(self) -> Task | None:
        """Begin the next task; its clock runs from now on. None: there is nothing more to begin for the time being.

        Acknowledges first when that is due. Cancelled tasks are answered here and never begun.
        """
        with self._lock:
            while self._prepare():
                task = self._waiting.popleft()
                if self.is_cancelled(task.id):
                    self._put(TaskReport(task=task.id, outcome=Cancelled()))
                    continue
                self._begin(task)
                return task
            return None

    def begin_again(self, task: Task) -> None:
        """The task is worked on once more, by itself: its clock starts anew."""
        with self._lock:
            self._slate.end(task.id)
            self._begin(task)

    def answer(self, task: Task, outcome: Outcome, handler: Handler | None = None) -> None:
        """Record the outcome of a task that was taken."""
        with self._lock:
            begun = self._begun.pop(task.id, None)
            if begun is None:
                return
            self._slate.end(task.id)
            now = self._now()
            self._put(
                TaskReport(
                    task=task.id,
                    outcome=outcome,
                    after_s=handler.retry.delay_s(task.attempts) if handler is not None and isinstance(outcome, Retry) else None,
                    duration_s=now - begun.at,
                    usage=tuple(self._usage.pop(task.id, ())),
                )
            )
            self._pace.answered(now)
            self.answered += 1

    def acknowledge_if_due(self) -> None:
        with self._lock:
            if self._pace.is_due(self._now()):
                self._acknowledge()

    def turn(self) -> None:
        """Acknowledge everything and take a new window, or learn that the run is over."""
        with self._lock:
            self._acknowledge()
            if self._waiting or self.is_over:
                self._idle = 0
                return
            self._idle += 1
            if self._idle >= IDLE_ANSWERS:
                log.error("the ledger hands out nothing and does not finish the run; left to its lease", run=self._run)
                self.is_over = True

    def flush(self) -> None:
        """Send the outcomes that are not acknowledged, and give back what is not begun: the runner has failed, and what becomes of
        the run now is charged to what is still held."""
        with self._lock:
            if not self.is_over and not self.is_lost:
                self._giving_back = True
                self._acknowledge()

    # --- what is known

    def oldest(self) -> Task | None:
        with self._lock:
            return next(iter(self._begun.values())).task if self._begun else None

    def at_work(self) -> list[Task]:
        """Taken and not answered, the oldest first."""
        with self._lock:
            return [begun.task for begun in self._begun.values()]

    def begun(self, task: int) -> Task | None:
        found = self._begun.get(task)
        return None if found is None else found.task

    @property
    def waiting(self) -> int:
        """Tasks that are held and not begun."""
        return len(self._waiting)

    def next_waiting(self) -> Task | None:
        return self._waiting[0] if self._waiting else None

    def is_cancelled(self, task: int) -> bool:
        self._hear_keeper()
        return task in self._cancelled

    def add_usage(self, task: int | None, usage: Usage) -> None:
        """Sent with the outcome of its task. Without a task at work there is nothing to charge it to."""
        if task is None:
            log.warning("usage outside a task is not recorded", run=self._run, usage=usage.id)
            return
        with self._lock:
            self._usage.setdefault(task, []).append(usage)

    def note_progress(self, task: int | None, data: Json) -> None:
        """Kept for the next acknowledgement; sent by itself when the last was a while ago, since a task may be a long one."""
        if task is None or len(repr(data)) > PROGRESS_CHARACTERS:
            log.warning("progress outside a task, or too long, is not recorded", run=self._run, task=task)
            return
        log.info("progress", run=self._run, task=task, data=data)
        with self._lock:
            self._progress[task] = data
            if self._now() - self._progress_sent_at >= PROGRESS_EVERY_S and not self.is_over:
                self._acknowledge()

    # --- inside

    def _prepare(self) -> bool:
        """See to it that a task may be begun now."""
        self._hear_keeper()
        if self.is_lost or self.is_over:
            return False
        if not self._giving_back and self._stop_wanted():
            self._giving_back = True
            self._acknowledge()
        elif not self._waiting:
            if self._begun and not self._room():
                return False  # a window handler holds all that it may; it takes more when it has answered some
            self._acknowledge()
        elif self._pace.is_due(self._now()) or self._session.is_lease_over():
            self._acknowledge()
        return bool(self._waiting) and not self.is_lost and not self.is_over

    def _begin(self, task: Task) -> None:
        now = self._now()
        self._begun[task.id] = _Begun(task, now)
        self._slate.begin(task.id, taken_ns=int(now * 1e9), timeout_s=self._timeout_s(task))

    def _put(self, report: TaskReport) -> None:
        self._reports.append(report)

    def _room(self) -> int:
        return max(0, self._pace.limit - len(self._begun) - len(self._waiting))

    def _want(self) -> int:
        if self._giving_back:
            return 0
        beyond = len(self._waiting) + (len(self._begun) if self._waiting else 0)
        return min(max(0, self._pace.window - beyond), self._room())

    def _acknowledge(self) -> None:
        if self._giving_back:
            self._reports += [TaskReport(task=task.id, outcome=Returned()) for task in self._waiting]
            self._waiting.clear()
        reports, self._reports = self._reports, []
        progress, self._progress = self._progress, {}
        self._progress_sent_at = self._now()
        self._pace.acknowledge()
        try:
            answer = self._session.advance(reports, want=self._want(), give_back=self._giving_back, progress=progress)
        except LedgerqError as error:
            # Kept, not raised: this may run inside a handler, which must not be able to swallow it.
            self.failure = error
            self.is_over = True
            return
        except BaseException:
            self._reports = reports + self._reports  # in doubt; the step makes a repetition harmless
            raise
        self._absorb(answer)
        self._pace.resume(self._now())

    def _absorb(self, answer: RunAdvanced) -> None:
        if answer.disposition is not Disposition.APPLIED:
            log.warning("run lost", run=self._run, disposition=answer.disposition)
            self.is_lost = self.is_over = True
            self._waiting.clear()
            return
        self._waiting = deque(task for task in answer.tasks if task.id not in self._begun)
        self._cancelled.update(answer.cancelled)
        self._cancelled.update(task.id for task in answer.tasks if task.cancelled)
        self.is_over = answer.finished
        if answer.ignored or answer.stale:
            log.info("outcomes without effect", run=self._run, ignored=answer.ignored, stale=answer.stale)
        if answer.runs:
            self._push(answer.runs)
        if answer.remove and self._remove is not None:
            self._tidy(answer.remove)

    def _tidy(self, items: Sequence[DocumentGeneration]) -> None:
        """Remove points at once that an acknowledgement made garbage. What fails is left to the sweeper."""
        try:
            if self._remove is not None:
                self._remove(items)
        except Exception:  # whatever a vector store raises
            log.warning("points are left to the sweeper", run=self._run, items=len(items), exc_info=True)

    def _hear_keeper(self) -> None:
        """What the keeper's heartbeats told since we looked."""
        count = self._slate.cancel_count
        if count != self._told:
            self._told = count
            self._cancelled |= self._slate.cancelled()
        if self._slate.is_superseded and not self.is_lost:
            self.is_lost = self.is_over = True
            self._waiting.clear()
