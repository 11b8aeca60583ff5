"""A small world of everything that touches a ledger at once, over real connections, with bad luck drawn from a seed.

Redis is a list in memory here: what is pushed may come twice, late, or never, which is all that the ledger may rely on.
Nobody in this world keeps anything but ids and answers; what is true is asked of the tables afterwards.
"""

from __future__ import annotations

import random
import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from uuid import UUID, uuid4

import psycopg

from ledgerq.ledger import LedgerStore, Returned, TaskReport
from ledgerq.ledger.answers import QueueLimits
from ledgerq.lifecycle import RunStatus
from ledgerq.models import (
    Disposition,
    DocumentBody,
    DocumentRequest,
    JobPriority,
    JobRequest,
    LiveRun,
    RunAdvanced,
    RunStarted,
    RunTicket,
    RunVerdict,
    Task,
    TaskRequest,
    Verdict,
)
from ledgerq.outcomes import Cancelled, Completed, DocumentEffect, Failed, Outcome, Retry, Usage
from tests.support.clock import LedgerClock
from tests.support.databases import Database
from tests.support.flaky import LosesReplies, TriesAgain
from tests.support.watching import violations, watch
from tests.support.ways import Way, direct_way

QUEUE = "processing"


@dataclass(frozen=True, slots=True, kw_only=True)
class Luck:
    """How often what goes wrong."""

    lost_replies: float = 0.2
    pushed_twice: float = 0.1
    never_pushed: float = 0.05
    crash: float = 0.02
    zombie: float = 0.02
    timeout: float = 0.02
    revoke: float = 0.02
    shed: float = 0.05
    give_back: float = 0.02
    cancel: float = 0.25
    retry: float = 0.25
    flush: float = 0.02


@dataclass(slots=True)
class World:
    """What all actors share."""

    database: Database
    seed: int
    luck: Luck = field(default_factory=Luck)
    way: Way | None = None
    """How the actors reach the ledger; None: directly."""
    pushed: deque[UUID] = field(default_factory=deque[UUID])
    jobs: list[UUID] = field(default_factory=list[UUID])
    documents: list[UUID] = field(default_factory=list[UUID])
    counts: Counter[str] = field(default_factory=Counter[str])
    failures: list[BaseException] = field(default_factory=list[BaseException])
    stopping: threading.Event = field(default_factory=threading.Event)
    zombies: deque[Zombie] = field(default_factory=deque["Zombie"])
    clock: LedgerClock = field(init=False)

    def __post_init__(self) -> None:
        self.clock = LedgerClock(self.database.dsn)

    def store(self, name: str) -> LedgerStore:
        """A way to the ledger of one's own, with bad luck of one's own."""
        transport = TriesAgain((self.way or direct_way(self.database)).transport(timeout_s=10))
        return LedgerStore(LosesReplies(transport, self.rng(name + " replies"), rate=self.luck.lost_replies, counts=self.counts))

    def rng(self, name: str) -> random.Random:
        return random.Random(f"{self.seed} {name}")

    def push(self, tickets: Sequence[RunTicket], rng: random.Random) -> None:
        for ticket in tickets:
            copies = 0 if rng.random() < self.luck.never_pushed else 1 + (rng.random() < self.luck.pushed_twice)
            self.pushed.extend([ticket.run] * copies)

    def open_jobs(self) -> int:
        with psycopg.connect(self.database.dsn, autocommit=True) as connection:
            row = connection.execute("select count(*) from ledgerq.job where finished_at is null").fetchone()
        assert row is not None
        return int(row[0])


@dataclass(frozen=True, slots=True, kw_only=True)
class Zombie:
    """A delivery whose worker was taken for dead and comes back later with what it had."""

    run: UUID
    delivery: UUID
    step: int
    tasks: tuple[Task, ...]
    wakes_at: float
    """By the monotonic clock: some come back at once, most after their run was given to others."""


