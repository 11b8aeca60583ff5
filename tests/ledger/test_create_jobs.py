"""create_jobs: what stands for each job that was asked for."""

from __future__ import annotations

import hashlib
import json
from typing import Any

import psycopg
import pytest

from ledgerq.ids import new_id
from tests.support.sql import Sql, saved
from tests.support.work import Work, job_request, outcomes


def create(sql: Sql, *jobs: dict[str, Any], **request: Any) -> list[dict[str, Any]]:
    return sql.call("create_jobs", jobs=list(jobs), **({"dispatch": False} | request))["jobs"]


def dispositions(answers: list[dict[str, Any]]) -> list[str]:
    return [answer["disposition"] for answer in answers]


def test_job_and_tasks_are_created_pending_with_the_limits_of_their_queue(work: Work) -> None:
    job = work.create(2)
    row = work.job(job)
    assert (row["status"], row["total"], row["max_attempts"], row["timeout_s"], row["priority"]) == ("pending", 2, 3, 300, 1)
    assert [(task["status"], task["key"], task["payload"]) for task in work.tasks(job)] == [
        ("pending", "k0", {"number": 0}),
        ("pending", "k1", {"number": 1}),
    ]
    assert work.kinds(job) == ["created"]


def test_its_own_limits_win_over_those_of_the_queue(work: Work) -> None:
    job = work.create(max_attempts=7, timeout_s=1.5, deadline_s=60, priority="urgent", tenant="t", project="p", details={"a": 1})
    row = work.job(job)
    assert (row["max_attempts"], row["timeout_s"], row["deadline_s"], row["priority"]) == (7, 1.5, 60, 3)
    assert (row["tenant"], row["project"], row["details"]) == ("t", "p", {"a": 1})
    assert (work.task(job)["tenant"], work.task(job)["priority"]) == ("t", 3)


def test_runs_come_with_the_answer_when_there_is_room(work: Work) -> None:
    request = job_request()
    (ticket,) = work.sql.call("create_jobs", jobs=[request])["runs"]
    assert ticket == {
        "run": ticket["run"],
        "queue": "processing",
        "type": "noop",
        "at_front": False,
        "description": f"noop: 1 task of job {request['id']}",
        "job_ids": [request["id"]],
        "tasks": 1,
        "timeout_s": 600 + 300 + 60,
    }
    assert (work.status(request["id"]), work.job(request["id"])["run_ids"]) == ("queued", [ticket["run"]])


def test_repeated_request_is_applied_again_and_creates_nothing(work: Work) -> None:
    requests = [job_request(2), job_request(dedupe_key="k"), job_request(0)]
    first = create(work.sql, *requests)
    assert create(work.sql, *requests) == first
    assert dispositions(first) == ["applied"] * 3
    assert work.sql.value("select count(*) from ledgerq.task") == 3
    assert work.sql.value("select count(*) from ledgerq.event where kind = 'created'") == 3


def test_repeated_request_is_applied_even_when_the_job_is_over(work: Work) -> None:
    request = job_request(dedupe_key="k")
    create(work.sql, request)
    run = work.one_run()
    run.advance(*outcomes(run))
    assert dispositions(create(work.sql, request)) == ["applied"]


@pytest.mark.parametrize("other", [{"tenant": "other"}, {"priority": "high"}, {"tasks": [{"key": "else"}]}])
def test_same_id_for_another_request_is_a_conflict_and_inserts_nothing(work: Work, other: dict[str, Any]) -> None:
    request = job_request()
    create(work.sql, request)
    (answer,) = create(work.sql, request | other)
    assert (answer["disposition"], answer["job"]) == ("conflict", request["id"])
    assert work.counts(request["id"]) == (1, 0, 0, 0)
    assert [task["key"] for task in work.tasks(request["id"])] == ["k0"]


def test_key_of_an_open_job_makes_a_duplicate_that_names_the_holder(work: Work) -> None:
    holder = work.create(dedupe_key="doc:1")
    (answer,) = create(work.sql, job_request(dedupe_key="doc:1"))
    assert (answer["disposition"], answer["job"]) == ("duplicate", holder)
    assert work.sql.value("select count(*) from ledgerq.job") == 1


@pytest.mark.parametrize("apart", [{"tenant": "other"}, {"type": "other"}, {"dedupe_key": "other"}])
def test_key_is_one_of_tenant_and_type(work: Work, apart: dict[str, Any]) -> None:
    work.create(dedupe_key="k")
    assert dispositions(create(work.sql, job_request(**({"dedupe_key": "k"} | apart)))) == ["applied"]


def test_key_is_free_again_when_its_job_is_over(work: Work) -> None:
    job = work.create(dedupe_key="k")
    work.cancel(job)
    assert dispositions(create(work.sql, job_request(dedupe_key="k"))) == ["applied"]


