"""Cleaning: what goes, what stays, and that doing it twice changes nothing."""

from __future__ import annotations

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
