-- What every function that moves tasks ends with: the counters of their jobs, by delta, and what follows from them.

create function ledgerq._lock_jobs(p_jobs uuid[]) returns void
language plpgsql set search_path = ''
as $$
begin
  -- One statement, ascending ids: whoever locks jobs locks them in this order, so nobody waits in a circle.
  perform 1 from ledgerq.job j where j.id = any(p_jobs) order by j.id for no key update;
end $$;
comment on function ledgerq._lock_jobs(uuid[]) is 'Locks the jobs in id order. Callers that need a run have locked it before.';

create function ledgerq._settle(
  p_jobs uuid[], p_completed int[], p_failed int[], p_cancelled int[], p_run uuid, p_actor text, p_now timestamptz
) returns void
language plpgsql set search_path = ''
as $$
begin
  if coalesce(cardinality(p_jobs), 0) = 0 then
    return;
  end if;
  with delta as (
    select d.id, d.completed, d.failed, d.cancelled
    from unnest(p_jobs, p_completed, p_failed, p_cancelled) d(id, completed, failed, cancelled)
  ), summed as (
    select j.id, j.total, j.status, j.sealed, j.external, j.abandoned, j.cancel_requested_at is not null as cancelling,
           j.completed + d.completed as completed, j.failed + d.failed as failed, j.cancelled + d.cancelled as cancelled,
           d.completed as now_completed, d.failed as now_failed, d.cancelled as now_cancelled
    from delta d join ledgerq.job j on j.id = d.id
    where j.finished_at is null
  ), judged as (
    select s.*,
      case
        when s.sealed and s.completed + s.failed + s.cancelled = s.total then
          case
            when s.cancelling and (s.cancelled > 0 or s.total = 0) then 'cancelled'
            when s.failed + s.cancelled = 0 and not s.abandoned then 'completed'
            when s.completed = 0 then 'failed'
            else 'partial'
          end
        when s.status in ('queued', 'in_progress') and not s.external
          and not exists (select from ledgerq.task t where t.job_id = s.id and t.status = 'queued') then 'pending'
        else s.status
      end as next
    from summed s
  ), moved as (
    update ledgerq.job j set
      completed = s.completed, failed = s.failed, cancelled = s.cancelled, status = s.next,
      finished_at = case when s.next in ('completed', 'partial', 'failed', 'cancelled') then p_now end,
      -- A hand-out that found the job locked left this to whoever comes next.
      started_at = case when p_run is not null and s.now_completed + s.now_failed > 0 then coalesce(j.started_at, p_now) else j.started_at end,
      -- A job of one task answers for it; of many, their results are read page by page.
      result = case when s.total = 1 and s.completed = 1 then (select t.result from ledgerq.task t where t.job_id = j.id) end,
      error = case
        when s.failed > 0 and s.next in ('partial', 'failed', 'cancelled')
          then (select t.error from ledgerq.task t where t.job_id = j.id and t.status = 'failed' order by t.id limit 1)
        else j.error
      end
    from judged s where j.id = s.id
    returning j.id, j.owner_id, j.status, j.finished_at is not null as ended, j.total,
      s.completed, s.failed, s.cancelled, s.now_completed + s.now_failed + s.now_cancelled as tasks,
      jsonb_build_object('completed', s.now_completed, 'failed', s.now_failed, 'cancelled', s.now_cancelled) as delta
  )
  insert into ledgerq.event (at, job_id, owner_id, kind, run_id, actor, cause, data)
  select p_now, m.id, m.owner_id, case when m.ended then 'ended' else 'progressed' end, p_run, p_actor,
    case when m.ended then m.status end,
    case when m.ended
      then jsonb_build_object('status', m.status, 'total', m.total, 'completed', m.completed, 'failed', m.failed, 'cancelled', m.cancelled, 'window', m.delta)
      else m.delta
    end
  from moved m
  where m.ended or m.tasks > 0
  order by m.id;
end $$;
comment on function ledgerq._settle(uuid[], int[], int[], int[], uuid, text, timestamptz) is
  'Adds what just became terminal to the counters of the jobs (each once, locked by the caller), ends those that are done, takes back to pending those with no task in a run.';

create function ledgerq._give_back(p_run uuid, p_above int, p_now timestamptz) returns int
language plpgsql set search_path = ''
as $$
declare
  v_released int;
  v_jobs uuid[];
  v_cancelled int[];
begin
  with moved as (
    update ledgerq.task t set
      status = case when j.cancel_requested_at is null then 'pending' else 'cancelled' end,
      finished_at = case when j.cancel_requested_at is null then null else p_now end,
      run_id = null, seq = null
    from ledgerq.job j
    where j.id = t.job_id and t.run_id = p_run and t.status = 'queued' and t.seq > p_above
    returning t.job_id, t.status
  ), per_job as (
    select m.job_id, count(*)::int as tasks, count(*) filter (where m.status = 'cancelled')::int as cancelled
    from moved m group by m.job_id
  )
  select coalesce(sum(p.tasks), 0), array_agg(p.job_id), array_agg(p.cancelled) into v_released, v_jobs, v_cancelled from per_job p;
  perform ledgerq._settle(v_jobs, array_fill(0, array[coalesce(cardinality(v_jobs), 0)]), array_fill(0, array[coalesce(cardinality(v_jobs), 0)]), v_cancelled, p_run, null, p_now);
  return v_released;
end $$;
comment on function ledgerq._give_back(uuid, int, timestamptz) is
  'Tasks of the run above this place go back, unchanged, or are cancelled where their job is being cancelled. Run and jobs are locked by the caller.';

create function ledgerq._jobs_in_run(p_run uuid, p_above int) returns uuid[]
language plpgsql stable set search_path = ''
as $$
begin
  return (select array(select distinct t.job_id from ledgerq.task t where t.run_id = p_run and t.status = 'queued' and t.seq > p_above));
end $$;

revoke execute on all functions in schema ledgerq from public, anon, authenticated;
grant execute on all functions in schema ledgerq to service_role;
insert into ledgerq.schema_version (version, subject) values ('20261122010300', 'settle');
