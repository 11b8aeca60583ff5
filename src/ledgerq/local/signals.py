"""Ctrl-C and `kill` as a request to stop: the first one interrupts, further ones only hurry."""

from __future__ import annotations

import signal
from types import FrameType, TracebackType
from typing import Any, Self

STOPPING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class StopRequested(KeyboardInterrupt):
    """Raised in the main thread where it stands; libraries know how to clean up after a Ctrl-C."""


class StopSignals:
    """Turns the first signal into StopRequested while the block is open, and counts the others."""

    def __init__(self) -> None:
        self.requested = False
        self.hurry = False
        self._before: dict[signal.Signals, Any] = {}

    def __enter__(self) -> Self:
        self._before = {number: signal.signal(number, self._receive) for number in STOPPING}
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def check(self) -> None:
        """Raise what was asked for meanwhile: an exception that rises inside of a finalizer is lost."""
        if self.requested:
            raise StopRequested

    def from_now_on_hurry(self) -> None:
        """Shutting down for another reason: no signal interrupts any more."""
        self.requested = True

    def _receive(self, _number: int, _frame: FrameType | None) -> None:
        if self.requested:
            self.hurry = True
            return
        self.requested = True
        raise StopRequested
