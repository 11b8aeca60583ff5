"""Search: only what is live, whatever changes meanwhile."""

from __future__ import annotations

from uuid import UUID, uuid4

import pytest

from ledgerq.documents.search import Searcher
from ledgerq.documents.vectors import VectorDB
from ledgerq.errors import EmbedderUnavailable, InvalidInput
from ledgerq.outcomes import Completed
from tests.documents.pdfs import pdf
from tests.documents.world import World, make_world, text_of


@pytest.fixture
def tenant() -> str:
    return uuid4().hex


def save(world: World, tenant: str, *texts: str) -> list[UUID]:
    documents = [world.ledger.save(text, uri=f"{number}.md", tenant=tenant) for number, text in enumerate(texts)]
    world.process(*documents)
    return documents


def found(world: World, tenant: str, query: str, limit: int = 10) -> set[UUID]:
    return {hit.document_id for hit in world.searcher.search(query, tenant=tenant, limit=limit)}


def test_a_hit_says_where_and_shows_why(world: World, tenant: str) -> None:
    text = "# Insects\n\nAnts build hills.\n\n# Fish\n\nEels swim to the Sargasso sea."
    document = world.ledger.save(text, uri="animals.md", tenant=tenant)
    world.process(document)
    first, *_ = world.searcher.search("where do eels swim", tenant=tenant, limit=3)
    assert (first.uri, first.document_id, first.page) == ("animals.md", document, None)
    assert "Sargasso sea" in first.snippet
    assert first.score == 1.0
    assert first.chunk_id in world.points(document)


def test_a_hit_in_a_pdf_has_its_page(world: World, tenant: str) -> None:
    world.process(world.ledger.save(pdf(["Nothing here. " * 4, "Eels swim to the Sargasso sea. " * 3]), uri="a.pdf", tenant=tenant))
    assert world.searcher.search("eels", tenant=tenant, limit=1)[0].page == 2


def test_a_question_is_cleaned_as_documents_are(world: World, tenant: str) -> None:
    (cafe, *_) = save(world, tenant, "caf\u00e9 au lait", "onion soup")
    for query in ("cafe\u0301", "caf\u00e9\0", "\ufeffcaf\u200b\u00e9\r\n", "caf\u00e9 \ud800"):
        assert world.searcher.search(query, tenant=tenant)[0].document_id == cafe


def test_a_question_may_be_long_in_characters(world: World, tenant: str) -> None:
    (first, _) = save(world, tenant, "eels swim", "onion soup")
    assert world.searcher.search("eels swim " + "and " * 4_000, tenant=tenant)[0].document_id == first


def test_one_character_of_a_script_without_spaces_is_found(collection: VectorDB, tenant: str) -> None:
    world = make_world(collection)
    documents = save(world, tenant, "\u6771\u4eac\u90fd\u306f\u5927\u304d\u3044", "\u5927\u962a\u306e\u8a71")
    sparse = world.stages.sparse.query("\u4eac")
    (dense,) = world.stages.embedder.embed(["\u6771\u4eac\u90fd\u306f\u5927\u304d\u3044"]).vectors
    (best, *_) = world.vectors.search(dense=dense, sparse=sparse, tenant=tenant, limit=2)
    assert (best.payload.document, best.score) == (documents[0], 1.0), "first by words too"
    world.pipeline.close()


def test_the_best_comes_first_and_scores_fall(world: World, tenant: str) -> None:
    wings, _, soup = save(world, tenant, "The flutter of wings at high speed", "A wing is a thing", "Onion soup with bread")
    hits = world.searcher.search("flutter of wings", tenant=tenant)
    assert hits[0].document_id == wings
    assert hits[-1].document_id == soup
    assert [hit.score for hit in hits] == sorted((hit.score for hit in hits), reverse=True)
    assert all(0 < hit.score <= 1 for hit in hits)


def test_tenants_and_sources_keep_apart(world: World, tenant: str) -> None:
    source = uuid4()
    mine = world.ledger.save("eels", uri="a.txt", tenant=tenant, source=source)
    others = world.ledger.save("eels", uri="a.txt", tenant=tenant + "x", source=source)
    loose = world.ledger.save("eels", uri="b.txt", tenant=tenant)
    world.process(mine, others, loose)
    assert found(world, tenant, "eels") == {mine, loose}
    assert [hit.document_id for hit in world.searcher.search("eels", tenant=tenant, source=source)] == [mine]
    assert world.searcher.search("eels", tenant="nobody") == []


def test_what_is_stored_and_not_acknowledged_is_not_found(world: World, tenant: str) -> None:
    document = world.ledger.save("eels", uri="a.txt", tenant=tenant)
    (outcome,) = world.outcomes([document])
    assert found(world, tenant, "eels") == set()
    world.ledger.acknowledge(outcome)
    assert found(world, tenant, "eels") == {document}


