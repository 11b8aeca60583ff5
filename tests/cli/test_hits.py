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


def test_words_of_the_query_are_marked_from_their_beginning() -> None:
    text = _marked("The moonlight and a honeymoon.", "moon it (")
    assert [text.plain[span.start : span.end] for span in text.spans] == ["moonlight"]
