-- create_jobs, add_tasks, seal_job.

create function ledgerq._check_job(p_job jsonb, p_place int) returns void
language plpgsql set search_path = ''
as $$
declare
  v_at text := format('jobs[%s].', p_place);
  v_external boolean;
  v_tasks jsonb := coalesce(nullif(p_job -> 'tasks', 'null'), '[]');
begin
  if jsonb_typeof(p_job) <> 'object' then
    perform ledgerq._invalid(format('jobs[%s]', p_place), p_job::text, 'an object');
  end if;
  -- The readers name the field alone; the place is added here, and only when something is wrong.
  perform ledgerq._required_uuid(p_job, 'id'), ledgerq._uuid(p_job, 'owner'), ledgerq._uuid(p_job, 'source'),
    ledgerq._name(p_job, 'type'), ledgerq._text(p_job, 'tenant'), ledgerq._text(p_job, 'project'), ledgerq._text(p_job, 'dedupe_key'),
    ledgerq._time(p_job, 'due_at'), ledgerq._number(p_job, 'delay_s', 0, 31536000),
    ledgerq._integer(p_job, 'max_attempts', 1, 1000), ledgerq._number(p_job, 'timeout_s', 0.001, 604800),
    ledgerq._number(p_job, 'deadline_s', 0.001, 31536000), ledgerq._flag(p_job, 'sealed', true),
    ledgerq._object(p_job, 'details', 65536);
  v_external := ledgerq._flag(p_job, 'external', false);
  if coalesce(p_job ->> 'priority', 'normal') not in ('low', 'normal', 'high', 'urgent') then
    perform ledgerq._invalid('priority', p_job ->> 'priority', 'one of low, normal, high, urgent');
  end if;
  if jsonb_typeof(v_tasks) <> 'array' then
    perform ledgerq._invalid('tasks', v_tasks::text, 'a list');
  end if;
  if v_external and (jsonb_array_length(v_tasks) > 1 or coalesce(v_tasks -> 0 ->> 'key', 'external') <> 'external') then
    perform ledgerq._invalid('tasks', (v_tasks -> 0 ->> 'key'), 'empty: an external job has its one task of itself');
  end if;
  if v_external and not ledgerq._flag(p_job, 'sealed', true) then
    perform ledgerq._invalid('sealed', 'false', 'true for an external job');
  end if;
exception when sqlstate 'LQ001' or sqlstate 'LQ002' then
  raise exception using errcode = sqlstate, message = v_at || sqlerrm,
    hint = 'Nothing was created. Correct this job and send the call again.';
end $$;

create function ledgerq._check_tasks(p_jobs jsonb, p_where text) returns void
language plpgsql set search_path = ''
as $$
declare
  v record;
  v_at text;
begin
  select j.place - 1 as job, t.place - 1 as place, t.task, t.task ->> 'key' as key, octet_length((t.task -> 'payload')::text) as bytes into v
  from jsonb_array_elements(p_jobs) with ordinality j(job, place)
  cross join lateral jsonb_array_elements(nullif(j.job -> 'tasks', 'null')) with ordinality t(task, place)
  where jsonb_typeof(t.task) <> 'object'
     or jsonb_typeof(t.task -> 'key') is distinct from 'string' or length(t.task ->> 'key') not between 1 and 200
     or octet_length((t.task -> 'payload')::text) > 65536
     or (t.task ->> 'document') !~* '^[0-9a-f]{8}-?[0-9a-f]{4}-?[0-9a-f]{4}-?[0-9a-f]{4}-?[0-9a-f]{12}$'
  limit 1;
  if not found then
    return;
  end if;
  v_at := format(p_where, v.job) || format('[%s]', v.place);
  if jsonb_typeof(v.task) <> 'object' then
    perform ledgerq._invalid(v_at, v.task::text, 'an object');
  elsif v.bytes > 65536 then
    perform ledgerq._too_large(v_at || '.payload', v.bytes, 65536, 'bytes', 'Keep what is large elsewhere, and name it in the payload.');
  elsif jsonb_typeof(v.task -> 'key') is distinct from 'string' or length(v.key) not between 1 and 200 then
    perform ledgerq._invalid(v_at || '.key', v.key, 'a text of 1 to 200 characters');
  end if;
  perform ledgerq._invalid(v_at || '.document', v.task ->> 'document', 'a uuid');
