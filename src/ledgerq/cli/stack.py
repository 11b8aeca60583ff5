"""`up`, `down` and `status`: the embedded stack of a data directory."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ledgerq.cli.environment import PARTS, data_directory
from ledgerq.cli.exit_codes import ExitCode
from ledgerq.cli.files import shown
from ledgerq.cli.log_output import show_logs
from ledgerq.cli.options import AsJson, DataDir, Debug, QueueName
from ledgerq.cli.output import Output

if TYPE_CHECKING:
    from ledgerq.local.stack import Stack
    from ledgerq.local.state import ServerName, Service, StackStatus

Workers = Annotated[int, typer.Option("--workers", "-w", min=0, max=64, help="Worker processes; 0 starts the servers alone.")]


def up(
    detach: Annotated[bool, typer.Option("--detach", "-d", help="Return when everything runs; end it with `ledgerq down`.")] = False,
    workers: Workers = 1,
    queue: QueueName = None,
    data_dir: DataDir = None,
    as_json: AsJson = False,
    debug: Debug = False,
) -> None:
    """Start PostgreSQL, Valkey, a vector server and workers on this machine, and keep them running.

    A service that a variable names (DATABASE_URL, REDIS_URL, QDRANT_URL) is used instead of starting one.
    """
    from ledgerq.settings import Settings

    output = Output(as_json=as_json)
    directory = data_directory(data_dir)
    show_logs(Settings(), debug=debug)
    stack = make_stack(directory, [worker_service(number, queue) for number in range(1, workers + 1)])
    if detach:
        show(output, stack.up(), end="ledgerq down")
        return
    output.note(f"starting in {shown(directory)} …")
    stack.run(dict(os.environ), on_ready=lambda found: show(output, found, end="Ctrl-C, or ledgerq down"))
    output.note("stopped")


def down(data_dir: DataDir = None, as_json: AsJson = False, debug: Debug = False) -> None:
    """Stop the stack of the data directory, also what a killed one left running."""
    output = Output(as_json=as_json)
    directory = data_directory(data_dir)
    stopped = make_stack(directory).down()
    output.document({"data_dir": str(directory), "stopped": stopped})
    output.print(f"stopped the stack in {shown(directory)}" if stopped else f"nothing ran in {shown(directory)}")
    del debug


def status(data_dir: DataDir = None, as_json: AsJson = False, debug: Debug = False) -> int:
    """Ask every part of the stack for an answer. Exit 0 only when all of it answers."""
    output = Output(as_json=as_json)
    found = make_stack(data_directory(data_dir)).status()
    show(output, found)
    del debug
    return ExitCode.OK if found.ok else ExitCode.UNAVAILABLE


def make_stack(directory: Path, services: list[Service] | None = None) -> Stack:
    """The stack of a directory, without the servers that the environment names already."""
    from ledgerq.local.stack import Stack

    return Stack(directory, servers=servers_to_run(os.environ), services=services or [])


def servers_to_run(environment: Mapping[str, str]) -> list[ServerName]:
    """Those whose variables are all unset."""
    from ledgerq.local.state import ServerName

    parts = zip((ServerName.POSTGRES, ServerName.VALKEY, ServerName.VECTORS), PARTS, strict=True)
    return [server for server, variables in parts if not any(environment.get(name) for name in variables)]


def worker_service(number: int, queue: str | None) -> Service:
    """`ledgerq worker` as a service of the stack."""
    from ledgerq.local.state import Service

    words = ["--queue", queue] if queue else []
    return Service(name=f"worker-{number}", argv=(sys.executable, "-m", "ledgerq", "worker", *words))


def show(output: Output, found: StackStatus, *, end: str | None = None) -> None:
    """The parts of the stack; and how to go on, where it is said how to end it."""
    output.document({"ok": found.ok, **found.model_dump(mode="json")})
    directory = Path(found.data_dir)
    if not found.running:
        output.print(f"no stack runs in {shown(directory)}: start one with `ledgerq up`")
        return
    rows = [
        (part.name, "answers" if part.answering else "does not answer", part.pid, part.url, part.restarts or None) for part in found.parts
    ]
    output.table(("part", "state", "pid", "address", "restarts"), rows, empty="no parts")
    if found.error:
        output.print(found.error)
    if end:
        where = "" if found.data_dir == str(data_directory(None)) else f" --data-dir {shown(directory)}"
        output.note(f"ready. Try: ledgerq ingest{where} FILE…   ledgerq search{where} 'QUERY'   end it: {end}{where}")
