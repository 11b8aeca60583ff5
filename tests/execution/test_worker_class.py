"""`LedgerqWorker` in processes of its own: what it refuses, whom it reports, and the steward beside it."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from uuid import UUID, uuid4

import pytest
from rq import Callback, Queue
from rq.job import Job
from rq.serializers import JSONSerializer

from ledgerq.errors import QueueUnavailable
from ledgerq.execution.delivery import delivery_id
from ledgerq.execution.kill_note import KillNote
from ledgerq.execution.worker_class import LedgerqWorker, open_worker
from ledgerq.handlers import Handlers
from ledgerq.ledger.answers import QueueLimits
from ledgerq.models import Verdict
from ledgerq.settings import Settings
from tests.execution.doubles import FakeLedger, parts, tasks
from tests.execution.test_processes import WAITER, ended, events, keeper_of, text_of
from tests.support.lab import Lab, Worker
from tests.support.waiting import eventually

pytestmark = pytest.mark.processes

PROGRAM = """
import os, pathlib, sys, threading
from contextlib import contextmanager

from ledgerq import assembly
from ledgerq.execution.worker_class import open_worker
from ledgerq.settings import Settings

HERE = pathlib.Path(sys.argv[1])

class Steward:
    def run_forever(self, stop):
        (HERE / 'stewards').open('a').write(f'{os.getpid()} ')
        if (HERE / 'fail-once').exists():
            (HERE / 'fail-once').unlink()
            raise RuntimeError('nobody thought of this')
        stop.wait()
        (HERE / 'steward-ended').write_text('1')

@contextmanager
def steward():
    yield Steward()

