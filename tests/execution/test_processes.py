"""Real horses under a stock `rq worker`, on a real ledger and a real Valkey: what happens when one is killed, stopped, hung or forked."""

from __future__ import annotations

import os
import re
import signal
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest

from ledgerq.dispatch.workers import list_workers
from ledgerq.ledger.answers import QueueLimits
from ledgerq.models import Event, TaskRequest
from tests.support.lab import Lab, Worker, descendants
from tests.support.sql import connected
from tests.support.waiting import eventually

pytestmark = pytest.mark.processes

QUICK = QueueLimits(lease_s=2.0, heartbeat_s=0.4, cancel_grace_s=1.0)
"""Patience in tenths, so that a test need not wait for the real one."""

WAITER = """
import os, pathlib, time
HERE = pathlib.Path(__file__).parent

def say(name, text=""):
    (HERE / name).write_text(str(text))

def wait_for(name):
    while not (HERE / name).exists():
        time.sleep(0.02)

@handlers.handler('waits')
def waits(task, context):
    first = not (HERE / f'begun-{task.key}').exists()
    say(f'begun-{task.key}', os.getpid())
    if first:
        wait_for('go')
    return Completed(os.getpid())
"""


@pytest.fixture
def quick(lab: Lab) -> Lab:
    lab.store.save_queue("processing", QUICK)
    return lab


def text_of(lab: Lab, name: str) -> str:
    path: Path = lab.directory / name
    return eventually(lambda: path.exists() and path.read_text(), what=name)


def events(lab: Lab, job: UUID, kind: str) -> list[Event]:
    return [event for event in lab.jobs.job_history(job) if event.kind == kind]


def data(event: Event) -> dict[str, Any]:
    return data_of(event.data)


def data_of(value: object) -> dict[str, Any]:
    assert isinstance(value, dict)
    return value


def status(lab: Lab, job: UUID) -> str:
    found = lab.store.job_get(job)
    assert found is not None
    return found.status


def ended(lab: Lab, *jobs: UUID) -> list[str]:
    eventually(lambda: all(status(lab, job) in ("completed", "failed", "partial", "cancelled") for job in jobs), seconds=40)
    return [status(lab, job) for job in jobs]


def runs(lab: Lab) -> list[tuple[str, str | None, dict[str, Any] | None]]:
    with connected(lab.database.superuser_dsn) as sql:
        return sql.rows("select status, verdict, evidence from ledgerq.run order by created_at, id")


def horse_of(lab: Lab, task: str) -> int:
    return int(text_of(lab, f"begun-{task}"))


def names(worker: Worker) -> list[str]:
    return [(Path(f"/proc/{pid}/comm").read_text()).strip() for pid in descendants(worker.pid)]


def keeper_of(worker: Worker) -> int:
    """The keeper that stands beside a worker."""
    return next(pid for pid in descendants(worker.pid) if Path(f"/proc/{pid}/comm").read_text() == "ledgerq-keeper\n")


def begin_waiting(lab: Lab, *, timeout_s: float = 300) -> tuple[UUID, Worker, int]:
    """A job whose task waits in a horse until the file `go` is there."""
    app = lab.app(WAITER)
    made = lab.jobs.create_job("waits", timeout=timeout_s)
    worker = lab.start_worker(app)
    begun = eventually(lambda: [*lab.directory.glob("begun-*")], what="a begun task")
    return made.id, worker, int(eventually(begun[0].read_text))


def let_go(lab: Lab) -> None:
    (lab.directory / "go").write_text("")


# --- a normal life


def test_what_handlers_print_is_not_lost_and_nobody_stays(lab: Lab) -> None:
    app = lab.app(
        """
        import sys, threading, time
        @handlers.handler('loud')
        def loud(task, context):
            print('to stdout', end='')
            sys.stderr.write('to stderr')
            threading.Thread(target=time.sleep, args=(3600,)).start()
            return Completed()
        """
    )
    job = lab.jobs.create_job("loud")
    worker = lab.start_worker(app)
    assert ended(lab, job.id) == ["completed"]
    eventually(lambda: "to stdout" in worker.said() and "to stderr" in worker.said())
    eventually(lambda: names(worker) == ["ledgerq-line", "ledgerq-keeper"], what="no horse, and only what stands beside the worker")