def test_only_the_newest_text_is_found(world: World, tenant: str) -> None:
    (document,) = save(world, tenant, text_of(["eels", "ants"]))
    world.ledger.change(document, text_of(["ants", "cats"]))
    (outcome,) = world.outcomes([document])
    before = world.searcher.search("eels ants cats", tenant=tenant)
    assert {hit.snippet.split()[1] for hit in before} == {"eels", "ants"}
    world.ledger.acknowledge(outcome)
    after = world.searcher.search("eels ants cats", tenant=tenant)
    assert {hit.snippet.split()[1] for hit in after} == {"ants", "cats"}
    assert len(after) == 2


def test_a_deleted_document_is_gone_at_once(world: World, tenant: str) -> None:
    one, other = save(world, tenant, "eels swim", "eels eat")
    world.ledger.delete(one)
    assert found(world, tenant, "eels") == {other}


def test_a_flip_within_a_search_shows_the_old_text_whole(world: World, tenant: str) -> None:
    (document,) = save(world, tenant, text_of(["eels", "ants"]))
    world.ledger.change(document, text_of(["eels", "cats"]))
    (outcome,) = world.outcomes([document])
    flips = [outcome]
    world.ledger.before_answer = lambda: world.ledger.acknowledge(flips.pop()) if flips else None
    hits = world.searcher.search("eels ants cats", tenant=tenant)
    assert {hit.snippet.split()[1] for hit in hits} == {"eels", "ants"}


def test_two_flips_within_a_search_make_it_look_again(world: World, tenant: str) -> None:
    (document,) = save(world, tenant, text_of(["eels", "ants"]))
    outcomes = []
    for words in (["eels", "cats"], ["eels", "dogs"]):
        world.ledger.change(document, text_of(words))
        outcomes += list(world.outcomes([document]))
    rounds: list[int] = []

    def flip_both_once() -> None:
        rounds.append(1)
        while outcomes:
            outcome = outcomes.pop(0)
            assert isinstance(outcome, Completed)
            found = world.ledger.documents[document]
            found.revision = outcome.effects[0].revision
            world.ledger.acknowledge(outcome)

    world.ledger.before_answer = flip_both_once
    hits = world.searcher.search("eels ants cats dogs", tenant=tenant)
    assert {hit.snippet.split()[1] for hit in hits} == {"eels", "dogs"}
    assert len(rounds) == 2


def test_a_document_that_never_rests_does_not_hold_a_search_for_ever(world: World, tenant: str) -> None:
    (document,) = save(world, tenant, "eels")
    rounds: list[int] = []

    def change_twice() -> None:
        rounds.append(1)
        for _ in range(2):
            world.ledger.change(document, f"eels {len(rounds)}")
            for outcome in world.outcomes([document]):
                world.ledger.acknowledge(outcome)

    world.ledger.before_answer = change_twice
    world.searcher.search("eels", tenant=tenant)
    assert len(rounds) <= 6


def test_many_points_that_are_not_live_do_not_hide_those_that_are(world: World, tenant: str) -> None:
    """The old points of a document that was long, and all its present ones, are better than the one to be found."""
    (long,) = save(world, tenant, text_of([f"eels {number}" for number in range(60)]))
    (other,) = save(world, tenant, "eels, and other things")
    world.ledger.change(long, "ants")
    world.process(long)
    assert other in found(world, tenant, "eels", limit=2)


@pytest.mark.parametrize(("query", "limit"), [("", 5), ("  \n", 5), ("\u200b\0", 5), ("x y " * 8_000, 5), ("x", 0), ("x", 201)])
def test_a_question_out_of_range_is_refused(world: World, query: str, limit: int) -> None:
    with pytest.raises(InvalidInput):
        world.searcher.search(query, limit=limit)


def test_an_embedder_that_is_away_is_said_to_be(world: World, collection: VectorDB, monkeypatch: pytest.MonkeyPatch) -> None:
    def away(_texts: object) -> None:
        raise EmbedderUnavailable("away")

    monkeypatch.setattr(world.stages.embedder, "embed", away)
    with pytest.raises(EmbedderUnavailable):
        Searcher(collection, world.ledger, world.stages.embedder).search("x")


def test_before_anything_was_stored(vector_world: World) -> None:
    assert vector_world.searcher.search("anything") == []


@pytest.fixture
def vector_world(collection: VectorDB) -> World:
    settings = type(collection.settings)(url=collection.settings.url, api_key=collection.settings.api_key, collection="never_made")
    return make_world(VectorDB(settings, embedder="wordllama-l2-supercat-256", dimensions=256))
