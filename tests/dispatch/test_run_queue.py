"""Pushing to a real Valkey, and what RQ makes of it."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from uuid import uuid4

import pytest
from redis import Redis
from rq import Queue
from rq.job import Job
from rq.serializers import JSONSerializer

from ledgerq.dispatch.connection import Breaker, connect_redis
from ledgerq.dispatch.run_queue import ENTRY_POINT, RunQueue
from ledgerq.errors import ConfigurationError, QueueUnavailable
from ledgerq.models import RunTicket
from ledgerq.settings import Settings


@pytest.fixture
def redis(redis_url: str) -> Iterator[Redis]:
    with connect_redis(Settings(redis_url=redis_url)) as client:
        yield client


@pytest.fixture
def nobody() -> str:
    """The URL of a port where nobody listens."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        return f"redis://127.0.0.1:{taken.getsockname()[1]}/0"


def ticket(**changed: object) -> RunTicket:
    asked = {"run": uuid4(), "queue": "processing", "type": "process", "description": "process: 3 tasks of 1 jobs", "tasks": 3}
    return RunTicket.model_validate({**asked, "job_ids": (uuid4(),), "timeout_s": 961.5, **changed})


def fetch(redis: Redis, of: RunTicket) -> Job:
    return Job.fetch(str(of.run), connection=redis, serializer=JSONSerializer)


def waiting(redis: Redis, queue: str = "processing") -> list[str]:
    return Queue(queue, connection=redis).get_job_ids()


def test_a_pushed_run_is_an_rq_job_of_the_same_id_with_everything_explicit(redis: Redis) -> None:
    pushed = ticket()
    RunQueue(redis, result_ttl_s=3_600).push([pushed])
    job = fetch(redis, pushed)
    assert waiting(redis) == [str(pushed.run)]
    assert (job.func_name, job.args, job.kwargs) == (ENTRY_POINT, [str(pushed.run)], {})
    assert (job.timeout, job.result_ttl, job.failure_ttl) == (962, 3_600, 3_600)
    assert job.ttl == 7 * 86_400
    assert job.retries_left is None
    assert job.description == "process: 3 tasks of 1 jobs"
    assert job.meta["type"] == "process"
    assert job.meta["tasks"] == 3
    assert job.meta["job_ids"] == [str(pushed.job_ids[0])]
    assert job.meta["ledgerq"]


def test_the_argument_is_json_so_that_nobody_unpickles_it(redis: Redis) -> None:
    pushed = ticket()
    RunQueue(redis).push([pushed])
    assert str(pushed.run).encode() in fetch(redis, pushed).data


def test_urgent_runs_keep_their_order_in_front_of_everything(redis: Redis) -> None:
    run_queue = RunQueue(redis)
    early = ticket()
    run_queue.push([early])
    first, second, late = ticket(at_front=True), ticket(at_front=True), ticket()
    run_queue.push([first, late, second])
    assert waiting(redis) == [str(t.run) for t in (first, second, early, late)]


def test_runs_of_several_queues_go_in_one_push(redis: Redis) -> None:
    one, other = ticket(), ticket(queue="crawling")
    RunQueue(redis).push([one, other])
    assert waiting(redis) == [str(one.run)]
    assert waiting(redis, "crawling") == [str(other.run)]


def test_pushing_nothing_asks_nobody(nobody: str) -> None:
    RunQueue(connect_redis(Settings(redis_url=nobody))).push([])
    assert not Breaker().is_open


def test_pushing_again_is_harmless_when_rq_has_the_run(redis: Redis) -> None:
    run_queue = RunQueue(redis)
    pushed = ticket()
    run_queue.push([pushed])
    run_queue.push_again(pushed)
    assert waiting(redis) == [str(pushed.run)]


def test_pushing_again_brings_back_what_a_flush_took(redis: Redis) -> None:
    run_queue = RunQueue(redis)
    pushed = ticket()
    run_queue.push([pushed])
    redis.flushall()
    run_queue.push_again(pushed)
    assert waiting(redis) == [str(pushed.run)]
    assert fetch(redis, pushed).args == [str(pushed.run)]


def test_redis_away_is_told_at_once_and_then_not_asked_for_five_seconds(nobody: str) -> None:
    now = [100.0]
    breaker = Breaker(clock=lambda: now[0])
    run_queue = RunQueue(connect_redis(Settings(redis_url=nobody)), breaker=breaker)
    with pytest.raises(QueueUnavailable, match="did not take 1 runs"):
        run_queue.push([ticket()])
    with pytest.raises(QueueUnavailable, match=r"failed less than 5 s ago"):
        run_queue.push_again(ticket())
    now[0] += 5.0
    with pytest.raises(QueueUnavailable, match="did not take"):
        run_queue.push([ticket()])


def test_a_command_that_redis_refuses_is_the_queue_being_unavailable(redis: Redis) -> None:
    """Another type under the list's key: the transaction's reply is an error, as it is for a full or read-only Redis."""
    redis.set("rq:queue:processing", "not a list")
    with pytest.raises(QueueUnavailable, match="WRONGTYPE"):
        RunQueue(redis).push([ticket()])


def test_an_unreadable_url_is_a_configuration_error() -> None:
    with pytest.raises(ConfigurationError, match="REDIS_URL"):
        connect_redis(Settings(redis_url="http://somewhere"))


def test_an_unreadable_url_does_not_show_its_password() -> None:
    with pytest.raises(ConfigurationError) as caught:
        connect_redis(Settings(redis_url="redis://:se/cret@localhost:6379/0"))
    assert "cret" not in str(caught.value)
    assert caught.value.__cause__ is None
