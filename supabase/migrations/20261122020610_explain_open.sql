-- What `explain` says of jobs that are open: who holds them, or what they wait for.

create function ledgerq._explain_cancel(j ledgerq.job, p_now timestamptz) returns jsonb
language plpgsql stable set search_path = '' as $$
declare
  v_held record := ledgerq._held_of(j.id);
begin
  if j.cancel_requested_at is null then
    return null;
  end if;
  if exists (select from ledgerq.task as t where t.job_id = j.id and t.status = 'pending') then
    return ledgerq._explanation(j, 'cancelling', format(
      'Cancel was requested%s %s ago; %s of %s are cancelled so far, the others follow in slices and nothing more of it starts.',
      ' by ' || j.cancel_actor, ledgerq._span(j.cancel_requested_at, p_now), j.cancelled, ledgerq._count(j.total, 'task', 'tasks')
    ), 'Wait; if this stays so, cancel it again or start a steward: `ledgerq steward`.',
    jsonb_build_object('requested_at', j.cancel_requested_at, 'actor', j.cancel_actor, 'reason', j.cancel_reason, 'run', v_held.run));
  end if;
  return ledgerq._explanation(j, 'cancel_requested', format(
    'Cancel was requested%s %s ago; %s.', ' by ' || j.cancel_actor, ledgerq._span(j.cancel_requested_at, p_now),
    case when v_held.tasks > 0
      then format('worker %s still holds %s and is told at its next heartbeat', coalesce(v_held.worker, 'unknown'), ledgerq._count(v_held.tasks, 'task', 'tasks'))
      else 'what is left of it ends with the next look of the status sync' end
  ), format(
    'Wait: a task that does not stop is killed %s s after its worker was told.',
    (select q.cancel_grace_s from ledgerq.queue as q where q.name = j.queue)
  ), jsonb_build_object('requested_at', j.cancel_requested_at, 'actor', j.cancel_actor, 'reason', j.cancel_reason, 'run', v_held.run));
end $$;

-- What workers hold of it: how much, and the worker that has been silent longest.
create function ledgerq._held_of(p_job uuid, out tasks bigint, out run uuid, out worker text)
language sql stable set search_path = '' as $$
  select count(*), (array_agg(r.id order by r.heartbeat_at))[1], (array_agg(r.worker order by r.heartbeat_at))[1]
  from ledgerq.task as t join ledgerq.run as r on r.id = t.run_id
  where t.job_id = p_job and t.status = 'queued' and r.status = 'running' and t.seq <= r.handed
$$;

create function ledgerq._explain_external(j ledgerq.job, p_now timestamptz) returns jsonb
language plpgsql stable set search_path = '' as $$
begin
  if not j.external then
    return null;
  end if;
  return ledgerq._explanation(j, 'external', case when j.status = 'in_progress'
    then format('The %s is under way outside since %s; its result is waited for until %s.', j.type, ledgerq._at(j.started_at), ledgerq._at(j.deadline_at))
    else format('Waiting for the %s outside to report that it began; nothing was heard in %s.', j.type, ledgerq._span(j.created_at, p_now))
  end, 'Whoever does the work reports it (update_job, complete_job, fail_job); if that cannot come any more, fail or cancel the job.',
  jsonb_build_object('deadline_at', j.deadline_at, 'progress', j.progress));
end $$;

create function ledgerq._explain_deadline(j ledgerq.job, p_now timestamptz) returns jsonb
language plpgsql stable set search_path = '' as $$
begin
  if j.deadline_at > p_now or not exists (select from ledgerq.task as t where t.job_id = j.id and t.status = 'pending') then
    return null;
  end if;
  return ledgerq._explanation(j, 'deadline_passed', format(
    'Its deadline passed at %s: what still waits fails at the steward''s next look.', ledgerq._at(j.deadline_at)
  ), 'If this stays so, start a steward: `ledgerq steward`.', jsonb_build_object('deadline_at', j.deadline_at));
end $$;

create function ledgerq._explain_held(j ledgerq.job, p_now timestamptz) returns jsonb
language plpgsql stable set search_path = '' as $$
declare
  v_held record := ledgerq._held_of(j.id);
  r ledgerq.run;
  v_beat double precision;
  v_evidence jsonb;
