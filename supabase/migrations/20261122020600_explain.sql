-- explain: why a job waits, or how it ended, in one sentence, with what to do next. The cause is a word to test against.
--
-- The first function that has something to say speaks; the order is that of what a person would ask first.

create function ledgerq.explain(request jsonb) returns jsonb
language plpgsql stable set search_path = '' as $$
declare
  v_job ledgerq.job;
  v_now timestamptz := ledgerq.clock();
begin
  select * into v_job from ledgerq.job as j where j.id = ledgerq._required_uuid(request, 'job');
  if not found then
    return null;
  end if;
  return coalesce(
    ledgerq._explain_end(v_job),
    ledgerq._explain_cancel(v_job, v_now),
    ledgerq._explain_external(v_job, v_now),
    ledgerq._explain_deadline(v_job, v_now),
    ledgerq._explain_held(v_job, v_now),
    ledgerq._explain_pause(v_job),
    ledgerq._explain_in_redis(v_job, v_now),
    ledgerq._explain_ready(v_job, v_now),
    ledgerq._explain_due(v_job, v_now),
    ledgerq._explain_unsealed(v_job, v_now),
    ledgerq._explanation(
      v_job, 'inconsistent', 'No task of this job is waiting or running, and yet it has not ended.',
      'This must not happen: please report it with the output of job_history.', '{}'
    )
  );
end $$;
comment on function ledgerq.explain(jsonb) is '{job} -> {cause, sentence, next_action, evidence}, or null for an unknown job';

create function ledgerq._explanation(j ledgerq.job, p_cause text, p_sentence text, p_next_action text, p_evidence jsonb) returns jsonb
language sql immutable set search_path = '' as $$
  select jsonb_build_object(
    'cause', p_cause, 'sentence', p_sentence, 'next_action', p_next_action,
    'evidence', p_evidence || jsonb_build_object(
      'status', j.status, 'queue', j.queue, 'total', j.total, 'completed', j.completed, 'failed', j.failed, 'cancelled', j.cancelled
    )
  )
$$;

-- Words ----------------------------------------------------------------------------------------------------------------

create function ledgerq._span(p_from timestamptz, p_to timestamptz) returns text
language sql immutable set search_path = '' as $$
  select case
    when s < 1 then 'less than a second'
    when s < 120 then floor(s) || ' s'
    when s < 7200 then floor(s / 60) || ' min'
    when s < 172800 then floor(s / 3600) || ' h'
    else floor(s / 86400) || ' days'
  end
  from (select greatest(extract(epoch from p_to - p_from), 0) as s) as seconds
$$;

create function ledgerq._at(p_at timestamptz) returns text
language sql immutable set search_path = '' as $$
  select to_char(p_at at time zone 'UTC', 'YYYY-MM-DD HH24:MI:SS') || ' UTC'
$$;

create function ledgerq._count(p_count bigint, p_one text, p_many text) returns text
language sql immutable set search_path = '' as $$ select p_count || ' ' || case p_count when 1 then p_one else p_many end $$;

