"""The embedded stack of one data directory: start, stop, look."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from pathlib import Path
from signal import SIGKILL, SIGTERM
from typing import BinaryIO
from uuid import uuid4

from ledgerq.errors import LocalStackError
from ledgerq.local.child import open_log, tail, undisturbed
from ledgerq.local.identity import end, is_running
from ledgerq.local.layout import ALREADY_RUNNING, Claim, Holder, Layout, already_running, holder, is_claimed, told_plainly
from ledgerq.local.migrations import migrate
from ledgerq.local.orphans import end_marked, end_recorded
from ledgerq.local.probes import part_status
from ledgerq.local.signals import StopSignals
from ledgerq.local.state import (
    Addresses,
    Phase,
    Plan,
    ServerName,
    Service,
    StackState,
    StackStatus,
    read_state,
    write_state,
)
from ledgerq.local.supervisor import DECISION_SECONDS, Migrate, Supervisor

START_SECONDS = 300.0
"""For everything: `initdb`, recovery of all servers, migrations."""
STOP_SECONDS = 90.0
"""After the services' grace: their last words and the servers' clean shutdown."""
UNKNOWN_GRACE_SECONDS = 60.0
"""For the services of a supervisor whose record cannot be read."""
POLL_SECONDS = 0.05
SIGN_SECONDS = 2.0
HURRY_SECONDS = 0.3
"""Between two signals that must not be taken for one."""
SUPERVISOR = "ledgerq.local.detached"


class Stack:
    """PostgreSQL, Valkey, a vector server and services of ours in one directory, under one supervisor.

    `servers` names those to run here; leave out what is somewhere else. `services` are started after the migrations,
    with the servers' addresses in their environment (`DATABASE_URL`, `REDIS_URL`, `QDRANT_URL`, `QDRANT_API_KEY`), and
    kept running. Every failure is a `LocalStackError` that says what to do.
    """

    def __init__(
        self,
        data_dir: Path,
        *,
        servers: Iterable[ServerName] = tuple(ServerName),
        services: Iterable[Service] = (),
        grace_s: float = 20.0,
        fsync: bool = True,
    ) -> None:
        # One directory has one name: what runs in it is known, and is recognised, by that.
        self._layout = Layout(Path(os.path.realpath(data_dir)))
        self._plan = Plan(servers=tuple(servers), services=tuple(services), cwd=str(Path.cwd()), grace_s=grace_s, fsync=fsync)
        self._log_start = 0

    @property
    def data_dir(self) -> Path:
        return self._layout.data_dir

    def up(self, *, spare_handlers: bool = True) -> StackStatus:
        """Start in the background, and return when every part runs or is known not to: see the status's `ok`.

        A signal that would end the program ends what has been started first. What somebody else has started meanwhile
        in the same directory goes on, and is a LocalStackError. `spare_handlers` leaves a signal that the program handles to it.

        Raises:
            StopRequested: such a signal came. It is a KeyboardInterrupt.
        """
        with StopSignals(spare_handlers=spare_handlers) as signals:
            return self._launch(self._prepare(), signals)

    def _launch(self, plan: Plan, signals: StopSignals) -> StackStatus:
        try:
            self._spawn(plan)
            self._wait_ready(plan)
            self._wait_decided(plan)
        except BaseException:
            signals.from_now_on_hurry()
            self._take_back(plan)
            raise
        return self.status()

    def run(
        self,
        environment: Mapping[str, str],
        *,
        on_ready: Callable[[StackStatus], None] | None = None,
        migrate: Migrate = migrate,
    ) -> None:
        """Run in this process's main thread until Ctrl-C or SIGTERM; `environment` is what services inherit.

        A second signal skips the services' grace. Returns after the clean shutdown. `on_ready` is called once, when every
        part runs or is known not to.

        Raises:
            StopRequested: the signal came before that; nothing runs. It is a KeyboardInterrupt.
        """

        def ready() -> None:
            if on_ready is not None:
                on_ready(self.status())

        with StopSignals() as signals:
            plan = self._prepare()
            with Claim(self._layout, plan.run_id) as claim:
                Supervisor(self._layout, plan, environment, migrate, claim).run(signals, ready)

    def down(self, *, grace_s: float | None = None) -> bool:
        """Stop everything, also what a killed supervisor left. False when there was nothing to stop.

        The grace is the supervisor's own, except that 0 skips it. A supervisor of another version is told all the same.
        """
        running = self._settled_holder()
        if running is None:
            self._layout.check()
            return self._clear()
        state = self._readable_state()
        patience = STOP_SECONDS + (state.grace_s if state else UNKNOWN_GRACE_SECONDS)
        steps = ((SIGTERM, HURRY_SECONDS), (SIGTERM, patience)) if grace_s == 0.0 else ((SIGTERM, patience),)
        end(running.identity, (*steps, (SIGKILL, 5.0)))
        with suppress(LocalStackError):  # another version's directory: its supervisor has cleared up
            self._layout.check()
            self._clear()
        return True

    def status(self) -> StackStatus:
        """Asks every part for an answer; takes no longer than the slowest of them (2 s when it hangs)."""
        running = holder(self._layout)
        if running is None:
            self._layout.check()
            state = read_state(self._layout)
            phase = Phase.FAILED if state is not None and state.phase is Phase.FAILED else Phase.STOPPED
        else:
            state = self._readable_state()
            phase = state.phase if state is not None else Phase.STARTING
        return StackStatus(
            data_dir=str(self.data_dir),
            running=running is not None,
            phase=phase,
            supervisor_pid=running.identity.pid if running else None,
            parts=tuple(part_status(part, state.addresses) for part in state.parts) if state else (),
            error=state.error if state else None,
        )

    def environment(self) -> dict[str, str]:
        """For `Settings` of anything that is to work with this stack. LocalStackError when it is not running."""
        return self.addresses().environment()

    def addresses(self) -> Addresses:
        """Passwords included. LocalStackError when it is not running."""
        state = read_state(self._layout)
        if state is None or state.phase is not Phase.READY or not is_claimed(self._layout):
            raise LocalStackError(f"no stack runs in {self.data_dir}: start it with `ledgerq up --data-dir {self.data_dir}`")
        return state.addresses

    def log(self, name: str) -> Path:
        """The log of a part, or of the `supervisor`."""
        return self._layout.log(name)

    def _prepare(self) -> Plan:
        if is_claimed(self._layout):
            Claim(self._layout).release()  # says who holds it, unless that is somebody who is just clearing up
        self._layout.prepare(with_postgres=ServerName.POSTGRES in self._plan.servers)
        return self._plan.model_copy(update={"run_id": uuid4().hex})

    def _spawn(self, plan: Plan) -> None:
        """Returns when the supervisor has the claim. AlreadyRunning when somebody else was quicker."""
        with told_plainly(self.data_dir, "write in"), open_log(self._layout.log("supervisor")) as log:
            self._log_start = log.tell()
            code = _run_launcher([sys.executable, "-P", "-m", SUPERVISOR, str(self.data_dir)], plan.model_dump_json().encode(), log)
        if code == ALREADY_RUNNING:
            raise already_running(self._layout)
        if code != 0:
            raise LocalStackError(f"the supervisor did not start\n{self._last_words()}")

    def _wait_ready(self, plan: Plan) -> None:
        deadline = time.monotonic() + START_SECONDS
        while not self._is_ready(plan):
            if time.monotonic() >= deadline:
                raise LocalStackError(f"the stack is not ready after {START_SECONDS:.0f} s: see {self._layout.log('supervisor')}")
            time.sleep(POLL_SECONDS)

    def _is_ready(self, plan: Plan) -> bool:
        claimed = is_claimed(self._layout)  # asked first: the last thing that a supervisor does is to write its state
        state = read_state(self._layout)
        if state is not None and state.run_id == plan.run_id:
            if state.phase is Phase.FAILED and state.error:
                raise LocalStackError(state.error)
            if claimed and state.phase is Phase.READY:
                return True
        if not claimed:
            raise LocalStackError(f"the supervisor ended while it started the stack\n{self._last_words()}")
        return False

    def _wait_decided(self, plan: Plan) -> None:
        """Until every service is known to run, or not to; or for long enough."""
        deadline = time.monotonic() + DECISION_SECONDS
        while time.monotonic() < deadline and is_claimed(self._layout):
            state = read_state(self._layout)
            if state is None or state.run_id != plan.run_id or all(part.settled or part.problem for part in state.parts):
                return
            time.sleep(POLL_SECONDS)

    def _take_back(self, plan: Plan) -> None:
        """End what this start has begun, and nothing that somebody else has."""
        running = self._settled_holder()
        state = self._readable_state()
        if running.run_id == plan.run_id if running else state is not None and state.run_id == plan.run_id:
            self.down(grace_s=0.0)

    def _settled_holder(self) -> Holder | None:
        """The supervisor; one that has just forked away from its starter gets the moment to sign."""
        deadline = time.monotonic() + SIGN_SECONDS
        while is_claimed(self._layout):
            running = holder(self._layout)
            if running is not None and is_running(running.identity):
                return running
            if time.monotonic() >= deadline:
                return None
            time.sleep(POLL_SECONDS)
        return None

    def _readable_state(self) -> StackState | None:
        """None also for what another version of ledgerq has written."""
        with suppress(LocalStackError):
            return read_state(self._layout)
        return None

    def _last_words(self) -> str:
        return tail(self._layout.log("supervisor"), self._log_start)

    def _clear(self) -> bool:
        """Without a supervisor: end what runs, and say so in the state."""
        state = read_state(self._layout)
        if state is None:
            return False
        with Claim(self._layout):
            ended = [*end_recorded(state.parts), *["other"] * end_marked(self.data_dir)]
            if ended or state.phase not in (Phase.STOPPED, Phase.FAILED):
                with suppress(OSError):  # on a full disk the record stays; it names processes that are no more
                    write_state(self._layout, _stopped(state))
        return bool(ended)


def _run_launcher(command: list[str], plan: bytes, log: BinaryIO) -> int:
    """The exit code of the process that forks the supervisor; interrupted, it has ended, and has not forked since."""
    process: subprocess.Popen[bytes] | None = None
    try:
        with undisturbed():  # nothing is started that nobody knows of
            process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=log, stderr=log, cwd="/", start_new_session=True)
        process.communicate(plan)
        return process.returncode
    finally:
        if process is not None:
            process.kill()  # harmless when it has ended
            process.wait()


def _stopped(state: StackState) -> StackState:
    return state.model_copy(update={"phase": Phase.STOPPED, "parts": (), "error": None})
