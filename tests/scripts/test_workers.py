"""The examples of deployment start what exists."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from ledgerq.settings import Settings

WORKERS = Path(__file__).resolve().parents[2] / "workers"
STOCK = "rq worker -S json -c ledgerq.rq_settings processing"


def lines() -> list[str]:
    texts = [path.read_text(encoding="utf-8") for path in sorted(WORKERS.rglob("*")) if path.is_file() and path.suffix != ".pyc"]
    return [line for text in texts for line in text.splitlines()]


def test_every_command_of_ours_exists() -> None:
    from tests.cli.test_contract import COMMANDS

    named = {command for line in lines() for command in re.findall(r"\bledgerq (\w+)\b(?!\.)", line.partition("#")[0])}
    assert {"worker", "steward", "migrate"} <= named
    assert named <= set(COMMANDS)


@pytest.mark.parametrize("name", ["Procfile", "systemd/ledgerq-worker@.service"])
def test_workers_are_started_with_the_stock_command(name: str) -> None:
    assert STOCK in (WORKERS / name).read_text(encoding="utf-8")


def test_the_container_starts_the_stock_command() -> None:
    command = re.search(r"^CMD \[(.*)\]$", (WORKERS / "Containerfile").read_text(encoding="utf-8"), flags=re.MULTILINE)
    assert command is not None
    assert command[1].replace('"', "").split(", ") == STOCK.split()


def test_the_image_takes_what_it_needs_by_name() -> None:
    """Not `.git`, not `.venv`, and no stack's passwords, whatever an ignore file says."""
    text = (WORKERS / "Containerfile").read_text(encoding="utf-8")
    copied = [word for line in re.findall(r"^COPY (.*)$", text, flags=re.MULTILINE) for word in line.split()[:-1]]
    assert set(copied) == {"pyproject.toml", "README.md", "LICENSE", "src", "supabase"}
    assert all((WORKERS.parent / name).exists() for name in copied)


def test_a_unit_waits_for_the_longest_run() -> None:
    unit = (WORKERS / "systemd" / "ledgerq-worker@.service").read_text(encoding="utf-8")
    assert "KillMode=mixed" in unit
    assert int(re.search(r"TimeoutStopSec=(\d+)", unit)[1]) > 600  # pyright: ignore[reportOptionalSubscript]


@pytest.mark.processes
def test_a_settings_module_of_ones_own_is_read_by_the_stock_worker(service_dsn: str, redis_url: str) -> None:
    rq = str(Path(sys.executable).with_name("rq"))
    environment = {**os.environ, "DATABASE_URL": service_dsn, "REDIS_URL": redis_url}
    command = [rq, "worker", "-S", "json", "-c", "my_rq_settings", "--burst"]
    ended = subprocess.run(command, cwd=WORKERS, env=environment, capture_output=True, text=True, timeout=60, check=False)
    assert ended.returncode == 0, ended.stderr
    assert "Listening on reports" in ended.stderr + ended.stdout
    assert Settings(redis_url=redis_url).redis_dsn == redis_url