end $$;

create function ledgerq._unknown(p_what text, p_names text[]) returns void
language plpgsql set search_path = ''
as $$
begin
  raise exception using
    errcode = 'LQ005',
    message = format('%s: unknown to its tenant, or deleted: %s%s', p_what, array_to_string(p_names[1:5], ', '),
                     case when cardinality(p_names) > 5 then format(' and %s more', cardinality(p_names) - 5) else '' end),
    hint = format('Save the %s first, under the same tenant.', p_what);
end $$;

create function ledgerq._check_request_size(request jsonb) returns void
language plpgsql immutable set search_path = ''
as $$
begin
  -- The stored form is a cheap first look; only what may be over is written out.
  if pg_column_size(request) > 1048576 and octet_length(request::text) > 4194304 then
    perform ledgerq._too_large('request', octet_length(request::text), 4194304, 'bytes', 'Send it in several calls.');
  end if;
end $$;

create function ledgerq._insert_tasks(p_jobs jsonb, p_ids uuid[], p_now timestamptz) returns int
language plpgsql set search_path = ''
as $$
declare
  v_added int;
begin
  insert into ledgerq.task (job_id, key, owner_id, document_id, payload, payload_bytes, queue, tenant, priority, external, due_at, created_at)
  select g.id, g.key, j.owner_id, g.document, nullif(g.payload, 'null'), coalesce(octet_length(g.payload::text), 0), j.queue, j.tenant, j.priority,
         j.external, case when j.due_at > p_now then j.due_at end, p_now
  from (
    select distinct on (f.id, t.task ->> 'key')
      f.id, f.place, t.nth, t.task ->> 'key' as key, (t.task ->> 'document')::uuid as document, t.task -> 'payload' as payload
    from (select distinct on (x.id) x.id, x.place, x.tasks from jsonb_to_recordset(p_jobs) x(id uuid, place int, tasks jsonb)
          where x.id = any(p_ids) order by x.id, x.place) f
    cross join lateral jsonb_array_elements(f.tasks) with ordinality t(task, nth)
    order by f.id, t.task ->> 'key', t.nth
  ) g
  join ledgerq.job j on j.id = g.id
  order by g.place, g.nth
  on conflict (job_id, key) do nothing;
  get diagnostics v_added = row_count;
  return v_added;
end $$;
comment on function ledgerq._insert_tasks(jsonb, uuid[], timestamptz) is
  'The tasks of these jobs out of [{id, place, tasks}] → how many were new. A key that the job has already is left as it is.';

create function ledgerq._check_documents(p_jobs jsonb) returns void
language plpgsql stable set search_path = ''
as $$
declare
  v_unknown text[];
begin
  with named as materialized (
    select j.id as job, coalesce(j.tenant, '') as tenant, t.task ->> 'key' as key, (t.task ->> 'document')::uuid as document
    from jsonb_to_recordset(p_jobs) j(id uuid, tenant text, tasks jsonb)
    cross join lateral jsonb_array_elements(j.tasks) t(task)
    where t.task ->> 'document' is not null
  ), missing as materialized (
    select n.job, n.key, n.document from named n
    where (select d.tenant = n.tenant and d.deleted_at is null from ledgerq.document d where d.id = n.document) is not true
  )
  select array_agg(distinct m.document::text) into v_unknown
  from missing m
  -- A repeated call is answered as it was, also when the document was deleted since.
  where (select true from ledgerq.task x where x.job_id = m.job and x.key = m.key) is null;
  if v_unknown is not null then
    perform ledgerq._unknown('document', v_unknown);
  end if;
  select array_agg(distinct j.source::text) into v_unknown
  from jsonb_to_recordset(p_jobs) j(tenant text, source uuid)
  where j.source is not null and not exists (select from ledgerq.source s where s.id = j.source and s.tenant = coalesce(j.tenant, ''));
  if v_unknown is not null then
    perform ledgerq._unknown('source', v_unknown);
  end if;
