"""One delivery from end to end in this process: a real keeper, a real ledger, and a Redis that may be away."""

from __future__ import annotations

import os
import signal
import socket
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import cast
from uuid import UUID, uuid4

import pytest
from redis import Redis
from rq.job import Job
from rq.timeouts import JobTimeoutException, UnixSignalDeathPenalty

from ledgerq.dispatch.connection import connect_redis
from ledgerq.errors import InvalidInput, LedgerUnavailable, SchemaMismatch
from ledgerq.execution.deliver import deliver
from ledgerq.execution.delivery import delivery_id, delivery_of
from ledgerq.execution.parts import Delivery, RunLedger, WorkerParts
from ledgerq.execution.wiring import wire
from ledgerq.handlers import Handlers
from ledgerq.ledger.answers import QueueLimits
from ledgerq.models import Disposition, RunTicket, Task, TaskRequest, Verdict
from ledgerq.settings import Settings
from ledgerq.worker import execute_run
from tests.execution.doubles import FakeLedger, parts, tasks
from tests.execution.test_standing import Witnessed
from tests.support.lab import Lab, descendants
from tests.support.sql import connected
from tests.support.waiting import eventually

pytestmark = pytest.mark.processes


def parts_of(lab: Lab, work: Callable[..., object], **changed: object) -> WorkerParts:
    handlers = Handlers()
    handlers.handler("job")(work)
    return wire(lab.settings.model_copy(update=changed), handlers)


def delivery(run: UUID) -> Delivery:
    return Delivery(run=run, id=uuid4(), worker="worker", execution_id="execution", host="here", pid=os.getpid())


def next_run(lab: Lab) -> UUID:
    found = lab.redis.lpop("rq:queue:processing")
    assert isinstance(found, bytes)
    return UUID(found.decode())


@pytest.fixture
def nobody() -> Redis:
    """A client of a port where nobody listens."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        port = taken.getsockname()[1]
    return connect_redis(Settings.model_validate({"redis_url": f"redis://127.0.0.1:{port}/0"}))


def verdicts(lab: Lab) -> list[tuple[str, str | None]]:
    with connected(lab.database.superuser_dsn) as sql:
        return sql.rows("select status, verdict from ledgerq.run where started_at is not null order by started_at")


def test_a_delivery_leaves_no_process_behind(lab: Lab) -> None:
    job = lab.jobs.create_job("job")
    report = deliver(parts_of(lab, lambda task: None), delivery(next_run(lab)), lab.redis)
    assert report.answered == 1
    found = lab.store.job_get(job.id)
    assert found is not None
    assert found.status == "completed"
    assert _keepers() == []


def test_an_id_that_is_no_run_is_refused_quietly(lab: Lab) -> None:
    report = deliver(parts_of(lab, lambda task: None), delivery(uuid4()), lab.redis)
    assert (report.disposition, report.answered) == (Disposition.NOT_FOUND, 0)


def test_with_redis_away_the_next_runs_go_back_and_the_work_is_done(lab: Lab, nobody: Redis) -> None:
    """The top-up of a start and the runs after the last acknowledgement meet a Redis that is away."""
    lab.store.save_queue("processing", QueueLimits(depth=2, run_size=3))
    job = lab.jobs.create_job("job", tasks=[TaskRequest(key=f"t{n}") for n in range(20)])
    report = deliver(parts_of(lab, lambda task: None), delivery(next_run(lab)), nobody)
    assert report.answered == 3
    found = lab.store.job_get(job.id)
    assert found is not None
    assert found.completed == 3
    assert [run.status for run in lab.store.live_runs().runs] == ["dispatched"], "only the one that Redis took before"
    while lab.redis.llen("rq:queue:processing"):
        deliver(parts_of(lab, lambda task: None), delivery(next_run(lab)), lab.redis)
    found = lab.store.job_get(job.id)
    assert found is not None
    assert found.status == "completed"


def test_rqs_own_timeout_is_recorded_against_the_task_at_work(lab: Lab) -> None:
    """It strikes in the handler's frame, but it is about the run: RQ must see it, and the ledger must know why."""

    def work(task: object) -> None:
        raise JobTimeoutException("Task exceeded maximum timeout value (1 seconds)")

    job = lab.jobs.create_job("job")
    with pytest.raises(JobTimeoutException):
        deliver(parts_of(lab, work), delivery(next_run(lab)), lab.redis)
    assert verdicts(lab) == [("lost", "timeout")]
    (task,) = lab.jobs.iter_tasks(job.id)
    assert (task.attempts, task.crashes) == (1, 1)


def alarmed(*, before: int = 0, text: str = "") -> Handlers:
    """A handler that RQ's own alarm strikes, after it has answered some tasks."""
    handlers = Handlers()

    @handlers.handler("job")
    def job(task: Task) -> None:
        if task.id > before:
            if text:
                raise JobTimeoutException(text)
            with UnixSignalDeathPenalty(60, JobTimeoutException):
                os.kill(os.getpid(), signal.SIGALRM)

    return handlers


def test_rqs_alarm_charges_the_task_at_work_and_no_other() -> None:
    """What is answered is acknowledged first, and what is not begun goes back."""
    ledger = FakeLedger(tasks(9))
    ledger.ready = (RunTicket(run=uuid4(), queue="processing", type="job"),)
    pushed: list[RunTicket] = []
    made = replace(parts(alarmed(before=2), ledger), push_with=lambda _ledger, _redis: pushed.extend)
    ledger.before = lambda name: pushed.clear() if name == "reconcile_runs" else None
    with pytest.raises(JobTimeoutException):
        deliver(made, delivery(ledger.run), cast("Redis", None))
    assert [(verdict.verdict, verdict.culprit) for verdict in ledger.verdicts] == [(Verdict.TIMEOUT, 3)]
    assert ledger.calls[-2:] == ["advance_run", "reconcile_runs"]
    assert {task: kind for task, kind in ledger.kinds.items() if kind != "returned"} == {1: "completed", 2: "completed"}
    assert [task.id for task in ledger._held()] == [3]
    assert tuple(pushed) == ledger.ready, "what the verdict set free goes out at once"


