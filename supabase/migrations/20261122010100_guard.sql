-- The guard: the database itself refuses a step that is not in the tables of `src/ledgerq/lifecycle.py`.
--
-- The clauses between the markers are rendered from those tables by `scripts/render`; a test fails when they drift.
-- They are literals in `when (…)`, so a legal step never calls the function: a lookup in a table cost twice as much.

create function ledgerq._refuse_transition() returns trigger
language plpgsql set search_path = ''
as $$
begin
  raise exception using
    errcode = 'LQ009',
    message = format('%s %s: %s may not follow %s', tg_table_name, new.id, new.status,
                     case tg_op when 'INSERT' then 'nothing' else old.status end),
    hint = 'Statuses are moved by the functions of the schema ledgerq only; docs/lifecycle.md shows the legal steps.';
end $$;
comment on function ledgerq._refuse_transition() is 'Called by the guard triggers, only for an illegal step.';

-- rendered: guard
create trigger job_guard before update of status on ledgerq.job for each row
  when (old.status <> new.status and not (
    old.status = 'pending' and new.status in ('queued', 'in_progress', 'completed', 'partial', 'failed', 'cancelled')
    or old.status = 'queued' and new.status in ('pending', 'in_progress', 'completed', 'partial', 'failed', 'cancelled')
    or old.status = 'in_progress' and new.status in ('pending', 'completed', 'partial', 'failed', 'cancelled')
    or old.status = 'partial' and new.status in ('pending')
    or old.status = 'failed' and new.status in ('pending')
    or old.status = 'cancelled' and new.status in ('pending')
  ))
  execute function ledgerq._refuse_transition();
create trigger job_first before insert on ledgerq.job for each row
  when (new.status <> 'pending')
  execute function ledgerq._refuse_transition();

create trigger task_guard before update of status on ledgerq.task for each row
  when (old.status <> new.status and not (
    old.status = 'pending' and new.status in ('queued', 'completed', 'failed', 'cancelled')
    or old.status = 'queued' and new.status in ('pending', 'completed', 'failed', 'cancelled')
    or old.status = 'failed' and new.status in ('pending')
    or old.status = 'cancelled' and new.status in ('pending')
  ))
  execute function ledgerq._refuse_transition();
create trigger task_first before insert on ledgerq.task for each row
  when (new.status <> 'pending')
  execute function ledgerq._refuse_transition();

create trigger run_guard before update of status on ledgerq.run for each row
  when (old.status <> new.status and not (
    old.status = 'dispatched' and new.status in ('running', 'revoked')
    or old.status = 'running' and new.status in ('finished', 'lost')
  ))
  execute function ledgerq._refuse_transition();
create trigger run_first before insert on ledgerq.run for each row
  when (new.status <> 'dispatched')
  execute function ledgerq._refuse_transition();
-- end of rendered: guard

revoke execute on all functions in schema ledgerq from public, anon, authenticated;
grant execute on all functions in schema ledgerq to service_role;
insert into ledgerq.schema_version (version, subject) values ('20261122010100', 'guard');
