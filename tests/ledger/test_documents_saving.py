"""Saving, listing and deleting documents."""

from __future__ import annotations

import threading
from typing import Any
from uuid import uuid4

import psycopg
import pytest

from ledgerq.ids import new_id
from tests.support.databases import Database
from tests.support.sql import Sql, begin, connected, document, hash_of, job, save, saved, working_on


@pytest.fixture
def sql(database: Database) -> Any:
    with connected(database.service_dsn) as connection:
        yield connection


def source(sql: Sql, **fields: Any) -> str:
    return sql.call("save_source", **({"id": str(new_id()), "kind": "folder"} | fields))["source"]


def test_identity_is_tenant_source_and_uri(sql: Sql) -> None:
    first = saved(sql)
    assert saved(sql) == first
    assert len({first, saved(sql, tenant="t"), saved(sql, source=source(sql)), saved(sql, uri="b.md")}) == 4


def test_only_new_content_is_a_new_revision(sql: Sql) -> None:
    given = [document("one", title="First"), document("one", title="Renamed"), document("two"), document("two")]
    answers = [save(sql, each)[0] for each in given]
    assert [(each["disposition"], each["revision"]) for each in answers] == [
        ("created", 1),
        ("unchanged", 1),
        ("changed", 2),
        ("unchanged", 2),
    ]
    assert {each["id"] for each in answers} == {given[0]["id"]}


def test_what_describes_a_document_follows_without_a_revision(sql: Sql) -> None:
    known = saved(sql)
    moved = {"body": {"kind": "file", "path": "/new/place"}, "title": "Title", "metadata": {"page": 1}}
    assert save(sql, document() | moved)[0]["disposition"] == "unchanged"
    found = sql.call("document_get", document=known)
    assert {key: found[key] for key in moved} == moved
    assert found["revision"] == 1


def test_lost_reply_is_answered_again(sql: Sql) -> None:
    """A caller who enqueues what was created or changed must hear so again when the transport repeats the call."""
    created, changed = document("one"), document("two")
    first = [save(sql, created), save(sql, created)]
    second = [save(sql, changed), save(sql, changed)]
    assert first[0] == first[1]
    assert [each["disposition"] for each in first[1]] == ["created"]
    assert second[0] == second[1]
    assert [(each["disposition"], each["revision"]) for each in second[1]] == [("changed", 2)]


def test_the_same_bytes_declared_as_something_else_are_a_new_revision(sql: Sql) -> None:
    save(sql, document())
    for declared, expected in (("text/html", ("changed", 2)), ("text/html", ("unchanged", 2)), (None, ("changed", 3))):
        (answer,) = save(sql, document(content_type=declared))
        assert (answer["disposition"], answer["revision"]) == expected


def test_late_repeat_of_a_save_does_not_raise_the_dead(sql: Sql) -> None:
    given = document()
    save(sql, given)
    sql.call("delete_documents", documents=[given["id"]], actor="test")
    assert save(sql, given)[0]["disposition"] == "created"
    assert sql.call("document_get", document=given["id"])["status"] == "deleted"


def test_answers_are_in_the_order_given(sql: Sql) -> None:
    given = [document(f"text {n}", f"{n % 7}.md") for n in range(20, 0, -1)]
    assert [each["uri"] for each in save(sql, *given)] == [each["uri"] for each in given]


def test_same_uri_twice_in_one_call_is_saved_one_after_the_other(sql: Sql) -> None:
    answers = save(sql, document("one"), document("two"), document("two"))
    assert [(each["disposition"], each["revision"]) for each in answers] == [("created", 1), ("changed", 2), ("unchanged", 2)]


def test_long_uris_with_anything_in_them(sql: Sql) -> None:
    uris = ["ü" * 4_000, "ü" * 3_999 + "v", "\\x41", "back\\slash\\\\", "it's %s"]
    assert [each["disposition"] for each in save(sql, *(document(uri=uri) for uri in uris))] == ["created"] * 5
    assert [each["disposition"] for each in save(sql, *(document(uri=uri) for uri in uris))] == ["unchanged"] * 5


