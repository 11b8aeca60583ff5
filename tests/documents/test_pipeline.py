"""Documents to points: what is stored, what is reported, and what is spared."""

from __future__ import annotations

import itertools
import threading
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from uuid import UUID, uuid4

import pytest

from ledgerq.documents.chunk import ChunkerSettings
from ledgerq.documents.digest import manifest_digest
from ledgerq.documents.embed import Embedded
from ledgerq.documents.embed.offline import OfflineEmbedder
from ledgerq.documents.pipeline import process_documents
from ledgerq.documents.stages import Prepared, Stages
from ledgerq.documents.vectors import VectorDB
from ledgerq.documents.window import WindowSettings
from ledgerq.errors import ConfigurationError, LedgerUnavailable
from ledgerq.models import DocumentWork, Task
from ledgerq.outcomes import Cancelled, Completed, Failed, Retry, TaskError
from tests.documents.pdfs import encrypted, pdf
from tests.documents.world import World, make_world, text_of

ANIMALS = ["ants", "bees", "cats", "dogs", "eels", "frogs"]


def test_a_document_becomes_points_and_an_effect(world: World) -> None:
    document = world.ledger.save(text_of(ANIMALS), uri="animals.md")
    (outcome,) = world.process(document)
    assert isinstance(outcome, Completed)
    (effect,) = outcome.effects
    points = world.points(document)
    assert (effect.document, effect.revision, effect.points, effect.chunks) == (document, 1, 6, 6)
    assert len(points) == 6
    assert effect.digest == manifest_digest(points)
    (usage,) = effect.usage
    assert (usage.provider, usage.model, usage.cost, usage.saved_tokens) == ("offline", "wordllama-l2-supercat-256", 0.0, 0)
    assert outcome.result == {
        "uri": "animals.md",
        "content_type": "text/markdown",
        "chunks": 6,
        "points": 6,
        "embedded": 6,
        "reused": 0,
        "kept": 0,
        "tokens": usage.tokens,
    }
    assert usage.tokens > 60


def test_points_carry_what_a_hit_needs(world: World) -> None:
    source = uuid4()
    document = world.ledger.save(
        pdf(["Ants live here.", "Bees live there."], title="Insects"), uri="insects.pdf", tenant="t", source=source
    )
    world.process(document)
    generation = world.ledger.documents[document].live
    assert generation is not None
    query = world.stages.sparse.query("bees")
    found = world.vectors.search(dense=world.stages.embedder.embed(["bees"]).vectors[0], sparse=query, tenant="t", limit=5, source=source)
    best = found[0].payload
    assert (best.document, best.generation, best.tenant, best.source) == (document, generation.generation, "t", source)
    assert (best.uri, best.title, best.page) == ("insects.pdf", "Insects", 1)
    assert "Bees live there." in best.text


def test_the_payload_may_name_the_document(world: World) -> None:
    document = world.ledger.save("words", uri="a.txt")
    task = world.task(None, payload={"document": str(document)})
    (outcome,) = process_documents([task], world.context, world.pipeline)
    assert isinstance(outcome, Completed)


@pytest.mark.parametrize("payload", [None, {"document": 7}, {"document": "no uuid"}, ["x"], {}])
def test_a_task_without_a_document_fails_by_name(world: World, payload: object) -> None:
    (outcome,) = process_documents([world.task(None, payload=payload)], world.context, world.pipeline)
    assert isinstance(outcome, Failed)
    assert isinstance(outcome.error, TaskError)
    assert "names no document" in outcome.error.message


def test_what_the_ledger_says_of_a_document_is_answered(world: World) -> None:
    deleted, there = world.ledger.save("gone", uri="gone.txt"), world.ledger.save("words", uri="a.txt")
    world.ledger.delete(deleted)
    cancelled, unknown, indexed = world.process(deleted, uuid4(), there)
    assert isinstance(cancelled, Cancelled)
    assert isinstance(unknown, Failed)
    assert isinstance(unknown.error, TaskError)
    assert "does not exist" in unknown.error.message
    assert isinstance(indexed, Completed)


