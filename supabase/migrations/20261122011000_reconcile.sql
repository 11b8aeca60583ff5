-- reconcile_runs: verdicts about runs whose worker may be gone.

create function ledgerq._check_verdicts(p_verdicts jsonb) returns void
language plpgsql set search_path = ''
as $$
declare
  v jsonb;
begin
  for v in select e from jsonb_array_elements(p_verdicts) e loop
    perform ledgerq._required_uuid(v, 'run'), ledgerq._uuid(v, 'delivery'), ledgerq._integer(v, 'seen_step', 0, 2147483647),
      ledgerq._time(v, 'seen_heartbeat_at'), ledgerq._object(v, 'evidence', 65536);
    if coalesce(v ->> 'verdict', '') not in ('revoke', 'died', 'timeout', 'cancel_kill', 'stopped', 'expired') then
      perform ledgerq._invalid('verdict', v ->> 'verdict', 'one of revoke, died, timeout, cancel_kill, stopped, expired');
    end if;
    if v ->> 'verdict' in ('timeout', 'cancel_kill') and jsonb_typeof(v -> 'culprit') is distinct from 'number' then
      perform ledgerq._invalid('culprit', v ->> 'culprit', 'the id of the task that was ended');
    end if;
  end loop;
end $$;

create function ledgerq._is_fenced_out(p_run ledgerq.run, p_verdict jsonb) returns boolean
language plpgsql stable set search_path = ''
as $$
begin
  -- A direct witness (keeper, parent) knows the delivery, and is fenced by it alone; all others by what they saw.
  return (
    select case
      when p_verdict ->> 'delivery' is not null then p_run.delivery is distinct from (p_verdict ->> 'delivery')::uuid
      else p_run.status is distinct from p_verdict ->> 'seen_status'
        or p_run.step is distinct from (p_verdict ->> 'seen_step')::int
        or p_run.heartbeat_at is distinct from (p_verdict ->> 'seen_heartbeat_at')::timestamptz
    end
  );
end $$;

create function ledgerq._is_allowed(p_run ledgerq.run, p_queue ledgerq.queue, p_verdict jsonb, p_now timestamptz) returns boolean
language plpgsql stable set search_path = ''
as $$
begin
  return (
    with seen as (
      select p_verdict ->> 'delivery' is not null as direct,
        p_now - p_run.heartbeat_at > make_interval(secs => 2 * p_queue.heartbeat_s) as silent,
        exists (
          select from ledgerq.task t join ledgerq.job j on j.id = t.job_id
          where t.id = (p_verdict ->> 'culprit')::bigint and t.run_id = p_run.id and t.status = 'queued' and t.seq <= p_run.handed
            and (p_verdict ->> 'verdict' <> 'cancel_kill' or j.cancel_requested_at is not null)) as culprit_held
    )
    select coalesce(case p_verdict ->> 'verdict'
      when 'revoke' then p_run.status = 'dispatched'
      when 'died' then p_run.status = 'running'
        and (s.direct or s.silent and p_run.execution_id = p_verdict -> 'evidence' ->> 'execution_id')
      when 'timeout' then p_run.status = 'running' and s.direct and s.culprit_held
      when 'cancel_kill' then p_run.status = 'running' and s.direct and s.culprit_held
      when 'stopped' then p_run.status = 'running' and p_run.cause is null and (s.direct or s.silent)
      -- A database that was away could not be told: it waits a lease after its own start.
      when 'expired' then p_run.status = 'running' and p_run.lease_until < p_now
        and p_now - pg_postmaster_start_time() > make_interval(secs => p_queue.lease_s)
    end, false)
    from seen s
  );
end $$;

create function ledgerq._judge(p_run ledgerq.run, p_verdict jsonb, p_now timestamptz) returns text
language plpgsql set search_path = ''
as $$
declare
  q ledgerq.queue := ledgerq._queue(p_run.queue);
begin
  if p_run.ended_at is not null then
    return case when p_run.verdict = p_verdict ->> 'verdict' then 'applied' else 'superseded' end;
  elsif ledgerq._is_fenced_out(p_run, p_verdict) then
    return 'superseded';
  elsif not ledgerq._is_allowed(p_run, q, p_verdict, p_now) then
    return 'refused';
  elsif p_verdict ->> 'verdict' = 'expired' and (p_run.suspected_at is null or p_now - p_run.suspected_at < make_interval(secs => q.heartbeat_s)) then
    update ledgerq.run r set suspected_at = coalesce(r.suspected_at, p_now) where r.id = p_run.id and r.status = 'running';
    return 'suspected';
  end if;
  return 'apply';
