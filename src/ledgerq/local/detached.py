"""The process of a supervisor that outlives its starter: `python -m ledgerq.local.detached DATA_DIR`, the plan on stdin.

It takes the claim, forks, and lets the first process end: the starter waits for that one only, and has no child left.
"""

from __future__ import annotations

import os
import signal
import sys
import traceback
from pathlib import Path

from ledgerq.errors import LocalStackError
from ledgerq.local.layout import ALREADY_RUNNING, AlreadyRunning, Claim, Layout
from ledgerq.local.logs import log_lines
from ledgerq.local.migrations import migrate
from ledgerq.local.signals import StopRequested, StopSignals
from ledgerq.local.state import Plan
from ledgerq.local.supervisor import Supervisor


def main() -> None:
    signal.pthread_sigmask(signal.SIG_SETMASK, ())  # our starter held them back while it started us
    layout = Layout(Path(sys.argv[1]))
    plan = Plan.model_validate_json(sys.stdin.buffer.read())
    log_lines(sys.stderr)
    os.umask(0o077)
    try:
        with Claim(layout, plan.run_id) as claim:
            if os.fork():
                os._exit(0)
            os.setsid()
            claim.sign()
            with StopSignals() as signals:
                Supervisor(layout, plan, dict(os.environ), migrate, claim).run(signals)
    except AlreadyRunning:
        sys.exit(ALREADY_RUNNING)
    except StopRequested as request:
        sys.exit(request.exit_code)
    except LocalStackError as error:
        traceback.print_exception(error)  # without what the variables hold: secrets among them
        sys.exit(f"ledgerq: {error}")


if __name__ == "__main__":
    main()
