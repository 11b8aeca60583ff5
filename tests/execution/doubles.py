"""A strict ledger of one run in memory, and a runner on it without processes. The real ledger is in the process tests."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from uuid import UUID, uuid4

from ledgerq.errors import InvalidInput, LedgerUnavailable, WrongState
from ledgerq.execution.parts import Delivery, WorkerParts
from ledgerq.execution.runner import Runner, RunReport
from ledgerq.execution.slate import Slate
from ledgerq.handlers import Handlers
from ledgerq.ledger.answers import Shed
from ledgerq.ledger.outcome_json import Returned, TaskReport, outcome_json
from ledgerq.ledger.run_calls import NOTHING
from ledgerq.models import (
    Dispatched,
    Disposition,
    DocumentGeneration,
    Heartbeat,
    Json,
    RunAdvanced,
    RunDisposition,
    RunsReconciled,
    RunStarted,
    RunTicket,
    RunVerdict,
    Task,
)
from ledgerq.outcomes import Cancelled, Completed, Failed, Retry


@dataclass
class FakeLedger:
    """Follows the contract of the ledger for one run: fences by delivery and step, and hands out only what it has."""

    tasks: list[Task]
    run: UUID = field(default_factory=uuid4)
    delivery: UUID | None = None
    status: str = "dispatched"
    step: int = 0
    handed: int = 0
    done: dict[int, TaskReport] = field(default_factory=dict)
    calls: list[str] = field(default_factory=list)
    windows: list[int] = field(default_factory=list)
    acknowledged: list[list[int]] = field(default_factory=list)
    verdicts: list[RunVerdict] = field(default_factory=list)
    cancelled: set[int] = field(default_factory=set)
    unstorable: set[int] = field(default_factory=set)
    stale: set[int] = field(default_factory=set)
    progress: list[dict[int, Json]] = field(default_factory=list)
    ready: tuple[RunTicket, ...] = ()
    remove: tuple[DocumentGeneration, ...] = ()
    before: Callable[[str], None] = lambda _call: None
    """Called before each call; raises what the call should fail with."""
    lose_reply: set[int] = field(default_factory=set)
    """Numbers of calls (from 0) that take effect and whose answer is lost."""
    closed: int = 0

    def start_run(self, run: UUID, *, delivery: UUID, window: int, **_who: object) -> RunStarted:
        number = self._called("start_run")
        assert run == self.run
        if self.status == "running" and self.delivery == delivery:
            return self._started()
        if self.status != "dispatched":
            return RunStarted(disposition=Disposition.SUPERSEDED)
        self.status, self.delivery = "running", delivery
        self.handed = min(window, len(self.tasks))
        self.windows.append(window)
        self._lose(number)
        return self._started()

    def advance_run(
        self,
        run: UUID,
        *,
        delivery: UUID,
        step: int,
        reports: Sequence[TaskReport],
        want: int,
        give_back: bool = False,
        progress: Mapping[int, Json] = NOTHING,
    ) -> RunAdvanced:
        number = self._called("advance_run")
        self.progress.append(dict(progress))
        assert run == self.run
        assert 0 <= want <= 500
        if delivery != self.delivery or self.status in ("lost", "revoked"):
            return RunAdvanced(disposition=Disposition.SUPERSEDED)
        if step == self.step - 1:
            return self._advanced()
        if step > self.step:
            raise WrongState(f"step: {step} is ahead of the run, which is at {self.step}")
        if self.unstorable & {report.task for report in reports if not isinstance(report.outcome, Failed)}:
            raise InvalidInput("advance_run: the ledger cannot store a value of this request")
        ignored = self._apply(reports)
        if give_back:
            self.tasks = self.tasks[: self.handed]
        else:
            self.handed = min(self.handed + want, len(self.tasks))
            self.windows.append(want)
        self.step += 1
        if not self._held() and self.handed == len(self.tasks):
            self.status = "finished"
        self._lose(number)
        stale = tuple(report.task for report in reports if report.task in self.stale)
        return self._advanced(ignored=tuple(ignored), stale=stale, remove=self.remove, runs=self.ready)

    def heartbeat_run(self, run: UUID, *, delivery: UUID) -> Heartbeat:
        self._called("heartbeat_run")
        mine = run == self.run and delivery == self.delivery and self.status == "running"
        return Heartbeat(disposition=Disposition.APPLIED if mine else Disposition.SUPERSEDED, cancelled=tuple(sorted(self.cancelled)))

    def shed(self, run: UUID, *, dispatch: bool = False) -> Shed:
        raise AssertionError(run, dispatch)

    def dispatch(self, queue: str) -> Dispatched:
        raise AssertionError(queue)

    def reconcile_runs(self, verdicts: Sequence[RunVerdict], *, actor: str, dispatch: bool = True) -> RunsReconciled:
        self._called("reconcile_runs")
        assert actor
        self.verdicts += verdicts
        runs = tuple(RunDisposition(run=verdict.run, disposition=Disposition.APPLIED) for verdict in verdicts)
        return RunsReconciled(runs=runs, to_push=self.ready)

    def close(self) -> None:
        self.closed += 1

    # --- what tests ask

    def outcome(self, task: int) -> object:
        return self.done[task].outcome

    @property
    def kinds(self) -> dict[int, str]:
        names = {Completed: "completed", Retry: "retry", Failed: "failed", Cancelled: "cancelled", Returned: "returned"}
        return {task: names[type(report.outcome)] for task, report in self.done.items()}

    # --- inside

    def _called(self, name: str) -> int:
        self.before(name)
        self.calls.append(name)
        return len(self.calls) - 1

    def _lose(self, number: int) -> None:
        if number in self.lose_reply:
            raise LedgerUnavailable("the reply was lost")

    def _apply(self, reports: Sequence[TaskReport]) -> list[int]:
        held = {task.id for task in self._held()}
        ignored: list[int] = []
        self.acknowledged.append([report.task for report in reports])
        for report in reports:
            outcome_json(report)
            if report.task not in held:
                ignored.append(report.task)
                continue
            assert report.task not in self.done, f"task {report.task} was acknowledged twice"
            self.done[report.task] = report
        return ignored

    def _held(self) -> list[Task]:
        return [
            task.model_copy(update={"cancelled": task.id in self.cancelled})
            for task in self.tasks[: self.handed]
            if task.id not in self.done
        ]

    def _started(self) -> RunStarted:
        return RunStarted(
            disposition=Disposition.APPLIED,
            step=self.step,
            lease_s=20,
            heartbeat_s=5,
            cancel_grace_s=10,
            tasks=tuple(self._held()),
            runs=self.ready,
        )

    def _advanced(self, **told: object) -> RunAdvanced:
        held = self._held()
        return RunAdvanced.model_validate(
            {
                "disposition": Disposition.APPLIED,
                "step": self.step,
                "finished": self.status == "finished",
                "tasks": tuple(held),
                "cancelled": tuple(task.id for task in held if task.cancelled),
                **told,
            }
        )


def tasks(count: int, *, type: str = "job", **changed: object) -> list[Task]:  # noqa: A002
    return [
        Task.model_validate(
            {"id": number, "job": uuid4(), "type": type, "key": f"task {number}", "max_attempts": 3, "timeout_s": 60, **changed}
        )
        for number in range(1, count + 1)
    ]


@dataclass
class Clock:
    """A monotonic clock that only moves when it is told to, or waited on."""

    time: float = 1_000.0
    waits: list[float] = field(default_factory=list)

    def __call__(self) -> float:
        return self.time

    def wait(self, seconds: float) -> None:
        self.waits.append(seconds)
        self.time += seconds


class RealClock(Clock):
    """For what a thread does in its own time."""

    def __call__(self) -> float:
        return time.monotonic()

    def wait(self, seconds: float) -> None:
        time.sleep(seconds)


@dataclass
class Stage:
    """Runs a handler on a fake ledger in this process."""

    ledger: FakeLedger
    handlers: Handlers
    clock: Clock = field(default_factory=Clock)
    slate: Slate = field(default_factory=Slate)
    pushed: list[RunTicket] = field(default_factory=list)
    removed: list[DocumentGeneration] = field(default_factory=list)
    keeper_alive: bool = True
    stop_wanted: Callable[[], bool] = lambda: False
    budget_s: float | None = None

    def delivery(self) -> Delivery:
        return Delivery(
            run=self.ledger.run,
            id=uuid4(),
            worker="worker",
            execution_id="execution",
            host="here",
            pid=1,
            budget_s=self.budget_s,
            stop_wanted=lambda: self.stop_wanted(),  # noqa: PLW0108 - a test may replace it meanwhile
        )

    def run(self) -> RunReport:
        return Runner(
            parts=parts(self.handlers, self.ledger, removed=self.removed),
            ledger=self.ledger,
            delivery=self.delivery(),
            slate=self.slate,
            push=self.pushed.extend,
            keeper_alive=lambda: self.keeper_alive,
            now=self.clock,
            wait=self.clock.wait,
        ).run()


def parts(handlers: Handlers, ledger: FakeLedger, *, removed: list[DocumentGeneration] | None = None) -> WorkerParts:
    def no_redis() -> object:
        raise AssertionError("nobody asked for Redis here")

    return WorkerParts(
        ledger=lambda: ledger,
        handlers=handlers,
        redis=no_redis,
        push_with=lambda _ledger, _redis: lambda _tickets: None,
        remove=None if removed is None else removed.extend,
    )
