-- heartbeat_run and shed: keeping a run, and giving back what nobody holds.

create function ledgerq.heartbeat_run(request jsonb) returns jsonb
language plpgsql set search_path = ''
as $$
declare
  v_id uuid := ledgerq._required_uuid(request, 'run');
  v_delivery uuid := ledgerq._required_uuid(request, 'delivery');
  v_now timestamptz;
  r ledgerq.run;
begin
  -- Locked first: an update that had to wait would write the time from before the wait.
  perform 1 from ledgerq.run x where x.id = v_id and x.delivery = v_delivery and x.status = 'running' for no key update;
  v_now := ledgerq.clock();
  update ledgerq.run x set heartbeat_at = v_now, suspected_at = null,
    lease_until = v_now + make_interval(secs => (select q.lease_s from ledgerq.queue q where q.name = x.queue))
  where x.id = v_id and x.delivery = v_delivery and x.status = 'running'
  returning x.* into r;
  if not found then
    return '{"disposition": "superseded", "cancelled": [], "shed_wanted": false}';
  end if;
  return jsonb_build_object('disposition', 'applied',
    'cancelled', ledgerq._cancelled_held(r), 'shed_wanted', ledgerq._shed_wanted(r, ledgerq._queue(r.queue)));
end $$;
comment on function ledgerq.heartbeat_run(jsonb) is
  '{run, delivery} → {disposition: applied|superseded, cancelled, shed_wanted}. Renews the lease, also one that has ended and was not judged.';

create function ledgerq._cancelled_held(p_run ledgerq.run) returns jsonb
language plpgsql stable set search_path = ''
as $$
begin
  return (
    select coalesce(jsonb_agg(t.id order by t.seq), '[]') from ledgerq.task t join ledgerq.job j on j.id = t.job_id
    where t.run_id = p_run.id and t.status = 'queued' and t.seq <= p_run.handed and j.cancel_requested_at is not null
  );
end $$;

create function ledgerq.shed(request jsonb) returns jsonb
language plpgsql set search_path = ''
as $$
declare
  v_id uuid := ledgerq._required_uuid(request, 'run');
  v_dispatch boolean := ledgerq._flag(request, 'dispatch', false);
  r ledgerq.run;
  v_released int;
begin
  select * into r from ledgerq.run x where x.id = v_id and x.status = 'running' for no key update skip locked;
  if not found then
    return jsonb_build_object('released', 0, 'runs', '[]'::jsonb, 'disposition',
      case when exists (select from ledgerq.run x where x.id = v_id) then 'superseded' else 'not_found' end);
  end if;
  perform ledgerq._lock_jobs(ledgerq._jobs_in_run(r.id, r.handed));
  v_released := ledgerq._give_back(r.id, r.handed, ledgerq.clock());
  update ledgerq.run x set size = x.handed where x.id = r.id and x.status = 'running';
  return jsonb_build_object('disposition', 'applied', 'released', v_released,
    'runs', case when v_released > 0 and v_dispatch then ledgerq._dispatch(r.queue, true) -> 'runs' else '[]' end);
end $$;
comment on function ledgerq.shed(jsonb) is
  '{run, dispatch?} → {disposition: applied|superseded|not_found, released, runs}. Un-handed tasks are in nobody''s hands: they go back. Passes by a run that is locked.';

revoke execute on all functions in schema ledgerq from public, anon, authenticated;
grant execute on all functions in schema ledgerq to service_role;
insert into ledgerq.schema_version (version, subject) values ('20261122010800', 'lease');
