"""Savers, deleters, workers that vanish, zombies, sweepers and readers on a dozen documents, each with its own connection.

A dictionary plays the vector store. Readers must never see half a document or a hole; when all work is done and swept, what is left
are exactly the points of the live generations, made from the newest text.
"""

from __future__ import annotations

import random
import threading
import time
import traceback
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import psycopg
import pytest

from tests.support.databases import Database, Databases
from tests.support.invariants import check_invariants
from tests.support.sql import CONFIG, Run, Sql, begin, completed, connected, document, hash_of, job, save

SECONDS = 2.5
BREATH_S = 0.01
"""Between two acts of one part, so that nobody spins."""
LEASE_S = 1.0
READER_GRACE_S = 0.3
DOCUMENTS = 12
WHOLE = {0, 1, 2}
LATE = 9
"""The position at which a zombie writes once more, within the lease after it was last heard of."""

Key = tuple[str, int]


@dataclass(slots=True)
class Store:
    """Points by document and generation: positions, each with the text it was made from."""

    points: dict[Key, set[tuple[int, str]]] = field(default_factory=dict)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def write(self, key: Key, position: int, text: str) -> None:
        with self.lock:
            self.points.setdefault(key, set()).add((position, text))

    def remove(self, item: dict[str, Any]) -> int:
        with self.lock:
            return len(self.points.pop((item["document"], item["generation"]), ()))

    def seen(self) -> dict[Key, set[tuple[int, str]]]:
        with self.lock:
            return {key: set(points) for key, points in self.points.items()}


@dataclass(slots=True)
class World:
    database: Database
    store: Store = field(default_factory=Store)
    over: threading.Event = field(default_factory=threading.Event)
    counts: Counter[str] = field(default_factory=Counter)
    errors: list[str] = field(default_factory=list)
    zombies: list[tuple[float, Key, str]] = field(default_factory=list)

    def play(self, *parts: Callable[[World, Sql, random.Random], None], seconds: float) -> None:
        """Let each part act again and again in a thread of its own, until the time is over."""
        self.over.clear()
        threads = [threading.Thread(target=self._repeat, args=(part, seed)) for seed, part in enumerate(parts)]
        end = threading.Timer(seconds, self.over.set)
        for thread in [*threads, end]:
            thread.start()
        for thread in threads:
            thread.join(seconds + 60)
        assert not any(thread.is_alive() for thread in threads)

    def _repeat(self, part: Callable[[World, Sql, random.Random], None], seed: int) -> None:
        chance = random.Random(f"{part.__name__} {seed}")
        try:
            with connected(self.database.service_dsn) as sql:
                while not self.over.wait(BREATH_S):
                    part(self, sql, chance)
        except psycopg.Error as error:
            self.errors.append(f"{part.__name__}: {error.sqlstate} {error}")
        except Exception:
            self.errors.append(f"{part.__name__}: {traceback.format_exc()}")


# --- the parts ----------------------------------------------------------------------------------------------------


def saver(world: World, sql: Sql, chance: random.Random) -> None:
    wanted = chance.sample(range(DOCUMENTS), chance.randrange(1, 6))
    answers = save(sql, *(document(f"text {chance.randrange(4)}", f"{each}.md") for each in wanted))
    try:
        job(sql, *({"key": each["id"], "document": each["id"]} for each in answers))
    except psycopg.Error as error:
        if error.sqlstate != "LQ005":  # the deleter was faster
            raise
    world.counts["saved"] += 1


def deleter(world: World, sql: Sql, chance: random.Random) -> None:
    known = sql.call("document_list", limit=500)["documents"]
    if known and chance.random() < 0.05:
        sql.call("delete_documents", documents=[chance.choice(known)["id"]], actor="test")
        world.counts["deleted"] += 1


def worker(world: World, sql: Sql, chance: random.Random) -> None:
    sql.call("dispatch", queue="processing")
    waiting = sql.rows("select id::text from ledgerq.run where status = 'dispatched' order by created_at limit 5")
    if not waiting:
        return
    run = Run(sql, chance.choice(waiting)[0])
    if run.start(window=chance.randrange(1, 4))["disposition"] != "applied":
        return
    while run.tasks:
        outcomes = []
        for task in run.tasks[: chance.randrange(1, 3)]:
            outcome = worked(world, sql, chance, task)
            if outcome is None:
                return
            outcomes.append(outcome)
        answer = run.advance(*outcomes, want=chance.randrange(1, 4))
        if answer["disposition"] != "applied":
            return
        world.counts["stale"] += len(answer["stale"])
        for item in answer["remove"]:
            world.store.remove(item)


def worked(world: World, sql: Sql, chance: random.Random, task: dict[str, Any]) -> dict[str, Any] | None:
    """The outcome of one task, after writing its points; None when its worker vanished over it."""
    begun = begin(sql, task["document"], chance.choice([CONFIG, CONFIG, "other"])) if task["document"] else {"disposition": "not_found"}
    if begun["disposition"] != "process":
        return {"task": task["id"], "kind": "completed" if begun["disposition"] == "unchanged" else "cancelled"}
    key, text = (begun["document"], begun["generation"]), begun["body"]["text"]
    for position in sorted(WHOLE):
        world.store.write(key, position, text)
    what = chance.random()
    if what < 0.05:
        world.zombies.append((time.monotonic(), key, text))
        return None
    if what < 0.15:
        return {"task": task["id"], "kind": "retry", "after_s": 0.01, "error": {"type": "X", "message": "x"}}
    return completed(task["id"], begun, digest=text)


