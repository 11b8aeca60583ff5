-- Generations: which points of a document readers see, and how a new set takes over from the old one.
--
-- Every row of `generation` is written under its document's lock. Three things keep builders, readers and the sweeper apart:
--   * one number at a time for each (document, revision, config digest), so that every retry, and every job that does the same
--     at the same time, writes the same point ids; another one only once it is live and its points were found wanting;
--   * the live generation of a document only rises, so whoever began earlier can never take a later one back;
--   * a generation that is garbage is never handed out again: what the sweeper removes, nobody is building on.

-- Beginning ----------------------------------------------------------------------------------------------------------

create function ledgerq.begin_documents(request jsonb) returns jsonb
language plpgsql set search_path = '' as $$
declare
  v_wanted jsonb := ledgerq._checked_begins(ledgerq._array(request, 'documents', 500));
  v_ids uuid[] := array(select (w ->> 'document')::uuid from jsonb_array_elements(v_wanted) as w);
  v_room bigint := 8388608;
  v_begun jsonb;
  v_answer jsonb[] := '{}';
begin
  perform from ledgerq.document where id = any (v_ids) order by id for no key update;
  perform ledgerq._allot_generations(v_wanted, ledgerq.clock());
  for i in 0 .. jsonb_array_length(v_wanted) - 1 loop
    v_begun := ledgerq._begun_document(v_wanted -> i, v_room);
    v_room := v_room - coalesce(octet_length(v_begun #>> '{body,text}'), 0);
    v_answer := v_answer || v_begun;
  end loop;
  return jsonb_build_object('documents', to_jsonb(v_answer));
end $$;
comment on function ledgerq.begin_documents(jsonb) is
  '{documents: [{document, config_digest, wanting?}] (at most 500)} -> {documents: [{document, disposition: process|unchanged|deleted|not_found, revision, generation, …}]}; wanting is a live generation whose points are not all there: while it is live, its document is processed again; inline texts up to 8 MiB in all, beyond that body is null: read it with document_get';

create function ledgerq._checked_begins(p_wanted jsonb) returns jsonb
language plpgsql immutable set search_path = '' as $$
declare
  v_wrong record;
begin
  select 'documents[' || (e.position - 1) || '].' || rule.field as field, rule.value, rule.want into v_wrong
  from jsonb_array_elements(p_wanted) with ordinality as e (wanted, position)
  cross join lateral (
    values
    ('document', e.wanted ->> 'document', 'a uuid', ledgerq._is_uuid(e.wanted ->> 'document')),
    ('config_digest', e.wanted ->> 'config_digest', 'a text of 1 to 128 characters',
      ledgerq._is_text(e.wanted -> 'config_digest', 128)),
    ('wanting', e.wanted ->> 'wanting', 'the number of a generation',
      coalesce(jsonb_typeof(e.wanted -> 'wanting'), 'null') = 'null' or e.wanted ->> 'wanting' ~ '^[0-9]{1,18}$')
  ) as rule (field, value, want, holds)
  where rule.holds is not true
  limit 1;
  if found then
    perform ledgerq._invalid(v_wrong.field, v_wrong.value, v_wrong.want);
  end if;
  return p_wanted;
end $$;

-- The documents are locked: nobody else allots for them, and numbers of one document rise in the order of beginning.
create function ledgerq._allot_generations(p_wanted jsonb, p_now timestamptz) returns void
language sql set search_path = '' as $$
  insert into ledgerq.generation as g (document_id, revision, config_digest, created_at, begun_at, check_at)
  select distinct d.id, d.revision, w ->> 'config_digest', p_now, p_now, p_now + interval '1 minute'
  from jsonb_array_elements(p_wanted) as w
  join ledgerq.document as d on d.id = (w ->> 'document')::uuid
  left join ledgerq.generation as live on live.id = d.live_generation and d.live_revision = d.revision
  where d.deleted_at is null
    and (live.config_digest is distinct from w ->> 'config_digest' or live.id = (w ->> 'wanting')::bigint)
  on conflict (document_id, revision, config_digest) where garbage_since is null and live_since is null
  do update set begun_at = excluded.begun_at, check_at = excluded.check_at
$$;

create function ledgerq._begun_document(p_wanted jsonb, p_room bigint) returns jsonb
language plpgsql set search_path = '' as $$
declare
  v_document uuid := (p_wanted ->> 'document')::uuid;
  v_facts jsonb;
  v_body jsonb;
begin
  select jsonb_build_object(
    'document', d.id, 'disposition', case
      when d.deleted_at is not null then 'deleted'
      when d.live_revision = d.revision and live.config_digest = p_wanted ->> 'config_digest'
        and live.id is distinct from (p_wanted ->> 'wanting')::bigint then 'unchanged'
      else 'process'
    end,
    'revision', d.revision, 'generation', coalesce(building.id, d.live_generation), 'tenant', d.tenant, 'owner', d.owner_id,
    'source', d.source_id, 'uri', d.uri, 'title', d.title, 'content_type', d.content_type, 'content_hash', d.content_hash,
    'byte_size', d.byte_size, 'metadata', d.metadata, 'live', case
      when live.id is not null
        then jsonb_build_object('generation', live.id, 'config_digest', live.config_digest, 'points', live.points)
    end
  ) into v_facts
  from ledgerq.document as d
  left join ledgerq.generation as live on live.id = d.live_generation and d.deleted_at is null
  left join ledgerq.generation as building
    on building.document_id = d.id and building.revision = d.revision and building.config_digest = p_wanted ->> 'config_digest'
    and building.garbage_since is null and building.live_since is null
  where d.id = v_document;
  if v_facts is null then
    return jsonb_build_object('document', v_document, 'disposition', 'not_found');
  end if;
  -- A text is only fetched for who will read it, and while there is room for it in the answer.
  if v_facts ->> 'disposition' = 'process' and p_room > 0 then
    select d.body into v_body from ledgerq.document as d where d.id = v_document;
  end if;
  if octet_length(v_body ->> 'text') > p_room then
    v_body := null;
  end if;
  return v_facts || jsonb_build_object('body', v_body);
end $$;

-- Becoming live ------------------------------------------------------------------------------------------------------

create function ledgerq._each_effect(p_outcomes jsonb)
returns table (
  task bigint, job uuid, kind text, document uuid, revision int, generation bigint, points int, chunks int, digest text, usage jsonb
)
language sql immutable set search_path = '' as $$
  select
    (o ->> 'task')::bigint, (o ->> 'job')::uuid, o ->> 'kind', (e ->> 'document')::uuid, (e ->> 'revision')::int,
    (e ->> 'generation')::bigint, (e ->> 'points')::int, (e ->> 'chunks')::int, e ->> 'digest',
    case jsonb_typeof(e -> 'usage') when 'array' then e -> 'usage' else '[]' end
  from jsonb_array_elements(p_outcomes) as o
  cross join jsonb_array_elements(case jsonb_typeof(o -> 'effects') when 'array' then o -> 'effects' else '[]' end) as e
$$;

create function ledgerq._apply_effects(p_run uuid, p_outcomes jsonb, p_now timestamptz) returns jsonb
language plpgsql set search_path = '' as $$
declare
  v_documents uuid[] := array(select distinct e.document from ledgerq._each_effect(p_outcomes) as e);
  v_verdicts jsonb;
  v_now timestamptz;
begin
  perform ledgerq._count_usage(p_run, p_outcomes, p_now);
  perform from ledgerq.document where id = any (v_documents) order by id for no key update;
  v_verdicts := ledgerq._judge_effects(p_outcomes);
  -- Not p_now: it was read before the documents were locked, and a document's dates must not go backwards.
  select greatest(ledgerq.clock(), max(d.live_since)) into v_now from ledgerq.document as d where d.id = any (v_documents);
  perform ledgerq._flip_documents(p_outcomes, v_verdicts, v_now);
  return jsonb_build_object('verdicts', v_verdicts, 'remove', ledgerq._removable_now(p_run, p_outcomes, v_now));
end $$;
comment on function ledgerq._apply_effects(uuid, jsonb, timestamptz) is
  'Called by advance_run with run and job locks held, before tasks are touched. [{task, job, kind, effects, usage}] -> {verdicts: {task: applied|stale|deleted}, remove: [{document, generation, tenant}]}';

-- Money is spent whatever becomes of the outcome. In the order of the ids, so that two reports of the same calls do not deadlock.
create function ledgerq._count_usage(p_run uuid, p_outcomes jsonb, p_now timestamptz) returns void
language sql set search_path = '' as $$
  insert into ledgerq.usage (
    id, at, tenant, owner_id, job_id, task_id, run_id, document_id, generation, provider, model, tokens, cost, saved_tokens
  )
  select
    (u ->> 'id')::uuid, p_now, coalesce(j.tenant, ''), j.owner_id, j.id, e.task, p_run, e.document, e.generation,
    u ->> 'provider', u ->> 'model', coalesce((u ->> 'tokens')::bigint, 0), coalesce((u ->> 'cost')::numeric, 0),
    coalesce((u ->> 'saved_tokens')::bigint, 0)
  from (
    select f.task, f.document, f.generation, f.usage from ledgerq._each_effect(p_outcomes) as f
    union all
    -- Calls that were paid for without a document to show for it.
    select o.task, null, null, o.usage from jsonb_to_recordset(p_outcomes) as o (task bigint, usage jsonb) where o.usage is not null
  ) as e
  cross join jsonb_array_elements(e.usage) as u
  left join ledgerq.task as t on t.id = e.task
  left join ledgerq.job as j on j.id = t.job_id
  order by (u ->> 'id')::uuid
  on conflict (id) do nothing
$$;

create function ledgerq._judge_effects(p_outcomes jsonb) returns jsonb
language plpgsql set search_path = '' as $$
declare
  v_unknown record;
  v_verdicts jsonb;
begin
  select e.document, e.generation, e.revision into v_unknown
  from ledgerq._each_effect(p_outcomes) as e
  join ledgerq.document as d on d.id = e.document and d.revision = e.revision and d.deleted_at is null
  where e.kind = 'completed' and not exists (
    select from ledgerq.generation as g where g.id = e.generation and g.document_id = e.document and g.revision = e.revision
  )
  limit 1;
  if found then  -- class 23, so that the runner acknowledges one by one and only this outcome fails
    raise exception 'generation % was never allotted to revision % of document %', v_unknown.generation, v_unknown.revision, v_unknown.document
      using errcode = '23503', hint = 'Take generation and revision from begin_documents.';
  end if;
  -- One effect that cannot be had spoils the outcome: half of what a task did must not become visible.
  select jsonb_object_agg(judged.task, case
    when judged.applied then 'applied' when judged.deleted then 'deleted' else 'stale'
  end) into v_verdicts
  from (
    select e.task, bool_and(effect.verdict = 'applied') as applied, bool_and(effect.verdict = 'deleted') as deleted
    from ledgerq._each_effect(p_outcomes) as e
    left join ledgerq.document as d on d.id = e.document
    left join ledgerq.generation as g on g.id = e.generation and g.document_id = e.document
    cross join lateral (
      select case
        when d.id is null or d.deleted_at is not null then 'deleted'
        when d.revision <> e.revision then 'stale'
        -- Another build of this very revision, begun later, is live already: done, and nothing to show for it.
        when g.garbage_since is not null and d.live_revision = e.revision and d.live_generation > e.generation then 'applied'
        when g.garbage_since is not null then 'stale'
        else 'applied'
      end as verdict
    ) as effect
    where e.kind = 'completed'
    group by e.task
  ) as judged;
  return coalesce(v_verdicts, '{}');
end $$;

create function ledgerq._flip_documents(p_outcomes jsonb, p_verdicts jsonb, p_now timestamptz) returns void
language plpgsql set search_path = '' as $$
declare
  v_flip record;
begin
  for v_flip in
    select distinct on (e.document) e.document, e.revision, e.generation, e.points, e.chunks, e.digest
    from ledgerq._each_effect(p_outcomes) as e
    join ledgerq.document as d on d.id = e.document
    where e.kind = 'completed' and p_verdicts ->> e.task::text = 'applied' and e.generation > coalesce(d.live_generation, 0)
    order by e.document, e.generation desc
  loop
    update ledgerq.generation set
      points = coalesce(v_flip.points, 0), chunks = coalesce(v_flip.chunks, 0), digest = v_flip.digest,
      live_since = p_now, check_at = null
    where id = v_flip.generation;
    -- The one that readers leave now, and older builds that could never become live any more.
    update ledgerq.generation set garbage_since = p_now, check_at = p_now
    where document_id = v_flip.document and id < v_flip.generation and garbage_since is null;
    update ledgerq.document set
      previous_generation = live_generation, previous_since = live_since,
      live_generation = v_flip.generation, live_since = p_now, live_revision = v_flip.revision
    where id = v_flip.document;
  end loop;
end $$;

-- What the worker may remove at once: generations that never were live, that nobody will be handed, and that no other run
-- is writing. It is a courtesy; the sweeper counts all of them gone before it forgets them.
create function ledgerq._removable_now(p_run uuid, p_outcomes jsonb, p_now timestamptz) returns jsonb
language plpgsql set search_path = '' as $$
begin
  update ledgerq.generation as g set garbage_since = p_now, check_at = p_now
  where g.id in (select e.generation from ledgerq._each_effect(p_outcomes) as e where e.kind = 'ignored' and e.document = g.document_id)
    and g.garbage_since is null and g.live_since is null
    and not exists (select from ledgerq.task as t where t.document_id = g.document_id and t.status in ('pending', 'queued'));
  return coalesce((
    select jsonb_agg(jsonb_build_object('document', g.document_id, 'generation', g.id, 'tenant', d.tenant) order by g.id)
    from (select distinct e.document, e.generation from ledgerq._each_effect(p_outcomes) as e) as e
    join ledgerq.generation as g on g.id = e.generation and g.document_id = e.document
    join ledgerq.document as d on d.id = g.document_id
    where g.garbage_since is not null and g.live_since is null
      and not exists (
        select from ledgerq.task as t where t.document_id = g.document_id and t.status = 'queued' and t.run_id <> p_run
      )
  ), '[]');
end $$;

-- Reading ------------------------------------------------------------------------------------------------------------

create function ledgerq.moment(request jsonb) returns jsonb
language sql stable set search_path = '' as $$ select jsonb_build_object('now', ledgerq.clock()) $$;
comment on function ledgerq.moment(jsonb) is '{} -> {now}: the ledger''s time, taken by a reader before it asks for points';

create function ledgerq.live_generations(request jsonb) returns jsonb
language plpgsql stable set search_path = '' as $$
declare
  v_ids uuid[] := ledgerq._uuids(request, 'documents', 1000);
begin
  return jsonb_build_object('now', ledgerq.clock(), 'documents', coalesce((
    select jsonb_agg(jsonb_build_object(
      'document', d.id, 'tenant', d.tenant, 'owner', d.owner_id, 'uri', d.uri, 'title', d.title,
      'live_generation', d.live_generation, 'live_since', d.live_since, 'previous_generation', d.previous_generation,
      'previous_since', d.previous_since, 'deleted_at', d.deleted_at
    ) order by d.id)
    from ledgerq.document as d where d.id = any (v_ids)
  ), '[]'));
end $$;
comment on function ledgerq.live_generations(jsonb) is
  '{documents (at most 1,000)} -> {now, documents: [{document, live_generation, live_since, previous_generation, previous_since, deleted_at, …}]}; unknown ones are absent';

revoke execute on all functions in schema ledgerq from public, anon, authenticated;
grant execute on all functions in schema ledgerq to service_role;
insert into ledgerq.schema_version (version, subject) values ('20261122020200', 'generations');
