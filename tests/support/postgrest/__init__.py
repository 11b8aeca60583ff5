"""A stand-in for a Supabase project's Data API: its gateway and PostgREST, as one small HTTP server over a real PostgreSQL.

It is not PostgREST. What it answers is taken from PostgREST's documentation (errors, transactions, schema cache) and from what
its releases 13 to 16 do; what it does not know it refuses with status 501 and the code `STANDIN`, so that no test passes on a
guess. Statements run in the database as they do there: as the role of the JWT, in one transaction with its settings, arguments
typed by `json_to_record`. Known differences: hints about near names are found by another measure; the `safeupdate` extension is
replaced by a watch on the parse trees (see `safeupdate`), which also refuses where a function would have caught the error;
there is no back-off between attempts to read the schema cache, each request makes one.

    with serve_postgrest(database) as server:
        client = create_client(server.url, server.service_key, SyncClientOptions(schema="ledgerq"))
"""

from __future__ import annotations

from tests.support.postgrest.server import PostgrestServer, serve_postgrest

__all__ = ["PostgrestServer", "serve_postgrest"]
