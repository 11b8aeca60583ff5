"""The tree of commands."""

from __future__ import annotations

from typing import Annotated

import typer

from ledgerq import __version__
from ledgerq.cli import dashboard, demo, doctor, ingest, jobs, migrate, queues, search, stack, workers

app = typer.Typer(
    name="ledgerq",
    help="Durable RQ jobs with Postgres (Supabase) as the source of truth.\n\n"
    "Services come from the environment (DATABASE_URL, REDIS_URL, QDRANT_URL …), or from the stack that `ledgerq up` runs.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(__version__)
        raise typer.Exit


@app.callback()
def ledgerq(
    version: Annotated[bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version.")] = False,
) -> None:
    del version  # its callback has done all there is to do


app.command("up", rich_help_panel="Stack")(stack.up)
app.command("down", rich_help_panel="Stack")(stack.down)
app.command("status", rich_help_panel="Stack")(stack.status)
app.command("demo", rich_help_panel="Stack")(demo.demo)
app.command("ingest", rich_help_panel="Documents")(ingest.ingest)
app.command("search", rich_help_panel="Documents")(search.search)
app.add_typer(jobs.app, name="jobs", rich_help_panel="Jobs")
app.add_typer(queues.app, name="queue", rich_help_panel="Jobs")
app.command("worker", rich_help_panel="Running")(workers.worker)
app.command("steward", rich_help_panel="Running")(workers.steward)
app.command("dashboard", rich_help_panel="Running")(dashboard.dashboard)
app.command("migrate", rich_help_panel="Running")(migrate.migrate)
app.command("doctor", rich_help_panel="Running")(doctor.doctor)
