"""`queue save|pause|resume|stats`."""

from __future__ import annotations

import shlex
from typing import Annotated

import typer

from ledgerq.cli.options import AsJson, DataDir, Debug, typed_text
from ledgerq.cli.output import short_seconds
from ledgerq.cli.session import open_session

app = typer.Typer(help="Make, pause and resume queues, and see how full they are.", no_args_is_help=True)

Queue = Annotated[str, typer.Argument(metavar="QUEUE", callback=typed_text, help="The name of a queue.")]


@app.command()
def save(
    queue: Annotated[str, typer.Argument(metavar="QUEUE", callback=typed_text, help="Its name, in RQ as well.", show_default=False)],
    depth: Annotated[int | None, typer.Option(help="Most runs that wait in Redis at once.")] = None,
    run_size: Annotated[int | None, typer.Option(help="Most tasks in one run.")] = None,
    max_attempts: Annotated[int | None, typer.Option(help="Tries of a task whose job names none.")] = None,
    timeout_s: Annotated[float | None, typer.Option("--timeout", help="Seconds for a task whose job names none.")] = None,
    max_concurrent_jobs: Annotated[int | None, typer.Option(help="Most jobs that are being worked on at once.")] = None,
    data_dir: DataDir = None,
    as_json: AsJson = False,
    debug: Debug = False,
) -> None:
    """Make a queue, or change the limits that are given; the others stay."""
    from ledgerq.ledger.answers import QueueLimits
    from ledgerq.manager.requests import built, given

    limits = {
        "depth": depth,
        "run_size": run_size,
        "max_attempts": max_attempts,
        "timeout_s": timeout_s,
        "max_concurrent_jobs": max_concurrent_jobs,
    }
    with open_session(data_dir, as_json=as_json, debug=debug) as session:
        session.jobs.save_queue(queue, built(QueueLimits, given(limits)))
        (saved,) = session.jobs.queue_stats(queue)
        session.output.document({"queue": saved})
        session.output.text(f"{queue} is there: at most {saved.depth} runs of it wait in Redis")


@app.command()
def pause(queue: Queue = "processing", data_dir: DataDir = None, as_json: AsJson = False, debug: Debug = False) -> None:
    """Hand out no new tasks of the queue. What is being worked on is finished; what waits keeps its place."""
    with open_session(data_dir, as_json=as_json, debug=debug) as session:
        session.jobs.pause_queue(queue)
        session.output.document({"queue": queue, "paused": True})
        session.output.print(f"{queue} is paused; `ledgerq queue resume{session.where} {shlex.quote(queue)}` goes on")


@app.command()
def resume(queue: Queue = "processing", data_dir: DataDir = None, as_json: AsJson = False, debug: Debug = False) -> None:
    """Go on handing out tasks of the queue."""
    with open_session(data_dir, as_json=as_json, debug=debug) as session:
        session.jobs.resume_queue(queue)
        session.output.document({"queue": queue, "paused": False})
        session.output.print(f"{queue} goes on")


@app.command()
def stats(
    queue: Annotated[str | None, typer.Argument(metavar="[QUEUE]", callback=typed_text, help="Only this one.")] = None,
    data_dir: DataDir = None,
    as_json: AsJson = False,
    debug: Debug = False,
) -> None:
    """What waits, what is in Redis, what is being worked on, and how old the oldest waiting task is."""
    with open_session(data_dir, as_json=as_json, debug=debug) as session:
        found = session.jobs.queue_stats(queue)
        session.output.document({"queues": found})
        rows = [
            (
                one.queue,
                "paused" if one.paused else "open",
                one.ready,
                one.due_later,
                f"{one.dispatched} of {one.depth}",
                one.running,
                short_seconds(one.oldest_ready_s),
            )
            for one in found
        ]
        headings = ("queue", "", "ready", "due later", "runs in Redis", "runs at work", "oldest ready")
        session.output.table(headings, rows, empty="there are no queues")
