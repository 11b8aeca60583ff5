"""Counting tokens as OpenAI's embedding models do (encoding `cl100k_base`), without a network.

`toktok-rs` (MIT) carries the vocabulary in its wheel and counts exactly what tiktoken counts, an order of magnitude faster;
where it has no wheel, an installed tiktoken serves, which fetches its vocabulary once.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Final, Protocol

from ledgerq.errors import ConfigurationError

CL100K: Final = "cl100k_base"


class Tokenizer(Protocol):
    """Counts tokens. Two with the same name count the same."""

    @property
    def name(self) -> str: ...

    def count(self, texts: Sequence[str]) -> list[int]:
        """The number of tokens of each text. Text that looks like a special token counts as ordinary text."""
        ...


class Cl100k:
    """Exact counts of `cl100k_base`, loaded at the first count.

    Raises:
        ConfigurationError: at the first count, when neither toktok nor tiktoken can be had.
    """

    name = CL100K

    def __init__(self) -> None:
        self._count: Callable[[list[str]], list[int]] | None = None

    def count(self, texts: Sequence[str]) -> list[int]:
        if self._count is None:
            self._count = _toktok() or _tiktoken()
        return self._count(list(texts))


def _toktok() -> Callable[[list[str]], list[int]] | None:
    try:
        import toktok
    except ImportError:
        return None
    # One thread: a worker has one core, and the order of work stays the same everywhere.
    return lambda texts: toktok.batch_count(texts, CL100K, 1)


def _tiktoken() -> Callable[[list[str]], list[int]]:
    try:
        import tiktoken  # pyright: ignore[reportMissingImports] - not a dependency: the way out where toktok has no wheel

        encoding: Any = tiktoken.get_encoding(CL100K)  # pyright: ignore[reportUnknownMemberType, reportUnknownVariableType]
    except Exception as error:
        raise ConfigurationError(
            f"no tokenizer: install toktok-rs, or tiktoken with its vocabulary in TIKTOKEN_CACHE_DIR ({error})"
        ) from error
    return lambda texts: [len(ids) for ids in encoding.encode_ordinary_batch(texts, num_threads=1)]
