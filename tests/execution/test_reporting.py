"""What reaches the ledger while a handler is busy, and what a handler pays for a ledger that lets it wait."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator

import pytest
from rq.timeouts import JobTimeoutException

from ledgerq.errors import LedgerUnavailable, SchemaMismatch
from ledgerq.execution import desk, pace
from ledgerq.execution.slate import Terms
from ledgerq.execution.waits import Waits
from ledgerq.handlers import Handlers, TaskContext
from ledgerq.models import RunStarted, Task
from ledgerq.outcomes import Completed, Outcome, of
from tests.execution.doubles import Clock, FakeLedger, RealClock, Stage, tasks
from tests.support.waiting import eventually

SECOND = 1_000_000_000


def stage(work: Callable[..., object], count: int, *, window: bool = False) -> Stage:
    registry = Handlers()
    (registry.window_handler if window else registry.handler)("job")(work)
    return Stage(FakeLedger(tasks(count)), registry)


def reporters() -> set[threading.Thread]:
    return {thread for thread in threading.enumerate() if thread.name == "ledgerq-reporter"}


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """A second of the real clock is a twentieth of one."""
    for module in (desk, pace):
        monkeypatch.setattr(module, "ACKNOWLEDGE_S", 0.05)


def away(times: int, error: Exception | None = None) -> Callable[[str], None]:
    left = [times]

    def before(name: str) -> None:
        if name == "advance_run" and left[0] > 0:
            left[0] -= 1
            raise error or LedgerUnavailable("no route to host")

    return before


# --- while a handler is busy


@pytest.mark.usefixtures("impatient")
@pytest.mark.parametrize("trouble", ["none", "away", "a lost reply"])
def test_outcomes_do_not_wait_for_a_long_task(trouble: str) -> None:
    def work(task: Task) -> None:
        if task.id == 3:
            eventually(lambda: [1, 2] in play.ledger.acknowledged, seconds=5, what="an acknowledgement of those before")

    play = stage(work, 4)
    play.clock = RealClock()
    if trouble == "away":
        play.ledger.before = away(3)
    elif trouble == "a lost reply":
        play.ledger.lose_reply = {1}
    earlier = reporters()
    assert play.run().answered == 4
    assert play.ledger.kinds == dict.fromkeys(range(1, 5), "completed")
    eventually(lambda: reporters() <= earlier, seconds=5, what="the end of its thread")


@pytest.mark.usefixtures("impatient")
def test_a_window_handler_that_is_busy_with_no_task_is_reported_for_too() -> None:
    def work(given: Iterable[Task]) -> Iterator[Outcome]:
        for task in given:
            yield Completed()
            if task.id == 1:
                eventually(lambda: [1] in play.ledger.acknowledged, seconds=5)
                seen.append(task.id)

    seen: list[int] = []
    play = stage(work, 2, window=True)
    play.clock = RealClock()
    assert play.run().answered == 2
    assert seen == [1]


def test_a_run_of_a_single_task_needs_no_thread() -> None:
    earlier = reporters()
    play = stage(lambda task: seen.append(reporters()), 1)
    seen: list[set[threading.Thread]] = []
    play.run()
    assert seen[0] <= earlier


def test_what_is_told_in_the_middle_of_a_task_does_not_hide_that_there_is_more() -> None:
    def work(given: Iterable[Task], context: TaskContext) -> Iterator[Outcome]:
        feed = iter(given)
        held = [next(feed) for _ in range(4)]
        play.clock.wait(2)
        context.progress("half")
        held += feed
        taken.append(len(held))
        for task in held:
            yield of(task.id, Completed())

    taken: list[int] = []
    play = stage(work, 8, window=True)
    assert play.run().answered == 8
    assert taken == [8]


# --- what is told


class Unsayable:
    def __repr__(self) -> str:
        raise RuntimeError


@pytest.mark.parametrize("said", [object(), Unsayable(), {"a": {Unsayable()}}, b"\xff", "x" * 5_000])
def test_progress_that_cannot_be_said_is_dropped_and_nothing_else(said: object) -> None:
    def work(task: Task, context: TaskContext) -> None:
        context.progress(said)  # type: ignore[arg-type]

    play = stage(work, 6)
    play.run()
    assert play.ledger.kinds == dict.fromkeys(range(1, 7), "completed")
    assert not any(play.ledger.progress)


def test_a_result_is_what_it_was_when_it_was_returned() -> None:
    from ledgerq.ledger.outcome_json import outcome_json

    shared: dict[str, int] = {}

    def work(task: Task) -> Outcome:
        shared["page"] = task.id
        return Completed(shared)  # type: ignore[arg-type]

    play = stage(work, 4)
    play.run()
    assert [outcome_json(play.ledger.done[n])["result"] for n in range(1, 5)] == [{"page": n} for n in range(1, 5)]


@pytest.mark.parametrize("error", [TypeError("no JSON"), ValueError("no JSON")])
def test_what_cannot_be_said_at_once_is_said_one_by_one(error: Exception) -> None:
    play = stage(lambda task: None, 4)
    play.ledger.before = away(1, error)
    assert play.run().answered == 4
    assert play.ledger.acknowledged[:4] == [[1], [2], [3], [4]]


def test_any_other_failure_of_ours_cannot_be_swallowed_by_the_handler() -> None:
    def work(given: Iterable[Task]) -> Iterator[Outcome]:
        try:
            for _task in given:
                yield Completed()
        except Exception:  # what a careless handler does
            return

    play = stage(work, 10, window=True)
    play.ledger.before = away(1, RuntimeError("a mistake of ours"))
    with pytest.raises(RuntimeError, match="a mistake of ours"):
        play.run()


def test_what_rqs_timeout_broke_off_is_told_again(caplog: pytest.LogCaptureFixture) -> None:
    """A handler may swallow it; then the run goes on, and nothing of what was on its way is lost."""
    seen: list[int] = []

    def work(given: Iterable[Task]) -> Iterator[Outcome]:
        feed = iter(given)
        while True:
            try:
                task = next(feed)
            except StopIteration:
                return
            except JobTimeoutException:
                continue
            seen.append(task.id)
            yield Completed()

    play = stage(work, 12, window=True)
    play.ledger.before = away(1, JobTimeoutException("the whole run"))
    assert play.run().answered == 12
    assert seen == list(range(1, 13))


# --- a ledger that lets a handler wait


def test_progress_does_not_wait_for_a_ledger_that_is_away() -> None:
    def work(task: Task, context: TaskContext) -> None:
        play.ledger.before = away(1)
        context.progress({"page": 1})
        play.clock.wait(2)
        context.progress({"page": 2})
        waits.append(list(play.clock.waits))

    waits: list[list[float]] = []
    play = stage(work, 1)
    assert play.run().answered == 1
    assert waits == [[2]], "only the handler's own time has passed"
    assert [told for told in play.ledger.progress if told] == [{1: {"page": 1}}, {1: {"page": 2}}]


def test_a_task_at_work_does_not_pay_for_a_ledger_that_is_away() -> None:
    def work(given: Iterable[Task]) -> Iterator[Outcome]:
        feed = iter(given)
        held = [next(feed) for _ in range(4)]
        before = {one.task: one.deadline_ns for one in play.slate.at_work()}
        play.ledger.before = slow
        held += feed
        after = {one.task: one.deadline_ns for one in play.slate.at_work()}
        moved.extend(after[task] - before[task] for task in before)
        for task in held:
            yield of(task.id, Completed())

    def slow(name: str) -> None:
        standing.append(play.slate.waiting_since_ns)
        play.clock.time += 100
        play.ledger.before = lambda _name: None

    standing: list[int] = []
    moved: list[int] = []
    play = stage(work, 8, window=True)
    assert play.run().answered == 8
    assert moved == [100 * SECOND] * 4
    assert standing == [1_000 * SECOND]
    assert play.slate.waiting_since_ns == 0


def test_the_time_of_several_who_wait_is_counted_once() -> None:
    clock = Clock()
    play = stage(lambda task: None, 1)
    play.slate.begin_run(Terms(lease_s=20, heartbeat_s=5, cancel_grace_s=10), at_ns=0)
    play.slate.begin(7, taken_ns=0, timeout_s=60)
    waits = Waits(play.slate, clock)
    with waits:
        clock.wait(1)
        with waits:
            clock.wait(2)
        assert play.slate.waiting_since_ns == 1_000 * SECOND
    assert [one.deadline_ns for one in play.slate.at_work()] == [63 * SECOND]
    assert play.slate.waiting_since_ns == 0


def test_a_ledger_that_was_given_up_ends_a_window_handler() -> None:
    def work(given: Iterable[Task]) -> Iterator[Outcome]:
        for task in given:
            yield of(task.id, Completed())
            while len(told) < 50:
                told.append(1)
                play.clock.wait(2)
                yield of(99, Completed())

    told: list[int] = []
    play = stage(work, 3, window=True)
    play.ledger.before = away(1, SchemaMismatch("the ledger is of another version"))
    assert play.run().lost
    assert len(told) == 1


def test_a_handler_hears_that_its_ledger_was_given_up() -> None:
    def work(task: Task, context: TaskContext) -> None:
        play.ledger.before = away(1, SchemaMismatch("the ledger is of another version"))
        heard.append(context.is_cancelled())
        context.progress("half")
        heard.append(context.is_cancelled())

    heard: list[bool] = []
    play = stage(work, 1)
    assert play.run().lost
    assert heard == [False, True]


def test_a_repeated_start_that_names_no_tasks_finds_the_handler_with_the_first_one() -> None:
    class Forgetful(FakeLedger):
        def start_run(self, *run: object, **told: object) -> RunStarted:
            return super().start_run(*run, **told).model_copy(update={"tasks": ()})  # type: ignore[arg-type]

    play = stage(lambda task: None, 3)
    play.ledger = Forgetful(tasks(3))
    assert play.run().answered == 3
    assert play.ledger.kinds == dict.fromkeys(range(1, 4), "completed")
