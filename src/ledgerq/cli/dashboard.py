"""`dashboard`: rq-dashboard on the Redis of these settings, for this machine only."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Annotated

import typer

from ledgerq.cli.options import DataDir, Debug
from ledgerq.cli.session import open_session
from ledgerq.errors import ConfigurationError


def dashboard(
    port: Annotated[int, typer.Option("--port", "-p", min=1, max=65535, help="On the loopback interface.")] = 9181,
    data_dir: DataDir = None,
    debug: Debug = False,
) -> None:
    """Show what is in Redis in a browser (rq-dashboard), on the loopback interface, without buttons that delete."""
    with open_session(data_dir, as_json=False, debug=debug) as session:
        program = _program()
        session.output.note(f"http://127.0.0.1:{port}   (Ctrl-C ends it)")
        # By the environment: command lines are public, and the URL holds the password.
        os.environ["RQ_DASHBOARD_REDIS_URL"] = session.settings.redis_dsn
        words = [str(program), "--bind", "127.0.0.1", "--port", str(port), "--json", "--disable-delete"]
    os.execv(program, words)  # noqa: S606 - it takes our place, and Ctrl-C with it


def _program() -> Path:
    program = Path(sys.executable).with_name("rq-dashboard")
    if not program.exists():
        raise ConfigurationError("rq-dashboard is not installed here: pip install 'ledgerq[dashboard]'")
    return program
