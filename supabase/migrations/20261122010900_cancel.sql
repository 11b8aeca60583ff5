-- cancel_jobs, retry_jobs, expire_jobs: what is done to jobs from outside. None of them locks a run.

create function ledgerq._cancel(p_jobs uuid[], p_actor text, p_reason text, p_now timestamptz, p_most int) returns int
language plpgsql set search_path = ''
as $$
declare
  v_waiting uuid[];
  v_unhanded uuid[];
  v_jobs uuid[];
  v_cancelled int[];
begin
  update ledgerq.job j set cancel_requested_at = p_now, cancel_actor = p_actor, cancel_reason = p_reason, sealed = true
  where j.id = any(p_jobs) and j.finished_at is null and j.cancel_requested_at is null;
  insert into ledgerq.event (at, job_id, owner_id, kind, actor, cause, data)
  select p_now, j.id, j.owner_id, 'cancel_requested', p_actor, p_reason, jsonb_build_object('status', j.status)
  from ledgerq.job j where j.id = any(p_jobs) and j.cancel_requested_at = p_now order by j.id;
  with slice as materialized (
    select t.job_id, t.id from ledgerq.task t where t.job_id = any(p_jobs) and t.status = 'pending' limit p_most
  ), moved as (
    update ledgerq.task t set status = 'cancelled', finished_at = p_now, due_at = null
    from slice s where t.job_id = s.job_id and t.id = s.id and t.status = 'pending'
    returning t.job_id
  )
  select array_agg(m.job_id) into v_waiting from moved m;
  -- A statement of its own: a task that a dispatch was packing while the first one waited for it is un-handed to this one.
  with slice as materialized (
    select t.job_id, t.id from ledgerq.task t join ledgerq.run r on r.id = t.run_id
    where t.job_id = any(p_jobs) and t.status = 'queued' and t.seq > r.handed limit p_most - coalesce(cardinality(v_waiting), 0)
  ), moved as (
    update ledgerq.task t set status = 'cancelled', finished_at = p_now
    from slice s, ledgerq.run r
    where t.job_id = s.job_id and t.id = s.id and t.status = 'queued' and r.id = t.run_id and t.seq > r.handed
    returning t.job_id
  )
  select array_agg(m.job_id) into v_unhanded from moved m;
  select array_agg(c.id), array_agg(c.tasks) into v_jobs, v_cancelled
  from (
    select x.id, count(h.job)::int as tasks from (select distinct u.id from unnest(p_jobs) u(id)) x left join unnest(v_waiting || v_unhanded) h(job) on h.job = x.id group by x.id
  ) c;
  perform ledgerq._settle(v_jobs, array_fill(0, array[coalesce(cardinality(v_jobs), 0)]), array_fill(0, array[coalesce(cardinality(v_jobs), 0)]), v_cancelled, null, p_actor, p_now);
  return coalesce(cardinality(v_waiting), 0) + coalesce(cardinality(v_unhanded), 0);
end $$;
comment on function ledgerq._cancel(uuid[], text, text, timestamptz, int) is
  'Cancels at most p_most tasks of what is waiting or un-handed of these jobs, locked by the caller, and says how many. Nothing of them is dispatched from now on; what a worker holds is told by its next heartbeat.';

create function ledgerq.cancel_jobs(request jsonb) returns jsonb
language plpgsql set search_path = ''
as $$
declare
  v_ids uuid[] := ledgerq._uuids(request, 'jobs', 1000);
  v_most int := coalesce(ledgerq._integer(request, 'tasks', 1, 100000), 10000);
  v_now timestamptz;
  v_answer jsonb;
  v_open uuid[];
  v_done int;
begin
  perform ledgerq._lock_jobs(v_ids);
  v_now := ledgerq.clock();
  select jsonb_agg(jsonb_build_object('id', g.id, 'disposition', case
           when j.id is null then 'not_found'
           when j.finished_at is null or j.cancel_requested_at is not null or j.status = 'cancelled' then 'applied'
           else 'too_late' end) order by g.place),
         array_agg(j.id) filter (where j.finished_at is null)
  into v_answer, v_open
  from unnest(v_ids) with ordinality g(id, place) left join ledgerq.job j on j.id = g.id;
  v_done := ledgerq._cancel(v_open, ledgerq._text(request, 'actor'), ledgerq._text(request, 'reason', 2000), v_now, v_most);
  return jsonb_build_object('more', v_done = v_most, 'jobs', (
    select coalesce(jsonb_agg(a || jsonb_build_object('status', j.status) order by o), '[]')
    from jsonb_array_elements(v_answer) with ordinality x(a, o) left join ledgerq.job j on j.id = (a ->> 'id')::uuid));