def test_no_module_is_imported_after_the_fork(lab: Lab) -> None:
    """A horse that imports pays for it each time; what it needs was loaded by `-c ledgerq.rq_settings`."""
    app = lab.app(
        """
        import os, sys
        BEFORE = set()
        os.register_at_fork(before=lambda: BEFORE.update(sys.modules))
        @handlers.handler('looks')
        def looks(task, context):
            return Completed(sorted(set(sys.modules) - BEFORE))
        """
    )
    job = lab.jobs.create_job("looks")
    lab.work(app)
    found = lab.store.job_get(job.id)
    assert found is not None
    assert found.result == []


def test_the_run_knows_its_rq_execution_and_worker(quick: Lab) -> None:
    job, worker, _horse = begin_waiting(quick)
    (run,) = quick.store.live_runs().runs
    seen = quick.run_queue.observe([run.ticket])[run.run]
    assert run.execution_id == seen.execution_id is not None
    assert run.worker == seen.worker
    assert f"rq:worker:{run.worker}" in {key.decode() for key in quick.redis.smembers("rq:workers")}
    let_go(quick)
    assert ended(quick, job) == ["completed"]
    assert worker.pid


def test_a_duplicate_delivery_is_refused_quietly(quick: Lab) -> None:
    """A second entry in the list, taken by a second worker while the first one works."""
    job, first, _horse = begin_waiting(quick)
    (run,) = quick.store.live_runs().runs
    quick.redis.rpush("rq:queue:processing", str(run.run))
    second = quick.start_worker(None, burst=True)
    assert second.wait() == 0
    assert "Job OK" in second.said()
    assert status(quick, job) == "in_progress"
    let_go(quick)
    assert ended(quick, job) == ["completed"]
    assert first.pid


# --- deaths


def test_a_killed_horse_is_reported_at_once_by_its_keeper(quick: Lab) -> None:
    job, _worker, horse = begin_waiting(quick)
    os.kill(horse, signal.SIGKILL)
    (crash,) = eventually(lambda: events(quick, job, "crash"), seconds=5)
    evidence = data(crash)["evidence"]
    assert evidence["witness"] == "keeper"
    assert evidence["peak_bytes"] > 1_000_000
    assert len(evidence["tasks_at_work"]) == 1
    assert evidence.get("signal", "SIGKILL") == "SIGKILL"
    let_go(quick)
    assert ended(quick, job) == ["completed"], "the keeper pushed the next run itself"


def test_a_handler_that_ends_the_process_without_a_word_has_crashed(quick: Lab) -> None:
    """RQ takes exit code 0 for success and leaves its job `started` for ever."""
    app = quick.app("import os\n@handlers.handler('vanishes')\ndef vanishes(task, context): os._exit(0)")
    job = quick.jobs.create_job("vanishes")
    quick.start_worker(app)
    assert ended(quick, job.id) == ["failed"]
    crashes = [*events(quick, job.id, "crash"), *events(quick, job.id, "failed")]
    assert len(crashes) == 3
    assert data(crashes[0])["evidence"]["exit_code"] == 0


def test_the_tasks_beside_a_poisoned_one_complete(quick: Lab) -> None:
    app = quick.app(
        """
        import os, signal
        @handlers.handler('maybe')
        def maybe(task, context):
            if task.key == 'bad':
                os.kill(os.getpid(), signal.SIGSEGV)
            return Completed()
        """
    )
    tasks = [TaskRequest(key="bad" if n == 7 else f"good {n}") for n in range(20)]
    job = quick.jobs.create_job("maybe", tasks=tasks)
    quick.start_worker(app)
    assert ended(quick, job.id) == ["partial"]
    (failed,) = [task for task in quick.jobs.iter_tasks(job.id) if task.status == "failed"]
    assert failed.key == "bad"
    assert failed.crashes == 3
    assert isinstance(failed.error, dict)
    assert failed.error["evidence"]["signal"] == "SIGSEGV"  # type: ignore[index, call-overload]


def test_handlers_that_hold_the_interpreter_in_c_are_ended_at_their_timeout(quick: Lab) -> None:
    app = quick.app(
        """
        import ctypes, re
        @handlers.handler('hangs', max_attempts=1)
        def hangs(task, context):
            if task.key == 'matches':
                re.match(r'(a+)+$', 'a' * 60 + 'b')
            if task.key == 'sleeps':
                ctypes.PyDLL(None).usleep(60_000_000)
            return Completed()
        """
    )
    tasks = [TaskRequest(key=key) for key in ("good 0", "matches", "good 1", "sleeps", "good 2")]
    job = quick.jobs.create_job("hangs", tasks=tasks, timeout=0.7, max_attempts=1)
    quick.start_worker(app)
    assert ended(quick, job.id) == ["partial"]
    done = list(quick.jobs.iter_tasks(job.id))
    failed = {task.key: (task.attempts, data_of(task.error)["type"]) for task in done if task.status == "failed"}
    assert failed == {"matches": (1, "TaskTimeout"), "sleeps": (1, "TaskTimeout")}
    assert all(task.attempts == 1 and task.crashes == 0 for task in done if task.key.startswith("good"))