class Actor(threading.Thread):
    """Repeats `turn` until the world stops or the actor has nothing more to do. A failure stops the world."""

    def __init__(self, world: World, name: str) -> None:
        super().__init__(name=name, daemon=True)
        self.world = world
        self.luck = world.luck
        self.random = world.rng(name)
        self.store = world.store(name)

    def run(self) -> None:
        try:
            while not self.world.stopping.is_set() and self.turn():
                pass
        except BaseException as error:
            self.world.failures.append(error)
            self.world.stopping.set()
        finally:
            self.store.close()

    def turn(self) -> bool:
        raise NotImplementedError

    def happens(self, rate: float) -> bool:
        return self.random.random() < rate

    def rest(self, seconds: float) -> None:
        self.world.stopping.wait(seconds)


class Creator(Actor):
    """Makes jobs of all kinds; cancels and retries some of anyone's."""

    def __init__(self, world: World, name: str, *, rounds: int) -> None:
        super().__init__(world, name)
        self.rounds = rounds

    def turn(self) -> bool:
        requests = [self.request() for _ in range(self.random.choice([1, 1, 4]))]
        created = self.store.create_jobs(requests, actor=self.name)
        for request, given in zip(requests, created.jobs, strict=True):
            assert given.id == request.id
            assert given.disposition in (Disposition.APPLIED, Disposition.DUPLICATE), given
            self.world.counts[f"created {given.disposition}"] += 1
            if given.disposition is Disposition.APPLIED:
                self.world.jobs.append(request.id)
                self.grow(request)
        self.world.push(created.runs, self.random)
        self.meddle()
        self.rounds -= 1
        self.rest(0.005)
        return self.rounds > 0

    def request(self) -> JobRequest:
        documents = self.random.sample(self.world.documents, k=self.random.randint(1, 3)) if self.happens(0.3) else []
        tasks = [TaskRequest(key=str(each), document=each) for each in documents]
        tasks = tasks or [TaskRequest(key=str(n), payload={"n": n}) for n in range(self.random.choice([1, 1, 1, 3, 30]))]
        return JobRequest(
            type=self.random.choice(["process", "other"]),
            tasks=tuple(tasks),
            tenant=self.random.choice(["a", "b", "c"]) if not documents else "",
            priority=self.random.choice(list(JobPriority)),
            dedupe_key=f"key-{self.random.randint(1, 5)}" if self.happens(0.3) else None,
            max_attempts=self.random.choice([2, 3, 5]),
            sealed=not self.happens(0.15),
        )

    def grow(self, request: JobRequest) -> None:
        if request.sealed:
            return
        added = self.store.add_tasks(request.id, [TaskRequest(key=f"late-{n}") for n in range(self.random.randint(0, 5))])
        self.world.push(added.runs, self.random)
        self.store.seal_job(request.id)

    def meddle(self) -> None:
        some = self.random.sample(self.world.jobs, k=min(len(self.world.jobs), self.random.randint(1, 4)))
        if some and self.happens(self.luck.cancel):
            for given in self.store.cancel_jobs(some[:2], actor=self.name).jobs:
                self.world.counts[f"cancel {given.disposition}"] += 1
        if some and self.happens(self.luck.retry):
            answer = self.store.retry_jobs(some, actor=self.name)
            self.world.push(answer.runs, self.random)
            for given in answer.jobs:
                self.world.counts[f"retry {given.disposition}"] += 1
        if self.world.documents and self.happens(0.1):
            self.store.save_documents([document(self.random.choice(range(len(self.world.documents))), self.random.random())])


