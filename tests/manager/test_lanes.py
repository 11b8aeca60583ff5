"""Calls from coroutines into threads: bounded, cancellable, bound to no loop, and never in anybody's way."""

from __future__ import annotations

import asyncio
import gc
import logging
import os
import signal
import threading
import warnings
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextvars import ContextVar

import pytest

from ledgerq.errors import WrongState
from ledgerq.manager.lanes import Lane, ended

LONGEST_S = 30.0
whose: ContextVar[str] = ContextVar("whose", default="nobody's")


class Work:
    """A call that tells when it begins, and goes on until it may end."""

    def __init__(self) -> None:
        self.begun = threading.Event()
        self.may_end = threading.Event()
        self.done = threading.Event()

    def __call__(self) -> str:
        self.begun.set()
        assert self.may_end.wait(LONGEST_S)
        self.done.set()
        return "done"

    async def has_begun(self) -> None:
        """Waits in a thread of the loop's own: a lane never needs one of those."""
        assert await asyncio.to_thread(self.begun.wait, LONGEST_S)


@pytest.fixture
def lane() -> Iterator[Lane]:
    lane = Lane("Manager", threads=2)
    yield lane
    lane.close()


@pytest.fixture
def work() -> Iterator[Work]:
    work = Work()
    yield work
    work.may_end.set()


