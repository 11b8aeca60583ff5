"""The migrations that this version of ledgerq comes with."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import ledgerq
from ledgerq.errors import ConfigurationError

_FILE_NAME: Final = re.compile(r"(?P<version>\d{14})_(?P<name>\w+)\.sql")


@dataclass(frozen=True, slots=True, kw_only=True)
class Migration:
    """One file of `supabase/migrations`."""

    version: str
    """14 digits: when it was written. The order."""
    name: str
    script: str

    @property
    def statements(self) -> list[str]:
        """The script cut at its semicolons, as the Supabase CLI records it."""
        return split_statements(self.script)


def shipped_migrations(directory: Path | None = None) -> tuple[Migration, ...]:
    """All of them, in order.

    Raises:
        ConfigurationError: the package was installed without them.
    """
    found = directory or _directory()
    return tuple(_read(path) for path in sorted(found.glob("*.sql")))


def shim_script() -> str:
    """What gives a plain PostgreSQL the roles and functions that migrations expect of a Supabase project."""
    return (_package() / "local" / "shim.sql").read_text(encoding="utf-8")


def split_statements(script: str) -> list[str]:
    """Cut a script at the semicolons that end statements: not those in comments, strings, quoted names or function bodies."""
    statements, start = [""], 0
    for match in _TOKEN.finditer(script):
        if match.group() == ";":
            statements[-1] += script[start : match.start()]
            statements.append("")
            start = match.end()
    statements[-1] += script[start:]
    return [statement.strip() for statement in statements if statement.strip()]


_TOKEN: Final = re.compile(
    r"""
      --[^\n]*                                  # comment to the end of the line
    | /\*.*?\*/                                 # comment in between; ours are not nested
    | '(?:[^']|'')*'                            # string
    | "(?:[^"]|"")*"                            # quoted name
    | (?P<dollar>\$(?:[A-Za-z_]\w*)?\$).*?(?P=dollar)   # function body
    | ;
    """,
    re.DOTALL | re.VERBOSE,
)


def _directory() -> Path:
    """In the wheel they are inside the package; in a checkout where the Supabase CLI looks for them."""
    package = _package()
    places = (package / "_supabase" / "migrations", package.parents[1] / "supabase" / "migrations")
    for place in places:
        if place.is_dir():
            return place
    raise ConfigurationError("this installation of ledgerq has no migrations; install it from a wheel or a whole checkout")


def _package() -> Path:
    return Path(ledgerq.__path__[0])


def _read(path: Path) -> Migration:
    match = _FILE_NAME.fullmatch(path.name)
    if match is None:
        raise ConfigurationError(f"migration {path.name} must be called <14 digits>_<name>.sql")
    return Migration(version=match["version"], name=match["name"], script=path.read_text(encoding="utf-8"))
