-- Sources and documents: saving them.
--
-- A document's identity is (tenant, source, uri). New content under it is a new revision: whatever is being made from the
-- older one can no longer become live. Everything here locks documents only, in ascending id.

-- Sources ------------------------------------------------------------------------------------------------------------

create function ledgerq.save_source(request jsonb) returns jsonb
language plpgsql set search_path = '' as $$
declare
  v_source ledgerq.source;
  v_found ledgerq.source;
  v_disposition text := 'created';
begin
  v_source := ledgerq._requested_source(request);
  insert into ledgerq.source values (v_source.*) on conflict do nothing;
  if not found then
    select * into v_found from ledgerq.source where id = v_source.id for no key update;
    if v_found.tenant is distinct from v_source.tenant then
      perform ledgerq._invalid('id', v_source.id::text, 'free: a source of another tenant has it');
    end if;
    update ledgerq.source set
      owner_id = v_source.owner_id, project = v_source.project, kind = v_source.kind, uri = v_source.uri,
      details = v_source.details, updated_at = v_source.updated_at
    where id = v_source.id
      and (owner_id, project, kind, uri, details)
        is distinct from (v_source.owner_id, v_source.project, v_source.kind, v_source.uri, v_source.details);
    v_disposition := case when found then 'changed' else 'unchanged' end;
  end if;
  return jsonb_build_object('source', v_source.id, 'disposition', v_disposition);
end $$;
comment on function ledgerq.save_source(jsonb) is
  '{id, tenant, owner, project, kind, uri?, details} -> {source, disposition: created|changed|unchanged}';

create function ledgerq._requested_source(request jsonb) returns ledgerq.source
language plpgsql set search_path = '' as $$
declare
  v_source ledgerq.source;
begin
  v_source.id := ledgerq._required_uuid(request, 'id');
  v_source.tenant := coalesce(ledgerq._text(request, 'tenant', 200), '');
  v_source.owner_id := ledgerq._uuid(request, 'owner');
  v_source.project := ledgerq._text(request, 'project', 200);
  v_source.kind := ledgerq._name(request, 'kind');
  v_source.uri := ledgerq._text(request, 'uri', 4000);
  v_source.details := coalesce(ledgerq._object(request, 'details', 65536), '{}');
  v_source.created_at := ledgerq.clock();
  v_source.updated_at := v_source.created_at;
  return v_source;
end $$;

create function ledgerq.source_get(request jsonb) returns jsonb
language plpgsql stable set search_path = '' as $$
begin
  return (
    select jsonb_build_object(
      'id', s.id, 'tenant', s.tenant, 'owner', s.owner_id, 'project', s.project, 'kind', s.kind, 'uri', s.uri,
      'details', s.details, 'status', ledgerq._source_status(s.id), 'documents', least(counted.documents, 10000),
      'documents_more', counted.documents > 10000, 'created_at', s.created_at, 'updated_at', s.updated_at
    )
    from ledgerq.source as s
    cross join lateral (
      select count(*) as documents
      from (select from ledgerq.document as d where d.source_id = s.id and d.deleted_at is null limit 10001) as bounded
    ) as counted
    where s.id = ledgerq._required_uuid(request, 'source')
  );
end $$;
comment on function ledgerq.source_get(jsonb) is
  '{source} -> the source with status pending|crawling|processing|completed|partial|failed and its documents (counted to 10,000), or null';

-- An open job says what is going on; otherwise the newest job says how it went.
create function ledgerq._source_status(p_source uuid) returns text
language sql stable set search_path = '' as $$
  select coalesce(
    (
      select case when j.external then 'crawling' else 'processing' end
      from ledgerq.job as j
      where j.source_id = p_source and j.status in ('pending', 'queued', 'in_progress')
      order by j.external limit 1
    ),
    (
      select case j.status when 'cancelled' then 'failed' else j.status end
      from ledgerq.job as j
      where j.source_id = p_source
      order by j.created_at desc, j.id desc limit 1
    ),
    'pending'
  )
$$;

-- Saving documents ---------------------------------------------------------------------------------------------------

create function ledgerq.save_documents(request jsonb) returns jsonb
language plpgsql set search_path = '' as $$
declare
  v_tenant text := coalesce(ledgerq._text(request, 'tenant', 200), '');
  v_owner uuid := ledgerq._uuid(request, 'owner');
  v_project text := ledgerq._text(request, 'project', 200);
  v_source uuid := ledgerq._uuid(request, 'source');
  v_documents jsonb := ledgerq._checked_documents(ledgerq._array(request, 'documents', 500));
  v_saved jsonb[] := '{}';
  v_now timestamptz;
