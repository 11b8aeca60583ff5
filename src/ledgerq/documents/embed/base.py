"""What every embedder is to the rest."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, TypeAlias

Vector: TypeAlias = list[float]


@dataclass(frozen=True, slots=True)
class Embedded:
    """One vector per text, in the order of the texts, and what it took."""

    vectors: list[Vector]
    tokens: int
    """As the provider billed them, or counted here where nobody bills."""
    cost: float = 0.0
    """In US dollars."""


class Embedder(Protocol):
    """Makes vectors of unit length. Safe to use from `concurrency` threads; made after a fork, never before."""

    @property
    def name(self) -> str:
        """Model and dimensions: vectors of two embedders are comparable if and only if their names are equal."""
        ...

    @property
    def provider(self) -> str: ...

    @property
    def dimensions(self) -> int: ...

    @property
    def max_tokens(self) -> int:
        """Longest text, in tokens of `cl100k_base`."""
        ...

    @property
    def max_batch_items(self) -> int: ...

    @property
    def max_batch_tokens(self) -> int: ...

    @property
    def concurrency(self) -> int:
        """Calls that may run at the same time."""
        ...

    def embed(self, texts: Sequence[str]) -> Embedded:
        """Vectors of at least one and at most `max_batch_items` texts, none of them empty.

        Raises:
            EmbedderUnavailable: it does not answer, or asks to wait (`retry_after`); the same call may be repeated.
            ConfigurationError: key, quota or model are refused; waiting does not help.
            InvalidInput: this batch can never be embedded.
        """
        ...

    def close(self) -> None: ...
