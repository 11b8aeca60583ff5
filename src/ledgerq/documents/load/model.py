"""What a loader hands on."""

from __future__ import annotations

from bisect import bisect_right
from dataclasses import dataclass, field
from operator import attrgetter
from typing import Final, TypeAlias

from ledgerq.errors import DocumentError

Scalar: TypeAlias = str | int | float | bool

PDF: Final = "application/pdf"
HTML: Final = "text/html"
MARKDOWN: Final = "text/markdown"
PLAIN: Final = "text/plain"
LONGEST_NAME: Final = 300
"""Characters of a title or heading."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Segment:
    """A stretch of the text with one page number and one heading, as far as the document has them."""

    start: int
    end: int
    page: int | None = None
    """Counted from 1."""
    heading: str | None = None
    """The innermost heading above."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Loaded:
    """A document's clean text. Offsets are positions in `text`, in characters."""

    text: str
    segments: tuple[Segment, ...] = ()
    """In order, without gaps or overlaps, over all of the text."""
    content_type: str = PLAIN
    title: str | None = None
    metadata: dict[str, Scalar] = field(default_factory=dict[str, Scalar])

    def segment_at(self, offset: int) -> Segment | None:
        """The segment that holds the character at that offset."""
        found = bisect_right(self.segments, offset, key=attrgetter("start"))
        return self.segments[found - 1] if found else None

    def main_segment(self, start: int, end: int) -> Segment | None:
        """The segment that holds most of that stretch of the text; of equals, the first."""
        first = bisect_right(self.segments, start, key=attrgetter("start")) - 1
        last = bisect_right(self.segments, end - 1, key=attrgetter("start"))
        touched = self.segments[max(first, 0) : last]
        return max(touched, key=lambda segment: min(segment.end, end) - max(segment.start, start), default=None)


@dataclass(frozen=True, slots=True, kw_only=True)
class LoadLimits:
    """How much of the machine one document may take."""

    max_bytes: int = 100 * 1024 * 1024
    max_characters: int = 20_000_000
    """Of extracted text; about ten times the longest novel."""
    max_pages: int = 5_000
    seconds: float = 60.0
    """Wall time in the parser process. 60 s are 30,000 pages at the speed PDFium has on two shared cores."""
    memory_bytes: int = 1024 * 1024 * 1024
    """Address space that parsing may add to the parser process. Linux enforces it; macOS accepts and ignores it."""


def shortened(name: str) -> str:
    """A title or heading, cut where it is so long that it is a text: each chunk below repeats it."""
    return name if len(name) <= LONGEST_NAME else f"{name[: LONGEST_NAME - 1].rstrip()}…"


class Unreadable(Exception):
    """Why a document can never be loaded, without its name: the loader adds that."""


class EmptyDocument(DocumentError):
    """There is no text in the document, and no sign that there should be any."""
