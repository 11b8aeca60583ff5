"""Words as sparse vectors: the same words at ingestion and search, weighted as BM25 weights them."""

from __future__ import annotations

import threading

import pytest
import Stemmer
from hypothesis import given
from hypothesis import strategies as st

from ledgerq.documents import sparse
from ledgerq.documents.sparse import Bm25, words
from ledgerq.errors import ConfigurationError


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("The Wing's flutter, at Mach 1.5!", ["wing", "s", "flutter", "mach", "1", "5"]),
        ("pg_stat_activity wal-level", ["pg", "stat", "activity", "wal", "level"]),
        ("Straße ÉCOLE ﬁn", ["strasse", "école", "fin"]),
        ("東京都 text 中", ["東京", "京都", "text", "中"]),
        ("abc東京def", ["abc", "東京", "def"]),
        ("x" * 100, ["x" * 64]),
        ("the and of", []),
        ("हिन्दी में खोज", ["हिन्दी", "में", "खोज"]),
        ("क्\u200dष snake_हि", ["क्ष", "snake", "हि"]),
        ("كِتَابٌ كتاب שָׁלוֹם שלום", ["كتاب", "كتاب", "שלום", "שלום"]),
        ("ที่นี่", ["ที", "ี่", "่น", "นี", "ี่"]),
    ],
)
def test_words(text: str, found: list[str]) -> None:
    assert list(words(text)) == found


def test_endings_do_not_matter() -> None:
    bm25 = Bm25()
    assert bm25.query("running wings").indices == bm25.document("run wing").indices
    assert Bm25(language="german").query("Häuser").indices == Bm25(language="german").query("Haus").indices


def test_weights_are_bm25s() -> None:
    bm25 = Bm25(k=1.2, b=0.75, mean_words=4.0)
    vector = bm25.document("wing wing flutter speed")
    weights = dict(zip(vector.indices, vector.values, strict=True))
    (wing,) = bm25.query("wing").indices
    (flutter,) = bm25.query("flutter").indices
    assert weights[wing] == pytest.approx(2 * 2.2 / (2 + 1.2), abs=1e-5)
    assert weights[flutter] == pytest.approx(1.0, abs=1e-5)


def test_single_characters_are_found_and_make_no_document_longer() -> None:
    bm25 = Bm25()
    document = bm25.document("東京都 wing")
    weights = dict(zip(document.indices, document.values, strict=True))
    for query in ("京", "東京", "wing"):
        (index,) = bm25.query(query).indices
        assert weights[index] == weights[bm25.query("wing").indices[0]]
    assert len(bm25.query("東京都").indices) == 2
    assert Stemmer.version() in bm25.name


def test_a_question_counts_each_word_once() -> None:
    vector = Bm25().query("wing wing wings flutter")
    assert vector.values == (1.0, 1.0)


@given(st.text(max_size=300))
def test_vectors_are_what_qdrant_takes(text: str) -> None:
    for vector in (Bm25().document(text), Bm25().query(text)):
        assert len(vector.indices) == len(vector.values)
        assert list(vector.indices) == sorted(set(vector.indices))
        assert all(0 <= index < 2**32 for index in vector.indices)
        assert all(value > 0 for value in vector.values)


def test_indices_stay_the_same_in_every_process() -> None:
    """Points that are stored already would not be found under others."""
    assert Bm25().query("wing").indices == (210902434,)


def test_forgetting_words_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sparse, "_REMEMBERED", 3)
    bm25 = Bm25()
    text = "one two three four five six seven"
    assert bm25.document(text) == Bm25().document(text)
    assert bm25.document(text) == Bm25().document(text)


def test_threads_share_one() -> None:
    bm25, texts = Bm25(), [f"running{number} flies{number} wings" for number in range(300)]
    wanted = [Bm25().document(text) for text in texts]
    made: dict[int, list[object]] = {}
    threads = [threading.Thread(target=lambda n=n: made.__setitem__(n, [bm25.document(text) for text in texts])) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert all(made[number] == wanted for number in range(4))


def test_an_unknown_language_is_named() -> None:
    with pytest.raises(ConfigurationError, match=r"'klingon' has no stemmer; known: .*english"):
        Bm25(language="klingon")
