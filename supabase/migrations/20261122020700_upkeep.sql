-- Forgetting: what finished long ago, and what somebody wants gone. Unfinished work is never touched.

create index event_by_time on ledgerq.event (at) where task_id is not null or job_id is null;
comment on index ledgerq.event_by_time is 'For prune alone, and of what it removes alone: most events are of jobs, and go with them.';

create function ledgerq.prune(request jsonb) returns jsonb
language plpgsql set search_path = '' as $$
declare
  v_age interval := ledgerq._seconds(ledgerq._number(request, 'finished_before_s', 0, 3.2e9));
  v_limit int := coalesce(ledgerq._integer(request, 'limit', 1, 10000), 1000);
  v_before timestamptz := ledgerq.clock() - v_age;
  v_jobs record;
  v_events int;
  v_runs int;
  v_webhooks int;
begin
  if v_age is null then
    perform ledgerq._invalid('finished_before_s', null, 'a number of seconds');
  end if;
  v_jobs := ledgerq._prune_jobs(v_before, v_limit);
  v_events := ledgerq._prune_events(v_before, v_limit);
  v_runs := ledgerq._prune_runs(v_before, v_limit);
  v_webhooks := ledgerq._prune_webhooks(v_before, v_limit);
  return jsonb_build_object(
    'jobs', v_jobs.removed, 'events', v_events, 'runs', v_runs, 'webhooks', v_webhooks, 'usage', 0,
    -- Only when something went: what others hold locked is no reason to come back at once.
    'more', v_events = v_limit or v_runs = v_limit or v_webhooks = v_limit or v_jobs.begun
      or (v_jobs.removed > 0 and exists (select from ledgerq.job as j where j.finished_at < v_before))
  );
end $$;
comment on function ledgerq.prune(jsonb) is
  '{finished_before_s, limit = 1,000} -> {jobs, events, runs, webhooks, usage, more}. A batch: at most limit of each, and jobs only up to 20,000 tasks; a bigger one goes alone, in as many calls as it takes. Usage is kept';

create function ledgerq._prune_jobs(p_before timestamptz, p_limit int, out removed int, out begun boolean)
language plpgsql set search_path = '' as $$
declare
  v_old uuid[];
  v_jobs uuid[];
begin
  v_old := array(
    select o.id
    from (
      select j.id, j.total, sum(j.total) over (order by j.removing desc, j.finished_at, j.id) - j.total as tasks_before
      from (
        (select r.id, r.total, r.finished_at, r.removing from ledgerq.job as r where r.removing limit p_limit)
        union
        (select f.id, f.total, f.finished_at, f.removing from ledgerq.job as f where f.finished_at < p_before order by f.finished_at limit p_limit)
      ) as j
    ) as o
    where o.tasks_before = 0 or o.tasks_before + o.total <= 20000
  );
  -- Looked at again under the lock: a retry may have brought it back to life.
  v_jobs := array(
    select j.id from ledgerq.job as j
    where j.id = any (v_old) and (j.removing or j.finished_at < p_before) order by j.id for update skip locked
  );
  removed := ledgerq._remove_jobs(v_jobs, 20000);
  begun := removed < cardinality(v_jobs);
end $$;

-- A job goes whole, with its tasks and events. One that is too big for a call is marked first: half a job could be retried.
create function ledgerq._remove_jobs(p_jobs uuid[], p_most int) returns int
language plpgsql set search_path = '' as $$
declare
  v_removed int;
  v_tasks int;
  v_events int;
begin
  delete from ledgerq.task as t using (
    select x.job_id, x.id from ledgerq.task as x where x.job_id = any (p_jobs) limit p_most
  ) as slice
  where t.job_id = slice.job_id and t.id = slice.id;
  get diagnostics v_tasks = row_count;
  delete from ledgerq.event where id = any (array(select e.id from ledgerq.event as e where e.job_id = any (p_jobs) limit p_most));
  get diagnostics v_events = row_count;
  if v_tasks < p_most and v_events < p_most then
    delete from ledgerq.job where id = any (p_jobs);
    get diagnostics v_removed = row_count;
    return v_removed;
  end if;
  update ledgerq.job as j set removing = true where j.id = any (p_jobs) and not j.removing;
  return 0;
end $$;
comment on function ledgerq._remove_jobs(uuid[], int) is
  'Removes at most p_most tasks and events of these finished jobs, locked for update by the caller, and the jobs once nothing is left -> how many jobs went.';

-- Of jobs that go on for longer than history is kept: what befell their tasks. What tells the job itself stays with it.
create function ledgerq._prune_events(p_before timestamptz, p_limit int) returns int
language plpgsql set search_path = '' as $$
declare
  v_count int;
begin
  delete from ledgerq.event where id = any (array(
    select e.id from ledgerq.event as e where e.at < p_before and (e.task_id is not null or e.job_id is null) limit p_limit
  ));
  get diagnostics v_count = row_count;
  return v_count;
end $$;

create function ledgerq._prune_runs(p_before timestamptz, p_limit int) returns int
language plpgsql set search_path = '' as $$
declare
  v_count int;
begin
  delete from ledgerq.run where id = any (array(
    select r.id from ledgerq.run as r where r.ended_at < p_before order by r.ended_at limit p_limit for update skip locked
  ));
  get diagnostics v_count = row_count;
  return v_count;
end $$;

-- What came in and was dealt with, one way or the other. What still waits to be looked at stays.
create function ledgerq._prune_webhooks(p_before timestamptz, p_limit int) returns int
language plpgsql set search_path = '' as $$
declare
  v_count int;
begin
  delete from ledgerq.webhook_event where id = any (array(
    select w.id from ledgerq.webhook_event as w where w.received_at < p_before and w.status <> 'received'
    order by w.received_at limit p_limit for update skip locked
  ));
  get diagnostics v_count = row_count;
  return v_count;
end $$;

create function ledgerq.delete_job(request jsonb) returns jsonb
language plpgsql set search_path = '' as $$
declare
  v_job ledgerq.job;
begin
  select * into v_job from ledgerq.job as j where j.id = ledgerq._required_uuid(request, 'job') for update;
  if not found then
    return jsonb_build_object('disposition', 'not_found');
  end if;
  if v_job.finished_at is null then
    return jsonb_build_object('disposition', 'not_finished', 'status', v_job.status);
  end if;
  if ledgerq._remove_jobs(array[v_job.id], coalesce(ledgerq._integer(request, 'tasks', 1, 100000), 20000)) = 0 then
    return jsonb_build_object('disposition', 'applied', 'more', true);
  end if;
  -- The trace of a deletion names the job without being part of it.
  insert into ledgerq.event (at, owner_id, kind, actor, data) values (
    ledgerq.clock(), v_job.owner_id, 'deleted', ledgerq._text(request, 'actor', 200),
    jsonb_build_object('job', v_job.id, 'type', v_job.type, 'tenant', v_job.tenant, 'status', v_job.status, 'total', v_job.total)
  );
  return jsonb_build_object('disposition', 'applied', 'more', false);
end $$;
comment on function ledgerq.delete_job(jsonb) is
  '{job, actor, tasks = 20,000} -> {disposition: applied|not_finished|not_found, more}; more: only so many tasks go in one call, its repeat goes on, and so does prune. The repeat of a deletion answers not_found';

revoke execute on all functions in schema ledgerq from public, anon, authenticated;
grant execute on all functions in schema ledgerq to service_role;
insert into ledgerq.schema_version (version, subject) values ('20261122020700', 'upkeep');
