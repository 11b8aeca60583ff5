-- What the stand-in's own tests call and read. In a project of today nothing is granted by itself.

create table public.note (
  id bigint generated always as identity primary key,
  owner_id uuid default auth.uid(),
  body text unique not null,
  size int check (size < 1000)
);
alter table public.note enable row level security;
create policy own on public.note to authenticated using (owner_id = (select auth.uid())) with check (owner_id = (select auth.uid()));
grant select, insert, update, delete on public.note to authenticated, service_role;
grant select on public.note to anon;
create table public.closed (id int);
create table public.part (id int primary key, note_id bigint references public.note deferrable initially deferred);
grant all on public.part to service_role;

create type public.person as (name text, age int);

-- Arguments and results
create function public.echo(value jsonb) returns jsonb language sql immutable as $$ select value $$;
create function public.add(a int, b int default 10) returns int language sql stable as $$ select a + b $$;
create function public.nothing(note text default null) returns void language plpgsql as $$
begin
  if note is not null then
    insert into public.note (body) values (note);
  end if;
end $$;
create function public.no_text() returns text language sql stable as $$ select null::text $$;
create function public.someone() returns public.person language sql stable as $$ select 'Ada', 36 $$;
create function public.people(n int) returns setof public.person language sql stable
  as $$ select 'p' || i, i from generate_series(1, n) as i $$;
create function public.numbers(n int) returns setof int language sql stable as $$ select generate_series(1, n) $$;
create function public.pairs(n int) returns table (number int, word text) language sql stable
  as $$ select i, 'w' || i from generate_series(1, n) as i $$;
create function public.typed(ids uuid[], moment timestamptz, raw bytea, who public.person, all_of_them public.person[], fine boolean)
  returns jsonb language sql stable as $$
  select jsonb_build_object('ids', cardinality(ids), 'moment', moment at time zone 'UTC', 'raw', encode(raw, 'hex'),
    'who', who, 'ages', (select sum(one.age) from unnest(all_of_them) as one), 'fine', fine) $$;
create function public.whole(jsonb) returns jsonb language sql immutable as $$ select jsonb_build_object('got', $1) $$;
create function public.twice(a int) returns int language sql as $$ select 2 * a $$;
create function public.twice(a text) returns text language sql as $$ select a || a $$;
create function public.later() returns trigger language plpgsql as $$ begin return null; end $$;
create function public.only_service() returns int language sql as $$ select 1 $$;
revoke execute on function public.only_service() from public;
grant execute on function public.only_service() to service_role;

-- What a transaction is like inside
create function public.inside(names text[] default '{}') returns jsonb language sql as $$
  select jsonb_build_object('user', current_user, 'session', session_user, 'read_only', current_setting('transaction_read_only'),
    'isolation', current_setting('transaction_isolation'), 'backend', pg_backend_pid(), 'search_path', current_setting('search_path'),
    'statement_timeout', current_setting('statement_timeout'), 'lock_timeout', current_setting('lock_timeout'),
    'settings', (select jsonb_object_agg(name, current_setting(name, true)) from unnest(names) as name)) $$;
create function public.inside_stable() returns text language sql stable as $$ select current_setting('transaction_read_only') $$;
create function public.patient() returns text language sql set statement_timeout = '20s'
  as $$ select current_setting('statement_timeout') $$;
create function public.serial() returns text language sql set default_transaction_isolation = 'serializable'
  as $$ select current_setting('transaction_isolation') $$;
create function public.hasty(seconds float8) returns void language sql set statement_timeout = '50ms' as $$ select pg_sleep(seconds) $$;
create function public.sleep(seconds float8) returns void language sql as $$ select pg_sleep(seconds) $$;
create function public.says_stable() returns int language plpgsql stable as $$
begin
  perform public.nothing('from a stable function');
  return 1;
end $$;

-- Rows that a function changes, and gives back
create function public.claim(n int) returns setof public.note language sql as $$
  update public.note set size = 1 where id in (select id from public.note where size is null order by id limit n) returning * $$;

-- Errors
create function public.fail(code text, message text default 'as asked', detail text default '', hint text default '')
  returns int language plpgsql as $$
begin
  insert into public.note (body) values ('never committed');
  raise exception using errcode = code, message = message, detail = detail, hint = hint;
end $$;
create function public.refuse(message text, detail text default null) returns int language plpgsql as $$
begin
  if detail is null then
    raise sqlstate 'PGRST' using message = message;
  end if;
  raise sqlstate 'PGRST' using message = message, detail = detail;
end $$;
create function public.answer_teapot() returns void language sql as $$ select set_config('response.status', '418', true) $$;

-- Without WHERE
create function public.unsafe_update() returns int language plpgsql as $$
begin
  update public.note set size = 2;
  return 1;
end $$;
create function public.unsafe_delete() returns void language sql as $$ delete from public.note $$;
create function public.unsafe_inside() returns int language plpgsql as $$
begin
  with gone as (delete from public.note returning id) insert into public.part (id) select id from gone;
  return 1;
end $$;
create function public.unsafe_by_call() returns int language plpgsql as $$
begin
  return public.unsafe_update();
end $$;
create function public.safe() returns int language plpgsql as $$
declare
  changed int;
begin
  update public.note as n set size = 3 from public.part as p where p.note_id = n.id;
  with gone as (delete from public.part where true returning id) select count(*) into changed from gone;
  insert into public.note (body) values ('safe') on conflict (body) do update set size = 4;
  delete from public.note where body = 'safe';
  return changed;
end $$;