begin
  perform ledgerq._check_source(v_source, v_tenant);
  -- First what is new, then locks on all of it: in between, whoever saves the same documents waits for one or the other, and
  -- each of the two has its own order, which everybody keeps.
  perform ledgerq._insert_documents(v_tenant, v_owner, v_project, v_source, v_documents);
  perform ledgerq._lock_identities(v_tenant, v_source, v_documents);
  v_now := ledgerq.clock();
  for i in 0 .. jsonb_array_length(v_documents) - 1 loop
    v_saved[i] := ledgerq._save_document(ledgerq._requested_document(v_tenant, v_owner, v_project, v_source, v_documents -> i, v_now), i);
  end loop;
  return jsonb_build_object('documents', to_jsonb(v_saved));
end $$;
comment on function ledgerq.save_documents(jsonb) is
  '{tenant, owner, project, source?, documents} -> {documents: [{id, uri, revision, disposition: created|changed|unchanged}]} in the order given; repeatable';

create function ledgerq._checked_documents(p_documents jsonb) returns jsonb
language plpgsql set search_path = '' as $$
declare
  v_wrong record;
begin
  select * into v_wrong from ledgerq._wrong_documents(p_documents) limit 1;
  if found then
    perform ledgerq._invalid(v_wrong.field, v_wrong.value, v_wrong.want);
  end if;
  perform ledgerq._check_document_sizes(p_documents);
  return p_documents;
end $$;

