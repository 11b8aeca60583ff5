"""Packing: in order, within the limits, nothing lost."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from ledgerq.documents.embed.offline import OfflineEmbedder
from ledgerq.documents.embed.openai import OpenAIEmbedder
from ledgerq.documents.embed.pack import Item, Packer


class Small(OfflineEmbedder):
    max_batch_items = 5
    max_batch_tokens = 100
    max_tokens = 60


def packer(sizes: list[int], owners: list[str] | None = None) -> Packer[str]:
    made: Packer[str] = Packer(Small())
    made.add(Item(owners[place] if owners else "a", place, f"text {place}", size) for place, size in enumerate(sizes))
    return made


@given(st.lists(st.integers(1, 60), max_size=60))
def test_requests_keep_order_and_limits(sizes: list[int]) -> None:
    waiting = packer(sizes)
    requests: list[list[Item[str]]] = []
    while len(waiting):
        requests.append(waiting.take())
    assert [item.position for request in requests for item in request] == list(range(len(sizes)))
    assert all(1 <= len(request) <= 5 and sum(item.tokens for item in request) <= 100 for request in requests)
    assert not waiting.is_full


def test_requests_are_as_large_as_the_provider_and_memory_allow() -> None:
    def requests_of(dimensions: int, tokens: int) -> list[int]:
        waiting: Packer[str] = Packer(OpenAIEmbedder("any", api_key="key", dimensions=dimensions))
        waiting.add(Item("a", number, "text", tokens) for number in range(4_096))
        return [len(waiting.take()) for _ in range(2)]

    assert requests_of(256, 10) == [2_048, 2_048]
    assert requests_of(256, 500) == [600, 600]
    assert requests_of(1_536, 10) == [682, 682]


def test_full_is_a_requests_worth() -> None:
    assert not packer([10] * 4).is_full
    assert packer([10] * 5).is_full
    assert packer([60, 40]).is_full
    assert packer([]).take() == []


def test_what_is_dropped_does_not_count() -> None:
    waiting = packer([40, 40, 40], ["a", "b", "a"])
    assert waiting.is_full
    assert waiting.drop("a") == 2
    assert not waiting.is_full
    assert [item.owner for item in waiting.take()] == ["b"]
    assert len(waiting) == 0


def test_several_owners_share_a_request() -> None:
    assert [item.owner for item in packer([1, 1, 1], ["a", "b", "c"]).take()] == ["a", "b", "c"]
