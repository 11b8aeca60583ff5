"""Keeps the parts of one data directory running, and ends them in order.

What it does at a start: ends what a killed predecessor left, starts the servers, migrates, starts the services. A part
that dies is started again, later each time; only a server that cannot be started again for minutes ends the stack, with
the end of its log as the reason. Every change is in `stack.json` before anybody can ask, unless the disk is full.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field

from ledgerq.errors import LedgerqError, LocalStackError
from ledgerq.local.child import trim_log, undisturbed
from ledgerq.local.layout import Claim, Layout
from ledgerq.local.logs import PatientLog
from ledgerq.local.orphans import end_marked, end_marked_by_run, end_recorded
from ledgerq.local.parts import Servers, ServiceProcess, choose_ports, make_servers, tell_services_to_stop
from ledgerq.local.probes import worker_is_registered
from ledgerq.local.signals import StopRequested, StopSignals
from ledgerq.local.state import Addresses, Phase, Plan, StackState, read_state, write_state
from ledgerq.local.watched import Watched

POLL_SECONDS = 0.25
TRIM_SECONDS = 60.0
FULL_BYTES = 16 * 1024 * 1024
DECISION_SECONDS = 30.0
"""After which nobody is kept waiting for a service to be known to run, or not to."""
Migrate = Callable[[str], object]
"""Brings the schema of the database at this DSN up to date."""
log = PatientLog("ledgerq.local.supervisor")


@dataclass(slots=True)
class Supervisor:
    """Runs in the main thread of one process, which must hold the claim of the directory."""

    layout: Layout
    plan: Plan
    environment: Mapping[str, str]
    """What services inherit."""
    migrate: Migrate
    claim: Claim
    clock: Callable[[], float] = time.monotonic
    _watched: list[Watched] = field(default_factory=list[Watched], init=False)
    _addresses: Addresses = field(default_factory=Addresses, init=False)
    _ports: dict[str, int] = field(default_factory=dict[str, int], init=False)
    _trimmed_at: float = field(default=0.0, init=False)
    _unsaved: bool = field(default=False, init=False)

    def run(self, signals: StopSignals, on_ready: Callable[[], None] | None = None) -> None:
        """Until a signal asks to stop. Nothing runs then.

        `on_ready` is called once, when everything runs or is known not to.

        Raises:
            StopRequested: it was asked to stop before that.
            LocalStackError: it cannot start, a server cannot be started again, or the directory is gone.
        """
        error: BaseException | None = None
        ready = False
        try:
            self._start(signals)
            self._wait_decided(signals)
            with undisturbed():  # a signal comes before all of that or after it: what is printed is whole, and true
                if on_ready is not None:
                    on_ready()
                ready = True
            self._watch(signals)
        except StopRequested as request:
            log.info("stopping")
            error = None if ready else request
        except Exception as caught:  # noqa: BLE001 - whatever it is, the parts are ended in order
            error = self._explained(caught)
        finally:
            signals.from_now_on_hurry()
            if isinstance(error, LedgerqError):
                log.error("stopping", reason=_first_line(error))  # one line: a traceback shows what variables hold
            error = self._shut_down(signals, error)
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
        watched.has_started(self.clock())
        log.info("started", part=watched.name, pid=watched.identity.pid if watched.identity else None)

    def _wait_decided(self, signals: StopSignals) -> None:
        deadline = self.clock() + DECISION_SECONDS
        while self.clock() < deadline and not all(watched.is_decided for watched in self._watched):
            self._look_after_all(signals)

    def _watch(self, signals: StopSignals) -> None:
        while True:
            self._look_after_all(signals)

    def _look_after_all(self, signals: StopSignals) -> None:
        signals.check()
        if self.claim.is_lost():
            raise LocalStackError(f"{self.layout.data_dir} was removed or replaced while its stack ran: the stack has been ended")
        for watched in self._watched:
            self._tend(watched)
        if self._unsaved:
            self._save_if_possible(Phase.READY)
        self._trim_logs()
        time.sleep(POLL_SECONDS)

    def _tend(self, watched: Watched) -> None:
        now = self.clock()
        if watched.due is not None:
            if now >= watched.due:
                self._restart(watched)
        elif not watched.part.is_alive():
            watched.has_died(now)
            self._tell_failure(watched)
        elif not watched.settled and self._runs(watched, now):
            watched.has_settled()
            self._save_if_possible(Phase.READY)
        else:
            watched.forgive(now)

    def _restart(self, watched: Watched) -> None:
        try:
            self._start_part(watched)
        except Exception as error:  # noqa: BLE001 - a full disk, no more processes: all of that may pass
            watched.does_not_start(self.clock(), error)
            self._tell_failure(watched)
            return
        watched.restarts += 1
        self._save_if_possible(Phase.READY)

    def _tell_failure(self, watched: Watched) -> None:
        self._save_if_possible(Phase.READY)
        log.warning("restarting", part=watched.name, reason=watched.problem, failures=watched.failures)

    def _runs(self, watched: Watched, now: float) -> bool:
        registry, identity = self._addresses.redis_url, watched.identity
        if registry is None or identity is None or not watched.registers:
            return watched.has_lived(now)
        # Being registered is enough, unless it dies again and again.
        return (watched.failures < 2 or watched.has_lived(now)) and worker_is_registered(registry, identity.pid)

    def _trim_logs(self) -> None:
        now = self.clock()
        if now - self._trimmed_at < TRIM_SECONDS:
            return
        self._trimmed_at = now
        for path in [*(watched.part.log for watched in self._watched), self.layout.log("supervisor")]:
            try:
                trim_log(path)
            except OSError as error:
                log.warning("cannot cut the log", path=str(path), error=str(error))

    def _shut_down(self, signals: StopSignals, error: BaseException | None) -> BaseException | None:
        """Services first, for they need the servers; then the servers, the last started first.

        Returns the error to end with. A part that cannot be ended keeps no other one running, and stays in the record.
        """
        ours = not self.claim.is_lost()
        if ours:
            self._save_if_possible(Phase.STOPPING)
        services = [watched.part for watched in self._watched if isinstance(watched.part, ServiceProcess)]
        tell_services_to_stop(services, self.plan.grace_s, signals)
        problems = [self._try(watched.part.stop) for watched in reversed(self._watched) if watched.is_service]
        # In a directory that is somebody else's by now the mark of the directory is theirs.
        problems += [self._try(lambda: end_marked(self.layout.data_dir) if ours else end_marked_by_run(self.plan.run_id))]
        problems += [self._try(watched.part.stop) for watched in reversed(self._watched) if not watched.is_service]
        self._watched = [watched for watched in self._watched if watched.part.is_alive()]
        if error is None and (told := "; ".join(problem for problem in problems if problem)):
            error = LocalStackError(told)
        if ours:
            failed = isinstance(error, LedgerqError)
            self._save_if_possible(Phase.FAILED if failed else Phase.STOPPED, str(error) if failed else None)
        return error

    def _try(self, action: Callable[[], object]) -> str:
        """What went wrong; empty when nothing did."""
        try:
            action()
        except Exception as error:  # noqa: BLE001 - told at the end, when all the others have been stopped
            log.warning("cannot be ended", reason=_first_line(error))
            return str(error)
        return ""

    def _explained(self, error: Exception) -> LedgerqError:
        with suppress(OSError):
            free = shutil.disk_usage(self.layout.data_dir).free
            if free < FULL_BYTES:
                return _caused(f"the disk of {self.layout.data_dir} is full ({free} bytes free): free some space\n{error}", error)
        return error if isinstance(error, LedgerqError) else _caused(f"the stack cannot run: {error!r}", error)

    def _save(self, phase: Phase, error: str | None = None) -> None:
        records = (watched.record() for watched in self._watched)
        state = StackState(
            run_id=self.plan.run_id,
            phase=phase,
            parts=tuple(record for record in records if record),
            addresses=self._addresses,
            ports=self._ports,
            grace_s=self.plan.grace_s,
            error=error,
        )
        write_state(self.layout, state)

    def _save_if_possible(self, phase: Phase, error: str | None = None) -> None:
        """A full disk ends nothing, and keeps nothing from being ended; it is tried again."""
        try:
            self._save(phase, error)
        except OSError as problem:
            if not self._unsaved:
                log.warning("cannot write the state", path=str(self.layout.state_file), error=str(problem))
            self._unsaved = True
        else:
            self._unsaved = False


def _caused(message: str, cause: Exception) -> LocalStackError:
    error = LocalStackError(message)
    error.__cause__ = cause
    return error


def _first_line(error: BaseException) -> str:
    return str(error).partition("\n")[0]


def _with_addresses(inherited: Mapping[str, str], addresses: Mapping[str, str]) -> dict[str, str]:
    """Ours win: also over the names with our prefix, which settings prefer."""
    kept = {name: value for name, value in inherited.items() if name.removeprefix("LEDGERQ_") not in addresses}
    return {**kept, **addresses}
