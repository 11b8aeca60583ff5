"""The keeper that stands beside a worker: real processes, a ledger that writes down what it is told."""

from __future__ import annotations

import faulthandler
import json
import os
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from uuid import UUID, uuid4

import pytest

from ledgerq.execution.deliver import deliver
from ledgerq.execution.kill_note import KillNote
from ledgerq.execution.parts import Delivery, Keeper, WorkerParts
from ledgerq.execution.process import Horse
from ledgerq.execution.slate import Slate, Terms
from ledgerq.execution.standing import StandingKeeper
from ledgerq.handlers import Handlers
from ledgerq.models import Disposition, Heartbeat, RunDisposition, RunsReconciled, RunVerdict, Verdict
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


def parts_with(ledger: Witnessed, *, killed: KillNote | None = None) -> WorkerParts:
    def no_redis() -> object:
        raise ConnectionError("nobody asks Redis here")

    return WorkerParts(ledger=lambda: ledger, handlers=Handlers(), redis=no_redis, push_with=lambda _l, _r: lambda _t: None, killed=killed)  # type: ignore[arg-type, return-value]


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


def files(pid: int) -> set[int]:
    """The numbers of its open files."""
    return {int(entry.name) for entry in Path(f"/proc/{pid}/fd").iterdir()}


def slates(keeper: StandingKeeper) -> int:
    return Path(f"/proc/{keeper.pid}/maps").read_text().count("ledgerq-slate")


def settled(keeper: StandingKeeper) -> int:
    """Its files when it keeps nobody and has kept somebody."""
    keeper.attend(delivery()).goodbye()
    eventually(lambda: slates(keeper) == 0, seconds=5)
    return len(files(keeper.pid))


@dataclass(frozen=True)
class AskedRedis:
    """A Redis in which no person stopped anything."""

    ledger: Witnessed

    def hget(self, _key: str, _field: str) -> bytes:
        return b"failed"

    def close(self) -> None:
        self.ledger._write(kind="redis closed")


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


def test_nothing_of_a_run_stays_in_the_keeper(keeper: StandingKeeper) -> None:
    """A keeper that ran out of files would keep nobody, and nobody would notice."""
    before = settled(keeper)
    for _ in range(40):
        keeper.attend(delivery()).goodbye()
    eventually(lambda: len(files(keeper.pid)) <= before and slates(keeper) == 0, seconds=5)


def test_a_keeper_lets_go_of_its_redis_too(ledger: Witnessed) -> None:
    keeper = StandingKeeper.open(replace(parts_with(ledger), redis=lambda: AskedRedis(ledger)))  # type: ignore[arg-type, return-value]
    assert keeper is not None
    of = delivery()
    os.waitpid(horse(keeper, of, lambda _slate, _keeper: os.kill(os.getpid(), signal.SIGKILL)), 0)
    eventually(lambda: ledger.told("redis closed"), seconds=5)
    assert [died["run"] for died in ledger.told("died")] == [str(of.run)]
    end(keeper)


def test_a_keeper_that_has_no_files_left_takes_no_delivery(keeper: StandingKeeper, ledger: Witnessed) -> None:
    settled(keeper)
    taken = files(keeper.pid)
    _soft, hard = resource.prlimit(keeper.pid, resource.RLIMIT_NOFILE)
    resource.prlimit(keeper.pid, resource.RLIMIT_NOFILE, (min(set(range(len(taken) + 1)) - taken), hard))
    with pytest.raises(ConnectionError):
        keeper.attend(delivery())
    resource.prlimit(keeper.pid, resource.RLIMIT_NOFILE, (hard, hard))
    of = delivery()
    os.waitpid(horse(keeper, of, lambda _slate, _keeper: None), 0)
    assert [died["run"] for died in eventually(lambda: ledger.told("died"))] == [str(of.run)]


def test_a_keeper_that_does_not_answer_keeps_nobody_later(keeper: StandingKeeper, ledger: Witnessed) -> None:
    """The horse has one of its own by then."""
    before = settled(keeper)
    os.kill(keeper.pid, signal.SIGSTOP)
    with pytest.raises(OSError, match="timed out"):
        keeper.attend(delivery())
    os.kill(keeper.pid, signal.SIGCONT)
    of = delivery()
    os.waitpid(horse(keeper, of, lambda _slate, _keeper: None), 0)
    assert [died["run"] for died in eventually(lambda: ledger.told("died"))] == [str(of.run)]
    eventually(lambda: len(files(keeper.pid)) <= before, seconds=5)


def test_a_system_that_cannot_hand_over_a_process_has_no_standing_keeper(monkeypatch: pytest.MonkeyPatch, ledger: Witnessed) -> None:
    def unknown(_pid: int) -> int:
        raise OSError(38, "Function not implemented")

    monkeypatch.setattr(os, "pidfd_open", unknown)
    before = files(os.getpid())
    assert StandingKeeper.open(parts_with(ledger)) is None
    assert len(files(os.getpid())) == len(before)


def test_a_horse_that_closed_all_files_writes_into_nobodys(keeper: StandingKeeper) -> None:
    attended = keeper.attend(delivery())
    number = attended._stream.fileno()
    os.close(number)
    reading, writing = os.pipe()
    os.dup2(writing, number)
    os.set_blocking(reading, False)
    assert not attended.is_alive()
    attended.goodbye()
    with pytest.raises(BlockingIOError):
        os.read(reading, 100)
    for fd in {reading, writing, number}:
        os.close(fd)


def test_files_with_high_numbers_are_waited_for(ledger: Witnessed) -> None:
    """The worker, its keeper and its horses may have more files than select() can name."""
    with ExitStack() as opened:
        while (fd := os.open(os.devnull, os.O_RDONLY)) < 1_024:
            opened.callback(os.close, fd)
        opened.callback(os.close, fd)
        keeper = StandingKeeper.open(parts_with(ledger))
        assert keeper is not None
        attended = keeper.attend(delivery())
        assert attended.is_alive()
        attended.goodbye()
        here = Horse(os.getpid())
        assert here.fd is not None
        assert here.fd > 1_024
        assert here.is_alive()
        os.close(here.fd)
        end(keeper)


def test_it_tells_what_its_horse_could_not(keeper: StandingKeeper, ledger: Witnessed) -> None:
    of = delivery()
    keeper.attend(of).goodbye(RunVerdict(run=of.run, delivery=of.id, verdict=Verdict.TIMEOUT, culprit=7, evidence={"error": "é"}))
    (said,) = eventually(lambda: ledger.told("timeout"), seconds=5)
    assert (said["run"], said["evidence"]) == (str(of.run), {"error": "é"})


def test_who_reaps_a_horse_knows_that_its_keeper_killed_it(ledger: Witnessed) -> None:
    def hang(slate: Slate, attended: Keeper) -> None:
        slate.begin(7, taken_ns=time.monotonic_ns(), timeout_s=0)
        forever(slate, attended)

    made = parts_with(ledger, killed=KillNote())
    keeper = StandingKeeper.open(made)
    assert keeper is not None
    assert made.killed is not None
    of = delivery()
    os.waitpid(horse(keeper, of, hang), 0)
    assert made.killed.names(of.id)
    assert not made.killed.names(uuid4())
    end(keeper)


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
