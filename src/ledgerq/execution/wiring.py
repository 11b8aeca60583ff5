"""A worker's parts from its settings and handlers. `assembly` decides about the handlers; the rest is the same for all."""

from __future__ import annotations

from collections.abc import Sequence

from redis import Redis

from ledgerq.dispatch.connection import connect_redis
from ledgerq.dispatch.dispatcher import Dispatcher
from ledgerq.dispatch.run_queue import RunQueue
from ledgerq.execution.line import Line, LineTransport
from ledgerq.execution.parts import LedgerFactory, Push, Remove, RunLedger, WorkerParts
from ledgerq.handlers import Handlers
from ledgerq.ledger import LedgerStore, open_store, open_transport, transport_module
from ledgerq.models import RunTicket
from ledgerq.settings import Settings

DEFAULT_TASK_TIMEOUT_S = 300.0


def wire(settings: Settings, handlers: Handlers, *, remove: Remove | None = None, modules: tuple[str, ...] = ()) -> WorkerParts:
    """Everything that a worker's horses need. Opens nothing: each process connects when it first asks.

    Args:
        modules: what handlers need that is to be imported before the fork.
        remove: removes points that an acknowledgement made garbage; without it they wait for the sweeper.
    """

    def push_with(ledger: RunLedger, redis: Redis) -> Push:
        dispatcher = Dispatcher(ledger, RunQueue(redis, result_ttl_s=settings.result_ttl_s))

        def push(tickets: Sequence[RunTicket]) -> None:
            dispatcher.push(tickets)

        return push

    return WorkerParts(
        ledger=lambda: open_store(settings),
        handlers=handlers,
        redis=lambda: connect_redis(settings),
        push_with=push_with,
        task_timeout_s=settings.task_timeout_s or DEFAULT_TASK_TIMEOUT_S,
        remove=remove,
        open_line=lambda: _line_of(settings),
        modules=(transport_module(settings), *modules),
    )


def _line_of(settings: Settings) -> LedgerFactory:
    line = Line.open(lambda: open_transport(settings))
    return lambda: LedgerStore(LineTransport(line, lambda: open_transport(settings)))
