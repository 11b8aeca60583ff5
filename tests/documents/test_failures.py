"""Trouble while documents are processed: exactly those it touches wait or fail, and nothing is lost or charged twice."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from uuid import UUID

import pytest

from ledgerq.documents.chunk import ChunkerSettings
from ledgerq.documents.embed import Embedded, Embedder
from ledgerq.documents.embed.offline import OfflineEmbedder
from ledgerq.documents.embed.openai import OpenAIEmbedder, OpenAISettings
from ledgerq.documents.load import Loader, LoadLimits
from ledgerq.documents.pipeline import process_documents
from ledgerq.documents.stages import Plan, Prepared, Stages
from ledgerq.documents.vectors import Point, VectorDB, VectorSettings
from ledgerq.errors import EmbedderUnavailable, InvalidInput, VectorsUnavailable
from ledgerq.models import DocumentWork
from ledgerq.outcomes import Cancelled, Completed, Failed, Outcome, Retry, TaskError
from tests.documents.world import World, make_world, text_of, with_vectors
from tests.support.openai_server import KEY, NO_QUOTA, RATE_LIMITED, Fault, OpenAIServer, openai_server

SMALL = ChunkerSettings(max_tokens=32, overlap=0)


class Picky(OfflineEmbedder):
    """Refuses, or cannot be reached for, requests with a certain word in them."""

    def __init__(self, error: Exception, word: str = "poison") -> None:
        super().__init__()
        self.error, self.word, self.requests = error, word, list[list[str]]()

    def embed(self, texts: Sequence[str]) -> Embedded:
        self.requests.append(list(texts))
        if any(self.word in text for text in texts):
            raise self.error
        return super().embed(texts)


def world_with(collection: VectorDB, embedder: Embedder) -> World:
    return make_world(collection, embedder=embedder)


def message_of(outcome: Outcome) -> str:
    assert isinstance(outcome, Failed | Retry)
    assert isinstance(outcome.error, TaskError)
    return outcome.error.message


# --- the embedder


@pytest.mark.parametrize(("retry_after", "least", "most"), [(40.0, 40.0, 40.0), (None, 5.0, 10.0)])
def test_a_provider_that_is_away_costs_no_attempt(collection: VectorDB, retry_after: float | None, least: float, most: float) -> None:
    world = world_with(collection, Picky(EmbedderUnavailable("away", retry_after=retry_after)))
    (outcome,) = world.process(world.ledger.save("poison", uri="a.txt"))
    assert isinstance(outcome, Retry)
    assert (outcome.throttled, outcome.reason) == (True, "EmbedderUnavailable")
    assert outcome.after_s is not None
    assert least <= outcome.after_s <= most
    assert message_of(outcome) == "a.txt: away"
    world.pipeline.close()


def test_documents_that_need_no_provider_do_not_notice(collection: VectorDB) -> None:
    world = world_with(collection, OfflineEmbedder())
    same, moved = world.ledger.save(text_of(["ants"]), uri="same.md"), world.ledger.save(text_of(["bees", "cats"]), uri="moved.md")
    world.process(same, moved)
    world.ledger.change(moved, text_of(["cats", "bees"]))
    new, bad = world.ledger.save("new poison", uri="new.txt"), world.ledger.save(b"", uri="bad.txt")
    world.pipeline.close()
    away = make_world(collection, embedder=Picky(EmbedderUnavailable("away"), word=""))
    away.ledger = world.ledger
    away.pipeline.ledger = world.ledger
    object.__setattr__(away.stages, "blobs", world.ledger)
    outcomes = away.process(same, moved, new, bad)
    assert [type(outcome) for outcome in outcomes] == [Completed, Completed, Retry, Failed]
    away.pipeline.close()


def test_a_text_that_is_refused_fails_its_document_alone(collection: VectorDB, monkeypatch: pytest.MonkeyPatch) -> None:
    class Held(Picky):
        """The first request waits until the others' chunks have had time to gather for one."""

        def embed(self, texts: Sequence[str]) -> Embedded:
            if not self.requests:
                loaded_all.wait(10)
            return super().embed(texts)

    loaded_all, loads, prepare = threading.Event(), list[str](), Stages.prepare

    def counted(stages: Stages, work: DocumentWork) -> Prepared:
        loads.append(work.uri)
        if len(loads) == 5:
            loaded_all.set()
        return prepare(stages, work)

    monkeypatch.setattr(Stages, "prepare", counted)
    embedder = Held(InvalidInput("not acceptable"))
    world = world_with(collection, embedder)
    names = ["one", "two", "three poison", "four", "five"]
    outcomes = world.process(*(world.ledger.save(f"{name} words", uri=f"{name}.txt") for name in names))
    assert [type(outcome) for outcome in outcomes] == [Completed, Completed, Failed, Completed, Completed]
    assert message_of(outcomes[2]) == "three poison.txt: not acceptable"
    assert any(len(request) > 1 and any("poison" in text for text in request) for request in embedder.requests)
    world.pipeline.close()


