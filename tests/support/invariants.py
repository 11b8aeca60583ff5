"""What must be true of a ledger at every moment, whatever happened to it: asked of the tables, in one snapshot.

check_invariants(dsn)                     AssertionError that lists every violation
watch(dsn)                                before the work starts: keeps count of what the tables alone cannot tell
"""

from __future__ import annotations

from typing import Final

import psycopg

INVARIANTS: Final[dict[str, str]] = {
    "1. the counters of a job equal its tasks": """
        select format('job %s: has %s/%s/%s/%s, counts %s/%s/%s/%s (total/completed/failed/cancelled)', j.id,
                      j.total, j.completed, j.failed, j.cancelled, t.total, t.completed, t.failed, t.cancelled)
        from ledgerq.job j
        cross join lateral (
          select count(*) as total, count(*) filter (where status = 'completed') as completed,
                 count(*) filter (where status = 'failed') as failed, count(*) filter (where status = 'cancelled') as cancelled
          from ledgerq.task where job_id = j.id) t
        where (j.total, j.completed, j.failed, j.cancelled) <> (t.total, t.completed, t.failed, t.cancelled)""",
    "2. a queued task is in a live run, within its size": """
        select format('task %s: seq %s of run %s, which is %s of size %s', t.id, t.seq, t.run_id, coalesce(r.status, 'unknown'), r.size)
        from ledgerq.task t left join ledgerq.run r on r.id = t.run_id
        where t.status = 'queued'
          and (r.id is null or r.status not in ('dispatched', 'running') or t.seq > r.size or t.queue <> r.queue)""",
    "2b. no two tasks have one place in a run": """
        select format('run %s: %s tasks at seq %s', run_id, count(*), seq)
        from ledgerq.task where status = 'queued' group by run_id, seq having count(*) > 1""",
    "4. a terminal job has no pending or queued task, and its status tells of its counts": """
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
    "6. attempts, crashes and losses are within their bounds": """
        select format('task %s: %s attempts of %s, %s crashes of %s, %s losses of %s', t.id, t.attempts, j.max_attempts,
                      t.crashes, q.max_crashes, t.losses, q.max_losses)
        from ledgerq.task t join ledgerq.job j on j.id = t.job_id join ledgerq.queue q on q.name = t.queue
        where t.attempts > j.max_attempts or t.crashes > q.max_crashes + 1 or t.losses > q.max_losses
          or t.status in ('pending', 'queued') and (t.attempts >= j.max_attempts or t.losses >= q.max_losses)""",
    "7. a document's live generation belongs to its newest processed revision": """
        select format('document %s: generation %s of revision %s is live, newest processed is %s of %s', d.id, d.live_generation,
                      d.live_revision, d.revision, newest.revision)
        from ledgerq.document d
        left join ledgerq.generation g on g.id = d.live_generation
        left join lateral (select max(x.revision) as revision from ledgerq.generation x
                           where x.document_id = d.id and x.live_since is not null) newest on true
        where d.live_generation is not null and d.deleted_at is null and (
          g.id is null or g.document_id <> d.id or g.revision <> d.live_revision or g.live_since is null
          or g.garbage_since is not null or newest.revision > d.live_revision)""",
    "7b. a generation that is not garbage and became live is the live one": """
        select format('generation %s of document %s became live and is neither live nor garbage', g.id, g.document_id)
        from ledgerq.generation g join ledgerq.document d on d.id = g.document_id
        where g.live_since is not null and g.garbage_since is null and d.deleted_at is null and d.live_generation is distinct from g.id""",
    "8. every unfinished job has something that will happen to it": """
        select format('job %s (%s): nothing of it is ready, due or in a live run', j.id, j.status)
        from ledgerq.job j
        where j.finished_at is null and j.sealed and not exists (
          select from ledgerq.task t left join ledgerq.run r on r.id = t.run_id
          where t.job_id = j.id and (t.status = 'pending' or t.status = 'queued' and r.status in ('dispatched', 'running')))""",
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
"""Name → query whose rows are violations. The numbers are those of the ledger's contract; 3 and 5 need `watch`."""

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


def check_invariants(dsn: str) -> None:
    """AssertionError that names every violation."""
    found = violations(dsn)
    assert not found, "\n".join(found)


def violations(dsn: str) -> list[str]:
    """Every violation in one snapshot, with the invariant's name."""
    with psycopg.connect(dsn) as connection:
        connection.isolation_level = psycopg.IsolationLevel.REPEATABLE_READ
        watched = connection.execute("select to_regclass('ledgerq_test.completion') is not null").fetchone() == (True,)
        queries = INVARIANTS | (WATCHED if watched else {})
        return [f"{name}: {row[0]}" for name, query in queries.items() for row in connection.execute(query.encode()).fetchmany(5)]
