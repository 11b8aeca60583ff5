"""A laboratory: everything that moves a job, on real servers, in one object.

    def test_it(lab: Lab) -> None:
        app = lab.app("@handlers.handler('shout')\\ndef shout(task, context): return Completed(task.payload.upper())")
        job = lab.jobs.create_job("shout", "hello")
        lab.work(app)
        assert lab.jobs.get_job_status(job.id) == "completed"

Workers are real `rq worker` processes in a process group of their own; what a test leaves running is ended with it. The
ledger's clock only moves ahead of real time where a test advances it.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
import threading
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from hashlib import sha256
from itertools import count
from pathlib import Path
from typing import IO
from uuid import UUID

import pytest
from pydantic import SecretStr
from redis import Redis

from ledgerq.dispatch.connection import Breaker, connect_redis
from ledgerq.dispatch.dispatcher import Dispatcher
from ledgerq.dispatch.run_queue import RunQueue
from ledgerq.handlers import Handlers
from ledgerq.ledger import LedgerStore, open_store
from ledgerq.local.vectors.server import VectorServer
from ledgerq.manager import JobManager
from ledgerq.models import DocumentBody, DocumentRequest
from ledgerq.settings import Settings
from ledgerq.stewardship.pruner import Pruner
from ledgerq.stewardship.steward import Steward
from ledgerq.sync.reconciler import Reconciler
from tests.support.clock import LedgerClock
from tests.support.databases import Database
from tests.support.ways import Way, direct_way

HEADER = """
from ledgerq import Cancelled, Completed, Failed, Handlers, Retry, of

handlers = Handlers()
"""
UNTOUCHED = ("PATH", "HOME", "TMPDIR", "LANG", "LEDGERQ_CORPUS")
"""What workers inherit of this process's environment: nothing that could point them at anything but the laboratory."""
MEASURED = ("COVERAGE_PROCESS_START", "COVERAGE_PROCESS_CONFIG")
"""What makes coverage of them. By the direct way only, for measuring is slow: the code of the other runs in tests' processes too."""


@dataclass(slots=True, kw_only=True)
class Worker:
    """One `rq worker` process with its horses."""

    process: subprocess.Popen[bytes]
    log: Path

    @property
    def pid(self) -> int:
        return self.process.pid

    def wait(self, seconds: float = 60.0) -> int:
        """Its exit code, when it ends by itself; AssertionError with its log when it does not."""
        try:
            return self.process.wait(seconds)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"the worker still runs after {seconds} s:\n{self.said()}") from None

    def kill_all(self) -> None:
        """kill -9 of the worker and of everything it started: the machine is gone."""
        for pid in [*reversed(descendants(self.pid)), self.pid]:
            _signal(pid, signal.SIGKILL)
        self.process.wait(10)

    def horses(self) -> list[int]:
        """The processes that it started and that live."""
        return descendants(self.pid)

    def end(self) -> None:
        """Whatever it is doing: over. The keepers outlive their horses in groups of their own, so they are looked for first."""
        children = descendants(self.pid)
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait(10)
        for pid in children:
            _signal(pid, signal.SIGKILL)

    def said(self) -> str:
        return self.log.read_text(errors="replace")