def test_one_call_answers_each_job_for_itself_in_the_order_given(work: Work) -> None:
    known = job_request()
    create(work.sql, known)
    work.create(dedupe_key="held")
    answers = create(work.sql, job_request(), known | {"priority": "low"}, job_request(dedupe_key="held"), known)
    assert dispositions(answers) == ["applied", "conflict", "duplicate", "applied"]


def test_same_key_twice_in_one_call_is_one_job(work: Work) -> None:
    answers = create(work.sql, job_request(dedupe_key="k"), job_request(dedupe_key="k"))
    assert sorted(dispositions(answers)) == ["applied", "duplicate"]
    assert answers[0]["job"] == answers[1]["job"]


def test_same_id_twice_in_one_call_is_one_job(work: Work) -> None:
    request = job_request(3)
    assert dispositions(create(work.sql, request, request, request | {"tasks": []})) == ["applied", "applied", "conflict"]
    assert work.counts(request["id"])[0] == 3


def test_job_without_tasks_is_complete_at_once(work: Work) -> None:
    job = work.create(0)
    assert (work.status(job), work.kinds(job)) == ("completed", ["created", "ended"])


def test_unsealed_job_without_tasks_stays_open(work: Work) -> None:
    assert work.status(work.create(0, sealed=False)) == "pending"


def test_repeated_keys_of_a_job_are_one_task(work: Work) -> None:
    request = job_request([{"key": "a", "payload": 1}, {"key": "b"}, {"key": "a", "payload": 2}])
    create(work.sql, request)
    assert [(task["key"], task["payload"]) for task in work.tasks(request["id"])] == [("a", 1), ("b", None)]
    assert work.counts(request["id"])[0] == 2


def test_scheduled_job_waits_for_its_time_and_its_deadline_counts_from_then(work: Work) -> None:
    job = work.create(delay_s=3600, deadline_s=60)
    assert work.dispatch() == []
    row = work.job(job)
    assert work.task(job)["due_at"] == row["due_at"]
    assert work.sql.value("select deadline_at - due_at = interval '60 s' from ledgerq.job where id = %s", job)
    work.clock.advance(3601)
    assert len(work.dispatch()) == 1


def test_time_of_start_that_has_passed_is_no_wait(work: Work) -> None:
    job = work.create(due_at="2020-01-01T00:00:00Z")
    assert work.task(job)["due_at"] is None


def test_external_job_has_one_task_that_is_never_dispatched(work: Work) -> None:
    job = work.create(0, external=True)
    assert [task["key"] for task in work.tasks(job)] == ["external"]
    assert (work.dispatch(), work.status(job)) == ([], "pending")


def test_document_of_a_task_is_kept_with_it(work: Work) -> None:
    known = saved(work.sql)
    request = job_request([{"key": "a", "document": known}])
    create(work.sql, request)
    assert work.task(request["id"])["document_id"] == known


def test_digest_is_of_the_request_as_it_was_given(work: Work) -> None:
    request = job_request()
    create(work.sql, request)
    text = work.sql.value("select %s::jsonb::text", json.dumps(request))
    digest = work.sql.value("select encode(request_digest, 'hex') from ledgerq.job")
    assert digest == hashlib.sha256(text.encode()).hexdigest()


