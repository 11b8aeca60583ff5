"""Functions beside the ledger's own, in a test database, that do on demand what real ones do rarely."""

from __future__ import annotations

import psycopg

PROBES = """
create table ledgerq.probe (id bigint generated always as identity primary key, note text);
create sequence ledgerq.probe_tries;
grant all on ledgerq.probe, ledgerq.probe_tries to service_role;

-- {value} -> the same
create function ledgerq.probe_echo(request jsonb) returns jsonb language sql as $$ select request $$;

-- {sqlstate, message?, hint?} -> never answers
create function ledgerq.probe_raise(request jsonb) returns jsonb language plpgsql as $$
begin
  raise exception using errcode = request ->> 'sqlstate', message = coalesce(request ->> 'message', 'as asked'),
    hint = coalesce(request ->> 'hint', '');
end $$;

-- {sqlstate, times} -> fails so often, then writes a row: {tries}. A sequence is not rolled back.
create function ledgerq.probe_flaky(request jsonb) returns jsonb language plpgsql as $$
declare
  tries bigint := nextval('ledgerq.probe_tries');
begin
  insert into ledgerq.probe (note) values ('flaky');
  if tries <= (request ->> 'times')::int then
    raise exception using errcode = request ->> 'sqlstate', message = 'not yet';
  end if;
  return jsonb_build_object('tries', tries);
end $$;

-- {note} -> writes a row: {rows}
create function ledgerq.probe_write(request jsonb) returns jsonb language plpgsql as $$
begin
  insert into ledgerq.probe (note) values (request ->> 'note');
  return jsonb_build_object('rows', (select count(*) from ledgerq.probe where note = request ->> 'note'));
end $$;

-- {seconds} -> sleeps
create function ledgerq.probe_sleep(request jsonb) returns jsonb language plpgsql as $$
begin
  perform pg_sleep((request ->> 'seconds')::float8);
  return '{}';
end $$;

-- {lock} -> returns when it got the advisory lock, which its transaction then gives up
create function ledgerq.probe_held(request jsonb) returns jsonb language plpgsql as $$
begin
  perform pg_advisory_xact_lock((request ->> 'lock')::bigint);
  return '{}';
end $$;

-- {} -> {backend, transaction, settings}: what a session would remember
create function ledgerq.probe_session(request jsonb) returns jsonb language sql as $$
  select jsonb_build_object(
    'backend', pg_backend_pid(), 'prepared', (select count(*) from pg_prepared_statements), 'user', session_user,
    'transaction', txid_current()::text, 'advisory', (select count(*) from pg_locks where locktype = 'advisory' and pid = pg_backend_pid())
  ) $$;

create function ledgerq.probe_null(request jsonb) returns jsonb language sql as $$ select null::jsonb $$;
grant execute on all functions in schema ledgerq to service_role;
notify pgrst, 'reload schema';
"""


def install_probes(dsn: str) -> None:
    """Add them. `dsn` is the owner's."""
    with psycopg.connect(dsn, autocommit=True) as connection:
        connection.execute(PROBES.encode())