@pytest.mark.parametrize(
    ("wrong", "named"),
    [
        ({"id": "no-uuid"}, r"documents\[1\].id: 'no-uuid'"),
        ({"uri": ""}, r"documents\[1\].uri"),
        ({"uri": "u" * 4_001}, r"documents\[1\].uri"),
        ({"uri": 7}, r"documents\[1\].uri: '7'"),
        ({"content_hash": "ABC"}, r"documents\[1\].content_hash: 'ABC'"),
        ({"content_hash": None}, r"documents\[1\].content_hash: nothing"),
        ({"byte_size": -1}, r"documents\[1\].byte_size: '-1'"),
        ({"metadata": [1]}, r"documents\[1\].metadata"),
        ({"title": 1}, r"documents\[1\].title"),
        ({"body": {"kind": "inline"}}, r"documents\[1\].body"),
        ({"body": {"kind": "storage", "path": "p"}}, r"documents\[1\].body"),
        ({"body": {"kind": "ftp", "path": "p"}}, r"documents\[1\].body"),
        ({"body": None}, r"documents\[1\].body"),
    ],
)
def test_bad_input_names_document_field_and_value_and_saves_nothing(sql: Sql, wrong: dict[str, Any], named: str) -> None:
    with pytest.raises(psycopg.Error, match=named) as caught:
        save(sql, document(uri="good.md"), document() | wrong)
    assert caught.value.sqlstate == "LQ001"
    assert sql.value("select count(*) from ledgerq.document") == 0


@pytest.mark.parametrize("given", [None, {}, "x", [1], [None]])
def test_documents_that_are_no_documents(sql: Sql, given: Any) -> None:
    with pytest.raises(psycopg.Error, match="documents") as caught:
        sql.call("save_documents", documents=given)
    assert caught.value.sqlstate == "LQ001"


def test_sizes(sql: Sql) -> None:
    assert saved(sql, "x" * 1_048_576)
    for too_large, named in [
        ([document("ü" * 524_289)], r"documents\[0\].body.text: 1048578 bytes"),
        ([document(metadata={"a": "x" * 70_000})], r"documents\[0\].metadata"),
        ([document(uri=str(n)) for n in range(501)], "documents: 501"),
        ([document("x" * 1_000_000, uri=str(n)) for n in range(34)], "documents: 34"),
    ]:
        with pytest.raises(psycopg.Error, match=named) as caught:
            save(sql, *too_large)
        assert caught.value.sqlstate == "LQ002"


def test_source_must_be_the_tenants_own(sql: Sql) -> None:
    foreign = source(sql, tenant="other")
    for wrong in (foreign, str(uuid4())):
        with pytest.raises(psycopg.Error, match=wrong) as caught:
            saved(sql, source=wrong, tenant="mine")
        assert caught.value.sqlstate == "LQ005"


def test_id_of_another_document_is_refused(sql: Sql) -> None:
    taken = saved(sql)
    with pytest.raises(psycopg.Error, match=taken) as caught:
        save(sql, document(uri="b.md", id=taken))
    assert caught.value.sqlstate == "LQ001"


