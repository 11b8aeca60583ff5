"""Everything that ledgerq needs of the world, on this machine: PostgreSQL, Valkey and a vector server.

with PostgresServer(directory) as postgres: ...      one server, for a test
Stack(directory, services=[...]).up()                all of them, supervised, with services of ours
"""

from ledgerq.local.postgres import PostgresServer
from ledgerq.local.stack import Stack
from ledgerq.local.state import PartState, PartStatus, Phase, ServerName, Service, StackStatus
from ledgerq.local.valkey import ValkeyServer
from ledgerq.local.vectors import VectorServer

__all__ = [
    "PartState",
    "PartStatus",
    "Phase",
    "PostgresServer",
    "ServerName",
    "Service",
    "Stack",
    "StackStatus",
    "ValkeyServer",
    "VectorServer",
]
