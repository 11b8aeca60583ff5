"""When a part is started again and when a stack is given up, by a clock; and what its end and its errors are like."""

from __future__ import annotations

import json
import signal
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import psycopg
import pytest

from ledgerq.errors import LocalStackError
from ledgerq.local import PostgresServer, Service, Stack, StackStatus, ValkeyServer
from ledgerq.local.child import Child, Command, run_once
from ledgerq.local.identity import ProcessIdentity
from ledgerq.local.layout import Claim, Layout
from ledgerq.local.parts import ServiceProcess
from ledgerq.local.ports import free_port
from ledgerq.local.signals import StopRequested, StopSignals
from ledgerq.local.state import Plan, read_state
from ledgerq.local.supervisor import Supervisor
from ledgerq.local.watched import HEALTHY_SECONDS, LONGEST_PAUSE_SECONDS, MAX_FAILED_STARTS, Watched
from ledgerq.logs import configure_logging

SLEEP = (sys.executable, "-c", "import time; time.sleep(1000)")


def a_service(directory: Path, *, settle_s: float = 2.0) -> Watched:
    service = Service(name="worker-1", argv=SLEEP, settle_s=settle_s)
    return Watched(name="worker-1", part=ServiceProcess(service, Layout(directory), Plan(run_id="run", cwd=str(directory)), {}))


def a_server(directory: Path) -> Watched:
    return Watched(name="valkey", part=ValkeyServer(directory / "valkey"))


def test_service_is_tried_again_for_ever_after_pauses_that_grow_to_a_limit(tmp_path: Path) -> None:
    watched, now, pauses = a_service(tmp_path), 0.0, list[float]()
    for _ in range(50):
        watched.has_died(now)
        assert watched.due is not None
        pauses.append(watched.due - now)
        now = watched.due
        watched.does_not_start(now, OSError("no more processes"))
    assert pauses == sorted(pauses)
    assert (pauses[0], pauses[-1]) == (0.25, LONGEST_PAUSE_SECONDS)
    assert watched.problem == "does not start: no more processes"


def test_server_is_given_up_for_starts_that_failed_in_a_row_and_for_no_deaths(tmp_path: Path) -> None:
    watched, now = a_server(tmp_path), 0.0
    for _ in range(3 * MAX_FAILED_STARTS):
        watched.has_died(now)
        watched.has_started(now)
        assert watched.problem is None
    for _ in range(MAX_FAILED_STARTS - 1):
        watched.does_not_start(now, LocalStackError("could not bind"))
        assert watched.due is not None
        now = watched.due
    assert now > 120, "a port may be taken for a while"
    with pytest.raises(LocalStackError, match=r"valkey could not be started 12 times in a row, given up: could not bind"):
        watched.does_not_start(now, LocalStackError("could not bind"))


def test_service_is_trusted_later_after_each_death_and_forgiven_in_the_end(tmp_path: Path) -> None:
    watched = a_service(tmp_path)
    watched.has_started(0.0)
    assert (watched.has_lived(1.9), watched.has_lived(2.0)) == (False, True)
    for _ in range(3):
        watched.has_died(10.0)
        watched.has_started(10.0)
    assert watched.problem
    assert (watched.has_lived(17.9), watched.has_lived(18.0)) == (False, True)
    watched.has_settled()
    assert watched.problem is None
    watched.forgive(10.0 + HEALTHY_SECONDS + 1)
    assert watched.failures == 0


@pytest.fixture
def supervisor(tmp_path: Path) -> Iterator[Supervisor]:
    """Of nothing yet, with a clock that a test sets."""
    layout = Layout(tmp_path)
    with Claim(layout, "run") as claim:
        yield Supervisor(layout, Plan(servers=(), run_id="run"), {}, lambda _: None, claim, clock=Clock())


@dataclass
class Clock:
    now: float = 0.0

    def __call__(self) -> float:
        return self.now


@dataclass
class Part:
    """A part whose start and end can be made to fail."""

    log: Path
    trouble: Exception | None = None
    identity: ProcessIdentity | None = None
    calls: list[str] = field(default_factory=list)

    def start(self) -> None:
        self.calls.append("start")
        if self.trouble:
            raise self.trouble

    def stop(self) -> None:
        self.calls.append("stop")
        if self.trouble:
            raise self.trouble

    def is_alive(self) -> bool:
        return self.trouble is not None


@pytest.mark.parametrize("trouble", [OSError(28, "No space left on device"), BlockingIOError(11, "try again"), RuntimeError("whatever")])
def test_restart_that_fails_for_any_reason_is_tried_again(supervisor: Supervisor, trouble: Exception) -> None:
    part = Part(supervisor.layout.log("valkey"), trouble)
    watched = Watched(name="valkey", part=part, due=0.0)
    supervisor._watched.append(watched)
    supervisor._tend(watched)
    assert watched.due
    assert str(trouble) in str(watched.problem)
    part.trouble = None
    assert isinstance(supervisor.clock, Clock)
    supervisor.clock.now = watched.due
    supervisor._tend(watched)
    assert (watched.due, watched.problem, watched.restarts) == (None, None, 1)