def test_many_savers_of_the_same_documents_agree(database: Database) -> None:
    """Every save of a batch in its own order: one row a uri, one id for all, no error and no deadlock."""
    ids: list[dict[str, str]] = []

    def save_all(turn: int) -> None:
        given = [document(f"text {n}", f"{n}.md") for n in range(40)]
        with connected(database.service_dsn) as sql:
            answers = save(sql, *(given[turn:] + given[:turn]))
        ids.append({each["uri"]: each["id"] for each in answers})

    threads = [threading.Thread(target=save_all, args=(7 * turn,)) for turn in range(5)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert len(ids) == 5
    assert all(each == ids[0] for each in ids)
    with connected(database.service_dsn) as sql:
        assert sql.value("select count(*) from ledgerq.document where revision = 1") == 40


def test_source_is_saved_changed_and_repeated(sql: Sql) -> None:
    given = {"id": str(new_id()), "kind": "site", "uri": "https://example.org", "details": {"depth": 2}}
    answers = [
        sql.call("save_source", **given),
        sql.call("save_source", **given),
        sql.call("save_source", **(given | {"uri": "https://b.org"})),
    ]
    assert [each["disposition"] for each in answers] == ["created", "unchanged", "changed"]
    found = sql.call("source_get", source=given["id"])
    assert (found["uri"], found["details"], found["status"], found["documents"]) == ("https://b.org", {"depth": 2}, "pending", 0)
    with pytest.raises(psycopg.Error, match=given["id"]):
        sql.call("save_source", **(given | {"tenant": "other"}))
    assert sql.call("source_get", source=str(uuid4())) is None


def test_source_status_follows_its_jobs(sql: Sql) -> None:
    of = source(sql)
    one = saved(sql, source=of)
    job(sql, source=of, type="crawl", external=True)
    assert sql.call("source_get", source=of)["status"] == "crawling"
    run = working_on(sql, one, source=of)
    assert sql.call("source_get", source=of)["status"] == "processing"
    run.complete(begin(sql, one))
    assert sql.call("source_get", source=of)["status"] == "crawling"
    sql.run("delete from ledgerq.job where external")
    assert sql.call("source_get", source=of)["status"] == "completed"


def test_missing_are_unknown_deleted_and_foreign(sql: Sql) -> None:
    here, gone, foreign, unknown = saved(sql), saved(sql, uri="b.md"), saved(sql, tenant="other"), str(uuid4())
    sql.call("delete_documents", documents=[gone], actor="test")
    assert sql.call("missing_documents", documents=[here, gone, foreign, unknown])["missing"] == sorted([gone, unknown])
    assert sql.call("missing_documents", documents=[here, foreign], tenant="")["missing"] == [foreign]
    with pytest.raises(psycopg.Error) as caught:
        sql.call("missing_documents", documents=[str(uuid4()) for _ in range(5_001)])
    assert caught.value.sqlstate == "LQ002"


def test_list_pages_by_id_and_filters(sql: Sql) -> None:
    of, mine = source(sql), str(uuid4())
    in_source = {saved(sql, uri=f"{n}.md", source=of) for n in range(5)}
    owned = {saved(sql, uri=f"{n}.md", tenant="t", owner=mine) for n in range(3)}
    assert set(pages(sql, source=of)) == in_source
    assert set(pages(sql, tenant="t")) == owned
    assert set(pages(sql, owner=mine)) == owned
    everything = pages(sql)
    assert everything == sorted(everything)
    assert set(everything) == in_source | owned


def pages(sql: Sql, **filters: Any) -> list[str]:
    found: list[str] = []
    after = None
    while True:
        page = sql.call("document_list", limit=2, after=after, **filters)
        found += [each["id"] for each in page["documents"]]
        after = page["next"]
        if after is None:
            return found


def test_deleted_text_is_gone_at_once_and_the_row_stays(sql: Sql) -> None:
    one, unknown = saved(sql, "secret"), str(uuid4())
    for actor in ("ann", "ben"):
        answer = sql.call("delete_documents", documents=[one, unknown], actor=actor)["documents"]
        assert {each["id"]: each["disposition"] for each in answer} == {one: "applied", unknown: "not_found"}
    assert sql.rows("select deleted_by from ledgerq.document") == [("ann",)]
    found = sql.call("document_get", document=one)
    assert (found["status"], found["body"]) == ("deleted", {"kind": "inline"})
    assert "secret" not in str(sql.rows("select * from ledgerq.document"))


def test_status_of_a_document_through_its_life(sql: Sql) -> None:
    one = saved(sql)

    def status() -> tuple[str, Any]:
        found = sql.call("document_get", document=one)
        listed = sql.call("document_list")["documents"][0]
        assert (found["status"], found["error"]) == (listed["status"], listed["error"])
        return found["status"], found["error"]

    assert status() == ("pending", None)
    run = working_on(sql, one)
    assert status() == ("processing", None)
    run.advance({"task": run.tasks[0]["id"], "kind": "failed", "error": {"type": "DocumentError", "message": "encrypted"}})
    assert status() == ("failed", {"type": "DocumentError", "message": "encrypted"})
    run = working_on(sql, one)
    run.complete(begin(sql, one), points=7)
    assert status() == ("indexed", None)
    assert sql.call("document_get", document=one)["points"] == 7
    saved(sql, "other text")
    assert status() == ("pending", None)
    assert hash_of("other text") == sql.call("document_get", document=one)["content_hash"]
