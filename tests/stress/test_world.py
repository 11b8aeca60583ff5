"""Everybody at once, with bad luck: at every moment the ledger is in order, and in the end every job is terminal."""

from __future__ import annotations

import logging
import os

import psycopg
import pytest

from ledgerq.ledger.answers import QueueLimits
from tests.stress.world import LIMITS, Luck, World, deadlocks, live_through, prepare
from tests.support.databases import Database
from tests.support.watching import violations
from tests.support.ways import KINDS, Kind, open_way

log = logging.getLogger("stress")

SEEDS = [int(seed) for seed in os.environ.get("LEDGERQ_STRESS_SEEDS", "1").split(",")]
"""`LEDGERQ_STRESS_SEEDS=1,2,3` tries others. A seed draws the luck; the threads still take turns as they like."""

USUAL_MISFORTUNES = (
    "lost replies",
    "created duplicate",
    "cancel applied",
    "retry applied",
    "start superseded",
    "died applied",
    "timeout applied",
    "expired suspected",
    "expired applied",
    "revoke applied",
    "zombies",
    "inspections",
)
"""What must have happened: a world in which nothing goes wrong proves nothing."""


@pytest.mark.parametrize("seed", SEEDS)
def test_everybody_at_once(database: Database, seed: int) -> None:
    world = World(database=database, seed=seed)
    prepare(world)
    assert_all_is_well(world, live_through(world))
    assert [name for name in USUAL_MISFORTUNES if not world.counts[name]] == []


@pytest.mark.parametrize("seed", SEEDS)
def test_hard_caps_hold_under_any_number_of_stewards(database: Database, seed: int) -> None:
    """The inspector counts the jobs at work, of the queue and of each tenant, while five dispatch at once."""
    world = World(database=database, seed=seed)
    prepare(world, limits=QueueLimits(**LIMITS.model_dump(exclude_unset=True), max_concurrent_jobs=4, tenant_concurrent_jobs=2))
    assert_all_is_well(world, live_through(world, workers=3, stewards=3, rounds=15))


@pytest.mark.parametrize("kind", KINDS)
def test_a_network_that_loses_every_fifth_reply(database: Database, kind: Kind) -> None:
    """After the commit, together with the connection: the transports find out, and make the call again."""
    with open_way(kind, database) as way, way.through_proxy() as (through, proxy):
        proxy.faults.loss_rate = 0.2
        world = World(database=database, seed=SEEDS[0], luck=Luck(lost_replies=0.0), way=through)
        prepare(world)
        assert_all_is_well(world, live_through(world, workers=3, rounds=12))
        faults = proxy.faults
        log.info("%s: %s of %s replies lost", kind, faults.lost, faults.calls)
        assert faults.calls > 300
        assert 0.15 < faults.lost / faults.calls < 0.25


def assert_all_is_well(world: World, seconds: float) -> None:
    counts = dict(sorted(world.counts.items()))
    log.info("seed %s: %.1f s, %s, %s", world.seed, seconds, counts, summary(world.database))
    assert violations(world.database.dsn) == []
    assert world.open_jobs() == 0
    assert deadlocks(world.database) == 0
    assert completed_by_strangers(world.database) == 0


def completed_by_strangers(database: Database) -> int:
    """Tasks whose result was written by another delivery than the one that owned the run."""
    with psycopg.connect(database.dsn, autocommit=True) as connection:
        row = connection.execute("""
            select count(*) from ledgerq.task t join ledgerq.run r on r.id = t.run_id
            where t.status = 'completed' and (t.result ->> 'run' <> r.id::text or t.result ->> 'delivery' <> r.delivery::text)
        """).fetchone()
    assert row is not None
    return int(row[0])


def summary(database: Database) -> dict[str, int]:
    with psycopg.connect(database.dsn, autocommit=True) as connection:
        rows = connection.execute("""
            select 'task ' || status, count(*) from ledgerq.task group by 1
            union all select 'job ' || status, count(*) from ledgerq.job group by 1
            union all select 'run ' || status || coalesce(' ' || verdict, ''), count(*) from ledgerq.run group by 1
            order by 1
        """).fetchall()
    return dict(rows)
