"""Handlers that take a whole window: lazily fed, answered in any order, isolated when they raise."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator

import pytest
from rq.timeouts import JobTimeoutException

from ledgerq.errors import InvalidInput
from ledgerq.execution.pace import OVERLAP
from ledgerq.handlers import Handlers, TaskContext
from ledgerq.models import Task
from ledgerq.outcomes import Cancelled, Completed, Failed, Outcome, Retry, of
from tests.execution.doubles import FakeLedger, Stage, tasks


def stage(work: Callable[..., object], count: int, *, window_size: int = 64) -> Stage:
    registry = Handlers()
    registry.window_handler("job", window_size=window_size)(work)
    return Stage(FakeLedger(tasks(count)), registry)


def message(of_stage: Stage, task: int) -> str:
    outcome = of_stage.ledger.outcome(task)
    assert isinstance(outcome, Failed)
    assert not isinstance(outcome.error, str)
    return outcome.error.message


def test_one_call_works_through_the_whole_run() -> None:
    calls: list[int] = []

    def work(given: Iterable[Task]) -> Iterator[Outcome]:
        calls.append(1)
        for task in given:
            yield Completed(task.key)

    play = stage(work, 100)
    assert play.run().answered == 100
    assert calls == [1]
    assert play.ledger.outcome(100) == Completed("task 100")


def test_taking_a_task_starts_its_clock_and_not_before() -> None:
    def work(given: Iterable[Task]) -> Iterator[Outcome]:
        for task in given:
            assert [one.task for one in play.slate.at_work()] == [task.id]
            play.clock.wait(0.5)
            yield Completed()

    play = stage(work, 6)
    play.run()
    assert [play.ledger.done[n].duration_s for n in range(1, 7)] == pytest.approx([0.5] * 6)
    assert play.slate.at_work() == []


def test_an_outcome_without_a_name_answers_the_oldest() -> None:
    def work(given: Iterable[Task]) -> Iterator[Outcome]:
        feed = iter(given)
        first, second = next(feed), next(feed)
        yield Completed(first.key)
        yield Completed(second.key)

    play = stage(work, 2)
    play.run()
    assert [play.ledger.outcome(n) for n in (1, 2)] == [Completed("task 1"), Completed("task 2")]


def test_named_outcomes_may_come_out_of_order() -> None:
    def work(given: Iterable[Task]) -> Iterator[Outcome]:
        taken = list(given)
        for task in reversed(taken):
            yield of(task.id, Completed(task.key))

    play = stage(work, 7)
    play.run()
    assert all(play.ledger.outcome(n) == Completed(f"task {n}", task=n) for n in range(1, 8))


def test_a_handler_holds_several_at_once_but_never_more_than_its_window() -> None:
    held: list[int] = []

    def work(given: Iterable[Task]) -> Iterator[Outcome]:
        taken = list(given)
        held.append(len(taken))
        for task in taken:
            yield of(task.id, Completed())

    play = stage(work, 50, window_size=20)
    assert play.run().answered == 50
    assert max(held) <= 20
    assert held[0] >= OVERLAP


def test_a_window_handler_may_take_from_a_thread_of_its_own() -> None:
    def work(given: Iterable[Task]) -> Iterator[Outcome]:
        taken: list[Task] = []
        thread = threading.Thread(target=lambda: taken.extend(given))
        thread.start()
        thread.join()
        for task in taken:
            yield of(task.id, Completed())

    play = stage(work, 30)
    assert play.run().answered == 30


def test_when_it_raises_with_several_at_work_each_is_tried_by_itself() -> None:
    calls: list[list[int]] = []

    def work(given: Iterable[Task]) -> Iterator[Outcome]:
        taken = list(given)
        calls.append([task.id for task in taken])
        for task in taken:
            if task.id == 2:
                raise ValueError("the second one is bad")
            yield of(task.id, Completed())

    play = stage(work, 4, window_size=4)
    play.run()
    assert play.ledger.kinds == {1: "completed", 2: "failed", 3: "completed", 4: "completed"}
    assert "the second one is bad" in message(play, 2)
    assert calls == [[1, 2, 3, 4], [2], [3], [4]]


def test_a_crash_before_any_task_is_taken_is_bounded_by_the_tasks() -> None:
    def work(given: Iterable[Task]) -> Iterator[Outcome]:
        raise TypeError("broken from the start")
        yield Completed()

    play = stage(work, 3)
    play.run()
    assert set(play.ledger.kinds.values()) == {"failed"}


def test_a_task_that_is_never_answered_fails_and_is_told_why() -> None:
    def work(given: Iterable[Task]) -> Iterator[Outcome]:
        for task in given:
            if task.id % 2:
                yield Completed()

    play = stage(work, 2, window_size=1)
    play.run()
    assert play.ledger.kinds == {1: "completed", 2: "failed"}
    assert "without an outcome" in message(play, 2)


def test_a_handler_that_takes_nothing_does_not_loop_for_ever() -> None:
    play = stage(lambda given: iter(()), 3)
    play.run()
    assert set(play.ledger.kinds.values()) == {"failed"}


def test_a_handler_that_forgets_to_yield_fails_its_tasks_instead_of_completing_them() -> None:
    def work(given: Iterable[Task]) -> None:
        for _task in given:
            pass

    play = stage(work, 3)
    play.run()
    assert set(play.ledger.kinds.values()) == {"failed"}


def test_a_handler_that_stops_early_is_called_again_for_the_rest() -> None:
    calls: list[int] = []

    def work(given: Iterable[Task]) -> Iterator[Outcome]:
        calls.append(1)
        for task in given:
            yield Completed()
            if task.id % 10 == 0:
                return

    play = stage(work, 30)
    assert play.run().answered == 30
    assert len(calls) == 3


def test_nonsense_is_the_fault_of_the_oldest_task() -> None:
    def work(given: Iterable[Task]) -> Iterator[object]:
        for task in given:
            yield {"not": "an outcome"} if task.id == 1 else Completed()

    play = stage(work, 2)
    play.run()
    assert play.ledger.kinds == {1: "failed", 2: "completed"}
    assert "returned 'dict'" in message(play, 1)


def test_an_outcome_for_a_task_that_is_not_at_work_is_dropped() -> None:
    def work(given: Iterable[Task]) -> Iterator[Outcome]:
        for task in given:
            yield of(999, Completed())
            yield of(task.id, Completed())

    play = stage(work, 2)
    play.run()
    assert play.ledger.kinds == {1: "completed", 2: "completed"}


def test_only_the_cancelled_task_is_cancelled_when_a_check_raises_amid_others() -> None:
    def work(given: Iterable[Task], context: TaskContext) -> Iterator[Outcome]:
        taken = list(given)
        play.slate.cancel([2])
        for task in taken:
            context.check_cancelled(task)
            yield of(task.id, Completed())

    play = stage(work, 4, window_size=4)
    play.run()
    assert play.ledger.kinds == {1: "completed", 2: "cancelled", 3: "completed", 4: "completed"}
    assert play.ledger.outcome(2) == Cancelled()


def test_sys_exit_in_a_window_handler_ends_nobody_else() -> None:
    def work(given: Iterable[Task]) -> Iterator[Outcome]:
        for task in given:
            if task.id == 2:
                raise SystemExit(1)
            yield Completed()

    play = stage(work, 3)
    play.run()
    assert play.ledger.kinds == {1: "completed", 2: "failed", 3: "completed"}


def test_a_ledger_failure_cannot_be_swallowed_by_the_handler() -> None:
    """The acknowledgement happens inside the handler's own loop; what it raises must reach the runner all the same."""
    from ledgerq.errors import ConfigurationError

    def work(given: Iterable[Task]) -> Iterator[Outcome]:
        feed = iter(given)
        while True:
            try:
                task = next(feed)
            except StopIteration:
                return
            except Exception:  # what a careless handler does
                continue
            yield of(task.id, Completed())

    def before(name: str) -> None:
        if name == "advance_run":
            raise ConfigurationError("the login role may not use the ledger")

    play = stage(work, 10)
    play.ledger.before = before
    assert play.run().lost


