"""From a created job to a search hit, and the accidents in the middle: every document is indexed, and none twice."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from uuid import UUID

import psycopg
import pytest
from qdrant_client import QdrantClient

from ledgerq import assembly
from ledgerq.ledger.answers import QueueLimits
from ledgerq.lifecycle import JobStatus
from ledgerq.local.vectors.server import VectorServer
from ledgerq.manager import CreatedJob
from tests.support.invariants import check_invariants
from tests.support.lab import Lab, Worker
from tests.support.waiting import eventually

pytestmark = [pytest.mark.processes, pytest.mark.timeout(300), pytest.mark.filterwarnings("ignore:Api key is used")]

MANY = 72
PLACES = ("harbour", "meadow", "quarry", "orchard", "lighthouse", "viaduct", "glacier", "vineyard")


def text(number: int) -> str:
    place = PLACES[number % len(PLACES)]
    return "\n\n".join(
        f"Report {number}, part {part}. The {place} number {number} was surveyed and found in order. " * 12 for part in range(4)
    )


@pytest.fixture
def points(lab: Lab, vector_server: VectorServer, collection_name: str) -> Iterator[QdrantClient]:
    lab.use_vectors(vector_server, collection_name)
    client = QdrantClient(url=vector_server.url, api_key=vector_server.api_key, check_compatibility=False)
    yield client
    client.close()


@pytest.fixture
def documents(lab: Lab) -> dict[str, UUID]:
    return lab.save_texts({f"note:{number}": text(number) for number in range(MANY)})


@pytest.fixture
def job(lab: Lab, documents: dict[str, UUID], points: QdrantClient) -> CreatedJob:
    """All of them in one job, in small runs, so that an accident hits some that wait, some at work and some that are done."""
    lab.jobs.save_queue("processing", QueueLimits(run_size=12, depth=2))
    return lab.jobs.create_processing_job(None, documents.values())


def in_the_middle(lab: Lab, job: CreatedJob) -> int:
    """Wait until some documents are done and most are not."""
    done = eventually(lambda: lab.jobs.get_job(job.id).completed, seconds=90, what="the first documents are indexed")
    assert done < MANY, "the accident came too late to prove anything"
    return done


def rescue(lab: Lab) -> None:
    """What a steward does while time passes: two sightings of an ended lease, and pushes of what RQ does not have."""
    for seconds in (21, 6, 11):
        lab.clock.advance(seconds)
        assert lab.steward.run_once().failures == {}


def assert_each_indexed_once(lab: Lab, job: CreatedJob, documents: dict[str, UUID], points: QdrantClient) -> None:
    done = lab.jobs.get_job(job.id)
    assert (done.status, done.completed, done.total) == (JobStatus.COMPLETED, MANY, MANY), lab.why(job.id)
    live = {record.document: record.live_generation for record in lab.store.live_generations(list(documents.values())).documents}
    assert len(live) == MANY
    found, _ = points.scroll(lab.settings.collection, limit=10_000, with_payload=["document", "generation", "position"])
    places = Counter((UUID(point.payload["document"]), point.payload["position"]) for point in found)
    assert set(places.values()) == {1}, "a chunk is there twice"
    assert {(UUID(point.payload["document"]), point.payload["generation"]) for point in found} == set(live.items()), "orphans or holes"
    manifests = sum(task.result["points"] for task in lab.jobs.iter_tasks(job.id))
    assert len(found) == manifests
    with psycopg.connect(lab.database.dsn) as connection:
        check_invariants(connection)


def test_documents_become_searchable(lab: Lab, points: QdrantClient) -> None:
    ids = lab.save_texts({"a": "The cat sat on the mat. " * 20, "b": "Postgres keeps rows in heap pages. " * 20})
    job = lab.jobs.create_processing_job(None, ids.values())
    lab.work()
    assert lab.jobs.get_job(job.id).status is JobStatus.COMPLETED, lab.why(job.id)
    details = lab.jobs.processing_details(job.id)
    assert (details.processed_count, details.chunk_count, set(details.document_ids)) == (2, 2, set(ids.values()))
    with assembly.searcher(lab.settings) as searcher:
        hits = searcher.search("where does Postgres keep rows", limit=2)
    assert hits[0].document_id == ids["b"]


def test_a_document_is_enqueued_once_while_it_waits(lab: Lab, points: QdrantClient) -> None:
    document = lab.save_texts({"a": "Some text. " * 20})["a"]
    first = lab.jobs.enqueue_document_processing(document)
    assert lab.jobs.enqueue_document_processing(document).id == first.id
    lab.work()
    assert lab.jobs.get_job_status(first.id) is JobStatus.COMPLETED
    again = lab.jobs.enqueue_document_processing(document)
    assert again.id != first.id
    lab.work()
    assert next(lab.jobs.iter_tasks(again.id)).result["unchanged"] is True


def test_kill_9_of_a_worker_in_the_middle(lab: Lab, job: CreatedJob, documents: dict[str, UUID], points: QdrantClient) -> None:
    worker = lab.start_worker()
    in_the_middle(lab, job)
    worker.kill_all()
    rescue(lab)
    lab.work(seconds=120)
    assert_each_indexed_once(lab, job, documents, points)


def test_kill_9_of_a_horse_in_the_middle(lab: Lab, job: CreatedJob, documents: dict[str, UUID], points: QdrantClient) -> None:
    """Its keeper and its parent see it die; the tasks it held are charged a crash and done again alone."""
    worker = lab.start_worker(burst=True)
    in_the_middle(lab, job)
    kill_a_horse(lab, worker)
    assert worker.wait(120) == 0, worker.said()
    rescue(lab)
    lab.work(seconds=120)
    assert_each_indexed_once(lab, job, documents, points)


def test_flushall_in_the_middle(lab: Lab, job: CreatedJob, documents: dict[str, UUID], points: QdrantClient) -> None:
    worker = lab.start_worker()
    in_the_middle(lab, job)
    lab.flush_redis()
    with lab.stewarding():
        assert lab.jobs.wait_for(job.id, "2m").status is JobStatus.COMPLETED, lab.why(job.id)
    worker.end()
    assert_each_indexed_once(lab, job, documents, points)


DYING_WORKER = """
import os
from rq import Worker


class DyingWorker(Worker):
    '''Dies between RQ's pop and the start of the second run that it takes.'''

    taken = 0

    def execute_job(self, *args, **kwargs):
        self.taken += 1
        if self.taken == 2:
            os.kill(os.getpid(), 9)
        return super().execute_job(*args, **kwargs)
"""


def test_a_worker_killed_between_pop_and_start(lab: Lab, job: CreatedJob, documents: dict[str, UUID], points: QdrantClient) -> None:
    (lab.directory / "dying.py").write_text(DYING_WORKER)
    worker = lab.start_worker(options=("-S", "json", "-c", "ledgerq.rq_settings", "-w", "dying.DyingWorker"))
    assert worker.wait(120) == -9
    assert 0 < lab.jobs.get_job(job.id).completed < MANY
    assert lab.redis.llen("rq:queue:processing:intermediate") == 1, "the id was taken and nobody has it"
    rescue(lab)
    lab.work(seconds=120)
    assert_each_indexed_once(lab, job, documents, points)


def kill_a_horse(lab: Lab, worker: Worker) -> None:
    """kill -9 of the process that works: the child of the worker, not the keeper below it."""
    import os
    import signal

    os.kill(eventually(worker.horses, what="a horse is at work")[0], signal.SIGKILL)
