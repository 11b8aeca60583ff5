"""The store over real functions: every method sends what its function takes and reads what it answers."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from uuid import UUID, uuid4

import psycopg
import pytest

from ledgerq.errors import InvalidInput, NotFound, SchemaMismatch, TooLarge, UnknownQueue, WrongState
from ledgerq.ids import new_id
from ledgerq.ledger import LedgerStore, Returned, TaskReport
from ledgerq.ledger.answers import GarbageGone, QueueLimits
from ledgerq.lifecycle import JobStatus, RunStatus, TaskStatus
from ledgerq.models import (
    Disposition,
    DocumentBody,
    DocumentRequest,
    Job,
    JobPriority,
    JobRequest,
    Json,
    RunVerdict,
    TaskRequest,
    Verdict,
)
from ledgerq.outcomes import Cancelled, Completed, DocumentEffect, Failed, Retry, TaskError, Usage
from tests.support.databases import Database, Databases
from tests.support.ways import Kind, ledger_for, open_way

OWNER = UUID(int=0xA)


def request(*tasks: TaskRequest, **fields: object) -> JobRequest:
    return JobRequest.model_validate({"type": "summarise", "tasks": tasks or (TaskRequest(key="one"),), **fields})


class Worker:
    """One delivery of the only run there is."""

    def __init__(self, store: LedgerStore, run: UUID, *, window: int = 10) -> None:
        self.store = store
        self.run = run
        self.delivery = uuid4()
        self.started = store.start_run(run, delivery=self.delivery, window=window, worker="w", execution_id="e", host="h", pid=1)
        self.step = self.started.step

    def report(self, *reports: TaskReport, want: int = 0, give_back: bool = False):
        answer = self.store.advance_run(self.run, delivery=self.delivery, step=self.step, reports=reports, want=want, give_back=give_back)
        self.step = answer.step
        return answer


def working(store: LedgerStore, job: JobRequest, *, window: int = 10) -> Worker:
    store.save_queue("processing", QueueLimits(depth=1))
    (run,) = store.create_jobs([job]).runs
    return Worker(store, run.run, window=window)


def the_job(store: LedgerStore, job: UUID) -> Job:
    found = store.job_get(job)
    assert found is not None
    return found


# --- jobs -----------------------------------------------------------------------------------------------------------


def test_every_function_has_a_method_and_every_method_a_function(ledger: Database) -> None:
    with psycopg.connect(ledger.dsn) as connection:
        rows = connection.execute("""
            select p.proname from pg_proc p join pg_namespace n on n.oid = p.pronamespace
            where n.nspname = 'ledgerq' and p.proname not like '\\_%' and p.prorettype = 'jsonb'::regtype
        """).fetchall()
    functions = {str(row[0]) for row in rows}
    methods = {name for name in dir(LedgerStore) if not name.startswith("_")} - {"close", "job_history_page"}
    assert functions == methods


def test_a_job_as_asked_for(store: LedgerStore) -> None:
    due = datetime.now(UTC) + timedelta(hours=1)
    asked = request(
        TaskRequest(key="a", payload={"n": 1, "none": None}),
        TaskRequest(key="b", payload=[1, "x"]),
        TaskRequest(key="a", payload="not this one"),
        tenant="acme",
        owner=OWNER,
        project="p",
        priority=JobPriority.HIGH,
        details={"note": None, "more": {"x": [1]}},
        dedupe_key="k",
        due_at=due,
        max_attempts=7,
        timeout_s=12.5,
        deadline_s=99,
    )
    created = store.create_jobs([asked], actor="me")
    assert [(entry.id, entry.disposition, entry.job) for entry in created.jobs] == [(asked.id, Disposition.APPLIED, asked.id)]
    job = the_job(store, asked.id)
    assert (job.type, job.queue, job.tenant, job.owner, job.project) == ("summarise", "processing", "acme", OWNER, "p")
    assert (job.priority, job.details, job.dedupe_key, job.due_at) == (JobPriority.HIGH, asked.details, "k", due)
    assert (job.status, job.total, job.max_attempts, job.timeout_s, job.sealed) == (JobStatus.PENDING, 2, 7, 12.5, True)
    assert [(task.key, task.status) for task in store.job_tasks(asked.id).tasks] == [("a", TaskStatus.PENDING), ("b", TaskStatus.PENDING)]


def test_the_same_request_again_another_one_and_a_taken_key(store: LedgerStore) -> None:
    first = request(dedupe_key="k")
    other = request(id=first.id, tasks=(TaskRequest(key="other"),))
    second = request(dedupe_key="k")
    assert store.create_jobs([first]).jobs[0].disposition is Disposition.APPLIED
    answers = store.create_jobs([first, other.model_copy(update={"tasks": (TaskRequest(key="other"),)}), second]).jobs
    assert [entry.disposition for entry in answers] == [Disposition.APPLIED, Disposition.CONFLICT, Disposition.DUPLICATE]
    assert answers[2].job == first.id


@pytest.mark.parametrize(
    ("job", "error", "message"),
    [
        (request(queue="nowhere"), UnknownQueue, "nowhere"),
        (request(TaskRequest(key="k", payload="x" * 70_000)), TooLarge, r"jobs\[0\].tasks\[0\].payload"),
        (request(TaskRequest(key="k", document=UUID(int=1))), NotFound, str(UUID(int=1))),
        (request(source=UUID(int=2)), NotFound, str(UUID(int=2))),
        (request(due_at=datetime(2026, 1, 1)), InvalidInput, r"jobs\[0\].due_at"),  # noqa: DTZ001 - the mistake
        (request(TaskRequest(key="k", payload={"t": "a\x00"})), InvalidInput, r"jobs\[0\].tasks\[0\].payload.t contains NUL"),
        (request(TaskRequest(key="k", payload={"t": float("nan")})), InvalidInput, r"jobs\[0\].tasks\[0\].payload.t is nan"),
    ],
)
def test_a_bad_request_names_its_mistake_and_creates_nothing(
    store: LedgerStore, job: JobRequest, error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        store.create_jobs([job])
    assert store.job_list().jobs == ()


def test_a_job_that_grows(store: LedgerStore) -> None:
    asked = request(sealed=False)
    store.create_jobs([asked], dispatch=False)
    added = store.add_tasks(asked.id, [TaskRequest(key="one"), TaskRequest(key="two")])
    assert (added.disposition, added.added, added.total) == (Disposition.APPLIED, 1, 2)
    assert added.runs
    assert store.seal_job(asked.id).disposition is Disposition.APPLIED
    assert store.add_tasks(asked.id, [TaskRequest(key="three")]).disposition is Disposition.SEALED
    assert store.add_tasks(uuid4(), []).disposition is Disposition.NOT_FOUND


def test_lists_in_pages(store: LedgerStore) -> None:
    asked = [request(tenant="a" if n % 2 else "b", type=f"t{n}") for n in range(5)]
    for each in asked:
        store.create_jobs([each])
    first = store.job_list(limit=3)
    second = store.job_list(limit=3, after=first.next)
    assert [job.id for job in (*first.jobs, *second.jobs)] == [each.id for each in reversed(asked)]
    assert [job.id for job in store.job_list(tenant="a").jobs] == [asked[3].id, asked[1].id]
    assert [job.id for job in store.job_list(type="t4", status=[JobStatus.QUEUED], queue="processing").jobs] == [asked[4].id]
    assert store.job_list(created_before=datetime(2000, 1, 1, tzinfo=UTC)).jobs == ()
    assert store.job_list(owner=OWNER).jobs == store.job_list(project="none").jobs == store.job_list(source=OWNER).jobs == ()


def test_tasks_in_pages(store: LedgerStore) -> None:
    asked = request(*(TaskRequest(key=str(n)) for n in range(5)))
    store.create_jobs([asked])
    first = store.job_tasks(asked.id, limit=3)
    second = store.job_tasks(asked.id, after=first.next)
    assert [task.key for task in (*first.tasks, *second.tasks)] == list("01234")
    assert store.job_tasks(asked.id, status=TaskStatus.FAILED).tasks == ()


def test_cancel_and_retry(store: LedgerStore) -> None:
    asked = request()
    store.create_jobs([asked], dispatch=False)
    gone = uuid4()
    answer = store.cancel_jobs([asked.id, gone], actor="me", reason="why not").jobs
    assert [entry.disposition for entry in answer] == [Disposition.APPLIED, Disposition.NOT_FOUND]
    job = the_job(store, asked.id)
    assert (job.status, job.cancel_actor, job.cancel_reason) == (JobStatus.CANCELLED, "me", "why not")
    again = new_id()
    assert store.retry_jobs([asked.id], actor="me", request_id=again).jobs[0].disposition is Disposition.APPLIED
    assert store.retry_jobs([asked.id], actor="me", request_id=again).jobs[0].disposition is Disposition.APPLIED
    assert store.retry_jobs([asked.id], actor="me").jobs[0].disposition is Disposition.NOT_FINISHED


def test_an_external_job(store: LedgerStore) -> None:
    asked = JobRequest(type="crawl", external=True)
    store.create_jobs([asked])
    store.update_job(asked.id, status=JobStatus.IN_PROGRESS, details={"url": "a\x00b"}, progress={"pages": 3})
    job = the_job(store, asked.id)
    assert (job.status, job.details, job.progress) == (JobStatus.IN_PROGRESS, {"url": "a\ufffdb"}, {"pages": 3})
    done = store.complete_job(asked.id, result={"pages": 4})
    assert (done.disposition, done.status) == (Disposition.APPLIED, JobStatus.COMPLETED)
    assert the_job(store, asked.id).result == {"pages": 4}
    assert store.fail_job(asked.id, error="late").disposition is Disposition.TOO_LATE
    own = request()
    store.create_jobs([own])
    assert store.complete_job(own.id).disposition is Disposition.NOT_EXTERNAL
    other = JobRequest(type="crawl", external=True)
    store.create_jobs([other])
    failed = store.fail_job(other.id, error=TaskError(type="Blocked", message="403"))
    assert (failed.disposition, failed.status) == (Disposition.APPLIED, JobStatus.FAILED)
    assert store.update_job(uuid4()).disposition is Disposition.NOT_FOUND


def test_reading_a_job_back(store: LedgerStore) -> None:
    asked = request()
    before = store.moment()
    worker = working(store, asked)
    worker.report(TaskReport(task=worker.started.tasks[0].id, outcome=Completed({"ok": True}), duration_s=0.5))
    job = the_job(store, asked.id)
    assert (job.status, job.result, job.completed, job.run_ids) == (JobStatus.COMPLETED, {"ok": True}, 1, (worker.run,))
    kinds = [event.kind for event in store.job_history(asked.id)]
    assert kinds[0] == "created"
    assert kinds[-1] in ("ended", "run_ended")
    page = store.job_history_page(asked.id, limit=1)
    assert [event.kind for event in page.events] == ["created"]
    assert store.job_history_page(asked.id, after=page.next).events == store.job_history(asked.id)[1:]
    assert store.job_as_of(asked.id, before) is None
    then = store.job_as_of(asked.id, store.moment())
    assert then is not None
    assert then.status is JobStatus.COMPLETED
    explanation = store.explain(asked.id)
    assert explanation is not None
    assert explanation.sentence
    assert store.job_get(uuid4()) is store.explain(uuid4()) is None


def test_removing_what_is_done(store: LedgerStore) -> None:
    open_one, done = request(), request()
    store.create_jobs([open_one, done], dispatch=False)
    store.cancel_jobs([done.id], actor="me")
    assert store.delete_job(open_one.id, actor="me") is Disposition.NOT_FINISHED
    assert store.delete_job(done.id, actor="me") is Disposition.APPLIED
    assert store.delete_job(done.id, actor="me") is Disposition.NOT_FOUND
    store.cancel_jobs([open_one.id], actor="me")
    assert store.prune(finished_before_s=0).jobs == 1
    assert store.expire_jobs().expired == ()


# --- runs -----------------------------------------------------------------------------------------------------------


def test_every_kind_of_outcome(store: LedgerStore) -> None:
    asked = request(*(TaskRequest(key=str(n)) for n in range(6)), max_attempts=2)
    worker = working(store, asked)
    tasks = worker.started.tasks
    assert [(task.key, task.job, task.attempts, task.max_attempts) for task in tasks] == [(str(n), asked.id, 0, 2) for n in range(6)]
    answer = worker.report(
        TaskReport(task=tasks[0].id, outcome=Completed()),
        TaskReport(task=tasks[1].id, outcome=Retry("later", after_s=60)),
        TaskReport(task=tasks[2].id, outcome=Retry("slow down", throttled=True), after_s=60),
        TaskReport(task=tasks[3].id, outcome=Failed(TaskError(type="E", message="m"))),
        TaskReport(task=tasks[4].id, outcome=Cancelled()),
        TaskReport(task=tasks[5].id, outcome=Returned()),
        TaskReport(task=999_999, outcome=Completed()),
    )
    assert (answer.disposition, answer.step, answer.finished, answer.ignored) == (Disposition.APPLIED, 1, True, (999_999,))
    found = {task.key: task for task in store.job_tasks(asked.id).tasks}
    assert [found[key].status.value for key in "012345"] == ["completed", "pending", "pending", "failed", "cancelled", "queued"]
    assert [found[key].attempts for key in "0123"] == [1, 1, 0, 1]
    assert found["3"].error == {"type": "E", "message": "m"}
    assert found["1"].due_at is not None


def test_one_outcome_that_cannot_be_stored_fails_alone(store: LedgerStore) -> None:
    asked = request(TaskRequest(key="0"), TaskRequest(key="1"))
    worker = working(store, asked)
    first, second = worker.started.tasks
    worker.report(
        TaskReport(task=first.id, outcome=Completed({"f": object()})), TaskReport(task=second.id, outcome=Completed("a\x00\ud800"))
    )  # type: ignore[dict-item]
    found = store.job_tasks(asked.id).tasks
    assert [task.status for task in found] == [TaskStatus.FAILED, TaskStatus.COMPLETED]
    assert isinstance(found[0].error, dict)
    assert found[0].error["type"] == "unreportable"
    assert found[1].result == "a\ufffd\ufffd"


LARGEST: list[Json] = ["x" * 65_534, [1] * 21_800, {"é": "é" * 32_000}, [1.5e-300, 0.1, 1e15] * 100, -(2**63), [[[]]] * 100]


@pytest.mark.parametrize("number", range(len(LARGEST)))
def test_what_python_lets_through_the_database_takes(store: LedgerStore, number: int) -> None:
    """Both measure a result the same way: what is not failed here must not fail the whole window there."""
    asked = request()
    worker = working(store, asked)
    worker.report(TaskReport(task=worker.started.tasks[0].id, outcome=Completed(LARGEST[number])))
    job = the_job(store, asked.id)
    assert (job.status, job.result) == (JobStatus.COMPLETED, LARGEST[number])


def test_a_run_from_its_dispatch_to_its_end(store: LedgerStore) -> None:
    asked = request(TaskRequest(key="0"), TaskRequest(key="1"), TaskRequest(key="2"))
    store.save_queue("processing", QueueLimits(depth=1))
    created = store.create_jobs([asked], dispatch=False)
    assert created.runs == ()
    (ticket,) = store.dispatch("processing").runs
    assert (ticket.queue, ticket.type, ticket.tasks, ticket.job_ids) == ("processing", "summarise", 3, (asked.id,))
    (live,) = store.live_runs().runs
    assert (live.run, live.status, live.ticket) == (ticket.run, RunStatus.DISPATCHED, ticket)
    worker = Worker(store, ticket.run, window=1)
    assert (worker.started.lease_s, worker.started.heartbeat_s, worker.started.cancel_grace_s) == (20, 5, 10)
    assert Worker(store, ticket.run).started.disposition is Disposition.SUPERSEDED
    assert store.start_run(uuid4(), delivery=uuid4(), window=1).disposition is Disposition.NOT_FOUND
    assert store.heartbeat_run(ticket.run, delivery=worker.delivery).disposition is Disposition.APPLIED
    assert store.heartbeat_run(ticket.run, delivery=uuid4()).disposition is Disposition.SUPERSEDED
    assert store.live_runs(runs=[ticket.run, uuid4()], queue="processing").runs[0].status is RunStatus.RUNNING
    shed = store.shed(ticket.run)
    assert (shed.disposition, shed.released) == (Disposition.APPLIED, 2)
    with pytest.raises(WrongState, match="step"):
        store.advance_run(ticket.run, delivery=worker.delivery, step=5, reports=[], want=0)
    answer = worker.report(TaskReport(task=worker.started.tasks[0].id, outcome=Completed()), give_back=True)
    assert answer.finished
    assert answer.runs


def test_a_cancelled_job_is_told_of(store: LedgerStore) -> None:
    asked = request()
    worker = working(store, asked)
    store.cancel_jobs([asked.id], actor="me")
    (task,) = worker.started.tasks
    assert store.heartbeat_run(worker.run, delivery=worker.delivery).cancelled == (task.id,)
    assert worker.report().cancelled == (task.id,)


def test_verdicts(store: LedgerStore) -> None:
    asked = request(TaskRequest(key="0"))
    worker = working(store, asked)
    unknown = uuid4()
    verdicts = [
        RunVerdict(run=worker.run, verdict=Verdict.DIED, delivery=worker.delivery, evidence={"signal": 9}),
        RunVerdict(run=unknown, verdict=Verdict.REVOKE, seen_status=RunStatus.DISPATCHED, seen_step=0),
    ]
    answer = store.reconcile_runs(verdicts, actor="keeper")
    assert {entry.run: entry.disposition for entry in answer.runs} == {worker.run: Disposition.APPLIED, unknown: Disposition.NOT_FOUND}
    (ticket,) = answer.to_push
    (live,) = store.live_runs().runs
    seen = RunVerdict(
        run=ticket.run, verdict=Verdict.REVOKE, seen_status=live.status, seen_step=live.step, seen_heartbeat_at=live.heartbeat_at
    )
    assert store.reconcile_runs([seen], actor="steward").runs[0].disposition is Disposition.APPLIED
    assert store.job_tasks(asked.id).tasks[0].crashes == 1


def test_what_waits_for_its_time(store: LedgerStore) -> None:
    due = datetime.now(UTC) + timedelta(hours=1)
    store.create_jobs([request(due_at=due)])
    dispatched = store.dispatch_due()
    assert (dispatched.runs, dispatched.busy, dispatched.next_due_at) == ((), False, due)


# --- queues ---------------------------------------------------------------------------------------------------------


def test_queues(store: LedgerStore) -> None:
    store.save_queue("other", QueueLimits(depth=3, max_concurrent_jobs=2))
    store.save_queue("other", QueueLimits(max_concurrent_jobs=None))
    store.create_jobs([request(queue="other")], dispatch=False)
    assert store.pause_queue("other", actor="me").disposition is Disposition.APPLIED
    assert store.dispatch("other").runs == ()
    (stats,) = store.queue_stats("other")
    assert (stats.queue, stats.paused, stats.depth, stats.ready) == ("other", True, 3, 1)
    (run,) = store.resume_queue("other", actor="me").runs
    worker = Worker(store, run.run)
    (busy,) = store.worker_stats()
    assert (busy.worker, busy.host, busy.pid, busy.queue, busy.runs, busy.held, busy.suspected) == ("w", "h", 1, "other", 1, 1, False)
    assert worker.started.disposition is Disposition.APPLIED
    assert [stats.queue for stats in store.queue_stats()] == ["other", "processing"]
    with pytest.raises(UnknownQueue, match="nowhere"):
        store.pause_queue("nowhere", actor="me")
    with pytest.raises(InvalidInput, match="lease_s"):
        store.save_queue("other", QueueLimits(lease_s=1))


def test_health(store: LedgerStore) -> None:
    health = store.health()
    assert health.schema_version > "2026"
    assert health.started_at < health.now <= store.moment()


# --- documents --------------------------------------------------------------------------------------------------------


def saving(uri: str, text: str = "text") -> DocumentRequest:
    body = DocumentBody(kind="inline", text=text)
    content_hash = sha256(text.encode()).hexdigest()
    return DocumentRequest(uri=uri, body=body, content_hash=content_hash, byte_size=len(text), metadata={"n": None})


def test_a_document_from_saving_to_removal(store: LedgerStore) -> None:
    source = new_id()
    assert store.save_source(source, kind="folder", owner=OWNER, details={"x": 1}).disposition == "created"
    found_source = store.source_get(source)
    assert found_source is not None
    assert (found_source.kind, found_source.details, found_source.owner) == ("folder", {"x": 1}, OWNER)
    saved = store.save_documents([saving("b"), saving("a")], source=source, owner=OWNER)
    assert [(entry.uri, entry.disposition, entry.revision) for entry in saved] == [("b", "created", 1), ("a", "created", 1)]
    document = saved[0].id
    assert store.missing_documents([document, source]) == (source,)
    worker = working(store, request(TaskRequest(key="b", document=document), type="process"))
    (work,) = store.begin_documents([document], config_digest="c")
    assert (work.disposition, work.revision, work.uri, work.metadata) == ("process", 1, "b", {"n": None})
    assert work.body == DocumentBody(kind="inline", text="text")
    usage = Usage(id=new_id(), provider="p", model="m", tokens=3, cost=0.25)
    effect = DocumentEffect(document=document, revision=1, generation=work.generation, points=2, digest="d" * 64, chunks=2, usage=(usage,))
    answer = worker.report(TaskReport(task=worker.started.tasks[0].id, outcome=Completed(None, (effect,))))
    assert (answer.stale, answer.ignored, answer.remove) == ((), (), ())
    record = store.document_get(document)
    assert record is not None
    assert (record.status, record.live_generation, record.points, record.metadata) == ("indexed", work.generation, 2, {"n": None})
    assert store.begin_documents([document], config_digest="c")[0].disposition == "unchanged"
    (again,) = store.begin_documents([document], config_digest="c", wanting={document: work.generation})
    assert (again.disposition, again.generation > work.generation) == ("process", True)
    live = store.live_generations([document, uuid4()])
    assert [(entry.document, entry.live_generation) for entry in live.documents] == [(document, work.generation)]
    page = store.document_list(source=source, limit=1)
    rest = store.document_list(source=source, after=page.next)
    assert {entry.id for entry in (*page.documents, *rest.documents)} == {entry.id for entry in saved}
    assert store.delete_documents([document], actor="me")[0].disposition is Disposition.APPLIED
    assert store.document_get(uuid4()) is None


def test_garbage_is_named_until_it_is_counted_gone(store: LedgerStore) -> None:
    (saved,) = store.save_documents([saving("a")])
    generations = []
    for config in ("one", "two"):
        worker = working(store, request(TaskRequest(key=config, document=saved.id), type="process"))
        (work,) = store.begin_documents([saved.id], config_digest=config)
        effect = DocumentEffect(document=saved.id, revision=1, generation=work.generation, points=1, digest="d" * 64)
        worker.report(TaskReport(task=worker.started.tasks[0].id, outcome=Completed(None, (effect,))))
        generations.append(work.generation)
    (item,) = store.garbage(reader_grace_s=0)
    assert (item.document, item.generation) == (saved.id, generations[0])
    store.garbage_gone([GarbageGone(document=item.document, generation=item.generation, remaining=1)])
    assert store.garbage(reader_grace_s=0) == (item,)
    store.garbage_gone([GarbageGone(document=item.document, generation=item.generation, remaining=0)])
    assert store.garbage(reader_grace_s=0) == ()


def test_usage_of_tasks_without_documents_counts_once_whatever_the_outcome(store: LedgerStore, ledger: Database) -> None:
    asked = request(TaskRequest(key="0"), TaskRequest(key="1"))
    worker = working(store, asked)
    usages = [Usage(id=new_id(), provider="p", model="m", tokens=n) for n in (3, 4)]
    outcomes = (Completed({"x": 1}), Failed("no"))
    reports = [
        TaskReport(task=task.id, outcome=outcome, usage=(usage, usages[0]))
        for task, outcome, usage in zip(worker.started.tasks, outcomes, usages, strict=True)
    ]
    worker.report(*reports)
    assert [task.status for task in store.job_tasks(asked.id).tasks] == [TaskStatus.COMPLETED, TaskStatus.FAILED]
    with psycopg.connect(ledger.dsn) as connection:
        rows = connection.execute("select tokens, job_id from ledgerq.usage order by tokens").fetchall()
    assert rows == [(3, asked.id), (4, asked.id)]


# --- versions -------------------------------------------------------------------------------------------------------


@pytest.fixture
def other_version(kind: Kind, databases: Databases) -> Iterator[Callable[[str], LedgerStore]]:
    """A store over a ledger of its own that was changed by a statement."""
    with ExitStack() as stack:
        database = stack.enter_context(ledger_for(kind, databases))

        def changed(statement: str) -> LedgerStore:
            with psycopg.connect(database.dsn, autocommit=True) as connection:
                connection.execute(statement.encode())
            return stack.enter_context(LedgerStore(stack.enter_context(open_way(kind, database)).transport()))

        yield changed


def test_an_answer_of_another_version_is_said_to_be_one(other_version: Callable[[str], LedgerStore]) -> None:
    answers_nothing = "create or replace function ledgerq.{}(request jsonb) returns jsonb language sql as $$ select '{{}}'::jsonb $$;"
    store = other_version(answers_nothing.format("moment") + answers_nothing.format("health"))
    for call in (store.moment, store.health):
        with pytest.raises(SchemaMismatch, match="version"):
            call()


def test_members_that_are_new_do_not_matter(other_version: Callable[[str], LedgerStore]) -> None:
    store = other_version("""
        alter function ledgerq.health(jsonb) rename to _health;
        create function ledgerq.health(request jsonb) returns jsonb language sql
        as $$ select ledgerq._health(request) || '{"weather": "fine"}' $$;
        grant execute on function ledgerq.health(jsonb) to service_role;
    """)
    assert store.health().schema_version
