-- Documents: looking at them, and deleting them.

-- Reading documents --------------------------------------------------------------------------------------------------

create function ledgerq.missing_documents(request jsonb) returns jsonb
language plpgsql stable set search_path = '' as $$
declare
  v_wanted uuid[] := ledgerq._uuids(request, 'documents', 5000);
  v_tenant text := ledgerq._text(request, 'tenant', 200);
begin
  return jsonb_build_object('missing', coalesce((
    select jsonb_agg(w.id order by w.id)
    from (select distinct unnest(v_wanted) as id) as w
    where not exists (
      select from ledgerq.document as d
      where d.id = w.id and d.deleted_at is null and (v_tenant is null or d.tenant = v_tenant)
    )
  ), '[]'));
end $$;
comment on function ledgerq.missing_documents(jsonb) is
  '{documents (at most 5,000), tenant?} -> {missing}: those unknown or deleted, or of another tenant when one is named';

create function ledgerq.document_get(request jsonb) returns jsonb
language plpgsql stable set search_path = '' as $$
declare
  v_id uuid := ledgerq._required_uuid(request, 'document');
begin
  return (
    select ledgerq._document_records(array[v_id]) -> 0 || jsonb_build_object('body', d.body, 'metadata', d.metadata)
    from ledgerq.document as d where d.id = v_id
  );
end $$;
comment on function ledgerq.document_get(jsonb) is '{document} -> the document with its body, or null';

create function ledgerq.document_list(request jsonb) returns jsonb
language plpgsql stable set search_path = '' as $$
declare
  v_limit int := coalesce(ledgerq._integer(request, 'limit', 1, 500), 100);
  v_conditions text[] := array[
    case when request ->> 'source' is not null then 'd.source_id = $1' end,
    case when request ->> 'owner' is not null then 'd.owner_id = $2' end,
    case when request ->> 'tenant' is not null then 'd.tenant = $3' end,
    case when request ->> 'after' is not null then 'd.id > $4' end
  ];
  v_ids uuid[];
begin
  -- The conditions are our own constants; only those that were asked for, so that each shape gets its index.
  execute 'select array(select d.id from ledgerq.document as d '
    || coalesce('where ' || nullif(array_to_string(v_conditions, ' and '), ''), '') || ' order by d.id limit $5)'
  into v_ids
  using ledgerq._uuid(request, 'source'), ledgerq._uuid(request, 'owner'), ledgerq._text(request, 'tenant', 200),
    ledgerq._uuid(request, 'after'), v_limit;
  return jsonb_build_object(
    'documents', ledgerq._document_records(v_ids), 'next', case when cardinality(v_ids) = v_limit then v_ids[v_limit] end
  );
end $$;
comment on function ledgerq.document_list(jsonb) is
  '{tenant?, source?, owner?, after?, limit (at most 500)} -> {documents (without bodies), next} in the order of their ids; tombstones included';

create function ledgerq._document_records(p_documents uuid[]) returns jsonb
language sql stable set search_path = '' as $$
  select coalesce(jsonb_agg(jsonb_build_object(
    'id', d.id, 'tenant', d.tenant, 'owner', d.owner_id, 'project', d.project, 'source', d.source_id, 'uri', d.uri,
    'title', d.title, 'content_type', d.content_type, 'content_hash', d.content_hash, 'byte_size', d.byte_size,
    'revision', d.revision, 'live_generation', d.live_generation, 'live_revision', d.live_revision,
    'live_since', d.live_since, 'deleted_at', d.deleted_at, 'created_at', d.created_at, 'updated_at', d.updated_at,
    'points', g.points, 'chunks', g.chunks,
    -- Work in hand outweighs what is there: a document that is being made again is not done yet.
    'status', case
      when d.deleted_at is not null then 'deleted'
      when open.held > 0 then 'processing'
      when open.tasks > 0 then 'pending'
      when d.live_revision = d.revision then 'indexed'
      when last.status in ('failed', 'cancelled') then 'failed'
      else 'pending'
    end,
    'error', case
      when d.deleted_at is not null or open.tasks > 0 or last.finished_at <= d.live_since then null
      when last.status = 'failed' then last.error
      when last.status = 'cancelled' and d.live_revision is distinct from d.revision
        then jsonb_build_object('type', 'Cancelled', 'message', 'The job was cancelled before this document was processed.')
    end
  ) order by d.id), '[]')
  from ledgerq.document as d
  left join ledgerq.generation as g on g.id = d.live_generation
  cross join lateral (
    select count(*) as tasks, count(*) filter (where t.status = 'queued' and r.status = 'running' and t.seq <= r.handed) as held
    from ledgerq.task as t left join ledgerq.run as r on r.id = t.run_id
    where t.document_id = d.id and t.status in ('pending', 'queued')
  ) as open
  left join lateral (
    select t.status, t.error, t.finished_at from ledgerq.task as t
    -- Not by the bare id: a plan made while the table was small would walk the primary key for the order.
    where t.document_id = d.id order by t.id + 0 desc limit 1
  ) as last on true
  where d.id = any (p_documents)
$$;

-- Deleting -----------------------------------------------------------------------------------------------------------

create function ledgerq.delete_documents(request jsonb) returns jsonb
language plpgsql set search_path = '' as $$
declare
  v_asked uuid[] := ledgerq._uuids(request, 'documents', 1000);
  v_actor text := ledgerq._text(request, 'actor', 200);
  v_known uuid[];
  v_now timestamptz;
begin
  perform from ledgerq.document where id = any (v_asked) order by id for no key update;
  v_now := ledgerq.clock();
  v_known := array(select d.id from ledgerq.document as d where d.id = any (v_asked));
  -- The text goes at once; the row stays as a tombstone, which fences whoever still works on the document.
  update ledgerq.document set
    deleted_at = v_now, deleted_by = v_actor, check_at = v_now, updated_at = v_now, body = body - 'text', metadata = '{}'
  where id = any (v_known) and deleted_at is null;
  update ledgerq.generation set garbage_since = v_now, check_at = v_now
  where document_id = any (v_known) and garbage_since is null;
  return jsonb_build_object('documents', coalesce((
    select jsonb_agg(jsonb_build_object('id', a.id, 'disposition', case when a.id = any (v_known) then 'applied' else 'not_found' end) order by a.id)
    from (select distinct unnest(v_asked) as id) as a
  ), '[]'));
end $$;
comment on function ledgerq.delete_documents(jsonb) is
  '{documents (at most 1,000), actor} -> {documents: [{id, disposition: applied|not_found}]}; readers stop seeing them at once, points follow';

revoke execute on all functions in schema ledgerq from public, anon, authenticated;
grant execute on all functions in schema ledgerq to service_role;
insert into ledgerq.schema_version (version, subject) values ('20261122020100', 'document reads');
