"""What a worker does once, before it forks: every horse finds it done, and shares the memory of it."""

from __future__ import annotations

import gc
from dataclasses import replace
from importlib import import_module
from typing import Final

from ledgerq.execution.kill_note import KillNote
from ledgerq.execution.parts import WorkerParts
from ledgerq.execution.standing import StandingKeeper

NEEDED_LATER: Final = (
    "encodings.idna",
    "ledgerq.dispatch.dispatcher",
    "ledgerq.execution.deliver",
    "ledgerq.worker",
    "rq.executions",
)
"""Modules that would otherwise be imported after the fork, in each horse again; `WorkerParts.modules` has the others."""

_kept: list[WorkerParts] = []


def preload(parts: WorkerParts) -> WorkerParts:
    """Import what horses need, start what serves them (the line, the keeper), and keep the parts for them, which are returned.
    Call it once, before any thread starts.

    Raises:
        ConfigurationError: a handler wants something that nobody provides.
    """
    parts.handlers.check()
    for module in (*NEEDED_LATER, *parts.modules):
        import_module(module)
    gc.collect()
    gc.freeze()  # a horse's collector must not write to the pages that it shares with its parent
    line = None if parts.open_line is None else parts.open_line()
    parts = replace(parts, horse_ledger=line, killed=KillNote())
    keeper = StandingKeeper.open(parts)
    kept = parts if keeper is None else replace(parts, attend=keeper.attend)
    _kept[:] = [kept]
    return kept


def preloaded() -> WorkerParts | None:
    """The parts that were kept in this process, or in the one that it was forked from."""
    return _kept[0] if _kept else None
