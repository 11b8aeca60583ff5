"""Becomes another program, as an account without power, that ends when its starter does.

Run as a script: `python -I -S launch.py PARENT SIGNAL UID GID -- PROGRAM …`. It exists because the alternative, code
between fork and exec in a process that has threads, may deadlock. UID and GID are `-` for "as I am". Imports nothing of
ours: the interpreter that runs it sees no packages.
"""

import ctypes
import os
import signal as signals
import sys

CANNOT_EXECUTE = 126
"""Exit code when the program cannot be executed, as shells use it."""
PR_SET_PDEATHSIG = 1
"""linux/prctl.h"""


def main(arguments: list[str]) -> None:
    parent, signal, uid, gid, separator, *program = arguments
    if separator != "--" or not program:
        sys.exit("usage: launch.py PARENT SIGNAL UID GID -- PROGRAM …")
    if uid != "-":
        drop_power(int(uid), int(gid))
    os.umask(0o077)
    signals.pthread_sigmask(signals.SIG_SETMASK, ())  # our starter held them back while it started us
    end_with_parent(int(parent), int(signal))
    try:
        os.execv(program[0], program)  # noqa: S606 - no shell is what is wanted
    except OSError as error:
        sys.stderr.write(f"cannot execute {program[0]}: {error.strerror}\n")
        sys.stderr.flush()
        os._exit(CANNOT_EXECUTE)


def drop_power(uid: int, gid: int) -> None:
    """From root to another account, for good."""
    os.setgroups([])
    os.setgid(gid)
    os.setuid(uid)


def end_with_parent(parent: int, signal: int) -> None:
    """Ask for a signal at the parent's death: after any change of account, which clears the request.

    Nothing elsewhere than on Linux, where the records of the stack must do.
    """
    if not sys.platform.startswith("linux"):
        return
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal, 0, 0, 0)
    if os.getppid() != parent:
        os._exit(0)


if __name__ == "__main__":
    main(sys.argv[1:])
