"""One part under supervision: how it has fared, and when it is to be started again."""

from __future__ import annotations

from dataclasses import dataclass

from ledgerq.errors import LocalStackError
from ledgerq.local.child import tail
from ledgerq.local.identity import ProcessIdentity
from ledgerq.local.parts import Runnable, ServiceProcess
from ledgerq.local.state import Part

FIRST_PAUSE_SECONDS = 0.25
"""Before the first restart; doubled with each further failure."""
LONGEST_PAUSE_SECONDS = 30.0
HEALTHY_SECONDS = 60.0
"""A part that lived this long is forgiven its earlier failures."""
MAX_FAILED_STARTS = 12
"""Starts in a row that a server may fail: some three minutes, for a port or a disk to become free again."""
NOBODY = ProcessIdentity(pid=0, started="")


@dataclass(slots=True, kw_only=True)
class Watched:
    """A part and its history. All times are seconds of the supervisor's clock."""

    name: str
    part: Runnable
    port: int | None = None
    identity: ProcessIdentity | None = None
    started_at: float = 0.0
    failures: int = 0
    """Deaths and failed starts since it was last healthy."""
    failed_starts: int = 0
    """In a row."""
    restarts: int = 0
    settled: bool = False
    due: float | None = None
    """When it is to be started again; None while it runs."""
    problem: str | None = None

    @property
    def is_service(self) -> bool:
        return isinstance(self.part, ServiceProcess)

    @property
    def registers(self) -> bool:
        return isinstance(self.part, ServiceProcess) and self.part.service.registers

    @property
    def is_decided(self) -> bool:
        """It is known to run, or known not to."""
        return self.settled or self.problem is not None

    def record(self) -> Part | None:
        if self.identity is None:
            return None
        return Part(
            name=self.name,
            pid=self.identity.pid,
            started=self.identity.started,
            port=self.port,
            restarts=self.restarts,
            settled=self.settled,
            problem=self.problem,
        )

    def has_started(self, now: float) -> None:
        # Even one that has died at once is on the record, and with it that it does not run.
        self.identity = self.part.identity or self.identity or NOBODY
        self.started_at = now
        self.due = None
        self.failed_starts = 0
        # A server has answered by now; what is heard of a service is that its process exists.
        self.settled = not self.is_service
        if self.settled:
            self.problem = None

    def has_settled(self) -> None:
        self.settled = True
        self.problem = None

    def has_died(self, now: float) -> None:
        """Started again later, each time a little later; however often it dies."""
        self._failed(now, self.part.last_words() if isinstance(self.part, ServiceProcess) else "died")

    def does_not_start(self, now: float, error: Exception) -> None:
        """LocalStackError when it is a server and has not started for so long that there is no hope: all else needs it."""
        self._failed(now, f"does not start: {error}")
        self.failed_starts += 1
        if not self.is_service and self.failed_starts >= MAX_FAILED_STARTS:
            raise LocalStackError(
                f"{self.name} could not be started {self.failed_starts} times in a row, given up: {error}\n{tail(self.part.log)}"
            ) from error

    def forgive(self, now: float) -> None:
        """Forget failures of long ago."""
        if now - self.started_at > HEALTHY_SECONDS:
            self.failures = 0

    def has_lived(self, now: float) -> bool:
        """Long enough to be trusted: longer after each failure but the first."""
        if not isinstance(self.part, ServiceProcess):
            return True
        needed = self.part.service.settle_s
        if self.failures > 1:
            needed = min(max(needed, 1.0) * 2 ** min(self.failures - 1, 16), HEALTHY_SECONDS)
        return now - self.started_at >= needed

    def _failed(self, now: float, problem: str) -> None:
        pause = min(FIRST_PAUSE_SECONDS * 2 ** min(self.failures, 16), LONGEST_PAUSE_SECONDS)
        self.failures += 1
        self.settled = False
        self.due = now + pause
        self.problem = problem.partition("\n")[0]
