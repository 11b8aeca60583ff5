"""How many tasks to hold, and when to acknowledge: small at first, growing while tasks are quick."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

FIRST_WINDOW: Final = 4
"""Held at the start of a run: if one of them kills the horse, so few are suspected."""
GROWTH: Final = 8
WINDOW_S: Final = 0.5
"""A window is as many tasks as take about so long."""
ACKNOWLEDGE_S: Final = 1.0
"""An outcome waits no longer than this to be acknowledged, as far as it is ours to decide."""
OVERLAP: Final = 4
"""A window handler holds at least so many: it works on them at the same time."""
_WEIGHT: Final = 0.3


@dataclass(slots=True)
class Pace:
    """Learns from outcomes how quick the tasks of a run are. All times are seconds of one monotonic clock."""

    limit: int
    """Most tasks to hold: the handler's `window_size`."""
    least: int = 1
    _window: int = FIRST_WINDOW
    _gap_s: float = 0.0
    _last_at: float | None = None
    _oldest_answer_at: float | None = None
    _answered: int = 0

    @property
    def window(self) -> int:
        return max(1, min(self._window, self.limit))

    def resume(self, now: float) -> None:
        """Time before this was not spent on tasks."""
        self._last_at = now

    def answered(self, now: float) -> None:
        """An outcome was recorded."""
        if self._last_at is not None:
            gap = now - self._last_at
            self._gap_s = gap if self._answered == 0 else self._gap_s + _WEIGHT * (gap - self._gap_s)
        self._last_at = now
        self._answered += 1
        if self._oldest_answer_at is None:
            self._oldest_answer_at = now

    def is_due(self, now: float) -> bool:
        """Whether an outcome would wait too long if another task were begun first, as long as they take now."""
        if self._oldest_answer_at is None:
            return False
        return now - self._oldest_answer_at + self._gap_s >= ACKNOWLEDGE_S

    @property
    def oldest_answer_at(self) -> float | None:
        """When the oldest outcome that waits was recorded."""
        return self._oldest_answer_at

    def sent(self) -> None:
        """All outcomes are being sent, in the middle of a task."""
        self._oldest_answer_at = None

    def acknowledge(self) -> None:
        """All outcomes are being sent. The next window is as large as the tasks have been quick."""
        self.sent()
        if self._answered:
            quick = int(WINDOW_S / self._gap_s) if self._gap_s > 0 else self.limit
            self._window = max(self.least, min(quick, self._window * GROWTH, self.limit))
