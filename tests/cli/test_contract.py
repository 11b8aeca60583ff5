"""What holds for every command: one document with `--json`, one line per error, the table of exit codes."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import typer.main

from ledgerq import __version__
from ledgerq.cli.app import app
from tests.cli.conftest import Command

TREE: Any = typer.main.get_command(app)
WITHOUT_JSON = {"worker", "steward", "dashboard"}
"""They run until they are ended, and have no result."""


def leaves(group: Any, path: tuple[str, ...] = ()) -> list[tuple[str, Any]]:
    found = []
    for name, command in group.commands.items():
        below = leaves(command, (*path, name)) if hasattr(command, "commands") else [(" ".join((*path, name)), command)]
        found += below
    return found


COMMANDS = dict(leaves(TREE))


def test_the_commands_are_those_that_the_documentation_names() -> None:
    jobs = {f"jobs {name}" for name in ("list", "show", "watch", "create", "cancel", "retry", "delete")}
    queues = {f"queue {name}" for name in ("save", "pause", "resume", "stats")}
    others = {"up", "down", "status", "demo", "ingest", "search", "worker", "steward", "migrate", "doctor", "dashboard"}
    assert set(COMMANDS) == jobs | queues | others


@pytest.mark.parametrize("name", sorted(COMMANDS))
def test_every_command_takes_the_options_that_all_have(name: str) -> None:
    options = {option for parameter in COMMANDS[name].params for option in parameter.opts}
    assert {"--data-dir", "--debug"} <= options
    assert ("--json" in options) == (name not in WITHOUT_JSON)


@pytest.mark.parametrize("name", sorted(COMMANDS))
def test_every_command_explains_itself(command: Command, name: str) -> None:
    ran = command(*name.split(), "--help")
    assert ran.code == 0
    assert COMMANDS[name].help.split(".")[0].split("\n")[0][:40] in " ".join(ran.out.split())
    assert ran.err == ""


def test_help_answers_at_once() -> None:
    """Processor time, best of three, because others may be using this machine. Half a second on an idle one."""
    assert min(_seconds_of("--help") for _ in range(3)) < 0.8


def test_help_imports_nothing_heavy() -> None:
    script = "import sys; from ledgerq.cli.run import run; run(['--help']); print(sorted({n.split('.')[0] for n in sys.modules}))"
    found = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout
    loaded = found.splitlines()[-1]
    for name in ("psycopg", "redis", "rq", "qdrant_client", "supabase", "pydantic", "numpy", "structlog"):
        assert f"'{name}'" not in loaded


def _seconds_of(*words: str) -> float:
    process = subprocess.Popen([sys.executable, "-m", "ledgerq", *words], stdout=subprocess.DEVNULL)
    _, status, used = os.wait4(process.pid, 0)
    process.returncode = status
    assert status == 0
    return used.ru_utime + used.ru_stime


def test_the_version_is_the_packages(command: Command) -> None:
    assert command("--version").out == f"{__version__}\n"


@pytest.mark.parametrize(
    ("words", "code", "says"),
    [
        (["jobs", "lst"], 2, "No such command 'lst'"),
        (["jobs", "list", "--limit", "0"], 2, "--limit"),
        (["jobs", "list", "--status", "done"], 2, "--status"),
        (["search"], 2, "QUERY"),
        (["search", " "], 2, "QUERY: is empty"),
        (["jobs", "list"], 7, "no ledger: set DATABASE_URL"),
        (["ingest", "nowhere.md"], 2, "no such file or folder: nowhere.md"),
        (["demo", "nowhere.md"], 2, "no such file or folder: nowhere.md"),
        (["status"], 4, None),
        (["migrate"], 7, "no ledger"),
        (["jobs", "list", "--data-dir", ""], 2, "--data-dir': is empty"),
        (["demo", "--data-dir", ""], 2, "--data-dir': is empty"),
        (["search", "\udcff"], 2, "'\\udcff' is not UTF-8"),
        (["search", "tides", "--tenant", "\udcff"], 2, "'\\udcff' is not UTF-8"),
        (["jobs", "create", "double", "--payload", "[" * 60_000], 7, "no ledger"),
        (["jobs", "list", "--data-dir", "x" * 300], 8, "cannot look for a stack"),
        (["ingest", "x" * 300], 2, "File name too long"),
    ],
)
def test_an_error_is_one_line_on_stderr_and_one_document_on_stdout(command: Command, words: list[str], code: int, says: str | None) -> None:
    ran = command(*words)
    assert ran.code == code
    assert "Traceback" not in ran.err + ran.out
    if says is not None:
        assert says in ran.err
        assert ran.err.count("\n") == 1
    asked = command(*words, "--json")
    assert asked.code == code
    if says is not None:
        assert asked.document["error"]["code"] == code
        assert says in asked.document["error"]["message"]
        assert asked.err == ""


@pytest.mark.parametrize("words", [[], ["jobs"], ["queue"]], ids=str)
def test_a_group_without_a_command_says_which_it_has_and_nothing_else(command: Command, words: list[str]) -> None:
    ran = command(*words)
    assert ran.code == 2
    assert "Usage: " in ran.out
    assert ran.err == ""


def test_a_working_directory_that_is_gone_is_said(command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "gone").mkdir()
    monkeypatch.chdir(tmp_path / "gone")
    (tmp_path / "gone").rmdir()
    ran = command("jobs", "list")
    assert (ran.code, ran.err) == (2, "ledgerq: the working directory is gone: change to one that exists\n")


def test_a_broken_setting_is_named(command: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LEDGERQ_CHUNK_TOKENS", "many")
    ran = command("jobs", "list")
    assert ran.code == 7
    assert "LEDGERQ_CHUNK_TOKENS" in ran.err


def test_a_ledger_that_is_away_is_one_line_that_names_it_without_the_password(command: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DATABASE_URL", "postgresql://someone:hush@127.0.0.1:1/ledger")
    monkeypatch.setenv("LEDGERQ_LEDGER_TIMEOUT", "1s")
    ran = command("jobs", "list")
    assert ran.code == 4
    assert "127.0.0.1" in ran.err
    assert "hush" not in ran.err
    assert ran.err.count("\n") == 1


def test_debug_shows_where_it_happened(command: Command) -> None:
    ran = command("ingest", "nowhere.md", "--debug")
    assert ran.code == 2
    assert "Traceback" in ran.err
    assert ran.err.endswith("ledgerq: no such file or folder: nowhere.md\n")


def test_a_defect_is_one_line_that_says_how_to_see_more(command: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object, **__: object) -> None:
        raise ZeroDivisionError("by nothing")

    monkeypatch.setattr("ledgerq.cli.search.find", broken)
    ran = command("search", "x")
    assert ran.code == 1
    assert ran.err == "ledgerq: unexpected ZeroDivisionError: by nothing (run it again with --debug for the traceback)\n"


def test_what_stands_after_two_dashes_is_no_flag(command: Command) -> None:
    ran = command("ingest", "--", "--json")
    assert ran.err == "ledgerq: no such file or folder: --json\n"
    assert ran.out == ""


def test_a_reader_that_goes_away_is_no_error(tmp_path: Path) -> None:
    script = f"{sys.executable} -m ledgerq --help | head -n 1; exit ${{PIPESTATUS[0]}}"
    ended = subprocess.run(["bash", "-c", script], capture_output=True, text=True, check=False, cwd=tmp_path)
    assert ended.stderr == ""
    assert ended.returncode in {0, 141}  # it may have been done before the reader went away
