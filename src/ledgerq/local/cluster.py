"""The directory of a PostgreSQL cluster: making it in one step, and seeing who uses it."""

from __future__ import annotations

import shutil
import signal
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path

from ledgerq.errors import LocalStackError
from ledgerq.local.accounts import Account, Sight, give, require_entry
from ledgerq.local.child import Command, run_once
from ledgerq.local.files import write_private
from ledgerq.local.identity import identify, working_in

HOME = "pgdata"
UNFINISHED = "pgdata.unfinished"
INITDB_SECONDS = 180.0
ORPHAN_SECONDS = 15.0
"""The backends of a killed server end by themselves within a moment."""
ENVIRONMENT = {"PATH": "/usr/bin:/bin", "LC_ALL": "C", "TZ": "UTC"}
"""All that the servers get of an environment: nothing of the caller's can change them."""


def prepare(data_dir: Path, account: Account | None) -> Path:
    """The cluster's directory, with its parent made and given to the account. LocalStackError when it is in use."""
    data_dir.mkdir(parents=True, exist_ok=True, mode=0o700)
    give(data_dir, account)
    require_entry(data_dir, account)
    home = data_dir / HOME
    _refuse_if_in_use(home)
    return home


def check_version(home: Path, bin_dir: Path) -> None:
    """LocalStackError when the cluster is another major version's; only reads."""
    try:
        found = (home / "PG_VERSION").read_text().strip()
    except OSError as error:
        raise LocalStackError(f"{home} is not a PostgreSQL data directory ({error}): choose another one") from error
    ours = _major(bin_dir)
    if found != ours:
        raise LocalStackError(
            f"{home} belongs to PostgreSQL {found}, but this is PostgreSQL {ours}; nothing was touched. Choose another "
            f"data directory, or dump it with PostgreSQL {found} and restore the dump into a new one"
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Maker:
    """Makes clusters with the programs of one PostgreSQL."""

    bin_dir: Path
    account: Account | None
    log: Path
    fsync: bool
    sight: Sight
    """Of the cluster's parent."""

    def make_once(self, home: Path, superuser: str, password: str) -> None:
        """Run `initdb` beside and rename, so that an interrupted one is no cluster; check the version of an old one."""
        if home.exists():
            check_version(home, self.bin_dir)
            return
        unfinished = home.with_name(UNFINISHED)
        shutil.rmtree(unfinished, ignore_errors=True)
        word = home.with_name("initdb.password")
        write_private(word, password)
        try:
            give(word, self.account)
            run_once(self._initdb(unfinished, superuser, word), INITDB_SECONDS)
            unfinished.rename(home)
        finally:
            word.unlink(missing_ok=True)
            shutil.rmtree(unfinished, ignore_errors=True)

    def _initdb(self, home: Path, superuser: str, word: Path) -> Command:
        passwords = f"--pwfile={self.sight.path / word.name}"
        options = ("--encoding=UTF8", "--locale=C", "--auth=scram-sha-256", passwords, "--no-instructions")
        sync = () if self.fsync else ("--no-sync",)
        return Command(
            name="initdb",
            argv=(str(self.bin_dir / "initdb"), "-D", str(self.sight.path / home.name), "-U", superuser, *options, *sync),
            cwd=home.parent,
            log=self.log,
            env=ENVIRONMENT,
            account=self.account,
            stop=((signal.SIGTERM, 5.0), (signal.SIGKILL, 5.0)),
            whole_group=True,
            descriptors=self.sight.descriptors,
        )


def _refuse_if_in_use(home: Path) -> None:
    """A server at work in the directory is an error; what a killed one left behind is waited for and cleared."""
    recorded = _recorded_pid(home)
    if recorded is None:
        return
    if recorded in working_in(home):
        raise LocalStackError(
            f"{home.parent} is in use by the PostgreSQL with pid {recorded}: stop that one (`ledgerq down`), or choose "
            "another data directory"
        )
    deadline = time.monotonic() + ORPHAN_SECONDS
    while working_in(home) and time.monotonic() < deadline:
        time.sleep(0.05)
    if not working_in(home) and identify(recorded) is not None:
        # The pid is a stranger's now and nobody works in the directory, but PostgreSQL would refuse to start.
        (home / "postmaster.pid").unlink(missing_ok=True)


def _recorded_pid(home: Path) -> int | None:
    try:
        return int((home / "postmaster.pid").read_text().split()[0])
    except (OSError, ValueError, IndexError):
        return None


def _major(bin_dir: Path) -> str:
    program = [str(bin_dir / "postgres"), "--version"]
    text = subprocess.run(program, capture_output=True, text=True, check=True, env=ENVIRONMENT).stdout
    return text.split()[2].partition(".")[0]
