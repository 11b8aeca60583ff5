"""`search`: find chunks by meaning and by words."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from ledgerq.cli.options import AsJson, DataDir, Debug, ForTenant, typed_text
from ledgerq.cli.session import Session, open_session
from ledgerq.errors import InvalidInput

if TYPE_CHECKING:
    from ledgerq.cli.hits import HitLine


def search(
    query: Annotated[str, typer.Argument(metavar="QUERY", callback=typed_text, help="What you look for, in your own words.")],
    limit: Annotated[int, typer.Option("--limit", "-n", min=1, max=100)] = 5,
    tenant: ForTenant = "",
    data_dir: DataDir = None,
    as_json: AsJson = False,
    debug: Debug = False,
) -> None:
    """Find the chunks that fit a question best, of the documents that are live now."""
    from ledgerq.cli.hits import show_hits

    if not query.strip():
        raise InvalidInput("QUERY: is empty; say what to look for")
    with open_session(data_dir, as_json=as_json, debug=debug) as session:
        hits = find(session, query, tenant=tenant, limit=limit)
        session.output.document({"hits": hits})
        if not as_json:
            show_hits(session.output, query, hits)


def find(session: Session, query: str, *, tenant: str, limit: int) -> list[HitLine]:
    """The best hits, best first."""
    from ledgerq import assembly
    from ledgerq.cli.hits import HitLine

    with assembly.searcher(session.settings) as searcher:
        found = searcher.search(query, tenant=tenant, limit=limit)
    return [
        HitLine(
            uri=hit.uri,
            document_id=hit.document_id,
            chunk_id=hit.chunk_id,
            score=hit.score,
            snippet=hit.snippet,
            page=hit.page,
            heading=hit.heading,
        )
        for hit in found
    ]
