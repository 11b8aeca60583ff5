-- advance_run: the acknowledgement of outcomes, and the next hand-out.

create function ledgerq._check_outcomes(p_outcomes jsonb) returns void
language plpgsql immutable set search_path = ''
as $$
declare
  v record;
begin
  select o.place - 1 as place, o.e into v
  from jsonb_array_elements(p_outcomes) with ordinality o(e, place)
  where jsonb_typeof(o.e) <> 'object' or jsonb_typeof(o.e -> 'task') is distinct from 'number'
     or coalesce(o.e ->> 'kind', '') not in ('completed', 'retry', 'throttled', 'returned', 'failed', 'cancelled')
     or coalesce(jsonb_typeof(o.e -> 'after_s'), 'null') not in ('null', 'number')
     or coalesce(jsonb_typeof(o.e -> 'duration_s'), 'null') not in ('null', 'number')
     or coalesce(jsonb_typeof(o.e -> 'effects'), 'null') not in ('null', 'array')
     or coalesce(jsonb_typeof(o.e -> 'usage'), 'null') not in ('null', 'array')
  limit 1;
  if found then
    perform ledgerq._invalid(format('outcomes[%s]', v.place), v.e::text,
      'an outcome {task, kind: completed|retry|throttled|returned|failed|cancelled, result?, error?, after_s?, effects?, usage?, duration_s?}');
  end if;
end $$;

-- In the joins below a task is found by its id, and the fence is only a filter: with `status = 'queued'` the planner, who takes a run
-- for one task, would go through all tasks of the run for each outcome. `is not distinct from` says the same and fits no index.

create function ledgerq._effects_of(p_run ledgerq.run, p_outcomes jsonb) returns jsonb
language plpgsql stable set search_path = ''
as $$
begin
  return (
    select coalesce(jsonb_agg(jsonb_build_object(
        'task', o.task, 'job', t.job_id, 'kind', case when t.id is null then 'ignored' else o.kind end,
        'effects', coalesce(o.effects, '[]'), 'usage', coalesce(o.usage, '[]'))), '[]')
    from jsonb_to_recordset(p_outcomes) o(task bigint, kind text, effects jsonb, usage jsonb)
    left join ledgerq.task t on t.id = o.task and t.run_id = p_run.id and t.status is not distinct from 'queued' and t.seq <= p_run.handed
    where jsonb_array_length(o.effects) > 0 or jsonb_array_length(o.usage) > 0
  );
end $$;

create function ledgerq._apply_outcomes(p_run ledgerq.run, p_outcomes jsonb, p_verdicts jsonb, p_now timestamptz) returns jsonb
language plpgsql set search_path = ''
as $$
declare
  v record;
begin
  with given as materialized (
    select distinct on (o.task) o.*, coalesce(p_verdicts ->> o.task::text, 'applied') as verdict
    from jsonb_to_recordset(p_outcomes)
      o(task bigint, kind text, result jsonb, error jsonb, after_s double precision, duration_s double precision)
    order by o.task
  ), decided as (
    select g.*, t.id, j.owner_id, j.cancel_requested_at is not null as cancelling, j.deadline_at <= p_now as overdue,
      case
        when g.kind = 'completed' and g.verdict <> 'applied' then g.verdict
        when g.kind = 'retry' and t.attempts + 1 >= j.max_attempts then 'exhausted'
        else g.kind
      end as what
    from given g
    join ledgerq.task t on t.id = g.task and t.run_id = p_run.id and t.status is not distinct from 'queued' and t.seq <= p_run.handed
    join ledgerq.job j on j.id = t.job_id
  ), target as materialized (
    select d.*,
      case
        when d.what = 'completed' then 'completed'
        when d.what in ('failed', 'exhausted') then 'failed'
        when d.what in ('cancelled', 'deleted') or d.cancelling then 'cancelled'
        when d.overdue then 'failed'
        else 'pending'
      end as status,
      -- Free of charge, so never at once again.
      case d.what when 'throttled' then greatest(coalesce(d.after_s, 1), 1) else d.after_s end as wait_s
    from decided d
  ), moved as (
    update ledgerq.task t set
      status = x.status,
      attempts = t.attempts + case when x.what in ('completed', 'failed', 'retry', 'exhausted') then 1 else 0 end,
      due_at = case when x.status = 'pending' and x.wait_s > 0 then p_now + make_interval(secs => least(x.wait_s, 31536000)) end,
      run_id = case when x.status = 'pending' then null else t.run_id end,
      seq = case when x.status = 'pending' then null else t.seq end,
      result = case when x.status = 'completed' then x.result end,
      error = case when x.status = 'completed' then null when x.status = 'failed' and x.what not in ('failed', 'exhausted')
        then ledgerq._deadline_error(x.error) else coalesce(x.error, t.error) end,
      duration_s = x.duration_s,
      started_at = p_now - make_interval(secs => greatest(x.duration_s, 0)),
      finished_at = case when x.status = 'pending' then null else p_now end
    from target x
    where t.id = x.id and t.run_id = p_run.id and t.status is not distinct from 'queued' and t.seq <= p_run.handed
    returning t.id, t.job_id, t.status, t.attempts, t.due_at, t.error, x.what, x.owner_id
  ), noted as (
    insert into ledgerq.event (at, job_id, owner_id, task_id, run_id, kind, cause, data)
    select p_now, m.job_id, m.owner_id, m.id, p_run.id,
      case when m.status in ('failed', 'cancelled') then m.status else m.what end,
      case
        when m.what = 'exhausted' then 'attempts' when m.what = 'failed' then 'permanent' when m.what = 'deleted' then 'document_deleted'
        when m.status = 'failed' then 'deadline' when m.status = 'cancelled' then 'cancel'
      end,
      jsonb_build_object('attempts', m.attempts, 'due_at', m.due_at, 'error', m.error)
    from moved m where m.what <> 'completed'
    order by m.id
  ), per_job as (
    select m.job_id, count(*) filter (where m.status = 'completed')::int as completed,
           count(*) filter (where m.status = 'failed')::int as failed, count(*) filter (where m.status = 'cancelled')::int as cancelled
    from moved m group by m.job_id
  )
  select array_agg(p.job_id) as jobs, array_agg(p.completed) as completed, array_agg(p.failed) as failed, array_agg(p.cancelled) as cancelled,
    (select coalesce(jsonb_agg(g.task), '[]') from given g where g.task <> all(array(select x.task from target x))) as ignored,
    (select coalesce(jsonb_agg(x.task), '[]') from target x where x.what = 'stale') as stale
  into v from per_job p;
  perform ledgerq._settle(v.jobs, v.completed, v.failed, v.cancelled, p_run.id, null, p_now);
  return jsonb_build_object('ignored', v.ignored, 'stale', v.stale);