class Worker(Actor):
    """Takes runs and does what workers do, and some of what they should not."""

    def turn(self) -> bool:
        try:
            run = self.world.pushed.popleft()
        except IndexError:
            self.rest(0.005)
            return True
        delivery = uuid4()
        started = self.store.start_run(
            run, delivery=delivery, window=self.random.randint(1, 8), worker=self.name, execution_id=str(delivery)
        )
        self.world.counts[f"start {started.disposition}"] += 1
        self.world.push(started.runs, self.random)
        if started.disposition is Disposition.APPLIED:
            self.work(run, delivery, started)
        return True

    def work(self, run: UUID, delivery: UUID, held: RunStarted | RunAdvanced) -> None:
        while not self.world.stopping.is_set():
            if held.tasks and self.something_happens(run, delivery, held):
                return
            reports = self.reports(run, delivery, held.tasks)
            held = self.store.advance_run(
                run,
                delivery=delivery,
                step=held.step,
                reports=reports,
                want=self.random.randint(0 if reports else 1, 8),
                give_back=self.happens(self.luck.give_back),
            )
            self.world.push(held.runs, self.random)
            self.world.counts[f"advance {held.disposition}"] += 1
            self.world.counts["ignored"] += len(held.ignored)
            self.world.counts["stale"] += len(held.stale)
            if held.disposition is not Disposition.APPLIED or held.finished:
                return

    def something_happens(self, run: UUID, delivery: UUID, held: RunStarted | RunAdvanced) -> bool:
        """Whether this worker is done with the run."""
        draw = self.random.random()
        luck = self.luck
        if draw < luck.crash:
            self.say(run, delivery, Verdict.DIED)
        elif draw < luck.crash + luck.timeout:
            self.say(run, delivery, Verdict.TIMEOUT, culprit=self.random.choice(held.tasks).id)
        elif draw < luck.crash + luck.timeout + luck.zombie:
            self.world.counts["zombies"] += 1
            self.world.zombies.append(self.zombie(run, delivery, held))
        else:
            return self.beat(run, delivery)
        return True

    def zombie(self, run: UUID, delivery: UUID, held: RunStarted | RunAdvanced) -> Zombie:
        wakes_at = time.monotonic() + self.random.choice([0, 1, 2])
        return Zombie(run=run, delivery=delivery, step=held.step, tasks=tuple(held.tasks), wakes_at=wakes_at)

    def beat(self, run: UUID, delivery: UUID) -> bool:
        if not self.happens(0.3):
            return False
        heartbeat = self.store.heartbeat_run(run, delivery=delivery)
        self.world.counts[f"heartbeat {heartbeat.disposition}"] += 1
        for task in heartbeat.cancelled:
            self.world.counts["told of a cancel"] += 1
            if self.happens(0.2):
                self.say(run, delivery, Verdict.CANCEL_KILL, culprit=task)
                return True
        return heartbeat.disposition is not Disposition.APPLIED

    def say(self, run: UUID, delivery: UUID, verdict: Verdict, culprit: int | None = None) -> None:
        answer = self.store.reconcile_runs([RunVerdict(run=run, verdict=verdict, delivery=delivery, culprit=culprit)], actor=self.name)
        self.world.counts[f"{verdict} {answer.runs[0].disposition}"] += 1
        self.world.push(answer.to_push, self.random)

    def reports(self, run: UUID, delivery: UUID, tasks: Sequence[Task]) -> list[TaskReport]:
        some = self.random.sample(list(tasks), k=self.random.randint(min(1, len(tasks)), len(tasks)))
        effects = self.effects(some)
        return [TaskReport(task=task.id, outcome=self.outcome(run, delivery, task, effects), duration_s=0.001) for task in some]

    def outcome(self, run: UUID, delivery: UUID, task: Task, effects: dict[UUID, DocumentEffect]) -> Outcome | Returned:
        if task.cancelled and self.happens(0.7):
            return Cancelled()
        kind = self.random.choices(["completed", "retry", "throttled", "returned", "failed"], [80, 8, 3, 4, 5])[0]
        match kind:
            case "retry":
                return Retry("again", after_s=self.random.choice([0, 0, 3]))
            case "throttled":
                return Retry("slower", after_s=2, throttled=True)
            case "returned":
                return Returned()
            case "failed":
                return Failed("no")
            case _:
                own = effects.get(task.document) if task.document is not None else None
                return Completed({"run": str(run), "delivery": str(delivery)}, (own,) if own is not None else ())

    def effects(self, tasks: Sequence[Task]) -> dict[UUID, DocumentEffect]:
        documents = list({task.document for task in tasks if task.document is not None})
        if not documents:
            return {}
        begun = self.store.begin_documents(documents, config_digest=self.random.choice(["one", "two"]))
        if self.happens(0.1):
            self.store.save_documents([document(self.world.documents.index(documents[0]), self.random.random())])
        return {
            work.document: DocumentEffect(
                document=work.document,
                revision=work.revision,
                generation=work.generation,
                points=3,
                digest="d" * 64,
                usage=(Usage(id=uuid4(), provider="p", model="m", tokens=1),),
            )
            for work in begun
            if work.disposition == "process"
        }


