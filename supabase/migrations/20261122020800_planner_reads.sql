-- As `planner` has it for the functions that move work: these too go from a short list to rows by key, whatever size the tables had
-- when their plans were made. (job_list is not among them: it is planned anew for every shape of question.)

select ledgerq._plan_by_key(('ledgerq.' || f || '(jsonb)')::regprocedure)
from unnest(array[
  'save_source', 'source_get', 'save_documents', 'missing_documents', 'document_get', 'document_list', 'delete_documents', 'begin_documents',
  'live_generations', 'garbage', 'garbage_gone', 'job_get', 'job_tasks', 'job_history', 'job_as_of', 'explain', 'queue_stats', 'worker_stats',
  'prune', 'delete_job'
]) f;

insert into ledgerq.schema_version (version, subject) values ('20261122020800', 'planner of reads');
