"""The Supabase CLI, from npm, in a folder of its own, with nothing of the user's and nothing that it could tell or ask anybody."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final
from urllib.parse import urlsplit, urlunsplit

import pytest

VERSION: Final = "3.1.0"
CHECKOUT: Final = Path(__file__).resolve().parents[2]
FOLDER: Final = CHECKOUT / "supabase"
NPM_OPTIONS: Final = (
    "--no-audit",
    "--no-fund",
    "--no-save",
    "--no-update-notifier",
    "--fetch-retries=1",
    "--fetch-retry-mintimeout=1000",
    "--fetch-timeout=30000",
)
QUIET: Final = {"SUPABASE_TELEMETRY_DISABLED": "1", "SUPABASE_NO_UPDATE_NOTIFIER": "1", "SUPABASE_NO_KEYRING": "1", "DO_NOT_TRACK": "1"}


@dataclass(frozen=True, slots=True)
class Ran:
    """What a command of the CLI answered."""

    document: dict[str, Any]
    said: str
    """What it told a person: progress, warnings."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SupabaseCli:
    """Works in a project's folder, `project/supabase/`."""

    program: Path
    project: Path
    home: Path

    def __call__(self, *command: str, database: str) -> Ran:
        """Run a command against the database of this DSN. AssertionError with all that it said when it fails."""
        address, password = _without_password(database)
        done = subprocess.run(
            [self.program, *command, f"--remote={address}", "--yes", "--output-format", "json"],
            env={"PATH": os.environ["PATH"], "HOME": str(self.home), "PGPASSWORD": password, "PGSSLMODE": "disable", **QUIET},
            cwd=self.project,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=100,
            check=False,
        )
        assert done.returncode == 0, f"{command}: exit {done.returncode}\n{done.stdout}\n{done.stderr}"
        return Ran(document=json.loads(done.stdout), said=done.stderr)


@pytest.fixture(scope="session")
def supabase_program() -> Path:
    """The CLI; downloaded once per machine and version (about 140 MB) into the user's cache directory."""
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "ledgerq-tests" / f"supabase-cli-{VERSION}"
    program = cache / "node_modules" / ".bin" / "supabase"
    if shutil.which("node") is None or shutil.which("npm") is None:
        pytest.skip("the Supabase CLI cannot be installed here: there is no node with npm")
    if not program.exists():
        try:
            _install(cache)
        except (OSError, subprocess.SubprocessError) as error:
            pytest.skip(f"the Supabase CLI cannot be installed here: {_reason(error)}")
    return program


@pytest.fixture(scope="module")
def supabase_cli(supabase_program: Path, tmp_path_factory: pytest.TempPathFactory) -> SupabaseCli:
    """In a copy of the folder, so that what it leaves there does not lie in the checkout."""
    project = tmp_path_factory.mktemp("project")
    shutil.copytree(FOLDER, project / "supabase", ignore=shutil.ignore_patterns(".temp", ".branches"))
    shutil.copy(CHECKOUT / ".gitignore", project)
    return SupabaseCli(program=supabase_program, project=project, home=tmp_path_factory.mktemp("home"))


def _install(cache: Path) -> None:
    """Beside its place, and moved there when it is whole: two sessions may do this at once."""
    cache.parent.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(dir=cache.parent) as made:
        fresh = Path(made) / "cli"
        fresh.mkdir()
        command = ["npm", "install", "--prefix", fresh, "--cache", Path(made) / "npm", *NPM_OPTIONS, f"supabase@{VERSION}"]
        subprocess.run(command, cwd=fresh, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=90, check=True)
        if not cache.exists():
            fresh.rename(cache)


def _reason(error: Exception) -> str:
    said = (error.stderr or "") if isinstance(error, subprocess.CalledProcessError) else ""
    lines = [line.removeprefix("npm error ") for line in said.splitlines() if line.startswith("npm error ")]
    return " ".join(lines[:2]) or str(error)


def _without_password(dsn: str) -> tuple[str, str]:
    """Command lines are public."""
    parts = urlsplit(dsn)
    where = f"{parts.username}@{parts.hostname}:{parts.port}"
    return urlunsplit(parts._replace(netloc=where)), parts.password or ""
