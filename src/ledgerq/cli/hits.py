"""How search hits are shown."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final
from uuid import UUID

from rich.text import Text

from ledgerq.cli.ingest import name_of
from ledgerq.cli.output import Output, printable

WHOLE: Final = 4
"""A word of the query that has so many letters may be the beginning of one in the text."""


@dataclass(frozen=True, slots=True, kw_only=True)
class HitLine:
    """One hit: `{"uri", "document_id", "chunk_id", "score", "snippet", "page", "heading"}` as JSON."""

    uri: str
    document_id: UUID
    chunk_id: UUID
    score: float
    snippet: str
    page: int | None
    heading: str | None


def show_hits(output: Output, query: str, hits: Sequence[HitLine]) -> None:
    """For people: file, page or heading, score, and the snippet with the words of the query marked."""
    if not hits:
        output.text("nothing found")
    for number, hit in enumerate(hits, start=1):
        place = ", ".join(part for part in (f"page {hit.page}" if hit.page else "", hit.heading or "") if part)
        head = Text.assemble(
            f"{number:2}. ",
            (name_of(hit.uri), "bold"),
            f"  {printable(place, lines=False)}" if place else "",
            (f"  {hit.score:.3f}", "dim"),
        )
        output.print(head)
        output.print(_marked(hit.snippet, query))


def _marked(snippet: str, query: str) -> Text:
    """Words that the search takes for one of the query's are marked, whatever their endings, and those that begin with one."""
    from ledgerq.documents.sparse import Bm25, words

    text = Text("    " + printable(" ".join(snippet.split())))
    stems = Bm25()
    wanted = set(stems.query(query).indices)
    beginnings = tuple(word for word in words(query) if len(word) >= WHOLE)
    for found in re.finditer(r"\w+", text.plain):
        same = not wanted.isdisjoint(stems.query(found[0]).indices)
        if same or any(word.startswith(beginnings) for word in words(found[0])):
            text.stylize("bold yellow", *found.span())
    return text
