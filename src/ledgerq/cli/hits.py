"""How search hits are shown."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from uuid import UUID

from rich.text import Text

from ledgerq.cli.ingest import name_of
from ledgerq.cli.output import Output


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
        head = Text.assemble(f"{number:2}. ", (name_of(hit.uri), "bold"), f"  {place}" if place else "", (f"  {hit.score:.3f}", "dim"))
        output.print(head)
        output.print(_marked(hit.snippet, query))


def _marked(snippet: str, query: str) -> Text:
    text = Text("    " + " ".join(snippet.split()))
    words = "|".join(re.escape(word) for word in re.findall(r"\w{4,}", query))
    if words:
        text.highlight_regex(re.compile(rf"\b(?:{words})\w*", re.IGNORECASE), "bold yellow")
    return text