# --- OpenAI, as a stand-in


@pytest.fixture
def server() -> Iterator[OpenAIServer]:
    with openai_server() as running:
        yield running


@pytest.fixture(scope="module")
def openai_collection(collection: VectorDB) -> Iterator[VectorDB]:
    settings = VectorSettings(
        url=collection.settings.url, api_key=collection.settings.api_key, collection=f"{collection.settings.collection}_o"
    )
    made = VectorDB(settings, embedder="text-embedding-3-small-64", dimensions=64)
    yield made
    made.ensure_collection()
    made._client.delete_collection(settings.collection)
    made.close()


@pytest.fixture
def openai_world(server: OpenAIServer, openai_collection: VectorDB) -> Iterator[World]:
    settings = OpenAISettings(sleep=lambda _: None, attempts=2)
    embedder = OpenAIEmbedder("text-embedding-3-small", api_key=KEY, base_url=server.base_url, dimensions=64, settings=settings)
    made = make_world(openai_collection, embedder=embedder)
    yield made
    made.pipeline.close()


def test_with_openai_costs_are_noted_and_found_again(openai_world: World, server: OpenAIServer) -> None:
    documents = [openai_world.ledger.save(text_of(["ants", "bees"]), uri="a.md"), openai_world.ledger.save("eels swim", uri="b.txt")]
    first, second = openai_world.process(*documents)
    assert isinstance(first, Completed)
    assert isinstance(second, Completed)
    usage = [outcome.effects[0].usage[0] for outcome in (first, second)]
    billed = sum(one.tokens for one in usage)
    assert {one.provider for one in usage} == {"openai"}
    assert usage[0].tokens > usage[1].tokens > 0
    assert sum(one.cost for one in usage) == pytest.approx(billed * 0.02 / 1e6)
    assert len(server.texts) == 3
    assert [hit.uri for hit in openai_world.searcher.search("eels swim", limit=1)] == ["b.txt"]


class OpensWhenFull(threading.Event):
    """Holds requests until so many are there at once; or for a while, if they never are."""

    def __init__(self, size: int) -> None:
        super().__init__()
        self._arrivals = threading.Semaphore(size - 1)

    def wait(self, timeout: float | None = None) -> bool:
        if not self._arrivals.acquire(blocking=False):
            self.set()
        return super().wait(timeout and min(timeout, 10))


def test_calls_run_beside_each_other_up_to_a_bound(openai_world: World, server: OpenAIServer) -> None:
    server.gate = OpensWhenFull(4)
    embedder = openai_world.stages.embedder
    assert isinstance(embedder, OpenAIEmbedder)
    embedder.max_batch_items = 64
    documents = [openai_world.ledger.save(text_of([f"a{number}" for number in range(200)]), uri=f"{number}.md") for number in range(3)]
    assert all(isinstance(outcome, Completed) for outcome in openai_world.process(*documents))
    assert server.most_busy == 4
    assert all(len(request["input"]) <= 64 for request in server.requests)


