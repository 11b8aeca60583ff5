"""Cutting a document into chunks: as full as they may be, ending at the best place, each an exact slice of the text."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from ledgerq.documents.load.model import Loaded
from ledgerq.documents.pieces import Cut, Piece, pieces
from ledgerq.documents.tokens import Cl100k, Tokenizer
from ledgerq.errors import InvalidInput

VERSION: Final = "2"
"""Part of the config digest: a change of the rules makes new generations."""

_WORTH: Final = {Cut.FORCED: -1.5, Cut.CODE: -1.0, Cut.SENTENCE: 0.0, Cut.PARAGRAPH: 0.35, Cut.SECTION: 0.7}
"""What a place to end is worth, in fillings of a chunk: a paragraph's end is taken for up to 35 % less text."""
_TOO_EMPTY: Final = -0.6
"""What is lost by ending a chunk that is less full than `least_fill`: less than by cutting code, if it is not nearly empty."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ChunkerSettings:
    """How to cut.

    Raises:
        InvalidInput: a number is out of its range.
    """

    max_tokens: int = 512
    overlap: int = 64
    """At most so many tokens of a chunk are repeated at the start of the next, in whole sentences; none over a heading."""
    least_fill: float = 0.5
    """A chunk that is less full than this is only ended to keep code or a table in one piece."""

    def __post_init__(self) -> None:
        if self.max_tokens < 16:
            raise InvalidInput(f"max_tokens: {self.max_tokens} is below 16")
        if not 0 <= self.overlap <= self.max_tokens // 2:
            raise InvalidInput(f"overlap: {self.overlap} is not between 0 and half of max_tokens ({self.max_tokens // 2})")
        if not 0 < self.least_fill <= 1:
            raise InvalidInput(f"least_fill: {self.least_fill} is not above 0 and at most 1")


@dataclass(frozen=True, slots=True, kw_only=True)
class Chunk:
    """A piece of a document: `loaded.text[start:end] == text`. It neither begins nor ends with white space."""

    position: int
    """Counted from 0, in the document."""
    start: int
    end: int
    text: str
    tokens: int
    """Of this text as a whole; at most the chunker's `max_tokens`."""
    page: int | None = None
    """Where most of it stands, counted from 1."""
    heading: str | None = None
    """The innermost heading above most of it."""


class Chunker:
    """Cuts documents. The same text under the same settings gives the same chunks on every machine."""

    def __init__(self, settings: ChunkerSettings | None = None, tokenizer: Tokenizer | None = None) -> None:
        self.settings = settings or ChunkerSettings()
        self.tokenizer: Tokenizer = tokenizer or Cl100k()

    def process_document(self, loaded: Loaded) -> list[Chunk]:
        """The document's chunks, in order. Every character that is not white space is in at least one of them."""
        text = loaded.text
        parts = pieces(text, limit=self.settings.max_tokens, tokenizer=self.tokenizer)
        spans = [span for first, last in _ranges(parts, self.settings) if (span := _trimmed(text, parts[first].start, parts[last].end))]
        return [_chunk(loaded, position, *span) for position, span in enumerate(self._counted(text, spans))]

    def _counted(self, text: str, spans: list[tuple[int, int]]) -> list[tuple[int, int, int]]:
        """Spans with the count of each as a whole, which may be above the sum of its pieces: what is over is halved."""
        fitting: list[tuple[int, int, int]] = []
        while spans:
            counts = self.tokenizer.count([text[start:end] for start, end in spans])
            over: list[tuple[int, int]] = []
            for (start, end), tokens in zip(spans, counts, strict=True):
                if tokens <= self.settings.max_tokens or end - start < 2:
                    fitting.append((start, end, tokens))
                else:
                    middle = _middle(text, start, end)
                    over += [span for half in ((start, middle), (middle, end)) if (span := _trimmed(text, *half))]
            spans = over
        return sorted(fitting)


def _ranges(parts: list[Piece], settings: ChunkerSettings) -> list[tuple[int, int]]:
    """First and last piece of each chunk."""
    ranges: list[tuple[int, int]] = []
    first, covered = 0, 0
    while covered < len(parts):
        last = _last(parts, first, covered, settings)
        ranges.append((first, last))
        covered = last + 1
        first = _overlapping(parts, first, last, settings)
    return ranges


def _last(parts: list[Piece], first: int, covered: int, settings: ChunkerSettings) -> int:
    """The piece to end with: of those that fit and are new, the one after which it is best to end."""
    best, best_worth, tokens = max(first, covered), -9.0, 0
    for number in range(first, len(parts)):
        tokens += parts[number].tokens
        if tokens > settings.max_tokens and number > first:
            return best
        fill = tokens / settings.max_tokens
        worth = fill + _WORTH[parts[number].cut] + (0.0 if fill >= settings.least_fill else _TOO_EMPTY)
        if number >= covered and worth >= best_worth:
            best, best_worth = number, worth
    return len(parts) - 1


def _overlapping(parts: list[Piece], first: int, last: int, settings: ChunkerSettings) -> int:
    """Where the next chunk begins: so far back that at most `overlap` tokens are repeated, the next piece fits behind them, and
    always further than this one."""
    start, repeated = last + 1, 0
    if parts[last].cut is Cut.SECTION or start == len(parts):
        return start
    room = min(settings.overlap, settings.max_tokens - parts[start].tokens)
    while start - 1 > first and repeated + parts[start - 1].tokens <= room and parts[start - 1].cut is not Cut.FORCED:
        start -= 1
        repeated += parts[start].tokens
    return start


def _trimmed(text: str, start: int, end: int) -> tuple[int, int] | None:
    inside = text[start:end]
    left, right = len(inside) - len(inside.lstrip()), len(inside.rstrip())
    return (start + left, start + right) if right else None


def _middle(text: str, start: int, end: int) -> int:
    """Near the middle, after white space if there is some in the half around it."""
    half = (start + end + 1) // 2
    for mark in ("\n", " "):
        found = text.rfind(mark, start + (end - start) // 4, half)
        if found > start:
            return found + 1
    return half


def _chunk(loaded: Loaded, position: int, start: int, end: int, tokens: int) -> Chunk:
    segment = loaded.main_segment(start, end)
    return Chunk(
        position=position,
        start=start,
        end=end,
        text=loaded.text[start:end],
        tokens=tokens,
        page=None if segment is None else segment.page,
        heading=None if segment is None else segment.heading,
    )