@dataclass(slots=True, kw_only=True)
class Lab:
    """The parts, wired as `assembly` wires them, on a fresh ledger and an empty Redis."""

    database: Database
    way: Way
    """How everything under test reaches it; tests themselves look into the database."""
    redis_url: str
    directory: Path
    settings: Settings
    clock: LedgerClock
    store: LedgerStore
    redis: Redis
    run_queue: RunQueue
    dispatcher: Dispatcher
    reconciler: Reconciler
    steward: Steward
    jobs: JobManager
    extra: dict[str, str] = field(default_factory=dict)
    """Environment of workers beyond the ledger and Redis."""
    _numbers: Iterator[int] = field(default_factory=count)
    _stack: ExitStack = field(default_factory=ExitStack)

    def app(self, source: str, *, name: str = "handlers") -> str:
        """Write a module of handlers outside the package, and return what LEDGERQ_APP says for it."""
        module = f"app_{next(self._numbers)}"
        (self.directory / f"{module}.py").write_text(HEADER + textwrap.dedent(source))
        return f"{module}:{name}"

    def manager(self, handlers: Handlers | None = None, **settings: object) -> JobManager:
        """Another manager on the same parts."""
        return JobManager.from_parts(self.store, self.dispatcher, self.reconciler, handlers, self.settings.model_copy(update=settings))

    def environment(self, app: str | None = None, extra: Mapping[str, str] | None = None) -> dict[str, str]:
        """What a worker of this laboratory needs."""
        return {
            **{key: os.environ[key] for key in (*UNTOUCHED, *(MEASURED if self.way.kind == "postgres" else ())) if key in os.environ},
            **self.way.environment,
            "REDIS_URL": self.redis_url,
            "RQ_REDIS_URL": self.redis_url,
            "PYTHONPATH": str(self.directory),
            "PYTHONWARNINGS": "default",
            **({"LEDGERQ_APP": app} if app else {}),
            **self.extra,
            **(extra or {}),
        }

    def start_worker(
        self,
        app: str | None = None,
        *,
        burst: bool = False,
        queue: str = "processing",
        options: tuple[str, ...] = ("-S", "json", "-c", "ledgerq.rq_settings"),
        extra: Mapping[str, str] | None = None,
    ) -> Worker:
        """Start a stock `rq worker`."""
        command = [sys.executable, "-m", "rq.cli", "worker", *options, *(["--burst"] if burst else []), queue]
        log = self.directory / f"worker_{next(self._numbers)}.log"
        with log.open("wb") as output:
            worker = Worker(process=_start(command, output, self.directory, self.environment(app, extra)), log=log)
        self._stack.callback(worker.end)
        return worker

    def work(self, app: str | None = None, *, seconds: float = 60.0, extra: Mapping[str, str] | None = None) -> str:
        """Let one worker take everything that is in RQ now and what follows from it; what it said."""
        worker = self.start_worker(app, burst=True, extra=extra)
        assert worker.wait(seconds) == 0, worker.said()
        return worker.said()

    def why(self, job: UUID) -> str:
        """What a failed assertion about a job should say: its explanation and its tasks' errors."""
        errors = [f"{task.key} {task.status}: {task.error}" for task in self.jobs.iter_tasks(job) if task.error is not None]
        return "\n".join([self.jobs.explain_job(job).model_dump_json(), *errors[:5]])

    def flush_redis(self) -> None:
        """FLUSHALL."""
        self.redis.flushall()

    def save_texts(self, texts: Mapping[str, str], *, tenant: str = "", source: UUID | None = None) -> dict[str, UUID]:
        """Save documents whose text is in the ledger; their ids by uri."""
        requests = [
            DocumentRequest(
                uri=uri,
                body=DocumentBody(kind="inline", text=text),
                content_type="text/plain",
                content_hash=sha256(text.encode()).hexdigest(),
                byte_size=len(text.encode()),
            )
            for uri, text in texts.items()
        ]
        batches = (requests[start : start + 500] for start in range(0, len(requests), 500))
        return {saved.uri: saved.id for batch in batches for saved in self.store.save_documents(batch, tenant=tenant, source=source)}

    def use_vectors(self, server: VectorServer, collection: str) -> None:
        """Let workers, stewards and search use that collection."""
        where = {"QDRANT_URL": server.url, "LEDGERQ_COLLECTION": collection, "LEDGERQ_EMBEDDER": "offline"}
        key = {} if server.api_key is None else {"QDRANT_API_KEY": server.api_key}
        self.extra |= {**where, **key}
        self.settings = self.settings.model_copy(
            update={
                "qdrant_url": server.url,
                "qdrant_api_key": None if server.api_key is None else SecretStr(server.api_key),
                "collection": collection,
                "embedder": "offline",
            }
        )

    @contextmanager
    def stewarding(self) -> Iterator[None]:
        """A steward at work beside the test, in real time: not to be mixed with a clock that jumps while workers live."""
        stop = threading.Event()
        thread = threading.Thread(target=self.steward.run_forever, args=(stop,), name="steward")
        thread.start()
        try:
            yield
        finally:
            stop.set()
            thread.join(30)

    def close(self) -> None:
        self._stack.close()


@contextmanager
def laboratory(database: Database, redis_url: str, directory: Path, way: Way | None = None) -> Iterator[Lab]:
    """One laboratory, by the direct way where none is given. Its workers, connections and files are gone at the end."""
    way = way or direct_way(database)
    settings = way.settings(redis_url=redis_url)
    store = open_store(settings)
    redis = connect_redis(settings)
    # A test that takes Redis away must not wait until the breaker lets it come back.
    run_queue = RunQueue(redis, breaker=Breaker(open_s=0.0))
    dispatcher = Dispatcher(store, run_queue)
    reconciler = Reconciler(store, run_queue, dispatcher)
    lab = Lab(
        database=database,
        way=way,
        redis_url=redis_url,
        directory=directory,
        settings=settings,
        clock=LedgerClock(database.dsn),
        store=store,
        redis=redis,
        run_queue=run_queue,
        dispatcher=dispatcher,
        reconciler=reconciler,
        steward=Steward(store, dispatcher, reconciler, Pruner(store, settings.keep_finished_s), interval_s=1.0),
        jobs=JobManager.from_parts(store, dispatcher, reconciler, None, settings),
    )
    try:
        yield lab
    finally:
        lab.close()
        store.close()
        redis.close()


@pytest.fixture
def lab(database: Database, redis_url: str, tmp_path: Path) -> Iterator[Lab]:
    with laboratory(database, redis_url, tmp_path) as made:
        yield made


def descendants(pid: int) -> list[int]:
    """All living processes below that one, parents first."""
    try:
        direct = [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    except OSError:
        return []
    return [entry for child in direct for entry in (child, *descendants(child))]


def _start(command: list[str], output: IO[bytes], directory: Path, environment: dict[str, str]) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        command, stdout=output, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL, cwd=directory, env=environment, start_new_session=True
    )


def _signal(pid: int, number: signal.Signals) -> None:
    try:
        os.kill(pid, number)
    except ProcessLookupError:
        return
