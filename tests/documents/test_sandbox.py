"""The parser process: what kills it costs one document; nothing else notices."""

from __future__ import annotations

import contextlib
import os
import select
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from ledgerq.documents.load import child as child_module
from ledgerq.documents.load import sandbox as sandbox_module
from ledgerq.documents.load.model import LoadLimits, Unreadable
from ledgerq.documents.load.sandbox import Sandbox
from ledgerq.retry import Judgement, classify
from tests.documents.pdfs import pdf

PAGE = b"<html><body><p>fine</p></body></html>"
linux_only = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="address-space limits and parent death signals are Linux's")


@contextlib.contextmanager
def sandbox(limits: LoadLimits | None = None) -> Iterator[Sandbox]:
    made = Sandbox(limits or LoadLimits())
    try:
        yield made
    finally:
        made.close()


def pid_of(made: Sandbox) -> int:
    assert made._parser is not None
    return made._parser.process.pid


def wait_for_end(pid: int, seconds: float) -> bool:
    """Whether a process that is not our child ends in time."""
    try:
        descriptor = os.pidfd_open(pid)
    except ProcessLookupError:
        return True
    poll = select.poll()
    poll.register(descriptor, select.POLLIN)
    try:
        return bool(poll.poll(seconds * 1000))
    finally:
        os.close(descriptor)


def test_one_process_serves_many_documents() -> None:
    with sandbox() as made:
        assert made.load("html", PAGE, declared=None).text == "fine"
        first = pid_of(made)
        assert made.load("pdf", pdf(["words"]), declared=None).text == "words"
        assert pid_of(made) == first


def test_too_slow_fails_that_document_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sandbox_module, "_WORKED", 0.1)  # the machine may be busy
    with sandbox() as made:
        made.load("html", PAGE, declared=None)
        made._limits = LoadLimits(seconds=0.2)
        with pytest.raises(Unreadable, match=r"took longer than 0\.2 s"):
            made.load("html", b"<p>many words in many nodes</p>" * 300_000, declared=None)
        made._limits = LoadLimits()
        assert made.load("html", PAGE, declared=None).text == "fine"


@linux_only
def test_a_parser_that_gets_no_processor_is_not_the_documents_fault() -> None:
    with sandbox() as made:
        made.load("html", PAGE, declared=None)
        os.kill(pid_of(made), signal.SIGSTOP)
        made._limits = LoadLimits(seconds=0.2)
        with pytest.raises(TimeoutError, match=r"had the processor for 0\.0 s") as caught:
            made.load("html", PAGE, declared=None)
        assert classify(caught.value) is Judgement.TRANSIENT
        made._limits = LoadLimits()
        assert made.load("html", PAGE, declared=None).text == "fine"


def test_a_watch_that_comes_too_late_blames_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    watches: list[sandbox_module._Watch] = []

    class Late(sandbox_module._Watch):
        def __init__(self, parser: sandbox_module._Parser, seconds: float) -> None:
            super().__init__(parser, seconds)
            watches.append(self)

        def end(self) -> None:
            if self is watches[0]:
                self.expire()  # between the answer and the end of the watch
            super().end()

    monkeypatch.setattr(sandbox_module, "_Watch", Late)
    with sandbox() as made:
        for _ in range(2):
            assert made.load("html", PAGE, declared=None).text == "fine"
            watches[0].expire()
        assert [watch.expired for watch in watches] == [True, False]


def test_memory_that_ends_while_the_answer_is_written_is_the_documents(monkeypatch: pytest.MonkeyPatch) -> None:
    def no_memory(_: object) -> None:
        raise MemoryError

    monkeypatch.setattr(child_module, "asdict", no_memory)
    header = {"kind": "html", "declared": None}
    assert child_module._answer(header, PAGE, LoadLimits()) == ({"status": "memory"}, b"")


@linux_only
def test_too_much_memory_fails_that_document_alone() -> None:
    with sandbox(LoadLimits(memory_bytes=96 * 2**20)) as made:
        with pytest.raises(Unreadable, match="memory"):
            made.load("html", b"<html><body>" + b"<p>many words in many nodes</p>" * 1_000_000, declared=None)
        assert made.load("html", PAGE, declared=None).text == "fine"


def test_bombs_are_refused_before_they_unfold() -> None:
    bomb = pdf(["x"], fill=b" " * 120_000_000)
    assert len(bomb) < 200_000
    with sandbox() as made, pytest.raises(Unreadable, match="limit of the PDF guard"):
        made.load("pdf", bomb, declared=None)


