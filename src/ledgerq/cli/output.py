"""What a command prints: text for people, or with `--json` exactly one document on stdout.

Progress and notes go to stderr, so that stdout holds results only.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, is_dataclass
from datetime import datetime
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Final, cast
from uuid import UUID

from ledgerq.cli.exit_codes import exit_code_of

if TYPE_CHECKING:
    from rich.console import Console, RenderableType

NO_SCREEN: Final = 400
"""Columns that a table may take where nobody's screen is in the way."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Output:
    """Where results go. Every method but `document` is silent on stdout when the output is JSON."""

    as_json: bool

    def document(self, value: object) -> None:
        """The one JSON document of a command; nothing in text mode."""
        if self.as_json:
            write_json(value)

    def print(self, *values: RenderableType) -> None:
        """A result, for people."""
        if not self.as_json:
            _console(stderr=False).print(*values, highlight=False, soft_wrap=True)

    def text(self, text: str) -> None:
        """A line of the result, for people; brackets in it are just brackets."""
        if not self.as_json:
            _console(stderr=False).print(text, highlight=False, soft_wrap=True, markup=False)

    def note(self, text: str) -> None:
        """Something beside the result: what is going on, what was skipped. On stderr, in both modes."""
        _console(stderr=True).print(text, highlight=False, soft_wrap=True, markup=False)

    def complain(self, text: str) -> None:
        """An error in a part of the work, for people; the document of JSON mode holds it in its own way."""
        if not self.as_json:
            sys.stderr.write(f"ledgerq: {text}\n")

    def table(self, columns: Sequence[str], rows: Iterable[Sequence[object]], *, empty: str) -> None:
        """Rows under a heading, as wide as the terminal; one sentence when there are none."""
        if self.as_json:
            return
        from rich.table import Table

        table = Table(box=None, pad_edge=False, header_style="bold", show_header=any(columns))
        for index, column in enumerate(columns):
            table.add_column(column, no_wrap=index == 0)  # what a row is about is never cut
        for row in rows:
            table.add_row(*("" if value is None else _escaped(value) for value in row))
        self.print(table if table.row_count else empty)


def write_json(value: object) -> None:
    """One document on stdout, in one line unless a person reads it. Models, times, ids and enums as a reader expects them."""
    sys.stdout.write(json.dumps(value, default=_plain, ensure_ascii=False, indent=2 if sys.stdout.isatty() else None) + "\n")
    sys.stdout.flush()


def problem(error: Exception, message: str | None = None) -> dict[str, object]:
    """An error as JSON shows it."""
    return {"code": int(exit_code_of(error)), "kind": type(error).__name__, "message": message or str(error)}


def short_time(moment: datetime | None) -> str:
    """Local time to the second."""
    return "" if moment is None else moment.astimezone().strftime("%Y-%m-%d %H:%M:%S")


def short_seconds(seconds: float | None) -> str:
    """A duration in the two units that matter."""
    if seconds is None:
        return ""
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    days, hours = divmod(hours, 24)
    parts = [(days, "d"), (hours, "h"), (minutes, "min"), (rest, "s")]
    first = next(index for index, (number, _) in enumerate(parts) if number)
    return " ".join(f"{number} {unit}" for number, unit in parts[first : first + 2] if number)


def _plain(value: object) -> object:
    from pydantic import BaseModel

    if isinstance(value, BaseModel):
        return value.model_dump(mode="json")
    if is_dataclass(value) and not isinstance(value, type):
        return asdict(value)
    if isinstance(value, datetime):
        return value.isoformat()
    if isinstance(value, UUID | Path):
        return str(value)
    if isinstance(value, Enum):
        return cast("object", value.value)
    if isinstance(value, set | frozenset | tuple):
        return list(cast("Iterable[object]", value))
    raise TypeError(f"{type(value).__name__} has no JSON form")


def _console(*, stderr: bool) -> Console:
    from rich.console import Console

    # Into a file or a pipe nothing is cut or wrapped for the width of a screen.
    stream = sys.stderr if stderr else sys.stdout
    return Console(stderr=stderr, width=None if stream.isatty() else NO_SCREEN)


def _escaped(value: object) -> str:
    from rich.markup import escape

    return escape(str(value))
