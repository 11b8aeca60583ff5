"""Pruner and sweeper: bounded rounds, and nothing forgotten that may still be there."""

from __future__ import annotations

from dataclasses import dataclass, field
from uuid import UUID

import pytest

from ledgerq.errors import VectorsUnavailable
from ledgerq.ledger.answers import GarbageGone, GarbageItem, Pruned
from ledgerq.stewardship.pruner import BATCHES_A_ROUND, Pruner, PruneReport
from ledgerq.stewardship.sweeper import BATCH, Sweeper, SweepReport


@dataclass
class History:
    batches: list[Pruned]
    asked: list[tuple[float, int]] = field(default_factory=list)

    def prune(self, *, finished_before_s: float, limit: int) -> Pruned:
        self.asked.append((finished_before_s, limit))
        return self.batches.pop(0)


def test_the_pruner_goes_on_while_there_is_more() -> None:
    history = History([Pruned(jobs=1_000, runs=3, more=True), Pruned(jobs=4, events=2)])
    assert Pruner(history, 86_400.0).run_once() == PruneReport(jobs=1_004, runs=3, events=2)
    assert history.asked == [(86_400.0, 1_000)] * 2


def test_a_round_of_the_pruner_is_bounded_and_stops_when_told() -> None:
    assert Pruner(History([Pruned(jobs=1, more=True)] * 99), 1.0).run_once().jobs == BATCHES_A_ROUND
    assert Pruner(History([Pruned(jobs=1, more=True)] * 99), 1.0).run_once(lambda: True) == PruneReport(jobs=1, more=True)


@dataclass
class Garbage:
    items: list[GarbageItem]
    said: list[GarbageGone] = field(default_factory=list)

    def garbage(self, *, limit: int, reader_grace_s: float) -> list[GarbageItem]:
        assert reader_grace_s == 60.0
        taken, self.items = self.items[:limit], self.items[limit:]
        return taken

    def garbage_gone(self, items: list[GarbageGone]) -> None:
        self.said += items


@dataclass
class Points:
    """A vector store that keeps a point of generation 7, refuses generation 8, and goes away at generation 9."""

    def remove(self, item: GarbageItem) -> int:
        if item.generation == 9:
            raise VectorsUnavailable("Qdrant is away")
        if item.generation == 8:
            raise ValueError("nobody thought of generation 8")
        return 1 if item.generation == 7 else 0


def items(*generations: int) -> list[GarbageItem]:
    return [GarbageItem(document=UUID(int=1), generation=generation) for generation in generations]


def test_the_sweeper_says_what_it_counted() -> None:
    ledger = Garbage(items(1, 7))
    assert Sweeper(ledger, Points(), 60.0).run_once() == SweepReport(removed=1, left=1)
    assert [(item.generation, item.remaining) for item in ledger.said] == [(1, 0), (7, 1)]


def test_what_was_removed_before_the_store_went_away_is_recorded() -> None:
    ledger = Garbage(items(1, 2, 9, 3))
    with pytest.raises(VectorsUnavailable):
        Sweeper(ledger, Points(), 60.0).run_once()
    assert [item.generation for item in ledger.said] == [1, 2]


def test_an_item_that_the_store_refuses_stops_no_other() -> None:
    ledger = Garbage(items(1, 8, 3))
    with pytest.raises(ValueError, match="generation 8"):
        Sweeper(ledger, Points(), 60.0).run_once()
    assert [item.generation for item in ledger.said] == [1, 3]


def test_full_batches_are_followed_by_the_next() -> None:
    ledger = Garbage(items(*[1] * (BATCH + 5)))
    assert Sweeper(ledger, Points(), 60.0).run_once().removed == BATCH + 5