def test_record_that_cannot_be_written_is_written_later(supervisor: Supervisor) -> None:
    supervisor.layout.state_file.mkdir()  # so that it cannot be replaced
    watched = Watched(name="valkey", part=Part(supervisor.layout.log("valkey"), RuntimeError("dead")), due=0.0)
    supervisor._watched.append(watched)
    with StopSignals() as signals:
        supervisor._look_after_all(signals)
        supervisor.layout.state_file.rmdir()
        supervisor._look_after_all(signals)
    assert read_state(supervisor.layout)


def test_part_that_cannot_be_ended_keeps_no_other_running(supervisor: Supervisor) -> None:
    parts = [Part(supervisor.layout.log(name)) for name in ("postgres", "valkey", "vectors")]
    parts[2].trouble = LocalStackError("vectors cannot be ended")
    parts[2].identity = ProcessIdentity(pid=1, started="x")
    for name, part in zip(("postgres", "valkey", "vectors"), parts, strict=True):
        supervisor._watched.append(Watched(name=name, part=part, identity=part.identity))
    with StopSignals() as signals:
        error = supervisor._shut_down(signals, None)
    assert [part.calls for part in parts] == [["stop"]] * 3
    assert str(error) == "vectors cannot be ended"
    state = read_state(supervisor.layout)
    assert state
    assert (state.phase, state.error, [part.name for part in state.parts]) == ("failed", "vectors cannot be ended", ["vectors"])


def test_database_that_cannot_be_prepared_is_an_error_of_the_stack(tmp_path: Path) -> None:
    """It answers, and is killed before it has its roles."""
    server = PostgresServer(tmp_path, port=free_port())
    server._passwords = dict.fromkeys(("supabase_admin", "postgres", "ledgerq_service"), "x")
    child = Child(Command(name="PostgreSQL", argv=SLEEP, cwd=tmp_path, log=server.log))
    with pytest.raises(LocalStackError, match=r"cannot be prepared: .*refused") as told:
        server._provide_or_say_why(child)
    assert isinstance(told.value.__cause__, psycopg.OperationalError)


def test_failing_stack_says_so_in_one_line_without_what_its_variables_hold(server_dir: Path, capfd: pytest.CaptureFixture[str]) -> None:
    def fail(_: StackStatus) -> None:
        raise ZeroDivisionError("by nothing")

    configure_logging()  # onto today's stderr: another test may have left ours with one that is closed
    environment = {"OPENAI_API_KEY": "sk-hush", "DATABASE_URL": "postgresql://me:hush@127.0.0.1:1/x"}
    with pytest.raises(LocalStackError, match="cannot run: ZeroDivisionError") as told:
        Stack(server_dir / "stack", servers=[]).run(environment, on_ready=fail)
    assert isinstance(told.value.__cause__, ZeroDivisionError)
    said = "".join(capfd.readouterr())
    assert "stopping" in said
    assert "hush" not in said
    assert "Traceback" not in said


def test_error_shows_nothing_of_earlier_starts(tmp_path: Path) -> None:
    for said in ("first", "second"):
        command = Command(name=said, argv=(sys.executable, "-c", f"exit({said!r})"), cwd=tmp_path, log=tmp_path / "log")
        with pytest.raises(LocalStackError) as told:
            run_once(command, 30.0)
        assert said in str(told.value).partition("\n")[2]
        assert ("first" in str(told.value)) == (said == "first")


def test_ignored_signals_stay_ignored_and_a_programs_own_handlers_may_be_spared() -> None:
    def mine(*_: object) -> None: ...

    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)}
    try:
        signal.signal(signal.SIGHUP, signal.SIG_IGN)
        signal.signal(signal.SIGTERM, mine)
        with StopSignals(spare_handlers=True):
            assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
            assert signal.getsignal(signal.SIGTERM) is mine
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        with StopSignals():
            signal.raise_signal(signal.SIGHUP)
            with pytest.raises(StopRequested) as told:
                signal.raise_signal(signal.SIGTERM)  # how the stack is told to end
        assert told.value.exit_code == 143
        assert signal.getsignal(signal.SIGTERM) is signal.SIG_IGN
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def test_record_of_a_part_says_why_it_is_restarted(supervisor: Supervisor) -> None:
    watched = a_service(supervisor.layout.data_dir)
    watched.has_started(0.0)
    watched.has_died(0.0)
    supervisor._watched.append(watched)
    supervisor._tell_failure(watched)
    (record,) = json.loads(supervisor.layout.state_file.read_text())["parts"]
    assert (record["pid"], record["settled"]) == (0, False)
    assert record["problem"].startswith("ended with exit code")
