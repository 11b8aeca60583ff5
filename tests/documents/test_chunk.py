"""Chunks: exact slices, never too long, nothing lost, ending where a reader would."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ledgerq.documents.chunk import Chunk, Chunker, ChunkerSettings
from ledgerq.documents.clean import clean
from ledgerq.documents.load.markdown import with_headings
from ledgerq.documents.load.model import Loaded, Segment
from ledgerq.documents.pieces import Cut, pieces
from ledgerq.documents.tokens import Cl100k
from ledgerq.errors import InvalidInput

WORDS = st.sampled_from(
    ["word", "a", "naïve", "日本語。", "x" * 40, "end.", "Why?", "`code`", "| cell |", "# ", "1.5", "😀", "e.g.", "<|endoftext|>"]
)
GAPS = st.sampled_from([" ", "  ", "\n", "\n\n", "\n```\n", "\n~~~ sh\n", "\n    ", "\t", "\n# ", "\n\n\n", ""])
DOCUMENTS = st.lists(st.tuples(WORDS, GAPS), max_size=150).map(lambda parts: clean("".join(word + gap for word, gap in parts)))


def document(text: str) -> Loaded:
    return with_headings(text, content_type="text/markdown", title=None)


def chunks_of(text: str, *, max_tokens: int = 32, overlap: int = 8) -> list[Chunk]:
    return Chunker(ChunkerSettings(max_tokens=max_tokens, overlap=overlap)).process_document(document(text))


def assert_sound(text: str, chunks: list[Chunk], max_tokens: int) -> None:
    assert [chunk.position for chunk in chunks] == list(range(len(chunks)))
    covered = bytearray(len(text))
    for chunk in chunks:
        assert text[chunk.start : chunk.end] == chunk.text
        assert chunk.text == chunk.text.strip()
        assert chunk.text
        assert chunk.tokens == Cl100k().count([chunk.text])[0]
        assert chunk.tokens <= max_tokens or len(chunk.text) == 1
        covered[chunk.start : chunk.end] = b"\1" * (chunk.end - chunk.start)
    assert not [place for place, character in enumerate(text) if not covered[place] and not character.isspace()]
    assert all(one.start < other.start and one.end < other.end for one, other in pairwise(chunks))


@settings(deadline=None, max_examples=100)
@given(DOCUMENTS, st.integers(16, 64), st.booleans())
def test_any_document_gives_sound_chunks(text: str, max_tokens: int, overlapping: bool) -> None:
    chunks = chunks_of(text, max_tokens=max_tokens, overlap=max_tokens // 4 if overlapping else 0)
    assert_sound(text, chunks, max_tokens)


@settings(deadline=None, max_examples=50)
@given(st.text(max_size=300).map(clean))
def test_any_text_gives_sound_chunks(text: str) -> None:
    assert_sound(text, chunks_of(text, max_tokens=16, overlap=4), 16)


@given(DOCUMENTS)
@settings(deadline=None, max_examples=30)
def test_pieces_have_no_gaps(text: str) -> None:
    parts = pieces(text, limit=24, tokenizer=Cl100k())
    assert "".join(text[part.start : part.end] for part in parts) == text
    assert all(part.end > part.start for part in parts)


def test_the_same_document_gives_the_same_chunks() -> None:
    text = "One sentence here. Another one there.\n\n" * 50
    assert chunks_of(text) == chunks_of(text)


@pytest.mark.parametrize("text", ["", " ", "\n\n\n"])
def test_no_text_no_chunks(text: str) -> None:
    assert chunks_of(text) == []


def test_a_short_document_is_one_chunk() -> None:
    assert [chunk.text for chunk in chunks_of("  Just this.\n")] == ["Just this."]


def test_chunks_end_with_paragraphs_before_sentences_and_sentences_before_words() -> None:
    paragraphs = "\n\n".join(f"Paragraph {number} has one sentence. And it has a second one." for number in range(8))
    assert all(chunk.text.endswith("second one.") for chunk in chunks_of(paragraphs, overlap=0))
    sentences = " ".join(f"This is sentence number {number} of many." for number in range(30))
    assert all(chunk.text.endswith("of many.") for chunk in chunks_of(sentences, overlap=0))
    words = " ".join(f"word{number}" for number in range(200))
    assert all(text.split(" ")[-1].startswith("word") for text in (chunk.text for chunk in chunks_of(words, overlap=0)))


def test_a_section_begins_a_chunk_when_there_is_enough_before_it() -> None:
    text = "".join(f"## Heading {number}\n\nSome words about it, and then some more, to fill.\n\n" for number in range(6))
    chunks = chunks_of(text)
    assert all(chunk.text.startswith("## Heading") for chunk in chunks)
    assert [chunk.heading for chunk in chunks][:2] == ["Heading 0", "Heading 1"]


def test_code_is_not_cut_where_it_can_be_helped() -> None:
    code = "```python\n" + "\n\n".join(f"value_{number} = {number}" for number in range(6)) + "\n```"
    text = f"Words before the code, enough of them to fill a good part of a chunk. One more sentence.\n\n{code}\n\nWords after it."
    whole = [chunk for chunk in chunks_of(text, max_tokens=64, overlap=0) if "```python" in chunk.text]
    assert len(whole) == 1
    assert code in whole[0].text


def test_neighbours_share_whole_sentences_but_not_over_a_heading() -> None:
    sentences = " ".join(f"This is sentence number {number} of many." for number in range(30))
    chunks = chunks_of(sentences, overlap=12)
    for one, other in pairwise(chunks):
        shared = sentences[other.start : one.end]
        assert shared.startswith("This is sentence")
        assert Cl100k().count([shared])[0] <= 12
    sections = "".join(f"# Heading {number}\n\nSome words about it, and then some more, to fill.\n" for number in range(6))
    parts = chunks_of(sections, overlap=12)
    assert all(one.end <= other.start for one, other in pairwise(parts))


def test_what_fits_whole_is_not_cut_for_the_sake_of_overlap() -> None:
    small = "A few words here. "
    large = " ".join(["word"] * 27) + " end.\n"
    text = small * 3 + "\n" + large + small
    assert any(large.strip() in chunk.text for chunk in chunks_of(text, max_tokens=32, overlap=16))


def test_a_line_of_code_in_backticks_opens_no_fence() -> None:
    text = "```one line```\n\n" + "Words of prose. More of them follow here. " * 10
    assert all(chunk.text.endswith((".", "```")) for chunk in chunks_of(text, overlap=0))
    inside = "````md\n```\nx. y. z.\n```\nstill code. yes. it is.\n````\n\nProse. More."
    cuts = [part.cut for part in pieces(inside, limit=64, tokenizer=Cl100k())]
    assert cuts[:5] == [Cut.CODE] * 5


def test_one_endless_word_is_cut_all_the_same() -> None:
    text = "x" * 50_000
    assert_sound(text, chunks_of(text, overlap=0), 32)


def test_a_line_of_many_megabytes_takes_no_square_of_time() -> None:
    text = "lorem ipsum " * 150_000
    chunks = chunks_of(text, max_tokens=512, overlap=0)
    assert_sound(text, chunks, 512)


def test_page_and_heading_are_those_of_most_of_the_chunk() -> None:
    text = "tail. " + "body words " * 20
    segments = (Segment(start=0, end=6, page=1, heading="Old"), Segment(start=6, end=len(text), page=2, heading="New"))
    (chunk,) = Chunker(ChunkerSettings(max_tokens=128)).process_document(Loaded(text=text, segments=segments))
    assert (chunk.page, chunk.heading) == (2, "New")
    (bare,) = Chunker().process_document(Loaded(text="no segments"))
    assert (bare.page, bare.heading) == (None, None)


@pytest.mark.parametrize(
    ("wrong", "named"),
    [
        ({"max_tokens": 15}, "max_tokens: 15"),
        ({"overlap": -1}, "overlap: -1"),
        ({"overlap": 300}, "overlap: 300"),
        ({"least_fill": 0.0}, "least_fill"),
    ],
)
def test_settings_out_of_range_are_named(wrong: dict[str, float], named: str) -> None:
    with pytest.raises(InvalidInput, match=named):
        ChunkerSettings(**wrong)  # pyright: ignore[reportArgumentType]