def test_a_rate_limit_gives_back_exactly_the_affected(openai_world: World, server: OpenAIServer) -> None:
    server.judge = lambda texts: (
        Fault(429, "rate_limit_exceeded", headers={"retry-after": "33"}) if any("new" in text for text in texts) else None
    )
    (outcome,) = openai_world.process(openai_world.ledger.save("new words", uri="new.txt"))
    assert isinstance(outcome, Retry)
    assert (outcome.throttled, outcome.after_s) == (True, 33.0)
    (fine,) = openai_world.process(openai_world.ledger.save("old words", uri="old.txt"))
    assert isinstance(fine, Completed)


def test_always_429_ends_and_says_so(openai_world: World, server: OpenAIServer) -> None:
    server.judge = lambda _: RATE_LIMITED
    outcomes = openai_world.process(*(openai_world.ledger.save(f"words {number}", uri=f"{number}.txt") for number in range(20)))
    assert all(isinstance(outcome, Retry) and outcome.throttled for outcome in outcomes)
    assert len(server.requests) < 30


def test_no_quota_fails_for_good(openai_world: World, server: OpenAIServer) -> None:
    server.judge = lambda _: NO_QUOTA
    (outcome,) = openai_world.process(openai_world.ledger.save("words", uri="a.txt"))
    assert isinstance(outcome, Failed)
    assert "exceeded your current quota" in message_of(outcome)


# --- the vector store


class Flaky(VectorDB):
    """Fails to store points of certain documents."""

    def __init__(self, like: VectorDB, uri: str) -> None:
        super().__init__(like.settings, embedder="wordllama-l2-supercat-256", dimensions=256)
        self.uri = uri

    def add_documents(self, points: Sequence[Point]) -> int:
        if any(self.uri in point.payload.uri for point in points):
            raise VectorsUnavailable("full", retry_after=12.0)
        return super().add_documents(points)


def test_points_that_cannot_be_stored_are_tried_again_and_the_money_is_noted(collection: VectorDB) -> None:
    world = make_world(Flaky(collection, "bad"))
    (outcome,) = world.process(world.ledger.save("words", uri="bad.txt"))
    assert isinstance(outcome, Retry)
    assert (outcome.throttled, outcome.after_s) == (True, 12.0)
    ((task, usage),) = world.context.spent
    assert task == outcome.task
    assert usage.tokens > 0
    better = with_vectors(world, collection)
    (again,) = better.process(*world.ledger.documents)
    assert isinstance(again, Completed)
    world.pipeline.close()


def test_a_store_that_is_away_keeps_everything_waiting(collection: VectorDB) -> None:
    away = VectorDB(VectorSettings(url="http://127.0.0.1:9"), embedder="wordllama-l2-supercat-256", dimensions=256)
    world = make_world(away)
    outcomes = world.process(*(world.ledger.save("words", uri=f"{number}.txt") for number in range(3)))
    assert all(isinstance(outcome, Retry) and outcome.throttled for outcome in outcomes)
    assert "Qdrant did not answer" in message_of(outcomes[0])
    world.pipeline.close()


# --- the parser