@pytest.fixture(autouse=True)
def silence(caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    """Nothing is logged by asyncio or by the threads: no exception that nobody retrieved, no callback that failed."""
    yield
    gc.collect()
    noise = [record for record in caplog.get_records("call") if record.levelno >= logging.WARNING]
    assert not noise, [record.getMessage() for record in noise]


def failing() -> None:
    raise LookupError("as it should")


def test_many_calls_share_a_few_threads(lane: Lane) -> None:
    async def story() -> list[str]:
        return await asyncio.gather(*(lane.call(lambda: threading.current_thread().name) for _ in range(500)))

    assert len(set(asyncio.run(story()))) <= 2


def test_what_a_call_returns_and_raises_reaches_its_caller(lane: Lane) -> None:
    async def story() -> None:
        assert await lane.call(lambda: 7) == 7
        with pytest.raises(LookupError, match="as it should"):
            await lane.call(failing)

    asyncio.run(story())


def test_a_call_sees_the_context_of_its_caller(lane: Lane) -> None:
    async def mine(name: str) -> str:
        whose.set(name)
        return await lane.call(whose.get)

    async def story() -> list[str]:
        return await asyncio.gather(*(mine(f"{number}'s") for number in range(20)))

    assert asyncio.run(story()) == [f"{number}'s" for number in range(20)]


def test_a_cancelled_call_returns_at_once_and_one_that_had_not_begun_never_runs(lane: Lane) -> None:
    running, waiting = [Work(), Work()], Work()

    async def story() -> str:
        calls = [asyncio.create_task(lane.call(work)) for work in running]
        for work in running:
            await work.has_begun()
        calls.append(asyncio.create_task(lane.call(waiting)))
        await asyncio.sleep(0)
        for call in calls:
            call.cancel()
        answers = await asyncio.gather(*calls, return_exceptions=True)
        assert [type(answer) for answer in answers] == [asyncio.CancelledError] * 3
        assert not any(work.done.is_set() for work in running), "nobody waited for them"
        for work in running:
            work.may_end.set()
        return await lane.call(lambda: "the next")

    assert asyncio.run(story()) == "the next"
    assert all(work.done.wait(LONGEST_S) for work in running), "what had begun went on"
    assert not waiting.begun.is_set()


def test_an_error_of_a_call_that_was_cancelled_is_nobodys(lane: Lane, work: Work) -> None:
    def fails() -> None:
        work()
        raise LookupError("too late")

    async def story() -> None:
        call = asyncio.create_task(lane.call(fails))
        await work.has_begun()
        call.cancel()
        with pytest.raises(asyncio.CancelledError):
            await call
        work.may_end.set()
        await lane.call(work.done.wait)
        await lane.call(lambda: None)

    asyncio.run(story())


def test_the_end_of_a_loop_waits_for_no_call_that_hangs(lane: Lane, work: Work) -> None:
    async def story() -> None:
        hanging = asyncio.create_task(lane.call(work))
        await work.has_begun()
        assert not hanging.done()

    asyncio.run(story())
    assert not work.done.is_set()


def test_a_loop_that_was_closed_over_a_call_is_not_told(lane: Lane, work: Work) -> None:
    loop = asyncio.new_event_loop()
    forgotten = loop.create_task(lane.call(work))
    loop.run_until_complete(work.has_begun())
    loop.run_until_complete(loop.shutdown_default_executor())
    loop.close()
    work.may_end.set()
    assert work.done.wait(LONGEST_S)
    assert asyncio.run(lane.call(lambda: "another loop")) == "another loop"
    forgotten._log_destroy_pending = False  # type: ignore[attr-defined] - whoever closes a loop like this hears of it from asyncio


def test_loops_follow_one_another_and_run_beside_each_other(lane: Lane) -> None:
    together = threading.Barrier(2, timeout=LONGEST_S)

    async def story() -> int:
        await lane.call(together.wait)  # each loop has a call running now
        return sum(await asyncio.gather(*(lane.call(lambda: 1) for _ in range(50))))

    for _ in range(2):
        with ThreadPoolExecutor(2) as threads:
            assert [run.result(LONGEST_S) for run in [threads.submit(asyncio.run, story()) for _ in range(2)]] == [50, 50]


def test_closing_refuses_what_waits_and_leaves_what_runs(work: Work) -> None:
    lane, waiting = Lane("Manager", threads=1), Work()

    async def story() -> None:
        running = asyncio.create_task(lane.call(work))
        await work.has_begun()
        refused = asyncio.create_task(lane.call(waiting))
        await asyncio.sleep(0)
        begun = lane.close()
        with pytest.raises(WrongState, match="this Manager was closed"):
            await refused
        with pytest.raises(WrongState, match="this Manager was closed"):
            await lane.call(waiting)
        await ended(begun, patience_s=0)
        assert not work.done.is_set(), "it was not waited for longer than that"
        work.may_end.set()
        await ended(begun, patience_s=LONGEST_S)
        assert work.done.is_set()
        assert await running == "done"
        assert lane.close() == []

    asyncio.run(story())
    assert not waiting.begun.is_set()


def test_a_lane_that_was_never_used_has_no_threads() -> None:
    before = threading.active_count()
    lane = Lane("Unused", threads=3)
    assert threading.active_count() == before
    lane.close()
    with pytest.raises(WrongState):
        asyncio.run(lane.call(lambda: None))


def test_the_threads_of_a_lane_that_was_forgotten_end() -> None:
    thread = asyncio.run(Lane("Forgotten", threads=1).call(threading.current_thread))
    gc.collect()
    thread.join(LONGEST_S)
    assert not thread.is_alive()


def test_after_a_fork_the_child_has_threads_of_its_own(lane: Lane, work: Work) -> None:
    """The parent forks while all of its threads are busy; neither knows of the other's calls."""
    pids = [os.getpid()]

    def in_child() -> bool:
        asyncio.run(lane.call(lambda: pids.append(os.getpid())))
        return pids[1] == os.getpid() != pids[0] and lane.close() == []

    async def story() -> int:
        calls = [asyncio.create_task(lane.call(work)) for _ in range(2)]
        await work.has_begun()
        child = forked(in_child)
        status = await asyncio.to_thread(os.waitpid, child, 0)
        work.may_end.set()
        assert await asyncio.gather(*calls) == ["done", "done"]
        return os.waitstatus_to_exitcode(status[1])

    assert asyncio.run(story()) == 0
    assert asyncio.run(lane.call(lambda: len(pids))) == 1


def forked(in_child: Callable[[], bool]) -> int:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # of forking beside threads: servers do just that
        child = os.fork()
    if child == 0:
        signal.alarm(int(LONGEST_S))  # a child that hangs is a failure, not a hanging test
        code = 1
        try:
            code = 0 if in_child() else 2
        finally:
            os._exit(code)
    return child
