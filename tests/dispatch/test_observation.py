"""Observing RQ's keys, made by RQ itself against a real Valkey."""

from __future__ import annotations

from collections.abc import Iterator
from uuid import UUID, uuid4

import pytest
from redis import Redis
from rq import Queue, SimpleWorker
from rq.job import Job
from rq.job import JobStatus as RqJobStatus
from rq.serializers import JSONSerializer

from ledgerq.dispatch import observation
from ledgerq.dispatch.connection import connect_redis
from ledgerq.dispatch.observation import Observation, RqStatus, observe
from ledgerq.dispatch.run_queue import RunQueue
from ledgerq.dispatch.workers import WorkerProblem, list_workers, queue_counts
from ledgerq.models import RunTicket
from ledgerq.settings import Settings


@pytest.fixture
def redis(redis_url: str) -> Iterator[Redis]:
    with connect_redis(Settings(redis_url=redis_url)) as client:
        yield client


def ticket(queue: str = "processing") -> RunTicket:
    return RunTicket(run=uuid4(), queue=queue, type="process", tasks=1, timeout_s=100)


def pushed(redis: Redis, queue: str = "processing") -> RunTicket:
    made = ticket(queue)
    RunQueue(redis).push([made])
    return made


def look(redis: Redis, *runs: RunTicket) -> list[Observation]:
    seen = observe(redis, runs)
    return [seen[run.run] for run in runs]


def test_we_know_exactly_the_statuses_of_rq() -> None:
    assert {status.value for status in RqStatus} == {status.value for status in RqJobStatus}


def test_a_waiting_run_and_one_that_rq_never_saw(redis: Redis) -> None:
    waiting, unknown = look(redis, pushed(redis), ticket())
    assert (waiting.status, waiting.in_list, waiting.taken) == (RqStatus.QUEUED, True, False)
    assert unknown == Observation(status=None, in_list=False)


def test_runs_of_several_queues_are_seen_in_one_round_trip(redis: Redis) -> None:
    runs = [pushed(redis), pushed(redis, "other"), pushed(redis)]
    before = redis.info("stats")["total_commands_processed"]
    assert [seen.in_list for seen in look(redis, *runs)] == [True, True, True]
    assert redis.info("stats")["total_commands_processed"] - before == 2 * 4 + 3 * 2 + 1


def test_nothing_sought_asks_nobody() -> None:
    assert observe(Redis(port=1), []) == {}


def test_a_run_that_was_popped_and_not_begun(redis: Redis) -> None:
    """Where a worker that dies between its pop and its start leaves a run."""
    run = pushed(redis)
    redis.lmove("rq:queue:processing", "rq:queue:processing:intermediate")
    (seen,) = look(redis, run)
    assert (seen.status, seen.in_list, seen.taken) == (RqStatus.QUEUED, False, True)


def test_a_hash_in_no_list(redis: Redis) -> None:
    run = pushed(redis)
    redis.delete("rq:queue:processing")
    (seen,) = look(redis, run)
    assert (seen.status, seen.in_list) == (RqStatus.QUEUED, False)


def test_behind_a_long_list_of_others_absence_is_not_claimed(redis: Redis, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(observation, "LONGEST_LIST", 2)
    for _ in range(3):
        redis.rpush("rq:queue:processing", str(uuid4()))
    (seen,) = look(redis, ticket())
    assert seen.in_list


def test_a_failure_names_its_execution_its_worker_and_the_end_of_its_text(redis: Redis) -> None:
    """The entry point fails here: the run is no UUID to it, which is all that this test needs."""
    queue = Queue("processing", connection=redis, serializer=JSONSerializer)
    run = ticket()
    queue.enqueue_call("math.sqrt", args=("not a number",), job_id=str(run.run))
    worker = SimpleWorker([queue], connection=redis, serializer=JSONSerializer)
    worker.work(burst=True)
    (seen,) = look(redis, run)
    assert seen.status is RqStatus.FAILED
    assert seen.worker == worker.name
    assert seen.execution_id
    assert seen.exc_info is not None
    assert seen.exc_info.endswith("TypeError: must be real number, not str")
    assert seen.ended_at is not None
    assert not seen.unreadable


def test_a_started_run_shows_the_execution_that_is_registered(redis: Redis) -> None:
    run = pushed(redis)
    redis.hset(f"rq:job:{run.run}", "status", "started")
    redis.zadd("rq:wip:processing", {f"{run.run}:abc": 1})
    (seen,) = look(redis, run)
    assert (seen.status, seen.execution_id) == (RqStatus.STARTED, "abc")


def test_a_worker_without_the_json_serializer_is_recognised_and_named(redis: Redis) -> None:
    run = pushed(redis)
    worker = SimpleWorker([Queue("processing", connection=redis)], connection=redis)
    worker.work(burst=True)
    (seen,) = look(redis, run)
    assert seen.status is RqStatus.FAILED
    assert seen.unreadable
    assert seen.worker == worker.name
    worker.register_birth()
    (listed,) = list_workers(redis, queues=["processing"])
    assert listed.problems == (WorkerProblem.WRONG_SERIALIZER,)


def test_a_status_of_another_version_of_rq_is_not_relied_on(redis: Redis) -> None:
    run = pushed(redis)
    redis.hset(f"rq:job:{run.run}", "status", "levitating")
    (seen,) = look(redis, run)
    assert seen.status is RqStatus.CREATED


def test_observing_changes_nothing(redis: Redis) -> None:
    """RQ's own registries would run their cleanup here, and call an abandoned job failed."""
    run = pushed(redis)
    redis.zadd("rq:wip:processing", {f"{run.run}:abc": 1})
    before = {key: redis.dump(key) for key in redis.keys("*")}
    look(redis, run)
    queue_counts(redis, ["processing"])
    list_workers(redis, queues=["processing"])
    assert {key: redis.dump(key) for key in redis.keys("*")} == before


def test_workers_are_listed_with_what_is_wrong_about_them(redis: Redis) -> None:
    good = SimpleWorker(["processing"], connection=redis, serializer=JSONSerializer, name="good")
    broad = SimpleWorker(["processing", "other"], connection=redis, serializer=JSONSerializer, name="broad")
    stray = SimpleWorker(["elsewhere"], connection=redis, serializer=JSONSerializer, name="stray")
    for worker in (good, broad, stray):
        worker.register_birth()
    redis.hset("rq:worker:good", "last_heartbeat", "2020-01-01T00:00:00.000000Z")
    found = {worker.name: worker for worker in list_workers(redis, queues=["processing", "other"])}
    assert found["good"].problems == (WorkerProblem.SILENT,)
    assert found["broad"].problems == (WorkerProblem.SEVERAL_QUEUES,)
    assert found["stray"].problems == (WorkerProblem.OTHER_QUEUE,)
    assert found["good"].queues == ("processing",)
    assert found["good"].pid is not None


def test_counts_of_a_queue(redis: Redis) -> None:
    pushed(redis)
    pushed(redis)
    redis.lmove("rq:queue:processing", "rq:queue:processing:intermediate")
    (counts,) = queue_counts(redis, ["processing"])
    assert (counts.waiting, counts.taken, counts.started, counts.failed) == (1, 1, 0, 0)


def test_a_canceled_run_stays_visible(redis: Redis) -> None:
    run = pushed(redis)
    Job.fetch(str(run.run), connection=redis, serializer=JSONSerializer).cancel()
    (seen,) = look(redis, run)
    assert seen.status is RqStatus.CANCELED
    assert isinstance(run.run, UUID)
