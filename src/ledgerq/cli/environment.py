"""Where the services of a command are: what the variables name, and for the rest a stack that runs in the data directory.

The command line is an edge: it writes what it finds into the environment, so that the settings and every process that a
command starts read the same.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Final

from ledgerq.errors import LocalStackError

if TYPE_CHECKING:
    from ledgerq.local.state import Addresses

DEFAULT_DATA_DIR: Final = ".ledgerq"

PARTS: Final[tuple[frozenset[str], ...]] = (
    frozenset({"LEDGERQ_DATABASE_URL", "DATABASE_URL", "SUPABASE_URL"}),
    frozenset({"LEDGERQ_REDIS_URL", "REDIS_URL", "REDIS_HOST", "REDIS_PORT", "REDIS_DB", "REDIS_PASSWORD"}),
    frozenset({"LEDGERQ_QDRANT_URL", "QDRANT_URL", "LEDGERQ_QDRANT_API_KEY", "QDRANT_API_KEY"}),
)
"""Variables that belong to one part."""
SUPABASE_KEYS: Final = ("SUPABASE_SERVICE_ROLE_KEY", "SUPABASE_SECRET_KEY", "SUPABASE_KEY")
ADDRESSES: Final[tuple[tuple[str, ...], ...]] = (
    ("LEDGERQ_DATABASE_URL", "DATABASE_URL", "SUPABASE_URL"),
    ("LEDGERQ_REDIS_URL", "REDIS_URL", "REDIS_HOST", "REDIS_PORT"),
    ("LEDGERQ_QDRANT_URL", "QDRANT_URL"),
)
"""Those of a part that say where it is. Whoever sets one has their own service there, and the stack's is not used."""


def data_directory(given: Path | None) -> Path:
    """The directory that was given, or that the environment names, or `.ledgerq` here; absolute."""
    return Path(given or os.environ.get("LEDGERQ_DATA_DIR") or DEFAULT_DATA_DIR).absolute()


def enter(data_dir: Path) -> None:
    """Complete the environment with the addresses of the stack that runs in that directory, if one does.

    Raises:
        LocalStackError: the directory cannot be looked into, and some part is named by no variable.
    """
    os.environ["LEDGERQ_DATA_DIR"] = str(data_dir)
    if all(elsewhere(os.environ)):
        return
    for name, value in missing(stack_addresses(data_dir), os.environ).items():
        os.environ[name] = value
        os.environ.pop(f"LEDGERQ_{name}", None)  # a key for another place, which settings would prefer


def elsewhere(environment: Mapping[str, str]) -> tuple[str | None, ...]:
    """For the ledger, Redis and the vectors: the variable that says where it is; None when none does."""
    return tuple(next((name for name in names if _is_address(name, environment)), None) for names in ADDRESSES)


def missing(offered: Mapping[str, str], environment: Mapping[str, str]) -> dict[str, str]:
    """What is offered for parts that the environment gives no address of."""
    known = [part for part, variable in zip(PARTS, elsewhere(environment), strict=True) if variable]
    return {name: value for name, value in offered.items() if not any(name in part for part in known)}


def stack_addresses(data_dir: Path) -> dict[str, str]:
    """The variables that the running stack stands for; none when no stack runs there."""
    addresses = _addresses(data_dir)
    return {} if addresses is None else addresses.environment()


def migration_url(data_dir: Path) -> str | None:
    """How the owner of the running stack's schema connects; None when the ledger is elsewhere."""
    addresses = _addresses(data_dir)
    if addresses is None or os.environ.get("DATABASE_URL") != addresses.database_url or os.environ.get("LEDGERQ_DATABASE_URL"):
        return None
    return addresses.migration_url


def _addresses(data_dir: Path) -> Addresses | None:
    try:
        return _read_addresses(data_dir)
    except OSError as error:
        raise LocalStackError(
            f"cannot look for a stack in {data_dir}: {error.strerror}; name another directory with --data-dir, or name every "
            "service by a variable (DATABASE_URL, REDIS_URL, QDRANT_URL)"
        ) from error


def _read_addresses(data_dir: Path) -> Addresses | None:
    if not (data_dir / "stack.json").exists():
        return None
    from ledgerq.local.layout import Layout, is_claimed
    from ledgerq.local.state import read_state

    layout = Layout(data_dir)
    state = read_state(layout)
    return state.addresses if state is not None and is_claimed(layout) else None


def _is_address(name: str, environment: Mapping[str, str]) -> bool:
    """A Supabase project is a ledger only together with its key."""
    return bool(environment.get(name)) and (name != "SUPABASE_URL" or any(environment.get(key) for key in SUPABASE_KEYS))
