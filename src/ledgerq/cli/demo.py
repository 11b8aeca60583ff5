"""`demo`: the whole way on this machine alone, from files to hits, and nothing left running at the end."""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Generator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Annotated, Final

import typer

from ledgerq.cli import demo_report, ingesting
from ledgerq.cli.demo_directory import DEFAULT_DIR, held
from ledgerq.cli.demo_report import Cost
from ledgerq.cli.files import FileSet, find_files, shown, typed_path
from ledgerq.cli.options import AsJson, Debug, typed_directory
from ledgerq.cli.output import Output
from ledgerq.cli.session import Session, open_session
from ledgerq.errors import InvalidInput

if TYPE_CHECKING:
    from ledgerq.local.stack import Stack
    from ledgerq.local.state import Service

WORKERS: Final = 2
OWN_FILES: Final = ("README.md", "docs", "examples/documents")
"""What is ingested when nothing is named: the project's own pages."""
OF_ANYBODY: Final = frozenset({"LEDGERQ_LOG_LEVEL", "LEDGERQ_LOG_FORMAT"})
"""Settings that say how to tell things, not what to do or where."""


def demo(
    paths: Annotated[
        list[Path] | None, typer.Argument(metavar="[PATH…]", parser=typed_path, help="Files and folders of yours.", show_default=False)
    ] = None,
    keep: Annotated[bool, typer.Option("--keep", help="Leave everything running at the end.")] = False,
    data_dir: Annotated[
        Path | None,
        typer.Option(
            "--data-dir",
            metavar="DIRECTORY",
            parser=typed_directory,
            help="Where its servers live. [default: .ledgerq-demo, made anew each time]",
            show_default=False,
        ),
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
    forgotten = forget_settings()
    stack = _stack(directory)
    with held(stack, output, own=directory if data_dir is None else None), _stopped_at_the_end(stack, output) as ending:
        begun = time.monotonic()
        output.note(f"starting PostgreSQL, Valkey, a vector server, {WORKERS} RQ workers and a steward in {shown(directory)} …")
        stack.up()
        started_s = time.monotonic() - begun
        with open_session(directory, as_json=as_json, debug=debug) as session:
            code = _run(session, sets, default=not paths, started_s=started_s)
        ending.finished, ending.keep = True, keep
    demo_report.tell_how_to_go_on(output, directory, kept=keep, forgotten=forgotten)
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


def forget_settings() -> list[str]:
    """The demo writes to its own servers only, costs nobody anything, and is the same everywhere. The variables that were set."""
    known = {name.upper() for name in _names_of_settings()} - OF_ANYBODY
    # Those of RQ's own command line outweigh the settings module that we name to it.
    found = sorted(name for name in os.environ if name.upper() in known or name.startswith("RQ_"))
    for name in found:
        del os.environ[name]
    return found


def _names_of_settings() -> set[str]:
    from pydantic import AliasChoices

    from ledgerq.settings import Settings

    aliases = [field.validation_alias for field in Settings.model_fields.values()]
    return {str(name) for alias in aliases if isinstance(alias, AliasChoices) for name in alias.choices}


def _stack(directory: Path) -> Stack:
    from ledgerq.local.stack import Stack

    services = [_rq_worker(number, directory) for number in range(1, WORKERS + 1)]
    return Stack(directory, services=[*services, _steward(directory)], grace_s=5.0)


def _rq_worker(number: int, directory: Path) -> Service:
    """The stock command, as anybody would type it. Redis comes by the environment.

    RQ imports from where it is started: there, nobody's `queue.py` lies about.
    """
    from ledgerq.local.state import Service

    program = Path(sys.executable).with_name("rq")
    words = ("worker", "-S", "json", "-c", "ledgerq.rq_settings", "--quiet", "processing")
    return Service(name=f"worker-{number}", argv=(str(program), *words), cwd=str(directory), registers=True)


def _steward(directory: Path) -> Service:
    from ledgerq.local.state import Service

    return Service(name="steward", argv=(sys.executable, "-P", "-m", "ledgerq", "steward"), cwd=str(directory), settle_s=0.5)


@dataclass(slots=True)
class _Ending:
    """What is to become of the stack when the demo ends."""

    keep: bool = False
    finished: bool = False


@contextmanager
def _stopped_at_the_end(stack: Stack, output: Output) -> Generator[_Ending]:
    """Whatever ends the block, a signal too, ends the stack unless it is to be kept. No signal cuts the ending short."""
    ending = _Ending()
    wanted = [number for number in (signal.SIGTERM, signal.SIGHUP) if signal.getsignal(number) is not signal.SIG_IGN]
    before = {number: signal.signal(number, _exit_on) for number in wanted}  # what `nohup` has ignored stays ignored
    try:
        yield ending
    finally:
        before[signal.SIGINT] = signal.getsignal(signal.SIGINT)
        for number in before:
            signal.signal(number, signal.SIG_IGN)
        try:
            if not ending.keep:
                _stop(stack, output, hurry=not ending.finished)
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)


def _stop(stack: Stack, output: Output, *, hurry: bool) -> None:
    with suppress(OSError, SystemExit):  # nothing that is said keeps the stack alive
        output.note("stopping everything …")
    stack.down(grace_s=0.0 if hurry else None)
    with suppress(OSError, SystemExit):
        output.note("nothing is left running")


def _exit_on(number: int, _frame: FrameType | None) -> None:
    sys.exit(128 + number)
