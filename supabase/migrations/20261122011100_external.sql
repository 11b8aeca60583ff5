-- update_job, complete_job, fail_job: jobs that something outside does and reports.

create function ledgerq._external_answer(p_job ledgerq.job, p_wanted text) returns jsonb
language plpgsql immutable set search_path = ''
as $$
begin
  return (
    select case
      when p_job.id is null then '{"disposition": "not_found", "status": null}'
      when not p_job.external then jsonb_build_object('disposition', 'not_external', 'status', p_job.status)
      when p_job.finished_at is not null then
        jsonb_build_object('disposition', case when p_job.status = p_wanted then 'applied' else 'too_late' end, 'status', p_job.status)
    end
  );
end $$;
comment on function ledgerq._external_answer(ledgerq.job, text) is 'The answer when there is nothing to do; null when there is.';

create function ledgerq.update_job(request jsonb) returns jsonb
language plpgsql set search_path = ''
as $$
declare
  v_id uuid := ledgerq._required_uuid(request, 'job');
  v_details jsonb := ledgerq._object(request, 'details', 65536);
  v_progress jsonb := ledgerq._object(request, 'progress', 65536);
  v_now timestamptz;
  v_answer jsonb;
  j ledgerq.job;
begin
  if coalesce(request ->> 'status', 'in_progress') <> 'in_progress' then
    perform ledgerq._invalid('status', request ->> 'status', 'in_progress: complete_job, fail_job and cancel_jobs end a job');
  end if;
  select * into j from ledgerq.job x where x.id = v_id for no key update;
  v_answer := ledgerq._external_answer(j, 'in_progress');
  if v_answer is not null then
    return v_answer;
  end if;
  v_now := ledgerq.clock();
  update ledgerq.job x set
    details = x.details || coalesce(v_details, '{}'), progress = coalesce(v_progress, x.progress),
    status = coalesce(request ->> 'status', x.status),
    started_at = case when request ->> 'status' is null then x.started_at else coalesce(x.started_at, v_now) end
  where x.id = v_id and x.finished_at is null
  returning * into j;
  if j.started_at = v_now then
    insert into ledgerq.event (at, job_id, owner_id, kind, actor) values (v_now, v_id, j.owner_id, 'started', ledgerq._text(request, 'actor'));
  end if;
  return jsonb_build_object('disposition', 'applied', 'status', j.status);
end $$;
comment on function ledgerq.update_job(jsonb) is
  '{job, status?: in_progress, details? (merged), progress? (replaced)} → {disposition: applied|not_external|not_found|too_late, status}.';

create function ledgerq._end_external(request jsonb, p_status text, p_result jsonb, p_error jsonb) returns jsonb
language plpgsql set search_path = ''
as $$
declare
  v_id uuid := ledgerq._required_uuid(request, 'job');
  v_now timestamptz;
  v_answer jsonb;
  j ledgerq.job;
begin
  select * into j from ledgerq.job x where x.id = v_id for no key update;
  v_answer := ledgerq._external_answer(j, p_status);
  if v_answer is not null then
    return v_answer;
  end if;
  v_now := ledgerq.clock();
  update ledgerq.task t set status = p_status, attempts = t.attempts + 1, result = p_result, error = p_error, due_at = null,
    started_at = coalesce(j.started_at, v_now), finished_at = v_now, duration_s = extract(epoch from v_now - coalesce(j.started_at, v_now))
  where t.job_id = v_id and t.status = 'pending';
  perform ledgerq._settle(array[v_id], array[(p_status = 'completed')::int], array[(p_status = 'failed')::int], array[0], null,
                          ledgerq._text(request, 'actor'), v_now);
  return jsonb_build_object('disposition', 'applied', 'status', (select x.status from ledgerq.job x where x.id = v_id));
end $$;

create function ledgerq._small(request jsonb, p_field text, p_max_bytes int) returns jsonb
language plpgsql immutable set search_path = ''
as $$
begin
  if octet_length((request -> p_field)::text) > p_max_bytes then
    perform ledgerq._too_large(p_field, octet_length((request -> p_field)::text), p_max_bytes, 'bytes', 'Keep what is large elsewhere, and name it here.');
  end if;
  return nullif(request -> p_field, 'null');
end $$;

create function ledgerq.complete_job(request jsonb) returns jsonb
language plpgsql set search_path = ''
as $$
begin
  return ledgerq._end_external(request, 'completed', ledgerq._small(request, 'result', 65536), null);
end $$;
comment on function ledgerq.complete_job(jsonb) is '{job, result} → {disposition: applied|not_external|not_found|too_late, status}. Repeatable.';

create function ledgerq.fail_job(request jsonb) returns jsonb
language plpgsql set search_path = ''
as $$
begin
  return ledgerq._end_external(request, 'failed', null, coalesce(ledgerq._small(request, 'error', 8192), '{}'));
end $$;
comment on function ledgerq.fail_job(jsonb) is '{job, error} → {disposition: applied|not_external|not_found|too_late, status}. Repeatable.';

revoke execute on all functions in schema ledgerq from public, anon, authenticated;
grant execute on all functions in schema ledgerq to service_role;
insert into ledgerq.schema_version (version, subject) values ('20261122011100', 'external');
