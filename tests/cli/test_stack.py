"""What `up`, `status` and `down` say of a stack that does not start, is stopped while it does, or does not run as it should."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from ledgerq.cli.output import Output
from ledgerq.cli.stack import show
from ledgerq.local import PartState, PartStatus, Phase, Stack, StackStatus
from tests.cli.conftest import Command
from tests.cli.test_running import start
from tests.support.processes import working_on
from tests.support.waiting import eventually

ELSEWHERE = {"DATABASE_URL": "postgresql://me:hush@127.0.0.1:1/x", "QDRANT_URL": "http://127.0.0.1:1"}
"""So that Valkey is the only server."""


@pytest.fixture
def data_dir(server_dir: Path) -> Iterator[Path]:
    yield server_dir / "stack"
    Stack(server_dir / "stack").down(grace_s=0.0)
    assert working_on(server_dir) == []


@pytest.mark.processes
@pytest.mark.parametrize(("number", "detach"), [(signal.SIGINT, []), (signal.SIGTERM, []), (signal.SIGTERM, ["--detach"])])
def test_stopped_before_it_is_ready_is_one_document_and_the_signals_exit_code(
    data_dir: Path, number: signal.Signals, detach: list[str]
) -> None:
    up = start(data_dir.parent, "up", *detach, "--data-dir", str(data_dir), "--json", **ELSEWHERE)
    eventually((data_dir / "stack.json").exists, what="it starts")
    up.send_signal(number)
    out, _ = up.communicate(timeout=60)
    assert up.returncode == 128 + number
    assert json.loads(out)["error"]["code"] == 128 + number
    assert working_on(data_dir) == []


@pytest.mark.processes
def test_stack_that_ends_by_itself_after_it_was_ready_is_still_one_document(data_dir: Path) -> None:
    up = start(data_dir.parent, "up", "--workers", "0", "--data-dir", str(data_dir), "--json", **ELSEWHERE)
    assert up.stdout
    assert json.loads(up.stdout.readline())["ok"]
    shutil.rmtree(data_dir)
    out, err = up.communicate(timeout=60)
    assert (up.returncode, out) == (8, "")
    assert "was removed or replaced while its stack ran" in err
    assert not data_dir.exists()


@pytest.mark.processes
def test_failing_start_shows_no_secret(data_dir: Path) -> None:
    Stack(data_dir)._layout.prepare(with_postgres=False)
    (data_dir / "valkey" / "valkey.conf").mkdir(parents=True)  # so that it cannot be written
    up = start(data_dir.parent, "up", "--data-dir", str(data_dir), OPENAI_API_KEY="sk-hush", **ELSEWHERE)
    out, err = up.communicate(timeout=60)
    assert (up.returncode, out) == (8, "")
    assert "hush" not in err
    assert "Traceback" not in err
    assert "Is a directory" in err.splitlines()[-1]


@pytest.mark.processes
def test_worker_that_cannot_start_is_told_of(data_dir: Path) -> None:
    """Though modules of the working directory are no obstacle."""
    for name in ("redis", "rq", "queue"):
        (data_dir.parent / f"{name}.py").write_text("raise SystemExit('a module of the working directory was imported')")
    command = [Path(sys.executable).with_name("ledgerq"), "up", "--detach", "--data-dir", str(data_dir), "--json"]
    known = {name: value for name, value in os.environ.items() if not name.endswith("_URL")}
    environment = {**known, **ELSEWHERE, "LEDGERQ_APP": "nowhere:handlers"}
    up = subprocess.run(command, cwd=data_dir.parent, env=environment, capture_output=True, text=True, timeout=60, check=False)
    assert up.returncode == 4, up.stderr
    assert up.stderr.splitlines()[:2] == ["not started: postgres, for DATABASE_URL is set", "not started: vectors, for QDRANT_URL is set"]
    found = json.loads(up.stdout)
    assert [(part["name"], part["state"]) for part in found["parts"]] == [("valkey", "answers"), ("worker-1", "restarting")]
    assert "nowhere" in found["parts"][1]["problem"]
    assert not found["ok"]


def test_status_says_why_the_last_stack_ended(capfd: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    show(Output(as_json=False), status_of(tmp_path, running=False, phase=Phase.FAILED, error="no [bold]room[/bold]"))
    out, _ = capfd.readouterr()
    assert out.endswith("start one with `ledgerq up`\nthe last one ended by itself: no [bold]room[/bold]\n")


def test_status_says_why_a_worker_is_restarted(capfd: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    worker = PartStatus(
        name="worker-1", state=PartState.RESTARTING, pid=None, port=None, answering=False, url=None, restarts=3, problem="exit code 7: [x]"
    )
    show(Output(as_json=False), status_of(tmp_path, running=True, phase=Phase.READY).model_copy(update={"parts": (worker,)}))
    _, row, reason = capfd.readouterr().out.splitlines()
    assert (row.split(), reason) == (["worker-1", "restarting", "3"], "worker-1 exit code 7: [x]")


def test_hint_can_be_pasted(capfd: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    show(Output(as_json=False), status_of(tmp_path / "my [red] stack", running=True, phase=Phase.READY), end="ledgerq down")
    assert "ledgerq down --data-dir 'my [red] stack'" in capfd.readouterr().err


def status_of(directory: Path, *, running: bool, phase: Phase, error: str | None = None) -> StackStatus:
    return StackStatus(data_dir=str(directory), running=running, phase=phase, supervisor_pid=1, parts=(), error=error)


def test_directory_of_brackets_is_named_as_it_is(command: Command, tmp_path: Path) -> None:
    assert "[/red]" in command("down", "--data-dir", str(tmp_path / "[" / "red]")).out
