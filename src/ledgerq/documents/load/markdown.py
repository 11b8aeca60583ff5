"""Markdown: kept as it is written, because its marks say more to a reader and an embedder than they cost."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Final

from ledgerq.documents.clean import clean
from ledgerq.documents.fences import FENCE, closes
from ledgerq.documents.load.encoding import charset_of, decode
from ledgerq.documents.load.model import MARKDOWN, Loaded, Segment, shortened

VERSION: Final = "2"

_LINES_THAT_MATTER: Final = re.compile(
    r"^ {0,3}(?:" + FENCE + r"|(?P<marks>#{1,6})[ \t]+(?P<atx>[^\n]*)|(?P<under>=+|-{2,})[ \t]*$)", re.MULTILINE
)
_LINE: Final = re.compile(r"([^\n]*)(?:\n|\Z)")
_KEY: Final = re.compile(r"[\w\"'][^:\n]{0,200}:(?:[ \t]|\Z)")
_LONGEST_MARKED_UP: Final = 1_000
_MARKUP: Final = re.compile(r"\[([^\]]*)\]\([^)]*\)|[*`]+|(?<!\w)_+|_+(?!\w)")


def load_markdown(data: bytes, *, declared: str | None = None) -> Loaded:
    """One segment per heading. A YAML front matter gives the title and is not text."""
    text = clean(decode(data, declared=charset_of(declared)))
    front, start = _front_matter(text)
    title = next((line.partition(":")[2].strip().strip("\"'") for line in front if line.startswith("title:")), None)
    return with_headings(text[start:], content_type=MARKDOWN, title=title)


def _front_matter(text: str) -> tuple[list[str], int]:
    """The lines of the YAML before the text, and where the text begins. A document may as well begin with a rule (`---`), so every
    line has to look like YAML, and the first to say something."""
    lines = list[str]()
    place = _LINE.match(text)
    if place is None or place[1].rstrip() != "---":
        return [], 0
    while place.end() < len(text) and (place := _LINE.match(text, place.end())) is not None:
        line = place[1].rstrip()
        if line in ("---", "..."):
            return (lines, place.end()) if any(map(_KEY.match, lines)) else ([], 0)
        if not (_KEY.match(line) or line.startswith((" ", "\t", "- ", "#")) or (lines and not line)):
            break
        lines.append(line)
    return [], 0


def with_headings(text: str, *, content_type: str, title: str | None) -> Loaded:
    """Clean Markdown as a document; its first heading is the title if it has no other."""
    if not text:
        return Loaded(text="", content_type=content_type, title=title)
    found = list(headings(text))
    starts = found if found and found[0][0] == 0 else [(0, None), *found]
    ends = [start for start, _ in starts[1:]] + [len(text)]
    segments = tuple(Segment(start=start, end=end, heading=heading) for (start, heading), end in zip(starts, ends, strict=True))
    first = next((heading for _, heading in found), None)
    return Loaded(text=text, segments=segments, content_type=content_type, title=shortened(title or "") or first)


def headings(text: str) -> Iterator[tuple[int, str | None]]:
    """Offset and plain words of each heading outside of code fences, in order."""
    fence: str | None = None
    for line in _LINES_THAT_MATTER.finditer(text):
        mark = line["fence"]
        if fence is not None:
            fence = None if mark is not None and closes(fence, mark, line["info"]) else fence
        elif mark is not None:
            fence = mark
        elif line["marks"] is not None:
            yield line.start(), plain(line["atx"].rstrip().rstrip("#")) or None
        else:
            yield from _underlined(text, line.start())


def plain(heading: str) -> str:
    """A heading without the marks of emphasis, code and links. A very long one is a mark that was not meant as one: shortened."""
    return shortened(_MARKUP.sub(lambda found: found[1] or "", heading[:_LONGEST_MARKED_UP]).replace("\\", "").strip())


def _underlined(text: str, underline: int) -> Iterator[tuple[int, str | None]]:
    """The line above a row of `=` or `-`, unless it is blank or begins as a list, a quotation or a table does."""
    start = text.rfind("\n", 0, max(underline - 1, 0)) + 1
    line = text[start : max(underline - 1, 0)]
    if line.strip() and not re.match(r"\s*(?:[>|#]|[-*+] |\d+[.)] )", line):
        yield start, plain(line) or None
