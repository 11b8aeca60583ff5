"""Asking for jobs: what comes back, what is refused, and that nothing is ever half-done."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any, cast
from uuid import UUID, uuid4

import pytest

from ledgerq.errors import InvalidInput, NotFound, TooLarge, UnknownQueue, UnknownType, WrongState
from ledgerq.handlers import Handlers
from ledgerq.lifecycle import JobStatus
from ledgerq.models import Disposition, DocumentBody, DocumentRequest, JobPriority, JobRequest, TaskRequest
from tests.support.lab import Lab

LONG_AGO_NAIVE = datetime(2026, 1, 1)  # noqa: DTZ001 - naive on purpose


def nested(depth: int) -> list[object]:
    found: list[object] = []
    for _ in range(depth):
        found = [found]
    return found


def pushed_ids(lab: Lab) -> list[str]:
    return [entry.decode() for entry in lab.redis.lrange("rq:queue:processing", 0, -1)]


def test_a_job_is_in_the_ledger_and_its_run_is_in_rq(lab: Lab) -> None:
    job = lab.jobs.create_job("noop", {"n": 1}, tenant="acme", project="spring", details={"note": None})
    assert (job.status, job.total, job.disposition, job.degraded) == (JobStatus.QUEUED, 1, Disposition.APPLIED, None)
    assert (job.tenant, job.project, job.details) == ("acme", "spring", {"note": None})
    assert [job.rq_job_id] == pushed_ids(lab) == [str(run) for run in job.run_ids]
    hashed = lab.redis.hgetall(f"rq:job:{job.rq_job_id}")
    assert hashed[b"description"].decode() == f"noop: 1 task of job {job.id}"
    assert json.loads(hashed[b"meta"])["job_ids"] == [str(job.id)]


def test_asking_again_under_the_same_id_is_the_same_request(lab: Lab) -> None:
    mine = uuid4()
    first = lab.jobs.create_job("noop", 1, id=mine)
    again = lab.jobs.create_job("noop", 1, id=str(mine))
    assert first.id == again.id == mine
    assert again.disposition is Disposition.APPLIED
    assert len(pushed_ids(lab)) == 1
    with pytest.raises(WrongState, match=f"{mine}.*asked for differently"):
        lab.jobs.create_job("noop", 2, id=mine)


def test_an_unfinished_job_holds_its_dedupe_key(lab: Lab) -> None:
    first = lab.jobs.create_job("noop", dedupe_key="k")
    second = lab.jobs.create_job("noop", {"other": True}, dedupe_key="k")
    assert (second.id, second.disposition) == (first.id, Disposition.DUPLICATE)
    assert lab.jobs.create_job("noop", dedupe_key="k", tenant="other").disposition is Disposition.APPLIED


def test_a_job_without_tasks_is_complete_at_once(lab: Lab) -> None:
    job = lab.jobs.create_job("noop", tasks=[])
    assert (job.status, job.total) == (JobStatus.COMPLETED, 0)
    assert lab.jobs.create_processing_job(None, []).status is JobStatus.COMPLETED
    assert pushed_ids(lab) == []


def test_equal_keys_are_one_task(lab: Lab) -> None:
    job = lab.jobs.create_job("noop", tasks=[{"key": "a", "payload": 1}, {"key": "b"}, TaskRequest(key="a", payload=2)])
    assert job.total == 2
    assert [task.key for task in lab.jobs.iter_tasks(job.id)] == ["a", "b"]


def test_a_job_for_later_waits_in_the_ledger_by_its_clock(lab: Lab) -> None:
    job = lab.jobs.create_job("noop", delay="1h")
    assert (job.status, pushed_ids(lab)) == (JobStatus.PENDING, [])
    assert lab.steward.run_once().pushed == 0
    lab.clock.advance(3_601)
    assert lab.steward.run_once().pushed == 1
    assert lab.jobs.get_job(job.id).status is JobStatus.QUEUED


def test_an_urgent_job_is_pushed_at_the_front(lab: Lab) -> None:
    lab.jobs.create_job("noop")
    urgent = lab.jobs.create_job("noop", priority="urgent")
    assert pushed_ids(lab)[0] == urgent.rq_job_id


def test_defaults_come_from_the_job_then_the_handler_then_the_settings_then_the_queue(lab: Lab) -> None:
    handlers = Handlers()
    handlers.handler("tuned", max_attempts=7, timeout="5m")(lambda task: None)
    handlers.handler("plain")(lambda task: None)
    jobs = lab.manager(handlers, task_timeout_s=42.0)
    limits = lambda job: (job.max_attempts, job.timeout_s)  # noqa: E731
    assert limits(jobs.create_job("tuned")) == (7, 300.0)
    assert limits(jobs.create_job("tuned", max_attempts=2, timeout="90s")) == (2, 90.0)
    assert limits(jobs.create_job("plain")) == (3, 42.0)
    assert limits(lab.jobs.create_job("plain")) == (3, 300.0)


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"type": "No Such Name!"}, "type: 'No Such Name!'"),
        ({"priority": "asap"}, "priority: 'asap'"),
        ({"id": "seven"}, "id: 'seven' is no UUID"),
        ({"due_at": LONG_AGO_NAIVE}, "due_at: 2026-01-01T00:00:00 has no time zone"),
        ({"delay": -1}, "delay: -1"),
        ({"timeout": -5}, "timeout: -5"),
        ({"timeout": 0}, "timeout: 0"),
        ({"deadline": "soon"}, "deadline: 'soon'"),
        ({"deadline": LONG_AGO_NAIVE}, "is not a duration"),
        ({"due_at": datetime.max.replace(tzinfo=UTC)}, "due_at: 9999-12-31T23:59:59.999999+00:00 is after the year 9000"),
        ({"type": None}, "type: None"),
        ({"payload": nested(5_000)}, "nested too deeply"),
        ({"max_attempts": 0}, "max_attempts: 0"),
        ({"payload": {"at": LONG_AGO_NAIVE}}, "payload"),
        ({"details": "abc"}, "details: 'abc' is no object"),
        ({"tasks": 5}, "tasks: 5 is no list"),
        ({"tasks": "abc"}, "tasks: 'abc' is no list"),
        ({"tasks": {"key": "a"}}, "is no list of tasks"),
        ({"tasks": [5]}, "tasks[0]: 5 is no object"),
        ({"tasks": [{1: 2}]}, "tasks[0]: {1: 2} is no object"),
        ({"queue": ""}, "queue: '' is no name"),
        ({"payload": float("nan")}, "payload of task 'main': not JSON"),
        ({"payload": {"text": "a\x00b"}}, "NUL"),
        ({"payload": "\ud800"}, "payload of task 'main': not JSON"),
        ({"tenant": "a\x00"}, "tenant"),
        ({"payload": 1, "tasks": []}, "payload and tasks"),
        ({"tasks": [{"key": ""}]}, "key: ''"),
        ({"tasks": [{"kee": "a"}]}, "kee"),
        ({"type": "crawl", "payload": 1}, "external job has no payload"),
    ],
)
def test_wrong_input_is_named_and_nothing_is_written(lab: Lab, wrong: dict[str, object], said: str) -> None:
    with pytest.raises(InvalidInput) as raised:
        lab.jobs.create_job(**{"type": "noop", **wrong})
    assert said in str(raised.value)
    assert list(lab.jobs.list_jobs()) == []


def test_what_is_too_large_is_refused(lab: Lab) -> None:
    with pytest.raises(TooLarge, match="payload of task 'main': 65538 bytes"):
        lab.jobs.create_job("noop", "x" * 65_536)
    assert lab.jobs.create_job("noop", "x" * 65_000).total == 1


def test_unknown_names_are_refused(lab: Lab) -> None:
    handlers = Handlers()
    handlers.handler("known")(lambda task: None)
    with pytest.raises(UnknownType, match=r"'nope'; known types: crawl, known, process"):
        lab.manager(handlers).create_job("nope")
    with pytest.raises(UnknownQueue, match="elsewhere"):
        lab.jobs.create_job("noop", queue="elsewhere")
    with pytest.raises(NotFound, match=str(UUID(int=5))):
        lab.jobs.create_processing_job(None, [UUID(int=5)])
    with pytest.raises(NotFound, match="source_id"):
        lab.jobs.create_processing_job(uuid4(), [])
    with pytest.raises(NotFound, match="no document"):
        lab.jobs.enqueue_document_processing(uuid4())
    with pytest.raises(NotFound, match="no job"):
        lab.jobs.get_job_status(uuid4())
    assert list(lab.jobs.list_jobs()) == []


def test_one_wrong_request_refuses_them_all(lab: Lab) -> None:
    good = JobRequest(type="noop", tasks=(TaskRequest(key="a"),))
    bad = JobRequest(type="noop", tasks=(TaskRequest(key="a", payload=float("inf")),))
    with pytest.raises(InvalidInput, match="not JSON"):
        lab.jobs.create_jobs([good, bad])
    with pytest.raises(InvalidInput, match=r"requests\[1\]: 'noop' is no JobRequest"):
        lab.jobs.create_jobs([good, cast("JobRequest", "noop")])
    assert list(lab.jobs.list_jobs()) == []


@pytest.mark.parametrize("wrong", [None, "2f4d3a52-8f0c-5b7e-9a53-0c5f3b1c7a11", 7])
def test_what_is_no_list_of_documents_is_named(lab: Lab, wrong: Any) -> None:
    with pytest.raises(InvalidInput, match=f"document_ids: {wrong!r} is no list of UUIDs"):
        lab.jobs.create_processing_job(None, wrong)


def test_one_id_for_two_requests_of_a_call_is_refused(lab: Lab) -> None:
    request = JobRequest(type="noop", tasks=(TaskRequest(key="a"),))
    with pytest.raises(InvalidInput, match=f"{request.id} is the id of more than one"):
        lab.jobs.create_jobs([request, request.model_copy(update={"type": "other"})])
    assert list(lab.jobs.list_jobs()) == []


def test_thousands_of_jobs_in_one_go(lab: Lab) -> None:
    requests = [JobRequest(type="noop", priority=JobPriority.LOW, tasks=(TaskRequest(key="a", payload=n),)) for n in range(2_300)]
    report = lab.jobs.create_jobs(requests)
    assert [job.id for job in report.jobs] == [request.id for request in requests]
    assert {job.disposition for job in report.jobs} == {Disposition.APPLIED}
    assert report.pushed == len(pushed_ids(lab)) == 8
    again = lab.jobs.create_jobs(requests[:5])
    assert {job.disposition for job in again.jobs} == {Disposition.APPLIED}
    assert sum(1 for _ in lab.jobs.list_jobs()) == 2_300


def test_a_job_bigger_than_one_call_grows_and_is_sealed(lab: Lab) -> None:
    tasks = [TaskRequest(key=f"t{n}") for n in range(11_000)]
    job = lab.jobs.create_job("noop", tasks=tasks)
    assert (job.total, job.sealed) == (11_000, True)
    again = lab.jobs.create_job("noop", tasks=tasks, id=job.id)
    assert (again.id, again.total, again.disposition) == (job.id, 11_000, Disposition.APPLIED)


def test_a_big_job_that_broke_off_is_completed_by_asking_again(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    tasks = [TaskRequest(key=f"t{n}") for n in range(10_500)]
    mine = uuid4()

    class Crash(BaseException):
        pass

    grow, calls = lab.store.add_tasks, []

    def crashes_at_second(*args: object, **kwargs: object) -> object:
        calls.append(1)
        if len(calls) == 2:
            raise Crash
        return grow(*args, **kwargs)

    monkeypatch.setattr(lab.store, "add_tasks", crashes_at_second)
    with pytest.raises(Crash):
        lab.jobs.create_job("noop", tasks=tasks, id=mine)
    broken = lab.jobs.get_job(mine)
    assert (broken.total, broken.sealed) == (10_000, False)
    monkeypatch.undo()
    job = lab.jobs.create_job("noop", tasks=tasks, id=mine)
    assert (job.total, job.sealed) == (10_500, True)


def test_a_job_of_large_payloads_is_cut_by_bytes(lab: Lab) -> None:
    tasks = [TaskRequest(key=f"t{n}", payload="x" * 60_000) for n in range(150)]
    assert lab.jobs.create_job("noop", tasks=tasks).total == 150


def test_a_job_left_open_takes_tasks_until_it_is_sealed(lab: Lab) -> None:
    job = lab.jobs.create_job("noop", tasks=[{"key": "a"}], sealed=False)
    assert lab.jobs.add_tasks(job.id, [{"key": "a"}, {"key": "b"}]) == 2
    lab.jobs.seal_job(job.id)
    with pytest.raises(WrongState, match="sealed"):
        lab.jobs.add_tasks(job.id, [{"key": "c"}])
    with pytest.raises(NotFound):
        lab.jobs.add_tasks(uuid4(), [{"key": "c"}])


def test_jobs_are_sent_in_calls_that_are_small_enough_as_postgres_counts_them(lab: Lab) -> None:
    payload = [1] * 20_000  # 40 KB as Python would send it, 60 KB as Postgres prints it
    requests = [JobRequest(type="noop", tasks=(TaskRequest(key="k", payload=payload),)) for _ in range(90)]
    assert {job.disposition for job in lab.jobs.create_jobs(requests).jobs} == {Disposition.APPLIED}
    with pytest.raises(TooLarge, match="payload of task 'main': 66000 bytes"):
        lab.jobs.create_job("noop", [1] * 22_000)
    assert len(lab.jobs.job_page(limit=500).jobs) == 90


def test_documents_of_another_tenant_are_refused_before_anything_is_written(lab: Lab) -> None:
    mine, theirs = (saved_document(lab, tenant) for tenant in ("a", "b"))
    with pytest.raises(NotFound, match=f"1 of 2 documents do not exist for tenant 'a': {theirs}"):
        lab.jobs.create_processing_job(None, [mine, theirs], tenant="a")
    with pytest.raises(NotFound, match="2 of 2 documents do not exist for the default tenant"):
        lab.jobs.create_processing_job(None, [mine, theirs])
    assert lab.jobs.job_page().jobs == ()


def saved_document(lab: Lab, tenant: str) -> UUID:
    body = DocumentBody(kind="inline", text="x")
    request = DocumentRequest(uri="a.md", body=body, content_hash="a" * 64, byte_size=1)
    return lab.store.save_documents([request], tenant=tenant)[0].id


def test_a_big_job_asked_for_again_is_the_same_and_with_more_tasks_is_another(lab: Lab) -> None:
    mine = uuid4()
    tasks = [TaskRequest(key=str(number)) for number in range(5_100)]
    for _ in range(2):
        assert lab.jobs.create_job("noop", tasks=tasks, id=mine).total == 5_100
    with pytest.raises(WrongState, match=f"{mine}.*asked for differently"):
        lab.jobs.create_job("noop", tasks=[*tasks, TaskRequest(key="one more")], id=mine)
