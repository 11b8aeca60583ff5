-- Who may do what. Run by `supabase test db`, or anywhere with pgTAP.
begin;
select plan(9);

select has_schema('ledgerq');
select schema_privs_are('ledgerq', 'anon', '{}', 'anon has nothing to do with the ledger');

select is_empty(
  $$ select p.oid::pg_catalog.regprocedure from pg_catalog.pg_proc as p
     where p.pronamespace = 'ledgerq'::pg_catalog.regnamespace and not p.prosecdef
       and not pg_catalog.has_function_privilege('service_role', p.oid, 'execute') $$,
  'service_role executes every function that has no rights of its own'
);
select is_empty(
  $$ select p.oid::pg_catalog.regprocedure, r.role from pg_catalog.pg_proc as p, unnest(array['anon', 'authenticated', 'public']) as r (role)
     where p.pronamespace = 'ledgerq'::pg_catalog.regnamespace
       and pg_catalog.has_function_privilege(r.role, p.oid, 'execute') $$,
  'nobody else executes any'
);
select is_empty(
  $$ select f.name from unnest(array[
       'create_jobs', 'dispatch', 'start_run', 'advance_run', 'heartbeat_run', 'reconcile_runs', 'cancel_jobs', 'retry_jobs', 'job_get', 'explain'
     ]) as f (name) where pg_catalog.to_regprocedure(format('ledgerq.%I(jsonb)', f.name)) is null $$,
  'the functions that services and workers call are there'
);

select is_empty(
  $$ select c.relname from pg_catalog.pg_class as c
     where c.relnamespace = 'ledgerq'::pg_catalog.regnamespace and c.relkind in ('r', 'p') and not c.relrowsecurity $$,
  'every table has row-level security'
);
select is_empty(
  $$ select c.relname from pg_catalog.pg_class as c
     where c.relnamespace = 'ledgerq'::pg_catalog.regnamespace and c.relkind in ('r', 'p')
       and not exists (
         select from pg_catalog.pg_policies as p
         where p.schemaname = 'ledgerq' and p.tablename = c.relname and p.roles = '{service_role}' and p.cmd = 'ALL'
       ) $$,
  'every table lets service_role in'
);
select set_eq(
  $$ select p.tablename::text, p.cmd from pg_catalog.pg_policies as p where p.schemaname = 'ledgerq' and p.roles <> '{service_role}' $$,
  $$ values ('job', 'SELECT'), ('task', 'SELECT'), ('event', 'SELECT'), ('document', 'SELECT'), ('source', 'SELECT') $$,
  'users have a policy to read by on five tables, and none to write by'
);
select set_eq(
  $$ select c.relname::text, r.name from pg_catalog.pg_class as c,
       unnest(array['select', 'insert', 'update', 'delete', 'truncate', 'references', 'trigger']) as r (name)
     where c.relnamespace = 'ledgerq'::pg_catalog.regnamespace and c.relkind in ('r', 'p')
       and pg_catalog.has_table_privilege('authenticated', c.oid, r.name) $$,
  $$ values ('job', 'select'), ('task', 'select'), ('event', 'select'), ('document', 'select'), ('source', 'select') $$,
  'and no right but to read those'
);

select * from finish();
rollback;
