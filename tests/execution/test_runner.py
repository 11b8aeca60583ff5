"""The loop of a horse on a ledger in memory: plain handlers, windows, outcomes, stopping, and a ledger that is away."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator
from uuid import uuid4

import pytest

from ledgerq.errors import ConfigurationError, LedgerqError, LedgerUnavailable, SchemaMismatch, ServiceUnavailable, WrongState
from ledgerq.execution.pace import FIRST_WINDOW, GROWTH
from ledgerq.execution.slate import Terms
from ledgerq.handlers import Handlers, TaskCancelled, TaskContext
from ledgerq.ledger.outcome_json import Returned
from ledgerq.models import Disposition, DocumentGeneration, RunTicket, Task
from ledgerq.outcomes import Cancelled, Completed, Failed, Outcome, Retry, Usage
from ledgerq.retry import RetryPolicy
from tests.execution.doubles import Clock, FakeLedger, Stage, tasks


def stage(work: Callable[..., object], count: int = 1, *, handlers: Handlers | None = None, **registered: object) -> Stage:
    registry = handlers or Handlers()
    registry.handler("job", **registered)(work)
    return Stage(FakeLedger(tasks(count)), registry)


def failed(of: Stage, task: int = 1) -> Failed:
    outcome = of.ledger.outcome(task)
    assert isinstance(outcome, Failed)
    return outcome


# --- the happy path


def test_every_task_is_answered_once_and_the_run_finishes() -> None:
    seen: list[int] = []
    given = stage(lambda task: seen.append(task.id), 100)
    report = given.run()
    assert (report.disposition, report.answered, report.lost) == (Disposition.APPLIED, 100, False)
    assert seen == list(range(1, 101))
    assert given.ledger.status == "finished"
    assert set(given.ledger.kinds.values()) == {"completed"}


def test_windows_are_small_at_first_and_grow_while_tasks_are_quick() -> None:
    given = stage(lambda task: None, 100)
    given.run()
    assert given.ledger.windows[:3] == [FIRST_WINDOW, FIRST_WINDOW * GROWTH, 64]


def test_windows_stay_small_while_tasks_are_slow() -> None:
    given = stage(lambda task: given.clock.wait(2.0), 5)
    given.run()
    assert max(given.ledger.windows[1:]) == 1
    assert given.ledger.acknowledged[0] == [1], "an outcome does not wait behind a slow task"


def test_outcomes_are_acknowledged_each_second() -> None:
    """Windows have grown to 64 when the tasks become slower: nobody waits for the end of the window."""
    given = stage(lambda task: given.clock.wait(0.0001 if task.id <= 36 else 0.3), 90)
    given.run()
    late = [len(group) for group in given.ledger.acknowledged if group and group[0] > 36]
    assert max(late) <= 4


def test_progress_is_sent_while_a_task_is_at_work_and_at_most_once_a_second() -> None:
    def work(task: Task, context: TaskContext) -> None:
        for page in range(6):
            context.progress({"page": page})
            given.clock.wait(0.4)

    given = stage(work)
    given.run()
    assert [told for told in given.ledger.progress if told] == [{1: {"page": 0}}, {1: {"page": 3}}, {1: {"page": 5}}]
    assert given.ledger.kinds == {1: "completed"}


def test_progress_that_is_too_long_is_dropped_and_nothing_else() -> None:
    def work(task: Task, context: TaskContext) -> None:
        context.progress("x" * 10_000)

    given = stage(work)
    given.run()
    assert not any(given.ledger.progress)
    assert given.ledger.kinds == {1: "completed"}


def test_the_result_and_the_time_taken_are_reported() -> None:
    def work(task: Task) -> Outcome:
        given.clock.wait(1.5)
        return Completed({"words": 3})

    given = stage(work)
    given.run()
    report = given.ledger.done[1]
    assert report.outcome == Completed({"words": 3})
    assert report.duration_s == pytest.approx(1.5)


def test_the_terms_of_the_lease_are_told_to_the_keeper() -> None:
    given = stage(lambda task: None)
    given.run()
    assert given.slate.terms == Terms(lease_s=20, heartbeat_s=5, cancel_grace_s=10)


def test_runs_that_the_ledger_hands_back_are_pushed_and_garbage_is_removed() -> None:
    given = stage(lambda task: None)
    ticket = RunTicket(run=uuid4(), queue="processing", type="job")
    garbage = DocumentGeneration(document=uuid4(), generation=3)
    given.ledger.ready, given.ledger.remove = (ticket,), (garbage,)
    given.run()
    assert given.pushed == [ticket, ticket]
    assert given.removed == [garbage]


def test_a_refused_delivery_returns_quietly() -> None:
    given = stage(lambda task: pytest.fail("not ours"))
    given.ledger.status = "finished"
    report = given.run()
    assert (report.disposition, report.answered) == (Disposition.SUPERSEDED, 0)
    assert given.slate.terms is None


# --- outcomes


def test_an_unknown_type_waits_for_a_worker_that_knows_it() -> None:
    given = Stage(FakeLedger(tasks(2, type="other")), Handlers())
    given.run()
    outcome = given.ledger.outcome(1)
    assert isinstance(outcome, Retry)
    assert outcome.throttled
    assert outcome.after_s == 30.0
    assert outcome.error is not None
    assert "'other'" in outcome.error.message
    assert "LEDGERQ_APP" in outcome.error.message


def test_a_transient_failure_is_retried_after_the_policy_of_its_handler() -> None:
    def work(task: Task) -> None:
        raise ConnectionError("reset by peer")

    given = stage(work, retry=RetryPolicy(base_s=8, draw=lambda: 1.0))
    given.run()
    outcome = given.ledger.outcome(1)
    assert isinstance(outcome, Retry)
    assert (outcome.after_s, outcome.throttled) == (8.0, False)
    assert outcome.error is not None
    assert outcome.error.type == "ConnectionError"


def test_a_retry_that_names_no_wait_gets_the_policys() -> None:
    given = stage(lambda task: Retry("later"), retry=RetryPolicy(base_s=8, draw=lambda: 1.0))
    given.run()
    assert given.ledger.done[1].after_s == 8.0


def test_a_service_that_says_how_long_to_wait_is_obeyed_without_charge() -> None:
    def work(task: Task) -> None:
        raise ServiceUnavailable("slow down", retry_after=17)

    given = stage(work)
    given.run()
    outcome = given.ledger.outcome(1)
    assert isinstance(outcome, Retry)
    assert (outcome.after_s, outcome.throttled) == (17, True)


def test_a_permanent_failure_names_type_message_place_and_digest() -> None:
    def work(task: Task) -> None:
        raise ValueError(f"no such thing: {task.key}")

    given = stage(work, 2)
    given.run()
    first, second = failed(given).error, failed(given, 2).error
    assert not isinstance(first, str)
    assert not isinstance(second, str)
    assert (first.type, first.message) == ("ValueError", "no such thing: task 1")
    assert "in work" in first.traceback
    assert "execution/runner.py" not in first.traceback
    assert first.digest == second.digest != ""


@pytest.mark.parametrize(
    ("value", "told"),
    [
        ({"words": 3}, "returned 'dict'; return an Outcome"),
        ("done", "returned 'str'"),
        (Completed, "returned 'type'"),
        ((n for n in range(3)), "is a generator; register it with `window_handler`"),
    ],
)
def test_a_handler_that_returns_nonsense_fails_its_task_and_is_named(value: object, told: str) -> None:
    given = stage(lambda task: value if task.id == 1 else None, 2)
    given.run()
    error = failed(given).error
    assert not isinstance(error, str)
    assert error.type == "HandlerMisuse"
    assert "'job'" in error.message
    assert told in error.message
    assert given.ledger.kinds[2] == "completed"


def test_a_coroutine_function_is_told_to_be_an_ordinary_one() -> None:
    async def work(task: Task) -> None: ...

    given = stage(work)
    given.run()
    error = failed(given).error
    assert not isinstance(error, str)
    assert "coroutine" in error.message


@pytest.mark.parametrize("ending", [SystemExit(3), KeyboardInterrupt(), GeneratorExit()])
def test_a_handler_that_ends_the_process_fails_its_task_only(ending: BaseException) -> None:
    def work(task: Task) -> None:
        if task.id == 1:
            raise ending

    given = stage(work, 2)
    given.run()
    error = failed(given).error
    assert not isinstance(error, str)
    assert error.type == type(ending).__name__
    assert "ended the process" in error.message
    assert given.ledger.kinds[2] == "completed"


def test_an_exception_whose_text_raises_is_a_failure_like_any_other() -> None:
    class Nasty(ValueError):
        def __str__(self) -> str:
            raise RuntimeError

    def work(task: Task) -> None:
        raise Nasty

    given = stage(work)
    given.run()
    error = failed(given).error
    assert not isinstance(error, str)
    assert "whose text raises RuntimeError" in error.message


def test_an_outcome_that_cannot_be_stored_fails_its_own_task_and_no_other() -> None:
    given = stage(lambda task: None, 10)
    given.ledger.unstorable = {5}
    given.run()
    assert given.ledger.kinds == {n: "failed" if n == 5 else "completed" for n in range(1, 11)}
    error = failed(given, 5).error
    assert not isinstance(error, str)
    assert error.type == "unreportable"


def test_usage_goes_with_the_outcome_of_its_task_whatever_it_is() -> None:
    spent = Usage(id=uuid4(), provider="openai", model="m", tokens=10)

    def work(task: Task, context: TaskContext) -> None:
        context.usage(spent)
        raise ConnectionError("after the bill")

    given = stage(work)
    given.run()
    assert given.ledger.done[1].usage == (spent,)


class Odd(Exception):
    """Its attributes are nothing that anybody expects."""

    code: object = []
    retry_after: object = {}

    @property
    def response(self) -> object:
        raise SystemExit(1)


class Liar:
    @property
    def __class__(self) -> type:  # type: ignore[override]
        raise RuntimeError


def a_generator_that_does_not_close() -> Iterator[int]:
    try:
        yield 1
    finally:
        raise SystemExit(1)


def test_whatever_is_odd_about_what_a_handler_did_is_its_own_tasks_failure() -> None:
    def work(task: Task) -> object:
        match task.id:
            case 1:
                raise Odd
            case 2:
                return Liar()
            case 3:
                generator = a_generator_that_does_not_close()
                next(generator)
                return generator
            case 4:
                return Retry("later")
            case 5:
                raise ConnectionError
            case _:
                return None

    def draw() -> float:
        raise ZeroDivisionError

    given = stage(work, 6, retry=RetryPolicy(draw=draw))
    given.run()
    assert given.ledger.kinds == {**dict.fromkeys(range(1, 6), "failed"), 6: "completed"}
    told = [failed(given, task).error for task in range(1, 6)]
    assert {error.type for error in told if not isinstance(error, str)} == {"HandlerMisuse"}


def test_usage_for_a_task_that_is_answered_is_told_to_be_lost(caplog: pytest.LogCaptureFixture) -> None:
    earlier: list[Task] = []

    def work(task: Task, context: TaskContext) -> None:
        earlier.append(task)
        context.usage(Usage(id=uuid4(), provider="openai", model="m", tokens=10), earlier[0])

    given = stage(work, 2)
    given.run()
    assert [len(given.ledger.done[task].usage) for task in (1, 2)] == [1, 0]
    assert "usage outside a task is not recorded" in caplog.text


# --- resources


def test_a_resource_is_made_once_when_first_needed_and_closed_at_the_end() -> None:
    events: list[str] = []
    handlers = Handlers()

    @handlers.resource
    def client() -> Iterator[str]:
        events.append("open")
        yield "client"
        events.append("close")

    def work(task: Task, client: str) -> None:
        events.append(f"{client} {task.id}")

    given = stage(work, 2, handlers=handlers)
    given.run()
    assert events == ["open", "client 1", "client 2", "close"]


def test_a_resource_that_is_away_costs_no_attempt_and_one_that_is_misconfigured_fails() -> None:
    handlers = Handlers()
    problems = [ConnectionError("refused"), ConfigurationError("OPENAI_API_KEY is missing")]

    @handlers.resource
    def client() -> str:
        raise problems.pop(0)

    given = stage(lambda task, client: None, 2, handlers=handlers)
    # a lambda's parameters without defaults are wanted like any function's
    given.run()
    first = given.ledger.outcome(1)
    assert isinstance(first, Retry)
    assert first.throttled
    assert failed(given, 2)


def test_a_resource_that_cannot_be_closed_does_not_undo_the_work() -> None:
    handlers = Handlers()

    @handlers.resource
    def client() -> Iterator[str]:
        yield "client"
        raise RuntimeError("cannot close")

    given = stage(lambda task, client: None, handlers=handlers)
    assert given.run().answered == 1


def test_a_resource_that_ends_the_process_when_made_or_closed_ends_no_worker() -> None:
    handlers = Handlers()

    @handlers.resource
    def first() -> Iterator[str]:
        yield "first"
        raise SystemExit(1)

    @handlers.resource
    def client(first: str) -> str:
        raise SystemExit(first)

    given = stage(lambda task, client: None, 2, handlers=handlers)
    assert given.run().answered == 2
    error = failed(given).error
    assert not isinstance(error, str)
    assert "ended the process with SystemExit" in error.message


# --- cancelling


def test_tasks_of_a_cancelled_job_are_answered_without_being_begun() -> None:
    seen: list[int] = []

    def work(task: Task) -> None:
        seen.append(task.id)
        given.ledger.cancelled = {2, 7}

    given = stage(work, 8)
    given.run()
    assert given.ledger.kinds[2] == "completed", "it was held before anybody could know"
    assert given.ledger.kinds[7] == "cancelled"
    assert 7 not in seen


def test_a_task_at_work_learns_of_its_cancel_from_the_keeper() -> None:
    def work(task: Task, context: TaskContext) -> None:
        context.check_cancelled()
        given.slate.cancel([task.id])
        assert context.is_cancelled()
        context.check_cancelled()
        pytest.fail("the check should have raised")

    given = stage(work)
    given.run()
    assert given.ledger.outcome(1) == Cancelled()


def test_an_accepted_completed_wins_over_a_cancel() -> None:
    given = stage(lambda task: given.slate.cancel([task.id]))
    given.run()
    assert given.ledger.kinds == {1: "completed"}


def test_cancelled_is_no_way_out_for_a_job_that_was_not() -> None:
    def work(task: Task) -> None:
        raise TaskCancelled

    given = stage(work)
    given.run()
    error = failed(given).error
    assert not isinstance(error, str)
    assert "was not cancelled" in error.message


# --- giving back


def test_a_worker_that_is_to_end_gives_back_what_it_has_not_begun() -> None:
    def work(task: Task) -> None:
        given.clock.wait(0.01)
        if task.id == 4:
            given.clock.wait(2)
            given.stop_wanted = lambda: True

    given = stage(work, 50)
    given.run()
    kinds = given.ledger.kinds
    assert [task for task, kind in kinds.items() if kind == "completed"] == [1, 2, 3, 4]
    assert all(isinstance(given.ledger.outcome(task), Returned) for task in kinds if task > 4)
    assert given.ledger.status == "finished"


def test_sigterm_gives_back_too_and_lets_the_task_at_work_end() -> None:
    done: list[int] = []

    def work(task: Task) -> None:
        os.kill(os.getpid(), signal.SIGTERM)
        done.append(task.id)

    given = stage(work, 3)
    before = signal.getsignal(signal.SIGTERM)
    given.run()
    assert done == [1]
    assert given.ledger.kinds == {1: "completed", 2: "returned", 3: "returned"}
    assert signal.getsignal(signal.SIGTERM) is before


def test_urgent_work_elsewhere_makes_the_run_give_way() -> None:
    given = stage(lambda task: given.slate.want_shed(wanted=True), 30)
    given.run()
    assert given.ledger.kinds == {1: "completed", 2: "returned", 3: "returned", 4: "returned"}


def test_without_a_keeper_a_run_is_brought_to_its_end() -> None:
    given = stage(lambda task: given.clock.wait(1.5), 10)
    given.keeper_alive = False
    given.run()
    assert len([kind for kind in given.ledger.kinds.values() if kind == "completed"]) <= 2


def test_whether_to_stop_is_asked_once_a_second_however_long_the_answer_takes() -> None:
    def asks() -> bool:
        asked.append(given.clock())
        given.clock.wait(2.0)
        return False

    asked: list[float] = []
    given = stage(lambda task: given.clock.wait(0.25), 12)
    given.stop_wanted = asks
    given.run()
    assert len(asked) <= 3, "four tasks fit between two questions"


# --- losing the run


def test_a_run_that_was_taken_away_is_dropped_at_once() -> None:
    def work(task: Task) -> None:
        seen.append(task.id)
        given.ledger.status = "lost"

    seen: list[int] = []
    given = stage(work, 100)
    report = given.run()
    assert report.lost
    assert seen == [1, 2, 3, 4]
    assert given.ledger.done == {}


def test_a_run_that_the_keeper_calls_superseded_begins_nothing_more() -> None:
    def work(task: Task, context: TaskContext) -> None:
        seen.append(task.id)
        given.slate.supersede()
        context.check_cancelled()

    seen: list[int] = []
    given = stage(work, 100)
    assert given.run().lost
    assert seen == [1]


# --- a ledger that is away


def away(times: int, call: str = "advance_run", error: LedgerqError | None = None) -> Callable[[str], None]:
    left = [times]

    def before(name: str) -> None:
        if name == call and left[0] > 0:
            left[0] -= 1
            raise error or LedgerUnavailable("no route to host")

    return before


def test_a_ledger_that_is_away_at_the_start_is_waited_for() -> None:
    given = stage(lambda task: None, 3)
    given.ledger.before = away(5, "start_run")
    assert given.run().answered == 3
    assert len(given.clock.waits) == 4, "the second question comes at once"


def test_a_ledger_that_stays_away_at_the_start_is_told_to_rq_in_time() -> None:
    given = stage(lambda task: None)
    given.budget_s = 120
    given.ledger.before = away(10_000, "start_run")
    began = given.clock.time
    with pytest.raises(LedgerUnavailable):
        given.run()
    assert 80 <= given.clock.time - began < 120


def test_a_ledger_that_is_away_in_between_loses_nothing() -> None:
    given = stage(lambda task: None, 30)
    given.ledger.before = away(7)
    assert given.run().answered == 30
    assert set(given.ledger.kinds.values()) == {"completed"}


def test_a_key_that_is_refused_for_a_moment_loses_nothing() -> None:
    """It is being changed, or what stands before the ledger is: who was let in before asks again."""
    given = stage(lambda task: None, 30)
    given.ledger.before = away(7, error=ConfigurationError("the project does not accept the key"))
    assert given.run().answered == 30
    assert set(given.ledger.kinds.values()) == {"completed"}


def test_a_key_that_is_refused_at_the_start_is_told_at_once() -> None:
    given = stage(lambda task: None, 3)
    given.ledger.before = away(1, "start_run", ConfigurationError("the project does not accept the key"))
    with pytest.raises(ConfigurationError):
        given.run()
    assert given.clock.waits == []


def test_nothing_new_begins_once_a_lease_has_passed_without_renewal() -> None:
    begun: list[int] = []

    def work(task: Task) -> None:
        begun.append(task.id)
        if task.id == 3:
            given.clock.wait(25)
            given.ledger.before = lambda _name: [asked.append(list(begun)), None][1]

    asked: list[list[int]] = []
    given = stage(work, 10)
    given.run()
    assert asked[0] == [1, 2, 3], "it asked the ledger before it began the fourth"
    assert set(given.ledger.kinds.values()) == {"completed"}


def test_the_keepers_renewal_counts_for_the_runner() -> None:
    def work(task: Task) -> None:
        given.clock.wait(0.001)
        if task.id == 3:
            given.clock.wait(0.6)
            given.slate.renewed(int(given.clock() * 1e9))

    given = stage(work, 4)
    assert given.run().answered == 4


def test_a_ledger_that_stays_away_is_given_up_before_rqs_timeout_and_left_to_the_lease() -> None:
    given = stage(lambda task: None, 5)
    given.budget_s = 200
    given.ledger.before = away(10_000)
    report = given.run()
    assert report.lost
    assert given.ledger.done == {}


@pytest.mark.parametrize("lost", range(6))
def test_a_lost_reply_is_answered_by_asking_again(lost: int) -> None:
    """Whichever reply is lost, no task is done twice and none is left."""
    seen: list[int] = []
    given = stage(lambda task: seen.append(task.id), 40)
    given.ledger.lose_reply = {lost}
    assert given.run().answered == 40
    assert seen == list(range(1, 41))


@pytest.mark.parametrize("error", [SchemaMismatch("a migration came"), ConfigurationError("the role may not"), WrongState("step")])
def test_a_ledger_that_changes_under_a_run_leaves_it_to_its_lease(error: LedgerqError) -> None:
    """No task is charged with a death for what an operator did."""

    def before(name: str) -> None:
        if name == "advance_run":
            raise error

    given = stage(lambda task: None)
    given.ledger.before = before
    assert given.run().lost
    assert given.ledger.verdicts == []


def test_the_clock_of_these_tests_moves_only_when_it_is_told() -> None:
    clock = Clock()
    clock.wait(3)
    assert clock() == 1_003.0
