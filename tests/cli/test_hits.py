"""How hits are shown."""

from __future__ import annotations

from uuid import UUID

import pytest

from ledgerq.cli.hits import HitLine, _marked, show_hits
from ledgerq.cli.output import Output

ID = UUID("01a202f0-3dd5-7a75-a4b6-2beed43ff785")


def hit(**fields: object) -> HitLine:
    known = {
        "uri": "https://example.org/tides",
        "document_id": ID,
        "chunk_id": ID,
        "score": 0.5,
        "snippet": "x",
        "page": None,
        "heading": None,
    }
    return HitLine(**{**known, **fields})


def shown(capsys: pytest.CaptureFixture[str], *hits: HitLine) -> list[str]:
    show_hits(Output(as_json=False), "moon", hits)
    return capsys.readouterr().out.splitlines()


@pytest.mark.parametrize(
    ("fields", "line"),
    [
        ({}, " 1. https://example.org/tides  0.500"),
        ({"page": 3}, " 1. https://example.org/tides  page 3  0.500"),
        ({"heading": "Ebb"}, " 1. https://example.org/tides  Ebb  0.500"),
        ({"page": 3, "heading": "[Ebb]"}, " 1. https://example.org/tides  page 3, [Ebb]  0.500"),
        ({"uri": "file:///a%20b/c.md"}, " 1. /a b/c.md  0.500"),
    ],
)
def test_a_hit_says_where_it_is(capsys: pytest.CaptureFixture[str], fields: dict[str, object], line: str) -> None:
    assert shown(capsys, hit(**fields)) == [line, "    x"]


def test_a_snippet_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert shown(capsys, hit(snippet="a\n\n b"))[1] == "    a b"


def test_nothing_found_is_said(capsys: pytest.CaptureFixture[str]) -> None:
    assert shown(capsys) == ["nothing found"]


@pytest.mark.parametrize(
    ("snippet", "query", "marked"),
    [
        ("The moonlight and a honeymoon.", "moon it (", ["moonlight"]),
        ("Use an RQ job, or two jobs.", "rq job", ["RQ", "job", "jobs"]),
        ("Waiting jobs are emptied.", "empty waits", ["Waiting", "emptied"]),
        ("It is what it is.", "is it", []),
    ],
)
def test_words_of_the_query_are_marked_in_all_their_forms(snippet: str, query: str, marked: list[str]) -> None:
    text = _marked(snippet, query)
    assert [text.plain[span.start : span.end] for span in text.spans] == marked


def test_a_document_cannot_talk_to_the_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    lines = shown(capsys, hit(uri="file:///a%1b%0a%ff.md", heading="b\x1b[2J\nc", snippet="d\x1b[2J"))
    assert lines == [" 1. /a\\x1b\\n\\udcff.md  b\\x1b[2J\\nc  0.500", "    d\\x1b[2J"]


def test_an_address_that_is_none_is_shown_as_it_is(capsys: pytest.CaptureFixture[str]) -> None:
    assert shown(capsys, hit(uri="http://[bad"))[0] == " 1. http://[bad  0.500"
