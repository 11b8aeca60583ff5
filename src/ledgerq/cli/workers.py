"""`worker` and `steward`: what runs as long as the installation does."""

from __future__ import annotations

from typing import Annotated

import typer

from ledgerq.cli.options import DataDir, Debug, QueueName
from ledgerq.cli.session import open_session


def worker(
    queue: QueueName = None,
    burst: Annotated[bool, typer.Option("--burst", "-b", help="End when the queue is empty.")] = False,
    name: Annotated[str | None, typer.Option("--name", help="As RQ and the ledger show it. [default: made up]")] = None,
    no_steward: Annotated[bool, typer.Option("--no-steward", help="Without the steward that runs beside it.")] = False,
    data_dir: DataDir = None,
    debug: Debug = False,
) -> None:
    """Work on one queue: the stock RQ worker with the JSON serializer, and a steward beside it. SIGTERM ends it after its run."""
    with open_session(data_dir, as_json=False, debug=debug) as session:
        raise NotImplementedError


def steward(
    once: Annotated[bool, typer.Option("--once", help="One round, and end.")] = False, data_dir: DataDir = None, debug: Debug = False
) -> None:
    """Dispatch what is due, reconcile with RQ, rescue the work of the dead, prune. Any number may run."""
    with open_session(data_dir, as_json=False, debug=debug) as session:
        raise NotImplementedError