end $$;
comment on function ledgerq._judge(ledgerq.run, jsonb, timestamptz) is
  'The disposition of a verdict about a locked run; `apply` when it is to be carried out. An expired lease is only marked at its first sighting.';

create function ledgerq._failure(p_cause text, p_evidence jsonb, p_count int) returns jsonb
language plpgsql immutable set search_path = ''
as $$
begin
  return (
    -- With the run and in the history it stands in full; an error is at most 8 KiB.
    select jsonb_build_object('cause', p_cause, 'evidence', case when octet_length(p_evidence::text) > 7168
      then jsonb_build_object('left_out_bytes', octet_length(p_evidence::text)) else p_evidence end) || case p_cause
      when 'timeout' then jsonb_build_object('type', 'TaskTimeout', 'message', 'the task ran longer than it may, for the last time allowed')
      when 'crash' then jsonb_build_object('type', 'WorkerDied', 'message', format('the worker died %s times while it held this task, the last time nothing else', p_count))
      else jsonb_build_object('type', 'WorkerLost', 'message', format('the worker that held this task fell silent %s times', p_count))
    end
  );
end $$;

create function ledgerq._end_runs(p_judged jsonb, p_actor text, p_now timestamptz) returns void
language plpgsql set search_path = ''
as $$
declare
  v record;
begin
  with judged as (
    select * from jsonb_to_recordset(p_judged) x(run uuid, verdict text, culprit bigint, evidence jsonb)
  ), hit as (
    select t.id, t.job_id, t.attempts, t.crashes, t.losses, t.seq <= r.handed as held, d.run, d.verdict, d.evidence,
      j.owner_id, j.max_attempts, j.cancel_requested_at is not null as cancelling, q.max_crashes, q.max_losses,
      t.seq <= r.handed and (d.verdict = 'died' or d.verdict = 'timeout' and t.id = d.culprit) as crash,
      t.seq <= r.handed and d.verdict = 'expired' as loss,
      d.verdict = 'timeout' and t.id = d.culprit as attempt,
      d.verdict = 'cancel_kill' and t.id = d.culprit as killed,
      count(*) filter (where t.seq <= r.handed) over (partition by r.id) = 1 as by_itself
    from judged d
    join ledgerq.run r on r.id = d.run
    join ledgerq.queue q on q.name = r.queue
    join ledgerq.task t on t.run_id = r.id and t.status = 'queued'
    join ledgerq.job j on j.id = t.job_id
  ), target as materialized (
    select h.*,
      case
        when h.attempt and h.attempts + 1 >= h.max_attempts then 'timeout'
        when h.crash and h.crashes + 1 >= h.max_crashes and h.by_itself then 'crash'
        when h.loss and h.losses + 1 >= h.max_losses then 'lost'
      end as given_up
    from hit h
  ), moved as (
    update ledgerq.task t set
      status = case when x.killed then 'cancelled' when x.given_up is not null then 'failed' when x.cancelling then 'cancelled' else 'pending' end,
      attempts = t.attempts + x.attempt::int, crashes = t.crashes + x.crash::int, losses = t.losses + x.loss::int,
      alone = t.alone or x.crash or x.loss,
      run_id = case when x.killed or x.given_up is not null or x.cancelling then t.run_id end,
      seq = case when x.killed or x.given_up is not null or x.cancelling then t.seq end,
      error = case when x.given_up is null then t.error
        else ledgerq._failure(x.given_up, x.evidence, case x.given_up when 'lost' then t.losses else t.crashes end + 1) end,
      finished_at = case when x.killed or x.given_up is not null or x.cancelling then p_now end
    -- As in advance_run: found by the id, fenced by the rest.
    from target x where t.id = x.id and t.run_id = x.run and t.status is not distinct from 'queued'
    returning t.id, t.job_id, t.status, t.attempts, t.crashes, t.losses, x.held, x.run, x.verdict, x.evidence, x.owner_id,
      x.crash, x.loss, x.attempt, x.given_up
  ), noted as (
    insert into ledgerq.event (at, job_id, owner_id, task_id, run_id, actor, kind, cause, data)
    select p_now, m.job_id, m.owner_id, m.id, m.run, p_actor,
      case when m.status in ('failed', 'cancelled') then m.status when m.attempt then 'timeout' when m.crash then 'crash' when m.loss then 'loss' else 'returned' end,
      coalesce(m.given_up, m.verdict),
      jsonb_build_object('attempts', m.attempts, 'crashes', m.crashes, 'losses', m.losses, 'evidence', m.evidence)
    from moved m where m.held or m.status <> 'pending'
    order by m.id
  ), per_job as (
    select m.job_id, count(*) filter (where m.status = 'failed')::int as failed, count(*) filter (where m.status = 'cancelled')::int as cancelled
    from moved m group by m.job_id
  )
  select array_agg(p.job_id) as jobs, array_agg(0) as completed, array_agg(p.failed) as failed, array_agg(p.cancelled) as cancelled into v from per_job p;
  perform ledgerq._settle(v.jobs, v.completed, v.failed, v.cancelled, null, p_actor, p_now);
  update ledgerq.run r set
    status = case x.verdict when 'revoke' then 'revoked' else 'lost' end, ended_at = p_now, verdict = x.verdict, cause = x.verdict,
    actor = p_actor, evidence = x.evidence
  from jsonb_to_recordset(p_judged) x(run uuid, verdict text, evidence jsonb)
  where r.id = x.run and r.status in ('dispatched', 'running');