end $$;

create function ledgerq._check_create(request jsonb) returns jsonb
language plpgsql set search_path = ''
as $$
declare
  v_jobs jsonb := ledgerq._array(request, 'jobs', 1000);
  v_tasks bigint;
begin
  perform ledgerq._check_request_size(request);
  -- Plain jobs are told at a glance; only the others are looked at closely, field by field.
  perform ledgerq._check_job(x.e, x.o::int - 1)
  from jsonb_array_elements(v_jobs) with ordinality x(e, o)
  where not (jsonb_typeof(x.e) = 'object' and coalesce(
    x.e ->> 'id' ~ '^[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}$'
    and x.e ->> 'type' ~ '^[a-z0-9][a-z0-9_.-]{0,62}$'
    and coalesce(jsonb_typeof(x.e -> 'tenant') = 'string' and length(x.e ->> 'tenant') <= 200, true)
    and coalesce(x.e ->> 'priority', 'normal') in ('low', 'normal', 'high', 'urgent')
    and coalesce(jsonb_typeof(x.e -> 'sealed'), 'null') in ('null', 'boolean')
    and coalesce(x.e -> 'external', 'null') in ('null', 'false')
    and coalesce(jsonb_typeof(x.e -> 'tasks'), 'array') = 'array'
    and coalesce(x.e -> 'details', 'null') in ('null', '{}')
    and coalesce(x.e ->> 'owner', x.e ->> 'source', x.e ->> 'project', x.e ->> 'dedupe_key', x.e ->> 'due_at', x.e ->> 'delay_s',
                 x.e ->> 'max_attempts', x.e ->> 'timeout_s', x.e ->> 'deadline_s') is null, false))
  order by x.o;
  select sum(jsonb_array_length(nullif(e -> 'tasks', 'null'))) into v_tasks from jsonb_array_elements(v_jobs) e;
  if v_tasks > 5000 then
    perform ledgerq._too_large('tasks', v_tasks, 5000, 'tasks in one call', 'Create the job unsealed, and add the rest with add_tasks.');
  end if;
  perform ledgerq._check_tasks(v_jobs, 'jobs[%s].tasks');
  perform ledgerq._queue(q.name) from (select distinct e ->> 'queue' as name from jsonb_array_elements(v_jobs) e) q;
  v_jobs := (
    select jsonb_agg(x.e || jsonb_build_object(
        'tasks', case when (nullif(x.e -> 'external', 'null'))::boolean then '[{"key": "external"}]' else coalesce(nullif(x.e -> 'tasks', 'null'), '[]') end,
        'place', x.o, 'digest', encode(sha256(convert_to(x.e::text, 'UTF8')), 'hex')) order by x.o)
    from jsonb_array_elements(v_jobs) with ordinality x(e, o));
  v_jobs := coalesce(v_jobs, '[]');
  perform ledgerq._check_documents(v_jobs);
  return v_jobs;
end $$;
comment on function ledgerq._check_create(jsonb) is 'The jobs of a request, checked, each with its place and the digest of what was sent.';

create function ledgerq._insert_jobs(p_jobs jsonb, p_actor text, p_now timestamptz) returns uuid[]
language plpgsql set search_path = ''
as $$
declare
  v_ids uuid[];
