"""Markdown: kept as it is written, because its marks say more to a reader and an embedder than they cost."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Final

from ledgerq.documents.clean import clean
from ledgerq.documents.load.encoding import charset_of, decode
from ledgerq.documents.load.model import MARKDOWN, Loaded, Segment

VERSION: Final = "1"

_LINES_THAT_MATTER: Final = re.compile(
    r"^ {0,3}(?:(?P<fence>`{3,}|~{3,})(?P<info>[^\n]*)|(?P<marks>#{1,6})[ \t]+(?P<atx>[^\n]*)|(?P<under>=+|-{2,})[ \t]*$)", re.MULTILINE
)
_FRONT_MATTER: Final = re.compile(r"\A---[ \t]*\n(.*?\n)?(?:---|\.\.\.)[ \t]*(?:\n|\Z)", re.DOTALL)
_TITLE: Final = re.compile(r"^title:[ \t]*[\"']?(.*?)[\"']?[ \t]*$", re.MULTILINE)
_MARKUP: Final = re.compile(r"\[([^\]]*)\]\([^)]*\)|[*`]+|(?<!\w)_+|_+(?!\w)")


def load_markdown(data: bytes, *, declared: str | None = None) -> Loaded:
    """One segment per heading. A YAML front matter gives the title and is not text."""
    text = clean(decode(data, declared=charset_of(declared)))
    front = _FRONT_MATTER.match(text)
    title = _TITLE.search(front[1] or "") if front else None
    text = text[front.end() :] if front else text
    return with_headings(text, content_type=MARKDOWN, title=title[1] if title else None)


def with_headings(text: str, *, content_type: str, title: str | None) -> Loaded:
    """Clean Markdown as a document; its first heading is the title if it has no other."""
    if not text:
        return Loaded(text="", content_type=content_type, title=title)
    found = list(headings(text))
    starts = found if found and found[0][0] == 0 else [(0, None), *found]
    ends = [start for start, _ in starts[1:]] + [len(text)]
    segments = tuple(Segment(start=start, end=end, heading=heading) for (start, heading), end in zip(starts, ends, strict=True))
    first = next((heading for _, heading in found), None)
    return Loaded(text=text, segments=segments, content_type=content_type, title=title or first)


def headings(text: str) -> Iterator[tuple[int, str | None]]:
    """Offset and plain words of each heading outside of code fences, in order."""
    fence: str | None = None
    for line in _LINES_THAT_MATTER.finditer(text):
        mark = line["fence"]
        if fence is not None:
            closes = mark is not None and mark[0] == fence[0] and len(mark) >= len(fence) and not line["info"].strip()
            fence = None if closes else fence
        elif mark is not None:
            fence = mark
        elif line["marks"] is not None:
            yield line.start(), plain(line["atx"].rstrip().rstrip("#")) or None
        else:
            yield from _underlined(text, line.start())


def plain(heading: str) -> str:
    """A heading without the marks of emphasis, code and links."""
    return _MARKUP.sub(lambda found: found[1] or "", heading).replace("\\", "").strip()


def _underlined(text: str, underline: int) -> Iterator[tuple[int, str | None]]:
    """The line above a row of `=` or `-`, unless it is blank or begins as a list, a quotation or a table does."""
    start = text.rfind("\n", 0, max(underline - 1, 0)) + 1
    line = text[start : max(underline - 1, 0)]
    if line.strip() and not re.match(r"\s*(?:[>|#]|[-*+] |\d+[.)] )", line):
        yield start, plain(line) or None
