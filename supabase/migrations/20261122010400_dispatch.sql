-- dispatch: which tasks go out next, and in which runs.
--
-- It takes only `skip locked` locks, so it never waits and may end any other function.

create function ledgerq._promote_due(p_queue text, p_now timestamptz) returns void
language plpgsql set search_path = ''
as $$
begin
  update ledgerq.task t set due_at = null
  where t.id in (
    select d.id from ledgerq.task d
    where d.queue = p_queue and d.status = 'pending' and not d.external and d.due_at <= p_now
    order by d.due_at limit 500
    for no key update skip locked
  );
end $$;
comment on function ledgerq._promote_due(text, timestamptz) is 'Tasks whose time has come enter the ready index, at most 500 a call.';

create function ledgerq._highest_ready(p_queue text, p_below int) returns smallint
language plpgsql stable set search_path = ''
as $$
begin
  -- The order can only come from the ready index, so no other is ever walked for this.
  return (
    select t.priority from ledgerq.task t
    where t.queue = p_queue and t.priority < p_below and t.status = 'pending' and t.due_at is null and not t.external
    order by t.priority desc limit 1
  );
end $$;
comment on function ledgerq._highest_ready(text, int) is 'The highest class below this one in which a task is ready; null when there is none.';

create function ledgerq._tenants_in_turn(p_queue text, p_class smallint, p_after text, p_most int) returns text[]
language plpgsql stable set search_path = ''
as $$
begin
  -- A loose index scan: one probe a tenant, whatever the number of their tasks.
  return (
    with recursive ahead as (
      (select t.tenant from ledgerq.task t
       where t.queue = p_queue and t.priority = p_class and t.status = 'pending' and t.due_at is null and not t.external
         and t.tenant > p_after
       order by t.tenant limit 1)
      union all
      select (select t.tenant from ledgerq.task t
              where t.queue = p_queue and t.priority = p_class and t.status = 'pending' and t.due_at is null and not t.external
                and t.tenant > a.tenant
              order by t.tenant limit 1)
      from ahead a where a.tenant is not null
    ), around as (
      (select t.tenant from ledgerq.task t
       where t.queue = p_queue and t.priority = p_class and t.status = 'pending' and t.due_at is null and not t.external
         and t.tenant <= p_after
       order by t.tenant limit 1)
      union all
      select (select t.tenant from ledgerq.task t
              where t.queue = p_queue and t.priority = p_class and t.status = 'pending' and t.due_at is null and not t.external
                and t.tenant > a.tenant and t.tenant <= p_after
              order by t.tenant limit 1)
      from around a where a.tenant is not null
    )
    select array(
      select x.tenant from (
        (select a.tenant, 1 as lap from ahead a where a.tenant is not null limit p_most)
        union all
        (select a.tenant, 2 from around a where a.tenant is not null limit p_most)
      ) x order by x.lap, x.tenant limit p_most
    )
  );
end $$;
comment on function ledgerq._tenants_in_turn(text, smallint, text, int) is 'Tenants with ready tasks in a class, from the one after the cursor, around.';

create function ledgerq._pick(p_queue text, p_class smallint, p_need int, p_after text, out ids bigint[], out last_tenant text)
language plpgsql set search_path = ''
as $$
declare
  v_tenants text[] := ledgerq._tenants_in_turn(p_queue, p_class, p_after, least(32, p_need));
  v_from bigint[] := array_fill(0::bigint, array[cardinality(v_tenants)]);
  -- Others come after these: the next dispatch begins with them.
  v_cursor text := case when cardinality(v_tenants) = least(32, p_need) then v_tenants[cardinality(v_tenants)] end;
  v_owners text[] := '{}';
  v_more record;
  v_quota int;
