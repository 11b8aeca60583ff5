-- Reading jobs: one, many, their tasks, and what happened to them. Every shape of question has an index; pages are keysets.

create function ledgerq._job_record(j ledgerq.job) returns jsonb
language sql stable set search_path = '' as $$
  select jsonb_build_object(
    'id', j.id, 'tenant', j.tenant, 'owner', j.owner_id, 'project', j.project, 'type', j.type, 'queue', j.queue,
    'priority', ledgerq._priority_name(j.priority), 'status', j.status, 'source', j.source_id, 'dedupe_key', j.dedupe_key,
    'details', j.details, 'sealed', j.sealed, 'external', j.external, 'total', j.total, 'completed', j.completed,
    'failed', j.failed, 'cancelled', j.cancelled, 'max_attempts', j.max_attempts, 'timeout_s', j.timeout_s,
    'deadline_s', j.deadline_s, 'progress', coalesce(j.progress, case when j.total = 1 then (select t.progress from ledgerq.task t where t.job_id = j.id) end), 'result', j.result, 'error', j.error
  ) || jsonb_build_object(
    'due_at', j.due_at, 'deadline_at', j.deadline_at, 'cancel_requested_at', j.cancel_requested_at,
    'cancel_actor', j.cancel_actor, 'cancel_reason', j.cancel_reason, 'created_at', j.created_at, 'started_at', j.started_at,
    'finished_at', j.finished_at, 'run_ids', to_jsonb(j.run_ids), 'sequence', j.sequence
  )
$$;
comment on function ledgerq._job_record(ledgerq.job) is 'A job as it leaves the ledger.';

create function ledgerq.job_get(request jsonb) returns jsonb
language plpgsql stable set search_path = '' as $$
begin
  return (select ledgerq._job_record(j) from ledgerq.job as j where j.id = ledgerq._required_uuid(request, 'job'));
end $$;
comment on function ledgerq.job_get(jsonb) is '{job} -> the job, or null';

-- Many jobs ----------------------------------------------------------------------------------------------------------

create index job_gone_wrong on ledgerq.job (tenant, created_at, id) where gone_wrong;
comment on index ledgerq.job_gone_wrong is 'What people look for among millions that went well.';

create function ledgerq.job_list(request jsonb) returns jsonb
language plpgsql stable set search_path = '' as $$
declare
  v_limit int := coalesce(ledgerq._integer(request, 'limit', 1, 500), 100);
  v_after record := ledgerq._cursor(request, 'after');
  v_statuses text[] := ledgerq._statuses(request, array['pending', 'queued', 'in_progress', 'completed', 'partial', 'failed', 'cancelled']);
  -- Our own constants, and only those that were asked for, so that each shape of question gets its own plan.
  v_conditions text[] := array[
    case when request ->> 'tenant' is not null then 'j.tenant = $2' end,
    case when request ->> 'owner' is not null then 'j.owner_id = $3' end,
    case when request ->> 'source' is not null then 'j.source_id = $4' end,
    case when request ->> 'project' is not null then 'j.project = $5' end,
    case when request ->> 'type' is not null then 'j.type = $6' end,
    case when request ->> 'queue' is not null then 'j.queue = $7' end,
    case when v_statuses is not null then 'j.status = any ($8)' end,
    case when v_statuses <@ array['partial', 'failed', 'cancelled'] then 'j.gone_wrong' end,
    case when v_statuses <@ array['pending', 'queued', 'in_progress'] then 'j.finished_at is null' end,
    case when request ->> 'created_after' is not null then 'j.created_at >= $9' end,
    case when request ->> 'created_before' is not null then 'j.created_at < $10' end,
    case when v_after.at is not null then '(j.created_at, j.id) < ($11, $12)' end
  ];
  v_jobs jsonb;
