"""`ingest`: make files searchable."""

from __future__ import annotations

import os
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Final
from urllib.parse import unquote_to_bytes, urlsplit

import typer

from ledgerq.cli import ingesting
from ledgerq.cli.exit_codes import ExitCode
from ledgerq.cli.files import find_files, shown, typed_path
from ledgerq.cli.ingesting import DocumentReport, DocumentStatus
from ledgerq.cli.options import AsJson, DataDir, Debug, ForTenant, QueueName, typed_text
from ledgerq.cli.output import Output, printable, short_seconds
from ledgerq.cli.session import Session, check_pushed, open_session

MANY: Final = 4
"""So many files that were skipped for one reason are told in one line."""


def ingest(
    paths: Annotated[
        list[Path], typer.Argument(metavar="PATH…", parser=typed_path, help="Files, and folders that are walked.", show_default=False)
    ],
    tenant: ForTenant = "",
    source: Annotated[
        str | None,
        typer.Option(
            "--source",
            callback=typed_text,
            help="A name for where they come from: the same file under two names is two documents.",
        ),
    ] = None,
    queue: QueueName = None,
    no_wait: Annotated[bool, typer.Option("--no-wait", help="Return when the jobs are accepted.")] = False,
    data_dir: DataDir = None,
    as_json: AsJson = False,
    debug: Debug = False,
) -> int:
    """Make Markdown, HTML, text and PDF files searchable. Exit 0 when all were indexed, 3 when some failed for good."""
    with open_session(data_dir, as_json=as_json, debug=debug) as session:
        begun = time.monotonic()
        sets = find_files(paths)
        left_out = [file for one in sets for file in one.left_out]
        started = ingesting.start(session.store, session.jobs, sets, tenant=tenant, source=source, queue=queue)
        _tell_degraded(session, started)
        if no_wait:
            return _finish(session.output, started, ingesting.report_pending(started, left_out), None)
        jobs = _wait(session, started)
        documents = ingesting.report(session.jobs, started, left_out)
        return _finish(session.output, jobs, documents, time.monotonic() - begun)


def tell_problems(output: Output, documents: Sequence[DocumentReport]) -> None:
    """Every file that was not indexed, and why; for people. Many that were skipped for one reason are one line."""
    for document in documents:
        if document.status in {DocumentStatus.FAILED, DocumentStatus.CANCELLED}:
            output.text(f"{document.status:9} {name_of(document.uri)}" + (f": {_without(document)}" if document.error else ""))
    skipped: dict[str, list[str]] = {}
    for document in documents:
        if document.status is DocumentStatus.SKIPPED:
            skipped.setdefault(_without(document), []).append(name_of(document.uri))
    for reason, names in skipped.items():
        what = names if len(names) < MANY else [f"{len(names)} files like {names[0]}"]
        for name in what:
            output.text(f"{DocumentStatus.SKIPPED:9} {name}: {reason}")


def name_of(uri: str) -> str:
    """A file's path as it was typed, or the address as it is; on one line."""
    path = path_of(uri)
    return printable(uri, lines=False) if path is None else shown(path)


def path_of(uri: str) -> Path | None:
    """The path of a `file:` address; None for any other, and for what is no address."""
    try:
        parts = urlsplit(uri)
    except ValueError:
        return None
    return Path(os.fsdecode(unquote_to_bytes(parts.path))) if parts.scheme == "file" else None


def _wait(session: Session, started: Sequence[ingesting.Started]) -> Sequence[object]:
    try:
        return ingesting.wait(session.jobs, started)
    except KeyboardInterrupt:
        ids = " ".join(str(one.job.id) for one in started)
        session.output.note(f"the jobs go on without you: ledgerq jobs watch{session.where} {ids}")
        raise


def _tell_degraded(session: Session, started: Sequence[ingesting.Started]) -> None:
    refused = next((one.job.degraded for one in started if one.job.degraded), None)
    check_pushed(refused, [one.job.id for one in started])
    for one in started:
        if one.job.degraded:
            session.output.note(f"{one.title}: accepted, and will be pushed later: {one.job.degraded}")


def _finish(output: Output, jobs: Sequence[object], documents: Sequence[DocumentReport], took_s: float | None) -> int:
    plain = [job.job if isinstance(job, ingesting.Started) else job for job in jobs]
    output.document({"jobs": plain, "documents": [document.as_json() for document in documents]})
    tell_problems(output, documents)
    counts = Counter(document.status for document in documents)
    words = ", ".join(f"{counts[status]} {status}" for status in DocumentStatus if counts[status]) or "no documents"
    output.text(words if took_s is None else f"{words} in {short_seconds(took_s)}")
    bad = counts[DocumentStatus.FAILED] + counts[DocumentStatus.CANCELLED]
    return ExitCode.SOME_FAILED if bad else ExitCode.OK


def _without(document: DocumentReport) -> str:
    """The error without the address that it begins with: it has just been named."""
    return (document.error or "").removeprefix(f"{document.uri}: ")
