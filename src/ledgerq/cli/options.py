"""Options that many commands share, so that they are spelled and explained once."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, TypeAlias

import typer

DataDir: TypeAlias = Annotated[
    Path | None,
    typer.Option(
        "--data-dir",
        help="Directory of an embedded stack. While one runs there, it supplies every service that no variable names. "
        "[env: LEDGERQ_DATA_DIR; default: .ledgerq]",
        show_default=False,
    ),
]
AsJson: TypeAlias = Annotated[bool, typer.Option("--json", help="Print exactly one JSON document on stdout.")]
Debug: TypeAlias = Annotated[bool, typer.Option("--debug", help="Log everything to stderr; show tracebacks.")]
Tenant: TypeAlias = Annotated[str | None, typer.Option("--tenant", help="Only what belongs to this tenant.", show_default=False)]
ForTenant: TypeAlias = Annotated[str, typer.Option("--tenant", help="The tenant that it belongs to.", show_default=False)]
QueueName: TypeAlias = Annotated[
    str | None, typer.Option("--queue", "-q", help="The queue. [env: LEDGERQ_QUEUE; default: processing]", show_default=False)
]
JobIds: TypeAlias = Annotated[list[str], typer.Argument(metavar="JOB…", help="Ids of jobs.")]
JobId: TypeAlias = Annotated[str, typer.Argument(metavar="JOB", help="The id of a job.")]
