-- How the queues, the workers and the ledger itself are. Nothing here counts without a bound.

create index run_started on ledgerq.run (queue, started_at) where started_at is not null;
comment on index ledgerq.run_started is 'When a worker last took something from the queue.';

create function ledgerq.queue_stats(request jsonb) returns jsonb
language plpgsql stable set search_path = '' as $$
declare
  v_queue text := ledgerq._text(request, 'queue', 63);
begin
  if v_queue is not null then
    perform ledgerq._queue(v_queue);
  end if;
  return jsonb_build_object('queues', (
    select coalesce(jsonb_agg(ledgerq._queue_limits(q) || ledgerq._queue_runs(q.name) || ledgerq._queue_waiting(q.name) order by q.name), '[]')
    from ledgerq.queue as q where v_queue is null or q.name = v_queue
  ));
end $$;
comment on function ledgerq.queue_stats(jsonb) is
  '{queue?} -> {queues: [{queue, paused, depth, limits, dispatched, running, in_progress, queued, ready, due_later, next_due_at, oldest_ready_s, …}]}; task counts stop at 10,000 and then say so (ready_more, due_later_more, in_runs_more)';

create function ledgerq._queue_limits(q ledgerq.queue) returns jsonb
language sql immutable set search_path = '' as $$
  select jsonb_build_object(
    'queue', q.name, 'paused', q.paused_at is not null, 'paused_at', q.paused_at, 'paused_by', q.paused_by, 'depth', q.depth,
    'run_size', q.run_size, 'lease_s', q.lease_s, 'heartbeat_s', q.heartbeat_s, 'run_budget_s', q.run_budget_s,
    'cancel_grace_s', q.cancel_grace_s, 'max_crashes', q.max_crashes, 'max_losses', q.max_losses, 'timeout_s', q.timeout_s,
    'max_attempts', q.max_attempts, 'deadline_s', q.deadline_s, 'max_concurrent_jobs', q.max_concurrent_jobs,
    'tenant_concurrent_jobs', q.tenant_concurrent_jobs
  )
$$;

-- Held tasks are in a worker's hands (in_progress); the others of a live run wait for it in Redis, or behind them (queued).
create function ledgerq._queue_runs(p_queue text) returns jsonb
language sql stable set search_path = '' as $$
  select jsonb_build_object(
    'dispatched', count(*) filter (where r.status = 'dispatched'), 'running', count(*) filter (where r.status = 'running'),
    'suspected', count(r.suspected_at),
    'in_progress', coalesce(sum(tasks.held), 0), 'queued', coalesce(sum(tasks.waiting), 0),
    'in_runs_more', coalesce(bool_or(tasks.held + tasks.waiting > 10000), false)
  ) || jsonb_build_object('last_started_at', (
    select l.started_at from ledgerq.run as l where l.queue = p_queue and l.started_at is not null order by l.started_at desc limit 1
  ))
  from ledgerq.run as r
  cross join lateral (
    select count(*) filter (where t.seq <= r.handed) as held, count(*) filter (where t.seq > r.handed) as waiting
    from (select k.seq from ledgerq.task as k where k.run_id = r.id and k.status = 'queued' limit 10001) as t
  ) as tasks
  where r.queue = p_queue and r.status in ('dispatched', 'running')
$$;

-- One probe for each class and tenant (the first 100), instead of a look at every ready task.
create function ledgerq._oldest_ready(p_queue text) returns timestamptz
language sql stable set search_path = '' as $$
  select min(oldest.created_at)
  from generate_series(0, 3) as class (priority)
  cross join unnest(ledgerq._tenants_in_turn(p_queue, class.priority::smallint, '', 100)) as waiting (tenant)
  cross join lateral (
    select t.created_at from ledgerq.task as t
    where t.queue = p_queue and t.priority = class.priority and t.tenant = waiting.tenant
      and t.status = 'pending' and t.due_at is null and not t.external
    order by t.id limit 1
  ) as oldest
$$;

