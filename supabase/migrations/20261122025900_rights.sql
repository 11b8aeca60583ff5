-- Who may do what. Last, so that it finds everything.
--
--   service_role    calls the functions, which read and write the tables as it (security invoker)
--   authenticated   reads its own jobs, tasks, events, documents and sources, and nothing else; writes nothing, calls nothing.
--                   Each of the five carries `owner_id` itself.
--   anon, public    nothing
-- _announce_job, which runs with its owner's rights, is nobody's to call: only its triggers do.

revoke all on schema ledgerq from public, anon;
revoke all on all tables in schema ledgerq from public, anon, authenticated;
revoke all on all sequences in schema ledgerq from public, anon, authenticated;
revoke execute on all functions in schema ledgerq from public, anon, authenticated;

grant usage on schema ledgerq to service_role, authenticated;
grant select, insert, update, delete on all tables in schema ledgerq to service_role;
grant usage on all sequences in schema ledgerq to service_role;
grant execute on all functions in schema ledgerq to service_role;
revoke execute on function ledgerq._announce_job() from service_role;
grant select on ledgerq.job, ledgerq.task, ledgerq.event, ledgerq.document, ledgerq.source to authenticated;

-- Row-level security on every table, so that a grant made by mistake still opens nothing. service_role itself passes it by an
-- attribute of the role, which a login role that is a member of it does not inherit: hence the policy.
do $$
declare
  v_table text;
begin
  for v_table in select c.relname from pg_catalog.pg_class as c
    where c.relnamespace = 'ledgerq'::pg_catalog.regnamespace and c.relkind in ('r', 'p') order by c.relname
  loop
    execute format('alter table ledgerq.%I enable row level security', v_table);
    execute format('create policy service on ledgerq.%I for all to service_role using (true) with check (true)', v_table);
  end loop;
end $$;

-- `(select auth.uid())` is asked once a statement, not once a row.
create policy own on ledgerq.job for select to authenticated using (owner_id = (select auth.uid()));
create policy own on ledgerq.event for select to authenticated using (owner_id = (select auth.uid()));
create policy own on ledgerq.document for select to authenticated using (owner_id = (select auth.uid()));
create policy own on ledgerq.source for select to authenticated using (owner_id = (select auth.uid()));
create policy own on ledgerq.task for select to authenticated using (owner_id = (select auth.uid()));

insert into ledgerq.schema_version (version, subject) values ('20261122025900', 'rights');

-- PostgREST learns the functions and tables at once; nobody else listens.
notify pgrst, 'reload schema';
