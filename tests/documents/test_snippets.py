"""Snippets: short, whole words, and where the query's words are."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from ledgerq.documents.snippets import LENGTH, snippet_of

FILLER = "Nothing of interest stands in this sentence at all. " * 12


def test_a_short_text_is_shown_whole_on_one_line() -> None:
    assert snippet_of("Two\n\n lines  here", "lines") == "Two lines here"


def test_a_long_text_is_shown_where_most_words_of_the_query_are() -> None:
    text = f"{FILLER} A wing here. {FILLER} The fluttering of wings at high speeds. {FILLER}"
    shown = snippet_of(text, "wing flutter at speed")
    assert "fluttering of wings at high speeds" in shown
    assert shown.startswith("… ")
    assert shown.endswith(" …")


def test_without_the_words_the_beginning_is_shown() -> None:
    assert snippet_of(FILLER, "zebra").startswith("Nothing of interest")


def test_the_end_of_the_text_is_reached() -> None:
    assert snippet_of(FILLER + "The zebra.", "zebra").endswith("The zebra.")


def test_text_without_spaces_is_shown_where_the_words_are() -> None:
    filler = "特に何も書かれていない文がここに続きます。" * 30
    text = f"{filler}東京都は大きい。{filler}"
    for query in ("東京都", "東京", "京"):
        shown = snippet_of(text, query)
        assert "東京都は大きい" in shown
        assert len(shown) > LENGTH * 0.9


@given(st.text(max_size=2_000), st.text(max_size=30))
def test_always_short_and_on_one_line(text: str, query: str) -> None:
    shown = snippet_of(text, query)
    assert len(shown) <= LENGTH + 4
    assert "\n" not in shown
