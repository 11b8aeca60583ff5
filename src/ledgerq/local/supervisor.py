"""Keeps the parts of one data directory running, and ends them in order.

What it does at a start: ends what a killed predecessor left, starts the servers, migrates, starts the services. A part
that dies is started again, later each time; one that keeps dying ends the stack, with the end of its log as the reason.
Every change is in `stack.json` before anybody can ask.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import structlog

from ledgerq.errors import LedgerqError, LocalStackError
from ledgerq.local.child import tail, trim_log
from ledgerq.local.identity import ProcessIdentity
from ledgerq.local.layout import Layout
from ledgerq.local.orphans import end_marked, end_recorded
from ledgerq.local.parts import Runnable, Servers, ServiceProcess, choose_ports, make_servers, stop_services
from ledgerq.local.signals import StopRequested, StopSignals
from ledgerq.local.state import Addresses, Part, Phase, Plan, StackState, read_state, write_state

POLL_SECONDS = 0.25
TRIM_SECONDS = 60.0
MAX_FAILURES = 5
"""Deaths in a row after which a part is given up."""
HEALTHY_SECONDS = 60.0
"""A part that lived this long is forgiven its earlier deaths."""
FIRST_PAUSE_SECONDS = 0.25
"""Before the first restart; doubled with each further death."""
FULL_BYTES = 16 * 1024 * 1024
Migrate = Callable[[str], object]
"""Brings the schema of the database at this DSN up to date."""
log = structlog.get_logger("ledgerq.local.supervisor")


@dataclass(slots=True, kw_only=True)
class Watched:
    """A part and its history."""

    name: str
    part: Runnable
    port: int | None = None
    identity: ProcessIdentity | None = None
    started_at: float = 0.0
    failures: int = 0
    restarts: int = 0
    due: float | None = None
    """When it is to be started again; None while it runs."""

    def record(self) -> Part | None:
        if self.identity is None:
            return None
        return Part(name=self.name, pid=self.identity.pid, started=self.identity.started, port=self.port, restarts=self.restarts)


@dataclass(slots=True)
class Supervisor:
    """Runs in the main thread of one process, which must hold the claim of the directory."""

    layout: Layout
    plan: Plan
    environment: Mapping[str, str]
    """What services inherit."""
    migrate: Migrate
    _watched: list[Watched] = field(default_factory=list[Watched], init=False)
    _addresses: Addresses = field(default_factory=Addresses, init=False)
    _ports: dict[str, int] = field(default_factory=dict[str, int], init=False)
    _trimmed_at: float = field(default=0.0, init=False)

    def run(self, on_ready: Callable[[], None] | None = None) -> None:
        """Until a signal asks to stop. LocalStackError when it cannot start or a part keeps dying; nothing runs then."""
        with StopSignals() as signals:
            error: LedgerqError | None = None
            try:
                self._start(signals)
                if on_ready is not None:
                    on_ready()
                self._watch(signals)
            except StopRequested:
                log.info("stopping")
            except Exception as caught:
                error = self._explained(caught)
                log.exception("stopping", reason=str(error))
            finally:
                signals.from_now_on_hurry()
                self._shut_down(signals, error)
            if error is not None:
                raise error

    def _start(self, signals: StopSignals) -> None:
        before = read_state(self.layout)
        if before is not None:
            self._clear(before)
        self._ports = choose_ports(self.plan, before.ports if before else {})
        self._save(Phase.STARTING)
        servers = make_servers(self.layout, self.plan, self._ports)
        for name, server in servers.in_order().items():
            self._begin(Watched(name=name, part=server, port=self._ports[name]))
            signals.check()
        self._addresses = servers.addresses()
        self._migrate(servers)
        environment = _with_addresses(self.environment, self._addresses.environment())
        for service in self.plan.services:
            self._begin(Watched(name=service.name, part=ServiceProcess(service, self.layout, self.plan, environment)))
        self._save(Phase.READY)
        log.info("ready", parts=[watched.name for watched in self._watched])

    def _clear(self, before: StackState) -> None:
        ended = end_recorded(before.parts)
        left = end_marked(self.layout.data_dir)
        if ended or left:
            log.warning("ended what a killed supervisor left", parts=ended, others=left)

    def _migrate(self, servers: Servers) -> None:
        if servers.postgres is not None:
            self.migrate(servers.postgres.dsn())

    def _begin(self, watched: Watched) -> None:
        """Known before it is started: whatever interrupts the start, the shutdown reaches it."""
        self._watched.append(watched)
        self._start_part(watched)
        self._save(Phase.STARTING)

    def _start_part(self, watched: Watched) -> None:
        watched.part.start()
        watched.identity = watched.part.identity
        watched.started_at = time.monotonic()
        watched.due = None
        log.info("started", part=watched.name, pid=watched.identity.pid if watched.identity else None)

    def _watch(self, signals: StopSignals) -> None:
        while True:
            signals.check()
            for watched in self._watched:
                self._tend(watched)
            self._trim_logs()
            time.sleep(POLL_SECONDS)

    def _tend(self, watched: Watched) -> None:
        now = time.monotonic()
        if watched.due is not None:
            if now >= watched.due:
                self._restart(watched)
        elif not watched.part.is_alive():
            self._failed(watched, "died")
        elif watched.failures and now - watched.started_at > HEALTHY_SECONDS:
            watched.failures = 0

    def _restart(self, watched: Watched) -> None:
        try:
            self._start_part(watched)
        except LocalStackError as error:
            self._failed(watched, f"does not start: {error}")
            return
        watched.restarts += 1
        self._save(Phase.READY)

    def _failed(self, watched: Watched, what: str) -> None:
        watched.failures += 1
        if watched.failures >= MAX_FAILURES:
            raise LocalStackError(f"{watched.name} failed {watched.failures} times in a row, given up; it {what}\n{tail(watched.part.log)}")
        pause = FIRST_PAUSE_SECONDS * 2 ** (watched.failures - 1)
        watched.due = time.monotonic() + pause
        log.warning("restarting", part=watched.name, reason=what.partition("\n")[0], pause_s=pause)

    def _trim_logs(self) -> None:
        now = time.monotonic()
        if now - self._trimmed_at < TRIM_SECONDS:
            return
        self._trimmed_at = now
        for watched in self._watched:
            trim_log(watched.part.log)
        trim_log(self.layout.log("supervisor"))

    def _shut_down(self, signals: StopSignals, error: LedgerqError | None) -> None:
        """Services first, for they need the servers; then the servers, the last started first."""
        self._save_if_possible(Phase.STOPPING)
        services = [watched.part for watched in self._watched if isinstance(watched.part, ServiceProcess)]
        stop_services(services, self.plan.grace_s, signals)
        end_marked(self.layout.data_dir)
        for watched in reversed(self._watched):
            watched.part.stop()
        self._watched.clear()
        self._save_if_possible(Phase.STOPPED if error is None else Phase.FAILED, error)

    def _explained(self, error: Exception) -> LedgerqError:
        free = shutil.disk_usage(self.layout.data_dir).free
        if free < FULL_BYTES:
            return LocalStackError(f"the disk of {self.layout.data_dir} is full ({free} bytes free): free some space\n{error}")
        return error if isinstance(error, LedgerqError) else LocalStackError(f"the stack cannot run: {error!r}")

    def _save(self, phase: Phase, error: LedgerqError | None = None) -> None:
        state = StackState(
            run_id=self.plan.run_id,
            phase=phase,
            parts=tuple(record for watched in self._watched if (record := watched.record())),
            addresses=self._addresses,
            ports=self._ports,
            grace_s=self.plan.grace_s,
            error=None if error is None else str(error),
        )
        write_state(self.layout, state)

    def _save_if_possible(self, phase: Phase, error: LedgerqError | None = None) -> None:
        """A full disk must not keep the parts running."""
        try:
            self._save(phase, error)
        except OSError as problem:
            log.warning("cannot write the state", path=str(self.layout.state_file), error=str(problem))


def _with_addresses(inherited: Mapping[str, str], addresses: Mapping[str, str]) -> dict[str, str]:
    """Ours win: also over the names with our prefix, which settings prefer."""
    kept = {name: value for name, value in inherited.items() if name.removeprefix("LEDGERQ_") not in addresses}
    return {**kept, **addresses}
