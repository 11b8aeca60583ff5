"""The command line `ledgerq`.

One file per group of commands. What is heavy is imported by the command that needs it, so that `ledgerq --help`
answers at once.
"""

from __future__ import annotations

import sys

from ledgerq.cli.exit_codes import ExitCode
from ledgerq.cli.streams import settle


def main() -> None:
    """Run the command line, and exit with one of `ExitCode`."""
    settle()
    try:
        from ledgerq.cli.run import run

        code = run(sys.argv[1:])
    except KeyboardInterrupt:
        code = ExitCode.INTERRUPTED
    sys.exit(code)
