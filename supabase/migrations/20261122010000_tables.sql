-- The tables of the ledger. All of its logic is in the functions of the later migrations; nothing but they writes here.
--
-- Lock order of every function: run, then job, then document, then task; several of a kind in ascending id, `for no key update`.
-- Statuses are text, and the constraints below only list them: which may follow which is the guard's business (next migration).

create schema if not exists ledgerq;
comment on schema ledgerq is 'Durable jobs: the source of truth that RQ delivers for. Written only by its own functions.';

create function ledgerq.clock() returns timestamptz
language sql volatile set search_path = ''
as $$ select pg_catalog.clock_timestamp() $$;
comment on function ledgerq.clock() is 'The only clock of the ledger. Tests replace it.';

create table ledgerq.schema_version (
  version text primary key,
  subject text not null,
  applied_at timestamptz not null default clock_timestamp()
);
comment on table ledgerq.schema_version is 'One row a migration, written by the migration itself; the newest is what `health` reports.';

-- Queues -------------------------------------------------------------------------------------------------------------

create table ledgerq.queue (
  name text primary key check (name ~ '^[a-z0-9][a-z0-9_.-]{0,62}$'),
  depth int not null default 8 check (depth between 1 and 1000),
  run_size int not null default 100 check (run_size between 1 and 500),
  lease_s double precision not null default 20 check (lease_s between 0.1 and 86400),
  heartbeat_s double precision not null default 5 check (heartbeat_s between 0.05 and 3600),
  run_budget_s double precision not null default 600 check (run_budget_s between 0.1 and 86400),
  cancel_grace_s double precision not null default 10 check (cancel_grace_s between 0 and 3600),
  max_crashes int not null default 3 check (max_crashes between 1 and 100),
  max_losses int not null default 6 check (max_losses between 1 and 100),
  timeout_s double precision not null default 300 check (timeout_s > 0 and timeout_s <= 604800),
  max_attempts int not null default 3 check (max_attempts between 1 and 1000),
  deadline_s double precision not null default 604800 check (deadline_s > 0 and deadline_s <= 31536000),
  max_concurrent_jobs int check (max_concurrent_jobs >= 1),
  tenant_concurrent_jobs int check (tenant_concurrent_jobs >= 1),
  paused_at timestamptz,
  paused_by text,
  created_at timestamptz not null default clock_timestamp(),
  updated_at timestamptz not null default clock_timestamp(),
  constraint lease_outlasts_two_heartbeats check (lease_s >= 2 * heartbeat_s)
);
comment on table ledgerq.queue is
  'Configuration, one row a queue. Never written on the hot path, and no foreign key points here: its share lock on one row would meet every creator.';
comment on column ledgerq.queue.depth is 'How many dispatched runs may wait in Redis at once; the rest waits, ordered, in the ledger.';
comment on column ledgerq.queue.max_concurrent_jobs is 'Hard cap on jobs with a task in a live run; null: none.';
comment on column ledgerq.queue.tenant_concurrent_jobs is 'The same, for each tenant.';
insert into ledgerq.queue (name) values ('processing');

create table ledgerq.queue_turn (
  queue text primary key,
  picks bigint not null default 0,
  tenants text[] not null default array[null, null, null, null]::text[]
) with (fillfactor = 10);
comment on table ledgerq.queue_turn is
  'Whose turn it is. Dispatch takes the row with `skip locked`: two at once may serve the same tenant first, and neither waits.';
comment on column ledgerq.queue_turn.picks is 'Tasks picked so far; every fourth comes from a lower class.';
comment on column ledgerq.queue_turn.tenants is 'The tenant served last in each class, urgent first.';

-- Sources and documents ----------------------------------------------------------------------------------------------

create table ledgerq.source (
  id uuid primary key,
  tenant text not null default '',
  owner_id uuid,
  project text,
  kind text not null,
  uri text,
  details jsonb not null default '{}' check (jsonb_typeof(details) = 'object'),
  created_at timestamptz not null default clock_timestamp(),
  updated_at timestamptz not null default clock_timestamp()
);
comment on table ledgerq.source is 'Where documents come from: a folder, a site, an upload.';

