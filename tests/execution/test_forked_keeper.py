"""The keeper that a horse forks for itself: real processes, a ledger that writes down what it is told."""

from __future__ import annotations

import ctypes
import faulthandler
import os
import signal
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from ledgerq.execution import keeper as keeper_module
from ledgerq.execution.keeper import ForkedKeeper
from ledgerq.execution.kill_note import KillNote
from ledgerq.execution.parts import Delivery, WorkerParts
from ledgerq.models import RunVerdict, Verdict
from tests.execution.test_standing import TERMS, Witnessed, delivery, parts_with
from tests.support.waiting import eventually

pytestmark = pytest.mark.processes


@pytest.fixture
def ledger(tmp_path: Path) -> Witnessed:
    return Witnessed(tmp_path / "told")


def horse(parts: WorkerParts, of: Delivery, work: Callable[[ForkedKeeper], None]) -> int:
    """A forked process, the leader of its group as RQ makes it, with a keeper of its own."""
    pid = os.fork()
    if pid == 0:
        try:
            faulthandler.disable()  # pytest's own would write a page about a signal that is meant
            os.setpgrp()
            keeper = ForkedKeeper.fork(parts, of)
            keeper.slate.begin_run(TERMS, at_ns=time.monotonic_ns())
            work(keeper)
        finally:
            os._exit(0)
    return pid


def forever(_keeper: ForkedKeeper) -> None:
    while True:
        time.sleep(60)


def hang(keeper: ForkedKeeper) -> None:
    """In C code that holds the interpreter's lock."""
    keeper.slate.begin(7, taken_ns=time.monotonic_ns(), timeout_s=0.2)
    ctypes.PyDLL(None).usleep(60_000_000)


def test_it_renews_the_lease_and_outlives_the_group_of_its_horse(ledger: Witnessed) -> None:
    """RQ kills the whole group of a horse that it ends."""
    of = delivery()
    pid = horse(parts_with(ledger), of, forever)
    (beat, *_more) = eventually(lambda: ledger.told("heartbeat"), seconds=5)
    os.killpg(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    (died,) = eventually(lambda: ledger.told("died"), seconds=5)
    assert (died["run"], died["pid"]) == (str(of.run), beat["pid"])
    assert isinstance(died["evidence"], dict)
    assert died["evidence"]["horse_pid"] == pid


def test_a_task_that_holds_the_interpreter_is_ended_at_its_timeout(ledger: Witnessed) -> None:
    parts = parts_with(ledger, killed=KillNote())
    of = delivery()
    _pid, status = os.waitpid(horse(parts, of, hang), 0)
    assert os.WTERMSIG(status) == signal.SIGKILL
    assert [said["run"] for said in ledger.told("timeout")] == [str(of.run)]
    assert parts.killed is not None
    assert parts.killed.names(of.id)


def test_it_ends_with_the_goodbye_and_is_reaped(ledger: Witnessed) -> None:
    keeper = ForkedKeeper.fork(parts_with(ledger), delivery())
    pid = keeper._pid
    assert keeper.is_alive()
    keeper.goodbye()
    assert not keeper.is_alive()
    with pytest.raises(ChildProcessError):
        os.waitpid(pid, 0)
    assert ledger.told("died") == []


def test_it_tells_what_its_horse_could_not(ledger: Witnessed) -> None:
    """Although the horse lives on: a worker may work in its own process."""
    of = delivery()
    keeper = ForkedKeeper.fork(parts_with(ledger), of)
    keeper.goodbye(RunVerdict(run=of.run, delivery=of.id, verdict=Verdict.TIMEOUT, culprit=7, evidence={"error": "é\n" * 250}))
    (said,) = eventually(lambda: ledger.told("timeout"), seconds=5)
    assert (said["run"], said["evidence"]) == (str(of.run), {"error": "é\n" * 250})
    assert ledger.told("died") == []


def test_a_horse_that_closed_all_files_writes_into_nobodys(ledger: Witnessed, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(keeper_module, "LONGEST_GOODBYE_S", 0.05)
    keeper = ForkedKeeper.fork(parts_with(ledger), delivery())
    number = keeper._pipe.fd
    os.close(number)
    reading, writing = os.pipe()
    os.dup2(writing, number)
    os.set_blocking(reading, False)
    keeper.goodbye()
    with pytest.raises(BlockingIOError):
        os.read(reading, 100)
    for fd in {reading, writing, number}:
        os.close(fd)
