"""One delivery from end to end in this process: a real keeper, a real ledger, and a Redis that may be away."""

from __future__ import annotations

import os
import signal
import socket
from collections.abc import Callable
from pathlib import Path
from uuid import UUID, uuid4

import pytest
from redis import Redis
from rq.timeouts import JobTimeoutException

from ledgerq.dispatch.connection import connect_redis
from ledgerq.errors import InvalidInput
from ledgerq.execution.deliver import deliver
from ledgerq.execution.delivery import delivery_id, delivery_of
from ledgerq.execution.parts import Delivery, WorkerParts
from ledgerq.execution.wiring import wire
from ledgerq.handlers import Handlers
from ledgerq.ledger.answers import QueueLimits
from ledgerq.models import TaskRequest
from ledgerq.settings import Settings
from ledgerq.worker import execute_run
from tests.support.lab import Lab, descendants
from tests.support.sql import connected

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


def test_the_signal_handlers_of_a_process_are_its_own_again(lab: Lab) -> None:
    before = signal.getsignal(signal.SIGTERM)
    lab.jobs.create_job("job")
    deliver(parts_of(lab, lambda task: None), delivery(next_run(lab)), lab.redis)
    assert signal.getsignal(signal.SIGTERM) is before


def _keepers() -> list[int]:
    """Children of this process that are forks of it; the servers of the session are programs of their own."""
    mine = Path("/proc/self/cmdline").read_bytes()
    return [pid for pid in descendants(os.getpid()) if Path(f"/proc/{pid}/cmdline").read_bytes() == mine]
