"""Packing the chunks of several documents into requests that a provider takes."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final, Generic, TypeVar

from ledgerq.documents.embed.base import Embedder

T = TypeVar("T")

_MEMORY: Final = 32 * 1024 * 1024
"""Bytes that the vectors of a request may take while they are stored: 682 vectors of 1,536 dimensions. As many requests are in
memory as the embedder allows at once."""
_NUMBER: Final = 32
"""Bytes of a number in a Python list."""


@dataclass(frozen=True, slots=True)
class Item(Generic[T]):
    """One text to embed, whose it is, and which of theirs."""

    owner: T
    position: int
    text: str
    tokens: int


class Packer(Generic[T]):
    """A queue of texts that is taken from in requests, in order, each within the embedder's limits and 32 MiB of vectors."""

    def __init__(self, embedder: Embedder) -> None:
        self._most_items = min(embedder.max_batch_items, max(1, _MEMORY // (_NUMBER * embedder.dimensions)))
        self._most_tokens = embedder.max_batch_tokens
        self._waiting: deque[Item[T]] = deque()
        self._tokens = 0

    def __len__(self) -> int:
        return len(self._waiting)

    def add(self, items: Iterable[Item[T]]) -> None:
        for item in items:
            self._waiting.append(item)
            self._tokens += item.tokens

    @property
    def is_full(self) -> bool:
        """Whether there is a request's worth."""
        return len(self._waiting) >= self._most_items or self._tokens >= self._most_tokens

    def take(self) -> list[Item[T]]:
        """The next request: as many as fit, at least one if any wait."""
        taken: list[Item[T]] = []
        tokens = 0
        while self._waiting and len(taken) < self._most_items:
            if taken and tokens + self._waiting[0].tokens > self._most_tokens:
                break
            item = self._waiting.popleft()
            tokens += item.tokens
            taken.append(item)
        self._tokens -= tokens
        return taken

    def drop(self, owner: T) -> int:
        """Forget what waits for that owner; returns how much it was."""
        kept = [item for item in self._waiting if item.owner is not owner]
        dropped = len(self._waiting) - len(kept)
        self._waiting = deque(kept)
        self._tokens = sum(item.tokens for item in kept)
        return dropped