begin
  with given as (
    select distinct on (j.id) j.*, coalesce(j.tenant, '') as of_tenant, coalesce(j.due_at, p_now + make_interval(secs => j.delay_s)) as due
    from jsonb_to_recordset(p_jobs) j(
      id uuid, place int, digest text, tenant text, owner uuid, project text, type text, queue text, priority text, source uuid,
      details jsonb, tasks jsonb, dedupe_key text, due_at timestamptz, delay_s double precision, max_attempts int,
      timeout_s double precision, deadline_s double precision, sealed boolean, external boolean)
    order by j.id, j.place
  ), made as (
    insert into ledgerq.job as n (
      id, tenant, owner_id, project, type, queue, priority, source_id, details, dedupe_key, request_digest, sealed, external, total,
      max_attempts, timeout_s, deadline_s, due_at, deadline_at, created_at)
    select g.id, g.of_tenant, g.owner, g.project, g.type, g.queue,
      coalesce(array_position(array['low', 'normal', 'high', 'urgent'], g.priority) - 1, 1), g.source, coalesce(g.details, '{}'),
      g.dedupe_key, decode(g.digest, 'hex'), coalesce(g.sealed, true), coalesce(g.external, false),
      (select count(distinct t.task ->> 'key') from jsonb_array_elements(g.tasks) t(task)),
      coalesce(g.max_attempts, q.max_attempts), coalesce(g.timeout_s, q.timeout_s), coalesce(g.deadline_s, q.deadline_s), g.due,
      greatest(p_now, g.due) + make_interval(secs => coalesce(g.deadline_s, q.deadline_s)), p_now
    from given g join ledgerq.queue q on q.name = g.queue
    -- Two creators wait for each other's dedupe keys in one order, so never in a circle.
    order by g.of_tenant, g.type, g.dedupe_key nulls first, g.id
    on conflict do nothing
    returning n.*
  ), noted as (
    insert into ledgerq.event (at, job_id, owner_id, kind, actor, data)
    select p_now, m.id, m.owner_id, 'created', p_actor, jsonb_build_object('total', m.total, 'sealed', m.sealed)
    from made m order by m.id
  )
  select coalesce(array_agg(m.id), '{}') into v_ids from made m;
  return v_ids;
end $$;
comment on function ledgerq._insert_jobs(jsonb, text, timestamptz) is 'Inserts what nothing stands in the way of, and says which those were.';

create function ledgerq._dispositions(p_jobs jsonb) returns jsonb
language plpgsql stable set search_path = ''
as $$
begin
  return (
    select coalesce(jsonb_agg(jsonb_build_object(
        'place', g.place, 'id', g.id, 'job', coalesce(j.id, h.id),
        'disposition', case
          when j.id is not null and j.request_digest = decode(g.digest, 'hex') then 'applied'
          when j.id is not null then 'conflict'
          else 'duplicate'
        end)), '[]')
    from jsonb_to_recordset(p_jobs) g(id uuid, place int, digest text, tenant text, type text, dedupe_key text)
    left join ledgerq.job j on j.id = g.id
    left join ledgerq.job h on j.id is null and h.dedupe_key = g.dedupe_key and h.tenant = coalesce(g.tenant, '') and h.type = g.type
      and h.finished_at is null
    where coalesce(j.id, h.id) is not null
  );
end $$;
comment on function ledgerq._dispositions(jsonb) is 'What stands for each of these jobs now; nothing is said of one for which nothing stands.';

create function ledgerq._create_jobs(p_jobs jsonb, p_actor text, p_now timestamptz) returns jsonb
language plpgsql set search_path = ''
as $$
declare
  v_left jsonb := p_jobs;
  v_known jsonb;
  v_new uuid[];
  v_done jsonb := '[]';
begin
  -- Whoever held the id or the key may vanish between the insert and the look: then it is tried again.
  for i in 1..3 loop
    v_new := ledgerq._insert_jobs(v_left, p_actor, p_now);
    perform ledgerq._insert_tasks(v_left, v_new, p_now);
    perform ledgerq._settle(array_agg(j.id), array_agg(0), array_agg(0), array_agg(0), null, p_actor, p_now)
    from ledgerq.job j where j.id = any(v_new) and j.sealed and j.total = 0;
    v_known := ledgerq._dispositions(v_left);
    v_done := v_done || v_known;
    exit when jsonb_array_length(v_known) = jsonb_array_length(v_left);
    v_left := (
      select jsonb_agg(e) from jsonb_array_elements(v_left) e
      where not exists (select from jsonb_array_elements(v_known) k where k -> 'place' = e -> 'place'));
    if i = 3 then
      raise serialization_failure using message = 'ids or keys of these jobs kept changing hands', hint = 'Repeat the call.';
    end if;
  end loop;
  return (select coalesce(jsonb_agg(d - 'place' order by (d -> 'place')::int), '[]') from jsonb_array_elements(v_done) d);
