"""Invariants beyond those of the contract, and those that the tables alone cannot tell: they need somebody who counts along.

watch(dsn)         before the work starts
violations(dsn)    every broken invariant at one moment, those of `invariants` too; [] when all is well
"""

from __future__ import annotations

from typing import Final

import psycopg

from tests.support.invariants import broken_invariants

FURTHER: Final[dict[str, str]] = {
    "2b. no two tasks have one place in a run": """
        select format('run %s: %s tasks at seq %s', run_id, count(*), seq)
        from ledgerq.task where status = 'queued' group by run_id, seq having count(*) > 1""",
    "4a. a terminal job's status tells of its counts": """
        select format('job %s: %s with %s open tasks, %s/%s/%s', j.id, j.status, t.open, j.completed, j.failed, j.cancelled)
        from ledgerq.job j
        cross join lateral (select count(*) as open from ledgerq.task where job_id = j.id and status in ('pending', 'queued')) t
        where j.finished_at is not null and (t.open > 0 or j.status <> case
            when j.cancel_requested_at is not null and (j.cancelled > 0 or j.total = 0) then 'cancelled'
            when j.failed + j.cancelled = 0 and not j.abandoned then 'completed'
            when j.completed = 0 then 'failed' else 'partial' end)""",
    "4b. a sealed job without open tasks is terminal": """
        select format('job %s: %s, though nothing is left of it', j.id, j.status)
        from ledgerq.job j
        where j.finished_at is null and j.sealed
          and not exists (select from ledgerq.task t where t.job_id = j.id and t.status in ('pending', 'queued'))""",
    "7b. a generation that is not garbage and became live is the live one": """
        select format('generation %s of document %s became live and is neither live nor garbage', g.id, g.document_id)
        from ledgerq.generation g join ledgerq.document d on d.id = g.document_id
        where g.live_since is not null and g.garbage_since is null and d.deleted_at is null and d.live_generation is distinct from g.id""",
    "9. a run's dates and counts agree with its status": """
        select format('run %s: %s, handed %s of %s, step %s, delivery %s, ended %s', id, status, handed, size, step, delivery, ended_at)
        from ledgerq.run
        where (status in ('finished', 'lost', 'revoked')) <> (ended_at is not null)
          or status in ('running', 'finished', 'lost') and delivery is null
          or status in ('dispatched', 'revoked') and (handed > 0 or step > 0)
          or status = 'running' and (lease_until is null or heartbeat_at is null)
          or handed > size or size > tasks""",
    "10. what is done is dated, what waits is in no run": """
        select format('task %s: %s, finished %s, run %s, due %s', id, status, finished_at, run_id, due_at)
        from ledgerq.task
        where (status in ('completed', 'failed', 'cancelled')) <> (finished_at is not null)
          or status = 'pending' and (run_id is not null or seq is not null)
          or status = 'completed' and run_id is null and not external""",
}
"""Name → query whose rows say what is wrong."""

WATCHED: Final[dict[str, str]] = {
    "3. a task is completed at most once": """
        select format('task %s was completed %s times', task_id, count(*))
        from ledgerq_test.completion group by task_id having count(*) > 1""",
    "3b. every completed task was seen becoming so": """
        select format('task %s is completed', t.id) from ledgerq.task t
        where t.status = 'completed' and not exists (select from ledgerq_test.completion c where c.task_id = t.id)""",
    "5. a run has at most one delivery": """
        select format('run %s had the deliveries %s', run_id, array_agg(distinct delivery))
        from ledgerq_test.delivery group by run_id having count(distinct delivery) > 1""",
    "5b. no step of a run is taken twice, or left out": """
        select format('run %s: step %s reached %s times', run_id, step, count(*))
        from ledgerq_test.delivery group by run_id, step having count(*) filter (where moved) > 1""",
    "11. what has ended stays so": "select format('run %s left %s for %s', run_id, old, new) from ledgerq_test.escape",
}

WATCH: Final = """
create schema if not exists ledgerq_test;
create table ledgerq_test.completion (task_id bigint not null, run_id uuid, at timestamptz not null default clock_timestamp());
create table ledgerq_test.delivery (run_id uuid not null, delivery uuid not null, step int not null, moved boolean not null);
create table ledgerq_test.escape (run_id uuid not null, old text not null, new text not null);
create function ledgerq_test.saw_task() returns trigger language plpgsql security definer as $$
begin
  insert into ledgerq_test.completion (task_id, run_id) values (new.id, new.run_id);
  return null;
end $$;
create function ledgerq_test.saw_run() returns trigger language plpgsql security definer as $$
begin
  if old.status in ('finished', 'lost', 'revoked') and new.status <> old.status then
    insert into ledgerq_test.escape values (new.id, old.status, new.status);
  end if;
  if new.delivery is not null and (old.delivery is distinct from new.delivery or old.step <> new.step) then
    insert into ledgerq_test.delivery values (new.id, new.delivery, new.step, old.step <> new.step);
  end if;
  return null;
end $$;
create trigger saw_task after update of status on ledgerq.task
  for each row when (new.status = 'completed' and old.status <> 'completed') execute function ledgerq_test.saw_task();
create trigger saw_run after update on ledgerq.run for each row execute function ledgerq_test.saw_run();
"""


def watch(dsn: str) -> None:
    """From now on keep count of completions, deliveries and ends. `dsn` is the owner's."""
    with psycopg.connect(dsn, autocommit=True) as connection:
        connection.execute(WATCH.encode())


def violations(dsn: str) -> list[str]:
    """Every violation, all of them seen in one snapshot. The ledger must be watched."""
    with psycopg.connect(dsn) as connection:
        connection.isolation_level = psycopg.IsolationLevel.REPEATABLE_READ
        found = [f"{name}: {', '.join(ids)}" for name, ids in broken_invariants(connection).items()]
        queries = (FURTHER | WATCHED).items()
        return found + [f"{name}: {row[0]}" for name, query in queries for row in connection.execute(query.encode()).fetchmany(5)]
