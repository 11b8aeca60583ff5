-- start_run: which delivery of a run is real, and handing out its tasks.

create function ledgerq._urgent_waits(p_queue ledgerq.queue) returns boolean
language plpgsql stable set search_path = ''
as $$
begin
  -- Under hard caps ready urgent tasks may have to wait for other reasons, and giving way would help none of them.
  return (
    select exists (select from ledgerq.run r where r.queue = p_queue.name and r.status = 'dispatched' and r.at_front)
      or p_queue.max_concurrent_jobs is null and p_queue.tenant_concurrent_jobs is null and coalesce(ledgerq._highest_ready(p_queue.name, 4) = 3, false)
  );
end $$;

create function ledgerq._others_idle(p_run ledgerq.run, p_queue ledgerq.queue) returns boolean
language plpgsql volatile set search_path = ''
as $$
begin
  -- Nothing is left to take for whoever is free, neither in Redis nor here. Not in a run's first heartbeat: what is quick is done by then.
  return (
    select p_run.handed < p_run.size and ledgerq.clock() - p_run.started_at >= make_interval(secs => p_queue.heartbeat_s)
      and not exists (select from ledgerq.run r where r.queue = p_queue.name and r.status = 'dispatched')
      and ledgerq._highest_ready(p_queue.name, 4) is null
  );
end $$;

create function ledgerq._shed_wanted(p_run ledgerq.run, p_queue ledgerq.queue) returns boolean
language plpgsql volatile set search_path = ''
as $$
begin
  return (
    select p_queue.paused_at is not null
      or ledgerq.clock() - p_run.started_at >= make_interval(secs => p_queue.run_budget_s)
      or not p_run.at_front and ledgerq._urgent_waits(p_queue)
      or ledgerq._others_idle(p_run, p_queue)
  );
end $$;
comment on function ledgerq._shed_wanted(ledgerq.run, ledgerq.queue) is
  'Whether the run should hand out no more: its queue is paused, its budget used, urgent work waits and it is not urgent itself, or others have nothing to do.';

create function ledgerq._next_handed(p_run uuid, p_handed int, p_size int, p_want int) returns int
language plpgsql stable set search_path = ''
as $$
begin
  -- A window is bounded by bytes too; one task always fits.
  return (
    select case when p_want = 0 then p_handed else coalesce(max(x.seq), p_size) end
    from (
      select t.seq, sum(t.payload_bytes) over (order by t.seq) - t.payload_bytes as bytes_before
      from (select k.seq, k.payload_bytes from ledgerq.task k
            where k.run_id = p_run and k.status = 'queued' and k.seq > p_handed order by k.seq limit p_want) t
    ) x
    where x.bytes_before < 2097152
  );
end $$;
comment on function ledgerq._next_handed(uuid, int, int, int) is 'Up to which seq the next hand-out of p_want tasks goes; the size when nothing is left.';

create function ledgerq._take_up(p_run uuid, p_jobs uuid[], p_now timestamptz) returns void
language plpgsql set search_path = ''
as $$
begin
  with begun as (
    update ledgerq.job j set
      status = 'in_progress', started_at = coalesce(j.started_at, p_now),
      run_ids = case when p_run = any(j.run_ids) then j.run_ids else (p_run || j.run_ids)[1:100] end
    where j.id = any(p_jobs) and j.finished_at is null and (j.status <> 'in_progress' or p_run <> all(j.run_ids))
    returning j.id, j.owner_id, j.started_at
  )
  insert into ledgerq.event (at, job_id, owner_id, kind, run_id)
  select p_now, b.id, b.owner_id, 'started', p_run from begun b where b.started_at = p_now order by b.id;
end $$;
comment on function ledgerq._take_up(uuid, uuid[], timestamptz) is 'Jobs whose tasks are handed out by the run are in progress. Locked by the caller.';

create function ledgerq._jobs_between(p_run uuid, p_above int, p_to int) returns uuid[]
language plpgsql stable set search_path = ''
as $$
begin
  return (
    select array(select distinct t.job_id from ledgerq.task t where t.run_id = p_run and t.status = 'queued' and t.seq > p_above and t.seq <= p_to)
  );
end $$;

create function ledgerq._held(p_run uuid, p_handed int) returns jsonb
language plpgsql stable set search_path = ''
as $$
begin
  return (
    select coalesce(jsonb_agg(jsonb_build_object(
      'id', t.id, 'job', j.id, 'tenant', j.tenant, 'owner', j.owner_id, 'type', j.type, 'key', t.key, 'document', t.document_id,
      'payload', t.payload, 'attempts', t.attempts, 'max_attempts', j.max_attempts, 'crashes', t.crashes, 'losses', t.losses,
      'timeout_s', j.timeout_s, 'cancelled', j.cancel_requested_at is not null) order by t.seq), '[]')
    from ledgerq.task t join ledgerq.job j on j.id = t.job_id
    where t.run_id = p_run and t.status = 'queued' and t.seq <= p_handed
  );
end $$;
comment on function ledgerq._held(uuid, int) is 'The tasks that the worker of the run holds now.';

create function ledgerq._cancelled_among(p_tasks jsonb) returns jsonb
language plpgsql immutable set search_path = ''
as $$
begin
  return (
    select coalesce(jsonb_agg(t -> 'id'), '[]') from jsonb_array_elements(p_tasks) t where (t -> 'cancelled')::boolean
  );
end $$;