def zombie(world: World, sql: Sql, chance: random.Random) -> None:
    for each in list(world.zombies):
        if time.monotonic() - each[0] > LEASE_S / 2:
            world.zombies.remove(each)
            world.store.write(each[1], LATE, each[2])
            world.counts["zombie"] += 1


def reconciler(world: World, sql: Sql, chance: random.Random) -> None:
    live = sql.call("live_runs")
    verdicts = [
        {"run": run["run"], "verdict": "expired", "seen_status": run["status"], "seen_step": run["step"]}
        | {"seen_heartbeat_at": run["heartbeat_at"], "evidence": {}}
        for run in live["runs"]
        if run["status"] == "running" and run["lease_until"] < live["now"]
    ]
    sql.call("reconcile_runs", verdicts=verdicts[:100], actor="test")
    sql.call("dispatch_due")


def sweeper(world: World, sql: Sql, chance: random.Random) -> None:
    items = sql.call("garbage", limit=20, reader_grace_s=READER_GRACE_S)["items"]
    for item in items:
        world.store.remove(item)
    # Now and then the count comes too early, and finds something.
    gone = [item | {"remaining": int(chance.random() < 0.1)} for item in items]
    world.counts["swept"] += sum(each["disposition"] == "gone" for each in sql.call("garbage_gone", items=gone)["items"])


def reader(world: World, sql: Sql, chance: random.Random) -> None:
    moment = sql.call("moment")["now"]
    points = world.store.seen()
    ids = [row[0] for row in sql.rows("select id::text from ledgerq.document")]
    for found in sql.call("live_generations", documents=ids)["documents"]:
        wanted = visible_at(found, moment)
        if wanted is not None:
            positions = {position for position, _ in points.get((found["document"], wanted), ())} - {LATE}
            assert positions == WHOLE, (found, wanted, positions)
            world.counts["read"] += 1


def visible_at(found: dict[str, Any], moment: str) -> int | None:
    """The generation whose points a reader accepts who took this moment before it looked."""
    if found["deleted_at"] is not None and found["deleted_at"] <= moment:
        return None
    for generation, since in (("live_generation", "live_since"), ("previous_generation", "previous_since")):
        if found[since] is not None and found[since] <= moment:
            return found[generation]
    return None


# --- the play -----------------------------------------------------------------------------------------------------


@contextmanager
def world_on(databases: Databases) -> Iterator[World]:
    with databases.fresh() as database:
        with connected(database.service_dsn) as sql:
            sql.call(
                "save_queue", queue="processing", depth=6, run_size=4, lease_s=LEASE_S, heartbeat_s=0.2, max_losses=100, max_crashes=100
            )
        yield World(database=database)


@pytest.mark.parametrize("server", ["databases", "databases15"])
def test_any_mix_leaves_exactly_the_points_of_the_live_generations(server: str, request: pytest.FixtureRequest) -> None:
    with world_on(request.getfixturevalue(server)) as world:
        parts = [saver, saver, deleter, zombie, reconciler, reader, sweeper, sweeper, worker, worker, worker, worker]
        world.play(*parts, seconds=SECONDS)
        assert world.errors == []
        assert all(world.counts[each] for each in ("saved", "deleted", "read", "stale", "zombie", "swept")), world.counts
        with connected(world.database.service_dsn) as sql:
            finish(world, sql)
            check_invariants(sql.connection)
            expected = {(each, generation): text for each, generation, text in live_texts(sql)}
    assert {key for key, points in world.store.points.items() if points} == set(expected)
    for key, text in expected.items():
        assert {each for each in world.store.points[key] if each[0] != LATE} == {(position, text) for position in WHOLE}


def finish(world: World, sql: Sql) -> None:
    """Work until no task is open, and sweep until nothing is garbage."""
    rest = (
        "select (select count(*) from ledgerq.task where status in ('pending', 'queued'))"
        " + (select count(*) from ledgerq.generation where live_since is null or garbage_since is not null)"
        " + (select count(*) from ledgerq.document where deleted_at is not null)"
    )
    deadline = time.monotonic() + 60
    while sql.value(rest) or world.zombies:
        assert time.monotonic() < deadline, sql.rows("select status, count(*) from ledgerq.task group by status")
        world.play(worker, worker, reconciler, zombie, sweeper, seconds=0.5)
        assert world.errors == []
        # What would be looked at in a minute is looked at now.
        sql.run(
            "update ledgerq.generation set check_at = now(), begun_at = '2000-01-01' where live_since is null and garbage_since is null"
        )
        sql.run("update ledgerq.document set check_at = now() where check_at is not null")


def live_texts(sql: Sql) -> list[tuple[str, int, str]]:
    """Of each document its live generation and its text, which must be what that generation was made from."""
    rows = sql.rows(
        "select d.id::text, d.live_generation, d.body ->> 'text', g.digest, d.content_hash, d.live_revision = d.revision"
        " from ledgerq.document d left join ledgerq.generation g on g.id = d.live_generation"
    )
    for each in rows:
        assert (each[3], hash_of(each[2]), each[5]) == (each[2], each[4], True), each
    return [row[:3] for row in rows]
