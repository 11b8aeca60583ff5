"""The warm line: calls of one process made by another, and what happens when that one is gone."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from pathlib import Path

import pytest

from ledgerq.errors import InvalidInput, LedgerUnavailable, WrongState
from ledgerq.execution.line import Line, LineTransport
from ledgerq.models import Json
from tests.support.waiting import eventually


class Echo:
    """A transport that answers with what it was asked, and with its process."""

    def __init__(self) -> None:
        self.closed = False

    def call(self, function: str, arguments: Mapping[str, Json]) -> Json:
        match function:
            case "refuses":
                raise InvalidInput("window: 0 is below 1")
            case "away":
                raise LedgerUnavailable("no route to host", retry_after=3.5)
            case "dies":
                os._exit(3)
            case "slow":
                threading.Event().wait(float(str(arguments["seconds"])))
        return {"function": function, "arguments": dict(arguments), "pid": os.getpid()}

    def close(self) -> None:
        self.closed = True


@pytest.fixture
def line() -> Iterator[Line]:
    opened = Line.open(Echo)
    yield opened
    end(opened)


@pytest.fixture
def transport(line: Line) -> Iterator[LineTransport]:
    made = LineTransport(line, Echo)
    yield made
    made.close()


def end(line: Line) -> None:
    line.close()
    try:
        os.kill(line.pid, signal.SIGKILL)
        os.waitpid(line.pid, 0)
    except (ProcessLookupError, ChildProcessError):
        return


def pid_of(answer: Json) -> int:
    assert isinstance(answer, dict)
    assert isinstance(answer["pid"], int)
    return answer["pid"]


def test_files_with_high_numbers_are_waited_for() -> None:
    """A worker may have more files than select() can name."""
    with ExitStack() as opened:
        while (fd := os.open(os.devnull, os.O_RDONLY)) < 1_024:
            opened.callback(os.close, fd)
        opened.callback(os.close, fd)
        line = Line.open(Echo)
        opened.callback(end, line)
        made = LineTransport(line, Echo)
        assert pid_of(made.call("echo", {})) == line.pid
        made.close()


def test_calls_are_made_by_the_process_that_keeps_the_line(line: Line, transport: LineTransport) -> None:
    answer = transport.call("advance_run", {"step": 1, "outcomes": [{"task": 7, "result": "é\u2028 \U0001f600"}]})
    assert answer == {
        "function": "advance_run",
        "arguments": {"step": 1, "outcomes": [{"task": 7, "result": "é\u2028 \U0001f600"}]},
        "pid": line.pid,
    }
    transport.close()


def test_large_requests_and_answers_pass(transport: LineTransport) -> None:
    text = "x" * 5_000_000
    answer = transport.call("big", {"text": text})
    assert isinstance(answer, dict)
    assert answer["arguments"] == {"text": text}


def test_errors_arrive_as_what_they_are(line: Line, transport: LineTransport) -> None:
    with pytest.raises(InvalidInput, match="window: 0 is below 1"):
        transport.call("refuses", {})
    with pytest.raises(LedgerUnavailable) as caught:
        transport.call("away", {})
    assert caught.value.retry_after == 3.5
    assert pid_of(transport.call("still", {})) == line.pid


def test_horse_after_horse_uses_the_same_line(line: Line) -> None:
    for _ in range(5):
        transport = LineTransport(line, Echo)
        assert pid_of(transport.call("start_run", {})) == line.pid
        transport.close()


def test_a_horse_that_dies_in_mid_request_disturbs_nobody(line: Line, transport: LineTransport) -> None:
    half_dead = line.connect()
    half_dead.sendall(b"\x00\x00\x10\x00only a beginning")
    half_dead.close()
    assert pid_of(transport.call("next", {})) == line.pid


def test_a_child_of_a_dead_horse_that_holds_its_stream_blocks_nobody(line: Line, transport: LineTransport) -> None:
    held = line.connect()
    assert pid_of(transport.call("next", {})) == line.pid
    held.close()


def test_without_the_process_calls_go_directly(line: Line, transport: LineTransport) -> None:
    end(line)
    assert pid_of(transport.call("advance_run", {})) == os.getpid()
    transport.close()


def test_a_process_that_dies_in_mid_call_is_replaced_for_that_very_call(line: Line) -> None:
    class Direct(Echo):
        def call(self, function: str, arguments: Mapping[str, Json]) -> Json:
            return {"pid": os.getpid()}

    transport = LineTransport(line, Direct)
    assert pid_of(transport.call("works", {})) == line.pid
    assert pid_of(transport.call("dies", {})) == os.getpid()
    assert pid_of(transport.call("works", {})) == os.getpid()
    transport.close()


def test_an_answer_that_was_not_waited_for_is_not_taken_for_the_next_one(transport: LineTransport) -> None:
    class Struck(BaseException):
        """As RQ's timeout of a run: raised by a signal's handler, wherever the process is."""

    def strike(_number: int, _frame: object) -> None:
        raise Struck

    before = signal.signal(signal.SIGALRM, strike)
    signal.setitimer(signal.ITIMER_REAL, 0.1)
    try:
        with pytest.raises(Struck):
            transport.call("slow", {"seconds": 0.5})
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    answer = transport.call("reconcile_runs", {"n": 2})
    assert isinstance(answer, dict)
    assert (answer["function"], answer["arguments"]) == ("reconcile_runs", {"n": 2})


def test_a_request_that_is_no_json_is_the_callers_fault_and_breaks_nothing(line: Line, transport: LineTransport) -> None:
    with pytest.raises(InvalidInput):
        transport.call("bad", {"value": object()})  # type: ignore[dict-item]
    assert pid_of(transport.call("good", {})) == line.pid


def test_a_closed_transport_makes_no_more_calls(line: Line, transport: LineTransport) -> None:
    transport.call("one", {})
    transport.close()
    with pytest.raises(WrongState):
        transport.call("two", {})


def test_threads_of_a_horse_take_turns(line: Line, transport: LineTransport) -> None:
    answers: list[Json] = []
    threads = [threading.Thread(target=lambda n=n: answers.append(transport.call("count", {"n": n}))) for n in range(20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(answer["arguments"]["n"] for answer in answers) == list(range(20))  # type: ignore[index, call-overload]


def test_it_ends_with_the_process_that_opened_it() -> None:
    code = "from tests.execution.test_line import Echo; from ledgerq.execution.line import Line; print(Line.open(Echo).pid)"
    root = Path(__file__).parents[2]
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=root, timeout=60)
    pid = int(said.stdout)
    eventually(lambda: _is_gone(pid), seconds=10)


def _is_gone(pid: int) -> bool:
    try:
        return "\nState:\tZ" in Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return True
