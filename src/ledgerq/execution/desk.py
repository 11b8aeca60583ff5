"""The tasks in a horse's hands: not begun, at work, answered. Keeps the ledger, the keeper and the pace informed."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final
from uuid import UUID

from ledgerq.execution.outcome_of import NOT_OURS_TO_JUDGE, with_policy
from ledgerq.execution.pace import ACKNOWLEDGE_S, Pace
from ledgerq.execution.parts import Push, Remove
from ledgerq.execution.session import RunSession
from ledgerq.execution.slate import Slate
from ledgerq.execution.waits import HandlersLock, Reporter, Waits
from ledgerq.handlers import Handler
from ledgerq.ledger.outcome_json import Returned, TaskReport, fixed
from ledgerq.logs import get_logger
from ledgerq.models import Disposition, Json, RunAdvanced, Task
from ledgerq.outcomes import Cancelled, Outcome, Usage

IDLE_ANSWERS: Final = 3
"""Answers in a row that hand out nothing and do not finish the run. The ledger gives none; it bounds a loop all the same."""

PROGRESS_EVERY_S: Final = 1.0
"""A handler may report as often as it likes; the ledger hears of it so often."""
NOTHING_LEFT_S: Final = 1.0
"""After an answer that handed out nothing: when to ask again, unless there is something to tell."""
BUSY_S: Final = 0.1
"""When the reporter looks again while somebody else speaks to the ledger."""

log = get_logger("ledgerq.runner")


@dataclass(frozen=True, slots=True)
class _Begun:
    task: Task
    at: float


class RunDesk:
    """Where tasks are taken and answered, by the runner's loop or from inside a window handler (also from its threads).

    Outcomes are acknowledged when another task is taken and that is due; by a thread when a handler is busy for longer.
    """

    def __init__(
        self,
        *,
        run: UUID,
        session: RunSession,
        slate: Slate,
        pace: Pace,
        push: Push,
        remove: Remove,
        timeout_s: float,
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
        self._waits = Waits(slate, now)
        self._lock = HandlersLock(self._waits)
        self._reporter = Reporter(self.acknowledge_overdue)
        self._waiting: deque[Task] = deque()
        self._begun: dict[int, _Begun] = {}
        self._reports: list[TaskReport] = []
        self._cancelled: set[int] = set()
        self._told = 0
        self._usage: dict[int, list[Usage]] = {}
        self._progress: dict[int, Json] = {}
        self._asked_at = self._empty_at = -math.inf
        self._call_s: float | None = None
        self._giving_back = False
        self._idle = 0
        self.is_lost = self.is_over = False
        self.failure: Exception | None = None
        self.answered = 0

    def suit(self, handler: Handler, *, least: int) -> None:
        """Work as this handler wants it: so many tasks at once, and for so long where a task does not say."""
        self._pace.limit, self._pace.least = handler.window_size, least
        self._timeout_s = handler.timeout_s or self._timeout_s

    def close(self) -> None:
        """Nobody speaks to the ledger for this run any more."""
        self._reporter.end()
        with self._lock:
            self.is_over = True

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
            with self._waits:
                task = self._next()
            if task is not None:
                self._begin(task)
            return task

    def set_aside(self) -> None:
        """Nobody works on the tasks that are begun: their clocks stop, and `take_again` gives them one by one."""
        with self._lock:
            for task in self._begun:
                self._slate.end(task)

    def take_again(self) -> Task | None:
        """Begin the oldest of those that were set aside once more, by itself. None: none is left, or nothing may be begun."""
        with self._lock:
            with self._waits:
                task = self._next_aside()
            if task is not None:
                self._begin(task)
            return task

    def answer(self, task: Task, outcome: Outcome, handler: Handler | None = None) -> None:
        """Record the outcome of a task that was taken.

        It is put into JSON here, while the task's clock still runs: what is in it belongs to the handler, which may change it
        afterwards, or need for ever to be serialised.
        """
        begun = self._begun.get(task.id)
        if begun is None:
            return
        outcome, after_s = with_policy(outcome, task, handler)
        took, usage = self._now() - begun.at, tuple(self._usage.get(task.id, ()))
        report = TaskReport(task=task.id, outcome=outcome, after_s=after_s, duration_s=took, usage=usage)
        report = fixed(report, passing=NOT_OURS_TO_JUDGE)
        with self._lock:
            if self._begun.pop(task.id, None) is None:
                return
            self._usage.pop(task.id, None)
            now = self._now()
            self._reports.append(report)
            if self._call_s is not None:
                self._slate.idle_until(int((now + self._call_s) * 1e9))
                self._reporter.need(ACKNOWLEDGE_S)
            self._slate.end(task.id)
            self._pace.answered(now)
            self.answered += 1

    def acknowledge_if_due(self) -> None:
        with self._lock, self._waits:
            if self._is_due():
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
                self._return_aside()
                self._acknowledge()

    def call_begins(self, first: Task | None) -> None:
        """A window handler is called, for this task or more. While it has no task at work its time is that of a task."""
        self._call_s = self._allowed_s(first) if first is not None else self._timeout_s
        self._slate.idle_until(int((self._now() + self._call_s) * 1e9))

    def call_ends(self) -> None:
        self._call_s = None
        self._slate.idle_until(0)

    def acknowledge_overdue(self) -> float:
        """The reporter's: acknowledge what a busy handler lets wait. The seconds until it should look again."""
        wait_s = self._overdue_in()
        if wait_s > 0:
            return wait_s
        if not self._lock.take_at_once():
            return BUSY_S
        try:
            if not self.is_over and self._overdue_in() <= 0:
                self._try_acknowledge()
        finally:
            self._lock.release()
        return ACKNOWLEDGE_S

    # --- what is known

    @property
    def is_void(self) -> bool:
        """The run is somebody else's, or its ledger was given up: whatever is done for it is thrown away."""
        return self.is_lost or self.failure is not None

    def oldest(self) -> Task | None:
        """Without the lock, which somebody may hold for as long as the ledger takes to answer."""
        return next(iter(self.at_work()), None)

    def at_work(self) -> list[Task]:
        """Taken and not answered, the oldest first."""
        return [begun.task for begun in list(self._begun.values())]  # the list is made in one step

    def begun(self, task: object) -> Task | None:
        """The task of that number, if it is one and at work."""
        found = self._begun.get(task) if isinstance(task, int) else None
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
        with self._lock:
            if task is not None and task in self._begun:
                self._usage.setdefault(task, []).append(usage)
                return
        log.warning("usage outside a task is not recorded", run=self._run, task=task, usage=getattr(usage, "id", None))

    def note_progress(self, task: int, data: Json) -> None:
        """Kept for the next acknowledgement; sent by itself when the last was a while ago, since a task may be a long one.

        A ledger that does not answer is not waited for: the reporter tells it later.
        """
        log.info("progress", run=self._run, task=task, data=data)
        with self._lock, self._waits:
            if self.is_over:
                return
            self._progress[task] = data
            if self._now() - self._asked_at >= PROGRESS_EVERY_S and not self._session.is_open:
                self._try_acknowledge()
            else:
                self._reporter.need(ACKNOWLEDGE_S)

    # --- inside

    def _next(self) -> Task | None:
        while self._prepare():
            task = self._waiting.popleft()
            if not self.is_cancelled(task.id):
                return task
            self._reports.append(TaskReport(task=task.id, outcome=Cancelled()))
        return None

    def _next_aside(self) -> Task | None:
        while self._prepare_aside() and (task := self.oldest()) is not None:
            if not self.is_cancelled(task.id):
                return task
            del self._begun[task.id]
            self._reports.append(TaskReport(task=task.id, outcome=Cancelled()))
        return None

    def _prepare(self) -> bool:
        """See to it that a task may be begun now."""
        if not self._may_go_on():
            return False
        if not self._waiting:
            is_known_empty = not self._reports and self._now() - self._empty_at < NOTHING_LEFT_S
            if is_known_empty or (self._begun and not self._room()):
                return False  # a window handler takes more when it has answered some, the runner when it has told the rest
            self._acknowledge()
        elif self._is_due() or self._session.is_lease_over():
            self._acknowledge()
        return bool(self._waiting) and not self.is_over

    def _prepare_aside(self) -> bool:
        """The same for a task that was set aside. Nothing more is taken meanwhile: it would wait behind them."""
        if not self._may_go_on():
            return False
        if self._is_due() or self._session.is_lease_over():
            self._acknowledge(want=0)
        return not self.is_over

    def _may_go_on(self) -> bool:
        """Hear the keeper, and give back what is not at work if this run is to end."""
        self._hear_keeper()
        if self.is_over:
            return False
        if not self._giving_back and self._stop_wanted():
            self._giving_back = True
            self._return_aside()
            self._acknowledge()
        return not self.is_over

    def _return_aside(self) -> None:
        """Those that were set aside go back as if they had not been begun: which of them is guilty was not found out."""
        at_work = {one.task for one in self._slate.at_work()}
        for task in [task for task in self._begun if task not in at_work]:
            del self._begun[task]
            self._reports.append(TaskReport(task=task, outcome=Returned()))

    def _begin(self, task: Task) -> None:
        now = self._now()
        self._begun[task.id] = _Begun(task, now)
        self._slate.begin(task.id, taken_ns=int(now * 1e9), timeout_s=self._allowed_s(task))
        if self._reports:
            self._reporter.need(ACKNOWLEDGE_S)

    def _allowed_s(self, task: Task) -> float:
        return task.timeout_s or self._timeout_s

    def _room(self) -> int:
        return max(0, self._pace.limit - len(self._begun) - len(self._waiting))

    def _want(self) -> int:
        if self._giving_back:
            return 0
        beyond = len(self._waiting) + (len(self._begun) if self._waiting else 0)
        return min(max(0, self._pace.window - beyond), self._room())

    def _is_due(self) -> bool:
        now = self._now()
        return self._pace.is_due(now) or (self._session.is_open and now - self._asked_at >= ACKNOWLEDGE_S)

    def _overdue_in(self) -> float:
        """Seconds until something has waited for too long."""
        now, answered_at = self._now(), self._pace.oldest_answer_at
        since = now if answered_at is None else answered_at
        if self._progress or self._session.is_open:
            since = min(since, self._asked_at)
        return since + ACKNOWLEDGE_S - now

    def _acknowledge(self, *, want: int | None = None) -> None:
        """Tell everything, and wait for the answer."""
        if self._giving_back:
            self._reports += [TaskReport(task=task.id, outcome=Returned()) for task in self._waiting]
            self._waiting.clear()
        self._pace.acknowledge()
        asked = self._want() if want is None else want
        if self._tell(lambda reports, progress: self._session.advance(reports, want=asked, give_back=self._giving_back, progress=progress)):
            self._pace.resume(self._now())
            if asked and not self._waiting:
                self._empty_at = self._now()

    def _try_acknowledge(self) -> None:
        """Tell everything in the middle of a task, without patience. What does not get through is told again."""
        self._pace.sent()
        self._tell(lambda reports, progress: self._session.try_advance(reports, progress=progress))

    def _tell(self, send: Callable[[list[TaskReport], dict[int, Json]], RunAdvanced | None]) -> bool:
        reports, self._reports = self._reports, []
        progress, self._progress = self._progress, {}
        self._asked_at = self._now()
        try:
            answer = send(reports, progress)
        except NOT_OURS_TO_JUDGE:
            raise  # the session tells again what this broke off, if the run goes on at all
        except Exception as error:  # noqa: BLE001 - kept, not raised: this may run inside a handler, which must not be able to swallow it
            self.failure = error
            self.is_over = True
            return False
        if answer is not None:
            self._absorb(answer)
        return answer is not None

    def _absorb(self, answer: RunAdvanced) -> None:
        if answer.disposition is not Disposition.APPLIED:
            log.warning("run lost", run=self._run, disposition=answer.disposition)
            self.is_lost = self.is_over = True
            self._waiting.clear()
            return
        self._waiting = deque(task for task in answer.tasks if task.id not in self._begun)
        self._cancelled.update(answer.cancelled, (task.id for task in answer.tasks if task.cancelled))
        self.is_over = answer.finished or self.is_lost
        if answer.ignored or answer.stale:
            log.info("outcomes without effect", run=self._run, ignored=answer.ignored, stale=answer.stale)
        if answer.runs:
            self._push(answer.runs)
        if answer.remove:
            self._remove(answer.remove)

    def _hear_keeper(self) -> None:
        """What the keeper's heartbeats told since we looked. Without the lock: a handler asks, from any of its threads."""
        count = self._slate.cancel_count
        if count != self._told:
            self._told = count
            self._cancelled |= self._slate.cancelled()
        if self._slate.is_superseded:
            self.is_lost = self.is_over = True
