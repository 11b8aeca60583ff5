-- Who has a job's page open is told of each change, through Supabase's Realtime where it is installed: docs/realtime.md.
--
-- A message may be lost. So each change of a job has the next number: a subscriber sees the gap, and reads the row instead.

create function ledgerq._number_change() returns trigger
language plpgsql set search_path = ''
as $$
begin
  -- Under the row's lock, which whoever changes the row holds: no two changes get one number, and none is left out.
  new.sequence := old.sequence + 1;
  return new;
end $$;
comment on function ledgerq._number_change() is 'The trigger that counts the changes of a job.';

create trigger job_sequence before update on ledgerq.job for each row
  execute function ledgerq._number_change();

create function ledgerq._announcement(p_job ledgerq.job) returns jsonb
language plpgsql stable set search_path = ''
as $$
declare
  v_told jsonb := jsonb_build_object(
    'id', p_job.id, 'sequence', p_job.sequence, 'status', p_job.status, 'total', p_job.total, 'completed', p_job.completed,
    'failed', p_job.failed, 'cancelled', p_job.cancelled, 'cancel_requested_at', p_job.cancel_requested_at, 'finished_at', p_job.finished_at);
begin
  if octet_length(p_job.progress::text) > 4096 then
    return v_told;
  end if;
  return v_told || jsonb_build_object('progress', p_job.progress);
end $$;
comment on function ledgerq._announcement(ledgerq.job) is
  'What is told of a job: at most 5 kB. No `progress` in it: there is one, and it is too large to be told.';

create function ledgerq._announce_job() returns trigger
language plpgsql security definer set search_path = '' set lock_timeout = '100ms'
as $$
declare
  v_owner uuid := coalesce(new.owner_id, old.owner_id);
  v_told jsonb;
begin
  if to_regprocedure('realtime.send(jsonb, text, text, boolean)') is null then
    return null;
  end if;
  v_told := case tg_op
    when 'DELETE' then jsonb_build_object('id', old.id, 'sequence', old.sequence + 1, 'deleted', true)
    else ledgerq._announcement(new)
  end;
  -- Sending takes this lock anyway, and would wait for it; for one on a part of the table it waits no longer than the function allows.
  lock table only realtime.messages in row exclusive mode nowait;
  perform realtime.send(v_told, 'job', 'ledgerq:owner:' || v_owner, true);
  return null;
exception when query_canceled or assert_failure or others then
  -- `others` leaves out the first two, and sending may run into the time that the whole call has. A change that is not told is read by the next who sees the gap; a call of the ledger that fails for it would be worse.
  raise warning 'a change of a job of % was not announced: %', v_owner, sqlerrm;
  return null;
end $$;
comment on function ledgerq._announce_job() is
  'Tells the job''s owner, on the private topic `ledgerq:owner:<owner>`. Never fails and never waits for a lock of a table. With the rights of its owner, since whoever changes a job need not be one who may write to Realtime.';

create trigger job_announced after insert or update on ledgerq.job for each row
  when (new.owner_id is not null)
  execute function ledgerq._announce_job();
create trigger job_removal_announced after delete on ledgerq.job for each row
  when (old.owner_id is not null)
  execute function ledgerq._announce_job();

-- Realtime asks this policy when a user joins a private channel. By the text of the claim: the subject of a token that another
-- issuer made need be no uuid, and an error here would close the project's other channels to its user.
do $$
declare
  v_policy text := $policy$
    create policy "ledgerq: jobs of their owner" on realtime.messages for select to authenticated using (
      extension = 'broadcast' and topic = (select realtime.topic())
      and topic = 'ledgerq:owner:' || ((select auth.jwt()) ->> 'sub'))$policy$;
begin
  if to_regclass('realtime.messages') is not null and to_regprocedure('realtime.topic()') is not null then
    drop policy if exists "ledgerq: jobs of their owner" on realtime.messages;
    execute v_policy;
  end if;
exception when insufficient_privilege then
  raise warning 'users may not join the channels of their jobs yet (%); as the owner of realtime.messages, run: %', sqlerrm, v_policy;
end $$;

revoke execute on all functions in schema ledgerq from public, anon, authenticated;
grant execute on all functions in schema ledgerq to service_role;
insert into ledgerq.schema_version (version, subject) values ('20261122025800', 'realtime');
