"""The direct way to the ledger: psycopg over a connection string, also through a transaction pooler."""

from ledgerq.ledger.postgres.calls import PostgresTransport

__all__ = ["PostgresTransport"]