def test_unchanged_content_and_config_cost_nothing(world: World) -> None:
    document = world.ledger.save(text_of(ANIMALS), uri="a.md")
    world.process(document)
    before = world.points(document)
    (again,) = world.process(document)
    assert isinstance(again, Completed)
    assert again.effects == ()
    assert again.result == {"uri": "a.md", "unchanged": True, "chunks": 6, "points": 6, "embedded": 0, "reused": 0}
    assert world.points(document) == before


def test_another_ledger_of_the_same_collection_is_left_alone(world: World, collection: VectorDB, monkeypatch: pytest.MonkeyPatch) -> None:
    theirs = make_world(collection)
    monkeypatch.setattr("tests.documents.world._GENERATIONS", itertools.repeat(10**6))
    ours, other = world.ledger.save(text_of(ANIMALS), uri="a.md"), theirs.ledger.save(text_of(ANIMALS[:2]), uri="a.md")
    assert all(isinstance(outcome, Completed) for outcome in (*world.process(ours), *theirs.process(other)))
    assert (len(world.points(ours)), len(theirs.points(other))) == (6, 2)
    theirs.pipeline.close()


def test_points_that_somebody_dropped_are_made_again(world: World) -> None:
    lost, kept = (world.ledger.save(text_of(ANIMALS), uri=f"{name}.md") for name in ("lost", "kept"))
    world.process(lost, kept)
    world.vectors.delete_points(sorted(world.points(lost))[:1])
    again, same = world.process(lost, kept)
    assert isinstance(again, Completed)
    assert isinstance(same, Completed)
    assert isinstance(again.result, dict)
    assert (again.result["embedded"], again.result["reused"]) == (1, 5)
    assert same.effects == ()
    assert len(world.points(lost)) == 6


def test_a_dropped_collection_is_filled_again(collection: VectorDB) -> None:
    own = VectorDB(replace(collection.settings, collection=f"test_{uuid4().hex}"), embedder="wordllama-l2-supercat-256", dimensions=256)
    world = make_world(own)
    document = world.ledger.save(text_of(ANIMALS), uri="a.md")
    for _ in range(2):
        (outcome,) = world.process(document)
        assert isinstance(outcome, Completed)
        assert len(world.points(document)) == 6
        own._client.delete_collection(own.settings.collection)
    world.pipeline.close()


