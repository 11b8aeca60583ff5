"""The invariants of the ledger, in SQL: what must hold at every moment that a transaction can see.

`check_invariants(connection)` after each stress, chaos run and state-machine step. Numbers are those of the contract.
"""

from __future__ import annotations

from typing import Any, Final

import psycopg

INVARIANTS: Final[dict[str, bytes]] = {
    "1. the counters of a job equal its tasks": b"""
        select j.id::text from ledgerq.job j
        cross join lateral (
          select count(*) as total, count(*) filter (where t.status = 'completed') as completed,
                 count(*) filter (where t.status = 'failed') as failed, count(*) filter (where t.status = 'cancelled') as cancelled
          from ledgerq.task t where t.job_id = j.id) c
        where not j.removing and (j.total, j.completed, j.failed, j.cancelled) <> (c.total, c.completed, c.failed, c.cancelled)""",
    "2. a queued task is within the size of a live run": b"""
        select t.id::text from ledgerq.task t left join ledgerq.run r on r.id = t.run_id
        where t.status = 'queued' and (r.id is null or r.status not in ('dispatched', 'running') or t.seq > r.size)""",
    "3. a task is acknowledged as completed at most once": b"""
        select j.id::text from ledgerq.job j
        where not j.removing and j.completed <> (
          select coalesce(sum(coalesce(e.data -> 'window' ->> 'completed', e.data ->> 'completed')::int), 0)
          from ledgerq.event e where e.job_id = j.id and e.kind in ('progressed', 'ended'))""",
    "4. a terminal job has no task that is pending or queued": b"""
        select j.id::text from ledgerq.job j
        where j.status not in ('pending', 'queued', 'in_progress')
          and exists (select from ledgerq.task t where t.job_id = j.id and t.status in ('pending', 'queued'))""",
    "5. a run has a delivery exactly when it was started": b"""
        select r.id::text from ledgerq.run r
        where (r.delivery is not null) <> (r.status in ('running', 'finished', 'lost'))
           or r.status in ('dispatched', 'revoked') and (r.handed <> 0 or r.step <> 0)""",
    "6. attempts, crashes and losses are bounded": b"""
        select t.id::text from ledgerq.task t join ledgerq.job j on j.id = t.job_id join ledgerq.queue q on q.name = j.queue
        where t.attempts > j.max_attempts or t.crashes > q.max_crashes + 1 or t.losses > q.max_losses
           or t.status in ('pending', 'queued') and (t.attempts >= j.max_attempts or t.losses >= q.max_losses)""",
    "7. the live generation is of the newest processed revision": b"""
        select d.id::text from ledgerq.document d join ledgerq.generation g on g.id = d.live_generation
        where g.document_id <> d.id or g.revision <> d.live_revision
           or exists (select from ledgerq.generation x
                      where x.document_id = d.id and x.live_since is not null and x.revision > d.live_revision)""",
    "8. every open job has a task that is ready, due or in a live run, or it is unsealed or external": b"""
        select j.id::text from ledgerq.job j
        where j.status in ('pending', 'queued', 'in_progress') and j.sealed and not j.external
          and not exists (
            select from ledgerq.task t left join ledgerq.run r on r.id = t.run_id
            where t.job_id = j.id and (t.status = 'pending' or t.status = 'queued' and r.status in ('dispatched', 'running')))""",
    "a job that is queued or in progress has a task in a run, or is external": b"""
        select j.id::text from ledgerq.job j
        where j.status in ('queued', 'in_progress') and not j.external
          and not exists (select from ledgerq.task t where t.job_id = j.id and t.status = 'queued')""",
    "a job whose cancel was requested has no task that waits": b"""
        select j.id::text from ledgerq.job j
        where j.cancel_requested_at is not null
          and exists (select from ledgerq.task t where t.job_id = j.id and t.status = 'pending')""",
    "a task that must be alone is in no run with others": b"""
        select t.id::text from ledgerq.task t join ledgerq.run r on r.id = t.run_id
        where t.status = 'queued' and t.alone and r.tasks > 1""",
    "what is told of a job and its tasks belongs to whom the job belongs": b"""
        select j.id::text from ledgerq.job j join ledgerq.task t on t.job_id = j.id where t.owner_id is distinct from j.owner_id
        union select j.id::text from ledgerq.job j join ledgerq.event e on e.job_id = j.id where e.owner_id is distinct from j.owner_id
        union select j.id::text from ledgerq.job j join ledgerq.usage u on u.job_id = j.id where u.owner_id is distinct from j.owner_id""",
}


def broken_invariants(connection: psycopg.Connection[Any]) -> dict[str, list[str]]:
    """Each invariant that does not hold, with the ids of up to ten rows that break it."""
    found: dict[str, list[str]] = {}
    for name, query in INVARIANTS.items():
        rows = connection.execute(query + b" limit 10").fetchall()
        if rows:
            found[name] = [row[0] for row in rows]
    return found


def check_invariants(connection: psycopg.Connection[Any]) -> None:
    """AssertionError that names every broken invariant and its rows."""
    broken = broken_invariants(connection)
    assert not broken, "\n".join(f"{name}: {', '.join(ids)}" for name, ids in broken.items())