create function ledgerq._hand_out(p_run ledgerq.run, p_to int, p_want int, p_now timestamptz, out handed int, out tasks jsonb)
language plpgsql set search_path = ''
as $$
begin
  handed := p_to;
  perform ledgerq._take_up(p_run.id, ledgerq._jobs_between(p_run.id, p_run.handed, handed), p_now);
  tasks := ledgerq._held(p_run.id, handed);
  -- All of it was cancelled in this very instant: go on. These jobs are not waited for, since they come out of order;
  -- one that is locked just now is marked in progress by a later hand-out or by its end.
  while tasks = '[]' and handed < p_run.size and p_want > 0 loop
    p_run.handed := handed;
    handed := ledgerq._next_handed(p_run.id, handed, p_run.size, p_want);
    perform ledgerq._take_up(p_run.id, array(
      select j.id from ledgerq.job j where j.id = any(ledgerq._jobs_between(p_run.id, p_run.handed, handed))
      order by j.id for no key update skip locked), p_now);
    tasks := ledgerq._held(p_run.id, handed);
  end loop;
end $$;
comment on function ledgerq._hand_out(ledgerq.run, int, int, timestamptz) is 'Hands out up to p_to. The jobs of those tasks are locked by the caller.';

create function ledgerq._revoke_at_start(p_run ledgerq.run, p_cause text, p_now timestamptz) returns jsonb
language plpgsql set search_path = ''
as $$
begin
  update ledgerq.run r set status = 'revoked', ended_at = p_now, verdict = 'revoke', cause = p_cause, actor = 'start_run'
  where r.id = p_run.id and r.status = 'dispatched';
  return jsonb_build_object('disposition', p_cause, 'step', 0, 'tasks', '[]'::jsonb, 'runs',
    case p_cause when 'empty' then ledgerq._dispatch(p_run.queue, true) -> 'runs' else '[]' end);
end $$;

create function ledgerq.start_run(request jsonb) returns jsonb
language plpgsql set search_path = ''
as $$
declare
  v_id uuid := ledgerq._required_uuid(request, 'run');
  v_delivery uuid := ledgerq._required_uuid(request, 'delivery');
  v_window int := coalesce(ledgerq._integer(request, 'window', 1, 500), 1);
  r ledgerq.run;
  q ledgerq.queue;
  v_now timestamptz;
  v_to int;
  v_out record;
  v_runs jsonb := '[]';
begin
  select * into r from ledgerq.run x where x.id = v_id for no key update;
  if not found then
    return '{"disposition": "not_found"}';
  end if;
  q := ledgerq._queue(r.queue);
  if r.status = 'running' and r.delivery = v_delivery then
    return ledgerq._started(r, q, ledgerq._held(r.id, r.handed), '[]');
  end if;
  if r.status <> 'dispatched' then
    return '{"disposition": "superseded"}';
  end if;
  if q.paused_at is not null then
    perform ledgerq._lock_jobs(ledgerq._jobs_in_run(r.id, 0));
    v_now := ledgerq.clock();
    perform ledgerq._give_back(r.id, 0, v_now);
    return ledgerq._revoke_at_start(r, 'paused', v_now);
  end if;
  v_to := ledgerq._next_handed(r.id, 0, r.size, v_window);
  perform ledgerq._lock_jobs(ledgerq._jobs_between(r.id, 0, v_to));
  v_now := ledgerq.clock();
  v_out := ledgerq._hand_out(r, v_to, v_window, v_now);
  if v_out.tasks = '[]' then
    return ledgerq._revoke_at_start(r, 'empty', v_now);
  end if;
  update ledgerq.run x set
    status = 'running', delivery = v_delivery, worker = ledgerq._text(request, 'worker', 500),
    execution_id = ledgerq._text(request, 'execution_id', 500), host = ledgerq._text(request, 'host', 500),
    pid = ledgerq._integer(request, 'pid', 0, 2147483647), started_at = v_now, heartbeat_at = v_now,
    lease_until = v_now + make_interval(secs => q.lease_s), handed = v_out.handed
  where x.id = r.id and x.status = 'dispatched';
  if (select count(*) from ledgerq.run x where x.queue = q.name and x.status = 'dispatched') < q.depth / 2.0 then
    v_runs := ledgerq._dispatch(q.name, true) -> 'runs';
  end if;
  return ledgerq._started(r, q, v_out.tasks, v_runs);
end $$;
comment on function ledgerq.start_run(jsonb) is
  '{run, delivery, worker, execution_id, window, host, pid} → {disposition: applied|superseded|not_found|paused|empty, step, lease_s, heartbeat_s, cancel_grace_s, tasks, runs}. Admits one delivery.';

create function ledgerq._started(p_run ledgerq.run, p_queue ledgerq.queue, p_tasks jsonb, p_runs jsonb) returns jsonb
language plpgsql immutable set search_path = ''
as $$
begin
  return (
    select jsonb_build_object('disposition', 'applied', 'step', p_run.step, 'lease_s', p_queue.lease_s, 'heartbeat_s', p_queue.heartbeat_s,
      'cancel_grace_s', p_queue.cancel_grace_s, 'tasks', p_tasks, 'runs', p_runs)
  );
end $$;

revoke execute on all functions in schema ledgerq from public, anon, authenticated;
grant execute on all functions in schema ledgerq to service_role;
insert into ledgerq.schema_version (version, subject) values ('20261122010600', 'start');