begin
  execute 'select jsonb_agg(ledgerq._job_record(page.j)) from (select j from ledgerq.job as j '
    || coalesce('where ' || nullif(array_to_string(v_conditions, ' and '), ''), '')
    || ' order by j.created_at desc, j.id desc limit $1) as page'
  into v_jobs
  using v_limit, ledgerq._text(request, 'tenant', 200), ledgerq._uuid(request, 'owner'), ledgerq._uuid(request, 'source'),
    ledgerq._text(request, 'project', 200), ledgerq._text(request, 'type', 63), ledgerq._text(request, 'queue', 63), v_statuses,
    ledgerq._time(request, 'created_after'), ledgerq._time(request, 'created_before'), v_after.at, v_after.id;
  return jsonb_build_object(
    'jobs', coalesce(v_jobs, '[]'),
    'next', case when jsonb_array_length(v_jobs) = v_limit
      then ledgerq._cursor_of((v_jobs -> -1 ->> 'created_at')::timestamptz, (v_jobs -> -1 ->> 'id')::uuid) end
  );
end $$;
comment on function ledgerq.job_list(jsonb) is
  '{tenant?, owner?, project?, source?, type?, status? (one or a list), queue?, created_after?, created_before?, after?, limit (at most 500)} -> {jobs, next}, newest first; tenant '''' is the tenant without a name';

create function ledgerq._cursor(request jsonb, p_field text, out at timestamptz, out id uuid)
language plpgsql stable set search_path = '' as $$
declare
  v_cursor text := ledgerq._text(request, p_field, 100);
begin
  if v_cursor is null then
    return;
  end if;
  if v_cursor !~ '^[0-9]{1,17}_' or not ledgerq._is_uuid(split_part(v_cursor, '_', 2)) then
    perform ledgerq._invalid(p_field, v_cursor, 'the `next` of an earlier page');
  end if;
  at := timestamptz 'epoch' + split_part(v_cursor, '_', 1)::bigint * interval '1 microsecond';
  id := split_part(v_cursor, '_', 2)::uuid;
end $$;

create function ledgerq._micros(p_at timestamptz) returns bigint
language sql immutable set search_path = '' as $$ select (extract(epoch from p_at) * 1000000)::bigint $$;

create function ledgerq._cursor_of(p_at timestamptz, p_id uuid) returns text
language sql immutable set search_path = '' as $$ select ledgerq._micros(p_at) || '_' || p_id $$;

create function ledgerq._statuses(request jsonb, p_known text[]) returns text[]
language plpgsql immutable set search_path = '' as $$
declare
  v_given jsonb := request -> 'status';
  v_statuses text[];
begin
  if v_given is null or v_given = 'null' then
    return null;
  end if;
  v_statuses := array(select jsonb_array_elements_text(case jsonb_typeof(v_given) when 'array' then v_given else jsonb_build_array(v_given) end));
  if not v_statuses <@ p_known then
    perform ledgerq._invalid('status', v_given::text, 'one of ' || array_to_string(p_known, ', ') || ', or a list of them');
  end if;
  return v_statuses;
end $$;

-- Its tasks ------------------------------------------------------------------------------------------------------------

create function ledgerq.job_tasks(request jsonb) returns jsonb
language plpgsql stable set search_path = '' as $$
declare
  v_job uuid := ledgerq._required_uuid(request, 'job');
  v_limit int := coalesce(ledgerq._integer(request, 'limit', 1, 1000), 100);
  v_after bigint := coalesce(ledgerq._number(request, 'after', 0, 9e15), 0);
  v_statuses text[] := ledgerq._statuses(request, array['pending', 'queued', 'completed', 'failed', 'cancelled']);
  v_tasks jsonb;
  v_more boolean;
begin
  -- A page also ends at 4 MiB of results and errors, and has at least one task.
  with page as materialized (
    select t.id, sum(t.bytes) over (order by t.id) - t.bytes < 4194304 as fits
    from (
      select t.id, 400 + coalesce(pg_column_size(t.progress), 0) + coalesce(pg_column_size(t.result), 0) + coalesce(pg_column_size(t.error), 0) as bytes
      from ledgerq.task as t
      where t.job_id = v_job and t.id > v_after and (v_statuses is null or t.status = any (v_statuses))
      order by t.id limit v_limit
    ) as t
  )
  select
    jsonb_agg(jsonb_build_object(
      'id', t.id, 'key', t.key, 'document', t.document_id, 'uri', d.uri, 'status', t.status, 'attempts', t.attempts,
      'crashes', t.crashes, 'losses', t.losses, 'alone', t.alone, 'due_at', t.due_at, 'progress', t.progress,
      'result', t.result, 'error', t.error,
      'created_at', t.created_at, 'started_at', t.started_at, 'finished_at', t.finished_at, 'duration_s', t.duration_s, 'run', t.run_id
    ) order by t.id),
    count(*) = v_limit or exists (select from page as p where not p.fits)
  into v_tasks, v_more
  from page join ledgerq.task as t on t.id = page.id left join ledgerq.document as d on d.id = t.document_id
  where page.fits;
  return jsonb_build_object('tasks', coalesce(v_tasks, '[]'), 'next', case when v_more then v_tasks -> -1 -> 'id' end);
end $$;
comment on function ledgerq.job_tasks(jsonb) is '{job, status?, after?, limit (at most 1,000)} -> {tasks, next} in the order of their ids';

-- Its history ----------------------------------------------------------------------------------------------------------

create function ledgerq.job_history(request jsonb) returns jsonb
language plpgsql stable set search_path = '' as $$
declare
  v_job uuid := ledgerq._required_uuid(request, 'job');
  v_limit int := coalesce(ledgerq._integer(request, 'limit', 1, 10000), 10000);
  v_after text := coalesce(ledgerq._text(request, 'after', 200), '');
  v_events jsonb;
  v_last text;
begin
  select jsonb_agg(page.entry order by page.place), case when count(*) = v_limit then max(page.place) end into v_events, v_last
  from (
    select ledgerq._history_place(h.at, h.tie) as place, h.entry
    from ledgerq._job_entries(v_job) as h
    where ledgerq._history_place(h.at, h.tie) > v_after
    order by 1 limit v_limit
  ) as page;
  return jsonb_build_object('events', coalesce(v_events, '[]'), 'next', v_last);
end $$;
comment on function ledgerq.job_history(jsonb) is
  '{job, after?, limit (at most 10,000)} -> {events: [{at, kind, task?, run?, cause?, actor?, data}], next}, oldest first: the events, and what the columns of its runs tell (run_dispatched, run_started, run_ended)';

create function ledgerq._history_place(p_at timestamptz, p_tie text) returns text
language sql immutable set search_path = '' as $$
  select (lpad(ledgerq._micros(p_at)::text, 17, '0') || p_tie) collate "C"
$$;

create function ledgerq._job_entries(p_job uuid) returns table (at timestamptz, tie text, entry jsonb)
language sql stable set search_path = '' as $$
  select e.at, 'e' || lpad(e.id::text, 19, '0'), jsonb_build_object(
    'at', e.at, 'kind', e.kind, 'task', e.task_id, 'run', e.run_id, 'cause', e.cause, 'actor', e.actor, 'data', e.data
  )
  from ledgerq.event as e
  where e.job_id = p_job
  union all
  select s.at, 'r' || s.step || r.id, jsonb_build_object(
    'at', s.at, 'kind', s.kind, 'task', null, 'run', r.id, 'cause', s.cause, 'actor', s.actor, 'data', s.data
  )
  from ledgerq.job as j
  cross join unnest(j.run_ids) as carried (run)
  join ledgerq.run as r on r.id = carried.run
  cross join lateral (
    values
    (1, 'run_dispatched', r.created_at, null, null, jsonb_build_object('queue', r.queue, 'tasks', r.tasks, 'alone', r.alone)),
    (2, 'run_started', r.started_at, null, null, jsonb_build_object('worker', r.worker, 'host', r.host, 'pid', r.pid)),
    (3, 'run_ended', r.ended_at, coalesce(r.verdict, r.cause, r.status), r.actor,
      jsonb_build_object('status', r.status, 'steps', r.step, 'handed', r.handed, 'cause', r.cause, 'evidence', r.evidence))
  ) as s (step, kind, at, cause, actor, data)
  where j.id = p_job and s.at is not null
$$;

create function ledgerq.job_as_of(request jsonb) returns jsonb
language plpgsql stable set search_path = '' as $$
declare
  v_job ledgerq.job;
  v_at timestamptz := ledgerq._time(request, 'at');
  v_counts record;
begin
  select * into v_job from ledgerq.job as j where j.id = ledgerq._required_uuid(request, 'job');
  if v_at is null then
    perform ledgerq._invalid('at', null, 'a time in ISO 8601 with its zone');
  end if;
  if v_job.id is null or v_at < v_job.created_at then
    return null;
  end if;
  select * into v_counts from ledgerq._counts_as_of(v_job.id, v_at);
  return ledgerq._job_record(v_job) || jsonb_build_object(
    'at', v_at, 'status', coalesce(v_counts.ended_as, ledgerq._status_as_of(v_job, v_at)),
    'total', (select count(*) from ledgerq.task as t where t.job_id = v_job.id and t.created_at <= v_at),
    'completed', v_counts.completed, 'failed', v_counts.failed, 'cancelled', v_counts.cancelled,
    'result', case when v_job.finished_at <= v_at then v_job.result end,
    'error', case when v_job.finished_at <= v_at then v_job.error end,
    'cancel_requested_at', case when v_job.cancel_requested_at <= v_at then v_job.cancel_requested_at end,
    'started_at', case when v_job.started_at <= v_at then v_job.started_at end,
    'finished_at', case when v_counts.ended_as is not null then v_counts.ended_at end,
    'run_ids', to_jsonb(array(
      select r.id from unnest(v_job.run_ids) with ordinality as carried (run, place) join ledgerq.run as r on r.id = carried.run
      where r.created_at <= v_at order by carried.place
    ))
  );
end $$;
comment on function ledgerq.job_as_of(jsonb) is
  '{job, at} -> the job as it was at that moment, or null before it existed. Counts and ends come from the events; whether an unfinished job was queued or in progress is inferred from its runs; details, progress and sequence are those of now';

create function ledgerq._counts_as_of(
  p_job uuid, p_at timestamptz, out completed int, out failed int, out cancelled int, out ended_as text, out ended_at timestamptz
)
language plpgsql stable set search_path = '' as $$
declare
  v_event record;
begin
  completed := 0;
  failed := 0;
  cancelled := 0;
  for v_event in
    select e.kind, e.at, e.data from ledgerq.event as e
    where e.job_id = p_job and e.at <= p_at and e.kind in ('progressed', 'ended', 'retried')
    order by e.id
  loop
    case v_event.kind
      when 'progressed' then
        completed := completed + (v_event.data ->> 'completed')::int;
        failed := failed + (v_event.data ->> 'failed')::int;
        cancelled := cancelled + (v_event.data ->> 'cancelled')::int;
      when 'ended' then
        completed := (v_event.data ->> 'completed')::int;
        failed := (v_event.data ->> 'failed')::int;
        cancelled := (v_event.data ->> 'cancelled')::int;
        ended_as := v_event.data ->> 'status';
        ended_at := v_event.at;
      else  -- what had failed or been cancelled waits again
        failed := 0;
        cancelled := 0;
        ended_as := null;
    end case;
  end loop;
end $$;

create function ledgerq._status_as_of(p_job ledgerq.job, p_at timestamptz) returns text
language sql stable set search_path = '' as $$
  select case
    when p_at >= ledgerq.clock() and p_job.finished_at is null then p_job.status
    when p_job.external and p_job.started_at <= p_at then 'in_progress'
    when coalesce(bool_or(r.started_at <= p_at and coalesce(r.ended_at > p_at, true)), false) then 'in_progress'
    when coalesce(bool_or(r.created_at <= p_at and coalesce(coalesce(r.started_at, r.ended_at) > p_at, true)), false) then 'queued'
    else 'pending'
  end
  from unnest(p_job.run_ids) as carried (run) join ledgerq.run as r on r.id = carried.run
$$;

revoke execute on all functions in schema ledgerq from public, anon, authenticated;
grant execute on all functions in schema ledgerq to service_role;
insert into ledgerq.schema_version (version, subject) values ('20261122020400', 'reads');
