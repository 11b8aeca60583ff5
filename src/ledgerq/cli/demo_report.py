"""What the demo says at its end: hits, cost, and where to look next."""

from __future__ import annotations

import re
import shlex
import shutil
import sys
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

from ledgerq.cli.exit_codes import ExitCode
from ledgerq.cli.files import shown
from ledgerq.cli.ingest import name_of, tell_problems
from ledgerq.cli.ingesting import DocumentReport, DocumentStatus
from ledgerq.cli.output import Output
from ledgerq.cli.search import find
from ledgerq.cli.session import Session

if TYPE_CHECKING:
    from ledgerq.cli.hits import HitLine
    from ledgerq.models import Job

OWN_QUESTIONS: Final = (
    "what happens to waiting jobs when Redis is emptied",
    "how do I stop a worker without losing its work",
    "exactly once delivery is impossible",
)
HITS: Final = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class Cost:
    """What the demo took: seconds, and counts over all documents."""

    start_s: float
    """Starting the servers and workers."""
    ingest_s: float
    """From the first file saved to the last document searchable."""
    documents: int
    chunks: int
    tokens: int
    """Embedded; a chunk that was known already costs none."""

    @classmethod
    def of(cls, documents: Sequence[DocumentReport], *, started_s: float, took_s: float) -> Cost:
        indexed = [document for document in documents if document.status is DocumentStatus.INDEXED]
        return cls(
            start_s=round(started_s, 2),
            ingest_s=round(took_s, 2),
            documents=len(indexed),
            chunks=sum(_count(document, "chunks") for document in indexed),
            tokens=sum(_count(document, "tokens") for document in indexed),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Searched:
    query: str
    hits: Sequence[HitLine]


def search_all(session: Session, documents: Sequence[DocumentReport], *, default: bool) -> list[Searched]:
    """A few searches: questions that our own pages answer, or what the names of the files suggest."""
    queries = OWN_QUESTIONS if default else _suggested(documents)
    return [Searched(query=query, hits=find(session, query, tenant="", limit=HITS)) for query in queries]


def tell(output: Output, documents: Sequence[DocumentReport], searches: Sequence[Searched], cost: Cost) -> None:
    """For people: what was not indexed, the hits, and the price."""
    from ledgerq.cli.hits import show_hits

    tell_problems(output, documents)
    for searched in searches:
        output.text(f"\nsearch: {searched.query}")
        show_hits(output, searched.query, searched.hits)
    counts = Counter(document.status for document in documents)
    words = ", ".join(f"{counts[status]} {status}" for status in DocumentStatus if counts[status]) or "no documents"
    rate = cost.documents / cost.ingest_s if cost.ingest_s else 0.0
    output.text(
        f"\n{words}: {cost.chunks} chunks, {cost.tokens:,} tokens embedded offline, in {cost.ingest_s:.1f} s "
        f"({rate:.1f} documents/s); the stack was up in {cost.start_s:.1f} s"
    )


def document(jobs: Sequence[Job], documents: Sequence[DocumentReport], searches: Sequence[Searched], cost: Cost) -> dict[str, object]:
    """The demo as one JSON document."""
    return {
        "jobs": jobs,
        "documents": [one.as_json() for one in documents],
        "searches": [asdict(searched) for searched in searches],
        "cost": asdict(cost),
    }


def exit_code(documents: Sequence[DocumentReport]) -> ExitCode:
    failed = any(document.status in {DocumentStatus.FAILED, DocumentStatus.CANCELLED} for document in documents)
    return ExitCode.SOME_FAILED if failed else ExitCode.OK


def tell_how_to_go_on(output: Output, directory: Path, *, kept: bool, forgotten: Sequence[str] = ()) -> None:
    """The next commands to try; without the variables that the demo forgot, which name something else than its stack."""
    if not kept:
        output.text("\nNext: scripts/demo --keep leaves the stack running; docs/concepts.md says how it works.")
        return
    where = f"--data-dir {shlex.quote(shown(directory))}"
    lines = (
        ("look again", f"search {where} 'your question'"),
        ("its jobs", f"jobs list {where}"),
        ("its health", f"doctor {where}"),
        ("Redis in a browser", f"dashboard {where}   (rq-dashboard on 127.0.0.1)"),
        ("stop it", f"down {where}"),
    )
    without = [word for name in forgotten for word in ("-u", shlex.quote(name))]
    program = " ".join(["env", *without, _program()] if without else [_program()])
    output.text("\nEverything goes on running.\n" + "\n".join(f"  {what:20}{program} {command}" for what, command in lines))


def _program() -> str:
    """How to call us from here: by name when the shell finds it, else by its place."""
    return "ledgerq" if shutil.which("ledgerq") else shlex.quote(shown(Path(sys.executable).with_name("ledgerq")))


def _suggested(documents: Sequence[DocumentReport]) -> list[str]:
    """The words in the names of three files, spread over all that were indexed."""
    names = [Path(name_of(one.uri)).stem for one in documents if one.status is DocumentStatus.INDEXED]
    step = max(1, len(names) // 3)
    words = [" ".join(re.findall(r"[^\W\d_]{3,}", name)) for name in names[step // 2 :: step][:3]]
    return [query for query in words if query]


def _count(document: DocumentReport, name: str) -> int:
    counted = document.result.get(name) if isinstance(document.result, dict) else None
    return counted if isinstance(counted, int) else 0
