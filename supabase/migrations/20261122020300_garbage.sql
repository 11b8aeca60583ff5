-- Garbage: points that no reader sees and nobody builds on any more, and documents that were deleted.
--
-- A generation leaves only when its points were counted gone twice, a lease apart, and the first count came after every run
-- that was handed it had ended. So a worker that was presumed dead and still writes for up to a lease leaves nothing behind.
-- `check_at` gives every row its next look: what cannot be removed yet never stands in front of what can, and two sweepers
-- do not work on the same rows. Everything here locks documents only, in ascending id.

create function ledgerq.garbage(request jsonb) returns jsonb
language plpgsql set search_path = '' as $$
declare
  v_limit int := coalesce(ledgerq._integer(request, 'limit', 1, 1000), 100);
  v_grace interval := ledgerq._seconds(coalesce(ledgerq._number(request, 'reader_grace_s', 0, 86400), 60));
  v_due bigint[];
  v_documents uuid[];
  v_now timestamptz;
begin
  perform ledgerq._purge_tombstones(v_limit);
  v_now := ledgerq.clock();
  v_due := array(select g.id from ledgerq.generation as g where g.check_at <= v_now order by g.check_at limit v_limit);
  v_documents := ledgerq._lock_free_documents(
    array(select distinct g.document_id from ledgerq.generation as g where g.id = any (v_due))
  );
  v_due := array(select g.id from ledgerq.generation as g where g.id = any (v_due) and g.document_id = any (v_documents));
  v_now := ledgerq.clock();
  perform ledgerq._give_up_builds(v_due, v_now - v_grace, v_now);
  return jsonb_build_object('items', ledgerq._take_garbage(v_due, v_grace, v_now));
end $$;
comment on function ledgerq.garbage(jsonb) is
  '{limit (at most 1,000), reader_grace_s = 60} -> {items: [{document, generation, tenant}]} to remove, then to report to garbage_gone; what is not reported comes again after a lease';

-- A document that somebody works with is looked at next time.
create function ledgerq._lock_free_documents(p_documents uuid[]) returns uuid[]
language sql set search_path = '' as $$
  select array(
    select d.id from ledgerq.document as d where d.id = any (p_documents) order by d.id for no key update skip locked
  )
$$;

-- Begun, never finished, and no task is left that would go on with it.
create function ledgerq._give_up_builds(p_generations bigint[], p_begun_before timestamptz, p_now timestamptz) returns void
language sql set search_path = '' as $$
  update ledgerq.generation as g set garbage_since = p_now
  where g.id = any (p_generations) and g.garbage_since is null and g.live_since is null and g.begun_at <= p_begun_before
    and not exists (select from ledgerq.task as t where t.document_id = g.document_id and t.status in ('pending', 'queued'))
$$;

create function ledgerq._take_garbage(p_generations bigint[], p_grace interval, p_now timestamptz) returns jsonb
language plpgsql set search_path = '' as $$
declare
  v_items jsonb;
begin
  with judged as (
    select
      g.id,
      case
        -- Still wanted, or begun a moment ago. The longer it has been going on, the less often it is asked about.
        when g.garbage_since is null then p_now + least(greatest(p_grace, (p_now - g.begun_at) / 4), interval '10 minutes')
        when g.live_since is not null and g.garbage_since > p_now - p_grace then g.garbage_since + p_grace
        when ledgerq._still_written(g.document_id, g.garbage_since) then p_now + ledgerq._longest_lease() / 2
      end as later
    from ledgerq.generation as g
    where g.id = any (p_generations) and g.check_at <= p_now
  ), looked_at as (
    update ledgerq.generation as g set check_at = coalesce(j.later, p_now + ledgerq._longest_lease())
    from judged as j
    where g.id = j.id
    returning g.document_id, g.id, j.later is null as listed
  )
  select jsonb_agg(jsonb_build_object('document', d.id, 'generation', l.id, 'tenant', d.tenant) order by l.id) into v_items
  from looked_at as l join ledgerq.document as d on d.id = l.document_id
  where l.listed;
  return coalesce(v_items, '[]');
end $$;

-- A run that started after the generation became garbage was never handed it.
create function ledgerq._still_written(p_document uuid, p_garbage_since timestamptz) returns boolean
language sql stable set search_path = '' as $$
  select exists (
    select from ledgerq.task as t join ledgerq.run as r on r.id = t.run_id
    where t.document_id = p_document and t.status = 'queued' and t.seq <= r.handed and r.started_at <= p_garbage_since
  )
$$;

create function ledgerq._longest_lease() returns interval
language sql stable set search_path = '' as $$
  select ledgerq._seconds(coalesce(max(q.lease_s), 20)) from ledgerq.queue as q
$$;

-- Counted --------------------------------------------------------------------------------------------------------------

