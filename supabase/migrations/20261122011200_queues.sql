-- Queues, and the live runs that the status sync pages through.

create function ledgerq._queue_json(p_queue ledgerq.queue) returns jsonb
language plpgsql stable set search_path = ''
as $$
begin
  return to_jsonb(p_queue) - 'name' || jsonb_build_object('queue', p_queue.name, 'paused', p_queue.paused_at is not null);
end $$;

create function ledgerq._check_limits(request jsonb) returns void
language plpgsql set search_path = ''
as $$
declare
  v_unknown text;
begin
  select k into v_unknown from jsonb_object_keys(request) k
  where k not in ('queue', 'actor', 'depth', 'run_size', 'lease_s', 'heartbeat_s', 'run_budget_s', 'cancel_grace_s', 'max_crashes', 'max_losses',
                  'timeout_s', 'max_attempts', 'deadline_s', 'max_concurrent_jobs', 'tenant_concurrent_jobs') limit 1;
  if found then
    perform ledgerq._invalid(v_unknown, request ->> v_unknown, 'a limit of a queue');
  end if;
  perform ledgerq._name(request, 'queue'), ledgerq._integer(request, 'depth', 1, 1000), ledgerq._integer(request, 'run_size', 1, 500),
    ledgerq._number(request, 'lease_s', 0.1, 86400), ledgerq._number(request, 'heartbeat_s', 0.05, 3600),
    ledgerq._number(request, 'run_budget_s', 0.1, 86400), ledgerq._number(request, 'cancel_grace_s', 0, 3600),
    ledgerq._integer(request, 'max_crashes', 1, 100), ledgerq._integer(request, 'max_losses', 1, 100),
    ledgerq._number(request, 'timeout_s', 0.001, 604800), ledgerq._integer(request, 'max_attempts', 1, 1000),
    ledgerq._number(request, 'deadline_s', 0.001, 31536000), ledgerq._integer(request, 'max_concurrent_jobs', 1, 1000000),
    ledgerq._integer(request, 'tenant_concurrent_jobs', 1, 1000000);
end $$;

create function ledgerq.save_queue(request jsonb) returns jsonb
language plpgsql set search_path = ''
as $$
declare
  v_now timestamptz := ledgerq.clock();
  v_old ledgerq.queue;
  v_new ledgerq.queue;
begin
  perform ledgerq._check_limits(request);
  insert into ledgerq.queue (name, created_at, updated_at) values (request ->> 'queue', v_now, v_now) on conflict do nothing;
  insert into ledgerq.queue_turn (queue) values (request ->> 'queue') on conflict do nothing;
  select * into v_old from ledgerq.queue q where q.name = request ->> 'queue' for no key update;
  -- Only what is named changes; a cap is lifted by naming it with null.
  v_new := jsonb_populate_record(v_old, (request - 'queue' - 'actor') || jsonb_build_object('updated_at', v_now));
  if v_new.lease_s < 2 * v_new.heartbeat_s then
    perform ledgerq._invalid('lease_s', v_new.lease_s::text, format('at least twice heartbeat_s, which is %s', v_new.heartbeat_s));
  end if;
  update ledgerq.queue q set
    depth = coalesce(v_new.depth, q.depth), run_size = coalesce(v_new.run_size, q.run_size), lease_s = coalesce(v_new.lease_s, q.lease_s),
    heartbeat_s = coalesce(v_new.heartbeat_s, q.heartbeat_s), run_budget_s = coalesce(v_new.run_budget_s, q.run_budget_s),
    cancel_grace_s = coalesce(v_new.cancel_grace_s, q.cancel_grace_s), max_crashes = coalesce(v_new.max_crashes, q.max_crashes),
    max_losses = coalesce(v_new.max_losses, q.max_losses), timeout_s = coalesce(v_new.timeout_s, q.timeout_s),
    max_attempts = coalesce(v_new.max_attempts, q.max_attempts), deadline_s = coalesce(v_new.deadline_s, q.deadline_s),
    max_concurrent_jobs = v_new.max_concurrent_jobs, tenant_concurrent_jobs = v_new.tenant_concurrent_jobs, updated_at = v_now
  where q.name = v_old.name
  returning * into v_new;
  return jsonb_build_object('disposition', 'applied', 'queue', ledgerq._queue_json(v_new));
