"""What a worker does once, before it forks: every horse finds it done, and shares the memory of it."""

from __future__ import annotations

import gc
from dataclasses import replace
from importlib import import_module
from typing import Final

from ledgerq.execution.parts import WorkerParts
from ledgerq.execution.standing import StandingKeeper

NEEDED_LATER: Final = (
    "encodings.idna",
    "ledgerq.dispatch.dispatcher",
    "ledgerq.execution.deliver",
    "ledgerq.ledger.postgres",
    "ledgerq.worker",
    "rq.executions",
)
"""Modules that would otherwise be imported after the fork, in each horse again."""

_kept: list[WorkerParts] = []


def preload(parts: WorkerParts) -> None:
    """Import what horses need, start what serves them (the line, the keeper), and keep the parts for them. Call it once, before
    any thread starts.

    Raises:
        ConfigurationError: a handler wants something that nobody provides.
    """
    parts.handlers.check()
    for module in NEEDED_LATER:
        import_module(module)
    gc.collect()
    gc.freeze()  # a horse's collector must not write to the pages that it shares with its parent
    line = None if parts.open_line is None else parts.open_line()
    keeper = StandingKeeper.open(parts)
    _kept[:] = [replace(parts, horse_ledger=line, attend=None if keeper is None else keeper.attend)]


def preloaded() -> WorkerParts | None:
    """The parts that were kept in this process, or in the one that it was forked from."""
    return _kept[0] if _kept else None
