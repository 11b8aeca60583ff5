-- What a Supabase project has and a plain PostgreSQL (15 to 18) lacks: roles, auth.uid(), the realtime schema, default
-- timeouts. Run as superuser, once per database, as often as one likes. The migrations themselves run as `postgres`,
-- which here as there is not a superuser. Passwords are set elsewhere.

-- Roles -----------------------------------------------------------------------------------------------------------
do $$
declare
  wanted text;
begin
  foreach wanted in array array['anon', 'authenticated', 'service_role', 'supabase_realtime_admin'] loop
    if to_regrole(wanted) is null then
      execute format('create role %I nologin', wanted);
    end if;
  end loop;
  if to_regrole('authenticator') is null then
    create role authenticator login noinherit;
  end if;
  if to_regrole('postgres') is null then
    create role postgres login createdb createrole replication bypassrls;
  end if;
  -- Whoever works with the ledger directly: what service_role may, and nothing else. A Supabase project has no such role.
  if to_regrole('ledgerq_service') is null then
    create role ledgerq_service login inherit;
  end if;
  if exists (select from pg_roles where rolname = 'postgres' and rolsuper) then
    raise exception 'the role postgres is a superuser here: create the cluster with `initdb -U supabase_admin`';
  end if;
end $$;

alter role service_role bypassrls;
alter role ledgerq_service bypassrls;  -- an attribute is not inherited with the membership
grant service_role to ledgerq_service;
grant anon, authenticated, service_role to authenticator;
grant anon, authenticated, service_role, authenticator, supabase_realtime_admin to postgres;

alter role anon set statement_timeout = '3s';
alter role authenticated set statement_timeout = '8s';
alter role authenticator set statement_timeout = '8s';
alter role authenticator set lock_timeout = '8s';
-- What the others get from their project; the ledger's calls are made to be far below it.
alter role ledgerq_service set statement_timeout = '8s';
alter role ledgerq_service set lock_timeout = '8s';

-- The database ----------------------------------------------------------------------------------------------------
create schema if not exists extensions;

do $$
declare
  wanted text;
begin
  -- The embedded PostgreSQL has none of the three; a Supabase project has the first two.
  foreach wanted in array array['pgcrypto', 'uuid-ossp', 'pgtap'] loop
    if exists (select from pg_available_extensions where name = wanted) then
      execute format('create extension if not exists %I schema extensions', wanted);
    end if;
  end loop;
  if not exists (select from pg_publication where pubname = 'supabase_realtime') then
    create publication supabase_realtime;
  end if;
  execute format('grant all on database %I to postgres', current_database());
  execute format('alter database %I set search_path = "$user", public, extensions', current_database());
end $$;

alter publication supabase_realtime owner to postgres;
grant usage on schema extensions to public;
grant usage on schema public to anon, authenticated, service_role;
grant all on schema public to postgres;

-- auth ------------------------------------------------------------------------------------------------------------
create schema if not exists auth;
create schema if not exists storage;
grant usage on schema auth, storage to postgres, anon, authenticated, service_role;

create table if not exists auth.users (id uuid primary key default gen_random_uuid(), email text);
grant all on auth.users to postgres;

create or replace function auth.jwt() returns jsonb language sql stable
  as $$ select nullif(current_setting('request.jwt.claims', true), '')::jsonb $$;
create or replace function auth.uid() returns uuid language sql stable
  as $$ select (auth.jwt() ->> 'sub')::uuid $$;
create or replace function auth.role() returns text language sql stable
  as $$ select auth.jwt() ->> 'role' $$;

-- realtime --------------------------------------------------------------------------------------------------------
create schema if not exists realtime;
grant usage on schema realtime to postgres, anon, authenticated, service_role;

create table if not exists realtime.messages (
  id uuid default gen_random_uuid(),
  topic text not null,
  extension text not null,
  event text,
  payload jsonb,
  private boolean default true,
  inserted_at timestamp default now() not null,
  primary key (id, inserted_at)
);
alter table realtime.messages enable row level security;
alter table realtime.messages owner to supabase_realtime_admin;
grant select, insert, update on realtime.messages to postgres, anon, authenticated, service_role;

create or replace function realtime.topic() returns text language sql stable
  as $$ select nullif(current_setting('realtime.topic', true), '') $$;

-- The real one swallows its errors as warnings, and leaves the topic set until the transaction ends; so does this.
create or replace function realtime.send(payload jsonb, event text, topic text, private boolean default true)
  returns void language plpgsql as $$
begin
  perform set_config('realtime.topic', topic, true);
  insert into realtime.messages (payload, event, topic, private, extension) values ($1, $2, $3, $4, 'broadcast');
exception when others then
  raise warning 'realtime.send: %', sqlerrm;
end $$;

create or replace function realtime.broadcast_changes(
  topic_name text, event_name text, operation text, table_name text, table_schema text,
  new record, old record, level text default 'ROW'
) returns void language plpgsql as $$
begin
  perform realtime.send(
    jsonb_build_object(
      'operation', operation, 'table', table_name, 'schema', table_schema, 'record', new, 'old_record', old
    ),
    event_name, topic_name
  );
end $$;