begin
  if v_held.tasks = 0 then
    return null;
  end if;
  select * into r from ledgerq.run as x where x.id = v_held.run;
  select q.heartbeat_s into v_beat from ledgerq.queue as q where q.name = r.queue;
  v_evidence := jsonb_build_object(
    'run', r.id, 'worker', r.worker, 'host', r.host, 'pid', r.pid, 'held', v_held.tasks, 'started_at', r.started_at,
    'heartbeat_at', r.heartbeat_at, 'heartbeat_age_s', extract(epoch from p_now - r.heartbeat_at), 'lease_until', r.lease_until,
    'suspected_at', r.suspected_at
  );
  if r.suspected_at is not null or r.lease_until < p_now then
    return ledgerq._explanation(j, 'suspected', format(
      'Worker %s has not been heard of for %s and its lease has ended: the status sync takes its %s back%s.', ledgerq._worker(r),
      ledgerq._span(r.heartbeat_at, p_now), ledgerq._count(v_held.tasks, 'task', 'tasks'), case when r.suspected_at is null then '' else ' at its next look' end
    ), 'Nothing is lost. If this stays so, start a steward: `ledgerq steward`.', v_evidence);
  end if;
  return ledgerq._explanation(j, 'running', format(
    'Worker %s has %s of it in hand since %s; its last heartbeat was %s ago%s.', ledgerq._worker(r), ledgerq._count(v_held.tasks, 'task', 'tasks'),
    ledgerq._at(r.started_at), ledgerq._span(r.heartbeat_at, p_now),
    case when p_now - r.heartbeat_at > ledgerq._seconds(2 * v_beat) then ', which is late' else '' end
  ), case when p_now - r.heartbeat_at > ledgerq._seconds(2 * v_beat)
    then 'Wait until its lease ends at ' || ledgerq._at(r.lease_until) || '; then its tasks go to another worker.'
  end, v_evidence);
end $$;

create function ledgerq._worker(r ledgerq.run) returns text
language sql immutable set search_path = '' as $$
  select coalesce(r.worker, 'unknown') || coalesce(' (' || concat_ws(', ', 'host ' || r.host, 'process ' || r.pid) || ')', '')
$$;

create function ledgerq._explain_pause(j ledgerq.job) returns jsonb
language plpgsql stable set search_path = '' as $$
declare
  q ledgerq.queue := ledgerq._queue(j.queue);
begin
  if q.paused_at is null or not exists (select from ledgerq.task as t where t.job_id = j.id and t.status in ('pending', 'queued')) then
    return null;
  end if;
  return ledgerq._explanation(j, 'paused', format(
    'Queue %s is paused since %s%s: nothing more of it starts.', q.name, ledgerq._at(q.paused_at), ' by ' || q.paused_by
  ), 'Resume the queue (resume_queue).', jsonb_build_object('paused_at', q.paused_at, 'paused_by', q.paused_by));
end $$;

-- Dispatched and not started, or behind others in the run of a busy worker.
create function ledgerq._explain_in_redis(j ledgerq.job, p_now timestamptz) returns jsonb
language plpgsql stable set search_path = '' as $$
declare
  r ledgerq.run;
  v_seen record;
begin
  select x.* into r from ledgerq.task as t join ledgerq.run as x on x.id = t.run_id
  where t.job_id = j.id and t.status = 'queued' order by x.status desc, x.created_at limit 1;
  if not found then
    return null;
  end if;
  if r.status = 'running' then
    return ledgerq._explanation(j, 'behind', format(
      'Its tasks come next in the run that worker %s is working on since %s.', ledgerq._worker(r), ledgerq._at(r.started_at)
    ), null, jsonb_build_object('run', r.id, 'worker', r.worker, 'heartbeat_at', r.heartbeat_at));
  end if;
  select
    count(*) filter (where x.status = 'running') as running,
    count(*) filter (where x.status = 'dispatched' and (x.created_at, x.id) < (r.created_at, r.id)) as before,
    (select l.started_at from ledgerq.run as l where l.queue = r.queue and l.started_at is not null order by l.started_at desc limit 1) as last_started_at
  into v_seen
  from ledgerq.run as x where x.queue = r.queue and x.status in ('dispatched', 'running');
  return coalesce(
    ledgerq._explain_misfire(j, r),
    ledgerq._explain_dispatched(j, r, v_seen.running, v_seen.before, v_seen.last_started_at, p_now));
end $$;

-- A worker took an earlier run of it and could not start it: what RQ said of that is in the verdict's evidence.
create function ledgerq._explain_misfire(j ledgerq.job, r ledgerq.run) returns jsonb
language plpgsql stable set search_path = '' as $$
declare
  v_failed ledgerq.run;