end $$;
comment on function ledgerq.cancel_jobs(jsonb) is
  '{jobs, actor, reason, tasks = 10,000} → {jobs: [{id, disposition: applied|too_late|not_found, status}], more}. A completed outcome that is accepted before wins for its task. All jobs are marked at once; more: only so many tasks are cancelled in one call, its repeat goes on, and so does expire_jobs.';

create function ledgerq._retry(p_job uuid, p_request text, p_actor text, p_now timestamptz) returns jsonb
language plpgsql set search_path = ''
as $$
declare
  j ledgerq.job;
  v_holder uuid;
begin
  select * into j from ledgerq.job x where x.id = p_job and not x.removing;
  if not found then
    return jsonb_build_object('id', p_job, 'disposition', 'not_found');
  elsif j.retry_request = p_request then
    return jsonb_build_object('id', p_job, 'disposition', 'applied', 'job', p_job);
  elsif j.finished_at is null then
    return jsonb_build_object('id', p_job, 'disposition', 'not_finished', 'job', p_job);
  elsif j.failed + j.cancelled = 0 then
    return jsonb_build_object('id', p_job, 'disposition', 'nothing_to_retry', 'job', p_job);
  end if;
  begin
    update ledgerq.job x set
      status = 'pending', finished_at = null, started_at = null, progress = null, result = null, error = null, failed = 0, cancelled = 0,
      cancel_requested_at = null, cancel_actor = null, cancel_reason = null, retry_request = p_request,
      deadline_at = p_now + make_interval(secs => x.deadline_s)
    where x.id = p_job and x.status in ('failed', 'partial', 'cancelled');
  exception when unique_violation then
    -- The key was taken meanwhile; the index has waited until that is certain.
    select x.id into v_holder from ledgerq.job x
    where x.tenant = j.tenant and x.type = j.type and x.dedupe_key = j.dedupe_key and x.finished_at is null;
    return jsonb_build_object('id', p_job, 'disposition', 'duplicate', 'job', v_holder);
  end;
  update ledgerq.task t set
    status = 'pending', attempts = 0, crashes = 0, losses = 0, due_at = null, run_id = null, seq = null,
    progress = null, result = null, error = null, duration_s = null, started_at = null, finished_at = null
  where t.job_id = p_job and t.status in ('failed', 'cancelled');
  insert into ledgerq.event (at, job_id, owner_id, kind, actor, data)
  values (p_now, p_job, j.owner_id, 'retried', p_actor, jsonb_build_object('status', j.status, 'completed', j.completed,
    'failed', j.failed, 'cancelled', j.cancelled, 'started_at', j.started_at, 'finished_at', j.finished_at));
  return jsonb_build_object('id', p_job, 'disposition', 'applied', 'job', p_job);
end $$;

create function ledgerq._check_retry_size(p_jobs uuid[], p_request text) returns void
language plpgsql stable set search_path = ''
as $$
declare
  v_tasks bigint;
begin
  select sum(j.failed + j.cancelled) into v_tasks from ledgerq.job j
  where j.id = any(p_jobs) and j.finished_at is not null and j.retry_request is distinct from p_request;
  if v_tasks > 100000 then
    perform ledgerq._too_large('jobs', v_tasks, 100000, 'tasks to do again',
      'Retry fewer jobs in one call; of a job that alone is larger, create a new one from its failed tasks (job_tasks).');
  end if;
end $$;

create function ledgerq.retry_jobs(request jsonb) returns jsonb
language plpgsql set search_path = ''
as $$
declare
  v_ids uuid[] := ledgerq._uuids(request, 'jobs', 1000);
  v_request text := ledgerq._text(request, 'request');
  v_actor text := ledgerq._text(request, 'actor');
  v_now timestamptz;
  v_job record;
  v_jobs jsonb := '[]';
  v_sent jsonb;
begin
  if v_request is null then
    perform ledgerq._invalid('request', null, 'an id made by the caller for this retry');
  end if;
  perform ledgerq._lock_jobs(v_ids);
  v_now := ledgerq.clock();
  perform ledgerq._check_retry_size(v_ids, v_request);
  -- In the order of their dedupe keys, in which creators take them too.
  for v_job in
    select g.id, g.place from unnest(v_ids) with ordinality g(id, place) left join ledgerq.job j on j.id = g.id
    order by j.tenant, j.type, j.dedupe_key nulls first, g.place
  loop
    v_jobs := v_jobs || (ledgerq._retry(v_job.id, v_request, v_actor, v_now) || jsonb_build_object('place', v_job.place));
  end loop;
  v_sent := ledgerq._dispatch_all(array(
    select j.queue from jsonb_array_elements(v_jobs) a join ledgerq.job j on j.id = (a ->> 'job')::uuid
    where a ->> 'disposition' = 'applied' and not j.external), true);
  return jsonb_build_object('runs', v_sent -> 'runs',
    'jobs', (select coalesce(jsonb_agg(a - 'place' order by (a -> 'place')::int), '[]') from jsonb_array_elements(v_jobs) a));
