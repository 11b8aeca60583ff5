"""Where the demo's servers live: a directory of its own, made anew by each demo, or one that somebody named."""

from __future__ import annotations

import fcntl
import json
import os
import shlex
import shutil
from collections.abc import Generator, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, cast

from ledgerq.cli.files import shown
from ledgerq.cli.output import Output
from ledgerq.errors import InvalidInput, LocalStackError

if TYPE_CHECKING:
    from ledgerq.local.layout import Layout
    from ledgerq.local.stack import Stack
    from ledgerq.local.state import Part

DEFAULT_DIR: Final = Path(".ledgerq-demo")


@contextmanager
def held(stack: Stack, output: Output, *, own: Path | None) -> Generator[None]:
    """The directory for the time of one demo: its own one, by the name that may be a link, emptied; another one as it is.

    Raises:
        InvalidInput: the demo's own directory is something else, a link for example.
        LocalStackError: another demo, or somebody's stack, runs there; nothing was touched.
    """
    if own is None:
        _refuse_running(stack)
        yield
        return
    with _locked(own):
        _clear(stack, output)
        yield


def _refuse_running(stack: Stack) -> None:
    if stack.status().running:
        where = shown(stack.data_dir)
        end = f"ledgerq down --data-dir {shlex.quote(where)}"
        raise LocalStackError(f"a stack runs in {where}: name another directory, or end it with `{end}`")


@contextmanager
def _locked(directory: Path) -> Generator[None]:
    """Nobody else's demo at the same time. The lock ends with this process, however it ends, and is on no file that is removed."""
    if directory.is_symlink() or (directory.exists() and not directory.is_dir()):
        raise InvalidInput(f"{shown(directory)} is not a directory of the demo: remove it, or name another one with --data-dir")
    directory.mkdir(exist_ok=True)
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise LocalStackError(
                f"another demo runs in {shown(directory)}: wait for its end, or give this one a directory with --data-dir"
            ) from None
        yield
    finally:
        os.close(descriptor)


def _clear(stack: Stack, output: Output) -> None:
    """End what an earlier demo kept or left behind when it was killed, and forget its data."""
    from ledgerq.local.layout import Layout

    layout = Layout(stack.data_dir)
    try:
        ended = stack.down(grace_s=0.0)
    except LocalStackError:
        if not layout.version_file.exists():
            raise  # no stack was ever there, so nothing of it is ours
        ended = _end_recorded(layout)
    if ended:
        output.note(f"ended the stack that ran in {shown(stack.data_dir)}")
    # What makes it recognisable goes last, should we be stopped here.
    for entry in sorted(stack.data_dir.iterdir(), key=lambda entry: entry == layout.version_file):
        if entry.is_dir() and not entry.is_symlink():
            shutil.rmtree(entry)
        else:
            entry.unlink(missing_ok=True)


def _end_recorded(layout: Layout) -> bool:
    """End what a version with other records left running without a supervisor, as far as its records can be read."""
    from ledgerq.local.orphans import end_marked, end_recorded

    parts = list(_recorded(layout.state_file))
    return bool([*end_recorded(parts), *["other"] * end_marked(layout.data_dir)])


def _recorded(state_file: Path) -> Iterator[Part]:
    """The processes in the state of any version: a number is never taken for a process that it does not mean."""
    from pydantic import ValidationError

    from ledgerq.local.state import Part

    try:
        state: Any = json.loads(state_file.read_bytes())
    except (OSError, ValueError):
        return
    parts: Any = cast("dict[str, Any]", state).get("parts") if isinstance(state, dict) else None
    for part in cast("list[Any]", parts) if isinstance(parts, list) else []:
        with suppress(ValidationError, TypeError, KeyError):
            yield Part(name=part["name"], pid=part["pid"], started=part["started"])
