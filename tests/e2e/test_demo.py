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
from tests.support.directories import server_directory
from tests.support.processes import working_on
from tests.support.waiting import eventually

pytestmark = [pytest.mark.processes, pytest.mark.timeout(300)]


CORPUS = Path(os.environ.get("LEDGERQ_CORPUS", "/nonexistent"))
NO_MATTER = {
    "DATABASE_URL": "postgresql://nobody@127.0.0.1:1/not_used",
    "HTTP_PROXY": "http://127.0.0.1:1",
    "ALL_PROXY": "http://127.0.0.1:1",
    "LEDGERQ_EMBEDDER": "openai:not-used",
    "LEDGERQ_CHUNK_TOKENS": "not used",
    "RQ_REDIS_URL": "redis://127.0.0.1:1",
}
"""What a user may have set, and the demo is to do without."""


class Demo:
    """One run of `ledgerq demo` in the background, where modules lie about that are none of its business."""

    def __init__(self, directory: Path, *words: str, err: int | None = None, measured: bool = False) -> None:
        self.directory = directory
        self.log = directory / "demo.err"
        self.state_file = directory / ".ledgerq-demo" / "stack.json"
        for name in ("redis", "queue", "tokenizers"):
            (directory / f"{name}.py").write_text("raise SystemExit('somebody\\'s own module')\n")
        command = [sys.executable, "-P", "-m", "ledgerq", "demo", *words]
        with self.log.open("wb") as log, (directory / "demo.out").open("wb") as out:
            self.process = subprocess.Popen(
                command,
                cwd=directory,
                stdout=out,
                stderr=log if err is None else err,
                env=environment(measured=measured),
                stdin=subprocess.DEVNULL,
            )

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


def environment(*, measured: bool = False) -> dict[str, str]:
    """Coverage makes a demo half as long again, and one of them shows all that a demo runs through."""
    return {name: value for name, value in {**os.environ, **NO_MATTER}.items() if measured or not name.startswith("COVERAGE_")}


@pytest.fixture
def directory(server_dir: Path) -> Iterator[Path]:
    """Nothing may be left running in it, whatever the test did."""
    yield server_dir
    if (server_dir / ".ledgerq-demo").exists():
        Stack(server_dir / ".ledgerq-demo").down(grace_s=0.0)


@contextmanager
def running(directory: Path, *words: str, err: int | None = None, measured: bool = False) -> Iterator[Demo]:
    demo = Demo(directory, *words, err=err, measured=measured)
    try:
        yield demo
    finally:
        if demo.process.poll() is None:
            demo.process.kill()
            demo.process.wait()


def completed(directory: Path, *words: str, measured: bool = False) -> Demo:
    with running(directory, *words, measured=measured) as demo:
        demo.wait()
    return demo


def nothing_runs(directory: Path) -> None:
    eventually(lambda: working_on(directory) == [], seconds=10.0, what=f"nothing is left running: {working_on(directory)}")


def document(demo: Demo) -> Any:
    return json.loads(demo.out())


def test_the_projects_own_pages_become_searchable(directory: Path) -> None:
    demo = completed(directory, "--json", measured=True)
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


@pytest.fixture(scope="module")
def of_ones_own() -> Iterator[tuple[int, str, str]]:
    """The demo on two files, and on the real documents where they are: its exit code, and what it said and printed."""
    with server_directory("demo") as directory:
        (directory / "good.md").write_text("# Tides\n\nThe moon pulls the sea, twice a day.\n")
        (directory / "bad.pdf").write_bytes(b"%PDF-1.4\nnot really\n")
        real = [str(CORPUS / name) for name in ("pdf", "html") if CORPUS.is_dir()]
        try:
            demo = completed(directory, "good.md", "bad.pdf", *real)
            nothing_runs(directory)
        finally:
            Stack(directory / ".ledgerq-demo").down(grace_s=0.0)
        yield demo.process.returncode, demo.said(), demo.out()


def test_files_of_ones_own_become_searchable_and_what_cannot_is_named(of_ones_own: tuple[int, str, str]) -> None:
    code, said, out = of_ones_own
    assert code == 3, said
    assert "failed    bad.pdf: " in out
    assert "good.md" not in out.partition("search: ")[0], "what was indexed is no problem"
    assert re.search(r"^\d+ indexed, \d+ failed", out, flags=re.MULTILINE)


@pytest.mark.skipif(not CORPUS.is_dir(), reason="LEDGERQ_CORPUS is not set: the real documents are elsewhere")
def test_real_documents_become_searchable_and_those_that_cannot_say_why(of_ones_own: tuple[int, str, str]) -> None:
    _, said, out = of_ones_own
    failed = dict(re.findall(r"^failed +\S*?([^/\s]+): (.*)$", out, flags=re.MULTILINE))
    assert set(failed) == {"bad.pdf", "libreoffice-writer-password.pdf", "imagemagick-images.pdf"}, said
    assert "encrypted" in failed["libreoffice-writer-password.pdf"]
    assert "text" in failed["imagemagick-images.pdf"]
    assert out.count(".html  ") + out.count(".pdf  ") >= 3, "hits of them are shown"


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
    """Also when nobody reads what it says any more."""
    reader, writer = os.pipe()
    with running(directory, err=writer) as demo:
        os.close(writer)
        assert os.read(reader, 8) == b"starting"
        os.close(reader)
        eventually(lambda: demo.phase() == "ready", what="everything runs")
        demo.process.terminate()
        assert demo.wait(60.0) == 143
        nothing_runs(directory)


def test_what_a_killed_demo_left_is_ended_by_the_next_one_which_may_be_kept(directory: Path) -> None:
    (directory / "good.md").write_text("# Tides\n\nThe moon pulls the sea.\n")
    with running(directory) as demo:
        eventually(lambda: demo.phase() == "ready", what="everything runs")
        demo.process.kill()
        demo.wait()
    assert working_on(directory / ".ledgerq-demo") != []
    demo = completed(directory, "good.md", "--keep")
    assert demo.process.returncode == 0, demo.said()
    assert "ended the stack that ran in .ledgerq-demo" in demo.said()
    assert_is_used_and_ended_by_hand(demo)


def assert_is_used_and_ended_by_hand(demo: Demo) -> None:
    directory = demo.directory
    assert re.search(r"stop it +env -u \S.* \S*ledgerq down --data-dir .ledgerq-demo\n", demo.out())
    listed = re.search(r"its jobs +(.*)\n", demo.out())
    assert listed is not None
    command = ["bash", "-c", f"{listed[1]} --json"]
    ran = subprocess.run(command, cwd=directory, capture_output=True, check=False, env=environment())
    assert [job["status"] for job in json.loads(ran.stdout)["jobs"]] == ["completed"], ran.stderr
    searched = ledgerq(directory, "search", "moon", "--json", "--data-dir", ".ledgerq-demo")
    assert json.loads(searched.stdout)["hits"][0]["snippet"].endswith("The moon pulls the sea.")
    assert ledgerq(directory, "status", "--data-dir", ".ledgerq-demo").returncode == 0
    assert ledgerq(directory, "down", "--data-dir", ".ledgerq-demo").returncode == 0
    nothing_runs(directory)


def ledgerq(directory: Path, *words: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-P", "-m", "ledgerq", *words]
    return subprocess.run(command, cwd=directory, capture_output=True, text=True, check=False, timeout=60)
