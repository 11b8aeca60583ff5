"""`migrate`: bring the ledger's schema to this version."""

from __future__ import annotations

from typing import Annotated

import typer

from ledgerq.cli import environment
from ledgerq.cli.options import AsJson, DataDir, Debug
from ledgerq.cli.session import Session, open_session


def migrate(
    shim: Annotated[
        bool, typer.Option("--shim", help="First give a plain PostgreSQL the roles that a Supabase project has; needs a superuser.")
    ] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what is missing.")] = False,
    data_dir: DataDir = None,
    as_json: AsJson = False,
    debug: Debug = False,
) -> None:
    """Bring the ledger in DATABASE_URL to this version. Safe to repeat, and to start several times at once."""
    with open_session(data_dir, as_json=as_json, debug=debug) as session:
        if dry_run:
            _tell_pending(session)
        else:
            _apply(session, shim=shim)


def _apply(session: Session, *, shim: bool) -> None:
    from ledgerq.ledger.migrate import migrate as apply

    report = apply(_owner_dsn(session), shim=shim)
    session.output.document({"applied": report.applied, "version": report.version})
    for version in report.applied:
        session.output.print(f"applied {version}")
    session.output.print(f"the ledger is at version {report.version}" + ("" if report.applied else "; nothing was missing"))


def _tell_pending(session: Session) -> None:
    from ledgerq.ledger.migrate import pending

    missing = pending(_owner_dsn(session))
    session.output.document({"pending": missing})
    session.output.print("\n".join(f"missing {version}" for version in missing) or "nothing is missing")


def _owner_dsn(session: Session) -> str:
    """A stack's own database is migrated as its owner; services connect as somebody who may not."""
    return environment.migration_url(session.data_dir) or session.settings.database_dsn