end $$;
comment on function ledgerq.save_queue(jsonb) is '{queue, …limits} → {disposition: applied, queue: {…}}. Creates the queue, or changes the limits that are named.';

create function ledgerq._set_paused(request jsonb, p_pause boolean) returns void
language plpgsql set search_path = ''
as $$
declare
  v_actor text := ledgerq._text(request, 'actor');
  v_now timestamptz := ledgerq.clock();
  q ledgerq.queue := ledgerq._queue(request ->> 'queue');
begin
  update ledgerq.queue x set paused_at = case when p_pause then v_now end, paused_by = case when p_pause then v_actor end, updated_at = v_now
  where x.name = q.name and (x.paused_at is null) = p_pause;
  if found then
    insert into ledgerq.event (at, kind, actor, data)
    values (v_now, case when p_pause then 'paused' else 'resumed' end, v_actor, jsonb_build_object('queue', q.name));
  end if;
end $$;

create function ledgerq.pause_queue(request jsonb) returns jsonb
language plpgsql set search_path = ''
as $$
begin
  perform ledgerq._set_paused(request, true);
  return jsonb_build_object('disposition', 'applied', 'queue', request ->> 'queue', 'paused', true);
end $$;
comment on function ledgerq.pause_queue(jsonb) is
  '{queue, actor} → {disposition: applied}. Nothing more is dispatched or handed out; what workers hold they finish. Repeatable.';

create function ledgerq.resume_queue(request jsonb) returns jsonb
language plpgsql set search_path = ''
as $$
begin
  perform ledgerq._set_paused(request, false);
  return jsonb_build_object('disposition', 'applied', 'queue', request ->> 'queue', 'paused', false)
    || ledgerq._dispatch(request ->> 'queue');
end $$;
comment on function ledgerq.resume_queue(jsonb) is '{queue, actor} → {disposition: applied, runs, busy}. Repeatable.';

create function ledgerq.live_runs(request jsonb) returns jsonb
language plpgsql set search_path = ''
as $$
declare
  v_after uuid := ledgerq._uuid(request, 'after');
  v_limit int := coalesce(ledgerq._integer(request, 'limit', 1, 500), 500);
  v_queue text := ledgerq._text(request, 'queue');
  v_runs uuid[] := case when request ? 'runs' then ledgerq._uuids(request, 'runs', 100) end;
begin
  return (
    select jsonb_build_object('now', ledgerq.clock(), 'runs', coalesce(jsonb_agg(jsonb_build_object(
        'run', r.id, 'queue', r.queue, 'type', r.type, 'status', r.status, 'step', r.step, 'worker', r.worker, 'execution_id', r.execution_id,
        'delivery', r.delivery, 'created_at', r.created_at, 'started_at', r.started_at, 'heartbeat_at', r.heartbeat_at,
        'lease_until', r.lease_until, 'suspected_at', r.suspected_at, 'single_job', r.single_job, 'size', r.size, 'handed', r.handed,
        'heartbeat_s', q.heartbeat_s, 'lease_s', q.lease_s, 'ticket', ledgerq._ticket(r.source)) order by r.id), '[]'))
    from (
      select x.*, x as source from ledgerq.run x
      where x.status in ('dispatched', 'running') and (v_after is null or x.id > v_after) and (v_queue is null or x.queue = v_queue)
        and (v_runs is null or x.id = any(v_runs))
      order by x.id limit v_limit
    ) r
    join ledgerq.queue q on q.name = r.queue);
end $$;
comment on function ledgerq.live_runs(jsonb) is '{after?, limit?, queue?, runs?} → {runs, now}: dispatched and running runs, by id.';

revoke execute on all functions in schema ledgerq from public, anon, authenticated;
grant execute on all functions in schema ledgerq to service_role;
insert into ledgerq.schema_version (version, subject) values ('20261122011200', 'queues');
