"""Directories that the servers' account may enter, which pytest's own `tmp_path` is not when root runs the tests."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ledgerq.errors import LocalStackError
from ledgerq.local.accounts import require_entry, server_account


@contextmanager
def server_directory(label: str = "servers") -> Iterator[Path]:
    """A fresh directory, removed at the end."""
    directory = Path(tempfile.mkdtemp(prefix=f"ledgerq-{label}-", dir=_base()))
    directory.chmod(0o711)
    try:
        yield directory
    finally:
        shutil.rmtree(directory, ignore_errors=True)


def _base() -> str:
    """TMPDIR, unless it is closed to the servers' account."""
    try:
        require_entry(Path(tempfile.gettempdir()), server_account())
    except LocalStackError:
        return "/tmp"
    return tempfile.gettempdir()
