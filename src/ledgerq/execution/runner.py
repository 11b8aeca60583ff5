"""The loop of a horse: start the run, work window after window, leave nothing behind."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from types import FrameType
from typing import Any, Final, NoReturn, cast

from ledgerq.errors import LedgerqError
from ledgerq.execution.context import Context
from ledgerq.execution.desk import RunDesk
from ledgerq.execution.outcome_of import (
    NOT_OURS_TO_JUDGE,
    no_handler,
    no_outcome,
    outcome_of_exception,
    outcome_of_return,
    raise_if_not_ours,
    resource_failed,
    task_named_by,
)
from ledgerq.execution.pace import FIRST_WINDOW, OVERLAP, Pace
from ledgerq.execution.parts import Delivery, Push, RunLedger, WorkerParts
from ledgerq.execution.session import RunSession
from ledgerq.execution.slate import Slate
from ledgerq.handlers import Handler, ResourceScope
from ledgerq.logs import get_logger
from ledgerq.models import Disposition, DocumentGeneration, RunStarted, RunTicket, Task

STOP_ASKED_EVERY_S: Final = 1.0
WINDOW_SIZE: Final = 64
"""Held at most where no handler says otherwise."""

log = get_logger("ledgerq.runner")


@dataclass(frozen=True, slots=True, kw_only=True)
class RunReport:
    """How a delivery went."""

    disposition: Disposition
    """Only `applied` means that the run was ours at its start."""
    answered: int = 0
    lost: bool = False
    """The run was taken away meanwhile; what was not acknowledged before is void."""


@dataclass(slots=True, kw_only=True)
class Runner:
    """Works on one run. It never raises for what handlers do, nor for a run that is not its own."""

    parts: WorkerParts
    ledger: RunLedger
    delivery: Delivery
    slate: Slate
    push: Push
    keeper_alive: Callable[[], bool]
    now: Callable[[], float] = time.monotonic
    wait: Callable[[float], None] = time.sleep
    _pid: int = field(default_factory=os.getpid)
    _stop: bool = False
    """A plain word: a signal handler sets it, which may have interrupted anything, also who holds a lock."""
    _asked_at: float = field(init=False)

    def __post_init__(self) -> None:
        self._asked_at = self.now()

    def run(self) -> RunReport:
        """Start the run and work until nothing of it is left.

        Raises:
            LedgerUnavailable: the run could not even be started for as long as RQ lets it last.
            LedgerqError: what answered the start is no ledger, or not ours.
        """
        session = RunSession(self.ledger, self.delivery, self.slate, now=self.now, wait=self.wait)
        with self._sigterm_means_stop():
            started = session.start(FIRST_WINDOW)
            if started.disposition is not Disposition.APPLIED:
                log.info("delivery refused", run=self.delivery.run, disposition=started.disposition)
                self._push(started.runs)
                return RunReport(disposition=started.disposition)
            log.info("run started", run=self.delivery.run, tasks=len(started.tasks))
            return self._work(session, started)

    # --- the loop

    def _work(self, session: RunSession, started: RunStarted) -> RunReport:
        desk = self._desk(session)
        desk.hand(started.tasks)
        self._push(started.runs)
        bench = _Bench(self, desk)
        try:
            while not desk.is_over:
                if desk.waiting:
                    bench.work()
                else:
                    desk.turn()
        except BaseException:
            self.leave_if_forked()
            desk.flush()  # only what is at work may be charged with this runner's end
            raise
        finally:
            bench.close()
            desk.close()
        if desk.failure is not None:
            self._give_up(desk.failure)
        log.info("run over", run=self.delivery.run, answered=desk.answered, lost=desk.is_lost)
        return RunReport(disposition=started.disposition, answered=desk.answered, lost=desk.is_void)

    def _give_up(self, failure: Exception) -> None:
        """A ledger that stayed away, or was changed under the run, is nobody's failure: the lease's verdict is milder than a death's."""
        log.error("run left to its lease", run=self.delivery.run, cause=f"{type(failure).__name__}: {failure}")
        if not isinstance(failure, LedgerqError):
            raise failure

    def _desk(self, session: RunSession) -> RunDesk:
        return RunDesk(
            run=self.delivery.run,
            session=session,
            slate=self.slate,
            pace=Pace(limit=WINDOW_SIZE),
            push=self._push,
            remove=self._remove,
            timeout_s=self.parts.task_timeout_s,
            stop_wanted=self._stop_wanted,
            now=self.now,
        )

    def _push(self, runs: Sequence[RunTicket]) -> None:
        """What does not reach Redis is taken back; when not even that can be told, the steward finds it."""
        try:
            self.push(runs)
        except LedgerqError as error:
            log.warning("runs are left to the steward", run=self.delivery.run, runs=len(runs), cause=str(error))

    def _remove(self, items: Sequence[DocumentGeneration]) -> None:
        """Remove points at once that an acknowledgement made garbage. What fails is left to the sweeper."""
        if self.parts.remove is None:
            return
        try:
            self.parts.remove(items)
        except NOT_OURS_TO_JUDGE:
            raise
        except Exception:  # whatever a vector store raises
            log.warning("points are left to the sweeper", run=self.delivery.run, items=len(items), exc_info=True)

    # --- stopping

    def _stop_wanted(self) -> bool:
        """Whether to give back what is not begun: the worker is to end, urgent work waits, or nobody keeps us any more."""
        if self._stop or self.slate.is_shed_wanted:
            return True
        if self.now() - self._asked_at < STOP_ASKED_EVERY_S:
            return False
        self._stop = self.delivery.stop_wanted() or not self.keeper_alive() or self._stop
        self._asked_at = self.now()  # Redis may have let us wait for as long as this is about
        return self._stop

    @contextmanager
    def _sigterm_means_stop(self) -> Generator[None]:
        """A supervisor may signal the whole tree; RQ leaves the horse with the default, which would kill it in mid-task."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return

        def stop(_number: int, _frame: FrameType | None) -> None:
            self._stop = True

        before = signal.signal(signal.SIGTERM, stop)
        try:
            yield
        finally:
            signal.signal(signal.SIGTERM, before)

    def leave_if_forked(self) -> None:
        """A handler that forked and let its child return must not acknowledge twice: the child ends here."""
        if os.getpid() != self._pid:
            _end_child()


def _end_child() -> NoReturn:
    os._exit(0)


class _Bench:
    """Calls the handler: with a task at a time, or with everything that there is."""

    def __init__(self, runner: Runner, desk: RunDesk) -> None:
        self._runner = runner
        self._desk = desk
        self._handler: Handler | None = None
        self._context = Context(runner.delivery.run, desk)
        self._resources: ResourceScope = runner.parts.handlers.open_resources()

    def work(self) -> None:
        """Work on what is held and what comes after it, until there is nothing to begin."""
        handler = self._handler = self._handler or self._find()
        if handler is None:
            self._refuse()
        elif handler.window:
            self._work_on_window(handler)
        else:
            self._work_one_by_one(handler)

    def close(self) -> None:
        """Close the resources. That they cannot be closed is nobody's task."""
        self._runner.leave_if_forked()
        try:
            self._resources.close()
        except NOT_OURS_TO_JUDGE:
            raise
        except BaseException:  # whatever a resource raises at its end, also SystemExit
            log.exception("a resource could not be closed", run=self._runner.delivery.run)

    def _find(self) -> Handler | None:
        """By the first task that there is: all of a run are of one type."""
        first = self._desk.next_waiting()
        handler = None if first is None else self._runner.parts.handlers.find(first.type)
        if handler is not None:
            self._desk.suit(handler, least=min(OVERLAP, handler.window_size) if handler.window else 1)
        return handler

    def _refuse(self) -> None:
        known = self._runner.parts.handlers.types
        while (task := self._desk.take()) is not None:
            self._desk.answer(task, no_handler(task.type, known))

    # --- one task at a time

    def _work_one_by_one(self, handler: Handler) -> None:
        desk = self._desk
        while (task := desk.take()) is not None:
            try:
                arguments = self._arguments(handler)
            except BaseException as error:  # noqa: BLE001 - whatever making a resource raises, also SystemExit
                self._runner.leave_if_forked()
                desk.answer(task, resource_failed(error, task, handler), handler)
                continue
            try:
                value = handler.function(task, **arguments)
            except BaseException as error:  # noqa: BLE001 - also SystemExit: a handler ends its task, never its worker
                self._runner.leave_if_forked()
                outcome = outcome_of_exception(error, task, handler, cancelled=desk.is_cancelled(task.id))
            else:
                self._runner.leave_if_forked()
                outcome = outcome_of_return(value, handler)
            desk.answer(task, outcome, handler)

    def _arguments(self, handler: Handler) -> dict[str, Any]:
        return {name: self._context if name == "context" else self._resources.get(name) for name in handler.wants}

    # --- a window handler

    def _work_on_window(self, handler: Handler) -> None:
        self._call(handler, _Feed(self._runner, self._desk.take))
        self._desk.set_aside()
        while (suspect := self._desk.take_again()) is not None:
            self._call_alone(handler, suspect)

    def _call_alone(self, handler: Handler, task: Task) -> None:
        """Several were at work when the handler raised: each is tried by itself, so that only the guilty one pays."""
        given = iter([task])
        self._call(handler, _Feed(self._runner, lambda: next(given, None)), alone=task)

    def _call(self, handler: Handler, feed: _Feed, *, alone: Task | None = None) -> None:
        self._desk.call_begins(alone or self._desk.next_waiting())
        try:
            arguments = self._arguments(handler)
        except BaseException as error:  # noqa: BLE001 - whatever making a resource raises, also SystemExit
            self._runner.leave_if_forked()
            raise_if_not_ours(error)
            task = alone or self._desk.take()
            if task is not None:
                self._desk.answer(task, resource_failed(error, task, handler), handler)
        else:
            self._call_with(arguments, handler, feed, alone)
        finally:
            self._desk.call_ends()

    def _call_with(self, arguments: dict[str, Any], handler: Handler, feed: _Feed, alone: Task | None) -> None:
        produced: object = None
        try:
            produced = handler.function(feed, **arguments)
            self._runner.leave_if_forked()
            for value in _iterate(produced):
                self._runner.leave_if_forked()
                self._accept(value, handler)
                if self._desk.is_void:
                    break
        except BaseException as error:  # noqa: BLE001 - also SystemExit: a handler ends its task, never its worker
            self._runner.leave_if_forked()
            raise_if_not_ours(error)
            self._blame(error, handler, self._suspects(feed, alone))
        else:
            self._runner.leave_if_forked()
            for task in self._suspects(feed, alone):
                self._desk.answer(task, no_outcome(handler), handler)
        finally:
            _close_quietly(produced)

    def _accept(self, value: object, handler: Handler) -> None:
        """An outcome answers the task that it names, or the one that was taken first."""
        named = task_named_by(value)
        task = self._desk.oldest() if named is None else self._desk.begun(named)
        if task is None:
            log.warning("an outcome answers no task at work", run=self._runner.delivery.run, handler=handler.type, task=named)
        else:
            self._desk.answer(task, outcome_of_return(value, handler), handler)
        self._desk.acknowledge_if_due()

    def _suspects(self, feed: _Feed, alone: Task | None) -> list[Task]:
        """Whom the end of a call leaves unanswered. A handler that took nothing is answered for by the next task: without it
        the loop would never end."""
        at_work = self._desk.at_work() if alone is None else [task for task in self._desk.at_work() if task.id == alone.id]
        if at_work or feed.taken or alone is not None:
            return at_work
        task = self._desk.take()
        return [] if task is None else [task]

    def _blame(self, error: BaseException, handler: Handler, suspects: list[Task]) -> None:
        """The guilty one, if there is only one. Of several only the cancelled ones are answered; the others are tried alone."""
        if not suspects:
            log.warning("a handler raised with no task at work", run=self._runner.delivery.run, handler=handler.type, exc_info=error)
        cancelled = [task for task in suspects if self._desk.is_cancelled(task.id)]
        for task in suspects if len(suspects) == 1 else cancelled:
            self._desk.answer(task, outcome_of_exception(error, task, handler, cancelled=task in cancelled), handler)


class _Feed:
    """The iterator of a window handler: taking a task begins it. A thread of the handler may take as well."""

    def __init__(self, runner: Runner, take: Callable[[], Task | None]) -> None:
        self._runner = runner
        self._take = take
        self.taken = 0

    def __iter__(self) -> Iterator[Task]:
        return self

    def __next__(self) -> Task:
        self._runner.leave_if_forked()
        task = self._take()
        if task is None:
            raise StopIteration
        self.taken += 1
        return task


def _iterate(produced: object) -> Iterable[object]:
    """What a window handler gave: outcomes one after the other, nothing, or a single value that is judged as one outcome."""
    if produced is None:
        return ()
    is_single = isinstance(produced, str | bytes | dict) or not isinstance(produced, Iterable)
    return (cast("object", produced),) if is_single else cast("Iterable[object]", produced)


def _close_quietly(produced: object) -> None:
    """A generator that was not exhausted cleans up now; what that raises is nobody's task."""
    if not isinstance(produced, Generator):
        return
    try:
        cast("Generator[object]", produced).close()
    except NOT_OURS_TO_JUDGE:
        raise
    except BaseException:  # noqa: BLE001 - also SystemExit
        return
