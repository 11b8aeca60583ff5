"""The demo as a new user runs it, in a directory of its own: hits at the end, and nothing left running, whatever ends it."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from ledgerq.local import Stack
from tests.support.processes import working_on
from tests.support.waiting import eventually

pytestmark = [pytest.mark.processes, pytest.mark.timeout(300)]


class Demo:
    """One run of `ledgerq demo` in the background."""

    def __init__(self, directory: Path, *words: str) -> None:
        self.directory = directory
        self.log = directory / "demo.err"
        self.state_file = directory / ".ledgerq-demo" / "stack.json"
        environment = {**os.environ, "DATABASE_URL": "postgresql://nobody@127.0.0.1:1/not_used"}
        with self.log.open("wb") as err, (directory / "demo.out").open("wb") as out:
            command = [sys.executable, "-m", "ledgerq", "demo", *words]
            self.process = subprocess.Popen(command, cwd=directory, stdout=out, stderr=err, env=environment, stdin=subprocess.DEVNULL)

    def said(self) -> str:
        return self.log.read_text(errors="replace")

    def out(self) -> str:
        return (self.directory / "demo.out").read_text()

    def wait(self, seconds: float = 200.0) -> int:
        return self.process.wait(seconds)

    def phase(self) -> str | None:
        try:
            return json.loads(self.state_file.read_text())["phase"]
        except (OSError, ValueError):
            return None


@pytest.fixture
def directory(server_dir: Path) -> Iterator[Path]:
    """Nothing may be left running in it, whatever the test did."""
    yield server_dir
    if (server_dir / ".ledgerq-demo").exists():
        Stack(server_dir / ".ledgerq-demo").down(grace_s=0.0)


@contextmanager
def running(directory: Path, *words: str) -> Iterator[Demo]:
    demo = Demo(directory, *words)
    try:
        yield demo
    finally:
        if demo.process.poll() is None:
            demo.process.kill()
            demo.process.wait()


def completed(directory: Path, *words: str) -> Demo:
    with running(directory, *words) as demo:
        demo.wait()
    return demo


def nothing_runs(directory: Path) -> None:
    eventually(lambda: working_on(directory) == [], seconds=10.0, what=f"nothing is left running: {working_on(directory)}")


def document(demo: Demo) -> Any:
    return json.loads(demo.out())


def test_the_projects_own_pages_become_searchable_and_then_files_of_ones_own(directory: Path) -> None:
    demo = completed(directory, "--json")
    assert demo.process.returncode == 0, demo.said()
    found = document(demo)
    assert {one["status"] for one in found["documents"]} == {"indexed"}
    assert {Path(one["uri"]).suffix for one in found["documents"]} == {".md", ".html", ".txt", ".pdf"}
    assert all(searched["hits"] for searched in found["searches"])
    hits = [hit for searched in found["searches"] for hit in searched["hits"]]
    assert any(hit["page"] for hit in hits)
    assert any(hit["heading"] for hit in hits)
    assert found["cost"]["chunks"] > 0
    nothing_runs(directory)

    (directory / "good.md").write_text("# Tides\n\nThe moon pulls the sea, twice a day.\n")
    (directory / "bad.pdf").write_bytes(b"%PDF-1.4\nnot really\n")
    demo = completed(directory, "good.md", "bad.pdf")
    assert demo.process.returncode == 3, demo.said()
    assert "failed    bad.pdf: " in demo.out()
    assert "1 indexed, 1 failed" in demo.out()
    assert "The moon pulls the sea" in demo.out()
    nothing_runs(directory)


MOMENTS: dict[str, Callable[[Demo], object]] = {
    "at once": lambda _demo: True,
    "before anything runs": lambda demo: "starting" in demo.said(),
    "while the servers start": lambda demo: demo.phase() == "starting",
    "when everything runs": lambda demo: demo.phase() == "ready",
    "while documents are processed": lambda demo: " of " in demo.said(),
}


@pytest.mark.parametrize("moment", MOMENTS)
def test_ctrl_c_leaves_nothing_running(directory: Path, moment: str) -> None:
    with running(directory) as demo:
        eventually(lambda: MOMENTS[moment](demo), what=moment)
        demo.process.send_signal(signal.SIGINT)
        assert demo.wait(60.0) in {130, -signal.SIGINT}, demo.said()
        nothing_runs(directory)
    assert "Traceback" not in demo.said()


def test_ctrl_c_while_it_stops_does_not_cut_the_stopping_short(directory: Path) -> None:
    (directory / "good.md").write_text("# Tides\n\nThe moon pulls the sea.\n")
    with running(directory, "good.md") as demo:
        eventually(lambda: "stopping" in demo.said(), seconds=120.0, what="it stops")
        for _ in range(3):
            demo.process.send_signal(signal.SIGINT)
        assert demo.wait(60.0) in {0, 130}, demo.said()
        nothing_runs(directory)


def test_a_request_to_terminate_leaves_nothing_running(directory: Path) -> None:
    with running(directory) as demo:
        eventually(lambda: demo.phase() == "ready", what="everything runs")
        demo.process.terminate()
        assert demo.wait(60.0) == 143, demo.said()
        nothing_runs(directory)


def test_what_a_killed_demo_left_is_ended_by_the_next_one(directory: Path) -> None:
    (directory / "good.md").write_text("# Tides\n\nThe moon pulls the sea.\n")
    with running(directory) as demo:
        eventually(lambda: demo.phase() == "ready", what="everything runs")
        demo.process.kill()
        demo.wait()
    assert working_on(directory / ".ledgerq-demo") != []
    demo = completed(directory, "good.md")
    assert demo.process.returncode == 0, demo.said()
    assert "ended the stack that ran in .ledgerq-demo" in demo.said()
    nothing_runs(directory)


def test_what_is_kept_is_used_and_ended_by_hand(directory: Path) -> None:
    (directory / "good.md").write_text("# Tides\n\nThe moon pulls the sea.\n")
    demo = completed(directory, "good.md", "--keep")
    assert demo.process.returncode == 0, demo.said()
    assert re.search(r"stop it +\S*ledgerq down --data-dir .ledgerq-demo\n", demo.out())
    searched = ledgerq(directory, "search", "moon", "--json", "--data-dir", ".ledgerq-demo")
    assert json.loads(searched.stdout)["hits"][0]["snippet"].endswith("The moon pulls the sea.")
    assert ledgerq(directory, "status", "--data-dir", ".ledgerq-demo").returncode == 0
    assert ledgerq(directory, "down", "--data-dir", ".ledgerq-demo").returncode == 0
    nothing_runs(directory)


def ledgerq(directory: Path, *words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-m", "ledgerq", *words], cwd=directory, capture_output=True, text=True, check=False, timeout=60)