begin
  select x.* into v_failed from ledgerq.run as x
  where x.id = any(j.run_ids[1:10]) and x.status = 'revoked' and x.evidence ->> 'rule' = 'misfired'
    and not exists (select from ledgerq.run as y where y.id = any(j.run_ids[1:10]) and y.started_at > x.ended_at)
  order by x.ended_at desc limit 1;
  if not found then
    return null;
  end if;
  return ledgerq._explanation(j, 'misfired', format(
    'Dispatched again as run %s, because a worker took run %s and could not start it: %s.', r.id, v_failed.id,
    coalesce(v_failed.evidence ->> 'rq_error', 'RQ calls it ' || (v_failed.evidence ->> 'rq_status'))
  ), 'Mend that worker or stop it; `ledgerq doctor` looks at every worker that lives.',
  jsonb_build_object('run', r.id, 'misfired', v_failed.id, 'rq', v_failed.evidence));
end $$;

create function ledgerq._explain_dispatched(
  j ledgerq.job, r ledgerq.run, p_running bigint, p_before bigint, p_last_started_at timestamptz, p_now timestamptz
) returns jsonb
language plpgsql stable set search_path = '' as $$
declare
  v_sent text := format('Dispatched %s ago as run %s and waiting in Redis for a worker of queue %s', ledgerq._span(r.created_at, p_now), r.id, r.queue);
  v_start text := format('Start a worker: `rq worker -S json -c ledgerq.rq_settings %s`.', r.queue);
  v_evidence jsonb := jsonb_build_object(
    'run', r.id, 'dispatched_at', r.created_at, 'waiting_s', extract(epoch from p_now - r.created_at), 'running', p_running,
    'runs_before', p_before, 'last_started_at', p_last_started_at
  );
begin
  if p_last_started_at is null then
    return ledgerq._explanation(j, 'no_worker', v_sent || ': no worker has ever started a run of this queue.',
      v_start || ' If one is running, `ledgerq doctor` tells whether it reads JSON and listens to this queue.', v_evidence);
  end if;
  if p_running > 0 then
    return ledgerq._explanation(j, 'workers_busy', v_sent || format(
      ': %s busy, %s before it.', ledgerq._count(p_running, 'worker is', 'workers are'), ledgerq._count(p_before, 'run is', 'runs are')
    ), 'Wait, or start more workers.', v_evidence);
  end if;
  if p_now - greatest(r.created_at, p_last_started_at) < interval '10 seconds' then
    return ledgerq._explanation(j, 'dispatched', v_sent || '.', 'Wait: a worker took a run of this queue a moment ago.', v_evidence);
  end if;
  return ledgerq._explanation(j, 'no_worker', v_sent || format(
    ': none is busy, and the last one started something %s ago.', ledgerq._span(p_last_started_at, p_now)
  ), v_start || ' If one is running, `ledgerq doctor` tells what keeps it from this run.', v_evidence);
end $$;

-- Ready, and still only in the ledger.
create function ledgerq._explain_ready(j ledgerq.job, p_now timestamptz) returns jsonb
language plpgsql stable set search_path = '' as $$
declare
  q ledgerq.queue := ledgerq._queue(j.queue);
  v_task bigint;
  v_dispatched bigint;
  v_running bigint;
  v_evidence jsonb;
begin
  select t.id into v_task from ledgerq.task as t
  where t.job_id = j.id and t.status = 'pending' and (t.due_at is null or t.due_at <= p_now) order by t.id limit 1;
  if not found then
    return null;
  end if;
  select count(*) filter (where r.status = 'dispatched'), count(*) filter (where r.status = 'running') into v_dispatched, v_running
  from ledgerq.run as r where r.queue = q.name and r.status in ('dispatched', 'running');
  v_evidence := jsonb_build_object(
    'dispatched', v_dispatched, 'running', v_running, 'depth', q.depth,
    'max_concurrent_jobs', q.max_concurrent_jobs, 'tenant_concurrent_jobs', q.tenant_concurrent_jobs
  );
  return coalesce(
    ledgerq._explain_caps(j, q, v_task, v_evidence),
    case when v_dispatched >= q.depth then ledgerq._explanation(j, 'depth', format(
      'Ready, and waiting its turn in the ledger: %s of queue %s in Redis already, which is its depth.',
      ledgerq._count(v_dispatched, 'run waits', 'runs wait'), q.name
    ), case when v_running = 0 then 'No worker is busy with this queue: look whether any is running.' else 'Wait, or start more workers.' end, v_evidence) end,
    ledgerq._explanation(j, 'ready', format('Ready: the next dispatch of queue %s takes it.', q.name),
      'If this stays so, start a steward (`ledgerq steward`), which dispatches when nobody else does.', v_evidence)
  );
