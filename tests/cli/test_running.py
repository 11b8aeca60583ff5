"""`up`, `down`, `status`, `worker`, `steward` and `migrate` as processes."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from ledgerq.local import Stack
from ledgerq.local.ports import free_port
from tests.cli.conftest import Command
from tests.support.databases import Database, Databases
from tests.support.processes import working_on
from tests.support.waiting import eventually

pytestmark = [pytest.mark.processes, pytest.mark.timeout(240)]


@pytest.fixture
def data_dir(server_dir: Path) -> Iterator[Path]:
    yield server_dir / "stack"
    Stack(server_dir / "stack").down(grace_s=0.0)


def start(directory: Path, *words: str, **environment: str) -> subprocess.Popen[str]:
    known = {name: value for name, value in os.environ.items() if not name.endswith("_URL")}
    command = [sys.executable, "-m", "ledgerq", *words]
    pipes: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "stdin": subprocess.DEVNULL}
    return subprocess.Popen(command, cwd=directory, env={**known, **environment}, text=True, **pipes)


def test_a_stack_in_the_background_is_looked_at_used_and_ended(command: Command, data_dir: Path) -> None:
    where = ("--data-dir", str(data_dir))
    assert command("status", *where, "--json").code == 4
    assert command("down", *where).out.startswith("nothing ran in ")
    up = command("up", "--detach", "--workers", "1", *where, "--json")
    assert up.code == 0, up.err
    assert up.document["ok"]
    assert [part["name"] for part in up.document["parts"]] == ["postgres", "valkey", "vectors", "worker-1"]
    assert command("status", *where).code == 0
    refused = command("up", "--detach", *where)
    assert (refused.code, refused.err.count("\n")) == (8, 1)
    assert "a stack already runs" in refused.err
    assert command("migrate", *where, "--json").document["applied"] == []
    eventually(lambda: "1 worker on queue processing" in command("doctor", *where).out, what="the worker has registered")
    down = command("down", *where, "--json")
    assert down.document == {"data_dir": str(data_dir), "stopped": True}
    assert command("status", *where).code == 4
    assert working_on(data_dir) == []


def test_a_stack_in_the_foreground_ends_with_ctrl_c(data_dir: Path) -> None:
    process = start(data_dir.parent, "up", "--workers", "0", "--data-dir", str(data_dir), "--json")
    assert process.stdout is not None
    assert json.loads(process.stdout.readline())["ok"]
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=60)
    assert (process.returncode, out) == (0, "")
    assert err.endswith("stopped\n")
    assert working_on(data_dir) == []


def test_a_service_that_a_variable_names_is_not_started(data_dir: Path, service_dsn: str, redis_url: str) -> None:
    environment = {"DATABASE_URL": service_dsn, "REDIS_URL": redis_url}
    up = start(data_dir.parent, "up", "--detach", "--workers", "0", "--data-dir", str(data_dir), "--json", **environment)
    out, err = up.communicate(timeout=120)
    assert up.returncode == 0, err
    assert [part["name"] for part in json.loads(out)["parts"]] == ["vectors"]
    doctor = start(data_dir.parent, "doctor", "--data-dir", str(data_dir), "--json", **environment)
    out, err = doctor.communicate(timeout=60)
    assert doctor.returncode == 0, out


def test_a_directory_of_somebody_else_is_left_alone(command: Command, tmp_path: Path) -> None:
    (tmp_path / "precious").write_text("x")
    for words in (["up", "--detach"], ["down"], ["status"]):
        ran = command(*words, "--data-dir", str(tmp_path))
        assert (ran.code, ran.err.count("\n")) == (8, 1)
        assert "precious" in ran.err
    assert [path.name for path in tmp_path.iterdir()] == ["precious"]


@pytest.fixture
def services(service_dsn: str, redis_url: str, tmp_path: Path) -> dict[str, str]:
    (tmp_path / "apps.py").write_text(
        "from ledgerq import Completed, Handlers\nhandlers = Handlers()\n\n\n"
        "@handlers.handler('shout')\ndef shout(task):\n    return Completed(task.payload.upper())\n"
    )
    return {"DATABASE_URL": service_dsn, "REDIS_URL": redis_url, "LEDGERQ_APP": "apps:handlers", "LEDGERQ_STEWARD_INTERVAL": "0.5s"}


def test_a_worker_works_until_the_queue_is_empty(services: dict[str, str], tmp_path: Path) -> None:
    created = start(tmp_path, "jobs", "create", "shout", "--payload", '"tide"', "--json", **services)
    job = json.loads(created.communicate(timeout=60)[0])["job"]["id"]
    worker = start(tmp_path, "worker", "--burst", "--no-steward", "--name", "ebb", **services)
    _, err = worker.communicate(timeout=60)
    assert worker.returncode == 0, err
    assert "worker ebb on queue processing" in err
    shown = start(tmp_path, "jobs", "show", job, "--json", **services)
    assert json.loads(shown.communicate(timeout=60)[0])["job"]["status"] == "completed"


def test_a_worker_takes_its_steward_with_it_when_it_is_told_to_end(services: dict[str, str], tmp_path: Path) -> None:
    """The job is due later: only a steward dispatches it."""
    worker = start(tmp_path, "worker", **services)
    try:
        made = start(tmp_path, "jobs", "create", "shout", "--payload", '"tide"', "--delay", "1s", "--wait", **services)
        out, err = made.communicate(timeout=90)
        assert made.returncode == 0, out + err
    finally:
        worker.terminate()
        _, err = worker.communicate(timeout=60)
    assert worker.returncode == 0, err
    eventually(lambda: working_on(tmp_path) == [], seconds=10.0, what="the steward is gone")


def test_a_worker_without_redis_says_so_in_one_line(services: dict[str, str], tmp_path: Path) -> None:
    worker = start(tmp_path, "worker", **{**services, "REDIS_URL": "redis://127.0.0.1:1/0"})
    _, err = worker.communicate(timeout=60)
    assert (worker.returncode, len(err.splitlines())) == (4, 1), err
    assert "Redis did not answer" in err


def test_a_worker_whose_app_is_broken_says_so_in_one_line(services: dict[str, str], tmp_path: Path) -> None:
    (tmp_path / "apps.py").write_text("raise RuntimeError('half written')\n")
    worker = start(tmp_path, "worker", **services)
    _, err = worker.communicate(timeout=60)
    assert worker.returncode == 7
    assert "half written" in err
    assert err.count("\n") == 1


def test_a_steward_does_one_round_or_goes_on_until_it_is_told_to_end(services: dict[str, str], tmp_path: Path) -> None:
    once = start(tmp_path, "steward", "--once", **services)
    out, err = once.communicate(timeout=60)
    assert (once.returncode, err) == (0, "")
    assert "0 runs pushed" in out
    steward = start(tmp_path, "steward", LEDGERQ_LOG_LEVEL="info", **services)
    assert steward.stderr is not None
    assert "steward started" in steward.stderr.readline()
    steward.terminate()
    assert steward.wait(30) == 0
    steward.communicate()


def test_a_steward_without_a_ledger_says_so(command: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DATABASE_URL", "postgresql://nobody:x@127.0.0.1:1/none")
    monkeypatch.setenv("LEDGERQ_LEDGER_TIMEOUT", "1s")
    ran = command("steward", "--once")
    assert ran.code == 4
    assert "Traceback" not in ran.err


def test_migrate_makes_a_ledger_once(command: Command, databases: Databases, monkeypatch: pytest.MonkeyPatch) -> None:
    with databases.empty() as empty:
        monkeypatch.setenv("DATABASE_URL", empty.dsn)
        missing = command("migrate", "--dry-run", "--json").document["pending"]
        assert len(missing) > 3
        assert command("migrate", "--json").document == {"applied": missing, "version": missing[-1]}
        again = command("migrate")
        assert again.out == f"the ledger is at version {missing[-1]}; nothing was missing\n"


def test_migrate_as_somebody_who_may_not_says_whom_to_be(command: Command, databases: Databases, monkeypatch: pytest.MonkeyPatch) -> None:
    with databases.empty() as empty:
        monkeypatch.setenv("DATABASE_URL", empty.service_dsn)
        ran = command("migrate")
        assert ran.code == 7
        assert "owner" in ran.err
        assert ran.err.count("\n") == 1


def test_a_plain_postgres_is_told_about_the_shim(command: Command, database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DATABASE_URL", database.superuser_dsn)
    assert command("migrate", "--shim").code == 0


def test_the_dashboard_listens_here_only_and_its_command_line_holds_no_password(redis_url: str, tmp_path: Path) -> None:
    port = free_port()
    dashboard = start(tmp_path, "dashboard", "--port", str(port), REDIS_URL=redis_url)
    try:

        def queues() -> bytes:
            try:
                with urllib.request.urlopen(f"http://127.0.0.1:{port}/0/data/queues.json", timeout=5) as answer:
                    return answer.read()
            except OSError:
                assert dashboard.poll() is None
                return b""

        assert b"queues" in eventually(queues, what="the dashboard answers")
        command = Path(f"/proc/{dashboard.pid}/cmdline").read_bytes()
        assert b"redis://" not in command
        assert b"127.0.0.1" in command
    finally:
        dashboard.terminate()
        dashboard.communicate(timeout=30)


def test_ctrl_c_while_waiting_leaves_the_jobs_and_says_how_to_find_them(services: dict[str, str], tmp_path: Path) -> None:
    (tmp_path / "tides.txt").write_text("Tides come and go.")
    ingest = start(tmp_path, "ingest", "tides.txt", **services)
    listed = ["jobs", "list", "--json"]
    eventually(lambda: json.loads(start(tmp_path, *listed, **services).communicate(timeout=60)[0])["jobs"], what="the job is there")
    ingest.send_signal(signal.SIGINT)
    _, err = ingest.communicate(timeout=60)
    assert ingest.returncode == 130
    (job,) = json.loads(start(tmp_path, *listed, **services).communicate(timeout=60)[0])["jobs"]
    assert f"the jobs go on without you: ledgerq jobs watch {job['id']}" in err
    assert job["status"] == "queued"