def test_a_lost_run_closes_the_handler() -> None:
    closed: list[bool] = []

    def work(given: Iterable[Task]) -> Iterator[Outcome]:
        try:
            for _task in given:
                play.slate.supersede()
                yield Retry("x")
        finally:
            closed.append(True)

    play = stage(work, 10)
    assert play.run().lost
    assert closed == [True]


def test_a_window_beyond_the_largest_hand_out_is_refused_when_it_is_registered() -> None:
    for size in (0, 501):
        with pytest.raises(InvalidInput, match=f"window_size of 'job': {size} is not between 1 and 500"):
            Handlers().window_handler("job", window_size=size)


def test_the_largest_window_holds_the_largest_run() -> None:
    def work(given: Iterable[Task]) -> Iterator[Outcome]:
        for task in given:
            yield Completed(task.key)

    play = stage(work, 500, window_size=500)
    assert play.run().answered == 500
    assert 0 < max(play.ledger.windows) <= 500


# --- tried alone


def raises_together(alone: Callable[[Task], object]) -> Callable[[Iterable[Task]], Iterator[Outcome]]:
    """Takes four at once and raises; then does that with each."""

    def work(given: Iterable[Task]) -> Iterator[Outcome]:
        taken = list(given)
        if len(taken) > 1:
            raise ValueError("one of them")
        alone(taken[0])
        yield Completed()

    return work


def test_while_one_is_tried_alone_the_clocks_of_the_others_stand_still() -> None:
    at_work: list[list[int]] = []
    play = stage(raises_together(lambda task: at_work.append([one.task for one in play.slate.at_work()])), 4, window_size=4)
    play.run()
    assert at_work == [[1], [2], [3], [4]]
    assert set(play.ledger.kinds.values()) == {"completed"}