end $$;
comment on function ledgerq._end_runs(jsonb, text, timestamptz) is
  'Carries out [{run, verdict, culprit, evidence}]: runs and the jobs of all their tasks are locked by the caller.';

create function ledgerq._stopped_jobs(p_judged jsonb) returns uuid[]
language plpgsql stable set search_path = ''
as $$
begin
  return (
    select array(
      select distinct t.job_id from jsonb_to_recordset(p_judged) x(run uuid, verdict text)
      join ledgerq.run r on r.id = x.run
      join ledgerq.task t on t.run_id = r.id and t.status = 'queued'
      where x.verdict = 'stopped' and r.single_job)
  );
end $$;

create function ledgerq._carry_out(p_judged jsonb, p_actor text, p_now timestamptz) returns void
language plpgsql set search_path = ''
as $$
begin
  perform ledgerq._lock_jobs(array(
    select distinct t.job_id from jsonb_to_recordset(p_judged) x(run uuid) join ledgerq.task t on t.run_id = x.run and t.status = 'queued'));
  -- A person who stops a run that carries a single job means that job.
  perform ledgerq._cancel(ledgerq._stopped_jobs(p_judged), p_actor, 'stopped in RQ', p_now, 10000);
  perform ledgerq._end_runs(p_judged, p_actor, p_now);
end $$;

create function ledgerq.reconcile_runs(request jsonb) returns jsonb
language plpgsql set search_path = ''
as $$
declare
  v_verdicts jsonb := ledgerq._array(request, 'verdicts', 100);
  v_actor text := ledgerq._text(request, 'actor');
  v_dispatch boolean := ledgerq._flag(request, 'dispatch', true);
  v_now timestamptz;
  v_said record;
  v_disposition text;
  v_judged jsonb := '[]';
  v_runs jsonb := '[]';
  v_queues text[] := '{}';
begin
  perform ledgerq._check_verdicts(v_verdicts);
  -- All runs before any job: with the jobs of one locked, waiting for the next could close a circle.
  perform 1 from ledgerq.run r where r.id in (select (e ->> 'run')::uuid from jsonb_array_elements(v_verdicts) e) order by r.id for no key update;
  v_now := ledgerq.clock();
  for v_said in
    select distinct on ((x.e ->> 'run')::uuid) (x.e ->> 'run')::uuid as id, x.e as verdict
    from jsonb_array_elements(v_verdicts) with ordinality x(e, o) order by (x.e ->> 'run')::uuid, x.o
  loop
    v_disposition := coalesce((select ledgerq._judge(r, v_said.verdict, v_now) from ledgerq.run r where r.id = v_said.id), 'not_found');
    if v_disposition = 'apply' then
      v_judged := v_judged || v_said.verdict;
      v_queues := v_queues || (select r.queue from ledgerq.run r where r.id = v_said.id);
      v_disposition := 'applied';
    end if;
    v_runs := v_runs || jsonb_build_object('run', v_said.id, 'disposition', v_disposition);
  end loop;
  if v_judged <> '[]' then
    perform ledgerq._carry_out(v_judged, v_actor, v_now);
  end if;
  -- Whoever takes back what Redis refused asks for no more of the same.
  if v_judged = '[]' or not v_dispatch then
    return jsonb_build_object('runs', v_runs, 'to_push', '[]'::jsonb);
  end if;
  return jsonb_build_object('runs', v_runs, 'to_push', ledgerq._dispatch_all(v_queues, true) -> 'runs');
end $$;
comment on function ledgerq.reconcile_runs(jsonb) is
  '{verdicts, actor, dispatch?} → {runs: [{run, disposition: applied|superseded|suspected|not_found|refused}], to_push}. At most 100; the first verdict about a run counts.';

revoke execute on all functions in schema ledgerq from public, anon, authenticated;
grant execute on all functions in schema ledgerq to service_role;
insert into ledgerq.schema_version (version, subject) values ('20261122011000', 'reconcile');
