"""`doctor`: look at every part, and say what to do."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Final

from ledgerq.cli.exit_codes import ExitCode
from ledgerq.cli.options import AsJson, DataDir, Debug
from ledgerq.cli.session import Session, open_session

if TYPE_CHECKING:
    from ledgerq.cli.checks.finding import Check, Finding

STYLES: Final = {"ok": "green", "warn": "yellow", "fail": "bold red"}


def doctor(data_dir: DataDir = None, as_json: AsJson = False, debug: Debug = False) -> int:
    """Check the code, the ledger, Redis and its workers, the vector store, the embedder and the files, and say what to do.

    Exit 0 when nothing failed (warnings are allowed), 4 otherwise.
    """
    with open_session(data_dir, as_json=as_json, debug=debug) as session:
        findings: list[Finding] = []
        for finding in _examine(session):
            findings.append(finding)
            _tell(session, finding)
        failed = any(finding.level == "fail" for finding in findings)
        session.output.document({"ok": not failed, "findings": findings})
        session.output.text("something must be mended" if failed else "everything that is needed works")
    return ExitCode.UNAVAILABLE if failed else ExitCode.OK


def _examine(session: Session) -> Iterator[Finding]:
    from ledgerq.cli.checks.finding import findings_of

    for part, check in _checks():
        yield from findings_of(part, check, session)


def _checks() -> list[tuple[str, Check]]:
    from ledgerq.cli.checks import code, files, ledger, redis_server, vectors

    return [
        (code.PART, code.check_code),
        (ledger.PART, ledger.check_ledger),
        (redis_server.PART, redis_server.check_redis),
        (vectors.EMBEDDER, vectors.check_embedder),
        (vectors.VECTORS, vectors.check_vectors),
        (files.PART, files.check_files),
    ]


def _tell(session: Session, finding: Finding) -> None:
    from rich.text import Text

    line = Text.assemble((f"{finding.level:5}", STYLES[finding.level]), f"{finding.part:9} {finding.message}")
    session.output.print(line)
    if finding.advice:
        session.output.text(f"{'':15}→ {finding.advice}")