begin
  ids := '{}';
  while cardinality(ids) < p_need and cardinality(v_tenants) > 0 loop
    v_quota := ceil((p_need - cardinality(ids))::numeric / cardinality(v_tenants));
    with got as materialized (
      select x.tenant, x.place, p.id
      from unnest(v_tenants, v_from) with ordinality x(tenant, above, place)
      cross join lateral (
        select t.id from ledgerq.task t
        where t.queue = p_queue and t.priority = p_class and t.tenant = x.tenant
          and t.status = 'pending' and t.due_at is null and not t.external and t.id > x.above
          and (select j.cancel_requested_at from ledgerq.job j where j.id = t.job_id) is null
        order by t.id limit v_quota
        for no key update skip locked
      ) p
    ), has_more as (
      select g.tenant, min(g.place) as place, max(g.id) as above from got g group by g.tenant having count(*) = v_quota
    )
    select (select array_agg(g.id order by g.place, g.id) from got g) as ids,
           (select array_agg(g.tenant order by g.place, g.id) from got g) as owners,
           (select array_agg(h.tenant order by h.place) from has_more h) as tenants,
           (select array_agg(h.above order by h.place) from has_more h) as above
    into v_more;
    ids := ids || coalesce(v_more.ids, '{}');
    v_owners := v_owners || coalesce(v_more.owners, '{}');
    v_tenants := coalesce(v_more.tenants, '{}');
    v_from := coalesce(v_more.above, '{}');
  end loop;
  -- One of each tenant, then the second of each, and so on; the surplus of the last quota stays pending.
  select coalesce(array_agg(x.id order by x.nth, x.lap, x.tenant), '{}'),
         coalesce(v_cursor, (array_agg(x.tenant order by x.nth desc, x.lap desc, x.tenant desc))[1])
  into ids, last_tenant
  from (
    select u.id, u.tenant, row_number() over (partition by u.tenant order by u.id) as nth,
           case when u.tenant > p_after then 1 else 2 end as lap
    from (select z.id, z.tenant collate "C" as tenant from unnest(ids, v_owners) z(id, tenant)) u
    order by 3, 4, 2 limit p_need
  ) x;
end $$;
comment on function ledgerq._pick(text, smallint, int, text) is
  'At most p_need ready tasks of a class, locked: tenants in turn from the cursor (32 at most), inside a tenant the oldest first. What is left of a job that is being cancelled stays where it is.';

create function ledgerq._pick_all(p_queue text, p_need int) returns bigint[]
language plpgsql set search_path = ''
as $$
declare
  v_turn ledgerq.queue_turn;
  v_mine boolean;
  v_base bigint;
  v_left int := p_need;
  v_class int := 4;
  v_below int;
  v_picked record;
  v_ids bigint[] := '{}';
begin
  select * into v_turn from ledgerq.queue_turn t where t.queue = p_queue for no key update skip locked;
  v_mine := found;
  if not v_mine then
    select * into v_turn from ledgerq.queue_turn t where t.queue = p_queue;
  end if;
  v_base := coalesce(v_turn.picks, 0);
  while v_left > 0 loop
    v_class := ledgerq._highest_ready(p_queue, v_class);
    exit when v_class is null;
    -- Every fourth pick belongs to the classes below, as far as they have work; among those the same again.
    select least((v_base + v_left) / 4 - v_base / 4, count(*)) into v_below
    from (select from ledgerq.task t
          where t.queue = p_queue and t.priority < v_class and t.status = 'pending' and t.due_at is null and not t.external
          order by t.priority desc limit v_left / 4 + 1) x;
    v_base := v_base / 4;
    v_picked := ledgerq._pick(p_queue, v_class::smallint, v_left - v_below, coalesce(v_turn.tenants[4 - v_class], ''));
    continue when cardinality(v_picked.ids) = 0;
    v_ids := v_ids || v_picked.ids;
    v_left := v_left - cardinality(v_picked.ids);
    v_turn.tenants[4 - v_class] := v_picked.last_tenant;
  end loop;
  if v_mine and cardinality(v_ids) > 0 then
    update ledgerq.queue_turn t set picks = t.picks + cardinality(v_ids), tenants = v_turn.tenants where t.queue = p_queue;
  end if;
  return v_ids;