def test_what_was_tried_alone_is_acknowledged_before_the_next_slow_one() -> None:
    def alone(task: Task) -> None:
        play.clock.wait(2.0)
        raise ValueError(task.key)

    play = stage(raises_together(alone), 4, window_size=4)
    play.run()
    assert [group for group in play.ledger.acknowledged if group] == [[1], [2], [3], [4]]


def test_a_run_that_is_to_end_gives_back_whom_it_has_not_tried() -> None:
    play = stage(raises_together(lambda task: play.slate.want_shed(wanted=True)), 4, window_size=4)
    play.run()
    assert play.ledger.kinds == {1: "completed", 2: "returned", 3: "returned", 4: "returned"}


def test_no_one_is_tried_once_a_lease_has_passed_without_renewal() -> None:
    def alone(task: Task) -> None:
        tried.append(task.id)
        if task.id == 2:
            play.clock.wait(25)
            play.ledger.status = "lost"
            raise ValueError(task.key)

    tried: list[int] = []
    play = stage(raises_together(alone), 4, window_size=4)
    assert play.run().lost
    assert tried == [1, 2]


def test_one_that_is_cancelled_before_it_is_tried_is_not_begun() -> None:
    tried: list[int] = []
    play = stage(raises_together(lambda task: [tried.append(task.id), play.slate.cancel([3])]), 4, window_size=4)
    play.run()
    assert tried == [1, 2, 4]
    assert play.ledger.kinds[3] == "cancelled"


# --- no task at work


def test_a_handler_that_has_no_task_at_work_is_on_the_clock_all_the_same() -> None:
    def work(given: Iterable[Task]) -> Iterator[Outcome]:
        clocks.append(play.slate.idle_until_ns - int(play.clock() * 1e9))
        for _task in given:
            play.clock.wait(7)
            yield Completed()
            clocks.append(play.slate.idle_until_ns - int(play.clock() * 1e9))

    clocks: list[int] = []
    play = stage(work, 2)
    play.run()
    assert clocks == [60_000_000_000] * 3
    assert play.slate.idle_until_ns == 0


def test_outcomes_for_no_task_keep_none_from_being_acknowledged() -> None:
    def work(given: Iterable[Task]) -> Iterator[Outcome]:
        for task in given:
            yield Completed()
            if task.id == 1:
                play.clock.wait(2)
                yield of(999, Completed())
                acknowledged.extend(play.ledger.acknowledged)

    acknowledged: list[list[int]] = []
    play = stage(work, 2)
    assert play.run().answered == 2
    assert acknowledged == [[1]]


def test_a_handler_may_ask_for_more_as_often_as_it_likes() -> None:
    def work(given: Iterable[Task]) -> Iterator[Outcome]:
        feed = iter(given)
        taken = [next(feed), next(feed)]
        before = len(play.ledger.calls)
        for _ in range(50):
            assert next(feed, None) is None
            play.clock.wait(0.1)
        asked.append(len(play.ledger.calls) - before)
        for task in taken:
            yield of(task.id, Completed())

    asked: list[int] = []
    play = stage(work, 2)
    assert play.run().answered == 2
    assert 3 <= asked[0] <= 6, "about once a second"


def test_rqs_timeout_is_not_swallowed_when_no_task_is_at_work() -> None:
    def work(given: Iterable[Task]) -> Iterator[Outcome]:
        for _task in given:
            yield Completed()
        raise JobTimeoutException("the whole run")

    play = stage(work, 3)
    with pytest.raises(JobTimeoutException):
        play.run()


def test_what_a_handler_raises_after_all_is_done_is_told(caplog: pytest.LogCaptureFixture) -> None:
    def work(given: Iterable[Task]) -> Iterator[Outcome]:
        for _task in given:
            yield Completed()
        raise RuntimeError("too late")

    play = stage(work, 3)
    assert play.run().answered == 3
    assert "raised with no task at work" in caplog.text
    assert "too late" in caplog.text


def test_an_object_that_lies_about_its_class_is_the_fault_of_the_oldest_task() -> None:
    class Liar:
        @property
        def __class__(self) -> type:  # type: ignore[override]
            raise RuntimeError

    def work(given: Iterable[Task]) -> Iterator[object]:
        for task in given:
            yield Liar() if task.id == 1 else Completed()

    play = stage(work, 2)
    play.run()
    assert play.ledger.kinds == {1: "failed", 2: "completed"}
    assert "cannot be judged" in message(play, 1)


@pytest.mark.parametrize("named", [[], {}, object()])
def test_an_outcome_that_names_nonsense_answers_nobody(named: object) -> None:
    def work(given: Iterable[Task]) -> Iterator[Outcome]:
        for _task in given:
            yield of(named, Completed())  # type: ignore[arg-type]
            yield Completed()

    play = stage(work, 2)
    play.run()
    assert play.ledger.kinds == {1: "completed", 2: "completed"}