def test_many_pages_that_each_unfold_a_little_are_a_bomb_too() -> None:
    with sandbox(LoadLimits(memory_bytes=256 * 2**20)) as made, pytest.raises(Unreadable, match="more than 64 MiB of page contents"):
        made.load("pdf", pdf(["x"] * 8, fill=b" " * 10_000_000), declared=None)


def test_a_process_that_died_while_idle_is_replaced() -> None:
    with sandbox() as made:
        made.load("html", PAGE, declared=None)
        first = pid_of(made)
        os.kill(first, signal.SIGKILL)
        assert made.load("html", PAGE, declared=None).text == "fine"
        assert pid_of(made) != first


def test_what_kills_the_parser_twice_is_named_for_it(monkeypatch: pytest.MonkeyPatch) -> None:
    starts: list[int] = []

    def start_one_that_aborts() -> object:
        process = subprocess.Popen(
            [sys.executable, "-c", "import os, sys; sys.stdin.buffer.readline(); os.abort()"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
        )
        starts.append(process.pid)
        return sandbox_module._Parser(process=process, owner=os.getpid(), errors=Path(os.devnull).open("rb"))

    monkeypatch.setattr(sandbox_module, "_start", start_one_that_aborts)
    with sandbox() as made, pytest.raises(Unreadable, match=r"killed its parser.*SIGABRT.*twice"):
        made.load("html", PAGE, declared=None)
    assert len(starts) == 2


def test_a_parser_that_cannot_even_start_is_not_the_documents_fault(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        sandbox_module, "_environment", lambda: {"PATH": os.environ["PATH"], "PYTHONPATH": "/nowhere", "PYTHONHOME": "/nowhere"}
    )
    with sandbox() as made, pytest.raises(OSError, match="the parser process ended with exit code 1"):
        made.load("html", PAGE, declared=None)


def test_it_sees_no_secrets(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-secret")
    monkeypatch.setenv("DATABASE_URL", "postgresql://u:p@h/d")
    with sandbox() as made:
        made.load("html", PAGE, declared=None)
        if sys.platform.startswith("linux"):
            seen = Path(f"/proc/{pid_of(made)}/environ").read_bytes()
            assert b"sk-secret" not in seen
            assert b"postgresql" not in seen
    assert not {"OPENAI_API_KEY", "DATABASE_URL"} & sandbox_module._environment().keys()


def test_threads_take_turns() -> None:
    texts: list[str] = []
    with sandbox() as made:
        threads = [
            threading.Thread(target=lambda number=number: texts.append(made.load("html", b"<p>%d" % number, declared=None).text))
            for number in range(8)
        ]
        made.load("html", PAGE, declared=None)
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(30)
    assert sorted(texts) == [str(number) for number in range(8)]


def test_closing_ends_it_in_the_middle_of_a_document() -> None:
    made = Sandbox(LoadLimits())
    made.load("html", PAGE, declared=None)
    os.kill(pid_of(made), signal.SIGSTOP)
    errors: list[BaseException] = []
    begun = threading.Event()

    def load() -> None:
        begun.set()
        try:
            made.load("html", b"<p>" + b"x" * 500_000, declared=None)
        except OSError as error:
            errors.append(error)

    thread = threading.Thread(target=load)
    thread.start()
    begun.wait(10)
    made.close()
    thread.join(10)
    made.close()
    assert not thread.is_alive()
    assert made._parser is None


def test_a_forked_child_starts_its_own() -> None:
    with sandbox() as made:
        made.load("html", PAGE, declared=None)
        parent_parser = pid_of(made)
        child = os.fork()
        if child == 0:
            try:
                good = made.load("html", PAGE, declared=None).text == "fine" and pid_of(made) != parent_parser
                made.close()
                os._exit(0 if good else 1)
            finally:
                os._exit(2)
        assert os.waitpid(child, 0)[1] == 0
        assert made.load("html", PAGE, declared=None).text == "fine"
        assert pid_of(made) == parent_parser


@linux_only
@pytest.mark.parametrize("busy", [False, True])
def test_it_dies_with_its_parent(busy: bool) -> None:
    script = (
        "import os, signal, sys\n"
        "from ledgerq.documents.load.model import LoadLimits\n"
        "from ledgerq.documents.load.sandbox import Sandbox\n"
        "made = Sandbox(LoadLimits())\n"
        "made.load('html', b'<p>x', declared=None)\n"
        "pid = made._parser.process.pid\n"
        f"if {busy}: os.kill(pid, signal.SIGSTOP)\n"
        "print(pid, flush=True)\n"
        "os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    parent = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert parent.returncode == -signal.SIGKILL
    assert wait_for_end(int(parent.stdout), 10)