end $$;
comment on function ledgerq._pick_all(text, int) is 'At most p_need ready tasks of the queue, locked, in the order in which they go out.';

create function ledgerq._within_caps(p_queue ledgerq.queue, p_ids bigint[]) returns bigint[]
language plpgsql stable set search_path = ''
as $$
begin
  -- Jobs that already have a task in a live run are not counted twice, and always may go on.
  return (
    with busy as materialized (
      select distinct j.id, j.tenant from ledgerq.run r
      join ledgerq.task t on t.run_id = r.id and t.status = 'queued'
      join ledgerq.job j on j.id = t.job_id
      where r.queue = p_queue.name and r.status in ('dispatched', 'running')
    ), picked as (
      select p.place, t.id, t.job_id, t.tenant, b.id is not null as going, min(p.place) over (partition by t.job_id) as job_place
      from unnest(p_ids) with ordinality p(id, place)
      join ledgerq.task t on t.id = p.id
      left join busy b on b.id = t.job_id
    ), of_tenant as (
      select p.*, dense_rank() over (partition by p.tenant, p.going order by p.job_place)
                  + (select count(*) from busy b where b.tenant = p.tenant) as nth
      from picked p
    ), of_queue as (
      select o.*, dense_rank() over (partition by o.going order by o.job_place) + (select count(*) from busy) as nth_of_all
      from of_tenant o
      where o.going or p_queue.tenant_concurrent_jobs is null or o.nth <= p_queue.tenant_concurrent_jobs
    )
    select array(
      select q.id from of_queue q
      where q.going or p_queue.max_concurrent_jobs is null or q.nth_of_all <= p_queue.max_concurrent_jobs
      order by q.place
    )
  );
end $$;
comment on function ledgerq._within_caps(ledgerq.queue, bigint[]) is
  'What of the picked tasks the hard caps allow. Exact only under the advisory lock that dispatch holds.';

create function ledgerq._ticket(p_run ledgerq.run) returns jsonb
language plpgsql immutable set search_path = ''
as $$
begin
  return (
    select jsonb_build_object(
      'run', p_run.id, 'queue', p_run.queue, 'type', p_run.type, 'at_front', p_run.at_front, 'description', p_run.description,
      'job_ids', to_jsonb(p_run.job_ids), 'tasks', p_run.tasks, 'timeout_s', p_run.timeout_s)
  );
end $$;
comment on function ledgerq._ticket(ledgerq.run) is 'What is pushed to RQ for a run.';

create function ledgerq._cut(p_queue ledgerq.queue, p_ids bigint[], p_room int, p_now timestamptz) returns jsonb
language plpgsql set search_path = ''
as $$
declare
  -- Few tasks still spread over all workers.
  v_size int := least(greatest(ceil(cardinality(p_ids)::numeric / p_room), 1), p_queue.run_size);
  v_bytes constant int := 8 * 1024 * 1024;
  v_tickets jsonb;
  v_jobs uuid[];
  v_runs uuid[];