end $$;
comment on function ledgerq._apply_outcomes(ledgerq.run, jsonb, jsonb, timestamptz) is
  'The outcomes of held tasks, by the table of outcomes; all others are listed as ignored. Run and jobs are locked by the caller.';

create function ledgerq._deadline_error(p_last jsonb) returns jsonb
language plpgsql immutable set search_path = ''
as $$
begin
  return (
    select jsonb_build_object('type', 'DeadlinePassed', 'message', 'the deadline of the job passed before the task was done',
      'cause', 'deadline', 'last', p_last)
  );
end $$;

create function ledgerq._advanced(p_run ledgerq.run, p_finished boolean, p_tasks jsonb, p_more jsonb) returns jsonb
language plpgsql stable set search_path = ''
as $$
begin
  return (
    select jsonb_build_object('disposition', 'applied', 'step', p_run.step, 'finished', p_finished, 'tasks', p_tasks,
      'cancelled', ledgerq._cancelled_among(p_tasks), 'ignored', '[]'::jsonb, 'stale', '[]'::jsonb, 'remove', '[]'::jsonb, 'runs', '[]'::jsonb) || p_more
  );
end $$;

create function ledgerq._fence_advance(p_run ledgerq.run, p_delivery uuid, p_step int) returns jsonb
language plpgsql stable set search_path = ''
as $$
begin
  if p_run.delivery is distinct from p_delivery or p_run.status in ('lost', 'revoked') then
    return '{"disposition": "superseded"}';
  end if;
  if p_step = p_run.step - 1 then
    return ledgerq._advanced(p_run, p_run.status = 'finished', ledgerq._held(p_run.id, p_run.handed), '{}');
  end if;
  if p_step > p_run.step then
    raise exception using errcode = 'LQ004', message = format('step: %s is ahead of the run, which is at %s', p_step, p_run.step),
      hint = 'Send the step of the last answer.';
  end if;
  if p_step < p_run.step or p_run.status <> 'running' then
    return '{"disposition": "superseded"}';
  end if;
  return null;
end $$;
comment on function ledgerq._fence_advance(ledgerq.run, uuid, int) is 'The answer to whoever may not advance the run, or has done so already; null for its owner at the present step.';

create function ledgerq._note_progress(p_run ledgerq.run, p_progress jsonb) returns void
language plpgsql set search_path = ''
as $$
begin
  -- Only what is still held: a task that was answered in the same call has said its last.
  update ledgerq.task t set progress = p.data
  from jsonb_to_recordset(p_progress) p(task bigint, data jsonb)
  where t.id = p.task and t.run_id = p_run.id and t.status is not distinct from 'queued' and t.seq <= p_run.handed;
end $$;
comment on function ledgerq._note_progress(ledgerq.run, jsonb) is 'What handlers say of the tasks they are at. The run is locked by the caller.';

create function ledgerq._check_progress(p_progress jsonb) returns void
language plpgsql immutable set search_path = ''
as $$
declare
  v record;
begin
  select p.place - 1 as place, p.e into v
  from jsonb_array_elements(p_progress) with ordinality p(e, place)
  where jsonb_typeof(p.e) <> 'object' or jsonb_typeof(p.e -> 'task') is distinct from 'number' or octet_length(p.e::text) > 16384
  limit 1;
  if found then
    perform ledgerq._invalid(format('progress[%s]', v.place), v.e::text, 'progress {task, data} of at most 16 KiB');
  end if;
end $$;