create function ledgerq._is_text(p_value jsonb, p_longest int) returns boolean
language sql immutable set search_path = '' as $$
  select coalesce(jsonb_typeof(p_value) = 'string' and length(p_value #>> '{}') between 1 and p_longest, false)
$$;

create function ledgerq._is_text_or_none(p_value jsonb, p_longest int) returns boolean
language sql immutable set search_path = '' as $$
  select coalesce(jsonb_typeof(p_value), 'null') = 'null'
    or (jsonb_typeof(p_value) = 'string' and length(p_value #>> '{}') <= p_longest)
$$;

create function ledgerq._wrong_documents(p_documents jsonb)
returns table (field text, value text, want text)
language sql immutable set search_path = '' as $$
  select 'documents[' || (e.position - 1) || ']' || rule.field, rule.value, rule.want
  from jsonb_array_elements(p_documents) with ordinality as e (document, position)
  -- What would be said of it, without writing out the texts of all that are right.
  cross join lateral (
    select
      e.document -> 'body' as body,
      case when jsonb_typeof(e.document) <> 'object' then e.document::text end as itself,
      case jsonb_typeof(e.document -> 'body') when 'object' then (e.document -> 'body') - 'text' else e.document -> 'body' end as shape
  ) as b
  cross join lateral (
    values
    ('', b.itself, 'an object', jsonb_typeof(e.document) = 'object'),
    ('.id', e.document ->> 'id', 'a uuid', ledgerq._is_uuid(e.document ->> 'id')),
    ('.uri', e.document ->> 'uri', 'a text of 1 to 4000 characters',
      jsonb_typeof(e.document -> 'uri') = 'string' and length(e.document ->> 'uri') between 1 and 4000),
    ('.title', e.document ->> 'title', 'a text of at most 2000 characters',
      ledgerq._is_text_or_none(e.document -> 'title', 2000)),
    ('.content_type', e.document ->> 'content_type', 'a text of at most 200 characters',
      ledgerq._is_text_or_none(e.document -> 'content_type', 200)),
    ('.content_hash', e.document ->> 'content_hash', 'the SHA-256 of the bytes in lower-case hexadecimal',
      e.document ->> 'content_hash' ~ '^[0-9a-f]{64}$'),
    ('.byte_size', e.document ->> 'byte_size', 'a number of bytes',
      e.document ->> 'byte_size' ~ '^[0-9]{1,15}$'),
    ('.metadata', e.document ->> 'metadata', 'an object',
      coalesce(jsonb_typeof(e.document -> 'metadata'), 'null') in ('object', 'null')),
    ('.body', b.shape::text, '{kind: inline, text}, {kind: file, path} or {kind: storage, bucket, path}',
      case b.body ->> 'kind'
        when 'inline' then jsonb_typeof(b.body -> 'text') = 'string'
        when 'file' then ledgerq._is_text(b.body -> 'path', 4000)
        when 'storage' then ledgerq._is_text(b.body -> 'path', 4000) and ledgerq._is_text(b.body -> 'bucket', 200)
        else false
      end)
  ) as rule (field, value, want, holds)
  where rule.holds is not true
$$;

create function ledgerq._check_document_sizes(p_documents jsonb) returns void
language plpgsql set search_path = '' as $$
declare
  v_large record;
begin
  select * into v_large
  from (
    select
      'documents[' || (e.position - 1) || '].body.text' as field, octet_length(e.document #>> '{body,text}') as bytes,
      1048576 as most, 'Store the text as a file or in Supabase Storage, and give its path.' as hint
    from jsonb_array_elements(p_documents) with ordinality as e (document, position)
    union all
    select 'documents[' || (e.position - 1) || '].metadata', octet_length(e.document ->> 'metadata'), 65536, 'Keep metadata small.'
    from jsonb_array_elements(p_documents) with ordinality as e (document, position)
    union all
    select 'documents', octet_length(p_documents::text), 33554432, 'Save them in several calls.'
  ) as sizes
  where sizes.bytes > sizes.most
  limit 1;
  if found then
    perform ledgerq._too_large(v_large.field, v_large.bytes, v_large.most, 'bytes', v_large.hint);
  end if;
end $$;

create function ledgerq._check_source(p_source uuid, p_tenant text) returns void
language plpgsql set search_path = '' as $$
declare
  v_tenant text;
begin
  if p_source is null then
    return;
  end if;
  select s.tenant into v_tenant from ledgerq.source as s where s.id = p_source;
  if v_tenant is distinct from p_tenant then  -- also when there is none: whether others have it is not ours to tell
    raise exception 'source: there is no source % of tenant %', p_source, quote_literal(p_tenant)
      using errcode = 'LQ005', hint = 'Save the source first, with save_source.';
  end if;
end $$;

create function ledgerq._uri_digest(p_uri text) returns bytea
language sql immutable set search_path = '' as $$
  select sha256(decode(replace(p_uri, '\', '\\'), 'escape'))
$$;
comment on function ledgerq._uri_digest(text) is 'As the generated column document.uri_digest has it.';

create function ledgerq._document_of(p_tenant text, p_source uuid, p_uri text) returns uuid
language plpgsql stable set search_path = '' as $$
begin
  -- By the digest and nothing else: with `tenant = …` a plan made while the table was small reads all of the tenant's documents.
  return (
    select d.id from ledgerq.document as d
    where d.uri_digest = ledgerq._uri_digest(p_uri) and d.tenant || '' = p_tenant and d.source_id is not distinct from p_source
  );
end $$;

create function ledgerq._lock_identities(p_tenant text, p_source uuid, p_documents jsonb) returns void
language plpgsql set search_path = '' as $$
declare
  v_ids uuid[] := array(
    select ledgerq._document_of(p_tenant, p_source, e.document ->> 'uri') from jsonb_array_elements(p_documents) as e (document)
  );
begin
  perform from ledgerq.document where id = any (v_ids) order by id for no key update;
end $$;

create function ledgerq._requested_document(
  p_tenant text, p_owner uuid, p_project text, p_source uuid, p_document jsonb, p_now timestamptz
) returns ledgerq.document
language plpgsql immutable set search_path = '' as $$
declare
  v_document ledgerq.document;
  v_body jsonb := p_document -> 'body';
begin
  v_document.id := (p_document ->> 'id')::uuid;
  v_document.tenant := p_tenant;
  v_document.owner_id := p_owner;
  v_document.project := p_project;
  v_document.source_id := p_source;
  v_document.uri := p_document ->> 'uri';
  v_document.title := p_document ->> 'title';
  v_document.content_type := p_document ->> 'content_type';
  v_document.content_hash := p_document ->> 'content_hash';
  v_document.byte_size := (p_document ->> 'byte_size')::bigint;
  v_document.metadata := coalesce(nullif(p_document -> 'metadata', 'null'), '{}');
  v_document.updated_at := p_now;
  v_document.body := case v_body ->> 'kind'
    when 'inline' then jsonb_build_object('kind', 'inline', 'text', v_body -> 'text')
    when 'file' then jsonb_build_object('kind', 'file', 'path', v_body -> 'path')
    else jsonb_build_object('kind', 'storage', 'bucket', v_body -> 'bucket', 'path', v_body -> 'path')
  end;
  return v_document;
end $$;

create function ledgerq._insert_documents(p_tenant text, p_owner uuid, p_project text, p_source uuid, p_documents jsonb) returns void
language sql set search_path = '' as $$
  insert into ledgerq.document (
    id, tenant, owner_id, project, source_id, uri, title, content_type, content_hash, byte_size, body, metadata, changed_under,
    created_at, updated_at
  )
  select
    d.id, d.tenant, d.owner_id, d.project, d.source_id, d.uri, d.title, d.content_type, d.content_hash, d.byte_size, d.body, d.metadata,
    d.id, d.updated_at, d.updated_at
  from (
    select distinct on (e.document ->> 'uri' collate "C") e.document
    from jsonb_array_elements(p_documents) with ordinality as e (document, position)
    where ledgerq._document_of(p_tenant, p_source, e.document ->> 'uri') is null
    order by e.document ->> 'uri' collate "C", e.position
  ) as new
  cross join ledgerq._requested_document(p_tenant, p_owner, p_project, p_source, new.document, ledgerq.clock()) as d
  order by d.uri collate "C"
  on conflict do nothing
$$;

create function ledgerq._save_document(p_new ledgerq.document, p_place int) returns jsonb
language plpgsql set search_path = '' as $$
declare
  v_known ledgerq.document;
begin
  select * into v_known from ledgerq.document as d
  where d.id = ledgerq._document_of(p_new.tenant, p_new.source_id, p_new.uri);
  if found then
    return ledgerq._save_known(v_known, p_new);
  end if;
  if exists (select from ledgerq.document as d where d.id = p_new.id) then
    perform ledgerq._invalid(format('documents[%s].id', p_place), p_new.id::text, 'free: another document has it');
  end if;
  raise exception 'document % was being removed while it was saved', quote_literal(p_new.uri)
    using errcode = '40001', hint = 'Repeat the call.';
end $$;

create function ledgerq._save_known(p_known ledgerq.document, p_new ledgerq.document) returns jsonb
language plpgsql set search_path = '' as $$
begin
  if p_known.changed_under = p_new.id then
    -- The repeat of a save whose reply was lost: what it did is what it answers, even if the document was deleted since.
    return ledgerq._saved(p_known.id, p_known.uri, p_known.revision, case when p_known.id = p_new.id then 'created' else 'changed' end);
  end if;
  -- The same bytes declared as something else are read as something else.
  if p_known.content_hash = p_new.content_hash and p_known.content_type is not distinct from p_new.content_type
    and p_known.deleted_at is null then
    perform ledgerq._describe_document(p_known, p_new);
    return ledgerq._saved(p_known.id, p_known.uri, p_known.revision, 'unchanged');
  end if;
  perform ledgerq._change_document(p_known, p_new);
  return ledgerq._saved(p_known.id, p_known.uri, p_known.revision + 1, 'changed');
end $$;

create function ledgerq._saved(p_id uuid, p_uri text, p_revision int, p_disposition text) returns jsonb
language sql immutable set search_path = '' as $$
  select jsonb_build_object('id', p_id, 'uri', p_uri, 'revision', p_revision, 'disposition', p_disposition)
$$;

create function ledgerq._describe_document(p_known ledgerq.document, p_new ledgerq.document) returns void
language sql set search_path = '' as $$
  update ledgerq.document set
    owner_id = coalesce(p_new.owner_id, owner_id), project = coalesce(p_new.project, project), title = p_new.title,
    byte_size = p_new.byte_size, body = p_new.body, metadata = p_new.metadata,
    updated_at = p_new.updated_at
  where id = p_known.id
    and (
      coalesce(p_new.owner_id, owner_id), coalesce(p_new.project, project), p_new.title, p_new.byte_size, p_new.body, p_new.metadata
    ) is distinct from (owner_id, project, title, byte_size, body, metadata)
$$;

create function ledgerq._change_document(p_known ledgerq.document, p_new ledgerq.document) returns void
language plpgsql set search_path = '' as $$
declare
  v_risen boolean := p_known.deleted_at is not null;
begin
  update ledgerq.document set
    owner_id = coalesce(p_new.owner_id, owner_id), project = coalesce(p_new.project, project), title = p_new.title,
    content_type = p_new.content_type, content_hash = p_new.content_hash, byte_size = p_new.byte_size, body = p_new.body,
    metadata = p_new.metadata, revision = revision + 1, changed_under = p_new.id, updated_at = p_new.updated_at,
    deleted_at = null, deleted_by = null, check_at = null,
    -- Its points are on their way out since it was deleted: they never become visible again.
    live_generation = case when not v_risen then live_generation end,
    live_since = case when not v_risen then live_since end,
    live_revision = case when not v_risen then live_revision end,
    previous_generation = case when not v_risen then previous_generation end,
    previous_since = case when not v_risen then previous_since end
  where id = p_known.id;
  -- What is being made from the older content can never become live.
  update ledgerq.generation set garbage_since = p_new.updated_at, check_at = p_new.updated_at
  where document_id = p_known.id and garbage_since is null and live_since is null;
end $$;

revoke execute on all functions in schema ledgerq from public, anon, authenticated;
grant execute on all functions in schema ledgerq to service_role;
insert into ledgerq.schema_version (version, subject) values ('20261122020000', 'documents');
