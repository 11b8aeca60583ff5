-- Forgetting: what finished long ago, and what somebody wants gone. Unfinished work is never touched.

create index event_by_time on ledgerq.event using brin (at) with (pages_per_range = 32, autosummarize = on);
comment on index ledgerq.event_by_time is 'For prune alone: events come in the order of time, so this index is a few pages.';

create function ledgerq.prune(request jsonb) returns jsonb
language plpgsql set search_path = '' as $$
declare
  v_age interval := ledgerq._seconds(ledgerq._number(request, 'finished_before_s', 0, 3.2e9));
  v_limit int := coalesce(ledgerq._integer(request, 'limit', 1, 10000), 1000);
  v_before timestamptz := ledgerq.clock() - v_age;
  v_jobs int;
  v_events int;
  v_runs int;
begin
  if v_age is null then
    perform ledgerq._invalid('finished_before_s', null, 'a number of seconds');
  end if;
  v_jobs := ledgerq._prune_jobs(v_before, v_limit);
  v_events := ledgerq._prune_events(v_before, v_limit);
  v_runs := ledgerq._prune_runs(v_before, v_limit);
  return jsonb_build_object(
    'jobs', v_jobs, 'events', v_events, 'runs', v_runs, 'usage', 0,
    -- Only when something went: what others hold locked is no reason to come back at once.
    'more', v_events = v_limit or v_runs = v_limit
      or (v_jobs > 0 and exists (select from ledgerq.job as j where j.finished_at < v_before))
  );
end $$;
comment on function ledgerq.prune(jsonb) is
  '{finished_before_s, limit = 1,000} -> {jobs, events, runs, usage, more}. A batch: at most limit of each, and jobs only up to 20,000 tasks (one bigger job goes alone). Usage is kept';

-- A job goes whole, with its tasks and events: half a job could be retried.
create function ledgerq._prune_jobs(p_before timestamptz, p_limit int) returns int
language plpgsql set search_path = '' as $$
declare
  v_old uuid[];
  v_jobs uuid[];
begin
  v_old := array(
    select o.id
    from (
      select j.id, j.finished_at, sum(j.total) over (order by j.finished_at, j.id) - j.total as tasks_before
      from (select * from ledgerq.job as f where f.finished_at < p_before order by f.finished_at limit p_limit) as j
    ) as o
    where o.tasks_before < 20000
  );
  -- Looked at again under the lock: a retry may have brought it back to life.
  v_jobs := array(
    select j.id from ledgerq.job as j where j.id = any (v_old) and j.finished_at < p_before order by j.id for update skip locked
  );
  delete from ledgerq.event where job_id = any (v_jobs);
  delete from ledgerq.job where id = any (v_jobs);
  return cardinality(v_jobs);
end $$;

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
  delete from ledgerq.event where job_id = v_job.id;
  delete from ledgerq.job where id = v_job.id;
  -- The trace of a deletion names the job without being part of it.
  insert into ledgerq.event (at, owner_id, kind, actor, data) values (
    ledgerq.clock(), v_job.owner_id, 'deleted', ledgerq._text(request, 'actor', 200),
    jsonb_build_object('job', v_job.id, 'type', v_job.type, 'tenant', v_job.tenant, 'status', v_job.status, 'total', v_job.total)
  );
  return jsonb_build_object('disposition', 'applied');
end $$;
comment on function ledgerq.delete_job(jsonb) is '{job, actor} -> {disposition: applied|not_finished|not_found}; the repeat of a deletion answers not_found';

revoke execute on all functions in schema ledgerq from public, anon, authenticated;
grant execute on all functions in schema ledgerq to service_role;
insert into ledgerq.schema_version (version, subject) values ('20261122020700', 'upkeep');