def test_a_document_that_takes_too_long_fails_alone(collection: VectorDB, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ledgerq.documents.load.sandbox._WORKED", 0.0)  # whatever else the machine does
    world = make_world(collection, loader=Loader(LoadLimits(seconds=0.5)))
    page = "<html><body>" + "<p>many words in many nodes</p>" * 240_000
    slow, fine = world.process(world.ledger.save(page, uri="slow.html"), world.ledger.save("words", uri="fine.txt"))
    assert isinstance(slow, Failed)
    assert message_of(slow) == "slow.html: took longer than 0.5 s to be parsed"
    assert isinstance(fine, Completed)
    world.pipeline.close()


# --- cancelling


def test_a_cancelled_task_stops_at_the_next_request(collection: VectorDB) -> None:
    class Cancelling(OfflineEmbedder):
        max_batch_items = 2
        requests = 0

        def embed(self, texts: Sequence[str]) -> Embedded:
            self.requests += 1
            world.context.cancelled.add(task.id)
            return super().embed(texts)

    embedder = Cancelling()
    world = make_world(collection, embedder=embedder)
    document = world.ledger.save(text_of([f"a{number}" for number in range(40)]), uri="a.md")
    task = world.task(document)
    (outcome,) = process_documents([task], world.context, world.pipeline)
    assert outcome == Cancelled(task=task.id)
    assert embedder.requests <= 2
    assert world.context.spent[0][0] == task.id
    assert world.searcher.search("a1") == []
    world.pipeline.close()


def test_a_task_cancelled_before_it_began_costs_nothing(world: World) -> None:
    document, other = world.ledger.save("words", uri="a.txt"), world.ledger.save("words", uri="b.txt")
    tasks = [world.task(document), world.task(other)]
    world.context.cancelled.add(tasks[0].id)
    outcomes = {outcome.task: outcome for outcome in process_documents(tasks, world.context, world.pipeline)}
    assert isinstance(outcomes[tasks[0].id], Cancelled)
    assert isinstance(outcomes[tasks[1].id], Completed)
    assert world.context.spent == []


def test_an_abandoned_call_leaves_the_pipeline_usable(world: World) -> None:
    documents = [world.ledger.save(text_of([f"a{number}"]), uri=f"{number}.md") for number in range(10)]
    running = world.outcomes(documents)
    next(running)
    running.close()  # pyright: ignore[reportAttributeAccessIssue]
    assert all(isinstance(outcome, Completed) for outcome in world.process(*documents))


def test_the_same_error_reaches_every_task_of_its_request(collection: VectorDB) -> None:
    world = world_with(collection, Picky(InvalidInput("no"), word="words"))
    documents: list[UUID] = [world.ledger.save(f"words {number}", uri=f"{number}.txt") for number in range(8)]
    outcomes = world.process(*documents)
    assert [message_of(outcome) for outcome in outcomes] == [f"{number}.txt: no" for number in range(8)]
    world.pipeline.close()


@pytest.mark.parametrize(("retry_after", "least", "most"), [(None, 30, 60), (20.0, 20, 40)])
def test_nothing_more_is_loaded_while_the_embedder_is_away(
    collection: VectorDB, monkeypatch: pytest.MonkeyPatch, retry_after: float | None, least: float, most: float
) -> None:
    loaded, prepare = list[str](), Stages.prepare
    monkeypatch.setattr(Stages, "prepare", lambda stages, work: loaded.append(work.uri) or prepare(stages, work))
    world = world_with(collection, Picky(EmbedderUnavailable("away", retry_after=retry_after), word="words"))
    outcomes = world.process(*(world.ledger.save(f"words {number}", uri=f"{number}.txt") for number in range(60)))
    assert all(isinstance(outcome, Retry) and outcome.throttled and message_of(outcome).endswith("away") for outcome in outcomes)
    assert len(loaded) < 30
    behind = outcomes[-1]
    assert isinstance(behind, Retry)
    assert behind.after_s is not None
    assert least <= behind.after_s <= most
    assert len(world.ledger.begun) < 20
    world.pipeline.close()


def test_a_refused_request_is_divided_without_more_calls_at_once(collection: VectorDB) -> None:
    class Counting(Picky):
        busy, most_busy, gathered = 0, 0, threading.Semaphore(0)

        def embed(self, texts: Sequence[str]) -> Embedded:
            self.busy += 1
            self.most_busy = max(self.most_busy, self.busy)
            try:
                if not self.requests:
                    for _ in range(4):
                        self.gathered.acquire(timeout=10)
                return super().embed(texts)
            finally:
                self.busy -= 1

    embedder = Counting(InvalidInput("not acceptable"), word="words")
    world = world_with(collection, embedder)
    plan = Stages.plan

    def planned(stages: Stages, prepared: Prepared, existing: set[UUID]) -> Plan:
        embedder.gathered.release()
        return plan(stages, prepared, existing)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Stages, "plan", planned)
        outcomes = world.process(*(world.ledger.save(f"words {number}", uri=f"{number}.txt") for number in range(4)))
    assert all(isinstance(outcome, Failed) for outcome in outcomes)
    assert embedder.most_busy == embedder.concurrency == 1
    assert max(map(len, embedder.requests)) > 1
    world.pipeline.close()