create function ledgerq._error_line(p_error jsonb) returns text
language sql immutable set search_path = '' as $$
  select case jsonb_typeof(p_error)
    when 'object' then left(concat_ws(': ', p_error ->> 'type', p_error ->> 'message'), 300)
    when 'string' then left(p_error #>> '{}', 300)
  end
$$;

-- Ended ----------------------------------------------------------------------------------------------------------------

create function ledgerq._explain_end(j ledgerq.job) returns jsonb
language plpgsql stable set search_path = '' as $$
declare
  v_took text := ledgerq._span(coalesce(j.started_at, j.created_at), j.finished_at);
begin
  return case j.status
    when 'completed' then ledgerq._explanation(j, 'completed', case j.total
      when 0 then 'It had no tasks, so it was complete at once.'
      else format('Completed at %s: %s in %s.', ledgerq._at(j.finished_at), ledgerq._count(j.total, 'task', 'tasks'), v_took)
    end, null, '{}')
    when 'cancelled' then ledgerq._explanation(j, 'cancelled', format(
      'Cancelled%s at %s%s: %s of %s did not complete.', ' by ' || j.cancel_actor, ledgerq._at(j.cancel_requested_at),
      ' (' || j.cancel_reason || ')', j.total - j.completed, ledgerq._count(j.total, 'task', 'tasks')
    ), 'To run the rest after all, retry the job.', '{}')
    when 'failed' then ledgerq._explain_failure(j)
    when 'partial' then ledgerq._explain_failure(j)
  end;
end $$;

-- By the first task that failed, and by how many failed alike.
create function ledgerq._explain_failure(j ledgerq.job) returns jsonb
language plpgsql stable set search_path = '' as $$
declare
  v_first record;
  v_cause text;
begin
  if j.abandoned and j.failed = 0 then
    return ledgerq._explanation(j, 'abandoned', format(
      'Ended at %s because its deadline passed before it was sealed: %s of %s completed.', ledgerq._at(j.finished_at), j.completed, ledgerq._count(j.total, 'task', 'tasks')
    ), 'Whoever creates jobs unsealed must seal them (seal_job); create it again.', jsonb_build_object('deadline_at', j.deadline_at));
  end if;
  select t.id, t.key, t.error, t.attempts, t.crashes, t.losses into v_first
  from ledgerq.task as t where t.job_id = j.id and t.status = 'failed' order by t.id limit 1;
  select coalesce(v_first.error ->> 'cause', e.cause) into v_cause
  from (select) as one left join lateral (
    select x.cause from ledgerq.event as x
    where x.job_id = j.id and x.task_id = v_first.id and x.kind = 'failed' order by x.id desc limit 1
  ) as e on true;
  return ledgerq._explanation(j, coalesce(v_cause, case when j.failed > 0 then 'error' else 'tasks_cancelled' end), format(
    '%s at %s: %s of %s failed%s%s.',
    case j.status when 'failed' then 'Failed' else 'Finished in part' end, ledgerq._at(j.finished_at), j.failed, ledgerq._count(j.total, 'task', 'tasks'),
    case when j.cancelled > 0 then format(' and %s were cancelled', j.cancelled) end,
    case when v_first.id is not null then format(
      case when j.failed > 1 then ', the first of them %s after %s: %s' else ' (%s) after %s: %s' end, v_first.key,
      concat_ws(', ',
        ledgerq._count(v_first.attempts, 'attempt', 'attempts'),
        case when v_first.crashes > 0 then ledgerq._count(v_first.crashes, 'crash', 'crashes') || ' of its worker' end,
        case when v_first.losses > 0 then ledgerq._count(v_first.losses, 'lost lease', 'lost leases') end
      ), coalesce(ledgerq._error_line(v_first.error), 'no error was recorded')
    ) end
  ), ledgerq._after_failure(v_cause), jsonb_build_object('task', v_first.id, 'key', v_first.key, 'error', v_first.error));
end $$;

create function ledgerq._after_failure(p_cause text) returns text
language sql immutable set search_path = '' as $$
  select case p_cause
    when 'permanent' then 'Trying again as it is cannot help: mend what the error names, then retry the job.'
    when 'deadline' then 'Find out why it waited so long (job_history), then retry the job: it gets a new deadline.'
    when 'crash' then 'This task kills its worker even when it runs alone: look at its input and at the worker''s memory before a retry.'
    when 'lost' then 'Its worker vanished each time: look whether workers are being killed or cut off from the database, then retry the job.'
    when 'timeout' then 'It takes longer than its timeout: give the job a longer one, or make the work smaller, then retry.'
    else 'Look at the failed tasks (job_tasks with status failed), mend the cause, then retry the job.'
  end
$$;

revoke execute on all functions in schema ledgerq from public, anon, authenticated;
grant execute on all functions in schema ledgerq to service_role;
insert into ledgerq.schema_version (version, subject) values ('20261122020600', 'explain');
