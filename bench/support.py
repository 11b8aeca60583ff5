"""What the benchmarks share: real servers of their own, stock `rq worker` processes, and figures as one JSON object."""

from __future__ import annotations

import json
import os
import platform
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from ledgerq.ledger.migrate import migrate
from ledgerq.local.postgres import PostgresServer
from ledgerq.local.valkey import ValkeyServer
from ledgerq.manager import JobManager
from ledgerq.settings import Settings

HERE = Path(__file__).parent
WORKLOADS = HERE / "workloads"
"""What the workers import."""
DATABASE = "bench"


@dataclass(frozen=True, slots=True, kw_only=True)
class Bench:
    """The servers, and what points to them."""

    postgres: PostgresServer
    valkey: ValkeyServer
    directory: Path

    @property
    def settings(self) -> Settings:
        return Settings.model_validate({"database_url": self.postgres.service_dsn(DATABASE), "redis_url": self.valkey.url})

    @property
    def server_pids(self) -> tuple[int, ...]:
        found = (self.postgres.identity, self.valkey.identity)
        return tuple(one.pid for one in found if one is not None)

    @property
    def superuser_dsn(self) -> str:
        return self.postgres.superuser_dsn(DATABASE)

    def manager(self) -> JobManager:
        return JobManager.from_settings(self.settings)

    def fresh_ledger(self) -> None:
        """An empty ledger, so that no round pays for the one before."""
        with suppress(Exception):
            self.postgres.drop_database(DATABASE)
        self.postgres.create_database(DATABASE)
        migrate(self.postgres.dsn(database=DATABASE))

    def environment(self, app: str | None = None, ledger: Mapping[str, str] | None = None) -> dict[str, str]:
        """What a worker needs; `ledger` has the variables that name another one."""
        kept = {key: os.environ[key] for key in ("PATH", "HOME", "TMPDIR", "LANG") if key in os.environ}
        return {
            **kept,
            **(ledger or {"DATABASE_URL": self.postgres.service_dsn(DATABASE)}),
            "REDIS_URL": self.valkey.url,
            "PYTHONPATH": str(WORKLOADS),
            **({"LEDGERQ_APP": app} if app else {}),
        }


@contextmanager
def servers() -> Iterator[Bench]:
    """PostgreSQL and Valkey with their default settings (fsync on, append-only file), gone at the end."""
    directory = Path(tempfile.mkdtemp(prefix="ledgerq-bench-", dir=reachable_base()))
    directory.chmod(0o711)
    try:
        with PostgresServer(directory / "postgres") as postgres, ValkeyServer(directory / "valkey") as valkey:
            bench = Bench(postgres=postgres, valkey=valkey, directory=directory)
            bench.fresh_ledger()
            yield bench
    finally:
        shutil.rmtree(directory, ignore_errors=True)


@contextmanager
def ledgerq_worker(bench: Bench, app: str, *options: str, ledger: Mapping[str, str] | None = None) -> Iterator[subprocess.Popen[bytes]]:
    """A stock forking `rq worker` as the documentation says: the JSON serializer, our settings module, one queue."""
    with _worker(bench.environment(app, ledger), "-S", "json", "-c", "ledgerq.rq_settings", *options, "processing") as process:
        yield process


@contextmanager
def rq_worker(bench: Bench, queue: str, *options: str) -> Iterator[subprocess.Popen[bytes]]:
    """The same worker class on RQ's own, its function preloaded as well."""
    with _worker(bench.environment(), "-S", "json", "-c", "rq_alone", *options, queue) as process:
        yield process


class CpuMeter:
    """CPU seconds that processes, their living children and the children that they have reaped used since it was made.

    What a busy machine cannot spoil: wall times depend on who else works on it.
    """

    def __init__(self, *pids: int) -> None:
        self._pids = pids
        self._before = self._now()

    def seconds(self) -> float:
        return self._now() - self._before

    def _now(self) -> float:
        return sum(_cpu_seconds(pid) for root in self._pids for pid in process_tree(root))


def process_tree(pid: int) -> list[int]:
    """It and all its living descendants."""
    try:
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    except OSError:
        return []
    return [pid, *(below for child in children for below in process_tree(int(child)))]


def pss_mb(pid: int) -> float:
    """What the process weighs: its own pages, and its share of those it shares. In MB of a million bytes; 0 for one that is gone.

    Raises:
        PermissionError: it is somebody else's, and its weight must not be taken for nothing.
    """
    try:
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    except (FileNotFoundError, ProcessLookupError):
        return 0.0
    return next((int(line.split()[1]) * 1024 / 1e6 for line in lines if line.startswith("Pss:")), 0.0)


def _cpu_seconds(pid: int) -> float:
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    except OSError:
        return 0.0
    return sum(int(field) for field in fields[11:15]) / os.sysconf("SC_CLK_TCK")


def median(values: Sequence[float]) -> float:
    return statistics.median(values)


def percentile(values: Sequence[float], share: float) -> float:
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]


def report(name: str, figures: Mapping[str, object]) -> None:
    """The last line: one JSON object with the figures and where they were taken."""
    where = {"cpus": os.cpu_count(), "load_1m": round(os.getloadavg()[0], 1), "python": platform.python_version()}
    print(json.dumps({"benchmark": name, **figures, "machine": where}), flush=True)


@contextmanager
def _worker(environment: Mapping[str, str], *words: str) -> Iterator[subprocess.Popen[bytes]]:
    command = [sys.executable, "-m", "rq.cli", "worker", *words]
    with subprocess.Popen(
        command, env=dict(environment), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True
    ) as process:
        try:
            yield process
        finally:
            if process.poll() is None:
                process.send_signal(signal.SIGTERM)
                try:
                    process.wait(20)
                except subprocess.TimeoutExpired:
                    process.kill()


def reachable_base() -> str:
    """A directory that the servers' account may enter when root runs this."""
    return "/tmp" if os.geteuid() == 0 else tempfile.gettempdir()
