"""Cleaning: what goes, what stays, and that doing it twice changes nothing."""

from __future__ import annotations

import time
import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ledgerq.documents.clean import clean

ANYTHING = st.text(st.characters(codec=None, categories=None, exclude_categories=()), max_size=200)


@pytest.mark.parametrize(
    ("raw", "cleaned"),
    [
        ("a\r\nb\rc\x0bd\x0ce\x85f\u2028g\u2029h", "a\nb\nc\nd\ne\nf\ng\nh"),
        ("nul\x00 bell\x07 escape\x1b delete\x7f", "nul bell escape delete"),
        ("tab\tstays, line\nstays", "tab\tstays, line\nstays"),
        ("lone \ud800 surrogate", "lone \ufffd surrogate"),
        ("\ufeffmark, zero\u200bwidth, soft\u00adhyphen, none\uffff", "mark, zerowidth, softhyphen, none"),
        ("cafe\u0301", "café"),
        ("👩\u200d👩\u200d👧 \u0645\u06cc\u200c\u062e", "👩\u200d👩\u200d👧 \u0645\u06cc\u200c\u062e"),
        ("", ""),
    ],
)
def test_each_rule(raw: str, cleaned: str) -> None:
    assert clean(raw) == cleaned


@pytest.mark.parametrize("marks", ["\u0301\u0323", "\U0001d165\u0301", "\u0344", "\u093c"])
def test_marks_without_end_take_no_square_of_time(marks: str) -> None:
    began = time.thread_time()
    cleaned = clean(f"\u0958{marks * 200_000} and so on")
    assert time.thread_time() - began < 2
    assert len(cleaned) <= 33 + len(" and so on")
    assert clean(cleaned) == cleaned


def test_as_many_marks_as_any_language_has_stay() -> None:
    text = "q" + "\u0323\u0301" * 15
    assert len(clean(text)) == 31


@given(ANYTHING)
def test_clean_text_stays_as_it_is(text: str) -> None:
    once = clean(text)
    assert clean(once) == once


@given(ANYTHING)
def test_what_comes_out_can_be_stored_everywhere(text: str) -> None:
    cleaned = clean(text)
    assert cleaned.encode("utf-8").decode("utf-8") == cleaned
    assert "\0" not in cleaned
    assert unicodedata.is_normalized("NFC", cleaned)
    assert not any(unicodedata.category(character) == "Cc" and character not in "\t\n" for character in cleaned)
