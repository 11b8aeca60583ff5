"""`up`, `down` and `status`: the embedded stack of a data directory."""

from __future__ import annotations

import os
import shlex
import sys
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ledgerq.cli.environment import data_directory, elsewhere
from ledgerq.cli.exit_codes import ExitCode
from ledgerq.cli.files import shown
from ledgerq.cli.log_output import show_logs
from ledgerq.cli.options import AsJson, DataDir, Debug, QueueName
from ledgerq.cli.output import Output
from ledgerq.errors import LocalStackError

if TYPE_CHECKING:
    from ledgerq.local.stack import Stack
    from ledgerq.local.state import ServerName, Service, StackStatus

UNREGISTERED_SECONDS = 5.0
"""How long a worker has to live to be trusted where it cannot be asked for in the stack's own Valkey."""
Workers = Annotated[int, typer.Option("--workers", "-w", min=0, max=64, help="Worker processes; 0 starts the servers alone.")]


def up(
    detach: Annotated[bool, typer.Option("--detach", "-d", help="Return when everything runs; end it with `ledgerq down`.")] = False,
    workers: Workers = 1,
    queue: QueueName = None,
    data_dir: DataDir = None,
    as_json: AsJson = False,
    debug: Debug = False,
) -> int:
    """Start PostgreSQL, Valkey, a vector server and workers on this machine, and keep them running.

    A service that a variable names (DATABASE_URL, REDIS_URL, QDRANT_URL) is used instead of starting one. Exit 4 when
    everything was started and a worker does not run: it is started again and again.
    """
    from ledgerq.settings import Settings

    output = Output(as_json=as_json)
    directory = data_directory(data_dir)
    show_logs(Settings(), debug=debug)
    _tell_what_is_elsewhere(output)
    stack = make_stack(directory, [worker_service(number, queue) for number in range(1, workers + 1)])
    if detach:
        return _up_detached(stack, output)
    output.note(f"starting in {shown(directory)} …")
    return _up_here(stack, output)


def _up_detached(stack: Stack, output: Output) -> int:
    with _one_document(output):
        found = stack.up(spare_handlers=False)  # the command has none of its own
    show(output, found, end="ledgerq down")
    return ExitCode.OK if found.ok else ExitCode.UNAVAILABLE


def _up_here(stack: Stack, output: Output) -> int:
    """One document, whatever happens: how it started, or why it did not."""
    shown_already = False

    def tell(found: StackStatus) -> None:
        nonlocal shown_already
        show(output, found, end="Ctrl-C, or ledgerq down")
        shown_already = True

    try:
        with _one_document(output):
            stack.run(dict(os.environ), on_ready=tell)
    except LocalStackError as error:
        if not shown_already:
            raise
        output.note(f"ledgerq: {error}")
        return ExitCode.LOCAL_STACK
    output.note("stopped")
    return ExitCode.OK


@contextmanager
def _one_document(output: Output) -> Generator[None]:
    """A signal that came before the stack was ready is told like an error, with the exit code of the signal."""
    from ledgerq.local.signals import StopRequested

    try:
        yield
    except StopRequested as request:
        output.document({"error": {"code": request.exit_code, "kind": type(request).__name__, "message": str(request)}})
        output.complain(f"{request}; nothing is left running")
        raise typer.Exit(request.exit_code) from request


def down(data_dir: DataDir = None, as_json: AsJson = False, debug: Debug = False) -> None:
    """Stop the stack of the data directory, also what a killed one left running."""
    output = Output(as_json=as_json)
    stack = make_stack(data_directory(data_dir))
    stopped = stack.down()
    output.document({"data_dir": str(stack.data_dir), "stopped": stopped})
    output.text(f"stopped the stack in {shown(stack.data_dir)}" if stopped else f"nothing ran in {shown(stack.data_dir)}")
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
    """Those that no variable gives an address of."""
    from ledgerq.local.state import ServerName

    return [server for server, variable in zip(ServerName, elsewhere(environment), strict=True) if variable is None]


def _tell_what_is_elsewhere(output: Output) -> None:
    from ledgerq.local.state import ServerName

    for server, variable in zip(ServerName, elsewhere(os.environ), strict=True):
        if variable is not None:
            output.note(f"not started: {server.value}, for {variable} is set")


def worker_service(number: int, queue: str | None) -> Service:
    """`ledgerq worker` as a service of the stack."""
    from ledgerq.local.state import Service

    words = ["--queue", queue] if queue else []
    # -P: what lies in the working directory never stands in for a package of ours. LEDGERQ_APP is found there all the same.
    argv = (sys.executable, "-P", "-m", "ledgerq", "worker", *words)
    return Service(name=f"worker-{number}", argv=argv, settle_s=UNREGISTERED_SECONDS, registers=True)


def show(output: Output, found: StackStatus, *, end: str | None = None) -> None:
    """The parts of the stack; and how to go on, where it is said how to end it."""
    output.document({"ok": found.ok, **found.model_dump(mode="json")})
    directory = Path(found.data_dir)
    if not found.running:
        output.text(f"no stack runs in {shown(directory)}: start one with `ledgerq up`")
        if found.error:
            output.text(f"the last one ended by itself: {found.error}")
        return
    rows = [(part.name, part.state.value, part.pid, part.url, part.restarts or None) for part in found.parts]
    output.table(("part", "state", "pid", "address", "restarts"), rows, empty="no parts")
    for part in found.parts:
        if part.problem:
            output.text(f"{part.name} {part.problem}")
    if found.error:
        output.text(found.error)
    if end:
        where = "" if directory == Path(os.path.realpath(data_directory(None))) else f" --data-dir {shlex.quote(shown(directory))}"
        ready = "ready" if found.ok else f"started, but not all of it runs: see {shown(directory / 'logs')}"
        output.note(f"{ready}. Try: ledgerq ingest{where} FILE…   ledgerq search{where} 'QUERY'   end it: {end}{where}")
