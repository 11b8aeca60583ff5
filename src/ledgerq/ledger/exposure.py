"""Who else may reach into the ledger: rights of the roles that a Supabase project hands to browsers."""

from __future__ import annotations

from typing import Final

import psycopg

from ledgerq.errors import LedgerUnavailable

_EXPOSED: Final = b"""
    with roles as (
      select oid, rolname from pg_catalog.pg_roles where rolname in ('anon', 'authenticated') union all select 0, 'public'
    )
    select roles.rolname || ' may execute ' || count(*) || ' functions, ' || min(proc.proname) || ' for one'
    from pg_catalog.pg_proc as proc
    cross join lateral aclexplode(coalesce(proc.proacl, acldefault('f', proc.proowner))) as acl
    join roles on roles.oid = acl.grantee
    where proc.pronamespace = to_regnamespace('ledgerq') and acl.privilege_type = 'EXECUTE'
      and exists (
        select from pg_catalog.pg_roles as role
        where role.rolname in ('anon', 'authenticated') and roles.oid in (0, role.oid)
          and has_schema_privilege(role.oid, 'ledgerq', 'USAGE')
      )
    group by roles.rolname
    union all
    select roles.rolname || ' may change ' || count(distinct class.oid) || ' tables, ' || min(class.relname) || ' for one'
    from pg_catalog.pg_class as class
    cross join lateral aclexplode(class.relacl) as acl
    join roles on roles.oid = acl.grantee
    where class.relnamespace = to_regnamespace('ledgerq') and class.relkind in ('r', 'p', 'v')
      and acl.privilege_type in ('INSERT', 'UPDATE', 'DELETE', 'TRUNCATE')
    group by roles.rolname
    union all
    select roles.rolname || ' may use ' || count(distinct class.oid) || ' sequences, ' || min(class.relname) || ' for one'
    from pg_catalog.pg_class as class
    cross join lateral aclexplode(class.relacl) as acl
    join roles on roles.oid = acl.grantee
    where class.relnamespace = to_regnamespace('ledgerq') and class.relkind = 'S'
    group by roles.rolname
    union all
    select roles.rolname || ' may read ' || count(distinct class.oid) || ' tables beyond its own rows, ' || min(class.relname) || ' for one'
    from pg_catalog.pg_class as class
    cross join lateral (
      select whole.* from aclexplode(class.relacl) as whole
      union all
      select part.* from pg_catalog.pg_attribute as column_ cross join lateral aclexplode(column_.attacl) as part
      where column_.attrelid = class.oid
    ) as acl
    join roles on roles.oid = acl.grantee
    where class.relnamespace = to_regnamespace('ledgerq') and class.relkind in ('r', 'p', 'v', 'm', 'f') and acl.privilege_type = 'SELECT'
      and not (roles.rolname = 'authenticated' and class.relname in ('job', 'task', 'event', 'document', 'source') and class.relrowsecurity)
    group by roles.rolname
    union all
    select roles.rolname || ' may see rows by ' || count(*) || ' policies beside ours, '
      || min(policy.polname || ' on ' || class.relname) || ' for one'
    from pg_catalog.pg_policy as policy
    join pg_catalog.pg_class as class on class.oid = policy.polrelid
    join roles on roles.oid = any (policy.polroles)
    where class.relnamespace = to_regnamespace('ledgerq') and policy.polname <> 'own'
    group by roles.rolname
    order by 1
"""


def exposed_rights(dsn: str, *, timeout_s: float) -> tuple[str, ...]:
    """Rights in the ledger's schema that nobody but `service_role` should have, one sentence each; none where all is well.

    Raises:
        LedgerUnavailable: the database does not answer.
    """
    try:
        with psycopg.connect(dsn, connect_timeout=max(2, round(timeout_s)), autocommit=True, prepare_threshold=None) as connection:
            return tuple(str(row[0]) for row in connection.execute(_EXPOSED).fetchall())
    except psycopg.Error as error:
        raise LedgerUnavailable(f"the rights in the ledger cannot be looked at: {' '.join(str(error).split())}") from error