end $$;
comment on function ledgerq.retry_jobs(jsonb) is
  '{jobs, actor, request} → {jobs: [{id, disposition: applied|not_finished|nothing_to_retry|not_found|duplicate, job}], runs}. What failed or was cancelled is done again, at most 100,000 tasks a call; what completed stays.';

create function ledgerq._go_on_cancelling(p_limit int, p_most int, p_now timestamptz) returns int
language plpgsql set search_path = ''
as $$
begin
  return ledgerq._cancel(array(
    select j.id from ledgerq.job j
    where j.id in (
      select c.id from ledgerq.job c
      where c.finished_at is null and c.cancel_requested_at is not null and (
        exists (select from ledgerq.task t where t.job_id = c.id and t.status = 'pending')
        or exists (select from ledgerq.task t join ledgerq.run r on r.id = t.run_id
                   where t.job_id = c.id and t.status = 'queued' and t.seq > r.handed))
      order by c.cancel_requested_at limit p_limit)
    and j.finished_at is null and j.cancel_requested_at is not null
    order by j.id for no key update skip locked), 'expire_jobs', null, p_now, p_most);
end $$;
comment on function ledgerq._go_on_cancelling(int, int, timestamptz) is
  'The next tasks of jobs whose cancel was too much for one call, when whoever asked for it does not go on.';

create function ledgerq._expire(p_jobs uuid[], p_most int, p_now timestamptz) returns int
language plpgsql set search_path = ''
as $$
declare
  v_jobs uuid[];
  v_failed int[];
  v_tasks int;
begin
  update ledgerq.job j set sealed = true, abandoned = true,
    error = jsonb_build_object('type', 'NeverSealed', 'message', 'the deadline of the job passed before it was sealed', 'cause', 'deadline')
  where j.id = any(p_jobs) and not j.sealed;
  with slice as materialized (
    select t.job_id, t.id from ledgerq.task t where t.job_id = any(p_jobs) and t.status = 'pending' limit p_most
  ), moved as (
    update ledgerq.task t set status = 'failed', finished_at = p_now, due_at = null, error = ledgerq._deadline_error(t.error)
    from slice s where t.job_id = s.job_id and t.id = s.id and t.status = 'pending'
    returning t.job_id
  ), per_job as (
    select x.id, (select count(*)::int from moved m where m.job_id = x.id) as failed from unnest(p_jobs) x(id)
  )
  select array_agg(p.id), array_agg(p.failed), coalesce(sum(p.failed), 0) into v_jobs, v_failed, v_tasks from per_job p;
  perform ledgerq._settle(v_jobs, array_fill(0, array[coalesce(cardinality(v_jobs), 0)]), v_failed, array_fill(0, array[coalesce(cardinality(v_jobs), 0)]), null, 'expire_jobs', p_now);
  return v_tasks;
end $$;
comment on function ledgerq._expire(uuid[], int, timestamptz) is
  'At most p_most waiting tasks of these jobs fail, and a job is judged when its counts add up: a later call takes the rest. Locked by the caller.';

create function ledgerq.expire_jobs(request jsonb) returns jsonb
language plpgsql set search_path = ''
as $$
declare
  v_limit int := coalesce(ledgerq._integer(request, 'limit', 1, 1000), 100);
  v_most int := coalesce(ledgerq._integer(request, 'tasks', 1, 100000), 10000);
  v_now timestamptz := ledgerq.clock();
  v_done int := ledgerq._go_on_cancelling(v_limit, v_most, v_now);
  v_ids uuid[];
begin
  if v_done >= v_most then
    return '{"expired": [], "more": true}';
  end if;
  v_ids := array(
    select j.id from ledgerq.job j
    where j.id in (
      select d.id from ledgerq.job d
      where d.finished_at is null and d.deadline_at <= v_now and d.cancel_requested_at is null
        and (not d.sealed or exists (select from ledgerq.task t where t.job_id = d.id and t.status = 'pending'))
      order by d.deadline_at limit v_limit)
    and j.finished_at is null and j.deadline_at <= v_now and j.cancel_requested_at is null
    order by j.id for no key update skip locked);
  v_done := v_done + ledgerq._expire(v_ids, v_most - v_done, v_now);
  return jsonb_build_object('expired', to_jsonb(v_ids), 'more', v_done >= v_most or cardinality(v_ids) = v_limit);
end $$;
comment on function ledgerq.expire_jobs(jsonb) is
  '{limit = 100 jobs, tasks = 10,000} → {expired: [job], more}. Waiting tasks of jobs past their deadline fail; a job that was never sealed is, and cannot complete. Also goes on with cancels that were too much for one call.';

revoke execute on all functions in schema ledgerq from public, anon, authenticated;
grant execute on all functions in schema ledgerq to service_role;
insert into ledgerq.schema_version (version, subject) values ('20261122010900', 'cancel');