settings = Settings()
worker = open_worker(settings, assembly.worker_parts(settings), steward=steward)
worker.work(burst='--burst' in sys.argv)
"""


@pytest.fixture
def started(lab: Lab) -> Iterator[list[Worker]]:
    workers: list[Worker] = []
    yield workers
    for worker in workers:
        worker.end()


def start(lab: Lab, started: list[Worker], app: str | None = None, *options: str) -> Worker:
    program = lab.directory / "program.py"
    program.write_text(textwrap.dedent(PROGRAM))
    log = lab.directory / f"own_worker_{len(started)}.log"
    command = [sys.executable, str(program), str(lab.directory), *options]
    environment = lab.environment(app)
    with log.open("wb") as output:
        process = subprocess.Popen(
            command, stdout=output, stderr=subprocess.STDOUT, env=environment, cwd=lab.directory, start_new_session=True
        )
    started.append(Worker(process=process, log=log))
    return started[-1]


def test_it_works_like_the_stock_worker(lab: Lab, started: list[Worker]) -> None:
    app = lab.app("@handlers.handler('shout')\ndef shout(task, context): return Completed(task.payload.upper())")
    job = lab.jobs.create_job("shout", "hello")
    worker = start(lab, started, app, "--burst")
    assert worker.wait() == 0, worker.said()
    found = lab.store.job_get(job.id)
    assert found is not None
    assert found.result == "HELLO"


def test_it_runs_nothing_but_our_entry_point_and_imports_nothing_for_others(lab: Lab, started: list[Worker]) -> None:
    (lab.directory / "evil.py").write_text(
        "import pathlib\npathlib.Path(__file__).with_name('imported').write_text('1')\ndef run(): pass\n"
    )
    json_queue = Queue("processing", connection=lab.redis, serializer=JSONSerializer)
    stranger = json_queue.enqueue("evil.run")
    caller_back = json_queue.enqueue_call("ledgerq.worker.execute_run", args=("x",), on_success=Callback("evil.run"))
    pickled = Queue("processing", connection=lab.redis).enqueue("evil.run")
    worker = start(lab, started, None, "--burst")
    assert worker.wait() == 0, worker.said()
    for job in (stranger, caller_back, pickled):
        seen = Job.fetch(job.id, connection=lab.redis, serializer=JSONSerializer)
        assert seen.get_status() == "failed"
        result = seen.latest_result()
        assert result is not None
        assert "refused" in (result.exc_string or "")
    assert not (lab.directory / "imported").exists()
    assert lab.redis.llen("rq:queue:processing:intermediate") == 0


def test_a_death_that_took_the_keeper_along_is_reported_by_the_parent(lab: Lab, started: list[Worker]) -> None:
    lab.store.save_queue("processing", QueueLimits(lease_s=2.0, heartbeat_s=0.4))
    app = lab.app(WAITER)
    job = lab.jobs.create_job("waits")
    worker = start(lab, started, app)
    horse = int(text_of(lab, f"begun-{task_key(lab, job.id)}"))
    os.kill(keeper_of(worker), signal.SIGKILL)
    os.kill(horse, signal.SIGKILL)
    (crash,) = eventually(lambda: events(lab, job.id, "crash"), seconds=10)
    assert isinstance(crash.data, dict)
    evidence = crash.data["evidence"]
    assert isinstance(evidence, dict)
    assert (evidence["witness"], evidence["signal"], evidence["horse_pid"]) == ("worker", "SIGKILL", horse)
    assert isinstance(evidence["peak_bytes"], int)
    (lab.directory / "go").write_text("")
    assert ended(lab, job.id) == ["completed"]
    assert worker.pid


def test_a_horse_that_its_keeper_killed_is_the_keepers_to_report(lab: Lab) -> None:
    """With the ledger away at the kill the keeper reports later: a death told first would charge every task of the run."""
    run, ledger = uuid4(), FakeLedger(tasks(3))
    made = replace(parts(Handlers(), ledger), killed=KillNote())
    worker = LedgerqWorker(["processing"], connection=lab.redis, parts=made)
    worker._monitored = "execution"
    job = Job(str(run), connection=lab.redis)
    assert made.killed is not None
    made.killed.write(delivery_id(run, "execution"))
    worker.handle_work_horse_killed(job, 4711, signal.SIGKILL, None)
    assert ledger.verdicts == []
    made.killed.write(delivery_id(run, "another"))
    worker.handle_work_horse_killed(job, 4711, signal.SIGKILL, None)
    assert [verdict.verdict for verdict in ledger.verdicts] == [Verdict.DIED]


def test_nothing_is_forked_for_a_worker_whose_redis_is_away() -> None:
    forked: list[str] = []
    made = replace(parts(Handlers(), FakeLedger([])), open_line=lambda: forked.append("line"))
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    with pytest.raises(QueueUnavailable):
        open_worker(Settings.model_validate({"redis_url": f"redis://127.0.0.1:{port}/0"}), made)
    assert forked == []


def test_the_steward_lives_and_ends_with_its_worker(lab: Lab, started: list[Worker]) -> None:
    worker = start(lab, started)
    steward = int(text_of(lab, "stewards"))
    eventually(lambda: "Listening" in worker.said())
    os.kill(worker.pid, signal.SIGTERM)
    assert worker.wait() == 0
    assert text_of(lab, "steward-ended") == "1"
    eventually(lambda: not Path(f"/proc/{steward}").exists())


def test_the_steward_ends_when_its_worker_is_killed(lab: Lab, started: list[Worker]) -> None:
    worker = start(lab, started)
    steward = int(text_of(lab, "stewards"))
    os.kill(worker.pid, signal.SIGKILL)
    worker.process.wait(10)
    eventually(lambda: _is_gone(steward), seconds=10)


def test_a_steward_that_failed_or_was_killed_comes_back(lab: Lab, started: list[Worker]) -> None:
    (lab.directory / "fail-once").write_text("")
    app = lab.app("@handlers.handler('nothing')\ndef nothing(task, context): return None")
    worker = start(lab, started, app)
    first = int(eventually(lambda: len(text_of(lab, "stewards").split()) == 2 and text_of(lab, "stewards").split()[1], seconds=30))
    os.kill(first, signal.SIGKILL)
    job = lab.jobs.create_job("nothing")
    assert ended(lab, job.id) == ["completed"]
    third = int(eventually(lambda: len(text_of(lab, "stewards").split()) == 3 and text_of(lab, "stewards").split()[2]))
    assert third != first
    assert worker.pid


def task_key(lab: Lab, job: UUID) -> str:
    return next(iter(lab.jobs.iter_tasks(job))).key


def _is_gone(pid: int) -> bool:
    """Ended, reaped or not: nobody may be there to reap an orphan in a container."""
    try:
        return "\nState:\tZ" in Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return True