create table ledgerq.document (
  id uuid primary key,
  tenant text not null default '',
  owner_id uuid,
  project text,
  source_id uuid references ledgerq.source (id) on delete set null,
  uri text not null,
  uri_digest bytea not null generated always as (sha256(decode(replace(uri, '\', '\\'), 'escape'))) stored,
  title text,
  content_type text,
  content_hash text not null,
  byte_size bigint not null default 0 check (byte_size >= 0),
  body jsonb not null check (jsonb_typeof(body) = 'object' and body ->> 'kind' in ('inline', 'file', 'storage')),
  metadata jsonb not null default '{}' check (jsonb_typeof(metadata) = 'object'),
  revision int not null default 1 check (revision >= 1),
  changed_under uuid not null,
  live_generation bigint,
  live_since timestamptz,
  live_revision int,
  previous_generation bigint,
  previous_since timestamptz,
  deleted_at timestamptz,
  deleted_by text,
  check_at timestamptz,
  created_at timestamptz not null default clock_timestamp(),
  updated_at timestamptz not null default clock_timestamp(),
  constraint document_identity unique nulls not distinct (uri_digest, tenant, source_id),
  constraint live_generation_is_dated check ((live_generation is null) = (live_since is null) and (live_generation is null) = (live_revision is null)),
  constraint live_revision_exists check (live_revision <= revision)
) with (fillfactor = 80);
comment on table ledgerq.document is 'One document, and which generation of its points is live.';
comment on column ledgerq.document.uri_digest is 'sha256 of the uri, which may be longer than an index entry.';
comment on column ledgerq.document.revision is 'Counts changes of the content. A generation made from an older revision never becomes live.';
comment on column ledgerq.document.changed_under is 'The id that the client made for the save that brought this content: tells its repeat from a later save of the same.';
comment on column ledgerq.document.check_at is 'When the sweeper looks next whether the tombstone may go; null for a living document.';
comment on column ledgerq.document.live_revision is 'The revision that the live generation was made from.';
comment on column ledgerq.document.deleted_at is 'A tombstone: kept until no run can hold the document and its points are counted gone twice.';
create index document_by_source on ledgerq.document (source_id, id) where source_id is not null;
create index document_by_tenant on ledgerq.document (tenant, id);
create index document_by_owner on ledgerq.document (owner_id, id) where owner_id is not null;
create index document_tombstone on ledgerq.document (check_at) where check_at is not null;
create index source_by_tenant on ledgerq.source (tenant, id);
create index source_by_owner on ledgerq.source (owner_id) where owner_id is not null;

create table ledgerq.generation (
  id bigint generated always as identity primary key,
  document_id uuid not null references ledgerq.document (id),
  revision int not null,
  config_digest text not null,
  points int check (points >= 0),
  chunks int check (chunks >= 0),
  digest text,
  created_at timestamptz not null default clock_timestamp(),
  begun_at timestamptz not null default clock_timestamp(),
  live_since timestamptz,
  garbage_since timestamptz,
  check_at timestamptz default clock_timestamp(),
  empty_seen_at timestamptz
) with (fillfactor = 80);
comment on table ledgerq.generation is
  'The version numbers of documents'' points, from one sequence: one at a time for each (document, revision, config digest), so every retry writes the same point ids. Written under the document''s lock; a row leaves when its points were counted gone twice.';
comment on column ledgerq.generation.points is 'The manifest: how many points the generation has, with the digest of their ids; null until it became live.';
comment on column ledgerq.generation.begun_at is 'When it was last handed to a worker.';
comment on column ledgerq.generation.garbage_since is 'Never live again and never handed out again: the same content gets a new number, so the sweeper can never meet a builder.';
comment on column ledgerq.generation.check_at is 'When the sweeper looks at it next; null while it is live.';
comment on column ledgerq.generation.empty_seen_at is 'First time its points were counted gone.';
create unique index generation_allotted on ledgerq.generation (document_id, revision, config_digest)
where garbage_since is null and live_since is null;
create index generation_by_document on ledgerq.generation (document_id, id);
create index generation_to_check on ledgerq.generation (check_at) where check_at is not null;

-- Jobs, tasks, runs --------------------------------------------------------------------------------------------------

create table ledgerq.job (
  id uuid primary key,
  tenant text not null default '',
  owner_id uuid,
  project text,
  type text not null,
  queue text not null,
  priority smallint not null default 1 check (priority between 0 and 3),
  status text not null default 'pending'
    check (status in ('pending', 'queued', 'in_progress', 'completed', 'partial', 'failed', 'cancelled')),
  gone_wrong boolean generated always as (status in ('partial', 'failed', 'cancelled')) stored,
  source_id uuid references ledgerq.source (id) on delete set null,
  details jsonb not null default '{}' check (jsonb_typeof(details) = 'object'),
  dedupe_key text,
  request_digest bytea not null,
  sealed boolean not null default true,
  external boolean not null default false,
  abandoned boolean not null default false,
  removing boolean not null default false,
  total int not null default 0,
  completed int not null default 0,
  failed int not null default 0,
  cancelled int not null default 0,
  max_attempts int not null check (max_attempts >= 1),
  timeout_s double precision not null check (timeout_s > 0),
  deadline_s double precision not null check (deadline_s > 0),
  due_at timestamptz,
  deadline_at timestamptz not null,
  cancel_requested_at timestamptz,
  cancel_actor text,
  cancel_reason text,
  retry_request text,
  run_ids uuid[] not null default '{}',
  sequence bigint not null default 0,
  progress jsonb,
  result jsonb,
  error jsonb,
  created_at timestamptz not null default clock_timestamp(),
  started_at timestamptz,
  finished_at timestamptz,
  constraint counts_are_within_total check (completed >= 0 and failed >= 0 and cancelled >= 0 and completed + failed + cancelled <= total),
  constraint terminal_is_finished check ((finished_at is not null) = (status in ('completed', 'partial', 'failed', 'cancelled'))),
  constraint terminal_is_counted check (finished_at is null or (sealed and completed + failed + cancelled = total))
) with (
  fillfactor = 60, autovacuum_vacuum_scale_factor = 0.02, autovacuum_vacuum_threshold = 500, autovacuum_analyze_scale_factor = 0.05
);
comment on table ledgerq.job is 'What a caller asked for.';
comment on column ledgerq.job.priority is '0 low, 1 normal, 2 high, 3 urgent.';
comment on column ledgerq.job.gone_wrong is
  'For the index of what people look for: one over the status itself would be written at every step of every job.';
comment on column ledgerq.job.request_digest is 'sha256 of the request as given: tells a repeated request from another one under the same id.';
comment on column ledgerq.job.sealed is 'False while tasks may still be added; such a job starts at once and cannot end.';
comment on column ledgerq.job.external is 'Its single task is never dispatched; only update_job, complete_job, fail_job, a cancel and the deadline move it.';
comment on column ledgerq.job.abandoned is 'Its deadline passed before its creator sealed it: it can end, but never as completed.';
comment on column ledgerq.job.removing is
  'Its tasks are being removed, a slice a call: it is finished, is no longer retried, and goes as soon as the last of them went.';
comment on column ledgerq.job.total is 'Tasks; with completed, failed and cancelled kept by deltas under the row lock, never recounted.';
comment on column ledgerq.job.deadline_at is 'Waiting tasks fail after it: the bound of every loop that costs no attempt.';
comment on column ledgerq.job.retry_request is 'The request id of the last retry_jobs, so that its repeat changes nothing.';
comment on column ledgerq.job.run_ids is 'The runs that carried tasks of it, newest first, at most 100.';
comment on column ledgerq.job.sequence is
  'Counts the changes of this row, from 0 and without a gap: a later migration''s trigger does. Whoever is told of changes sees by it what was missed.';
-- Open is said by `finished_at`, not by the status: so an open job that is queued, started or waits again touches no index.
create unique index job_dedupe on ledgerq.job (tenant, type, dedupe_key) where dedupe_key is not null and finished_at is null;
create index job_open on ledgerq.job (deadline_at) where finished_at is null;
create index job_finished on ledgerq.job (finished_at) where finished_at is not null;
create index job_cancelling on ledgerq.job (cancel_requested_at) where finished_at is null and cancel_requested_at is not null;
create index job_removing on ledgerq.job (id) where removing;
create index job_by_time on ledgerq.job (created_at, id);
create index job_by_tenant on ledgerq.job (tenant, created_at, id);
create index job_by_owner on ledgerq.job (owner_id, created_at, id) where owner_id is not null;
create index job_by_source on ledgerq.job (source_id, created_at, id) where source_id is not null;
create index job_by_project on ledgerq.job (tenant, project, created_at, id) where project is not null;
comment on index ledgerq.job_by_project is
  'A project is a name inside its tenant, and is looked for with it. Type, queue and a project without its tenant have no index: such a list walks back through time until the page is full.';

create table ledgerq.task (
  id bigint generated always as identity,
  job_id uuid not null references ledgerq.job (id) on delete cascade,
  key text not null,
  owner_id uuid,
  document_id uuid,
  payload jsonb,
  payload_bytes int not null default 0,
  queue text not null,
  tenant text collate "C" not null,
  priority smallint not null,
  external boolean not null default false,
  status text not null default 'pending' check (status in ('pending', 'queued', 'completed', 'failed', 'cancelled')),
  due_at timestamptz,
  run_id uuid,
  seq int,
  attempts int not null default 0,
  crashes int not null default 0,
  losses int not null default 0,
  alone boolean not null default false,
  progress jsonb,
  result jsonb,
  error jsonb,
  duration_s double precision,
  created_at timestamptz not null default clock_timestamp(),
  started_at timestamptz,
  finished_at timestamptz,
  primary key (job_id, id),
  constraint queued_is_in_a_run check (status <> 'queued' or (run_id is not null and seq is not null and due_at is null and not external)),
  constraint pending_is_in_no_run check (status <> 'pending' or (run_id is null and seq is null)),
  constraint terminal_task_is_finished check ((finished_at is not null) = (status in ('completed', 'failed', 'cancelled')))
) with (
  fillfactor = 80, autovacuum_vacuum_scale_factor = 0.02, autovacuum_vacuum_threshold = 1000, autovacuum_analyze_scale_factor = 0.05
);
comment on table ledgerq.task is 'The smallest unit that can succeed, fail, be retried or be blamed.';
comment on column ledgerq.task.id is 'Rises with age; a task that comes back keeps its place in the order.';
comment on column ledgerq.task.owner_id is
  'The job''s owner, so that its reader needs no join. Without an index, which every step of a task would write: its readers name a job.';
comment on column ledgerq.task.document_id is
  'No foreign key: emptying it when a document goes would lock finished tasks under the document, the other way round than everybody else. A document that is gone is answered `not_found`.';
comment on column ledgerq.task.due_at is 'Null: ready. Dispatch sets it to null when it is reached, so that the ready index holds nothing that must wait.';
comment on column ledgerq.task.run_id is 'The run that carries it, or that made it terminal. No foreign key: it would cost a lock a task in every dispatch, and prune removes runs last.';
comment on column ledgerq.task.seq is 'Its place in the run, from 1. Held when queued and seq <= run.handed.';
comment on column ledgerq.task.attempts is 'Answered tries and timeouts; crashes counts witnessed deaths while it was held, losses lease ends while it was held.';
comment on column ledgerq.task.alone is 'Was held at a death or a lease end: it is a run by itself from then on.';
create unique index task_key on ledgerq.task (job_id, key);
-- By hash, and the primary key begins with the job: an index that has all tasks in the order of their ids is one that the planner may
-- walk for any `order by id limit n`, through millions that are finished.
create index task_by_id on ledgerq.task using hash (id);
create index task_by_document on ledgerq.task (document_id, id) where document_id is not null;
create index task_ready on ledgerq.task (queue, priority, tenant, id) where status = 'pending' and due_at is null and not external;
create index task_due on ledgerq.task (queue, due_at) where status = 'pending' and due_at is not null and not external;
create index task_run on ledgerq.task (run_id, seq) where status = 'queued';
create index task_in_run on ledgerq.task (job_id) where status = 'queued';

create table ledgerq.run (
  id uuid primary key,
  queue text not null,
  type text not null,
  status text not null default 'dispatched' check (status in ('dispatched', 'running', 'finished', 'lost', 'revoked')),
  at_front boolean not null,
  alone boolean not null,
  single_job boolean not null,
  description text not null,
  job_ids uuid[] not null,
  tasks int not null check (tasks >= 1),
  timeout_s double precision not null,
  size int not null check (size >= 0),
  handed int not null default 0 check (handed >= 0),
  step int not null default 0 check (step >= 0),
  delivery uuid,
  worker text,
  execution_id text,
  host text,
  pid int,
  created_at timestamptz not null default clock_timestamp(),
  started_at timestamptz,
  heartbeat_at timestamptz,
  lease_until timestamptz,
  suspected_at timestamptz,
  ended_at timestamptz,
  verdict text,
  cause text,
  actor text,
  evidence jsonb,
  constraint handed_is_within_size check (handed <= size and size <= tasks),
  constraint started_has_one_delivery check (status not in ('running', 'finished', 'lost') or (delivery is not null and lease_until is not null)),
  constraint ended_is_dated check ((ended_at is not null) = (status in ('finished', 'lost', 'revoked')))
) with (
  fillfactor = 70, autovacuum_vacuum_scale_factor = 0.02, autovacuum_vacuum_threshold = 200, autovacuum_analyze_scale_factor = 0.05
);
comment on table ledgerq.run is 'One delivery of tasks to one worker. Its id is the id of the RQ job, fresh for each delivery, and the fence of every write.';
comment on column ledgerq.run.tasks is 'How many tasks it was made of; size shrinks to what was handed when the rest is given back.';
comment on column ledgerq.run.handed is 'Tasks with seq up to here were handed to the worker before they started.';
comment on column ledgerq.run.step is 'Counts acknowledged windows: the fence against lost and repeated replies.';
comment on column ledgerq.run.lease_until is 'Its end only permits a verdict; until one is committed the owner''s writes count and renew it.';
comment on column ledgerq.run.suspected_at is 'First sighting of an expired lease. A heartbeat or an advance clears it.';
comment on column ledgerq.run.timeout_s is 'The backstop given to RQ: run budget + longest task timeout + 60 s.';
create index run_live on ledgerq.run (queue, status) where status in ('dispatched', 'running');
create index run_ended on ledgerq.run (ended_at) where ended_at is not null;

-- What is only ever added ---------------------------------------------------------------------------------------------

create table ledgerq.event (
  id bigint generated always as identity primary key,
  at timestamptz not null default clock_timestamp(),
  job_id uuid,
  owner_id uuid,
  kind text not null,
  task_id bigint,
  run_id uuid,
  cause text,
  actor text,
  data jsonb not null default '{}'
) with (autovacuum_vacuum_insert_scale_factor = 0.1, autovacuum_analyze_scale_factor = 0.1);
comment on table ledgerq.event is
  'Append-only. Job level: created, started, progressed (one a window, with counts), ended. Task level: only what went otherwise than well.';
comment on column ledgerq.event.job_id is 'Null for events of a queue. No foreign key: written under the job''s lock, removed with the job.';
comment on column ledgerq.event.owner_id is 'The job''s owner, so that its reader needs no join.';
create index event_by_job on ledgerq.event (job_id, id);
create index event_by_owner on ledgerq.event (owner_id, id) where owner_id is not null;

create table ledgerq.usage (
  id uuid primary key,
  at timestamptz not null default clock_timestamp(),
  tenant text not null default '',
  owner_id uuid,
  job_id uuid,
  task_id bigint,
  run_id uuid,
  document_id uuid,
  generation bigint,
  provider text not null,
  model text not null,
  tokens bigint not null default 0 check (tokens >= 0),
  cost numeric not null default 0 check (cost >= 0),
  saved_tokens bigint not null default 0 check (saved_tokens >= 0)
);
comment on table ledgerq.usage is
  'Tokens and money, one row a provider call under an id made by the client, so that a repeated report counts once. Outlives its job, so no foreign keys, and is kept: what was paid is the operator''s to remove.';
create index usage_by_tenant on ledgerq.usage (tenant, at);
create index usage_by_job on ledgerq.usage (job_id) where job_id is not null;

create table ledgerq.webhook_event (
  id bigint generated always as identity primary key,
  provider text not null,
  event_key text not null,
  tenant text not null default '',
  kind text,
  headers jsonb not null default '{}',
  body jsonb not null,
  status text not null default 'received' check (status in ('received', 'processed', 'ignored', 'failed')),
  attempts int not null default 0,
  error jsonb,
  job_id uuid,
  received_at timestamptz not null default clock_timestamp(),
  processed_at timestamptz,
  constraint webhook_event_once unique (provider, event_key)
);
comment on table ledgerq.webhook_event is 'The inbox: verified, stored as it came, answered at once, processed later. One row an event, however often it is sent.';
create index webhook_event_waiting on ledgerq.webhook_event (received_at) where status in ('received', 'failed');
create index webhook_event_done on ledgerq.webhook_event (received_at) where status <> 'received';

-- Nobody reaches a table but the service; row-level security (a later migration) opens what users may read.
revoke all on all tables in schema ledgerq from public, anon, authenticated;
revoke execute on all functions in schema ledgerq from public, anon, authenticated;
grant usage on schema ledgerq to service_role, authenticated;
grant select, insert, update, delete on all tables in schema ledgerq to service_role;
grant execute on all functions in schema ledgerq to service_role;
insert into ledgerq.schema_version (version, subject) values ('20261122010000', 'tables');
