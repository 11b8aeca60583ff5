"""`worker` and `steward`: what runs as long as the installation does."""

from __future__ import annotations

import signal
from contextlib import suppress
from threading import Event
from types import FrameType
from typing import TYPE_CHECKING, Annotated

import typer

from ledgerq.cli.exit_codes import ExitCode
from ledgerq.cli.options import DataDir, Debug, QueueName
from ledgerq.cli.output import Output
from ledgerq.cli.session import Session, check_queue, open_session
from ledgerq.errors import ServiceUnavailable

if TYPE_CHECKING:
    from ledgerq.stewardship.steward import StewardReport


def worker(
    queue: QueueName = None,
    burst: Annotated[bool, typer.Option("--burst", "-b", help="End when the queue is empty.")] = False,
    name: Annotated[str | None, typer.Option("--name", help="As RQ and the ledger show it. [default: made up]")] = None,
    no_steward: Annotated[bool, typer.Option("--no-steward", help="Without the steward that runs beside it.")] = False,
    data_dir: DataDir = None,
    debug: Debug = False,
) -> None:
    """Work on one queue: the stock RQ worker with the JSON serializer, and a steward beside it. SIGTERM ends it after its run."""
    from ledgerq import assembly
    from ledgerq.execution.worker_class import open_worker

    with open_session(data_dir, as_json=False, debug=debug) as session:
        settings = session.settings
        _check_queue_early(session, queue or settings.queue)
        one = open_worker(
            settings,
            assembly.worker_parts(settings),
            queue=queue,
            name=name,
            steward=None if no_steward else lambda: assembly.steward(settings),
        )
        session.output.note(f"worker {one.name} on queue {queue or settings.queue}; Ctrl-C or SIGTERM ends it after its run")
        one.work(burst=burst, logging_level="DEBUG" if debug else settings.log_level.upper())


def steward(
    once: Annotated[bool, typer.Option("--once", help="One round, and end.")] = False, data_dir: DataDir = None, debug: Debug = False
) -> None:
    """Dispatch what is due, reconcile with RQ, rescue the work of the dead, prune. Any number may run; SIGTERM ends one."""
    from ledgerq import assembly

    with open_session(data_dir, as_json=False, debug=debug) as session, assembly.steward(session.settings) as one:
        if once:
            _tell_round(session.output, one.run_once())
        else:
            one.run_forever(_stop_on_signals())


def _check_queue_early(session: Session, queue: str) -> None:
    """A ledger that is away is waited for later, by the worker. Its connections are closed again: no client goes through a fork."""
    with suppress(ServiceUnavailable), open_session(session.data_dir, as_json=False, debug=session.debug) as brief:
        check_queue(brief, queue)


def _stop_on_signals() -> Event:
    """Set by Ctrl-C or SIGTERM: the round that is being made is finished."""
    stop = Event()

    def receive(_number: int, _frame: FrameType | None) -> None:
        stop.set()

    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(number) is not signal.SIG_IGN:  # as `nohup` and a shell's background leave it
            signal.signal(number, receive)
    return stop


def _tell_round(output: Output, report: StewardReport) -> None:
    """One line, and one for each duty that could not be done.

    Raises:
        LedgerUnavailable: the ledger did not answer, so there was nothing to do.
    """
    applied = 0 if report.reconciled is None else len(report.reconciled.applied)
    output.text(f"{report.pushed} runs pushed, {applied} runs reconciled, {len(report.expired)} jobs past their deadline")
    for duty, failure in report.failures.items():
        output.complain(f"{duty}: {failure}")
    if report.failures:
        raise typer.Exit(ExitCode.UNAVAILABLE)