def test_a_stopped_horse_is_not_renewed_and_changes_nothing_when_it_wakes(quick: Lab) -> None:
    job, _worker, horse = begin_waiting(quick)
    os.kill(horse, signal.SIGSTOP)
    second = quick.start_worker("app_0:handlers")
    try:
        verdicts = eventually(lambda: quick.reconciler.run_once().applied, seconds=20, what="an expired lease")
        assert [verdict.verdict for verdict in verdicts] == ["expired"]
        assert ended(quick, job) == ["completed"]
        assert second.pid
    finally:
        let_go(quick)
        os.kill(horse, signal.SIGCONT)
    (done,) = quick.jobs.iter_tasks(job)
    assert done.losses == 1
    assert done.result != horse
    eventually(lambda: not Path(f"/proc/{horse}").exists(), what="the zombie's end")
    (still,) = quick.jobs.iter_tasks(job)
    assert still == done


def test_a_person_who_stops_a_run_in_rq_cancels_its_job(quick: Lab) -> None:
    from rq.command import send_stop_job_command
    from rq.serializers import JSONSerializer

    job, _worker, _horse = begin_waiting(quick)
    (run,) = quick.store.live_runs().runs
    send_stop_job_command(quick.redis, str(run.run), serializer=JSONSerializer)
    eventually(lambda: status(quick, job) == "cancelled", seconds=20, what="the keeper, who saw it, reports it")
    assert ended(quick, job) == ["cancelled"]
    assert [row[1] for row in runs(quick)] == ["stopped"]


def test_without_its_keeper_a_run_ends_early_and_loses_nothing(quick: Lab) -> None:
    app = quick.app(WAITER)
    job = quick.jobs.create_job("waits", tasks=[TaskRequest(key=f"t{n}") for n in range(40)])
    worker = quick.start_worker(app)
    horse_of(quick, "t0")
    os.kill(keeper_of(worker), signal.SIGKILL)
    let_go(quick)
    assert ended(quick, job.id) == ["completed"]
    assert len(runs(quick)) > 1, "the first run gave back what it had not begun"
    assert "forking one" in worker.said(), "the next horse has a keeper of its own"


# --- forks and exits


def test_a_handler_that_exits_fails_its_task_only(lab: Lab) -> None:
    app = lab.app("import sys\n@handlers.handler('leaves')\ndef leaves(task, context):\n    if task.key == 'b': sys.exit(3)")
    job = lab.jobs.create_job("leaves", tasks=[TaskRequest(key=key) for key in "abc"])
    assert "Job OK" in lab.work(app)
    assert ended(lab, job.id) == ["partial"]
    assert {task.key: task.status.value for task in lab.jobs.iter_tasks(job.id)} == {"a": "completed", "b": "failed", "c": "completed"}


def test_a_child_that_returns_into_the_runner_acknowledges_nothing(lab: Lab) -> None:
    app = lab.app(
        """
        import os
        @handlers.handler('forks')
        def forks(task, context):
            pid = os.fork()
            if pid == 0:
                if task.key == 'b':
                    raise ValueError('in the child')
                return Completed('child')
            assert os.waitpid(pid, 0)[1] == 0
            return Completed('parent')
        """
    )
    job = lab.jobs.create_job("forks", tasks=[TaskRequest(key=key) for key in "abc"])
    said = lab.work(app)
    assert ended(lab, job.id) == ["completed"]
    assert {task.result for task in lab.jobs.iter_tasks(job.id)} == {"parent"}
    assert said.count("Job OK") == len(runs(lab)), "RQ's own bookkeeping was not done twice either"


