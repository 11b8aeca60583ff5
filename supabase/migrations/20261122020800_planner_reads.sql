-- As `planner` has it for the functions that move work: these too go from a short list to rows by key, whatever size the tables had
-- when their plans were made. (job_list is not among them: it is planned anew for every shape of question.)

select ledgerq._plan_by_key(('ledgerq.' || f || '(jsonb)')::regprocedure)
from unnest(array[
  'save_source', 'source_get', 'save_documents', 'missing_documents', 'document_get', 'document_list', 'delete_documents', 'begin_documents',
  'live_generations', 'garbage', 'garbage_gone', 'job_get', 'job_tasks', 'job_history', 'job_as_of', 'explain', 'queue_stats', 'worker_stats',
  'prune', 'delete_job'
]) f;

-- Reads that want the first or last few of something are planned each time: a kept plan that takes the primary key for the order is
-- right over a small table, and reads all of a big one.
alter function ledgerq.source_get(jsonb) set plan_cache_mode = force_custom_plan;
alter function ledgerq.job_tasks(jsonb) set plan_cache_mode = force_custom_plan;
alter function ledgerq.explain(jsonb) set plan_cache_mode = force_custom_plan;
alter function ledgerq.queue_stats(jsonb) set plan_cache_mode = force_custom_plan;
alter function ledgerq.worker_stats(jsonb) set plan_cache_mode = force_custom_plan;

insert into ledgerq.schema_version (version, subject) values ('20261122020800', 'planner of reads');
