"""The keeper that stands beside a worker: real processes, a ledger that writes down what it is told."""

from __future__ import annotations

import faulthandler
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from uuid import UUID, uuid4

import pytest

from ledgerq.execution.deliver import deliver
from ledgerq.execution.parts import Delivery, Keeper, WorkerParts
from ledgerq.execution.slate import Slate, Terms
from ledgerq.execution.standing import StandingKeeper
from ledgerq.handlers import Handlers
from ledgerq.models import Disposition, Heartbeat, RunDisposition, RunsReconciled, RunVerdict
from tests.execution.doubles import FakeLedger, parts, tasks
from tests.support.waiting import eventually

pytestmark = pytest.mark.processes

TERMS = Terms(lease_s=2, heartbeat_s=0.3, cancel_grace_s=0.5)


@dataclass(frozen=True)
class Witnessed:
    """A ledger that appends what a keeper tells it to a file, which a test in another process reads."""

    path: Path

    def reconcile_runs(self, verdicts: Sequence[RunVerdict], *, actor: str, dispatch: bool = True) -> RunsReconciled:
        for verdict in verdicts:
            self._write(kind=verdict.verdict.value, run=str(verdict.run), actor=actor, pid=os.getpid(), evidence=verdict.evidence)
        return RunsReconciled(runs=tuple(RunDisposition(run=verdict.run, disposition=Disposition.APPLIED) for verdict in verdicts))

    def heartbeat_run(self, run: UUID, *, delivery: UUID) -> Heartbeat:
        self._write(kind="heartbeat", run=str(run), delivery=str(delivery), pid=os.getpid())
        return Heartbeat(disposition=Disposition.APPLIED)

    def close(self) -> None:
        return None

    def told(self, kind: str) -> list[dict[str, object]]:
        lines = self.path.read_text().splitlines() if self.path.exists() else []
        return [line for line in map(json.loads, lines) if line["kind"] == kind]

    def _write(self, **said: object) -> None:
        with self.path.open("a") as file:
            file.write(json.dumps(said) + "\n")


@pytest.fixture
def ledger(tmp_path: Path) -> Witnessed:
    return Witnessed(tmp_path / "told")


@pytest.fixture
def keeper(ledger: Witnessed) -> Iterator[StandingKeeper]:
    opened = StandingKeeper.open(parts_with(ledger))
    assert opened is not None
    yield opened
    end(opened)


def parts_with(ledger: Witnessed) -> WorkerParts:
    def no_redis() -> object:
        raise ConnectionError("nobody asks Redis here")

    return WorkerParts(ledger=lambda: ledger, handlers=Handlers(), redis=no_redis, push_with=lambda _l, _r: lambda _t: None)  # type: ignore[arg-type, return-value]


def end(keeper: StandingKeeper) -> None:
    keeper.close()
    try:
        os.kill(keeper.pid, signal.SIGKILL)
        os.waitpid(keeper.pid, 0)
    except (ProcessLookupError, ChildProcessError):
        return


def delivery() -> Delivery:
    return Delivery(run=uuid4(), id=uuid4(), worker="worker", execution_id=None, host="here", pid=os.getpid())


def horse(keeper: StandingKeeper, of: Delivery, work: Callable[[Slate, Keeper], None]) -> int:
    """A forked process that is kept while it works; its exit is its last word."""
    pid = os.fork()
    if pid == 0:
        try:
            faulthandler.disable()  # pytest's own would write a page about a signal that is meant
            attended = keeper.attend(of)
            attended.slate.begin_run(TERMS, at_ns=time.monotonic_ns())
            work(attended.slate, attended)
        finally:
            os._exit(0)
    return pid


def forever(_slate: Slate, _keeper: Keeper) -> None:
    while True:
        time.sleep(60)


def test_it_renews_the_lease_of_a_horse_and_reports_its_death(keeper: StandingKeeper, ledger: Witnessed) -> None:
    of = delivery()
    pid = horse(keeper, of, forever)
    (beat, *_more) = eventually(lambda: ledger.told("heartbeat"))
    assert (beat["run"], beat["delivery"], beat["pid"]) == (str(of.run), str(of.id), keeper.pid)
    os.kill(pid, signal.SIGABRT)
    os.waitpid(pid, 0)
    (died,) = eventually(lambda: ledger.told("died"), seconds=5)
    assert died["run"] == str(of.run)
    assert isinstance(died["evidence"], dict)
    assert died["evidence"]["horse_pid"] == pid
    assert died["evidence"].get("signal", "SIGABRT") == "SIGABRT"


def test_a_horse_that_says_goodbye_and_ends_at_once_did_not_die(keeper: StandingKeeper, ledger: Witnessed) -> None:
    for _ in range(20):
        os.waitpid(horse(keeper, delivery(), lambda _slate, attended: attended.goodbye()), 0)
    last = delivery()
    os.waitpid(horse(keeper, last, lambda _slate, _keeper: None), 0)
    assert [died["run"] for died in eventually(lambda: ledger.told("died"))] == [str(last.run)]


