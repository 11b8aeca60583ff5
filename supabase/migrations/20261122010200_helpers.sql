-- Reading requests. A mistake of the caller is an error that names the field and the value, and says what to do.
--
--   LQ001 invalid input · LQ002 too large · LQ003 unknown queue · LQ004 step from the future · LQ005 unknown document or source

create function ledgerq._invalid(p_field text, p_value text, p_want text) returns void
language plpgsql set search_path = ''
as $$
begin
  raise exception using
    errcode = 'LQ001',
    message = format('%s: %s is not %s', p_field, coalesce(quote_literal(left(p_value, 100)), 'nothing'), p_want),
    hint = format('Give %s as %s.', p_field, p_want);
end $$;

create function ledgerq._too_large(p_field text, p_size bigint, p_limit bigint, p_unit text, p_hint text) returns void
language plpgsql set search_path = ''
as $$
begin
  raise exception using
    errcode = 'LQ002',
    message = format('%s: %s %s, at most %s are taken', p_field, p_size, p_unit, p_limit),
    hint = p_hint;
end $$;

create function ledgerq._text(request jsonb, p_field text, p_max int default 200) returns text
language plpgsql immutable set search_path = ''
as $$
declare
  v jsonb := request -> p_field;
begin
  if v is null or v = 'null' then
    return null;
  end if;
  if jsonb_typeof(v) <> 'string' or length(v #>> '{}') > p_max then
    perform ledgerq._invalid(p_field, v #>> '{}', format('a text of at most %s characters', p_max));
  end if;
  return v #>> '{}';
end $$;

create function ledgerq._name(request jsonb, p_field text) returns text
language plpgsql immutable set search_path = ''
as $$
declare
  v text := request ->> p_field;
begin
  if v is null or v !~ '^[a-z0-9][a-z0-9_.-]{0,62}$' then
    perform ledgerq._invalid(p_field, v, 'a name of 1 to 63 characters out of a-z 0-9 _ . - that starts with a letter or digit');
  end if;
  return v;
end $$;

create function ledgerq._is_uuid(p text) returns boolean
language plpgsql immutable set search_path = ''
as $$
begin
  return p ~* '^[0-9a-f]{8}-?[0-9a-f]{4}-?[0-9a-f]{4}-?[0-9a-f]{4}-?[0-9a-f]{12}$';
end $$;

create function ledgerq._uuid(request jsonb, p_field text) returns uuid
language plpgsql immutable set search_path = ''
as $$
declare
  v text := request ->> p_field;
begin
  if v is null then
    return null;
  end if;
  if not ledgerq._is_uuid(v) then
    perform ledgerq._invalid(p_field, v, 'a uuid');
  end if;
  return v::uuid;
end $$;

create function ledgerq._required_uuid(request jsonb, p_field text) returns uuid
language plpgsql immutable set search_path = ''
as $$
begin
  if request ->> p_field is null then
    perform ledgerq._invalid(p_field, null, 'a uuid');
  end if;
  return ledgerq._uuid(request, p_field);
end $$;

create function ledgerq._array(request jsonb, p_field text, p_max int) returns jsonb
language plpgsql immutable set search_path = ''
as $$
declare
  v jsonb := request -> p_field;
begin
  if v is null or jsonb_typeof(v) <> 'array' then
    perform ledgerq._invalid(p_field, v::text, 'a list');
  end if;
  if jsonb_array_length(v) > p_max then
    perform ledgerq._too_large(p_field, jsonb_array_length(v), p_max, 'entries', 'Send them in several calls.');
  end if;
  return v;
end $$;

create function ledgerq._uuids(request jsonb, p_field text, p_max int) returns uuid[]
language plpgsql immutable set search_path = ''
as $$
declare
  v jsonb := ledgerq._array(request, p_field, p_max);
  v_wrong text;
begin
  select coalesce(x, 'null') into v_wrong from jsonb_array_elements_text(v) x where ledgerq._is_uuid(x) is not true limit 1;
  if found then
    perform ledgerq._invalid(p_field, v_wrong, 'a list of uuids');
  end if;
  return array(select x::uuid from jsonb_array_elements_text(v) with ordinality e(x, o) order by o);
end $$;

create function ledgerq._number(request jsonb, p_field text, p_low double precision, p_high double precision) returns double precision
language plpgsql immutable set search_path = ''
as $$
declare
  v jsonb := request -> p_field;
begin
  if v is null or v = 'null' then
    return null;
  end if;
  if jsonb_typeof(v) <> 'number' or not ((v #>> '{}')::numeric between p_low::numeric and p_high::numeric) then
    perform ledgerq._invalid(p_field, v #>> '{}', format('a number from %s to %s', p_low, p_high));
  end if;
  return (v #>> '{}')::double precision;
end $$;

create function ledgerq._integer(request jsonb, p_field text, p_low int, p_high int) returns int
language plpgsql immutable set search_path = ''
as $$
declare
  v double precision := ledgerq._number(request, p_field, p_low, p_high);
begin
  if v <> trunc(v) then
    perform ledgerq._invalid(p_field, v::text, format('a whole number from %s to %s', p_low, p_high));
  end if;
  return v::int;
end $$;

create function ledgerq._flag(request jsonb, p_field text, p_default boolean) returns boolean
language plpgsql immutable set search_path = ''
as $$
declare
  v jsonb := request -> p_field;
begin
  if v is null or v = 'null' then
    return p_default;
  end if;
  if jsonb_typeof(v) <> 'boolean' then
    perform ledgerq._invalid(p_field, v::text, 'true or false');
  end if;
  return v::boolean;
end $$;

create function ledgerq._object(request jsonb, p_field text, p_max_bytes int) returns jsonb
language plpgsql immutable set search_path = ''
as $$
declare
  v jsonb := request -> p_field;
begin
  if v is null or v = 'null' then
    return null;
  end if;
  if jsonb_typeof(v) <> 'object' then
    perform ledgerq._invalid(p_field, v::text, 'an object');
  end if;
  if octet_length(v::text) > p_max_bytes then
    perform ledgerq._too_large(p_field, octet_length(v::text), p_max_bytes, 'bytes', 'Keep what is large elsewhere, and name it here.');
  end if;
  return v;
end $$;

create function ledgerq._time(request jsonb, p_field text) returns timestamptz
language plpgsql stable set search_path = ''
as $$
declare
  v text := request ->> p_field;
begin
  if v is null then
    return null;
  end if;
  -- A time without a zone would be read in the zone of the session, which is nobody's intention.
  if v ~ '^\d{4}-\d\d-\d\d[T ]\d\d:\d\d(:\d\d(\.\d+)?)?(Z|[+-]\d\d(:?\d\d)?)$' then
    begin
      return v::timestamptz;
    exception when datetime_field_overflow or invalid_datetime_format then
      null;
    end;
  end if;
  perform ledgerq._invalid(p_field, v, 'a time in ISO 8601 with its zone');
end $$;

create function ledgerq._priority(p_name text) returns smallint
language plpgsql immutable set search_path = ''
as $$
begin
  return (array_position(array['low', 'normal', 'high', 'urgent'], p_name) - 1)::smallint;
end $$;

create function ledgerq._priority_name(p_priority smallint) returns text
language plpgsql immutable set search_path = ''
as $$
begin
  return (array['low', 'normal', 'high', 'urgent'])[p_priority + 1];
end $$;

create function ledgerq._seconds(p double precision) returns interval
language plpgsql immutable set search_path = ''
as $$
begin
  return pg_catalog.make_interval(secs => p);
end $$;

create function ledgerq._queue(p_name text) returns ledgerq.queue
language plpgsql stable set search_path = ''
as $$
declare
  v ledgerq.queue;
begin
  select * into v from ledgerq.queue q where q.name = p_name;
  if not found then
    raise exception using
      errcode = 'LQ003',
      message = format('queue: the ledger has no queue %s', coalesce(quote_literal(left(p_name, 100)), 'without a name')),
      hint = 'Create it with `ledgerq queue save`, or correct the name.';
  end if;
  return v;
end $$;

revoke execute on all functions in schema ledgerq from public, anon, authenticated;
grant execute on all functions in schema ledgerq to service_role;
insert into ledgerq.schema_version (version, subject) values ('20261122010200', 'helpers');