class Haunter(Actor):
    """Lets zombies speak, some time after they were given up."""

    def turn(self) -> bool:
        self.rest(0.05)
        for zombie in [each for each in list(self.world.zombies) if each.wakes_at < time.monotonic()]:
            self.world.zombies.remove(zombie)
            self.late_words(zombie)
        return True

    def late_words(self, zombie: Zombie) -> None:
        heartbeat = self.store.heartbeat_run(zombie.run, delivery=zombie.delivery)
        self.world.counts[f"zombie's heartbeat {heartbeat.disposition}"] += 1
        reports = [
            TaskReport(task=task.id, outcome=Completed({"run": str(zombie.run), "delivery": str(zombie.delivery)})) for task in zombie.tasks
        ]
        answer = self.store.advance_run(zombie.run, delivery=zombie.delivery, step=zombie.step, reports=reports, want=0, give_back=True)
        self.world.push(answer.runs, self.random)
        self.world.counts[f"zombie's advance {answer.disposition}"] += 1


class Steward(Actor):
    """Dispatches, expires, sheds, revokes and pushes again."""

    def turn(self) -> bool:
        self.rest(0.03)
        self.world.push(self.store.dispatch_due().runs, self.random)
        self.store.expire_jobs()
        page = self.store.live_runs(limit=self.random.choice([5, 500]))
        verdicts = [verdict for run in page.runs if (verdict := self.judge(run, page.now.timestamp())) is not None]
        self.random.shuffle(verdicts)
        if verdicts:
            answer = self.store.reconcile_runs(verdicts[:100], actor=self.name)
            self.world.push(answer.to_push, self.random)
            kinds = {verdict.run: verdict.verdict for verdict in verdicts}
            self.world.counts.update(f"{kinds[given.run]} {given.disposition}" for given in answer.runs)
        if self.happens(self.luck.flush):
            self.world.counts["flushes"] += 1
            self.world.pushed.clear()
        return True

    def judge(self, run: LiveRun, now: float) -> RunVerdict | None:
        if run.status is RunStatus.RUNNING and run.lease_until is not None and run.lease_until.timestamp() < now:
            return self.verdict(run, Verdict.EXPIRED)
        if run.status is RunStatus.RUNNING and self.happens(self.luck.shed):
            self.world.counts["shed"] += self.store.shed(run.run).released
        if run.status is RunStatus.DISPATCHED and self.happens(self.luck.revoke):
            return self.verdict(run, Verdict.REVOKE)
        if run.status is RunStatus.DISPATCHED and now - run.created_at.timestamp() > 5 and self.happens(0.3):
            self.world.pushed.append(run.run)
        return None

    def verdict(self, run: LiveRun, verdict: Verdict) -> RunVerdict:
        return RunVerdict(run=run.run, verdict=verdict, seen_status=run.status, seen_step=run.step, seen_heartbeat_at=run.heartbeat_at)


class Inspector(Actor):
    """Looks at the whole ledger again and again: the invariants hold at every moment, not only in the end."""

    def turn(self) -> bool:
        self.rest(0.25)
        found = violations(self.world.database.dsn) + over_their_caps(self.world.database)
        assert not found, "\n".join(found)
        self.world.counts["inspections"] += 1
        return True


