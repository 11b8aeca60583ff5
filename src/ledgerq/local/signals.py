"""Ctrl-C and `kill` as a request to stop: the first one interrupts, further ones only hurry."""

from __future__ import annotations

import signal
import threading
from types import FrameType, TracebackType
from typing import Any, Self

STOPPING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
DEFAULTS = (signal.SIG_DFL, signal.default_int_handler)


class StopRequested(KeyboardInterrupt):
    """Raised in the main thread where it stands; libraries know how to clean up after a Ctrl-C."""

    def __init__(self, number: int = signal.SIGINT) -> None:
        super().__init__("interrupted" if number == signal.SIGINT else f"ended by {signal.Signals(number).name}")
        self.number = number

    @property
    def exit_code(self) -> int:
        """As shells report a program that a signal has ended."""
        return 128 + self.number


class StopSignals:
    """Turns the first signal into StopRequested while the block is open, and counts the others.

    What is ignored stays ignored (`nohup`, a shell's background), except SIGTERM, which is how the stack is told to end.
    With `spare_handlers` a signal that the program handles itself stays with its handler; outside of the main thread,
    which alone may handle signals, all of them do.
    """

    def __init__(self, *, spare_handlers: bool = False) -> None:
        self.requested = False
        self.hurry = False
        self._spare_handlers = spare_handlers
        self._number: int = signal.SIGINT
        self._before: dict[signal.Signals, Any] = {}

    def __enter__(self) -> Self:
        if threading.current_thread() is threading.main_thread():
            wanted = [number for number in STOPPING if self._takes(number)]
            self._before = {number: signal.signal(number, self._receive) for number in wanted}
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def check(self) -> None:
        """Raise what was asked for meanwhile: an exception that rises inside of a finalizer is lost."""
        if self.requested:
            raise StopRequested(self._number)

    def from_now_on_hurry(self) -> None:
        """Shutting down for another reason: no signal interrupts any more."""
        self.requested = True

    def _takes(self, number: signal.Signals) -> bool:
        handler = signal.getsignal(number)
        if handler is None:  # not set from Python, and so not to be given back
            return False
        if self._spare_handlers and handler not in DEFAULTS:
            return False
        return handler is not signal.SIG_IGN or number is signal.SIGTERM

    def _receive(self, number: int, _frame: FrameType | None) -> None:
        if self.requested:
            self.hurry = True
            return
        self.requested = True
        self._number = number
        raise StopRequested(number)
