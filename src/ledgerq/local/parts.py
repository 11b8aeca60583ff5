"""The parts of a stack behind one surface: servers and services, with where they are and what they last said."""

from __future__ import annotations

import signal
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from ledgerq.local.child import Child, Command
from ledgerq.local.identity import ProcessIdentity
from ledgerq.local.layout import Layout
from ledgerq.local.orphans import MARK, RUN_MARK
from ledgerq.local.ports import free_port
from ledgerq.local.postgres import PostgresServer
from ledgerq.local.signals import StopSignals
from ledgerq.local.state import Addresses, Plan, ServerName, Service
from ledgerq.local.valkey import ValkeyServer
from ledgerq.local.vectors import VectorServer

COLD_SECONDS = 3.0
"""For a worker that was told a second time: RQ's drops its job at once."""


class Runnable(Protocol):
    """What the supervisor keeps running."""

    @property
    def log(self) -> Path: ...
    @property
    def identity(self) -> ProcessIdentity | None: ...
    def start(self) -> None: ...
    def stop(self) -> None: ...
    def is_alive(self) -> bool: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Servers:
    """The servers of a plan; None for those that are somewhere else."""

    postgres: PostgresServer | None
    valkey: ValkeyServer | None
    vectors: VectorServer | None

    def in_order(self) -> dict[ServerName, Runnable]:
        """By name, in the order in which they start."""
        found = {ServerName.POSTGRES: self.postgres, ServerName.VALKEY: self.valkey, ServerName.VECTORS: self.vectors}
        return {name: server for name, server in found.items() if server is not None}

    def addresses(self) -> Addresses:
        """Once they have been started."""
        return Addresses(
            database_url=self.postgres.service_dsn() if self.postgres else None,
            migration_url=self.postgres.dsn() if self.postgres else None,
            redis_url=self.valkey.url if self.valkey else None,
            qdrant_url=self.vectors.url if self.vectors else None,
            qdrant_api_key=self.vectors.api_key if self.vectors else None,
        )


def make_servers(layout: Layout, plan: Plan, ports: Mapping[str, int]) -> Servers:
    """On the ports of these names; a server keeps its port as long as it lives, so that services keep their addresses."""

    def wanted(name: ServerName) -> bool:
        return name in plan.servers

    return Servers(
        postgres=PostgresServer(layout.postgres, port=ports[ServerName.POSTGRES], fsync=plan.fsync, log=layout.log("postgres"))
        if wanted(ServerName.POSTGRES)
        else None,
        valkey=ValkeyServer(layout.valkey, port=ports[ServerName.VALKEY], log=layout.log("valkey")) if wanted(ServerName.VALKEY) else None,
        vectors=VectorServer(layout.vectors, port=ports[ServerName.VECTORS], log=layout.log("vectors"))
        if wanted(ServerName.VECTORS)
        else None,
    )


def choose_ports(plan: Plan, before: Mapping[str, int]) -> dict[str, int]:
    """Those of the last run where they are still free."""
    return {name.value: free_port(before.get(name)) for name in plan.servers}


class ServiceProcess:
    """One program beside the servers."""

    def __init__(self, service: Service, layout: Layout, plan: Plan, environment: Mapping[str, str]) -> None:
        self.log = layout.log(service.name)
        self.service = service
        own = {MARK: str(layout.data_dir), RUN_MARK: plan.run_id, "PYTHONUNBUFFERED": "1", **service.env}
        self._child = Child(
            Command(
                name=service.name,
                argv=service.argv,
                cwd=Path(service.cwd or plan.cwd),
                log=self.log,
                env={**environment, **own},
                stop=((signal.SIGKILL, 5.0),),
            )
        )

    @property
    def identity(self) -> ProcessIdentity | None:
        return self._child.identity

    def start(self) -> None:
        self._child.start()

    def stop(self) -> None:
        """At once: `tell_services_to_stop` asks nicely first."""
        self._child.stop()

    def is_alive(self) -> bool:
        return self._child.is_alive()

    def tell(self) -> None:
        self._child.signal(signal.SIGTERM)

    def last_words(self) -> str:
        """How it ended, in one line."""
        said = self._child.last_line()
        code = self._child.exit_code()
        how = f"ended with exit code {code}" if code is None or code >= 0 else f"killed by signal {-code} ({signal.strsignal(-code)})"
        return how + (f": {said}" if said else "")


def tell_services_to_stop(services: Iterable[ServiceProcess], grace_s: float, signals: StopSignals) -> None:
    """All at once: told to finish, after the grace told to drop it; then it is for the caller to kill what is left.

    A second Ctrl-C skips the grace.
    """
    left = [service for service in services if service.is_alive()]
    for seconds in (grace_s, COLD_SECONDS):
        for service in left:
            service.tell()
        left = _wait(left, seconds, signals)
        signals.hurry = False


def _wait(services: list[ServiceProcess], seconds: float, signals: StopSignals) -> list[ServiceProcess]:
    """Those that have not ended in time."""
    deadline = time.monotonic() + seconds
    while (left := [service for service in services if service.is_alive()]) and time.monotonic() < deadline:
        if signals.hurry:
            break
        time.sleep(0.02)
    return left