def test_handlers_that_misuse_their_process_end_nobody_elses_task(lab: Lab) -> None:
    app = lab.app(
        """
        import os, pathlib, signal, sys, time

        def close_stderr(task, context):
            sys.stderr.close()
            context.log.warning('unheard')

        def set_alarm(task, context):
            signal.signal(signal.SIGALRM, signal.SIG_IGN)
            signal.alarm(1)

        def raise_much(task, context):
            raise ValueError('x' * 10_000_000)

        def say_nonsense(task, context):
            context.progress(object())
            return Completed(object())

        def wait(task, context):
            while not (pathlib.Path(__file__).parent / 'go').exists():
                time.sleep(0.02)

        def close_files(task, context):
            os.closerange(0, 4096)

        @handlers.handler('rude')
        def rude(task, context):
            return globals().get(task.key, lambda *_: None)(task, context)
        """
    )
    keys = ["close_stderr", "a", "set_alarm", "b", "raise_much", "c", "say_nonsense", "d", "wait", "close_files"]
    job = lab.jobs.create_job("rude", tasks=[TaskRequest(key=key) for key in keys])
    lab.start_worker(app)
    eventually(
        lambda: [task.status.value for task in lab.jobs.iter_tasks(job.id)].count("completed") == 6, what="those before the long one"
    )
    let_go(lab)
    assert ended(lab, job.id) == ["partial"]
    found = {task.key: task for task in lab.jobs.iter_tasks(job.id)}
    assert {key for key, task in found.items() if task.status == "failed"} == {"raise_much", "say_nonsense"}
    assert all(task.crashes == task.losses == 0 for task in found.values())
    assert isinstance(found["raise_much"].error, dict)
    assert found["raise_much"].error["type"] == "ValueError"
    assert isinstance(found["say_nonsense"].error, dict)
    assert found["say_nonsense"].error["type"] == "unreportable"


# --- cancel


def test_a_cancel_reaches_a_handler_that_asks(quick: Lab) -> None:
    app = quick.app(
        """
        import time
        @handlers.handler('polite')
        def polite(task, context):
            (__import__('pathlib').Path(__file__).parent / 'begun-a').write_text('1')
            while True:
                context.check_cancelled()
                time.sleep(0.02)
        """
    )
    job = quick.jobs.create_job("polite")
    worker = quick.start_worker(app)
    text_of(quick, "begun-a")
    quick.jobs.cancel_job(job.id)
    assert ended(quick, job.id) == ["cancelled"]
    assert [row[:2] for row in eventually(lambda: [row for row in runs(quick) if row[0] != "running"])] == [("finished", None)]
    assert worker.pid


def test_a_handler_that_does_not_listen_is_killed_after_its_grace_and_is_cancelled_not_failed(quick: Lab) -> None:
    job, _worker, horse = begin_waiting(quick)
    quick.jobs.cancel_job(job)
    assert ended(quick, job) == ["cancelled"]
    assert [row[:2] for row in runs(quick)] == [("lost", "cancel_kill")]
    eventually(lambda: not Path(f"/proc/{horse}").exists())


# --- shutting down


def test_a_warm_shutdown_gives_back_what_was_not_begun(quick: Lab) -> None:
    app = quick.app(WAITER)
    job = quick.jobs.create_job("waits", tasks=[TaskRequest(key=f"t{n}") for n in range(30)])
    worker = quick.start_worker(app)
    horse_of(quick, "t0")
    os.kill(worker.pid, signal.SIGTERM)
    eventually(lambda: any(worker.stopping for worker in list_workers(quick.redis)))
    let_go(quick)
    assert worker.wait() == 0
    found = quick.store.job_get(job.id)
    assert found is not None
    assert 0 < found.completed < 30
    assert {row[0] for row in runs(quick)} == {"finished", "dispatched"}, "nothing is left running, and nothing was lost"
    quick.start_worker(app)
    quick.steward.run_once()
    assert ended(quick, job.id) == ["completed"]
    assert all(task.losses == task.crashes == 0 for task in quick.jobs.iter_tasks(job.id))


# --- a worker that is misconfigured


def test_a_worker_without_the_json_serializer_fails_runs_before_any_of_our_code_and_is_named(lab: Lab) -> None:
    job = lab.jobs.create_job("waits")
    worker = lab.start_worker(burst=True, options=("-u", lab.redis_url))
    worker.wait()
    (run,) = lab.store.live_runs().runs
    seen = lab.run_queue.observe([run.ticket])[run.run]
    assert run.status == "dispatched"
    assert seen.unreadable
    assert seen.worker
    assert seen.worker in worker.said()
    assert status(lab, job.id) == "queued"


def test_a_registry_that_cannot_be_imported_is_told_in_one_line_at_the_start(lab: Lab) -> None:
    (lab.directory / "broken.py").write_text("raise RuntimeError('half-written')")
    worker = lab.start_worker("broken:handlers", burst=True)
    assert worker.wait() != 0
    last = worker.said().strip().splitlines()[-1]
    assert re.search(r"ConfigurationError: LEDGERQ_APP='broken:handlers': importing broken raised RuntimeError: half-written", last)