BAD: list[tuple[dict[str, Any], str, str]] = [
    ({"id": "x"}, "LQ001", "jobs[0].id: 'x' is not a uuid"),
    ({"id": None}, "LQ001", "jobs[0].id: nothing is not a uuid"),
    ({"type": "Not A Name"}, "LQ001", "jobs[0].type: 'Not A Name'"),
    ({"queue": "nowhere"}, "LQ003", "the ledger has no queue 'nowhere'"),
    ({"queue": None}, "LQ003", "the ledger has no queue without a name"),
    ({"priority": "soon"}, "LQ001", "jobs[0].priority: 'soon' is not one of low, normal, high, urgent"),
    ({"owner": "me"}, "LQ001", "jobs[0].owner: 'me' is not a uuid"),
    ({"tenant": "t" * 201}, "LQ001", "jobs[0].tenant"),
    ({"tenant": 7}, "LQ001", "jobs[0].tenant: '7'"),
    ({"max_attempts": 0}, "LQ001", "jobs[0].max_attempts: '0'"),
    ({"max_attempts": 1.5}, "LQ001", "jobs[0].max_attempts: '1.5'"),
    ({"timeout_s": -1}, "LQ001", "jobs[0].timeout_s: '-1'"),
    ({"timeout_s": "5m"}, "LQ001", "jobs[0].timeout_s: '5m'"),
    ({"deadline_s": 0}, "LQ001", "jobs[0].deadline_s: '0'"),
    ({"delay_s": -5}, "LQ001", "jobs[0].delay_s: '-5'"),
    ({"due_at": "2030-01-01T00:00:00"}, "LQ001", "jobs[0].due_at: '2030-01-01T00:00:00' is not a time in ISO 8601 with its zone"),
    ({"due_at": "2030-13-01T00:00:00Z"}, "LQ001", "jobs[0].due_at: '2030-13-01T00:00:00Z'"),
    ({"sealed": "yes"}, "LQ001", "jobs[0].sealed"),
    ({"details": [1]}, "LQ001", "jobs[0].details"),
    ({"details": {"a": "x" * 70_000}}, "LQ002", "jobs[0].details"),
    ({"tasks": {"a": 1}}, "LQ001", "jobs[0].tasks"),
    ({"tasks": ["a"]}, "LQ001", "jobs[0].tasks[0]"),
    ({"tasks": [{"key": "a"}, {"key": ""}]}, "LQ001", "jobs[0].tasks[1].key: ''"),
    ({"tasks": [{"payload": 1}]}, "LQ001", "jobs[0].tasks[0].key: nothing"),
    ({"tasks": [{"key": "a", "payload": "x" * 70_000}]}, "LQ002", "jobs[0].tasks[0].payload"),
    ({"tasks": [{"key": "a", "document": "x"}]}, "LQ001", "jobs[0].tasks[0].document: 'x' is not a uuid"),
    ({"tasks": [{"key": "a", "document": str(new_id())}]}, "LQ005", "document: unknown"),
    ({"source": str(new_id())}, "LQ005", "source: unknown"),
    ({"external": True, "tasks": [{"key": "a"}]}, "LQ001", "jobs[0].tasks: 'a' is not empty"),
    ({"external": True, "tasks": [], "sealed": False}, "LQ001", "jobs[0].sealed"),
]


@pytest.mark.parametrize(("wrong", "code", "says"), BAD)
def test_mistake_is_named_and_nothing_is_created(work: Work, wrong: dict[str, Any], code: str, says: str) -> None:
    with pytest.raises(psycopg.Error) as caught:
        create(work.sql, job_request() | wrong, job_request())
    assert caught.value.sqlstate == code
    assert says in (caught.value.diag.message_primary or "")
    assert caught.value.diag.message_hint
    assert work.sql.value("select count(*) from ledgerq.job") == 0


def test_unknown_documents_are_named_up_to_five(work: Work) -> None:
    tasks = [{"key": str(number), "document": str(new_id())} for number in range(7)]
    with pytest.raises(psycopg.Error, match="and 2 more") as caught:
        create(work.sql, job_request(tasks))
    assert caught.value.sqlstate == "LQ005"


def test_document_of_another_tenant_is_unknown(work: Work) -> None:
    known = saved(work.sql, tenant="theirs")
    with pytest.raises(psycopg.Error) as caught:
        create(work.sql, job_request([{"key": "a", "document": known}], tenant="ours"))
    assert caught.value.sqlstate == "LQ005"


@pytest.mark.parametrize(
    "jobs",
    [
        [job_request() for _ in range(1001)],
        [job_request(2501), job_request(2500)],
        [job_request([{"key": str(number), "payload": "x" * 60_000} for number in range(75)])],
    ],
    ids=["jobs", "tasks", "bytes"],
)
def test_call_is_bounded(work: Work, jobs: list[dict[str, Any]]) -> None:
    with pytest.raises(psycopg.Error) as caught:
        create(work.sql, *jobs)
    assert caught.value.sqlstate == "LQ002"


def test_full_call_is_taken(work: Work) -> None:
    answers = create(work.sql, *(job_request(5) for _ in range(1000)))
    assert dispositions(answers) == ["applied"] * 1000
    assert work.sql.value("select count(*) from ledgerq.task") == 5000


def deleted_document(work: Work) -> str:
    document = saved(work.sql)
    work.sql.call("delete_documents", documents=[document], actor="test")
    return document


def test_deleted_document_is_not_found(work: Work) -> None:
    task = {"key": "k", "document": deleted_document(work)}
    growing = work.create(0, sealed=False)
    for function, given in (("create_jobs", {"jobs": [job_request([task])]}), ("add_tasks", {"job": growing, "tasks": [task]})):
        with pytest.raises(psycopg.Error, match="document: unknown to its tenant, or deleted") as caught:
            work.sql.call(function, **given)
        assert caught.value.sqlstate == "LQ005"


def test_repeat_is_answered_alike_when_the_document_was_deleted_since(work: Work) -> None:
    document = saved(work.sql)
    request, growing = job_request([{"key": "k", "document": document}]), work.create(0, sealed=False)
    for _ in range(2):
        assert work.sql.call("create_jobs", jobs=[request])["jobs"][0]["disposition"] == "applied"
        assert work.sql.call("add_tasks", job=growing, tasks=request["tasks"])["disposition"] == "applied"
        work.sql.call("delete_documents", documents=[document], actor="test")
