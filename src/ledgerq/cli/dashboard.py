"""`dashboard`: rq-dashboard on the Redis of these settings, for this machine only."""

from __future__ import annotations

import os
import socket
import sys
from contextlib import closing
from pathlib import Path
from typing import Annotated

import typer

from ledgerq.cli.options import DataDir, Debug
from ledgerq.cli.session import Session, open_session
from ledgerq.errors import ConfigurationError, InvalidInput


def dashboard(
    port: Annotated[int, typer.Option("--port", "-p", min=1, max=65535, help="On the loopback interface.")] = 9181,
    data_dir: DataDir = None,
    debug: Debug = False,
) -> None:
    """Show what is in Redis in a browser (rq-dashboard), on the loopback interface, without buttons that delete."""
    with open_session(data_dir, as_json=False, debug=debug) as session:
        program = _program()
        _check_port(port)
        _check_redis(session)
        session.output.note(f"http://127.0.0.1:{port}   (Ctrl-C ends it)")
        # By the environment: command lines are public, and the URL holds the password.
        os.environ["RQ_DASHBOARD_REDIS_URL"] = session.settings.redis_dsn
        words = [str(program), "--bind", "127.0.0.1", "--port", str(port), "--json", "--disable-delete"]
    os.execv(program, words)  # noqa: S606 - it takes our place, and Ctrl-C with it


def _check_port(port: int) -> None:
    with socket.socket() as trial:
        trial.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # as the dashboard does: what has just ended is no hindrance
        try:
            trial.bind(("127.0.0.1", port))
        except OSError as error:
            raise InvalidInput(f"--port: {port} cannot be used on 127.0.0.1 ({error.strerror}); name another one") from None


def _check_redis(session: Session) -> None:
    from ledgerq.cli.checks.redis_server import information
    from ledgerq.dispatch.connection import connect_redis

    with closing(connect_redis(session.settings)) as redis:
        information(redis, session.settings)


def _program() -> Path:
    program = Path(sys.executable).with_name("rq-dashboard")
    if not program.exists():
        raise ConfigurationError("rq-dashboard is not installed here: pip install 'ledgerq[dashboard]'")
    return program
