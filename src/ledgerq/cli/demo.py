"""`demo`: the whole way on this machine alone, from files to hits, and nothing left running at the end."""

from __future__ import annotations

import os
import shutil
import signal
import sys
import time
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Annotated, Final

import typer

from ledgerq.cli import demo_report, ingesting
from ledgerq.cli.demo_report import Cost
from ledgerq.cli.environment import PARTS
from ledgerq.cli.files import FileSet, find_files, shown, typed_path
from ledgerq.cli.options import AsJson, Debug
from ledgerq.cli.output import Output
from ledgerq.cli.session import Session, open_session
from ledgerq.errors import InvalidInput

if TYPE_CHECKING:
    from ledgerq.local.stack import Stack
    from ledgerq.local.state import Service

DEFAULT_DIR: Final = Path(".ledgerq-demo")
WORKERS: Final = 2
OWN_FILES: Final = ("README.md", "docs", "examples/documents")
"""What is ingested when nothing is named: the project's own pages."""
IGNORED: Final = ("LEDGERQ_APP", "LEDGERQ_QUEUE", "JOB_QUEUE_NAME", "LEDGERQ_COLLECTION", "OPENAI_API_KEY")


def demo(
    paths: Annotated[
        list[Path] | None, typer.Argument(metavar="[PATH…]", parser=typed_path, help="Files and folders of yours.", show_default=False)
    ] = None,
    keep: Annotated[bool, typer.Option("--keep", help="Leave everything running at the end.")] = False,
    data_dir: Annotated[
        Path | None, typer.Option("--data-dir", help="Where its servers live. [default: .ledgerq-demo, made anew each time]")
    ] = None,
    as_json: AsJson = False,
    debug: Debug = False,
) -> int:
    """Start a stack, make documents searchable with stock RQ workers, search them, and stop it again.

    It uses its own servers whatever the environment names, and needs no network. Exit 0 when all documents were indexed,
    3 when some could not be.
    """
    output = Output(as_json=as_json)
    sets = _file_sets(paths)
    directory = (data_dir or DEFAULT_DIR).absolute()
    _forget_services()
    stack = _stack(directory)
    with _stopped_at_the_end(stack, output) as ending:
        _clear(stack, output, anew=data_dir is None)
        begun = time.monotonic()
        output.note(f"starting PostgreSQL, Valkey, a vector server, {WORKERS} RQ workers and a steward in {shown(directory)} …")
        stack.up()
        started_s = time.monotonic() - begun
        with open_session(directory, as_json=as_json, debug=debug) as session:
            code = _run(session, sets, default=not paths, started_s=started_s)
        ending.finished, ending.keep = True, keep
    demo_report.tell_how_to_go_on(output, directory, kept=keep)
    return code


def _run(session: Session, sets: Sequence[FileSet], *, default: bool, started_s: float) -> int:
    begun = time.monotonic()
    started = ingesting.start(session.store, session.jobs, sets, tenant="", source=None)
    ended = ingesting.wait(session.jobs, started)
    took_s = time.monotonic() - begun
    documents = ingesting.report(session.jobs, started, [file for one in sets for file in one.left_out])
    cost = Cost.of(documents, started_s=started_s, took_s=took_s)
    searches = demo_report.search_all(session, documents, default=default)
    demo_report.tell(session.output, documents, searches, cost)
    session.output.document(demo_report.document(ended, documents, searches, cost))
    return demo_report.exit_code(documents)


def _file_sets(paths: Sequence[Path] | None) -> tuple[FileSet, ...]:
    if paths:
        return find_files(paths)
    root = Path(__file__).resolve().parents[3]
    own = [root / name for name in OWN_FILES if (root / name).exists()]
    if len(own) < len(OWN_FILES):
        raise InvalidInput("name files or folders to try it on: this installation has no documents of its own")
    return find_files(own)


def _forget_services() -> None:
    """The demo writes to its own servers only, and costs nobody anything."""
    for name in {name for part in PARTS for name in part} | set(IGNORED):
        os.environ.pop(name, None)


def _stack(directory: Path) -> Stack:
    from ledgerq.local.stack import Stack

    services = [_rq_worker(number) for number in range(1, WORKERS + 1)]
    return Stack(directory, services=[*services, _steward()], grace_s=5.0)


def _rq_worker(number: int) -> Service:
    """The stock command, as anybody would type it. Redis comes by the environment."""
    from ledgerq.local.state import Service

    program = Path(sys.executable).with_name("rq")
    words = ("worker", "-S", "json", "-c", "ledgerq.rq_settings", "--quiet", "processing")
    return Service(name=f"worker-{number}", argv=(str(program), *words), registers=True)


def _steward() -> Service:
    from ledgerq.local.state import Service

    return Service(name="steward", argv=(sys.executable, "-P", "-m", "ledgerq", "steward"), settle_s=0.5)


def _clear(stack: Stack, output: Output, *, anew: bool) -> None:
    """End what an earlier demo left, and forget its data when the directory is the demo's own."""
    if stack.down(grace_s=0.0):
        output.note(f"ended the stack that ran in {shown(stack.data_dir)}")
    if anew and stack.data_dir.exists():
        shutil.rmtree(stack.data_dir)


@dataclass(slots=True)
class _Ending:
    """What is to become of the stack when the demo ends."""

    keep: bool = False
    finished: bool = False


@contextmanager
def _stopped_at_the_end(stack: Stack, output: Output) -> Generator[_Ending]:
    """Whatever ends the block, a signal too, ends the stack unless it is to be kept. No signal cuts the ending short."""
    ending = _Ending()
    before = {number: signal.signal(number, _exit_on) for number in (signal.SIGTERM, signal.SIGHUP)}
    try:
        yield ending
    finally:
        before[signal.SIGINT] = signal.getsignal(signal.SIGINT)
        for number in before:
            signal.signal(number, signal.SIG_IGN)
        if not ending.keep:
            output.note("stopping everything …")
            stack.down(grace_s=None if ending.finished else 0.0)
            output.note("nothing is left running")
        for number, handler in before.items():
            signal.signal(number, handler)


def _exit_on(number: int, _frame: FrameType | None) -> None:
    sys.exit(128 + number)
