"""The way to the ledger over HTTP: supabase-py's `rpc`, for whoever has nothing but a project's address and its secret key."""

from ledgerq.ledger.supabase.calls import SupabaseTransport

__all__ = ["SupabaseTransport"]