begin
  with picked as materialized (
    select p.place, t.id, t.job_id, t.payload_bytes, t.priority = 3 as front, case when t.alone then t.id end as lone, j.type, j.timeout_s
    from unnest(p_ids) with ordinality p(id, place)
    join ledgerq.task t on t.id = p.id
    join ledgerq.job j on j.id = t.job_id
    where t.status = 'pending'
  ), measured as (
    select k.*, row_number() over w - 1 as nth, sum(k.payload_bytes) over w - k.payload_bytes as bytes_before
    from picked k window w as (partition by k.front, k.type, k.lone order by k.place)
  ), parted as (
    select m.*, m.nth / v_size as part, m.bytes_before / v_bytes as bulk from measured m
  ), part as materialized (
    select p.front, p.type, p.lone, p.part, p.bulk, min(p.place) as place, gen_random_uuid() as run
    from parted p group by p.front, p.type, p.lone, p.part, p.bulk
    order by min(p.place) limit p_room
  ), member as materialized (
    select x.run, k.id, k.job_id, k.timeout_s, k.front, k.type, k.lone, x.place as run_place,
           row_number() over (partition by x.run order by k.place)::int as seq
    from parted k
    join part x on x.front = k.front and x.type = k.type and x.lone is not distinct from k.lone and x.part = k.part and x.bulk = k.bulk
  ), made as (
    insert into ledgerq.run (id, queue, type, at_front, alone, single_job, description, job_ids, tasks, timeout_s, size, created_at)
    select m.run, p_queue.name, m.type, bool_or(m.front), bool_or(m.lone is not null), min(m.job_id::text) = max(m.job_id::text),
      format('%s: %s of %s', m.type,
             case count(*) when 1 then '1 task' else count(*) || ' tasks' end,
             case when min(m.job_id::text) = max(m.job_id::text) then 'job ' || min(m.job_id::text) else count(distinct m.job_id) || ' jobs' end),
      (array_agg(distinct m.job_id))[1:10], count(*), p_queue.run_budget_s + max(m.timeout_s) + 60, count(*), p_now
    from member m group by m.run, m.type, m.run_place order by m.run_place
    returning *
  ), moved as (
    update ledgerq.task t set status = 'queued', run_id = m.run, seq = m.seq
    from member m where t.id = m.id and t.status = 'pending'
    returning t.job_id, t.run_id
  )
  select (select jsonb_agg(ledgerq._ticket(r) order by r.at_front desc, m.place) from made r join part m on m.run = r.id),
         (select array_agg(x.job_id) from moved x), (select array_agg(x.run_id) from moved x)
  into v_tickets, v_jobs, v_runs;
  perform ledgerq._mark_queued(v_jobs, v_runs);
  return coalesce(v_tickets, '[]');
end $$;
comment on function ledgerq._cut(ledgerq.queue, bigint[], int, timestamptz) is
  'Makes at most p_room runs of the locked tasks: one handler type a run, urgent apart, a task that must be alone by itself. The surplus stays pending.';

create function ledgerq._mark_queued(p_jobs uuid[], p_runs uuid[]) returns void
language plpgsql set search_path = ''
as $$
declare
  -- A job that somebody else has locked keeps its status for now; start_run corrects it.
  v_free uuid[] := array(
    select x.id from ledgerq.job x where x.id = any(p_jobs) and x.finished_at is null order by x.id for no key update skip locked
  );
begin
  with packed as materialized (
    select z.job, array_agg(distinct z.run) as runs from unnest(p_jobs, p_runs) z(job, run) where z.job = any(v_free) group by z.job
  )
  update ledgerq.job j set
    status = case j.status when 'pending' then 'queued' else j.status end, run_ids = (p.runs || j.run_ids)[1:100]
  from packed p where j.id = p.job and j.finished_at is null;
end $$;

create function ledgerq._dispatch(p_queue text, p_wait boolean default false) returns jsonb
language plpgsql set search_path = ''
as $$
declare
  q ledgerq.queue := ledgerq._queue(p_queue);
  v_now timestamptz := ledgerq.clock();
  v_room int;
  v_ids bigint[];
begin
  perform ledgerq._promote_due(q.name, v_now);
  if q.paused_at is not null then
    return '{"runs": [], "busy": false}';
  end if;
  -- A soft bound: two dispatches at once may each fill the same room.
  select q.depth - count(*) into v_room from ledgerq.run r where r.queue = q.name and r.status = 'dispatched';
  if v_room <= 0 then
    return '{"runs": [], "busy": false}';
  end if;
  if q.max_concurrent_jobs is not null or q.tenant_concurrent_jobs is not null then
    if p_wait then
      perform pg_advisory_xact_lock(hashtextextended('ledgerq.dispatch ' || q.name, 0));
    elsif not pg_try_advisory_xact_lock(hashtextextended('ledgerq.dispatch ' || q.name, 0)) then
      return '{"runs": [], "busy": true}';
    end if;
    v_ids := ledgerq._within_caps(q, ledgerq._pick_all(q.name, v_room * q.run_size));
  else
    v_ids := ledgerq._pick_all(q.name, v_room * q.run_size);
  end if;
  if cardinality(v_ids) = 0 then
    return '{"runs": [], "busy": false}';
  end if;
  return jsonb_build_object('runs', ledgerq._cut(q, v_ids, v_room, v_now), 'busy', false);
