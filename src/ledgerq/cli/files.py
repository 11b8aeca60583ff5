"""Which files a command means: the paths that were typed, folders walked, and a reason for each one that is left out."""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Final

from ledgerq.cli.output import printable
from ledgerq.errors import InvalidInput

CONTENT_TYPES: Final = {
    ".txt": "text/plain",
    ".text": "text/plain",
    ".md": "text/markdown",
    ".markdown": "text/markdown",
    ".html": "text/html",
    ".htm": "text/html",
    ".xhtml": "application/xhtml+xml",
    ".pdf": "application/pdf",
}
"""What is taken from a folder, by ending. The worker looks at the content, whatever the name says."""

_BLOCK: Final = 1 << 20


@dataclass(frozen=True, slots=True, kw_only=True)
class FoundFile:
    """A file to ingest, with what the ledger wants to know of it."""

    path: Path
    """Absolute, so that a worker with another working directory finds it."""
    content_hash: str
    """SHA-256 of the bytes, in hexadecimal."""
    byte_size: int

    @property
    def uri(self) -> str:
        return self.path.as_uri()

    @property
    def content_type(self) -> str | None:
        return CONTENT_TYPES.get(self.path.suffix.lower())


@dataclass(frozen=True, slots=True, kw_only=True)
class LeftOut:
    """A file that is not ingested, and why."""

    path: Path
    reason: str
    failed: bool
    """Somebody expected it to be read; otherwise a folder happened to hold it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FileSet:
    """The files of one job."""

    title: str
    files: tuple[FoundFile, ...]
    left_out: tuple[LeftOut, ...]


def typed_path(text: str) -> Path:
    """A path from the command line.

    Raises:
        InvalidInput: it is empty, as an unset variable of a script is; `Path` would read it as the working directory.
    """
    if not text:
        raise InvalidInput("PATH: is empty; the working directory is written as `.`")
    return Path(text)


def find_files(paths: Sequence[Path]) -> tuple[FileSet, ...]:
    """One set per folder, and one for all files named singly. A file that is reached twice belongs to the first set.

    Folders are walked without hidden entries and without following links to other folders.

    Raises:
        InvalidInput: a path does not exist, is neither file nor folder, or nothing was named. Nothing was done yet.
    """
    if not paths:
        raise InvalidInput("name at least one file or folder")
    for path in paths:
        _check(path)
    seen: set[Path] = set()
    single = [path for path in paths if not path.is_dir()]
    title = shown(single[0]) if len(single) == 1 else f"{len(single)} files"
    sets = [_file_set(title, map(_look, single), seen)] if single else []
    sets += [_file_set(shown(path), _walk(path), seen) for path in paths if path.is_dir()]
    return tuple(sets)


def shown(path: Path) -> str:
    """The path as people typed it: below the working directory without that directory; on one line, and what is no text escaped."""
    return printable(_relative(path), lines=False)


def _relative(path: Path) -> str:
    return str(path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path)


def _check(path: Path) -> None:
    try:
        mode = path.stat().st_mode
    except FileNotFoundError:
        raise InvalidInput(f"no such file or folder: {shown(path)}") from None
    except OSError as error:
        raise InvalidInput(f"cannot look at {shown(path)}: {error.strerror}") from None
    if not (stat.S_ISREG(mode) or stat.S_ISDIR(mode)):
        raise InvalidInput(f"{shown(path)} is neither a file nor a folder")


def _file_set(title: str, found: Iterable[FoundFile | LeftOut], seen: set[Path]) -> FileSet:
    fresh: list[FoundFile | LeftOut] = []
    for one in found:
        if one.path not in seen:
            seen.add(one.path)
            fresh.append(one)
    return FileSet(
        title=title,
        files=tuple(one for one in fresh if isinstance(one, FoundFile)),
        left_out=tuple(one for one in fresh if isinstance(one, LeftOut)),
    )


def _walk(folder: Path) -> Iterator[FoundFile | LeftOut]:
    """Every visible file below the folder, in the order of names, and at the end the folders that are closed to us."""
    closed: list[OSError] = []
    for directory, folders, names in os.walk(folder, onerror=closed.append):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        yield from (_look_beside(Path(directory, name)) for name in sorted(names) if not name.startswith("."))
    yield from (_unreadable(Path(str(error.filename)), error) for error in closed)


def _look_beside(path: Path) -> FoundFile | LeftOut:
    if path.suffix.lower() in CONTENT_TYPES:
        return _look(path)
    kind = f"{path.suffix.lower()} files are" if path.suffix else "files without an ending are"
    reason = f"{kind} not taken from folders (Markdown, HTML, text and PDF are); name it to try it all the same"
    return LeftOut(path=_absolute(path), reason=reason, failed=False)


def _look(path: Path) -> FoundFile | LeftOut:
    if not _is_text(str(path)):
        return LeftOut(path=_absolute(path), reason="has a name that is not UTF-8; rename it", failed=True)
    try:
        # Before it is opened: a named pipe would wait for a writer.
        if not stat.S_ISREG(path.stat().st_mode):
            return LeftOut(path=_absolute(path), reason="is not a regular file", failed=True)
        with path.open("rb") as file:
            return _digest(_absolute(path), file)
    except OSError as error:
        return _unreadable(path, error)


def _is_text(name: str) -> bool:
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return True


def _unreadable(path: Path, error: OSError) -> LeftOut:
    return LeftOut(path=_absolute(path), reason=f"cannot be read: {error.strerror}", failed=True)


def _absolute(path: Path) -> Path:
    """Not `resolve()`: it would put a link's target in the place of the name that people know."""
    return Path(os.path.abspath(path))  # noqa: PTH100


def _digest(path: Path, file: BinaryIO) -> FoundFile:
    digest, size = hashlib.sha256(), 0
    while block := file.read(_BLOCK):
        digest.update(block)
        size += len(block)
    return FoundFile(path=path, content_hash=digest.hexdigest(), byte_size=size)
