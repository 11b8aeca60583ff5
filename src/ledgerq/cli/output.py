"""What a command prints: text for people, or with `--json` exactly one document on stdout.

Progress and notes go to stderr, so that stdout holds results only.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, is_dataclass
from datetime import datetime
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Final, cast
from uuid import UUID

from ledgerq.cli.exit_codes import exit_code_of

if TYPE_CHECKING:
    from rich.console import Console, RenderableType
    from rich.table import Table

NO_SCREEN: Final = 400
"""Columns that a table may take where nobody's screen is in the way."""
NARROW: Final = 60
"""A screen with fewer columns shows no tables."""
ROOM: Final = 8
"""Columns that a table wants for each column but the first."""
_UNPRINTABLE: Final = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\ud800-\udfff]")
"""What a terminal would obey instead of showing it, and bytes that are no text. Line ends and tabs are not among them."""
_NOT_IN_A_LINE: Final = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")


@dataclass(frozen=True, slots=True, kw_only=True)
class Output:
    """Where results go. Every method but `document` is silent on stdout when the output is JSON."""

    as_json: bool

    def document(self, value: object) -> None:
        """The one JSON document of a command; nothing in text mode."""
        if self.as_json:
            write_json(value)

    def print(self, *values: RenderableType) -> None:
        """A result, for people; brackets in text are just brackets."""
        if not self.as_json:
            shown = [printable(value) if isinstance(value, str) else value for value in values]
            _console(stderr=False).print(*shown, highlight=False, soft_wrap=True, markup=False)

    def text(self, text: str) -> None:
        """A line of the result, for people; brackets in it are just brackets."""
        self.print(text)

    def note(self, text: str) -> None:
        """Something beside the result: what is going on, what was skipped. On stderr, in both modes; no error when nobody reads it."""
        with suppress(OSError):
            _console(stderr=True).print(printable(text), highlight=False, soft_wrap=True, markup=False)

    def complain(self, text: str) -> None:
        """An error in a part of the work, for people; the document of JSON mode holds it in its own way."""
        if not self.as_json:
            complain(text)

    def table(self, columns: Sequence[str], rows: Iterable[Sequence[object]], *, empty: str) -> None:
        """Rows under a heading, as wide as the terminal; on a narrow one a block of lines each; one sentence when there are none."""
        if self.as_json:
            return
        texts = [["" if value is None else printable(str(value)) for value in row] for row in rows]
        if not texts:
            self.print(empty)
        elif _fits(texts):
            self.print(_table(columns, texts))
        else:
            self.text("\n".join(_block(columns, row) for row in texts))


def complain(text: str) -> None:
    """One line of ours on stderr; no error when nobody reads it."""
    with suppress(OSError):
        sys.stderr.write(f"ledgerq: {printable(text)}\n")
        sys.stderr.flush()


def printable(text: str, *, lines: bool = True) -> str:
    """The text with everything escaped that a terminal would obey instead of showing it, or that is no text at all.

    Without `lines` that holds for line ends and tabs as well.
    """
    pattern = _UNPRINTABLE if lines else _NOT_IN_A_LINE
    return pattern.sub(lambda found: found[0].encode("unicode_escape").decode(), text)


def write_json(value: object) -> None:
    """One document on stdout, in one line unless a person reads it. Models, times, ids and enums as a reader expects them."""
    sys.stdout.write(_json(value, indent=2 if sys.stdout.isatty() else None) + "\n")
    sys.stdout.flush()


def _json(value: object, *, indent: int | None) -> str:
    """As UTF-8 where stdout is that, else in ASCII: JSON in any other encoding is none."""
    text = json.dumps(value, default=_plain, ensure_ascii=False, indent=indent)
    if (sys.stdout.encoding or "").lower().replace("-", "") == "utf8" and not _UNPRINTABLE.search(text):
        return text
    return json.dumps(value, default=_plain, indent=indent)


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

    class Screen(Console):
        """Rich would end the program, with stdout turned off, when a reader of either stream goes away."""

        def on_broken_pipe(self) -> None:
            raise BrokenPipeError

    # Into a file or a pipe nothing is cut or wrapped for the width of a screen.
    stream = sys.stderr if stderr else sys.stdout
    return Screen(stderr=stderr, width=None if stream.isatty() else NO_SCREEN)


def _fits(rows: Sequence[Sequence[str]]) -> bool:
    """What a row is about is never cut, and the rest must have room as well."""
    if not sys.stdout.isatty():
        return True
    wanted = max(len(row[0]) for row in rows) + ROOM * (len(rows[0]) - 1)
    return _console(stderr=False).width >= max(wanted, NARROW)


def _table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> Table:
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False, header_style="bold", show_header=any(columns))
    for index, column in enumerate(columns):
        table.add_column(column, no_wrap=index == 0)
    for row in rows:
        table.add_row(*map(Text, row))
    return table


def _block(columns: Sequence[str], row: Sequence[str]) -> str:
    """`heading: value` a line; where there are no headings, the first value is the heading of the others."""
    if not any(columns):
        return f"{row[0]}: {' '.join(row[1:])}"
    pairs = ((column, value) for column, value in zip(columns, row, strict=True) if value)
    return "\n".join(f"{column}: {value}" if column else value for column, value in pairs) + "\n"