end $$;
comment on function ledgerq._dispatch(text, boolean) is
  'Packs ready tasks of a queue into runs, as far as its depth and caps allow. Waits for no row. p_wait: for whoever counts the caps, who waits for nobody from then on; for callers whose answer cannot say busy, since what they free is not seen by the other before they commit.';

create function ledgerq._dispatch_all(p_queues text[], p_wait boolean default false) returns jsonb
language plpgsql set search_path = ''
as $$
declare
  v_queue text;
  v_answer jsonb;
  v_runs jsonb := '[]';
  v_busy jsonb := '[]';
begin
  for v_queue in select distinct x from unnest(p_queues) x order by x loop
    v_answer := ledgerq._dispatch(v_queue, p_wait);
    v_runs := v_runs || (v_answer -> 'runs');
    if (v_answer -> 'busy')::boolean then
      v_busy := v_busy || to_jsonb(v_queue);
    end if;
  end loop;
  return jsonb_build_object('runs', v_runs, 'busy', v_busy);
end $$;

create function ledgerq.dispatch(request jsonb) returns jsonb
language plpgsql set search_path = ''
as $$
begin
  return ledgerq._dispatch(request ->> 'queue');
end $$;
comment on function ledgerq.dispatch(jsonb) is '{queue} → {runs: [ticket], busy}. Busy: the caps are being counted elsewhere; call again.';

create function ledgerq.dispatch_due(request jsonb) returns jsonb
language plpgsql set search_path = ''
as $$
declare
  v_limit int := coalesce(ledgerq._integer(request, 'limit', 1, 1000), 100);
  v_now timestamptz := ledgerq.clock();
  v_queues text[];
  v_answer jsonb;
begin
  v_queues := array(
    select q.name from ledgerq.queue q
    where q.paused_at is null and (
      ledgerq._highest_ready(q.name, 4) is not null
        and q.depth > (select count(*) from ledgerq.run r where r.queue = q.name and r.status = 'dispatched')
      or v_now >= (select t.due_at from ledgerq.task t where t.queue = q.name and t.status = 'pending' and t.due_at is not null and not t.external
                   order by t.due_at limit 1))
    -- In no fixed order: queues that cannot go on under their caps stand in front of no other for ever.
    order by random() limit v_limit);
  v_answer := ledgerq._dispatch_all(v_queues);
  return jsonb_build_object(
    'runs', v_answer -> 'runs', 'busy', v_answer -> 'busy' <> '[]',
    'now', v_now, 'next_due_at', (
      select min(d.due_at) from ledgerq.queue q
      cross join lateral (
        select t.due_at from ledgerq.task t
        where t.queue = q.name and t.status = 'pending' and t.due_at is not null and not t.external
        order by t.due_at limit 1) d
      where q.paused_at is null));
end $$;
comment on function ledgerq.dispatch_due(jsonb) is
  '{limit?} → {runs, busy, next_due_at, now}: dispatch of every queue with ready tasks and room for them, or with due tasks, at most limit queues. The steward''s tick.';

revoke execute on all functions in schema ledgerq from public, anon, authenticated;
grant execute on all functions in schema ledgerq to service_role;
insert into ledgerq.queue_turn (queue) values ('processing');
insert into ledgerq.schema_version (version, subject) values ('20261122010400', 'dispatch');
