"""Options that many commands share, so that they are spelled and explained once."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, TypeAlias

import typer


def typed_directory(text: str) -> Path:
    """A directory from the command line. Empty, as an unset variable of a script is, it would mean the working directory."""
    if not text:
        raise typer.BadParameter("is empty; the working directory is written as `.`")
    return Path(text)


def typed_text(text: str | None) -> str | None:
    """Text from the command line, which may hold any bytes."""
    if text is not None and any("\ud800" <= character <= "\udfff" for character in text):
        raise typer.BadParameter(f"{text!a} is not UTF-8")
    return text


DataDir: TypeAlias = Annotated[
    Path | None,
    typer.Option(
        "--data-dir",
        metavar="DIRECTORY",
        parser=typed_directory,
        help="Directory of an embedded stack. While one runs there, it supplies every service that no variable names. "
        "[env: LEDGERQ_DATA_DIR; default: .ledgerq]",
        show_default=False,
    ),
]
AsJson: TypeAlias = Annotated[bool, typer.Option("--json", help="Print exactly one JSON document on stdout.")]
Debug: TypeAlias = Annotated[bool, typer.Option("--debug", help="Log everything to stderr; show tracebacks.")]
Tenant: TypeAlias = Annotated[
    str | None, typer.Option("--tenant", callback=typed_text, help="Only what belongs to this tenant.", show_default=False)
]
ForTenant: TypeAlias = Annotated[
    str, typer.Option("--tenant", callback=typed_text, help="The tenant that it belongs to.", show_default=False)
]
QueueName: TypeAlias = Annotated[
    str | None,
    typer.Option("--queue", "-q", callback=typed_text, help="The queue. [env: LEDGERQ_QUEUE; default: processing]", show_default=False),
]
JobIds: TypeAlias = Annotated[list[str], typer.Argument(metavar="JOB…", help="Ids of jobs.")]
JobId: TypeAlias = Annotated[str, typer.Argument(metavar="JOB", help="The id of a job.")]