create function ledgerq._queue_waiting(p_queue text) returns jsonb
language sql stable set search_path = '' as $$
  select jsonb_build_object(
    'ready', least(ready.tasks, 10000), 'ready_more', ready.tasks > 10000,
    'due_later', least(later.tasks, 10000), 'due_later_more', later.tasks > 10000, 'next_due_at', later.next_due_at,
    'oldest_ready_s', extract(epoch from ledgerq.clock() - ledgerq._oldest_ready(p_queue))
  )
  from (
    select count(*) as tasks from (
      select from ledgerq.task as t
      where t.queue = p_queue and t.status = 'pending' and t.due_at is null and not t.external limit 10001
    ) as bounded
  ) as ready
  cross join (
    select count(*) as tasks, min(bounded.due_at) as next_due_at from (
      select t.due_at from ledgerq.task as t
      where t.queue = p_queue and t.status = 'pending' and t.due_at is not null and not t.external order by t.due_at limit 10001
    ) as bounded
  ) as later
$$;

create function ledgerq.worker_stats(request jsonb) returns jsonb
language plpgsql stable set search_path = '' as $$
declare
  v_now timestamptz := ledgerq.clock();
begin
  return jsonb_build_object('now', v_now, 'workers', ledgerq._running_workers(), 'recent', ledgerq._recent_workers());
end $$;
comment on function ledgerq.worker_stats(jsonb) is
  '{} -> {now, workers: [{worker, host, pid, queue, runs, held, started_at, heartbeat_at, suspected}] that hold runs now (of 500 runs), recent: [{worker, queue, runs, lost, last_ended_at}] from the last 1,000 ended runs}';

create function ledgerq._running_workers() returns jsonb
language sql stable set search_path = '' as $$
  select coalesce(jsonb_agg(jsonb_build_object(
    'worker', w.worker, 'host', w.host, 'pid', w.pid, 'queue', w.queue, 'runs', w.runs, 'held', w.held, 'started_at', w.started_at,
    'heartbeat_at', w.heartbeat_at, 'suspected', w.suspected > 0
  ) order by w.queue, w.worker, w.host, w.pid), '[]')
  from (
    select
      coalesce(r.worker, '') as worker, r.host, r.pid, r.queue, count(*) as runs, min(r.started_at) as started_at,
      min(r.heartbeat_at) as heartbeat_at, count(r.suspected_at) as suspected,
      sum((select count(*) from ledgerq.task as t where t.run_id = r.id and t.status = 'queued' and t.seq <= r.handed)) as held
    from (select * from ledgerq.run as live where live.status = 'running' order by live.queue limit 500) as r
    group by 1, 2, 3, 4
  ) as w
$$;

create function ledgerq._recent_workers() returns jsonb
language sql stable set search_path = '' as $$
  select coalesce(jsonb_agg(jsonb_build_object(
    'worker', w.worker, 'queue', w.queue, 'runs', w.runs, 'lost', w.lost, 'last_ended_at', w.last_ended_at
  ) order by w.last_ended_at desc), '[]')
  from (
    select r.worker, r.queue, count(*) as runs, count(*) filter (where r.status = 'lost') as lost, max(r.ended_at) as last_ended_at
    from (select * from ledgerq.run as ended where ended.ended_at is not null order by ended.ended_at desc limit 1000) as r
    where r.worker is not null
    group by r.worker, r.queue
  ) as w
$$;

create function ledgerq.health(request jsonb) returns jsonb
language sql stable set search_path = '' as $$
  select jsonb_build_object(
    'schema_version', (select max(v.version) from ledgerq.schema_version as v), 'now', ledgerq.clock(),
    'server_version', current_setting('server_version'), 'started_at', pg_postmaster_start_time()
  )
$$;
comment on function ledgerq.health(jsonb) is '{} -> {schema_version, now, server_version, started_at}';

revoke execute on all functions in schema ledgerq from public, anon, authenticated;
grant execute on all functions in schema ledgerq to service_role;
insert into ledgerq.schema_version (version, subject) values ('20261122020500', 'stats');