def test_a_hung_task_ends_its_horse(keeper: StandingKeeper, ledger: Witnessed) -> None:
    def hang(slate: Slate, attended: Keeper) -> None:
        slate.begin(7, taken_ns=time.monotonic_ns(), timeout_s=0.3)
        forever(slate, attended)

    pid = horse(keeper, delivery(), hang)
    _pid, status = os.waitpid(pid, 0)
    assert os.WTERMSIG(status) == signal.SIGKILL
    assert len(ledger.told("timeout")) == 1


def test_a_stopped_horse_is_not_renewed(keeper: StandingKeeper, ledger: Witnessed) -> None:
    pid = horse(keeper, delivery(), forever)
    eventually(lambda: ledger.told("heartbeat"))
    os.kill(pid, signal.SIGSTOP)
    eventually(lambda: "\nState:\tT" in Path(f"/proc/{pid}/status").read_text())
    other = horse(keeper, delivery(), forever)
    before = len(ledger.told("heartbeat"))
    mine = {beat["run"] for beat in ledger.told("heartbeat")}
    eventually(lambda: len([beat for beat in ledger.told("heartbeat") if beat["run"] not in mine]) > 3, what="the other's heartbeats")
    assert len([beat for beat in ledger.told("heartbeat") if beat["run"] in mine]) <= before + 1
    for one in (pid, other):
        os.kill(one, signal.SIGKILL)
        os.waitpid(one, 0)


def test_several_horses_are_kept_at_once(keeper: StandingKeeper, ledger: Witnessed) -> None:
    deliveries = [delivery() for _ in range(3)]
    pids = [horse(keeper, of, forever) for of in deliveries]
    eventually(lambda: {beat["run"] for beat in ledger.told("heartbeat")} == {str(of.run) for of in deliveries})
    for pid in pids:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
    eventually(lambda: len(ledger.told("died")) == 3)


def test_a_horse_notices_that_its_keeper_is_gone(keeper: StandingKeeper) -> None:
    attended = keeper.attend(delivery())
    assert attended.is_alive()
    os.kill(keeper.pid, signal.SIGKILL)
    os.waitpid(keeper.pid, 0)
    eventually(lambda: not attended.is_alive())
    attended.goodbye()
    with pytest.raises(OSError):
        keeper.attend(delivery())


def test_where_the_standing_keeper_is_gone_a_run_gets_one_of_its_own() -> None:
    handlers = Handlers()
    handlers.handler("job")(lambda task: None)
    ledger = FakeLedger(tasks(3))

    def gone(_delivery: Delivery) -> Keeper:
        raise ConnectionRefusedError("gone")

    made = parts(handlers, ledger)
    made = WorkerParts(ledger=made.ledger, handlers=handlers, redis=made.redis, push_with=made.push_with, attend=gone)
    of = Delivery(run=ledger.run, id=uuid4(), worker="worker", execution_id=None, host="here", pid=os.getpid())
    assert deliver(made, of, None).answered == 3  # type: ignore[arg-type]


def test_registrations_without_their_files_are_ignored(keeper: StandingKeeper, ledger: Witnessed) -> None:
    keeper._control.send(b"{}")
    os.waitpid(horse(keeper, delivery(), lambda _slate, _keeper: None), 0)
    assert len(eventually(lambda: ledger.told("died"))) == 1


def test_it_outlives_its_worker_for_a_horse_that_does_and_then_ends(tmp_path: Path) -> None:
    """kill -9 of the worker: the orphaned horse goes on, and somebody must see its end."""
    told = tmp_path / "told"
    code = f"""
import os, pathlib
from tests.execution.test_standing import Witnessed, delivery, forever, horse, parts_with
from ledgerq.execution.standing import StandingKeeper
keeper = StandingKeeper.open(parts_with(Witnessed(pathlib.Path({str(told)!r}))))
print(keeper.pid, horse(keeper, delivery(), forever), flush=True)
while not pathlib.Path({str(told)!r}).exists():
    pass
os._exit(9)
"""
    root = Path(__file__).parents[2]
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True, cwd=root) as worker:
        assert worker.stdout is not None
        keeper_pid, horse_pid = map(int, worker.stdout.readline().split())
        assert worker.wait(30) == 9
    ledger = Witnessed(told)
    before = len(ledger.told("heartbeat"))
    eventually(lambda: len(ledger.told("heartbeat")) > before + 3, what="heartbeats after the worker's end")
    os.kill(horse_pid, signal.SIGKILL)
    eventually(lambda: ledger.told("died"), seconds=5)
    eventually(lambda: is_gone(keeper_pid), seconds=10)


def is_gone(pid: int) -> bool:
    """Ended, reaped or not: nobody may be there to reap an orphan in a container."""
    try:
        return "\nState:\tZ" in Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return True