create function ledgerq.garbage_gone(request jsonb) returns jsonb
language plpgsql set search_path = '' as $$
declare
  v_items jsonb := ledgerq._checked_counts(ledgerq._array(request, 'items', 1000));
  v_documents uuid[] := array(select distinct (i ->> 'document')::uuid from jsonb_array_elements(v_items) as i);
  v_now timestamptz;
  v_answer jsonb;
begin
  perform from ledgerq.document where id = any (v_documents) order by id for no key update;
  v_now := ledgerq.clock();
  v_answer := ledgerq._sightings(v_items, v_now);
  update ledgerq.generation as g set
    empty_seen_at = case i ->> 'disposition' when 'remaining' then null else v_now end,
    check_at = case i ->> 'disposition' when 'remaining' then v_now else v_now + ledgerq._longest_lease() end
  from jsonb_array_elements(v_answer) as i
  where g.id = (i ->> 'generation')::bigint and i ->> 'disposition' in ('remaining', 'seen');
  delete from ledgerq.generation as g using jsonb_array_elements(v_answer) as i
  where g.id = (i ->> 'generation')::bigint and i ->> 'disposition' = 'gone';
  -- The last of a deleted document's points may have gone with it.
  update ledgerq.document set check_at = v_now where id = any (v_documents) and deleted_at is not null;
  return jsonb_build_object('items', v_answer);
end $$;
comment on function ledgerq.garbage_gone(jsonb) is
  '{items: [{document, generation, remaining}] (at most 1,000)} -> {items: [{document, generation, disposition: gone|seen|too_soon|remaining|not_found}]}; gone at the second count of 0, a lease after the first';

create function ledgerq._checked_counts(p_items jsonb) returns jsonb
language plpgsql immutable set search_path = '' as $$
declare
  v_wrong record;
begin
  select 'items[' || (e.position - 1) || '].' || rule.field as field, rule.value, rule.want into v_wrong
  from jsonb_array_elements(p_items) with ordinality as e (item, position)
  cross join lateral (
    values
    ('document', e.item ->> 'document', 'a uuid', ledgerq._is_uuid(e.item ->> 'document')),
    ('generation', e.item ->> 'generation', 'a generation''s number', e.item ->> 'generation' ~ '^[0-9]{1,18}$'),
    ('remaining', e.item ->> 'remaining', 'a number of points', e.item ->> 'remaining' ~ '^[0-9]{1,18}$')
  ) as rule (field, value, want, holds)
  where rule.holds is not true
  limit 1;
  if found then
    perform ledgerq._invalid(v_wrong.field, v_wrong.value, v_wrong.want);
  end if;
  return p_items;
end $$;

create function ledgerq._sightings(p_items jsonb, p_now timestamptz) returns jsonb
language sql stable set search_path = '' as $$
  select coalesce(jsonb_agg(jsonb_build_object(
    'document', item.document, 'generation', item.generation, 'disposition', case
      when g.garbage_since is null then 'not_found'  -- removed already, or never garbage: nothing to count
      when item.remaining > 0 then 'remaining'
      when ledgerq._still_written(g.document_id, g.garbage_since) then 'too_soon'
      when g.empty_seen_at is null then 'seen'
      when g.empty_seen_at <= p_now - ledgerq._longest_lease() then 'gone'
      else 'too_soon'
    end
  ) order by item.generation), '[]')
  from (
    select (i ->> 'document')::uuid as document, (i ->> 'generation')::bigint as generation, max((i ->> 'remaining')::bigint) as remaining
    from jsonb_array_elements(p_items) as i
    group by 1, 2
  ) as item
  left join ledgerq.generation as g on g.id = item.generation and g.document_id = item.document
$$;

-- Tombstones -------------------------------------------------------------------------------------------------------------

create function ledgerq._purge_tombstones(p_limit int) returns void
language plpgsql set search_path = '' as $$
declare
  v_now timestamptz := ledgerq.clock();
  v_documents uuid[] := ledgerq._lock_free_documents(array(
    select d.id from ledgerq.document as d where d.check_at <= v_now order by d.check_at limit p_limit
  ));
begin
  delete from ledgerq.document as d
  where d.id = any (v_documents) and d.deleted_at is not null
    and not exists (select from ledgerq.generation as g where g.document_id = d.id)
    and not exists (select from ledgerq.task as t where t.document_id = d.id and t.status in ('pending', 'queued'));
  -- Points first: garbage_gone asks for another look when it counts the last of them gone.
  update ledgerq.document as d set check_at = v_now + greatest(interval '1 minute', (v_now - d.deleted_at) / 4)
  where d.id = any (v_documents) and d.deleted_at is not null;
end $$;

revoke execute on all functions in schema ledgerq from public, anon, authenticated;
grant execute on all functions in schema ledgerq to service_role;
insert into ledgerq.schema_version (version, subject) values ('20261122020300', 'garbage');
