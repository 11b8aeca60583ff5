"""Where a text may be cut: the pieces between two places at which a chunk could end, none longer than a chunk may be."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from enum import IntEnum
from typing import Final

from ledgerq.documents.fences import FENCE, closes
from ledgerq.documents.tokens import Tokenizer


class Cut(IntEnum):
    """How good the place after a piece is to end a chunk; higher is better."""

    FORCED = 0
    """Inside of a sentence that is too long."""
    CODE = 1
    """Between two lines of a code fence or a table."""
    SENTENCE = 2
    """After a sentence or a line."""
    PARAGRAPH = 3
    SECTION = 4
    """Before a heading."""


@dataclass(frozen=True, slots=True)
class Piece:
    start: int
    end: int
    cut: Cut
    tokens: int


_CUTS: Final = re.compile(
    r"""
    [\n.!?\u3002\uff01\uff1f]                       # one class first: the scan for it is fast
    (?: (?<=\n)(?:[ \t]*\n\s*)?                     # a line's end, or a paragraph's
      | (?<=[.!?])["')\]\u2019\u201d\u00bb]*[ \t]+(?=\S)         # a sentence's end
      | (?<=[\u3002\uff01\uff1f])[\u201d\u2019\u300d\u300f\uff09]*  # one that no space follows, as in Chinese
    )""",
    re.VERBOSE,
)
_FENCE: Final = re.compile(r" {0,3}" + FENCE, re.MULTILINE)
_HEADING: Final = re.compile(r"#{1,6}[ \t]")
_LONG: Final = 64
"""Characters a token, at the very most, in what a chunk can hold: a longer piece is divided before it is counted."""


def pieces(text: str, *, limit: int, tokenizer: Tokenizer) -> list[Piece]:
    """The text as pieces of at most `limit` tokens, without gaps; counts are of each piece alone."""
    spans = [part for span in _spans(text) for part in _divided(text, span, limit * _LONG)]
    done: list[Piece] = []
    counts = tokenizer.count([text[start:end] for start, end, _ in spans])
    waiting = [Piece(start, end, cut, tokens) for (start, end, cut), tokens in zip(spans, counts, strict=True)]
    while waiting:
        done += (piece for piece in waiting if _fits(piece, limit))
        halves = [half for piece in waiting if not _fits(piece, limit) for half in _halves(text, piece.start, piece.end, piece.cut)]
        counts = tokenizer.count([text[start:end] for start, end, _ in halves])
        waiting = [Piece(start, end, cut, tokens) for (start, end, cut), tokens in zip(halves, counts, strict=True)]
    return sorted(done, key=lambda piece: piece.start)


Span = tuple[int, int, Cut]


def _spans(text: str) -> Iterator[Span]:
    """Paragraphs, lines and sentences; inside of a code fence, lines."""
    start, fence, closing = 0, _code_state(text, 0, "")[0], False
    for found in _CUTS.finditer(text):
        end, is_line = found.end(), found[0][0] == "\n"
        if fence and not is_line:
            continue
        cut = _cut(text, found) if not fence or closing else Cut.CODE
        yield start, end, cut
        start = end
        if is_line:
            fence, closing = _code_state(text, end, "" if closing else fence)
    if start < len(text):
        yield start, len(text), Cut.SECTION


def _code_state(text: str, start: int, fence: str) -> tuple[str, bool]:
    """The fence that the line at `start` is in or opens, with whether it closes it."""
    mark = _FENCE.match(text, start)
    if mark is None:
        return fence, False
    return (fence, closes(fence, mark["fence"], mark["info"])) if fence else (mark["fence"], False)


def _cut(text: str, found: re.Match[str]) -> Cut:
    end, ends = found.end(), found[0]
    if ends[0] != "\n":
        return Cut.SENTENCE
    if text.startswith("#", end) and _HEADING.match(text, end):
        return Cut.SECTION
    if ends.count("\n") > 1:
        return Cut.PARAGRAPH
    # A table's row: the next line goes on with it.
    return Cut.CODE if text.startswith("|", end) else Cut.SENTENCE


def _fits(piece: Piece, limit: int) -> bool:
    return piece.tokens <= limit or piece.end - piece.start < 2


def _divided(text: str, span: Span, longest: int) -> Iterator[Span]:
    """Without this, counting one line of many megabytes at each halving would take a square of its length."""
    start, end, cut = span
    while end - start > longest:
        middle = _near(text, start, start + longest)
        yield start, middle, Cut.FORCED
        start = middle
    yield start, end, cut


def _halves(text: str, start: int, end: int, cut: Cut) -> list[Span]:
    middle = _near(text, start, (start + end + 1) // 2)
    return [(start, middle, Cut.FORCED), (middle, end, cut)]


def _near(text: str, start: int, middle: int) -> int:
    """After the last space before `middle`, if it is in the second half of the way to it; else `middle` itself."""
    space = text.rfind(" ", (start + middle) // 2 + 1, middle)
    return space + 1 if space >= 0 else middle