def test_an_alarm_in_the_middle_of_an_acknowledgement_loses_no_outcome() -> None:
    ledger = FakeLedger(tasks(2))
    struck: list[str] = []

    def strike(name: str) -> None:
        if name == "advance_run" and not struck:
            struck.append(name)
            raise JobTimeoutException("now")

    ledger.before = strike
    with pytest.raises(JobTimeoutException):
        deliver(parts(alarmed(before=9), ledger), delivery(ledger.run), cast("Redis", None))
    assert ledger.kinds == {1: "completed", 2: "completed"}


@pytest.mark.parametrize("trouble", [LedgerUnavailable("no route to host"), RuntimeError("a bug")])
def test_what_the_horse_cannot_tell_its_keeper_does(tmp_path: Path, trouble: Exception) -> None:
    """And what RQ sees is what the runner failed with."""
    ledger, witnessed = FakeLedger(tasks(3)), Witnessed(tmp_path / "told")

    def before(name: str) -> None:
        if name == "reconcile_runs":
            raise trouble

    ledger.before = before
    made = replace(parts(alarmed(), ledger), ledger=lambda: cast("RunLedger", witnessed), horse_ledger=lambda: ledger)
    with pytest.raises(JobTimeoutException):
        deliver(made, delivery(ledger.run), cast("Redis", None))
    (said,) = eventually(lambda: witnessed.told("timeout"), seconds=5)
    assert (said["run"], said["actor"]) == (str(ledger.run), "keeper")
    assert witnessed.told("died") == []


def test_what_the_ledger_cannot_hold_is_said_without_it() -> None:
    ledger = FakeLedger(tasks(1))
    with pytest.raises(JobTimeoutException):
        deliver(parts(alarmed(text="half \ud800 and \x00"), ledger), delivery(ledger.run), cast("Redis", None))
    assert ledger.verdicts[0].evidence["error"] == "JobTimeoutException: half \ufffd and \ufffd"


def test_a_ledger_that_refuses_the_start_is_nobodys_death() -> None:
    ledger = FakeLedger(tasks(1))

    def before(name: str) -> None:
        if name == "start_run":
            raise SchemaMismatch("a migration came")

    ledger.before = before
    with pytest.raises(SchemaMismatch):
        deliver(parts(Handlers(), ledger), delivery(ledger.run), cast("Redis", None))
    assert ledger.verdicts == []


def test_a_worker_that_cannot_reach_its_ledger_is_told_what_is_wrong(lab: Lab) -> None:
    from ledgerq.errors import ConfigurationError

    lab.jobs.create_job("job")
    wrong = lab.database.service_dsn.replace("ledgerq_service", "nobody_knows", 1)
    with pytest.raises(ConfigurationError, match="DATABASE_URL"):
        deliver(
            wire(Settings.model_validate({"database_url": wrong, "redis_url": lab.redis_url}), Handlers()),
            delivery(next_run(lab)),
            lab.redis,
        )


def test_the_entry_point_names_what_is_no_run() -> None:
    with pytest.raises(InvalidInput, match="'not a run' is no id of a run"):
        execute_run("not a run")


def test_without_rq_a_delivery_has_an_id_of_its_own(nobody: Redis) -> None:
    run = uuid4()
    one, other = delivery_of(run, None, nobody), delivery_of(run, None, nobody)
    assert one.id != other.id
    assert one.worker == f"pid-{os.getpid()}"
    assert not one.stop_wanted()
    assert delivery_id(run, "a") == delivery_id(run, "a") != delivery_id(run, "b")


def test_a_redis_that_does_not_answer_is_asked_little_at_the_start(nobody: Redis) -> None:
    """RQ's own connection of the job would wait for minutes, and nobody uses it here."""
    run = uuid4()
    made = delivery_of(run, Job(str(run), connection=cast("Redis", object())), nobody)
    assert made.execution_id is None


def test_a_silent_redis_is_not_asked_before_each_task_whether_to_stop() -> None:
    class Silent:
        asked = 0

        def zrange(self, *_: object) -> list[bytes]:
            return [b"execution"]

        def hexists(self, *_: object) -> bool:
            self.asked += 1
            raise TimeoutError("no answer in two seconds")

    redis, run = Silent(), uuid4()
    made = delivery_of(run, Job(str(run), connection=cast("Redis", redis)), cast("Redis", redis))
    assert [made.stop_wanted() for _ in range(10)] == [False] * 10
    assert redis.asked == 1


def test_the_signal_handlers_of_a_process_are_its_own_again(lab: Lab) -> None:
    before = signal.getsignal(signal.SIGTERM)
    lab.jobs.create_job("job")
    deliver(parts_of(lab, lambda task: None), delivery(next_run(lab)), lab.redis)
    assert signal.getsignal(signal.SIGTERM) is before


def _keepers() -> list[int]:
    """Children of this process that are forks of it; the servers of the session are programs of their own."""
    mine = Path("/proc/self/cmdline").read_bytes()
    return [pid for pid in descendants(os.getpid()) if Path(f"/proc/{pid}/cmdline").read_bytes() == mine]
