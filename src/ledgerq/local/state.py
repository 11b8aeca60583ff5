"""What the stack writes about itself (`stack.json`, 0600) and what it tells others."""

from __future__ import annotations

from enum import StrEnum
from urllib.parse import urlsplit, urlunsplit

from pydantic import BaseModel, ConfigDict

from ledgerq.errors import LocalStackError
from ledgerq.local.files import write_private
from ledgerq.local.identity import ProcessIdentity
from ledgerq.local.layout import Layout, told_plainly


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Service(_Frozen):
    """A program of ours that the supervisor keeps running beside the servers: a worker, a steward, the API."""

    name: str
    """Unique; names its log."""
    argv: tuple[str, ...]
    """An absolute program and its arguments. No secrets: command lines are public."""
    env: dict[str, str] = {}
    """Added to the environment of the supervisor and the addresses of the servers."""
    cwd: str | None = None
    """Where it runs; None for where `up` was called."""
    settle_s: float = 2.0
    """It counts as running once it has lived this long."""
    registers: bool = False
    """An RQ worker: with a Valkey of the stack's own, it counts as running once it is registered there."""


class ServerName(StrEnum):
    POSTGRES = "postgres"
    VALKEY = "valkey"
    VECTORS = "vectors"


class Plan(_Frozen):
    """What a supervisor is to run."""

    servers: tuple[ServerName, ...] = tuple(ServerName)
    services: tuple[Service, ...] = ()
    run_id: str = ""
    cwd: str = "/"
    """Of services that name none."""
    grace_s: float = 20.0
    """Seconds that services get to finish what they do before they are told again, and then ended."""
    fsync: bool = True
    """False for tests only: see `PostgresServer`."""


class Phase(StrEnum):
    STARTING = "starting"
    """Moves to ready when everything has been started, to failed when something cannot be."""
    READY = "ready"
    """Moves to stopping on request, to failed when a server cannot be started again."""
    STOPPING = "stopping"
    """Moves to stopped."""
    STOPPED = "stopped"
    """The next start moves it out again."""
    FAILED = "failed"
    """`error` says why; the next start moves it out again."""


class Part(_Frozen):
    """One process of the stack, as last started."""

    name: str
    pid: int
    started: str
    port: int | None = None
    restarts: int = 0
    settled: bool = True
    """A service that is known to run, not just to have been started."""
    problem: str | None = None
    """Why it is being started again."""

    @property
    def identity(self) -> ProcessIdentity:
        return ProcessIdentity(pid=self.pid, started=self.started)


class Addresses(_Frozen):
    """Where the servers are, passwords included."""

    database_url: str | None = None
    """As `ledgerq_service`."""
    migration_url: str | None = None
    """As `postgres`, who owns the schema."""
    redis_url: str | None = None
    qdrant_url: str | None = None
    qdrant_api_key: str | None = None

    def environment(self) -> dict[str, str]:
        """For `Settings`; without the servers that the stack does not run."""
        named = {
            "DATABASE_URL": self.database_url,
            "REDIS_URL": self.redis_url,
            "QDRANT_URL": self.qdrant_url,
            "QDRANT_API_KEY": self.qdrant_api_key,
        }
        return {name: value for name, value in named.items() if value is not None}


class StackState(_Frozen):
    model_config = ConfigDict(frozen=True, extra="ignore")

    run_id: str
    """Of the start that wrote it."""
    phase: Phase
    parts: tuple[Part, ...] = ()
    addresses: Addresses = Addresses()
    ports: dict[str, int] = {}
    """By server, for the next start."""
    grace_s: float = 0.0
    error: str | None = None


class PartState(StrEnum):
    """How a part is, in words for people."""

    ANSWERS = "answers"
    """A server answered a request just now."""
    RUNS = "runs"
    """A service's process lives."""
    STARTING = "starting"
    """A service that may yet turn out not to be able to run."""
    RESTARTING = "restarting"
    """It has died, and is started again; `problem` says why it did."""
    SILENT = "does not answer"
    ENDED = "has ended"
    """And no supervisor has said anything about it (yet)."""


class PartStatus(_Frozen):
    name: str
    state: PartState
    pid: int | None
    port: int | None
    answering: bool
    """A server answered a request just now; a service is known to run."""
    url: str | None
    """Without its password."""
    restarts: int
    problem: str | None = None
    """Why it is being started again, in one line."""


class StackStatus(_Frozen):
    data_dir: str
    running: bool
    """A supervisor holds the directory."""
    phase: Phase
    supervisor_pid: int | None
    parts: tuple[PartStatus, ...]
    error: str | None

    @property
    def ok(self) -> bool:
        """Everything that should run answers."""
        return self.running and self.phase is Phase.READY and all(part.answering for part in self.parts)


def read_state(layout: Layout) -> StackState | None:
    """None before the first start."""
    with told_plainly(layout.data_dir, "read"):
        try:
            text = layout.state_file.read_bytes()
        except (FileNotFoundError, NotADirectoryError):
            return None
    try:
        return StackState.model_validate_json(text)
    except ValueError as error:
        raise LocalStackError(f"{layout.state_file} cannot be read ({error}): remove it once nothing of the stack runs") from error


def write_state(layout: Layout, state: StackState) -> None:
    write_private(layout.state_file, state.model_dump_json(indent=2))


def without_password(url: str) -> str:
    parts = urlsplit(url)
    return urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2])) if "@" in parts.netloc else url
