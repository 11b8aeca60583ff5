"""Small files that must be whole or absent, some of them secret, and the random words kept in them."""

from __future__ import annotations

import json
import os
import secrets
from contextlib import suppress
from pathlib import Path

SECRET_BYTES = 24
"""192 random bits: 32 characters, all of them safe in a URL."""


def write_private(path: Path, text: str) -> None:
    """Replace the file in one step, readable by its owner alone, and on the disk when this returns. It keeps its owner."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    temporary.unlink(missing_ok=True)
    # Exclusive: a link that somebody else laid there is never followed.
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            _take_over_owner(path, descriptor)
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def kept_secrets(path: Path, *names: str) -> dict[str, str]:
    """The secrets of these names from the file; missing ones are made and kept there (mode 0600)."""
    kept = _read(path)
    missing = [name for name in names if name not in kept]
    if missing:
        kept |= {name: secrets.token_urlsafe(SECRET_BYTES) for name in missing}
        write_private(path, json.dumps(kept, indent=2))
    return {name: kept[name] for name in names}


def _take_over_owner(path: Path, descriptor: int) -> None:
    """Only root can, and only root has to: everybody else replaces files of their own."""
    if os.geteuid() != 0:
        return
    with suppress(FileNotFoundError):
        before = path.lstat()
        os.fchown(descriptor, before.st_uid, before.st_gid)


def _read(path: Path) -> dict[str, str]:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