def test_changed_documents_are_not_counted_first(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    document = world.ledger.save("words", uri="a.txt")
    world.process(document)
    world.ledger.change(document, "other words")
    counted = list[object]()
    monkeypatch.setattr(VectorDB, "_count", lambda _self, chosen: counted.append(chosen) or 0)
    world.process(document)
    assert counted == []


def test_vectors_of_unchanged_chunks_are_copied(world: World) -> None:
    document = world.ledger.save(text_of(ANIMALS), uri="a.md")
    world.process(document)
    old = world.points(document)
    world.ledger.change(document, text_of([*ANIMALS[1:], "goats"]))
    (outcome,) = world.process(document)
    assert isinstance(outcome, Completed)
    assert isinstance(outcome.result, dict)
    assert (outcome.result["embedded"], outcome.result["reused"]) == (1, 5)
    (usage,) = outcome.effects[0].usage
    assert usage.saved_tokens > usage.tokens > 0
    new = world.points(document)
    assert len(new) == 6
    assert not new & old
    assert world.vectors.count(document=document) == 12  # the old ones are the sweeper's
    copied = world.vectors.vectors_by_hash(document, outcome.effects[0].generation, _hashes(world, document))
    embedded = world.stages.embedder.embed([text_of(["bees"]).strip()]).vectors[0]
    assert any(vector == pytest.approx(embedded, abs=1e-5) for vector in copied.values())


def test_another_config_is_another_generation_with_the_same_vectors_where_chunks_are_the_same(world: World, collection: VectorDB) -> None:
    document = world.ledger.save(text_of(ANIMALS), uri="a.md")
    world.process(document)
    other = make_world(collection, chunker=ChunkerSettings(max_tokens=40, overlap=0))
    other.ledger = world.ledger
    other.pipeline.ledger = world.ledger
    (outcome,) = other.process(document)
    assert isinstance(outcome, Completed)
    assert isinstance(outcome.result, dict)
    assert outcome.result["reused"] == 6
    other.pipeline.close()


@pytest.mark.parametrize("empty", [b"", b" \n ", b"<html><body></body></html>"])
def test_a_document_that_lost_its_text_loses_its_points(world: World, empty: bytes) -> None:
    document = world.ledger.save(text_of(ANIMALS), uri="a.md")
    world.process(document)
    world.ledger.change(document, empty)
    (outcome,) = world.process(document)
    assert isinstance(outcome, Completed)
    (effect,) = outcome.effects
    assert (effect.points, effect.digest) == (0, manifest_digest([]))
    assert world.searcher.search("ants", limit=5) == []


def test_a_bad_file_fails_alone_and_by_name(world: World) -> None:
    bad = {
        "locked.pdf": (encrypted(pdf(["x"]), password="p"), "is encrypted and needs a password"),
        "scan.pdf": (pdf([""]), "OCR is needed"),
        "book.docx": (b"PK\x03\x04\0\0", "Office document"),
        "empty.txt": (b"", "is empty"),
        "nothing.html": (b"<html></html>", "has no text"),
    }
    documents = [world.ledger.save(text_of([animal]), uri=f"{animal}.md") for animal in ANIMALS[:3]]
    broken = [world.ledger.save(data, uri=uri) for uri, (data, _) in bad.items()]
    outcomes = world.process(documents[0], *broken, *documents[1:])
    assert [type(outcome) for outcome in outcomes] == [Completed, *[Failed] * 5, Completed, Completed]
    for outcome, (uri, (_, why)) in zip(outcomes[1:6], bad.items(), strict=True):
        assert isinstance(outcome, Failed)
        assert isinstance(outcome.error, TaskError)
        assert outcome.error.message.startswith(f"{uri}: ")
        assert why in outcome.error.message
        assert outcome.error.digest
    assert len({outcome.error.digest for outcome in outcomes if isinstance(outcome, Failed) and isinstance(outcome.error, TaskError)}) == 5


def test_equal_failures_of_different_documents_have_one_digest(world: World) -> None:
    outcomes = world.process(*(world.ledger.save(b"", uri=f"{number}.txt") for number in range(2)))
    errors = [outcome.error for outcome in outcomes if isinstance(outcome, Failed)]
    assert len({error.digest for error in errors if isinstance(error, TaskError)}) == 1


def test_a_body_that_changed_behind_the_ledgers_back_is_refused(world: World) -> None:
    document = world.ledger.save("words", uri="a.txt")
    world.ledger.read_instead = lambda: b"other words"
    (outcome,) = world.process(document)
    assert isinstance(outcome, Failed)
    assert isinstance(outcome.error, TaskError)
    assert outcome.error.message == "a.txt: its content has changed since it was saved; save it again"


def test_a_file_that_vanished_fails_by_name(world: World, tmp_path: Path) -> None:
    document = world.ledger.save("words", uri="file:///gone.txt")
    world.ledger.read_instead = (tmp_path / "gone.txt").read_bytes
    (outcome,) = world.process(document)
    assert isinstance(outcome, Failed)
    assert isinstance(outcome.error, TaskError)
    assert outcome.error.message.startswith("file:///gone.txt: [Errno 2] No such file")


def test_the_second_try_embeds_only_what_is_not_there(world: World) -> None:
    document = world.ledger.save(text_of(ANIMALS), uri="a.md")
    (first,) = world.outcomes([document])  # stored, and then the worker dies before it is acknowledged
    assert isinstance(first, Completed)
    generation = first.effects[0].generation
    points = sorted(world.vectors.existing(document, generation))
    world.vectors.delete_points(points[:2])
    (second,) = world.process(document)
    assert isinstance(second, Completed)
    assert isinstance(second.result, dict)
    assert (second.result["embedded"], second.result["kept"]) == (2, 4)
    assert second.effects[0].digest == first.effects[0].digest
    assert world.points(document) == set(points)


def test_what_is_saved_is_counted_by_the_try_that_saved_it(world: World) -> None:
    document = world.ledger.save(text_of(ANIMALS), uri="a.md")
    world.process(document)
    world.ledger.change(document, text_of([*ANIMALS[1:], "goats"]))
    saved = list[int]()
    for _ in range(2):  # stored, and then the worker dies before it is acknowledged
        (outcome,) = world.outcomes([document])
        assert isinstance(outcome, Completed)
        saved += [usage.saved_tokens for usage in outcome.effects[0].usage]
    (first,) = saved
    assert first > 100


def test_no_more_tasks_are_taken_than_will_be_loaded_soon(collection: VectorDB, monkeypatch: pytest.MonkeyPatch) -> None:
    world = make_world(collection)
    documents = [world.ledger.save(f"words {number}", uri=f"{number}.txt") for number in range(40)]
    taken, waiting, prepare = list[UUID](), list[int](), Stages.prepare

    def tasks() -> Iterator[Task]:
        for document in documents:
            taken.append(document)
            yield world.task(document)

    def watched(stages: Stages, work: DocumentWork) -> Prepared:
        waiting.append(len(taken) - len(waiting))
        return prepare(stages, work)

    monkeypatch.setattr(Stages, "prepare", watched)
    assert len(list(process_documents(tasks(), world.context, world.pipeline))) == 40
    assert max(waiting) <= 6
    assert len(world.ledger.begun) < 30
    world.pipeline.close()


def test_points_that_no_chunk_has_do_not_stay_in_a_generation(world: World) -> None:
    document = world.ledger.save("words", uri="a.txt")
    (first,) = world.outcomes([document])
    assert isinstance(first, Completed)
    generation = first.effects[0].generation
    work = world.ledger.begin_documents([document], config_digest=world.stages.config_digest)[0]
    prepared = world.stages.prepare(work)
    stray = world.stages._point(prepared, 0, [0.1] * 256)
    world.vectors.add_documents([type(stray)(id=uuid4(), dense=stray.dense, sparse=stray.sparse, payload=stray.payload)])
    assert len(world.vectors.existing(document, generation)) == 2
    (second,) = world.process(document)
    assert isinstance(second, Completed)
    assert world.points(document) == set(prepared.ids)


def test_two_tasks_of_one_document_agree(world: World) -> None:
    document = world.ledger.save(text_of(ANIMALS), uri="a.md")
    one, other = world.process(document, document)
    assert isinstance(one, Completed)
    assert isinstance(other, Completed)
    assert one.effects[0].digest == other.effects[0].digest
    assert len(world.points(document)) == 6


def test_tenants_of_the_same_file_keep_apart(world: World) -> None:
    one, other = (world.ledger.save("the same words", uri="a.txt", tenant=tenant) for tenant in ("one", "other"))
    world.process(one, other)
    assert not world.points(one) & world.points(other)
    assert [hit.document_id for hit in world.searcher.search("words", tenant="one")] == [one]


def test_texts_that_had_no_room_in_the_ledgers_answer_are_asked_for_alone(world: World) -> None:
    world.ledger.room = 400
    documents = [world.ledger.save(text_of(ANIMALS[:3]), uri=f"{number}.md") for number in range(3)]
    assert all(isinstance(outcome, Completed) for outcome in world.process(*documents))
    assert sorted(map(len, world.ledger.begun)) == [1, 1, 3]


def test_a_ledger_that_is_away_is_waited_for_without_charge(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    def away(_self: object, _documents: Sequence[UUID], *, config_digest: str, wanting: object = None) -> None:
        raise LedgerUnavailable(f"no ledger for {config_digest[:4]} {wanting}")

    monkeypatch.setattr(type(world.ledger), "begin_documents", away)
    (outcome,) = world.process(world.ledger.save("x", uri="a.txt"))
    assert isinstance(outcome, Retry)
    assert outcome.throttled


def test_many_documents_come_out_complete_whatever_the_window(collection: VectorDB) -> None:
    for window in (WindowSettings(documents=1), WindowSettings(documents=5, tokens=40)):
        world = make_world(collection, window=window)
        documents = [world.ledger.save(text_of(ANIMALS[: 1 + number % 6]), uri=f"{number}.md") for number in range(24)]
        outcomes = world.process(*documents)
        assert all(isinstance(outcome, Completed) for outcome in outcomes)
        assert [len(world.points(document)) for document in documents] == [1 + number % 6 for number in range(24)]
        world.pipeline.close()


class Feed:
    """Hands out a task only while fewer than so many are unanswered, as a runner does; says "none" until then."""

    def __init__(self, tasks: Sequence[Task], most: int) -> None:
        self.tasks, self.most, self.unanswered, self.most_unanswered = list(tasks), most, 0, 0

    def __iter__(self) -> Iterator[Task]:
        return self

    def __next__(self) -> Task:
        if not self.tasks or self.unanswered >= self.most:
            raise StopIteration
        self.unanswered += 1
        self.most_unanswered = max(self.most_unanswered, self.unanswered)
        return self.tasks.pop(0)


@pytest.mark.parametrize("most", [1, 3, 100])
def test_it_takes_more_when_it_has_answered_some(world: World, most: int) -> None:
    documents = [world.ledger.save(f"words {number}", uri=f"{number}.txt") for number in range(40)]
    feed = Feed([world.task(document) for document in documents], most)
    answered = 0
    for outcome in process_documents(feed, world.context, world.pipeline):
        assert isinstance(outcome, Completed)
        feed.unanswered -= 1
        answered += 1
    assert answered == 40
    assert feed.most_unanswered <= min(most, world.pipeline.settings.documents)


def test_no_tasks_no_outcomes(world: World) -> None:
    assert list(process_documents([], world.context, world.pipeline)) == []


class Watched(OfflineEmbedder):
    """Counts calls, and how much text waits in memory at each."""

    max_batch_items = 4

    def __init__(self) -> None:
        super().__init__()
        self.sizes: list[int] = []

    def embed(self, texts: Sequence[str]) -> Embedded:
        self.sizes.append(len(texts))
        return super().embed(texts)


def test_requests_are_packed_across_documents(collection: VectorDB) -> None:
    embedder = Watched()
    world = make_world(collection, embedder=embedder)
    world.process(
        *(world.ledger.save(f"one chunk about {animal} {number}", uri=f"{animal}{number}.txt") for animal in ANIMALS for number in range(8))
    )
    assert sum(embedder.sizes) == 48
    assert len(embedder.sizes) < 40
    assert max(embedder.sizes) == 4
    world.pipeline.close()


def test_no_more_is_loaded_than_may_be_held(collection: VectorDB, monkeypatch: pytest.MonkeyPatch) -> None:
    """The first request waits until loading has run too far ahead, or has had a second for it."""
    overrun, loaded, prepare = threading.Event(), list[str](), Stages.prepare

    class Patient(Watched):
        def embed(self, texts: Sequence[str]) -> Embedded:
            overrun.wait(1 if not self.sizes else 0)
            return super().embed(texts)

    def watched(stages: Stages, work: DocumentWork) -> Prepared:
        loaded.append(work.uri)
        if len(loaded) > 4:
            overrun.set()
        return prepare(stages, work)

    world = make_world(collection, embedder=Patient(), window=WindowSettings(documents=16, tokens=100))
    documents = [world.ledger.save(text_of(ANIMALS), uri=f"{number}.md") for number in range(16)]
    monkeypatch.setattr(Stages, "prepare", watched)
    running = world.outcomes(documents)
    next(running)
    assert not overrun.is_set()
    assert len(list(running)) == 15
    world.pipeline.close()


def test_chunks_longer_than_the_embedder_takes_are_refused_at_once(collection: VectorDB) -> None:
    class Short(OfflineEmbedder):
        max_tokens = 100

    with pytest.raises(ConfigurationError, match="chunks of 512 tokens are too long"):
        make_world(collection, embedder=Short(), chunker=ChunkerSettings())


def _hashes(world: World, document: UUID) -> set[str]:
    work = world.ledger.begin_documents([document], config_digest=world.stages.config_digest)[0]
    return set(world.stages.prepare(work).hashes)