def over_their_caps(database: Database) -> list[str]:
    """Queues with more jobs in live runs than they allow, in all or for one tenant."""
    with psycopg.connect(database.dsn, autocommit=True) as connection:
        rows = connection.execute("""
            with busy as (
              select distinct t.queue, j.tenant, j.id from ledgerq.task t join ledgerq.job j on j.id = t.job_id where t.status = 'queued')
            select format('queue %s: %s jobs at work, at most %s', q.name, count(*), q.max_concurrent_jobs)
            from busy b join ledgerq.queue q on q.name = b.queue group by q.name having count(*) > q.max_concurrent_jobs
            union all
            select format('queue %s: %s jobs of tenant %s, at most %s', q.name, count(*), b.tenant, q.tenant_concurrent_jobs)
            from busy b join ledgerq.queue q on q.name = b.queue group by q.name, b.tenant having count(*) > q.tenant_concurrent_jobs
        """).fetchall()
    return [str(row[0]) for row in rows]


class Time(Actor):
    """Lets the ledger's time pass: 1 s of it in 25 ms or so, more when everybody waits."""

    def turn(self) -> bool:
        self.rest(0.05)
        self.world.clock.advance(self.random.choice([1, 1, 2, 6]))
        return True


def document(number: int, content: float = 0.0) -> DocumentRequest:
    return DocumentRequest(
        uri=f"/{number}.txt",
        body=DocumentBody(kind="inline", text=str(content)),
        content_hash=f"{hash((number, content)) & (2**63 - 1):064x}",
        byte_size=1,
    )


LIMITS = QueueLimits(depth=6, run_size=20, lease_s=10, heartbeat_s=2, max_crashes=3, max_losses=6)
"""Small runs and short leases, so that much happens."""


def prepare(world: World, *, documents: int = 12, limits: QueueLimits = LIMITS) -> None:
    """The queue, and some documents that several jobs share. From here on the invariants are watched."""
    watch(world.database.dsn)
    with world.store("preparation") as store:
        store.save_queue(QUEUE, limits)
        saved = store.save_documents([document(number) for number in range(documents)])
        world.documents.extend(entry.id for entry in saved)
    world.clock.advance(3_600)


def live_through(
    world: World, *, creators: int = 2, workers: int = 5, stewards: int = 2, rounds: int = 80, longest_s: float = 40.0
) -> float:
    """Start everybody, wait until all work is done, stop everybody. Seconds that it took.

    Raises what an actor raised; AssertionError when jobs are still open after `longest_s`.
    """
    begun = time.monotonic()
    makers = [Creator(world, f"creator {n}", rounds=rounds) for n in range(creators)]
    others: list[Actor] = [Worker(world, f"worker {n}") for n in range(workers)]
    others += [Steward(world, f"steward {n}") for n in range(stewards)]
    others += [Haunter(world, "haunter"), Time(world, "time"), Inspector(world, "inspector")]
    for actor in (*makers, *others):
        actor.start()
    try:
        for maker in makers:
            maker.join(longest_s)
        _wait(lambda: world.stopping.is_set() or world.open_jobs() == 0, until=begun + longest_s)
    finally:
        world.stopping.set()
        for actor in (*makers, *others):
            actor.join(20)
    if world.failures:
        raise world.failures[0]
    return time.monotonic() - begun


def deadlocks(database: Database) -> int:
    """How often PostgreSQL had to break a circle of waiting transactions."""
    with psycopg.connect(database.superuser_dsn, autocommit=True) as connection:
        row = connection.execute("select deadlocks from pg_stat_database where datname = %s", (database.name,)).fetchone()
    assert row is not None
    return int(row[0])


def _wait(done: Callable[[], bool], *, until: float) -> None:
    waiting = threading.Event()
    while time.monotonic() < until and not done():
        waiting.wait(0.1)