end $$;

-- Asks the dispatcher's own rule about this one task.
create function ledgerq._explain_caps(j ledgerq.job, q ledgerq.queue, p_task bigint, p_evidence jsonb) returns jsonb
language plpgsql stable set search_path = '' as $$
declare
  v_without_tenant ledgerq.queue := q;
begin
  if (q.max_concurrent_jobs is null and q.tenant_concurrent_jobs is null) or cardinality(ledgerq._within_caps(q, array[p_task])) > 0 then
    return null;
  end if;
  v_without_tenant.tenant_concurrent_jobs := null;
  if cardinality(ledgerq._within_caps(v_without_tenant, array[p_task])) > 0 then
    return ledgerq._explanation(j, 'tenant_cap', format(
      'Tenant %s has %s of queue %s in work already, which is the limit.', quote_literal(j.tenant),
      ledgerq._count(q.tenant_concurrent_jobs, 'job', 'jobs'), q.name
    ), 'Wait until one of them ends, or raise tenant_concurrent_jobs of the queue.', p_evidence);
  end if;
  return ledgerq._explanation(j, 'queue_cap', format(
    'Queue %s has %s in work already, which is its limit.', q.name, ledgerq._count(q.max_concurrent_jobs, 'job', 'jobs')
  ), 'Wait until one of them ends, or raise max_concurrent_jobs of the queue.', p_evidence);
end $$;

-- Waiting for a time: its own start, or the next try of a task.
create function ledgerq._explain_due(j ledgerq.job, p_now timestamptz) returns jsonb
language plpgsql stable set search_path = '' as $$
declare
  t ledgerq.task;
  v_last record;
  v_evidence jsonb;
begin
  select x.* into t from ledgerq.task as x
  where x.job_id = j.id and x.status = 'pending' and x.due_at > p_now order by x.due_at limit 1;
  if not found then
    return null;
  end if;
  select e.kind, e.cause, e.at into v_last from ledgerq.event as e
  where e.job_id = j.id and e.task_id = t.id order by e.id desc limit 1;
  v_evidence := jsonb_build_object(
    'task', t.id, 'key', t.key, 'due_at', t.due_at, 'attempts', t.attempts, 'max_attempts', j.max_attempts, 'crashes', t.crashes,
    'losses', t.losses, 'error', t.error, 'last', v_last.kind
  );
  if v_last.kind is null then
    return ledgerq._explanation(j, 'scheduled', format(
      'Scheduled: it starts at %s, in %s.', ledgerq._at(t.due_at), ledgerq._span(p_now, t.due_at)
    ), null, v_evidence);
  end if;
  if v_last.kind = 'throttled' then
    return ledgerq._explanation(j, 'throttled', format(
      'Asked to wait: task %s goes on at %s, in %s%s.', t.key, ledgerq._at(t.due_at), ledgerq._span(p_now, t.due_at),
      coalesce(' (' || ledgerq._error_line(t.error) || ')', '')
    ), format('Nothing: it costs no attempt, and ends at the deadline at %s.', ledgerq._at(j.deadline_at)), v_evidence);
  end if;
  return ledgerq._explanation(j, 'retry', format(
    'Task %s is tried again at %s, in %s (%s of %s attempts used)%s.', t.key, ledgerq._at(t.due_at), ledgerq._span(p_now, t.due_at),
    t.attempts, j.max_attempts, coalesce('; the last error was ' || ledgerq._error_line(t.error), '')
  ), null, v_evidence);
end $$;

create function ledgerq._explain_unsealed(j ledgerq.job, p_now timestamptz) returns jsonb
language plpgsql stable set search_path = '' as $$
begin
  if j.sealed then
    return null;
  end if;
  return ledgerq._explanation(j, 'unsealed', format(
    'All %s that it has are done; it is open for more since %s and cannot end before it is sealed.', ledgerq._count(j.total, 'task', 'tasks'), ledgerq._at(j.created_at)
  ), format('Add tasks (add_tasks) or seal it (seal_job); its deadline is %s.', ledgerq._at(j.deadline_at)),
  jsonb_build_object('deadline_at', j.deadline_at));
end $$;

revoke execute on all functions in schema ledgerq from public, anon, authenticated;
grant execute on all functions in schema ledgerq to service_role;
insert into ledgerq.schema_version (version, subject) values ('20261122020610', 'explain of open jobs');