end $$;

create function ledgerq.create_jobs(request jsonb) returns jsonb
language plpgsql set search_path = ''
as $$
declare
  v_jobs jsonb := ledgerq._check_create(request);
  v_answer jsonb;
  v_sent jsonb := '{"runs": [], "busy": []}';
begin
  v_answer := ledgerq._create_jobs(v_jobs, ledgerq._text(request, 'actor'), ledgerq.clock());
  if ledgerq._flag(request, 'dispatch', true) then
    v_sent := ledgerq._dispatch_all(array(select e ->> 'queue' from jsonb_array_elements(v_jobs) e));
  end if;
  return jsonb_build_object('jobs', v_answer) || v_sent;
end $$;
comment on function ledgerq.create_jobs(jsonb) is
  '{jobs, dispatch?, actor?} → {jobs: [{id, disposition: applied|conflict|duplicate, job}], runs, busy}. At most 1,000 jobs, 5,000 tasks, 4 MiB.';

create function ledgerq.add_tasks(request jsonb) returns jsonb
language plpgsql set search_path = ''
as $$
declare
  v_id uuid := ledgerq._required_uuid(request, 'job');
  v_tasks jsonb := ledgerq._array(request, 'tasks', 5000);
  j ledgerq.job;
  v_now timestamptz;
  v_added int;
  v_sent jsonb := '{"runs": []}';
begin
  perform ledgerq._check_request_size(request), ledgerq._check_tasks(jsonb_build_array(jsonb_build_object('tasks', v_tasks)), 'tasks');
  select * into j from ledgerq.job x where x.id = v_id for no key update;
  if not found then
    return '{"disposition": "not_found", "added": 0, "total": 0, "runs": []}';
  end if;
  if j.sealed then
    return jsonb_build_object('disposition', 'sealed', 'added', 0, 'total', j.total, 'runs', '[]'::jsonb);
  end if;
  perform ledgerq._check_documents(jsonb_build_array(jsonb_build_object('id', v_id, 'tenant', j.tenant, 'tasks', v_tasks)));
  v_now := ledgerq.clock();
  v_added := ledgerq._insert_tasks(jsonb_build_array(jsonb_build_object('id', v_id, 'place', 1, 'tasks', v_tasks)), array[v_id], v_now);
  update ledgerq.job x set total = x.total + v_added where x.id = v_id;
  if v_added > 0 and ledgerq._flag(request, 'dispatch', true) then
    v_sent := ledgerq._dispatch(j.queue, true);
  end if;
  return jsonb_build_object('disposition', 'applied', 'added', v_added, 'total', j.total + v_added, 'runs', v_sent -> 'runs');
end $$;
comment on function ledgerq.add_tasks(jsonb) is
  '{job, tasks, dispatch?} → {disposition: applied|sealed|not_found, added, total, runs}. A key that the job has already is not added again.';

create function ledgerq.seal_job(request jsonb) returns jsonb
language plpgsql set search_path = ''
as $$
declare
  v_id uuid := ledgerq._required_uuid(request, 'job');
  v_sealed boolean;
begin
  select x.sealed into v_sealed from ledgerq.job x where x.id = v_id for no key update;
  if not found then
    return '{"disposition": "not_found", "status": null}';
  end if;
  if not v_sealed then
    update ledgerq.job x set sealed = true where x.id = v_id;
    perform ledgerq._settle(array[v_id], array[0], array[0], array[0], null, ledgerq._text(request, 'actor'), ledgerq.clock());
  end if;
  return jsonb_build_object('disposition', 'applied', 'status', (select x.status from ledgerq.job x where x.id = v_id));
end $$;
comment on function ledgerq.seal_job(jsonb) is '{job} → {disposition: applied|not_found, status}. No more tasks; ends the job if all of them are done.';

revoke execute on all functions in schema ledgerq from public, anon, authenticated;
grant execute on all functions in schema ledgerq to service_role;
insert into ledgerq.schema_version (version, subject) values ('20261122010500', 'create');