create function ledgerq.advance_run(request jsonb) returns jsonb
language plpgsql set search_path = ''
as $$
declare
  v_id uuid := ledgerq._required_uuid(request, 'run');
  v_delivery uuid := ledgerq._required_uuid(request, 'delivery');
  v_step int := coalesce(ledgerq._integer(request, 'step', 0, 2147483647), 0);
  v_want int := coalesce(ledgerq._integer(request, 'want', 0, 500), 0);
  v_outcomes jsonb := coalesce(nullif(request -> 'outcomes', 'null'), '[]');
  v_progress jsonb := coalesce(nullif(request -> 'progress', 'null'), '[]');
  r ledgerq.run;
  q ledgerq.queue;
  v_answer jsonb;
  v_shed boolean;
  v_to int;
  v_now timestamptz;
  v_effects jsonb;
  v_changed jsonb := '{}';
begin
  perform ledgerq._check_outcomes(v_outcomes);
  perform ledgerq._check_progress(v_progress);
  select * into r from ledgerq.run x where x.id = v_id for no key update;
  if not found then
    return '{"disposition": "not_found"}';
  end if;
  v_answer := ledgerq._fence_advance(r, v_delivery, v_step);
  if v_answer is not null then
    return v_answer;
  end if;
  q := ledgerq._queue(r.queue);
  v_shed := ledgerq._flag(request, 'yield', false) or ledgerq._shed_wanted(r, q);
  v_to := ledgerq._next_handed(r.id, r.handed, r.size, case when v_shed then 0 else v_want end);
  perform ledgerq._lock_jobs(ledgerq._jobs_named(r, v_outcomes) || ledgerq._jobs_between(r.id, r.handed, case when v_shed then r.size else v_to end));
  v_now := ledgerq.clock();
  if jsonb_array_length(v_outcomes) > 0 then
    v_effects := ledgerq._effects_of(r, v_outcomes);
    v_effects := case v_effects when '[]' then '{}' else ledgerq._apply_effects(r.id, v_effects, v_now) end;
    v_changed := ledgerq._apply_outcomes(r, v_outcomes, coalesce(v_effects -> 'verdicts', '{}'), v_now)
      || jsonb_build_object('remove', coalesce(v_effects -> 'remove', '[]'));
  end if;
  if jsonb_array_length(v_progress) > 0 then
    perform ledgerq._note_progress(r, v_progress);
  end if;
  return ledgerq._go_on(r, q, v_shed, v_to, v_want, v_changed, v_now);
end $$;
comment on function ledgerq.advance_run(jsonb) is
  '{run, delivery, step, outcomes, progress?, want, yield} → {disposition: applied|superseded|not_found, step, finished, tasks, cancelled, ignored, stale, remove, runs}. Acknowledges, and hands out more.';

create function ledgerq._jobs_named(p_run ledgerq.run, p_outcomes jsonb) returns uuid[]
language plpgsql stable set search_path = ''
as $$
begin
  return (
    select array(
      select distinct t.job_id from ledgerq.task t
      where t.run_id = p_run.id and t.status = 'queued' and t.seq <= p_run.handed
        and t.id = any(array(select (o -> 'task')::bigint from jsonb_array_elements(p_outcomes) o)))
  );
end $$;

create function ledgerq._go_on(
  p_run ledgerq.run, p_queue ledgerq.queue, p_shed boolean, p_to int, p_want int, p_changed jsonb, p_now timestamptz
) returns jsonb
language plpgsql set search_path = ''
as $$
declare
  v_out record;
  v_released int := 0;
  v_finished boolean;
  v_runs jsonb := '[]';
begin
  if p_shed then
    v_released := ledgerq._give_back(p_run.id, p_run.handed, p_now);
    p_run.size := p_run.handed;
  end if;
  v_out := ledgerq._hand_out(p_run, p_to, p_want, p_now);
  v_finished := v_out.tasks = '[]' and not exists (
    select from ledgerq.task t where t.run_id = p_run.id and t.status = 'queued' and t.seq > v_out.handed);
  update ledgerq.run r set
    step = r.step + 1, handed = v_out.handed, size = p_run.size, heartbeat_at = p_now,
    lease_until = p_now + make_interval(secs => p_queue.lease_s), suspected_at = null,
    status = case when v_finished then 'finished' else r.status end, ended_at = case when v_finished then p_now end
  where r.id = p_run.id and r.status = 'running' and r.step = p_run.step;
  p_run.step := p_run.step + 1;
  if v_finished or v_released > 0 then
    v_runs := ledgerq._dispatch(p_queue.name, true) -> 'runs';
  end if;
  return ledgerq._advanced(p_run, v_finished, v_out.tasks, p_changed || jsonb_build_object('runs', v_runs));
end $$;
comment on function ledgerq._go_on(ledgerq.run, ledgerq.queue, boolean, int, int, jsonb, timestamptz) is
  'After the outcomes: shed or hand out, renew the lease, and finish the run when nothing is left in it.';

revoke execute on all functions in schema ledgerq from public, anon, authenticated;
grant execute on all functions in schema ledgerq to service_role;
insert into ledgerq.schema_version (version, subject) values ('20261122010700', 'advance');
