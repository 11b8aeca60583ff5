"""The database itself refuses every step that the tables of the lifecycle do not list."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import product
from typing import Any

import psycopg
import pytest

from ledgerq.lifecycle import JOB_TRANSITIONS, RUN_TRANSITIONS, TASK_TRANSITIONS, JobStatus, RunStatus, TaskStatus
from tests.support.databases import Database

FILL: dict[str, str] = {
    "job": "(id, type, queue, request_digest, max_attempts, timeout_s, deadline_s, deadline_at) "
    "values (gen_random_uuid(), 'noop', 'processing', '', 1, 1, 1, now())",
    "task": "(job_id, key, queue, tenant, priority) select id, gen_random_uuid(), 'processing', '', 1 from ledgerq.job limit 1",
    "run": "(id, queue, type, at_front, alone, single_job, description, job_ids, tasks, timeout_s, size) "
    "values (gen_random_uuid(), 'processing', 'noop', false, false, true, '', '{}', 1, 1, 1)",
}
MACHINES: dict[str, tuple[type[Any], tuple[Any, ...], str]] = {
    "job": (JobStatus, JOB_TRANSITIONS, "pending"),
    "task": (TaskStatus, TASK_TRANSITIONS, "pending"),
    "run": (RunStatus, RUN_TRANSITIONS, "dispatched"),
}
STEPS = [(machine, source, target) for machine, (statuses, _, _) in MACHINES.items() for source, target in product(statuses, statuses)]


@pytest.fixture
def bare(module_database: Database) -> Iterator[psycopg.Connection[Any]]:
    """The owner, in a transaction that is undone, with every constraint but the guard out of the way."""
    with psycopg.connect(module_database.dsn) as connection:
        for table in MACHINES:
            checks = connection.execute(
                "select conname from pg_constraint where contype = 'c' and conrelid = %s::regclass", (f"ledgerq.{table}",)
            ).fetchall()
            for (name,) in checks:
                connection.execute(f'alter table ledgerq.{table} drop constraint "{name}"'.encode())
        connection.execute(f"insert into ledgerq.job {FILL['job']}".encode())
        yield connection
        connection.rollback()


def row_at(bare: psycopg.Connection[Any], machine: str, status: str) -> Any:
    bare.execute(f"alter table ledgerq.{machine} disable trigger user".encode())
    row = bare.execute(f"insert into ledgerq.{machine} {FILL[machine]} returning id".encode()).fetchone()
    assert row
    bare.execute(f"update ledgerq.{machine} set status = %s where id = %s".encode(), (status, row[0]))
    bare.execute(f"alter table ledgerq.{machine} enable trigger user".encode())
    return row[0]


@pytest.mark.parametrize(("machine", "source", "target"), STEPS)
def test_step_is_taken_if_it_is_listed_and_refused_if_not(bare: psycopg.Connection[Any], machine: str, source: str, target: str) -> None:
    listed = {(step.source, step.target) for step in MACHINES[machine][1]}
    row = row_at(bare, machine, source)
    move = f"update ledgerq.{machine} set status = %s where id = %s".encode()
    if source == target or (source, target) in listed:
        assert bare.execute(move, (target, row)).rowcount == 1
        return
    with pytest.raises(psycopg.Error, match=f"{target} may not follow {source}") as caught:
        bare.execute(move, (target, row))
    assert caught.value.sqlstate == "LQ009"


@pytest.mark.parametrize(("machine", "status"), [(name, status) for name, (statuses, _, _) in MACHINES.items() for status in statuses])
def test_rows_begin_at_their_first_status(bare: psycopg.Connection[Any], machine: str, status: str) -> None:
    first = MACHINES[machine][2]
    bare.execute(f"alter table ledgerq.{machine} alter column status set default '{status}'".encode())
    statement = f"insert into ledgerq.{machine} {FILL[machine]}".encode()
    if status == first:
        assert bare.execute(statement).rowcount == 1
        return
    with pytest.raises(psycopg.Error, match=f"{status} may not follow nothing") as caught:
        bare.execute(statement)
    assert caught.value.sqlstate == "LQ009"
