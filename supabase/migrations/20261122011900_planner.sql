-- How the functions are planned.
--
-- Every join of theirs goes from a short list (ids of a call, tasks of a run) to rows by key. The planner cannot know that: it takes a
-- jsonb list for 100 rows and a table for as small as it was when the plan was made, and plans are kept as long as the session. With
-- sequential scans and hash joins out of the question a plan made over an empty table is still right over a million rows.
-- The settings hold inside a call, for all that it calls. (jit: before PostgreSQL 18 a scan that cannot be avoided carries a penalty
-- of 1e10, which would have every such plan compiled.)

create function ledgerq._plan_by_key(p_function regprocedure) returns void
language plpgsql set search_path = ''
as $$
begin
  execute format(
    'alter function %s set enable_seqscan = off set enable_hashjoin = off set enable_mergejoin = off set jit = off '
    'set plan_cache_mode = force_generic_plan', p_function);
end $$;
comment on function ledgerq._plan_by_key(regprocedure) is 'Called once by the migration that creates the function; `create or replace` loses it.';

select ledgerq._plan_by_key(('ledgerq.' || f || '(jsonb)')::regprocedure)
from unnest(array[
  'create_jobs', 'add_tasks', 'seal_job', 'dispatch', 'dispatch_due', 'start_run', 'advance_run', 'heartbeat_run', 'shed', 'reconcile_runs',
  'cancel_jobs', 'retry_jobs', 'expire_jobs', 'update_job', 'complete_job', 'fail_job', 'save_queue', 'pause_queue', 'resume_queue', 'live_runs'
]) f;

revoke execute on all functions in schema ledgerq from public, anon, authenticated;
grant execute on all functions in schema ledgerq to service_role;
insert into ledgerq.schema_version (version, subject) values ('20261122011900', 'planner');
